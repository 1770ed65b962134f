//! Keys: made, imported, rotated, described, deleted.

use super::*;

#[tokio::test]
async fn a_key_is_made_described_and_deleted() {
    let front = Front::start().await;
    front.make("my-key").await;
    let described = front.get("/v1/key/describe/my-key").await;
    let expected = json!({
        "name": "my-key", "algorithm": "AES256", "created_at": "2023-11-14T22:13:20.000000Z",
        "created_by": identity(&front.admin).to_string(), "version": 1,
        "versions": [{
            "version": 1, "algorithm": "AES256", "created_at": "2023-11-14T22:13:20.000000Z",
            "created_by": identity(&front.admin).to_string(), "state": "active",
        }],
        "distribute": { "to": "none", "offline": "unlimited" }, "origin": "api",
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
async fn of_many_who_make_one_key_at_once_one_has_made_it_and_all_use_the_same() {
    let front = Front::start().await;
    let mut waiting = tokio::task::JoinSet::new();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, front.server.local_addr().port()));
    for _ in 0..64 {
        let config = client_config(Some(&front.admin), "http/1.1");
        let put =
            |path, body: Value| Request::put(path).header("host", "localhost").body(body.to_string().into()).unwrap();
        let requests =
            [put("/v1/key/create/one", json!({})), put("/v1/key/encrypt/one", json!({ "plaintext": base64("x") }))];
        waiting.spawn(async move {
            let [create, encrypt] = requests;
            let made = send(addr, config.clone(), create).await.unwrap();
            (made, send(addr, config, encrypt).await.unwrap())
        });
    }
    let mut made = 0;
    let mut ciphertexts = Vec::new();
    while let Some(answers) = waiting.join_next().await {
        let (created, encrypted) = answers.unwrap();
        if created.status == 200 {
            made += 1;
        } else {
            assert_eq!(refused(&created), said(400, "key already exists"));
        }
        ciphertexts.push(json!({ "ciphertext": base64(bytes(&encrypted, "ciphertext")) }));
    }
    assert_eq!((made, ciphertexts.len()), (1, 64));
    let opened = front.put("/v1/key/bulk/decrypt/one", &json!(ciphertexts)).await;
    assert_eq!(opened.json(), json!(vec![json!({ "plaintext": base64("x") }); 64]));
    assert_eq!(front.get("/v1/key/describe/one").await.json()["version"], 1);
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
async fn a_key_is_made_of_the_cipher_and_for_the_sites_that_are_asked_for() {
    let front = Front::start().await;
    for (name, body, algorithm, distribute) in [
        ("a", json!({}), "AES256", json!({ "to": "none", "offline": "unlimited" })),
        ("b", json!({ "distribute": { "to": "all" } }), "AES256", json!({ "to": "all", "offline": "unlimited" })),
        (
            "c",
            json!({ "cipher": "ChaCha20", "distribute": { "sites": ["udc1"], "offline": "1h" }, "more": 1 }),
            "ChaCha20",
            json!({ "sites": ["udc1"], "offline": "1h" }),
        ),
        ("d", json!({ "distribute": null }), "AES256", json!({ "to": "none", "offline": "unlimited" })),
    ] {
        for (method, name) in [(Method::POST, name.to_owned()), (Method::PUT, format!("{name}2"))] {
            let path = format!("/v1/key/create/{name}");
            let made = front.ask(Some(&front.admin), method, &path, body.to_string()).await;
            assert_eq!((made.status.as_u16(), made.text.as_str()), (200, ""), "{name}");
            let described = front.get(&format!("/v1/key/describe/{name}")).await.json();
            assert_eq!((&described["algorithm"], &described["distribute"]), (&json!(algorithm), &distribute), "{name}");
        }
    }
    // KES looks at no body here, so there may be any.
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, front.server.local_addr().port()));
    for (number, body) in ["", "\n", "null", "[]", "no json", "5"].into_iter().enumerate() {
        let request = Request::post(format!("/v1/key/create/any-{number}")).header("host", "localhost");
        let config = client_config(Some(&front.admin), "http/1.1");
        let made = send(addr, config, request.body(body.into()).unwrap()).await.unwrap();
        assert_eq!(made.status, 200, "{body}");
    }
}

const NO_PLACEMENT: &str = r#"distribute: it is {"to": "none" | "all"} or {"sites": [..]}, with or without "offline""#;

#[tokio::test]
async fn where_a_key_can_not_go_it_is_not_made() {
    let front = Front::start().await;
    front.make("k").await;
    for (distribute, words) in [
        (json!({ "to": "some" }), "distribute: to is none or all"),
        (json!({ "to": "all", "sites": ["a"] }), "distribute: give either to or sites"),
        (json!({ "sites": ["../a"] }), "distribute: sites has a name that no site can have"),
        (json!({ "to": "all", "offline": "soon" }), "distribute: offline is unlimited or a duration such as 1h30m"),
        (json!({ "site": ["a"] }), NO_PLACEMENT),
        (json!("all"), NO_PLACEMENT),
    ] {
        let import = json!({ "key": base64([1; 32]), "cipher": "AES256", "distribute": distribute });
        for (path, body) in [
            ("create/x", json!({ "distribute": distribute })),
            ("import/x", import),
            ("distribute/k", distribute.clone()),
        ] {
            let refusal = front.put(&format!("/v1/key/{path}"), &body).await;
            assert_eq!(refused(&refusal), said(400, words), "{path} {body}");
        }
    }
    for (path, body, refusal) in [
        ("create/x", "{", said(400, "invalid request body")),
        ("create/x", r#"{"cipher":"DES"}"#, said(406, "algorithm 'DES' is not supported")),
        ("create/x", r#"{"cipher":5}"#, said(400, "invalid request body")),
        ("distribute/k", "", said(400, "invalid request body")),
        ("distribute/none", "{}", said(404, "key does not exist")),
    ] {
        let answer = front.ask(Some(&front.admin), Method::PUT, &format!("/v1/key/{path}"), body).await;
        assert_eq!(refused(&answer), refusal, "{path} {body}");
    }
    assert_eq!(front.get("/v1/key/describe/x").await.status, 404);
    assert_eq!(front.get("/v1/key/describe/k").await.json()["distribute"]["to"], "none");
}

#[tokio::test]
async fn where_a_key_goes_is_changed_as_a_whole() {
    let front = Front::current().await;
    front.make("k").await;
    for (method, body, shown) in [
        (Method::PUT, json!({ "to": "all", "offline": 90 }), json!({ "to": "all", "offline": "1m30s" })),
        (Method::POST, json!({ "sites": ["b", "a"] }), json!({ "sites": ["a", "b"], "offline": "unlimited" })),
        (Method::PUT, json!({}), json!({ "to": "none", "offline": "unlimited" })),
    ] {
        let done = front.ask(Some(&front.admin), method, "/v1/key/distribute/k", body.to_string()).await;
        assert_eq!((done.status.as_u16(), done.text.as_str()), (200, ""));
        assert_eq!(front.get("/v1/key/describe/k").await.json()["distribute"], shown);
    }
}

#[tokio::test]
async fn versions_are_made_as_asked_for_and_erased() {
    let front = Front::current().await;
    front.make("k").await;
    let mac = async |body: Value| front.put("/v1/key/hmac/k", &body).await;
    let first = bytes(&mac(json!({ "message": "" })).await, "hmac");
    for (body, version, algorithm, kept) in [
        (json!({ "cipher": "ChaCha20" }), 2, "ChaCha20", true),
        (json!({}), 3, "ChaCha20", true),
        (json!({ "cipher": "AES256", "renew_hmac": true }), 4, "AES256", false),
    ] {
        let rotated = front.put("/v1/key/rotate/k", &body).await;
        assert_eq!(rotated.json(), json!({ "version": version }), "{body}");
        let described = front.get("/v1/key/describe/k").await.json();
        assert_eq!((&described["version"], &described["algorithm"]), (&json!(version), &json!(algorithm)));
        let (this, newest) = (json!({ "message": "", "version": version }), json!({ "message": "", "version": 0 }));
        let macs = [bytes(&mac(this).await, "hmac"), bytes(&mac(newest).await, "hmac")];
        assert_eq!(macs.map(|mac| mac == first), [kept; 2], "{body}");
    }
    assert_eq!(bytes(&mac(json!({ "message": "", "version": 1 })).await, "hmac"), first);
    assert_eq!(refused(&mac(json!({ "message": "", "version": 5 })).await), said(409, "the key has no such version"));
    let erased = front.put("/v1/key/erase/k", &json!({ "versions": [1, 3] })).await;
    assert_eq!((erased.status.as_u16(), erased.text.as_str()), (200, ""));
    let described = front.get("/v1/key/describe/k").await.json();
    let versions = described["versions"].as_array().unwrap().iter();
    let states: Vec<_> = versions.map(|version| (&version["version"], &version["state"])).collect();
    assert_eq!(states, [(&json!(2), &json!("rotated")), (&json!(4), &json!("active"))]);
    assert_eq!(described["versions"][0]["until"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(refused(&mac(json!({ "message": "", "version": 1 })).await), said(409, "the key has no such version"));
    let newest = "the newest version is not erased: rotate the key first, or delete it";
    for (path, body, refusal) in [
        ("erase/k", json!({ "versions": [4] }), said(409, newest)),
        ("erase/k", json!({ "versions": [1] }), said(404, "version does not exist")),
        ("erase/k", json!({ "versions": [] }), said(404, "version does not exist")),
        ("erase/none", json!({ "versions": [1] }), said(404, "key does not exist")),
        ("erase/k", json!({}), said(400, "invalid request body")),
        ("erase/k", json!({ "versions": [-1] }), said(400, "invalid request body")),
        ("rotate/k", json!({ "cipher": "DES" }), said(406, "algorithm 'DES' is not supported")),
        ("rotate/k", json!({ "renew-hmac": true }), said(400, "invalid request body")),
        ("hmac/k", json!({ "message": "", "version": "1" }), said(400, "invalid request body")),
    ] {
        assert_eq!(refused(&front.put(&format!("/v1/key/{path}"), &body).await), refusal, "{path} {body}");
    }
}

#[tokio::test]
async fn a_key_is_imported_whole() {
    let front = Front::current().await;
    let material = json!({ "key": base64([1; 32]), "cipher": "ChaCha20", "hmac_key": base64([2; 32]) });
    let mut whole = material.clone();
    whole["created_at"] = json!("2022-04-07T12:00:00.5Z");
    whole["created_by"] = json!("3ecf");
    whole["distribute"] = json!({ "to": "all" });
    for (name, body) in [("a", &material), ("b", &whole), ("c", &json!({ "bytes": base64([1; 32]) }))] {
        assert_eq!(front.put(&format!("/v1/key/import/{name}"), body).await.status, 200, "{name}");
    }
    let described = front.get("/v1/key/describe/b").await.json();
    let (at, by) = ("2022-04-07T12:00:00.500000Z", "3ecf");
    assert_eq!((&described["created_at"], &described["created_by"]), (&json!(at), &json!(by)));
    assert_eq!((&described["distribute"]["to"], &described["algorithm"]), (&json!("all"), &json!("ChaCha20")));
    let ours = front.get("/v1/key/describe/a").await.json();
    assert_eq!(ours["created_by"], identity(&front.admin).to_string());
    // RFC 2104 by another hand: HMAC-SHA-256 of "message" under 32 bytes of 2.
    let mac = "7cd49440e192378b8d2584050da18f30";
    for (name, same) in [("a", true), ("b", true), ("c", false)] {
        let of =
            bytes(&front.put(&format!("/v1/key/hmac/{name}"), &json!({ "message": base64("message") })).await, "hmac");
        assert_eq!(hex::encode(of).starts_with(mac), same, "{name}");
    }
    let with = |member: &str, value: &str| {
        let mut body = material.clone();
        body[member] = json!(value);
        body
    };
    for (body, refusal) in [
        (with("hmac_key", &base64([1; 31])), said(406, "invalid key size for 'HMAC-SHA-256'")),
        (with("hmac_key", "?"), said(400, "invalid import key request body")),
        (with("created_at", "yesterday"), said(400, "created_at is no time of RFC 3339")),
        (with("created_by", "a\nb"), said(400, "created_by has at most 128 bytes, and no control characters")),
        (
            with("created_by", &"x".repeat(129)),
            said(400, "created_by has at most 128 bytes, and no control characters"),
        ),
    ] {
        assert_eq!(refused(&front.put("/v1/key/import/x", &body).await), refusal, "{body}");
    }
    assert_eq!(front.get("/v1/key/describe/x").await.status, 404);
}

#[tokio::test]
async fn a_key_that_the_configuration_wants_is_not_deleted() {
    let front = Front::with("[kes]\nkeys = [\"preset-key\"]\n").await;
    assert_eq!(front.get("/v1/key/describe/preset-key").await.json()["origin"], "config");
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
