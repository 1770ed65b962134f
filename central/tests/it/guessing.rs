//! Guesses at the seal key, each in a process of its own: three an hour for each class of callers, whatever is killed in
//! between; and whoever operates central gets in all the same.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::client::{Answer, As, Operator, try_call};
use crate::process::{PROGRAM, Program};
use crate::world::{SEAL, config_text};

/// Started once more, without having been stopped.
async fn killed_and_started(folder: &Path, central: &mut Option<Program>) -> SocketAddr {
    if let Some(mut before) = central.take() {
        before.child.kill().await.unwrap();
    }
    let text =
        config_text(&folder.join("data"), &Operator::new()).replace("rest = \"127.0.0.1:0\"", "rest = \"0.0.0.0:0\"");
    let started = Program::start_with(folder, &text, Command::new(PROGRAM)).await;
    let addr = started.addr;
    *central = Some(started);
    addr
}

async fn unseal(at: SocketAddr, operator: Option<&Operator>, body: &Value) -> Answer {
    let path = format!("{SEAL}/unseal");
    try_call(at, As { token: None, operator }, ("POST", &path), Some(body.clone())).await.unwrap()
}

/// An address of this machine that is not the loopback's: who comes from there counts as somebody else.
fn another_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only says from where it would be.
    socket.connect("203.0.113.1:9").ok()?;
    socket.local_addr().ok().map(|addr| addr.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// Three guesses, over as many kills; then not even the right key is looked at.
async fn is_locked_out(folder: &Path, central: &mut Option<Program>, from: IpAddr, key: &Value) {
    let wrong = json!({ "sealkey": format!("{}=", "A".repeat(43)) });
    for guess in 1..=3 {
        let port = killed_and_started(folder, central).await.port();
        // What can't be a key is no guess.
        assert_eq!(unseal((from, port).into(), None, &json!({ "sealkey": "?" })).await.status, 400);
        let answer = unseal((from, port).into(), None, &wrong).await;
        let told = (answer.status.as_u16(), answer.headers.contains_key("retry-after"));
        assert_eq!(told, (403, false), "guess {guess}: {}", answer.text);
    }
    for sent in [&wrong, key] {
        let port = killed_and_started(folder, central).await.port();
        let answer = unseal((from, port).into(), None, sent).await;
        assert_eq!(answer.status, 403, "{}", answer.text);
        let wait_s: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=3600).contains(&wait_s), "{wait_s}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_held_to_three_an_hour_over_kills_and_whoever_is_at_the_machine_still_gets_in() {
    let folder = TempDir::new().unwrap();
    let (folder, mut central) = (folder.path(), None);
    let here = IpAddr::from([127, 0, 0, 1]);
    killed_and_started(folder, &mut central).await;
    let first = central.as_ref().unwrap().initialise_at(here).await;
    let key = json!({ "sealkey": first.sealkey });

    // From elsewhere, where this machine has an address for that; the operator on the machine itself still gets in.
    if let Some(afar) = another_address() {
        is_locked_out(folder, &mut central, afar, &key).await;
        let port = killed_and_started(folder, &mut central).await.port();
        assert_eq!(unseal((here, port).into(), None, &key).await.status, 204);
    }
    // From the machine itself, by whoever runs something on it; the operator's certificate still opens.
    is_locked_out(folder, &mut central, here, &key).await;
    let port = killed_and_started(folder, &mut central).await.port();
    assert_eq!(unseal((here, port).into(), Some(&Operator::new()), &key).await.status, 204);
}
