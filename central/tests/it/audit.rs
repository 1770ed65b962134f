//! The audit log of a data folder: it holds, and the first break is named.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use holdfast_actors::audit_log::Chain;
use holdfast_actors::store::lmdb::LmdbReader;
use holdfast_central::audit::{JOURNAL, STORE, verify};
use serde_json::json;

use crate::world::World;

/// First byte of the lines of the change chains.
const CHANGE_LINES: u8 = 0x02;

async fn used_world() -> World {
    let mut world = World::start().await;
    let first = world.initialise().await;
    for name in ["acme", "globex", "initech"] {
        assert_eq!(world.create_tenant(&first.token, name).await.status, 201);
    }
    for _ in 0..3 {
        assert_eq!(world.create_tenant("no-token", "hooli").await.status, 401);
    }
    world.start_again().await;
    assert_eq!(world.unseal(json!({ "sealkey": first.sealkey })).await.status, 204);
    world.stop().await;
    world
}

fn audit_verify(data: &Path) -> Output {
    let program = env!("CARGO_BIN_EXE_holdfast-central");
    Command::new(program).args(["audit-verify", "--data"]).arg(data).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_used_central_holds() {
    let world = used_world().await;
    let report = verify(&world.data()).unwrap();
    assert_eq!(report.first_break, None);
    assert!(report.changes >= 7, "{report:?}");
    assert_eq!((report.reads, report.gaps), (3, 0));
    let output = audit_verify(&world.data());
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("the audit log holds\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_store_is_named() {
    let world = used_world().await;
    let store = world.data().join(STORE);
    let line = {
        let reader = LmdbReader::open(&store).unwrap();
        let view = reader.snapshot().unwrap();
        // The second line of the node's own chain of changes.
        view.range(&[CHANGE_LINES], &[CHANGE_LINES + 1], 2).unwrap()[1].1.value.clone()
    };
    let file = store.join("data.mdb");
    let mut bytes = fs::read(&file).unwrap();
    let mut flipped = 0;
    for at in 0..bytes.len() - line.len() {
        if bytes[at..].starts_with(&line) {
            bytes[at + line.len() - 1] ^= 1;
            flipped += 1;
        }
    }
    assert!(flipped > 0);
    fs::write(&file, bytes).unwrap();
    let found = verify(&world.data()).unwrap().first_break.unwrap();
    assert_eq!((found.chain, found.realm.0, found.seq), (Chain::Changes, 0, 2));
    let output = audit_verify(&world.data());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("BROKEN: Changes of realm 0, line 2: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_journal_is_named() {
    let world = used_world().await;
    let mut segments: Vec<_> =
        fs::read_dir(world.data().join(JOURNAL)).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    // The refusals were written in the first run.
    let mut bytes = fs::read(&segments[0]).unwrap();
    let middle_of_last_line = bytes.len() - 60;
    bytes[middle_of_last_line] ^= 1;
    fs::write(&segments[0], bytes).unwrap();
    let found = verify(&world.data()).unwrap().first_break.unwrap();
    assert_eq!((found.chain, found.realm.0, found.seq), (Chain::Reads, 0, 3));
    assert_eq!(audit_verify(&world.data()).status.code(), Some(1));
}

#[test]
fn a_folder_without_a_store_is_no_verified_log() {
    let folder = tempfile::TempDir::new().unwrap();
    let output = audit_verify(folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("holds no store"));
}
