//! Lists, in either way.

use super::*;

#[tokio::test]
async fn a_pattern_lists_line_by_line_and_a_prefix_page_by_page() {
    let front = Front::start().await;
    for key in ["my-key", "my-key1", "other"] {
        front.make(key).await;
    }
    for (pattern, expected) in [
        ("*", "my-key my-key1 other"),
        ("my-key*", "my-key my-key1"),
        ("my-key", "my-key"),
        ("my-key%3F", "my-key1"),
        ("%5Bn-o%5D*", "other"),
        ("*key1", "my-key1"),
        ("nothing", ""),
    ] {
        let listed = front.get(&format!("/v1/key/list/{pattern}")).await;
        assert_eq!(listed.header("content-type"), "application/x-ndjson");
        let lines = listed.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<String> = lines.map(|line| line["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found.join(" "), expected, "{pattern}");
    }
    let all = front.get("/v1/key/list/").await;
    assert_eq!(all.json(), json!({ "names": ["my-key", "my-key1", "other"] }), "only the newer client asks so");
    for bad in ["%5B", "a/b"] {
        assert_eq!(front.get(&format!("/v1/key/list/{bad}")).await.status, 400, "{bad}");
    }
    let front = Front::current().await;
    for key in ["my-key", "my-key1", "other"] {
        front.make(key).await;
    }
    for (prefix, expected) in [
        ("", json!(["my-key", "my-key1", "other"])),
        ("*", json!(["my-key", "my-key1", "other"])),
        ("my-*", json!(["my-key", "my-key1"])),
        ("other", json!(["other"])),
        ("x", json!([])),
    ] {
        assert_eq!(front.get(&format!("/v1/key/list/{prefix}")).await.json(), json!({ "names": expected }), "{prefix}");
    }
    let bare = front.get("/v1/key/list").await.json();
    assert_eq!(bare, json!({ "names": ["my-key", "my-key1", "other"] }), "as clients ask for all");
    front.make("list").await;
    assert_eq!(front.get("/v1/key/describe/list").await.json()["name"], "list");
    for bad in ["a-", "a.b", "**", "a/b", "*key1", "m*my-key"] {
        let words = format!("listing pattern '{bad}' is empty, too long or is invalid");
        assert_eq!(refused(&front.get(&format!("/v1/key/list/{bad}")).await), (400, words));
    }
}

#[tokio::test]
async fn eleven_hundred_keys_are_listed_whole() {
    let wanted: Vec<String> = (0..1100).map(|number| format!("key-{number:04}")).collect();
    let keys = wanted.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(",");
    let current = Front::with(&format!("[kes]\nprofile = \"current\"\nkeys = [{keys}]\n")).await;
    let mut found = BTreeSet::new();
    let (mut at, mut pages) = ("key-".to_owned() + "*", 0);
    loop {
        let page = current.get(&format!("/v1/key/list/{at}")).await;
        assert!(names(&page).len() <= 1024);
        found.extend(names(&page));
        pages += 1;
        match page.json()["continue_at"].as_str() {
            Some(next) => at = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((found.len(), pages), (1100, 2));
    assert_eq!(found, wanted.into_iter().collect());
}

#[tokio::test]
async fn only_keys_of_the_tenant_are_listed() {
    let front = Front::current().await;
    let mut wanted = Configured::default();
    wanted.admins.insert(identity(&front.stranger));
    wanted.keys.insert("theirs".parse().unwrap());
    configure(&front.world, Realm(2), &wanted).await;
    front.make("ours").await;
    let stranger = Some(&front.stranger);
    let theirs = front.ask(stranger, Method::GET, "/v1/key/list/?enclave=acme", "").await;
    assert_eq!(theirs.json(), json!({ "names": ["theirs"] }));
    assert_eq!(front.get("/v1/key/list/").await.json(), json!({ "names": ["ours"] }));
    for (who, path) in [
        (&front.stranger, "/v1/key/list/"),
        (&front.stranger, "/v1/key/describe/ours?enclave=system"),
        (&front.admin, "/v1/key/list/?enclave=acme"),
        (&front.admin, "/v1/key/list/?enclave=nobody"),
        (&front.admin, "/v1/key/list/?enclave=NO%20NAME"),
        (&front.stranger, "/v1/key/list/?enclave=%ff&enclave=acme"),
        (&front.admin, "/v1/key/list/?enclave=%zz"),
    ] {
        let answer = front.ask(Some(who), Method::GET, path, "").await;
        assert_eq!(refused(&answer), said(403, "not authorized: insufficient permissions"), "{path}");
    }
    let request = Request::get("/v1/key/list/").header("host", "localhost").header("kes-enclave", "acme");
    let by_header = front.send(stranger, request.body(Body::empty()).unwrap()).await;
    assert_eq!(by_header.json(), json!({ "names": ["theirs"] }));
}
