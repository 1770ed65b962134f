//! The audit logs of a deployment verify, and a changed byte is named.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::World;

async fn verify(world: &World, data: &Path) -> (bool, String) {
    let output = world.deployment.holdfast(&["audit", "verify", "--data", &data.to_string_lossy()]).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The newest file of a node's read journal.
fn journal(data: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> =
        fs::read_dir(data.join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| fs::metadata(path).unwrap().len() > 200);
    files.sort();
    files.pop().expect("this node has journalled reads")
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_all_nodes_verify_and_a_changed_byte_is_named() {
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    for round in 0..4 {
        let value = format!("a value of round {round}");
        world.write("canary-box-of-all/some-canary", &value).await;
        world.arrives("udc1-001", "canary-box-of-all/some-canary", &value).await;
        world.central().get(&super::secret("canary-box-of-all/some-canary")).await.unwrap();
    }
    let folders =
        [world.deployment.doc().unwrap().central.data_dir, world.deployment.host("udc1-001").unwrap().data_dir];
    for data in &folders {
        let (holds, text) = verify(&world, data).await;
        assert!(holds && text.contains("holds"), "running: {text}");
    }
    world.deployment.stop().await.unwrap();
    for data in &folders {
        let (holds, text) = verify(&world, data).await;
        assert!(holds, "stopped: {text}");
        let file = journal(data);
        let middle = usize::try_from(fs::metadata(&file).unwrap().len()).unwrap() / 2;
        flip(&file, middle);
        let (holds, text) = verify(&world, data).await;
        assert!(!holds && text.contains("BROKEN") && text.contains("line"), "changed: {text}");
        flip(&file, middle);
        assert!(verify(&world, data).await.0);
    }
}
