//! What a key operation costs in a running node, as a ratio to a *ceiling*: bare hyper and rustls that do the same
//! cryptography over the same mutual TLS, and nothing else. Interleaved rounds of one run, server CPU for each request,
//! the median of the rounds' ratios: what can be compared between machines.
//!
//! `holdfast-bench-kes --dir DIR` measures the central of a deployment that `holdfast dev --dir DIR` runs; with `--host
//! HOST` that host of a site, with `--operation NAME` one operation only.

mod ceiling;
mod client;
mod deployment;
mod rounds;

use std::io::Error;
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
        _ => Asked::of(&words).and_then(|asked| run(asked.compare())),
    };
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-kes: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be measured.
#[derive(Default)]
struct Asked<'a> {
    dir: PathBuf,
    host: Option<&'a str>,
    operation: Option<&'a str>,
    rounds: Option<usize>,
}

impl<'a> Asked<'a> {
    fn of(words: &[&'a str]) -> Result<Self, Error> {
        let usage =
            || Error::other("usage: holdfast-bench-kes --dir DIR [--host HOST] [--operation NAME] [--rounds N]");
        let mut asked = Self::default();
        for pair in words.chunks(2) {
            match pair {
                ["--dir", dir] => asked.dir = PathBuf::from(dir),
                ["--host", host] => asked.host = Some(host),
                ["--operation", name] if OPERATIONS.contains(name) => asked.operation = Some(name),
                ["--rounds", rounds] => asked.rounds = Some(rounds.parse().map_err(|_| usage())?),
                _ => return Err(usage()),
            }
        }
        if asked.dir.as_os_str().is_empty() { Err(usage()) } else { Ok(asked) }
    }

    async fn compare(self) -> Result<(), Error> {
        let operations = OPERATIONS.into_iter().filter(|name| self.operation.is_none_or(|only| only == *name));
        rounds::compare(&self.dir, self.host, operations, (self.rounds.unwrap_or(5), Duration::from_secs(2))).await
    }
}

fn run(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
