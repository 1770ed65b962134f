//! Keys: made, imported, rotated, described, deleted.

use super::*;

#[tokio::test]
async fn a_key_is_made_described_and_deleted() {
    let front = Front::start().await;
    front.make("my-key").await;
    let described = front.get("/v1/key/describe/my-key").await;
    let expected = json!({
        "name": "my-key", "algorithm": "AES256", "created_at": "2023-11-14T22:13:20.000000Z",
        "created_by": identity(&front.admin).to_string(),
    });
    assert_eq!((described.status.as_u16(), described.json()), (200, expected));
    // As the page prints it, and as its table says.
    front.make("other").await;
    for (method, key) in [(Method::POST, "my-key"), (Method::DELETE, "other")] {
        let path = format!("/v1/key/delete/{key}");
        let deleted = front.ask(Some(&front.admin), method.clone(), &path, Body::empty()).await;
        assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (200, ""));
        let again = front.ask(Some(&front.admin), method, &path, Body::empty()).await;
        assert_eq!(refused(&again), said(404, "key does not exist"));
        assert_eq!(front.get(&format!("/v1/key/describe/{key}")).await.status, 404);
    }
}

#[tokio::test]
async fn of_many_who_make_one_key_at_once_one_has_made_it() {
    let front = Front::start().await;
    let mut waiting = tokio::task::JoinSet::new();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, front.server.local_addr().port()));
    for _ in 0..64 {
        let config = client_config(Some(&front.admin), "http/1.1");
        let request = Request::put("/v1/key/create/one").header("host", "localhost").body(Body::empty()).unwrap();
        waiting.spawn(async move { send(addr, config, request).await.unwrap() });
    }
    let mut made = 0;
    while let Some(answer) = waiting.join_next().await {
        let answer = answer.unwrap();
        if answer.status == 200 {
            made += 1;
        } else {
            assert_eq!(refused(&answer), said(400, "key already exists"));
        }
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_key_is_imported_in_either_form_by_either_method() {
    let front = Front::start().await;
    let key = base64([0x5a; 32]);
    for (name, method, body, algorithm) in [
        ("a", Method::POST, json!({ "bytes": key }), "AES256"),
        ("b", Method::PUT, json!({ "bytes": key }), "AES256"),
        ("c", Method::POST, json!({ "key": key, "cipher": "AES256" }), "AES256"),
        ("d", Method::PUT, json!({ "key": key, "cipher": "AES256-GCM_SHA256" }), "AES256"),
        ("e", Method::PUT, json!({ "Key": key, "Cipher": "ChaCha20", "x": 1 }), "ChaCha20"),
        ("f", Method::PUT, json!({ "key": key, "cipher": "XCHACHA20-POLY1305" }), "ChaCha20"),
    ] {
        let path = format!("/v1/key/import/{name}");
        let answer = front.ask(Some(&front.admin), method.clone(), &path, body.to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""), "{name}");
        assert_eq!(front.get(&format!("/v1/key/describe/{name}")).await.json()["algorithm"], algorithm, "{name}");
        let again = front.ask(Some(&front.admin), method, &path, body.to_string()).await;
        assert_eq!(again.status, 400, "{name}");
    }
    // They are the same key.
    let sealed = front.put("/v1/key/encrypt/a", &json!({ "plaintext": base64("x") })).await.json();
    for (name, status) in [("b", 200), ("c", 200), ("d", 200), ("e", 400)] {
        let opened =
            front.put(&format!("/v1/key/decrypt/{name}"), &json!({ "ciphertext": sealed["ciphertext"] })).await;
        assert_eq!(opened.status, status, "{name}");
    }
}

#[tokio::test]
async fn what_a_rotated_key_has_encrypted_still_decrypts() {
    let front = Front::current().await;
    front.make("k").await;
    let sealed =
        async || bytes(&front.put("/v1/key/encrypt/k", &json!({ "plaintext": base64("x") })).await, "ciphertext");
    let before = sealed().await;
    for version in [2, 3] {
        let rotated = front.put("/v1/key/rotate/k", &Value::Null).await;
        assert_eq!((rotated.status.as_u16(), rotated.json()), (200, json!({ "version": version })));
    }
    for ciphertext in [before, sealed().await] {
        let opened = front.put("/v1/key/decrypt/k", &json!({ "ciphertext": base64(ciphertext) })).await;
        assert_eq!(bytes(&opened, "plaintext"), b"x");
    }
}

#[tokio::test]
async fn a_key_that_the_configuration_wants_is_not_deleted() {
    let front = Front::with("[kes]\nkeys = [\"preset-key\"]\n").await;
    let kept = front.delete("/v1/key/delete/preset-key").await;
    assert_eq!(refused(&kept), said(409, "it is set by the configuration of central"));
    assert_eq!(front.post("/v1/key/generate/preset-key", &json!({})).await.status, 200);
}

#[tokio::test]
async fn whoever_may_not_make_keys_learns_nothing_by_trying() {
    let front = Front::start().await;
    front.make("there").await;
    for path in ["create/there", "create/absent", "create/a.b", "import/there", "generate/there", "decrypt/-", "hmac/x"]
    {
        for method in [Method::POST, Method::PUT] {
            let answer = front.ask(Some(&front.stranger), method, &format!("/v1/key/{path}"), "no json").await;
            assert_eq!(answer.status, 403, "{path}");
        }
    }
}
