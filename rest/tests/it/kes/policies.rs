//! Policies and identities.

use holdfast_rest::front::FrontOptions;
use holdfast_rest::peer::{ClientCertificate, Peer};

use holdfast_actors::access_control::expiry::{AT_CENTRAL, at_central, clear};
use holdfast_actors::access_control::identities::Assignment;
use holdfast_actors::tally::tally;

use super::*;
use crate::client::{Late, front as surround};

/// In the audit log.
const NO_RIGHT: &str = "not authorized: insufficient permissions";

async fn assign(front: &Front, policy: &str, to: Identity) -> Answer {
    front.post(&format!("/v1/identity/assign/{policy}/{to}"), &Value::Null).await
}

#[tokio::test]
async fn a_policy_lets_a_client_do_what_it_says_and_nothing_else() {
    let front = Front::start().await;
    let stranger = identity(&front.stranger);
    front.make("app-1").await;
    front.make("other").await;
    let paths = json!({ "paths": ["/v1/key/generate/app-*", "/v1/key/list/*"] });
    let written = front.post("/v1/policy/write/app", &paths).await;
    assert_eq!((written.status.as_u16(), written.text.as_str()), (200, ""));
    assert_eq!(assign(&front, "app", stranger).await.status, 200);
    let try_all = async || {
        let mut statuses = Vec::new();
        for (method, path) in [
            (Method::POST, "/v1/key/generate/app-1"),
            (Method::POST, "/v1/key/generate/%61pp-1"),
            (Method::GET, "/v1/key/list/*"),
            (Method::POST, "/v1/key/generate/other"),
            (Method::POST, "/v1/key/encrypt/app-1"),
            (Method::GET, "/v1/status"),
        ] {
            statuses.push(front.ask(Some(&front.stranger), method, path, "{}").await.status.as_u16());
        }
        statuses
    };
    assert_eq!(try_all().await, [200, 200, 200, 403, 403, 403]);
    let bare = front.ask(Some(&front.stranger), Method::GET, "/v1/key/list", "").await;
    assert_eq!(bare.status, 200, "judged as the list that it is");
    let refusal = front.ask(Some(&front.stranger), Method::POST, "/v1/key/encrypt/app-1", "{}").await;
    assert_eq!(refused(&refusal), said(403, "prohibited by policy"));
    assert!(
        front.lines().contains(&format!("1 {stranger} key.encrypt app-1 {NO_RIGHT}")),
        "it is known: in its tenant's chain"
    );

    assert_eq!(front.delete("/v1/policy/delete/app").await.status, 200);
    assert_eq!(try_all().await, [403; 6]);
    // A later policy of that name is another.
    front.post("/v1/policy/write/app", &paths).await;
    assert_eq!(try_all().await, [403; 6]);
    assert_eq!(assign(&front, "app", stranger).await.status, 200);
    assert_eq!(try_all().await, [200, 200, 200, 403, 403, 403]);
    assert_eq!(front.delete(&format!("/v1/identity/forget/{stranger}")).await.status, 200);
    assert_eq!(try_all().await, [403; 6]);
}

#[tokio::test]
async fn patterns_mean_what_they_meant_where_they_were_written() {
    let front = Front::start().await;
    front.make("a").await;
    let stranger = identity(&front.stranger);
    for (body, status) in [
        // A star stops at a slash, in lists.
        (json!({ "paths": ["/v1/*"] }), 403),
        (json!({ "allow": ["/v1/*"] }), 403),
        (json!({ "allow": ["/v1/key/*/a"] }), 200),
        (json!({ "allow": ["/v1/key/*/a"], "deny": ["/v1/key/describe/?"] }), 403),
        // And crosses it, in objects.
        (json!({ "allow": { "/v1/*": {} } }), 200),
        (json!({ "allow": { "/v1/*": {} }, "deny": { "/v1/key/describe/a": {} } }), 403),
        (json!({ "deny": { "/v1/key/describe/a": {} } }), 403),
    ] {
        assert_eq!(front.post("/v1/policy/write/p", &body).await.status, 200, "{body}");
        assert_eq!(assign(&front, "p", stranger).await.status, 200);
        let answer = front.ask(Some(&front.stranger), Method::GET, "/v1/key/describe/a", "").await;
        assert_eq!(answer.status, status, "{body}");
    }
}

#[tokio::test]
async fn policies_are_read_described_and_listed_in_either_form() {
    let front = Front::start().await;
    front.post("/v1/policy/write/my-policy", &json!({ "paths": ["/v1/key/generate/my-key"] })).await;
    front.post("/v1/policy/write/new", &json!({ "allow": { "/v1/*": {} }, "deny": { "/v1/key/delete/*": {} } })).await;
    let plain = front.get("/v1/policy/read/my-policy").await.json();
    assert_eq!(plain, json!({ "paths": ["/v1/key/generate/my-key"] }));
    let (by, at) = (identity(&front.admin).to_string(), "2023-11-14T22:13:20.000000Z");
    let whole = json!({
        "name": "new", "allow": { "/v1/*": {} }, "deny": { "/v1/key/delete/*": {} }, "created_at": at, "created_by": by,
    });
    assert_eq!(front.get("/v1/policy/read/new").await.json(), whole, "the older form could not say it");
    let described = front.get("/v1/policy/describe/new").await.json();
    assert_eq!(described, json!({ "name": "new", "created_at": at, "created_by": by }));
    assert_eq!(front.get("/v1/policy/list/*").await.json(), json!(["my-policy", "new"]));
    assert_eq!(front.get("/v1/policy/list/my*").await.json(), json!(["my-policy"]));
    let page = json!({ "names": ["my-policy", "new"], "continue_at": "" });
    assert_eq!(front.get("/v1/policy/list/").await.json(), page);
    for path in ["/v1/policy/read/none", "/v1/policy/describe/none"] {
        assert_eq!(refused(&front.get(path).await), said(404, "policy does not exist"));
    }
    assert_eq!(refused(&front.delete("/v1/policy/delete/none").await), said(404, "policy does not exist"));
}

#[tokio::test]
async fn what_is_no_policy_is_refused_and_changes_nothing() {
    let front = Front::start().await;
    for body in [
        json!({}),
        json!([]),
        json!({ "paths": ["a"], "unknown": 1 }),
        json!({ "paths": ["a"], "allow": ["b"] }),
        json!({ "allow": ["a"], "deny": { "b": {} } }),
        json!({ "allow": "a" }),
    ] {
        assert_eq!(refused(&front.post("/v1/policy/write/p", &body).await), said(400, "invalid json"), "{body}");
        assert_eq!(refused(&front.put("/v1/policy/write/p", &body).await), said(400, "invalid request body"), "{body}");
    }
    for (body, words) in [
        (json!({ "paths": ["["] }), "syntax error in pattern"),
        (json!({ "paths": vec!["a"; 513] }), "a policy has at most 512 patterns"),
        (json!({ "paths": ["a".repeat(257)] }), "a pattern has at most 256 bytes"),
    ] {
        assert_eq!(refused(&front.post("/v1/policy/write/p", &body).await), said(400, words));
    }
    assert_eq!(front.get("/v1/policy/list/*").await.json(), json!([]));
}

#[tokio::test]
async fn identities_are_described_and_listed_in_either_form() {
    let front = Front::start().await;
    let (admin, stranger) = (identity(&front.admin), identity(&front.stranger));
    front.post("/v1/policy/write/p", &json!({ "allow": { "/v1/key/*": {} } })).await;
    assign(&front, "p", stranger).await;
    let at = "2023-11-14T22:13:20.000000Z";
    assert_eq!(front.get("/v1/identity/list/*").await.json(), json!({ (stranger.to_string()): "p" }));
    let both: BTreeSet<String> = [admin, stranger].iter().map(ToString::to_string).collect();
    let page = json!({ "identities": both, "continue_at": "" });
    assert_eq!(front.get("/v1/identity/list/").await.json(), page, "administrators included");
    let described = front.get(&format!("/v1/identity/describe/{stranger}")).await.json();
    assert_eq!(described, json!({ "policy": "p", "created_at": at, "created_by": admin.to_string() }));
    let described = front.get(&format!("/v1/identity/describe/{admin}")).await.json();
    assert_eq!(described, json!({ "admin": true, "created_at": at }));
    for (path, status) in [("abc", 404), ("a.b", 400), (&*"0".repeat(64), 404)] {
        assert_eq!(front.get(&format!("/v1/identity/describe/{path}")).await.status, status, "{path}");
    }
    let own = "/v1/identity/self/describe";
    let of_admin = front.get(own).await.json();
    assert_eq!(of_admin, json!({ "identity": admin.to_string(), "admin": true, "created_at": at }));
    let of_other = front.ask(Some(&front.stranger), Method::GET, own, "").await.json();
    let expected = json!({
        "identity": stranger.to_string(),
        "created_at": at,
        "created_by": admin.to_string(),
        "policy": "p",
        "allow": { "/v1/key/*": {} },
    });
    assert_eq!(of_other, expected, "no policy has to let it");
    let nobody = front.ask(Some(&Credentials::new("x", 43)), Method::GET, own, "").await;
    assert_eq!(refused(&nobody), said(403, "not authorized: insufficient permissions"));
}

#[tokio::test]
async fn nobody_assigns_to_himself_nor_to_an_administrator() {
    let front = Front::start().await;
    let (admin, stranger) = (identity(&front.admin), identity(&front.stranger));
    front.post("/v1/policy/write/all", &json!({ "paths": ["/v1/*/*/*", "/v1/identity/assign/*/*"] })).await;
    assign(&front, "all", stranger).await;
    let itself = format!("/v1/identity/assign/all/{stranger}");
    let answer = front.ask(Some(&front.stranger), Method::POST, &itself, "").await;
    assert_eq!(refused(&answer), said(403, "identity cannot assign policy to itself"));
    let to_admin = format!("/v1/identity/assign/all/{admin}");
    let answer = front.ask(Some(&front.stranger), Method::POST, &to_admin, "").await;
    assert_eq!(refused(&answer), said(400, "identity is root"));
    let forgotten = format!("/v1/identity/forget/{admin}");
    let answer = front.ask(Some(&front.stranger), Method::DELETE, &forgotten, "").await;
    assert_eq!(refused(&answer), said(400, "identity is root"));
    for (path, status, words) in [
        (format!("none/{stranger}"), 404, "policy does not exist"),
        ("all/abc".to_owned(), 400, "identity is unknown"),
        ("all/".to_owned(), 400, "request URL path does not match API pattern: /v1/identity/assign/*"),
        (format!("all/{stranger}/x"), 400, "request URL path does not match API pattern: /v1/identity/assign/*"),
    ] {
        let answer = front.post(&format!("/v1/identity/assign/{path}"), &Value::Null).await;
        assert_eq!(refused(&answer), said(status, words), "{path}");
    }
}

#[tokio::test]
async fn what_the_configuration_says_is_not_changed_by_the_api() {
    let other = Credentials::new("other", 44);
    let text = format!(
        "[kes.policy.app]\nallow = [\"/v1/key/create/app-*\"]\nidentities = [{:?}]\n",
        identity(&other).to_string()
    );
    let front = Front::with(&text).await;
    let made = front.ask(Some(&other), Method::POST, "/v1/key/create/app-1", "").await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert_eq!(front.ask(Some(&other), Method::POST, "/v1/key/create/x", "").await.status, 403);
    let said_by = "it is set by the configuration of central";
    let paths = json!({ "paths": ["/v1/*"] });
    assert_eq!(refused(&front.post("/v1/policy/write/app", &paths).await), said(409, said_by));
    assert_eq!(refused(&front.delete("/v1/policy/delete/app").await), said(409, said_by));
    front.post("/v1/policy/write/more", &paths).await;
    assert_eq!(refused(&assign(&front, "more", identity(&other)).await), said(409, said_by));
    let forget = format!("/v1/identity/forget/{}", identity(&other));
    assert_eq!(refused(&front.delete(&forget).await), said(409, said_by));
}

#[tokio::test]
async fn a_right_that_is_taken_away_while_the_body_comes_is_gone() {
    let front = Front::start().await;
    front.make("k").await;
    let stranger = identity(&front.stranger);
    let around = surround(front.routes.clone(), FrontOptions::default()).0;
    for path in ["/v1/key/encrypt/k", "/v1/key/decrypt/k", "/v1/key/generate/k", "/v1/key/hmac/k", "/v1/key/import/i"] {
        front.post("/v1/policy/write/all", &json!({ "paths": ["/v1/key/*/*"] })).await;
        assert_eq!(assign(&front, "all", stranger).await.status, 200);
        let (send, late) = tokio::sync::oneshot::channel();
        let certificate = ClientCertificate::from_chain(std::iter::once(front.stranger.certificate.as_slice()));
        let asked = Request::post(path).body(Body::new(Late(late))).unwrap();
        let peer = Peer::new(([192, 0, 2, 7], 4711).into(), certificate);
        let revoke = async {
            assert_eq!(front.delete(&format!("/v1/identity/forget/{stranger}")).await.status, 200);
            send.send(r#"{"bytes": "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo="}"#).unwrap();
        };
        // The first is polled first: it may, and waits for its body before the second begins.
        let (answer, ()) = tokio::join!(around.answer(peer, asked), revoke);
        assert_eq!(answer.status(), 403, "{path}");
    }
    assert_eq!(front.get("/v1/key/list/").await.json(), json!({ "names": ["k"] }));
}

#[tokio::test]
async fn clients_of_the_middle_years_assign_and_delete_in_their_own_way() {
    let front = Front::start().await;
    let (admin, stranger) = (identity(&front.admin), identity(&front.stranger));
    front.post("/v1/policy/write/app", &json!({ "allow": ["/v1/key/list/*"] })).await;
    let listed = async || front.ask(Some(&front.stranger), Method::GET, "/v1/key/list/*", "").await.status;
    let given = front.post("/v1/policy/assign/app", &json!({ "identity": stranger.to_string() })).await;
    assert_eq!((given.status.as_u16(), given.text.as_str(), listed().await.as_u16()), (200, "", 200));
    let nobody = "identity '' is empty, too long or contains invalid characters";
    for (policy, body, refusal) in [
        ("app", json!({}), said(400, nobody)),
        ("app", json!({ "identity": admin.to_string() }), said(403, "identity cannot assign policy to itself")),
        ("none", json!({ "identity": stranger.to_string() }), said(404, "policy does not exist")),
        ("app", json!({ "identity": 5 }), said(400, "invalid request body")),
        ("app", json!({ "identity": "", "x": "y".repeat(1024) }), said(400, "invalid request body")),
    ] {
        assert_eq!(refused(&front.post(&format!("/v1/policy/assign/{policy}"), &body).await), refusal, "{body}");
    }
    let own = front.delete(&format!("/v1/identity/delete/{admin}")).await;
    assert_eq!(refused(&own), said(400, "cannot delete system admin"));
    assert_eq!(front.delete(&format!("/v1/identity/delete/{stranger}")).await.status, 200);
    assert_eq!(listed().await, 403);
    let gone = front.delete(&format!("/v1/identity/delete/{stranger}")).await;
    assert_eq!(refused(&gone), said(404, "identity does not exist"));
}

#[tokio::test]
async fn identities_of_a_policy_that_was_deleted_make_room_by_and_by() {
    let front = Front::start().await;
    let (gone, kept) = (Identity([0xa1; 32]), Identity([0xb2; 32]));
    for (policy, who) in [("p", gone), ("q", kept)] {
        front.post(&format!("/v1/policy/write/{policy}"), &json!({ "paths": ["/v1/key/list/*"] })).await;
        assign(&front, policy, who).await;
    }
    let node = &front.world.node;
    let clear = async || {
        let (node, barrier) = (node.clone(), node.barrier());
        clear(barrier, (AT_CENTRAL, at_central), 0, move || node.now()).await.unwrap()
    };
    let count = || tally::<Assignment>(&node.barrier().snapshot().unwrap(), Realm(1)).unwrap();
    assert_eq!((clear().await, count()), (0, 3));
    front.delete("/v1/policy/delete/p").await;
    assert_eq!((clear().await, count()), (1, 2), "administrators stay, too");
    assert_eq!((clear().await, count()), (0, 2), "once");
    assert_eq!(front.get("/v1/identity/list/*").await.json(), json!({ (kept.to_string()): "q" }));
    assign(&front, "q", gone).await;
    assert_eq!((clear().await, count()), (0, 3));
}
