//! Cutting off: a site or a host, with its connection open, and back again.

use serde_json::json;

use super::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_site_gets_nothing_until_it_is_let_back() {
    let mut world = World::start(&[2, 1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/early-canary", "before the call").await;
    for host in ["udc1-001", "udc1-002", "udc2-001"] {
        world.arrives(host, "canary-box-of-all/early-canary", "before the call").await;
    }

    let answer = world.operate("udc1", "quarantine-site", &json!({})).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    for host in ["udc1-001", "udc1-002"] {
        world.becomes(host, "sealed", "quarantined").await;
        world.answers(host, "canary-box-of-all/early-canary", 503).await;
    }
    world.write("canary-box-of-all/late-canary", "after the call").await;
    world.arrives("udc2-001", "canary-box-of-all/late-canary", "after the call").await;
    world.arrives("udc2-001", "canary-box-of-all/early-canary", "before the call").await;
    for host in ["udc1-001", "udc1-002"] {
        world.answers(host, "canary-box-of-all/late-canary", 503).await;
    }
    // It remembers, and a new start asks nobody.
    world.deployment.kill_process(world.deployment.host("udc1-001").unwrap().pid).unwrap();
    world.answers("udc1-001", "canary-box-of-all/early-canary", 503).await;

    let answer = world.operate("udc1", "unquarantine-site", &json!({})).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    for host in ["udc1-001", "udc1-002"] {
        world.becomes(host, "unsealed", "trusted").await;
        world.arrives(host, "canary-box-of-all/early-canary", "before the call").await;
        world.arrives(host, "canary-box-of-all/late-canary", "after the call").await;
    }
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_siblings_of_a_quarantined_host_go_on() {
    let mut world = World::start(&[2]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/early-canary", "before the call").await;
    for host in ["udc1-001", "udc1-002"] {
        world.arrives(host, "canary-box-of-all/early-canary", "before the call").await;
    }
    let of_one = json!({"host": "udc1-001"});

    let answer = world.operate("udc1", "quarantine-site-host", &of_one).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    world.becomes("udc1-001", "sealed", "quarantined").await;
    world.answers("udc1-001", "canary-box-of-all/early-canary", 503).await;
    world.write("canary-box-of-all/late-canary", "after the call").await;
    world.arrives("udc1-002", "canary-box-of-all/late-canary", "after the call").await;
    world.arrives("udc1-002", "canary-box-of-all/early-canary", "before the call").await;

    let answer = world.operate("udc1", "unquarantine-site-host", &of_one).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    world.becomes("udc1-001", "unsealed", "trusted").await;
    world.arrives("udc1-001", "canary-box-of-all/late-canary", "after the call").await;
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_host_comes_back_without_a_visit_and_with_all_its_content() {
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/some-canary", "copied once more").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "copied once more").await;

    let answer = world.operate("udc1", "quarantine-site-host", &json!({"host": "udc1-001", "wipe": true})).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let known = world.state_of("udc1-001").await;
    assert_eq!((&known["standing"], &known["wipe"]), (&json!("quarantined"), &json!("done")), "{known}");
    world.answers("udc1-001", "canary-box-of-all/some-canary", 503).await;

    let answer = world.operate("udc1", "unquarantine-site-host", &json!({"host": "udc1-001"})).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    world.becomes("udc1-001", "unsealed", "trusted").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "copied once more").await;
    world.nothing_lies_about();
}
