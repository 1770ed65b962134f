//! Encrypting, decrypting, data keys, message authentication.

use super::*;

#[tokio::test]
async fn the_curls_of_the_page_work_as_they_are_printed() {
    let front = Front::start().await;
    assert_eq!(front.get("/version").await.json(), json!({ "version": "1.2.3" }));
    front.make("my-key").await;
    let imported = json!({ "bytes": "uNta318uv2GvEmMs5U4HiIWE/GtrpADR0cYZg+nhrkI=" });
    assert_eq!(front.post("/v1/key/import/my-key1", &imported).await.status, 200);
    let listed = front.get("/v1/key/list/my-key*").await;
    assert_eq!(listed.text, "{\"name\":\"my-key\"}\n{\"name\":\"my-key1\"}\n");
    let generated = front.post("/v1/key/generate/my-key", &json!({})).await;
    assert_eq!(bytes(&generated, "plaintext").len(), 32);
    let opened = front.post("/v1/key/decrypt/my-key", &json!({ "ciphertext": generated.json()["ciphertext"] })).await;
    assert_eq!(opened.json(), json!({ "plaintext": generated.json()["plaintext"] }));
    let encrypted = front.post("/v1/key/encrypt/my-key", &json!({ "plaintext": "SGVsbG8gV29ybGQhCg==" })).await;
    let opened = front.post("/v1/key/decrypt/my-key", &json!({ "ciphertext": encrypted.json()["ciphertext"] })).await;
    assert_eq!(opened.json(), json!({ "plaintext": "SGVsbG8gV29ybGQhCg==" }));
    let form: Value = serde_json::from_slice(&bytes(&encrypted, "ciphertext")).unwrap();
    let members: Vec<&str> = form.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["aead", "bytes", "iv", "nonce"]));
    assert_eq!(form["aead"], "AES-256-GCM-HMAC-SHA-256");
}

#[tokio::test]
async fn either_profile_decrypts_what_the_other_has_encrypted() {
    let front = Front::start().await;
    front.make("k").await;
    let plaintext = json!({ "plaintext": base64("text"), "context": base64("of it") });
    let older = bytes(&front.post("/v1/key/encrypt/k", &plaintext).await, "ciphertext");
    let newer = bytes(&front.put("/v1/key/encrypt/k", &plaintext).await, "ciphertext");
    assert_eq!((older[0], newer.len()), (b'{', 4 + 44));
    for ciphertext in [older, newer] {
        for method in [Method::POST, Method::PUT] {
            let body = json!({ "ciphertext": base64(&ciphertext), "context": base64("of it") }).to_string();
            let opened = front.ask(Some(&front.admin), method.clone(), "/v1/key/decrypt/k", body).await;
            assert_eq!(bytes(&opened, "plaintext"), b"text");
            let elsewhere = json!({ "ciphertext": base64(&ciphertext), "context": base64("of another") }).to_string();
            assert_eq!(front.ask(Some(&front.admin), method, "/v1/key/decrypt/k", elsewhere).await.status, 400);
        }
    }
}

#[tokio::test]
async fn a_data_key_is_new_each_time_and_as_long_as_clients_expect() {
    let front = Front::current().await;
    front.make("k").await;
    let mut seen = BTreeSet::new();
    // The newest client sends POST, and nothing.
    for body in ["", "{}", "null", r#"{"context":"YQ=="}"#] {
        let answer = front.ask(Some(&front.admin), Method::POST, "/v1/key/generate/k", body).await;
        let (plaintext, ciphertext) = (bytes(&answer, "plaintext"), bytes(&answer, "ciphertext"));
        assert_eq!((plaintext.len(), ciphertext.len()), (32, 76), "{body}");
        assert!(seen.insert(plaintext) && seen.insert(ciphertext));
    }
    let older = Front::start().await;
    older.make("k").await;
    let nothing = older.ask(Some(&older.admin), Method::POST, "/v1/key/generate/k", "").await;
    assert_eq!(refused(&nothing), said(400, "invalid json"));
}

#[tokio::test]
async fn an_empty_plaintext_is_an_empty_text() {
    let front = Front::current().await;
    front.make("k").await;
    let sealed = front.post("/v1/key/encrypt/k", &json!({})).await.json();
    let opened = front.post("/v1/key/decrypt/k", &json!({ "ciphertext": sealed["ciphertext"] })).await;
    assert_eq!(opened.json(), json!({ "plaintext": "" }));
}

#[tokio::test]
async fn many_ciphertexts_are_decrypted_at_once_or_none() {
    let front = Front::current().await;
    front.make("k").await;
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        let body = json!({ "plaintext": base64(name), "context": base64(format!("of {name}")) });
        let sealed = front.put("/v1/key/encrypt/k", &body).await.json();
        all.push(json!({ "ciphertext": sealed["ciphertext"], "context": base64(format!("of {name}")) }));
    }
    let opened = front.post("/v1/key/bulk/decrypt/k", &json!(all)).await.json();
    assert_eq!(opened, json!(["a", "b", "c"].map(|name| json!({ "plaintext": base64(name) }))));
    assert_eq!(front.post("/v1/key/bulk/decrypt/k", &json!([])).await.json(), json!([]));
    all[1]["context"] = json!(base64("of c"));
    let none = front.post("/v1/key/bulk/decrypt/k", &json!(all)).await;
    assert_eq!(refused(&none), said(400, "decryption failed: ciphertext is not authentic"));
}

#[tokio::test]
async fn an_hmac_is_of_the_key_and_the_message() {
    let front = Front::current().await;
    front.make("k").await;
    front.make("l").await;
    let of = async |key: &str, message: &str| {
        let path = format!("/v1/key/hmac/{key}");
        bytes(&front.put(&path, &json!({ "message": base64(message) })).await, "hmac")
    };
    let mac = of("k", "message").await;
    assert_eq!((mac.len(), of("k", "message").await == mac), (32, true));
    assert!(of("k", "other").await != mac && of("l", "message").await != mac);
    front.put("/v1/key/rotate/k", &Value::Null).await;
    assert_eq!(of("k", "message").await, mac, "what was derived by it stays");
}

#[tokio::test]
async fn every_request_has_one_line() {
    let front = Front::current().await;
    let before = front.changes();
    front.make("k").await;
    let sealed = front.put("/v1/key/encrypt/k", &json!({})).await.json();
    front.put("/v1/key/decrypt/k", &json!({ "ciphertext": sealed["ciphertext"] })).await;
    front.put("/v1/key/generate/k", &json!({})).await;
    front.put("/v1/key/hmac/k", &json!({})).await;
    front.get("/v1/key/describe/k").await;
    front.get("/v1/key/list/").await;
    front.put("/v1/key/decrypt/k", &json!({})).await;
    front.put("/v1/key/create/k", &json!({})).await;
    front.ask(Some(&front.stranger), Method::GET, "/v1/key/list/", "").await;
    front.ask(None, Method::GET, "/v1/key/describe/k", "").await;
    let (admin, stranger) = (identity(&front.admin), identity(&front.stranger));
    let refused = "not authorized: insufficient permissions";
    let expected = [
        format!("1 {admin} key.encrypt k ok"),
        format!("1 {admin} key.decrypt k ok"),
        format!("1 {admin} key.generate k ok"),
        format!("1 {admin} key.hmac k ok"),
        format!("1 {admin} key.describe k ok"),
        format!("1 {admin} key.list  ok"),
        format!("1 {admin} key.decrypt k decryption failed: ciphertext is not authentic"),
        format!("1 {admin} key.create k key exists already"),
        format!("0 {stranger} key.list  {refused}"),
        "0 - key.describe k tls: client certificate is required".to_owned(),
    ];
    assert_eq!(front.lines(), expected);
    assert_eq!(front.changes(), before + 1, "the one that made the key stands in the chain of changes");
}
