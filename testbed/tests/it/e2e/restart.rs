//! Ends and new starts: of a host, with the WAN and without; of everything.

use serde_json::json;

use super::{SOON, World};
use holdfast_testbed::procs::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_serves_without_the_wan_and_after_a_restart_waits_sealed_for_it() {
    let mut world = World::behind_a_wan(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/some-canary", "served when cut off").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "served when cut off").await;

    // With the WAN up it comes back by itself, from a crash and from a power cut.
    world.deployment.kill_process(world.deployment.host("udc1-001").unwrap().pid).unwrap();
    world.deployment.ready_again().await.unwrap();
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "served when cut off").await;
    world.deployment.cut_power("udc1-001").unwrap();
    world.deployment.ready_again().await.unwrap();
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "served when cut off").await;

    // It serves before central has heard that it is open.
    world.becomes("udc1-001", "unsealed", "trusted").await;
    world.deployment.wan().cut();
    world.becomes("udc1-001", "unsealed", "stale").await;
    world.write("canary-box-of-all/some-canary", "written while cut off").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "served when cut off").await;

    world.deployment.kill_process(world.deployment.host("udc1-001").unwrap().pid).unwrap();
    world.answers("udc1-001", "canary-box-of-all/some-canary", 503).await;
    let host = world.deployment.at("udc1-001").unwrap();
    let status = host.get("/v1/state/strongbox/system/seal-status").await.unwrap();
    assert_eq!((status.status, &status.json()["sealed"]), (200, &json!(true)), "{}", status.text());
    eprintln!("status of a host that waits: {}", status.text());

    world.deployment.wan().mend();
    world.becomes("udc1-001", "unsealed", "trusted").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "written while cut off").await;
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_without_central_and_a_sealed_central_is_no_other() {
    let mut world = World::behind_a_wan(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.make_box("canary-box-lent", json!({"to": "all", "offline": "3s"})).await;
    world.write("canary-box-of-all/some-canary", "served for ever").await;
    world.write("canary-box-lent/lent-canary", "served for a while").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "served for ever").await;
    world.arrives("udc1-001", "canary-box-lent/lent-canary", "served for a while").await;

    world.deployment.wan().cut();
    world.answers("udc1-001", "canary-box-lent/lent-canary", 503).await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "served for ever").await;
    world.deployment.wan().mend();
    world.arrives("udc1-001", "canary-box-lent/lent-canary", "served for a while").await;

    let dir = world.deployment.dir().to_string_lossy().into_owned();
    let sealed = world.deployment.holdfast(&["operator", "seal", "--dir", &dir]).await.unwrap();
    assert!(sealed.status.success(), "{}", String::from_utf8_lossy(&sealed.stderr));
    assert_eq!(world.central().get(&super::secret("canary-box-of-all/some-canary")).await.unwrap().status, 503);
    world.answers("udc1-001", "canary-box-lent/lent-canary", 503).await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "served for ever").await;
    let opened = world.deployment.holdfast(&["operator", "unseal", "--dir", &dir]).await.unwrap();
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    world.becomes("udc1-001", "unsealed", "trusted").await;
    world.arrives("udc1-001", "canary-box-lent/lent-canary", "served for a while").await;
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_stopped_and_started_on_the_same_folder_has_all_it_had() {
    let mut world = World::start(&[1, 1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/some-canary", "still there").await;
    for host in ["udc1-001", "udc2-001"] {
        world.arrives(host, "canary-box-of-all/some-canary", "still there").await;
    }
    // In order first, then all at once.
    world.deployment.stop().await.unwrap();
    world.deployment.start_again().await.unwrap();
    has_all(&world).await;
    world.deployment.kill().unwrap();
    world.deployment.start_again().await.unwrap();
    has_all(&world).await;
    world.write("canary-box-of-all/some-canary", "and it goes on").await;
    for host in ["udc1-001", "udc2-001"] {
        world.arrives(host, "canary-box-of-all/some-canary", "and it goes on").await;
    }
    world.nothing_lies_about();
}

async fn has_all(world: &World) {
    let read = world.central().get(&super::secret("canary-box-of-all/some-canary")).await.unwrap();
    assert_eq!(read.json()["data"]["value"], "still there", "{}", read.text());
    for host in ["udc1-001", "udc2-001"] {
        let read = world.read(host, "canary-box-of-all/some-canary").await.unwrap();
        assert_eq!(read.json()["data"]["value"], "still there", "{host}: {} {}", read.status, read.text());
        until("trusted", SOON, async || Ok((world.state_of(host).await["standing"] == "trusted").then_some(())))
            .await
            .unwrap();
    }
}
