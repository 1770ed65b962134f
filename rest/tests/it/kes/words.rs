//! Refusals, byte for byte.

use super::*;

#[tokio::test]
async fn refusals_are_those_of_either_profile_byte_for_byte() {
    let front = Front::start().await;
    front.make("taken").await;
    let seed = front.ask(Some(&front.admin), Method::POST, "/v1/key/create/taken", Body::empty()).await;
    assert_eq!((seed.status.as_u16(), seed.text.as_str()), (400, r#"{"message":"key does already exist"}"#));
    assert_eq!(seed.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(seed.header("x-content-type-options"), "nosniff");
    let current = front.ask(Some(&front.admin), Method::PUT, "/v1/key/create/taken", Body::empty()).await;
    assert_eq!((current.status.as_u16(), current.text.as_str()), (400, "{\"message\":\"key already exists\"\n}"));
    assert_eq!(current.header("content-type"), "application/json");
    let escaped = front.put("/v1/key/create/%3Ca%26b%3E", &Value::Null).await;
    let expected =
        "{\"message\":\"key name '\\u003ca\\u0026b\\u003e' is empty, too long or contains invalid characters\"\n}";
    assert_eq!((escaped.status.as_u16(), escaped.text.as_str()), (400, expected));
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_words() {
    let front = Front::start().await;
    front.make("k").await;
    let short = json!({ "key": base64([1; 31]), "cipher": "AES256" });
    let unknown = json!({ "key": base64([1; 32]), "cipher": "DES" });
    let none = json!({ "ciphertext": base64([7; 60]) });
    let same = json!({ "ciphertext": "x" });
    for (method, path, body, seed, current) in [
        ("import", "i", json!({ "bytes": base64([1; 31]) }), (400, "invalid key"), (400, "invalid key")),
        ("import", "i", short, (406, "invalid key size for 'AES256'"), (406, "invalid key size for 'AES256'")),
        ("import", "i", unknown, (406, "algorithm 'DES' is not supported"), (406, "algorithm 'DES' is not supported")),
        ("import", "i", json!({}), (400, "invalid key"), (406, "algorithm '' is not supported")),
        ("import", "i", json!([]), (400, "invalid json"), (400, "invalid import key request body")),
        ("generate", "none", json!({}), (404, "key does not exist"), (404, "key does not exist")),
        ("generate", "k", json!({ "context": 5 }), (400, "invalid json"), (400, "invalid request body")),
        ("encrypt", "k", json!({ "plaintext": "?" }), (400, "invalid json"), (400, "invalid request body")),
        ("encrypt", "none", json!({}), (404, "key does not exist"), (404, "key does not exist")),
        ("decrypt", "k", same, (400, "invalid json"), (400, "invalid request body")),
        (
            "decrypt",
            "k",
            none,
            (400, "ciphertext is not authentic"),
            (400, "decryption failed: ciphertext is not authentic"),
        ),
        (
            "decrypt",
            "k",
            json!({}),
            (400, "ciphertext is not authentic"),
            (400, "decryption failed: ciphertext is not authentic"),
        ),
        ("hmac", "none", json!({}), (404, "key does not exist"), (404, "key does not exist")),
        ("rotate", "none", json!({}), (404, "key does not exist"), (404, "key does not exist")),
        ("bulk/decrypt", "k", json!({}), (400, "invalid request body"), (400, "invalid request body")),
        (
            "bulk/decrypt",
            "k",
            json!(vec![json!({}); 1001]),
            (400, "too many ciphertexts"),
            (400, "too many ciphertexts"),
        ),
    ] {
        let path = format!("/v1/key/{method}/{path}");
        let answers = [(seed, front.post(&path, &body).await), (current, front.put(&path, &body).await)];
        for ((status, words), answer) in answers {
            assert_eq!(refused(&answer), said(status, words), "{path} {body}");
        }
    }
}

#[tokio::test]
async fn a_ciphertext_of_another_kind_is_told_so_by_the_older_profile() {
    let front = Front::start().await;
    front.make("k").await;
    let json_form = |aead: &str, iv: usize, nonce: usize| {
        let text = json!({ "aead": aead, "iv": base64(vec![1; iv]), "nonce": base64(vec![2; nonce]), "bytes": base64([3; 48]) });
        json!({ "ciphertext": base64(text.to_string()) })
    };
    const AES: &str = "AES-256-GCM-HMAC-SHA-256";
    for (body, words) in [
        (json_form("AES-256-GCM", 16, 12), "invalid algorithm: AES-256-GCM"),
        (json_form(AES, 15, 12), "invalid iv size 15"),
        (json_form(AES, 16, 13), "invalid nonce size 13"),
        (json_form(AES, 16, 12), "ciphertext is not authentic"),
    ] {
        assert_eq!(refused(&front.post("/v1/key/decrypt/k", &body).await), said(400, words));
        let current = front.put("/v1/key/decrypt/k", &body).await;
        assert_eq!(refused(&current), said(400, "decryption failed: ciphertext is not authentic"));
    }
}

#[tokio::test]
async fn names_follow_the_rule_on_every_route() {
    let front = Front::start().await;
    let too_long = "a".repeat(81);
    for name in ["", "_", "-a", "a-", "a.b", "a%20b", "a%2Fb", "a/b", "%C3%A4", "a*", "%", "..", "%2e%2e", &too_long] {
        let shown = match name {
            "a%20b" => "a b",
            "a%2Fb" => "a/b",
            "%C3%A4" => "\u{e4}",
            "%2e%2e" => "..",
            other => other,
        };
        for (method, path, what) in [
            (Method::PUT, "key/create", "key name"),
            (Method::PUT, "key/import", "key name"),
            (Method::GET, "key/describe", "key name"),
            (Method::PUT, "key/generate", "key name"),
            (Method::PUT, "key/encrypt", "key name"),
            (Method::PUT, "key/decrypt", "key name"),
            (Method::PUT, "key/bulk/decrypt", "key name"),
            (Method::PUT, "key/hmac", "key name"),
            (Method::PUT, "key/rotate", "key name"),
            (Method::PUT, "key/distribute", "key name"),
            (Method::PUT, "key/erase", "key name"),
            (Method::PUT, "policy/assign", "policy name"),
            (Method::DELETE, "identity/delete", "identity"),
            (Method::PUT, "policy/write", "policy name"),
            (Method::GET, "policy/describe", "policy name"),
            (Method::GET, "identity/describe", "identity"),
        ] {
            let answer = front.ask(Some(&front.admin), method, &format!("/v1/{path}/{name}"), "{}").await;
            let words = format!("{what} '{shown}' is empty, too long or contains invalid characters");
            assert_eq!(refused(&answer), (400, words), "{path}");
        }
        for (method, path) in
            [(Method::POST, "key/create"), (Method::DELETE, "key/delete"), (Method::GET, "policy/read")]
        {
            let answer = front.ask(Some(&front.admin), method, &format!("/v1/{path}/{name}"), "{}").await;
            let words = match (shown.is_empty() || shown.contains('/'), path.starts_with("key")) {
                (true, _) => format!("request URL path does not match API pattern: /v1/{path}/*"),
                (false, true) => "invalid key name".to_owned(),
                (false, false) => "invalid policy name".to_owned(),
            };
            assert_eq!(refused(&answer), (400, words), "{path}/{name}");
        }
    }
    for name in ["a", "0", "my-key", "my_key", "_a", "a_", "__", &"a".repeat(80)] {
        front.make(name).await;
    }
}

#[tokio::test]
async fn another_method_is_refused_before_anything_is_asked() {
    let front = Front::start().await;
    for (method, path, expected) in [
        (Method::DELETE, "/v1/key/create/a", "PUT"),
        (Method::GET, "/v1/key/create/a", "PUT"),
        (Method::GET, "/v1/key/generate/a", "PUT"),
        (Method::POST, "/v1/key/list/a", "GET"),
        (Method::GET, "/v1/key/delete/", "DELETE"),
        (Method::POST, "/v1/policy/delete/a", "DELETE"),
    ] {
        let answer = front.ask(None, method.clone(), path, Body::empty()).await;
        assert_eq!((refused(&answer), answer.header("accept")), (said(405, "Method Not Allowed"), expected), "{path}");
    }
    let later = front.ask(None, Method::DELETE, "/v1/status", Body::empty()).await;
    assert_eq!(refused(&later), said(405, "received method 'DELETE' expected 'GET'"));
    // A path that can be read has no head of its own.
    for path in ["/v1/status", "/v1/key/list/", "/v1/log/audit"] {
        let head = front.ask(Some(&front.admin), Method::HEAD, path, Body::empty()).await;
        assert_eq!((head.status.as_u16(), head.header("accept"), head.text.as_str()), (405, "GET", ""), "{path}");
    }
    assert_eq!(front.lines().len(), 10, "{:?}", front.lines());
    let unknown = front.ask(None, Method::GET, "/v1/key/nothing/a", Body::empty()).await;
    assert_eq!((unknown.status.as_u16(), unknown.text.as_str()), (404, "404 page not found\n"));
}

#[tokio::test]
async fn a_body_above_a_million_bytes_is_one_that_can_not_be_read() {
    let front = Front::start().await;
    front.make("k").await;
    let body = |len: usize| {
        let empty = json!({ "plaintext": "" }).to_string().len();
        json!({ "plaintext": "A".repeat(len - empty) })
    };
    let fits = 999_999 - (999_999 - 16) % 4;
    assert_eq!(front.put("/v1/key/encrypt/k", &body(fits)).await.status, 200);
    for (path, len) in [("encrypt", 1_000_001), ("decrypt", 1_000_001), ("hmac", 2_000_000), ("generate", 1_000_001)] {
        let answer = front.put(&format!("/v1/key/{path}/k"), &body(len)).await;
        assert_eq!(refused(&answer), said(400, "invalid request body"), "{path}");
    }
    for path in ["create", "rotate", "distribute", "erase"] {
        let answer = front.put(&format!("/v1/key/{path}/k"), &body(1_000_001)).await;
        assert_eq!(refused(&answer), said(400, "invalid request body"), "{path}");
    }
    let import = front.put("/v1/key/import/x", &body(1_000_001)).await;
    assert_eq!(refused(&import), said(400, "invalid import key request body"));
    assert_eq!(refused(&front.post("/v1/key/encrypt/k", &body(1_000_001)).await), said(400, "invalid json"));
}
