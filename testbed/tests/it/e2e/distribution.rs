//! A secret's way from central to the sites that should have it, and to no others.

use serde_json::json;

use super::{World, secret};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_written_at_central_is_read_at_the_sites_that_should_have_it() {
    let mut world = World::start(&[2, 1]).await;
    let everywhere = ["udc1-001", "udc1-002", "udc2-001"];
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/first-canary", "a lark in clear air").await;
    for host in everywhere {
        world.arrives(host, "canary-box-of-all/first-canary", "a lark in clear air").await;
    }

    world.write("canary-box-of-all/first-canary", "another lark, later").await;
    for host in everywhere {
        world.arrives(host, "canary-box-of-all/first-canary", "another lark, later").await;
    }

    world.make_box("canary-box-of-one", json!({"sites": ["udc2"]})).await;
    world.make_box("canary-box-of-none", json!({"to": "none"})).await;
    world.write("canary-box-of-none/hidden-canary", "stays at central only").await;
    let bulk = "thirty-two bytes, repeated often".repeat(1024);
    world.write("canary-box-of-one/second-canary", &bulk).await;
    world.arrives("udc2-001", "canary-box-of-one/second-canary", &bulk).await;
    // What comes later has come: what should not come did not come before it.
    world.write("canary-box-of-all/third-canary", "the one after it").await;
    for host in everywhere {
        world.arrives(host, "canary-box-of-all/third-canary", "the one after it").await;
        world.answers(host, "canary-box-of-none/hidden-canary", 404).await;
    }
    for host in ["udc1-001", "udc1-002"] {
        world.answers(host, "canary-box-of-one/second-canary", 404).await;
        world.answers(host, "canary-box-of-nowhere/second-canary", 404).await;
    }

    let deleted = world.central().delete(&secret("canary-box-of-all/first-canary")).await.unwrap();
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    for host in everywhere {
        world.answers(host, "canary-box-of-all/first-canary", 404).await;
        let (nobody, stranger) = (world.deployment.at(host).unwrap(), world.at(host).with_token("hft_not-a-token"));
        for caller in [nobody, stranger] {
            let answer = caller.get(&secret("canary-box-of-all/third-canary")).await.unwrap();
            assert_eq!(answer.status, 401, "{}", answer.text());
        }
        let central = world.deployment.doc().unwrap().central;
        let by_password = world.at(host).with_password(&central.username, &central.password);
        let answer = by_password.get("/v2/auth/user").await.unwrap();
        assert!(matches!(answer.status, 401 | 404), "{} {}", answer.status, answer.text());
        let body = json!({"username": central.username, "password": central.password, "tenant": central.tenant});
        let answer = by_password.post("/v1/login", &body).await.unwrap();
        assert_eq!(answer.status, 403, "{}", answer.text());
        let answer = world.at(host).post(&secret("canary-box-of-all/third-canary"), &json!({"value": "x"})).await;
        assert!(matches!(answer.unwrap().status, 403..=405), "a site takes no writes");
    }
    world.nothing_lies_about();
}
