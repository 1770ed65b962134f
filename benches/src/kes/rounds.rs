//! The comparison.

use std::io::{self, BufRead, BufReader, Error};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::ports::draw_secret;
use holdfast_actors::shell::OsEntropy;
use holdfast_protocol::kes::ApiKey;
use hyper::Method;
use rustls::RootCertStore;
use serde_json::json;

use crate::ceiling::certificate;
use crate::client::{Round, Server, Target, shown_by};
use crate::deployment::node;

const CONNECTIONS: [usize; 2] = [16, 64];

/// Ends with the comparison, also with one that fails.
struct Ceiling(Child);

impl Drop for Ceiling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long is measured: so many rounds for each line of the table, and how long one lasts.
pub(crate) type Effort = (usize, Duration);

/// Measures central, or a host, against the ceiling. Prints a table.
///
/// # Errors
/// The deployment is not there, or a request was not served.
pub(crate) async fn compare(
    dir: &Path,
    host: Option<&str>,
    operations: impl Iterator<Item = &str>,
    (rounds, lasts): Effort,
) -> io::Result<()> {
    let key = ApiKey::from_seed(draw_secret(&OsEntropy));
    let (_runs, ceiling) = started()?;
    let ceiling = Target::new(&ceiling, shown_by(&key)?)?;
    let node = node(dir, host, &key).await?;
    println!("{}: server CPU in microseconds for each request", host.unwrap_or("central"));
    println!("ratio to the ceiling: median of {rounds} rounds\n");
    println!("OPERATION  CONNECTIONS  CEILING     NODE  RATIO  REQUESTS/S  OF-CEILING  P99-MS");
    for operation in operations {
        for connections in CONNECTIONS {
            let mut of_rounds = Vec::new();
            for _ in 0..rounds {
                let ceiling = measured(&ceiling, operation, connections, lasts).await?;
                of_rounds.push((ceiling, measured(&node, operation, connections, lasts).await?));
            }
            print(operation, connections, &of_rounds);
        }
    }
    Ok(())
}

fn started() -> io::Result<(Ceiling, Server)> {
    let mut child = Command::new(std::env::current_exe()?).arg("ceiling").stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take();
    let ceiling = Ceiling(child);
    let mut line = String::new();
    BufReader::new(out.ok_or_else(|| Error::other("the ceiling says nothing"))?).read_line(&mut line)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate()?.into()).map_err(Error::other)?;
    let server = Server { addr: line.trim().parse().map_err(Error::other)?, pid: ceiling.0.id(), roots };
    Ok((ceiling, server))
}

async fn measured(of: &Target, operation: &str, connections: usize, lasts: Duration) -> io::Result<Round> {
    let plaintext = json!({ "plaintext": STANDARD.encode([7; 32]) }).to_string();
    let body = match operation {
        "generate" => "{}".to_owned(),
        "encrypt" => plaintext,
        _ => {
            let made = of.ask(Method::PUT, "/v1/key/encrypt/bench", &plaintext).await?;
            json!({ "ciphertext": made["ciphertext"] }).to_string()
        }
    };
    of.round(connections, &format!("/v1/key/{operation}/bench"), &body, lasts).await
}

fn print(operation: &str, connections: usize, of_rounds: &[(Round, Round)]) {
    let median = |of: &dyn Fn(&(Round, Round)) -> f64| {
        let mut all: Vec<f64> = of_rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    println!(
        "{operation:<9}  {connections:>11}  {:>7.1}  {:>7.1}  {:>5.2}  {:>10.0}  {:>10.2}  {:>6.1}",
        median(&|(ceiling, _)| ceiling.cpu_us),
        median(&|(_, node)| node.cpu_us),
        median(&|(ceiling, node)| node.cpu_us / ceiling.cpu_us),
        median(&|(_, node)| node.per_second),
        median(&|(ceiling, node)| node.per_second / ceiling.per_second),
        median(&|(_, node)| node.p99.as_secs_f64() * 1e3),
    );
}
