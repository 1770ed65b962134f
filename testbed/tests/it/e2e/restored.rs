//! Central's folder restored from a backup: it notices, stops, and is taken back into service by an operator.

use std::fs;

use serde_json::{Value, json};

use super::wire::copy_all;
use super::{SOON, World};
use holdfast_testbed::procs::until;

const EARLY: &str = "canary-box-of-all/early-canary";
const LATE: &str = "canary-box-of-all/late-canary";

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_central_stops_until_it_is_adopted_and_readmits_nobody() {
    let mut world = World::start(&[2, 1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write(EARLY, "before the backup").await;
    for host in ["udc1-001", "udc1-002", "udc2-001"] {
        world.arrives(host, EARLY, "before the backup").await;
    }
    let data = world.deployment.doc().unwrap().central.data_dir;
    let backup = world.deployment.dir().join("backup");
    world.deployment.stop().await.unwrap();
    copy_all(&data, &backup);
    world.deployment.start_again().await.unwrap();

    // What the backup does not know: a secret, a changed one, a host cut off, one that has enrolled again.
    world.write(LATE, "after the backup").await;
    world.write(EARLY, "changed after the backup").await;
    for operation in ["quarantine-site-host", "unquarantine-site-host"] {
        assert_eq!(world.operate("udc2", operation, &json!({"host": "udc2-001"})).await.status, 204);
    }
    world.becomes("udc2-001", "unsealed", "trusted").await;
    assert_eq!(world.state_of("udc2-001").await["host-generation"], 2);
    assert_eq!(world.operate("udc1", "quarantine-site-host", &json!({"host": "udc1-002"})).await.status, 204);
    world.answers("udc1-002", EARLY, 503).await;
    for host in ["udc1-001", "udc2-001"] {
        world.arrives(host, LATE, "after the backup").await;
        world.arrives(host, EARLY, "changed after the backup").await;
    }
    // Hosts go on meanwhile. The new folder is in place before central ends, since it is started again at once.
    fs::rename(&data, data.with_file_name("lost")).unwrap();
    fs::rename(&backup, &data).unwrap();
    world.deployment.kill_process(world.deployment.doc().unwrap().central.pid).unwrap();
    is_stopped(&world).await;

    // It reads, writes nothing, and a new start forgets nothing. Hosts go on with what they have.
    let read = world.central().get(&super::secret(EARLY)).await.unwrap();
    assert_eq!(read.json()["data"]["value"], "before the backup", "{}", read.text());
    refuses_writes(&world).await;
    for order in ["seal", "unseal"] {
        let done = holdfast(&world, &["operator", order]).await;
        assert!(done.0, "{}", done.1);
    }
    is_stopped(&world).await;
    refuses_writes(&world).await;
    for host in ["udc1-001", "udc2-001"] {
        world.arrives(host, EARLY, "changed after the backup").await;
    }
    world.answers("udc1-002", EARLY, 503).await;

    let report = shown_by_all(&world).await;
    assert_eq!((&report["stopped"], &report["own-term"], &report["adopted"]), (&json!(true), &json!(1), &Value::Null));
    assert!(report["own-revision"].as_u64() < report["newest-revision"].as_u64(), "{report}");
    let of = |report: &Value, name: &str| {
        let hosts = report["hosts"].as_array().unwrap();
        hosts.iter().find(|host| host["host"] == name).cloned().unwrap_or_else(|| panic!("{name}: {report}"))
    };
    assert_eq!(of(&report, "udc1/udc1-002")["standing"], "quarantined");
    assert_eq!(of(&report, "udc2/udc2-001")["host-generation"], 2);
    assert_eq!(of(&report, "udc1/udc1-001")["standing"], Value::Null);

    let (adopted, text) = holdfast(&world, &["central", "adopt-restored"]).await;
    assert!(adopted && text.contains("as term 2") && text.contains("udc1/udc1-002: it stays quarantined"), "{text}");
    let (again, text) = holdfast(&world, &["central", "adopt-restored"]).await;
    assert!(!again && text.contains("nothing to adopt"), "{text}");

    // All that were not cut off are back, with what the backup knew, and take what is written from now on.
    for host in ["udc1-001", "udc2-001"] {
        world.becomes(host, "unsealed", "trusted").await;
        world.arrives(host, EARLY, "before the backup").await;
        world.answers(host, LATE, 404).await;
    }
    assert_eq!(world.state_of("udc2-001").await["host-generation"], 3, "enrolled again");
    world.write(LATE, "written after the adoption").await;
    for host in ["udc1-001", "udc2-001"] {
        world.arrives(host, LATE, "written after the adoption").await;
    }
    let cut_off = world.state_of("udc1-002").await;
    assert_eq!(cut_off["standing"], "quarantined", "{cut_off}");
    world.answers("udc1-002", EARLY, 503).await;

    // The operator decides.
    assert_eq!(world.operate("udc1", "unquarantine-site-host", &json!({"host": "udc1-002"})).await.status, 204);
    world.becomes("udc1-002", "unsealed", "trusted").await;
    world.arrives("udc1-002", LATE, "written after the adoption").await;
    let verified = world.deployment.holdfast(&["audit", "verify", "--data", &data.to_string_lossy()]).await.unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    world.nothing_lies_about();
}

/// Runs the operator's command line on this deployment.
async fn holdfast(world: &World, args: &[&str]) -> (bool, String) {
    let dir = world.deployment.dir().to_string_lossy().into_owned();
    let args: Vec<&str> = args.iter().copied().chain(["--dir", &dir]).collect();
    let output = world.deployment.holdfast(&args).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Waits until central says of itself, everywhere, that it is an older copy.
async fn is_stopped(world: &World) {
    let look = async || {
        let health = world.deployment.central()?.get("/v1/health").await?;
        let reason = health.json()["reason"].as_str().unwrap_or_default().to_owned();
        Ok((health.status == 200 && reason.contains("adopt-restored")).then_some(()))
    };
    until("central says that it was restored", SOON, look).await.unwrap();
    let (_, status) = holdfast(world, &["status"]).await;
    assert!(status.contains("restored from an older copy"), "{status}");
    let metrics = world.deployment.central().unwrap().get("/v1/metrics").await.unwrap();
    assert!(metrics.text().lines().any(|line| line.ends_with("restored_copy 1")), "{}", metrics.text());
}

/// In each dialect, in its own shape, and saying what to do.
async fn refuses_writes(world: &World) {
    let site = json!({"name": "udc9", "ek-trust": "token", "hosts": [{"name": "udc9-001"}]});
    let of_strongbox = world.operator.post("/v1/config/system/sites", &site).await.unwrap();
    let readmission = world.operate("udc1", "unquarantine-site", &json!({})).await;
    let of_cerberus = world.central().post(&super::secret(EARLY), &json!({"value": "no"})).await.unwrap();
    for answer in [&of_strongbox, &readmission, &of_cerberus] {
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    for answer in [of_strongbox, readmission] {
        let message = answer.json()["errors"][0]["error-message"].clone();
        assert!(message.as_str().unwrap_or_default().contains("adopt-restored"), "{}", answer.text());
    }
    let message = of_cerberus.json()["errors"][0]["message"].clone();
    assert!(message.as_str().unwrap_or_default().contains("adopt-restored"), "{}", of_cerberus.text());
}

/// The report, once every host has shown what it knows.
async fn shown_by_all(world: &World) -> Value {
    let look = async || {
        let (validated, text) = holdfast(world, &["central", "adopt-restored", "--validate", "--json"]).await;
        assert!(validated, "{text}");
        let report: Value = serde_json::from_str(&text)?;
        let all = report["silent"].as_array().is_some_and(Vec::is_empty);
        Ok(all.then_some(report))
    };
    until("all hosts have shown something", SOON, look).await.unwrap()
}
