//! What a host says about itself to whoever stands before it, and who can read that.

use std::fs;

use holdfast_protocol::debug::{DebugDump, DebugKey};
use holdfast_testbed::procs::until;
use serde_json::{Value, json};

use super::{SOON, World};

const SYSTEM: &str = "/v1/state/strongbox/system";
const ONE: &str = "udc1-001";
const TWO: &str = "udc1-002";

impl World {
    async fn debug_key(&self, host: &str) -> String {
        let body = json!({ "site": "udc1", "host": host });
        let answer = self.operator.post(&format!("{SYSTEM}/debug-key"), &body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["key"].as_str().unwrap().to_owned()
    }

    /// As somebody without any credential.
    async fn dump_of(&self, host: &str) -> DebugDump {
        let answer = self.deployment.at(host).unwrap().get(&format!("{SYSTEM}/debug-dump")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        DebugDump::from_text(answer.json()["dump"].as_str().unwrap()).unwrap()
    }
}

fn opened(dump: &DebugDump, key: &str) -> Option<Value> {
    let plain = dump.open(&DebugKey::parse(key).unwrap()).ok()?;
    Some(serde_json::from_slice(plain.expose()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_host_tells_what_ails_it_to_whoever_has_its_debug_key() {
    let mut world = World::behind_a_wan(&[2]).await;
    world.make_box("canary-box-quiet", json!({"to": "all"})).await;
    world.write("canary-box-quiet/a-canary", "said to nobody").await;
    world.arrives(ONE, "canary-box-quiet/a-canary", "said to nobody").await;
    let (one, two) = (world.debug_key(ONE).await, world.debug_key(TWO).await);
    for key in [&one, &two] {
        world.canaries.add("debug key as shown", key.as_bytes());
        world.canaries.add("debug key", &super::base64(key.strip_prefix("key:").unwrap()));
    }
    let dump = world.dump_of(ONE).await;
    assert_eq!(opened(&dump, &two), None, "another host's key opens it");
    let said = opened(&dump, &one).unwrap();
    assert_eq!(
        (&said["sealed"], &said["connected"], &said["host"]),
        (&json!(false), &json!(true), &json!("udc1/udc1-001"))
    );
    assert!(said["permit"]["siblings"][TWO].is_string(), "{said}");
    let found = world.canaries.find(said.to_string().as_bytes());
    assert!(found.is_empty(), "{found:?} in {said}");

    // Both sealed, and central out of reach.
    world.deployment.wan().cut();
    [ONE, TWO].iter().for_each(|host| world.deployment.cut_power(host).unwrap());
    let tells = async || {
        let said = opened(&world.dump_of(ONE).await, &one).unwrap();
        let ladder = said["ladder"].to_string();
        match said["sealed"] == true && ladder.contains("sealed itself") {
            true => Ok(Some(said)),
            false => Err(std::io::Error::other(said.to_string())),
        }
    };
    let look = async || match world.deployment.at(ONE)?.get(&format!("{SYSTEM}/debug-dump")).await {
        Ok(_) => tells().await,
        Err(error) => Err(error),
    };
    let said = until("the sealed host tells of its ladder", SOON, look).await.unwrap();
    assert!(said["reason"].as_str().unwrap().contains("waiting for central"), "{said}");
    assert!(said["warnings"].to_string().contains("not unsealed"), "{said}");
    assert_eq!((&said["seal-epoch"], &said["tpm"]["resets"].is_u64()), (&json!(1), &true), "{said}");

    // As an operator would.
    let folder = world.deployment.dir().join("debugging");
    fs::create_dir_all(&folder).unwrap();
    let (key, dump) = (folder.join("key"), folder.join("dump"));
    fs::write(&key, format!("{one}\n")).unwrap();
    fs::write(&dump, format!("dump: {}\n", world.dump_of(ONE).await.to_text())).unwrap();
    let args = ["operator", "debug-open", dump.to_str().unwrap(), "--key-file", key.to_str().unwrap()];
    let printed = world.deployment.holdfast(&args).await.unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap()["sealed"], true);
    fs::remove_dir_all(&folder).unwrap();
    world.nothing_lies_about();
}
