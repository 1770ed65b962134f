//! What a host's TPM says decides.

use serde_json::json;
use tokio::time::Instant;

use super::{INTERVAL, SOON, World};
use holdfast_testbed::procs::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_measured_something_else_is_cut_off_and_its_sibling_goes_on() {
    let mut world = World::start(&[2]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/early-canary", "before the change").await;
    for host in ["udc1-001", "udc1-002"] {
        world.arrives(host, "canary-box-of-all/early-canary", "before the change").await;
    }

    world.deployment.extend("udc1-001", 7, [0x5a; 32]).await.unwrap();
    let changed = Instant::now();
    world.becomes("udc1-001", "sealed", "untrusted").await;
    let took = changed.elapsed();
    assert!(took <= 2 * INTERVAL, "untrusted only after {took:?}");
    world.answers("udc1-001", "canary-box-of-all/early-canary", 503).await;

    world.write("canary-box-of-all/late-canary", "after the change").await;
    world.arrives("udc1-002", "canary-box-of-all/late-canary", "after the change").await;
    world.arrives("udc1-002", "canary-box-of-all/early-canary", "before the change").await;
    let known = world.state_of("udc1-002").await;
    assert_eq!((&known["state"], &known["standing"]), (&json!("unsealed"), &json!("trusted")));
    world.answers("udc1-001", "canary-box-of-all/late-canary", 503).await;

    // What was measured is gone with the next boot, and a pass after a boot is a new start.
    world.deployment.cut_power("udc1-001").unwrap();
    world.becomes("udc1-001", "unsealed", "trusted").await;
    world.arrives("udc1-001", "canary-box-of-all/late-canary", "after the change").await;
    until("no lag", SOON, async || Ok((world.state_of("udc1-001").await["lag"] == 0).then_some(()))).await.unwrap();
    world.nothing_lies_about();
}
