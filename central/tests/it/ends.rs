//! What ends the process does so with an exit code, and leaves it sealed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use holdfast_rest::health::SealState;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::{PROGRAM, Program};
use crate::world::{SEAL, World};

/// A crash loop is one after some seconds.
const SOON: Duration = Duration::from_secs(40);

/// Waits for the end, and gives what it said about it.
async fn ended(mut central: Program) -> (Option<i32>, String) {
    let status = timeout(SOON, central.child.wait()).await.expect("it ends").unwrap();
    (status.code(), central.later.await.unwrap().join("\n"))
}

/// Started again it is sealed and has what was acknowledged.
async fn is_sealed_and_whole(folder: &Path, sealkey: &str, token: &str, tenant: &str) {
    let again = Program::start(folder).await;
    assert_eq!(again.post(token, "/v1/config/tenants", json!({ "name": "later" })).await, 503);
    assert_eq!(again.post("", &format!("{SEAL}/unseal"), json!({ "sealkey": sealkey })).await, 204);
    assert_eq!(again.post(token, "/v1/config/tenants", json!({ "name": tenant })).await, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_can_not_be_written_ends_the_process_sealed() {
    let folder = TempDir::new().unwrap();
    // A file that may not grow any more is an error then, and no signal.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", PROGRAM]);
    let central = Program::start_by(folder.path(), shell).await;
    let first = central.initialise().await;
    assert_eq!(central.post(&first.token, "/v1/config/tenants", json!({ "name": "acme" })).await, 201);
    let size = fs::metadata(folder.path().join("data/store/data.mdb")).unwrap().len();
    let pid = central.child.id().unwrap().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={size}:{size}")]).status().await;
    assert!(limited.unwrap().success());
    let addr = central.addr;
    let writing = async {
        for number in 0.. {
            let who = crate::client::As { token: Some(&first.token), operator: None };
            let body = Some(json!({ "name": format!("t-{number}") }));
            match crate::client::try_call(addr, who, ("POST", "/v1/config/tenants"), body).await {
                Ok(answer) if answer.status == 201 => {}
                // Nobody is told that it was done.
                Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text),
                Err(_) => return,
            }
        }
    };
    let ((code, said), ()) = tokio::join!(ended(central), writing);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the store failed: "), "{said}");
    is_sealed_and_whole(folder.path(), &first.sealkey, &first.token, "acme").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_ends_the_process_sealed() {
    let folder = TempDir::new().unwrap();
    let doomed = folder.path().join("doomed");
    let mut command = Command::new(PROGRAM);
    command.env("HOLDFAST_TEST_KILL", &doomed);
    let central = Program::start_by(folder.path(), command).await;
    let first = central.initialise().await;
    assert_eq!(central.post(&first.token, "/v1/config/tenants", json!({ "name": "acme" })).await, 201);
    fs::write(&doomed, "attestation verifier").unwrap();
    let (code, said) = ended(central).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("attestation verifier failed too often"), "{said}");
    is_sealed_and_whole(folder.path(), &first.sealkey, &first.token, "acme").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_fails_closes_central_at_once() {
    let world = World::start().await;
    let first = world.initialise().await;
    assert_eq!(world.create_tenant(&first.token, "acme").await.status, 201);
    world.running().node().journal.strike();
    assert_eq!(world.running().state(), SealState::Sealed);
    assert_eq!(world.running().failed().await, "the read journal failed: a test asked for it");
    assert_eq!(world.create_tenant(&first.token, "acme").await.status, 503);
}
