//! What a key operation costs in a running node, as a ratio to a *ceiling*: bare hyper and rustls that do the same
//! cryptography over the same mutual TLS, and nothing else. Interleaved rounds of one run, server CPU for each request,
//! the median of the rounds' ratios: what can be compared between machines.
//!
//! `holdfast-bench-kes --dir DIR` measures the central of a deployment that `holdfast dev --dir DIR` runs.

mod ceiling;
mod client;
mod rounds;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What a server is asked to do.
const OPERATIONS: [&str; 3] = ["generate", "encrypt", "decrypt"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let asked = match words.as_slice() {
        ["ceiling"] => run(ceiling::serve()),
        ["--dir", dir] => run(rounds::compare(&PathBuf::from(dir), (5, Duration::from_secs(2)))),
        ["--dir", dir, "--rounds", rounds] => match rounds.parse() {
            Ok(rounds) => run(rounds::compare(&PathBuf::from(dir), (rounds, Duration::from_secs(2)))),
            Err(_) => Err(usage()),
        },
        _ => Err(usage()),
    };
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-kes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> std::io::Error {
    std::io::Error::other("usage: holdfast-bench-kes --dir DIR [--rounds N]")
}

fn run(work: impl Future<Output = std::io::Result<()>>) -> std::io::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
