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
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::OPERATIONS;
use crate::ceiling::certificate_of;
use crate::client::{Round, Target};

const CONNECTIONS: [usize; 2] = [16, 64];

/// Ends with the comparison, also with one that fails.
struct Ceiling(Child);

impl Drop for Ceiling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints a table.
///
/// # Errors
/// The deployment is not there, or a request was not served.
pub(crate) async fn compare(dir: &Path, (rounds, lasts): (usize, Duration)) -> io::Result<()> {
    let key = ApiKey::from_seed(draw_secret(&OsEntropy));
    let (ceiling, at) = started()?;
    let ceiling =
        Target::new(at.parse().map_err(Error::other)?, ceiling.0.id(), vec![certificate_of(&key)?], pkcs8(&key)?)
            .map(|target| (ceiling, target))?;
    let central = central(dir, &key).await?;
    println!("server CPU in microseconds for each request; ratio to the ceiling: median of {rounds} rounds\n");
    println!("OPERATION  CONNECTIONS  CEILING  CENTRAL  RATIO  REQUESTS/S  OF-CEILING  P99-MS");
    for operation in OPERATIONS {
        for connections in CONNECTIONS {
            let mut of_rounds = Vec::new();
            for _ in 0..rounds {
                let ceiling = measured(&ceiling.1, operation, connections, lasts).await?;
                of_rounds.push((ceiling, measured(&central, operation, connections, lasts).await?));
            }
            print(operation, connections, &of_rounds);
        }
    }
    Ok(())
}

fn started() -> io::Result<(Ceiling, String)> {
    let mut child = Command::new(std::env::current_exe()?).arg("ceiling").stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take();
    let ceiling = Ceiling(child);
    let mut line = String::new();
    BufReader::new(out.ok_or_else(|| Error::other("the ceiling says nothing"))?).read_line(&mut line)?;
    Ok((ceiling, line.trim().to_owned()))
}

fn pkcs8(key: &ApiKey) -> io::Result<PrivateKeyDer<'static>> {
    Ok(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()).into())
}

/// The central of a deployment, as a client that a policy lets use one key.
async fn central(dir: &Path, key: &ApiKey) -> io::Result<Target> {
    let doc: Value = serde_json::from_slice(&std::fs::read(dir.join("dev.json"))?).map_err(Error::other)?;
    let text = |name: &str| doc["central"][name].as_str().map(str::to_owned).unwrap_or_default();
    let addr = text("api").trim_start_matches("https://").parse().map_err(Error::other)?;
    let pid = doc["central"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    let chain = CertificateDer::pem_file_iter(text("admin_cert")).map_err(Error::other)?;
    let chain = chain.map(|one| one.map(|one| one.to_vec())).collect::<Result<_, _>>().map_err(Error::other)?;
    let admin = Target::new(addr, pid, chain, PrivateKeyDer::from_pem_file(text("admin_key")).map_err(Error::other)?)?;
    let _ = admin.ask(Method::POST, "/v1/key/create/bench", "").await;
    let paths: Vec<String> = OPERATIONS.iter().map(|operation| format!("/v1/key/{operation}/bench*")).collect();
    admin.ask(Method::POST, "/v1/policy/write/bench", &json!({ "paths": paths }).to_string()).await?;
    admin.ask(Method::POST, &format!("/v1/identity/assign/bench/{}", key.identity()), "").await?;
    Target::new(addr, pid, vec![certificate_of(key)?], pkcs8(key)?)
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
        median(&|(_, central)| central.cpu_us),
        median(&|(ceiling, central)| central.cpu_us / ceiling.cpu_us),
        median(&|(_, central)| central.per_second),
        median(&|(ceiling, central)| central.per_second / ceiling.per_second),
        median(&|(_, central)| central.p99.as_secs_f64() * 1e3),
    );
}
