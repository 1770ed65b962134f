//! Wrong things that can be tried from outside with what an intruder may get hold of.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::World;
use holdfast_testbed::swtpm::{self, Swtpm};

#[tokio::test(flavor = "multi_thread")]
async fn a_site_bundle_serves_each_host_once() {
    let world = World::start(&[1]).await;
    let operator = &world.operator;
    let hosts = json!([{"name": "udc9-001"}]);
    let site = json!({"name": "udc9", "ek-trust": "token", "learn-reference-values": true, "hosts": hosts});
    let made = operator.post("/v1/config/system/sites", &site).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
    let bundle = world.operate("udc9", "site-bundle", &json!({})).await;
    assert_eq!(bundle.status, 200, "{}", bundle.text());
    // It is given out once.
    let again = world.operate("udc9", "site-bundle", &json!({})).await;
    assert!(matches!(again.status, 403 | 409), "{} {}", again.status, again.text());

    let (first, text) = join(&world, "first", 10, &bundle.json()).await;
    assert!(first, "{text}");
    // Another machine with the same bundle.
    let (second, text) = join(&world, "second", 11, &bundle.json()).await;
    assert!(!second, "{text}");
    let state = world.state_of("udc9-001").await;
    assert_eq!((&state["state"], &state["token"]), (&json!("joined"), &json!("used")), "{state}");
}

/// Joins as `udc9-001` from a machine of its own.
async fn join(world: &World, name: &str, tpm: usize, bundle: &Value) -> (bool, String) {
    let place = world.deployment.dir().join(name);
    fs::create_dir_all(&place).unwrap();
    swtpm::identity(tpm, &place).unwrap();
    let tpm = Swtpm::start(&place).unwrap();
    tpm.boot_events().unwrap();
    let quic = world.deployment.doc().unwrap().central.quic;
    let config = place.join("agent.toml");
    let text = format!(
        "data_dir = \"{}\"\n[listen]\nrest = \"127.0.0.1:0\"\n[central]\nquic = \"{quic}\"\n[tpm]\ntcti = \"{}\"\n",
        place.join("data").display(),
        tpm.tcti()
    );
    fs::write(&config, text).unwrap();
    fs::write(place.join("bundle.json"), bundle.to_string()).unwrap();
    let mut command = tokio::process::Command::new(holdfast_testbed::procs::program("holdfast-site-agent").unwrap());
    command.arg("join").arg("--config").arg(config).arg("--bundle").arg(place.join("bundle.json"));
    let output = command.args(["--host", "udc9-001"]).stdin(Stdio::null()).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
