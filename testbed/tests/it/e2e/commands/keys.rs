//! Keys as KES has them, what its clients may do, and who they are.

use std::fs;

use serde_json::Value;

use super::Shell;

pub(super) const PLAINTEXT: &str = "a plaintext that is a canary";
/// A key of KES' older form: 32 bytes, of which the base64 is looked for.
pub(super) const KEY: &str = "a2V5LW9mLWEtZmlsZS10aGF0LWlzLWEtY2FuYXJ5ISE=";

/// By whom they are made, used and changed.
pub(super) async fn keys(shell: &Shell) {
    shell.fails("key list", "", 1, &["client certificate is required", "--api-key-file"]).await;
    assert_eq!(shell.does("key create my-key --dir @dev", "").await, "created key my-key\n");
    shell.fails("key create my-key --dir @dev", "", 1, &["400", "key already exists"]).await;
    shell.does("key create other --cipher ChaCha20 --to-site udc1 --offline 12h --dir @dev", "").await;
    assert_eq!(shell.does("key list --dir @dev", "").await, "KEY\nmy-key\nother\n");
    assert_eq!(shell.run("key list my --dir @dev --json", "").await.json(), serde_json::json!(["my-key"]));
    assert_eq!(shell.does("key list nothing --tenant system --dir @dev", "").await, "no keys\n");
    shell.fails("key list --tenant nobody --dir @dev", "", 1, &["403", "holdfast identity of"]).await;
    let shown = shell.does("key describe other --dir @dev", "").await;
    assert!(shown.contains("version 1, ChaCha20") && shown.contains("udc1; offline 12h"), "{shown}");
    shell.fails("key describe none --dir @dev", "", 1, &["404", "key does not exist"]).await;

    let sealed = shell.does("key encrypt my-key --context mine --dir @dev", PLAINTEXT).await;
    assert_eq!(shell.does("key rotate my-key --dir @dev", "").await, "key my-key encrypts with version 2\n");
    shell.does("key rotate my-key --cipher ChaCha20 --renew-hmac --dir @dev", "").await;
    assert_eq!(shell.gives("key decrypt my-key --context mine --dir @dev", &sealed).await, PLAINTEXT);
    shell.fails("key decrypt my-key --dir @dev", &sealed, 1, &["not authentic"]).await;
    shell.does("key decrypt my-key --context mine --out @/plain --dir @dev", &sealed).await;
    assert_eq!((fs::read_to_string(shell.file("plain")).unwrap().as_str(), shell.mode("plain")), (PLAINTEXT, 0o600));
    fs::write(shell.file("plain"), "").unwrap();
    let dek = shell.secret("key dek my-key --dir @dev --json", "").await.json();
    fs::write(shell.file("dek"), dek["ciphertext"].as_str().unwrap()).unwrap();
    let opened = shell.secret("key decrypt my-key --in @/dek --dir @dev --json", "").await.json();
    assert_eq!(opened["plaintext"], dek["plaintext"]);

    shell.fails("key distribute my-key --dir @dev", "", 2, &["--to-site"]).await;
    assert_eq!(shell.does("key distribute my-key --to all --dir @dev", "").await, "key my-key works at: all\n");
    shell.fails("key erase my-key --version 1 --dir @dev", "", 2, &["nothing was done", "--yes"]).await;
    shell.fails("key erase my-key --version 9 --dir @dev", "", 1, &["no version 9"]).await;
    shell.does("key erase my-key --version 1 --version 2 --yes --dir @dev", "").await;
    shell.fails("key decrypt my-key --context mine --dir @dev", &sealed, 1, &["not authentic"]).await;
    shell.fails("key delete other --dir @dev", "", 2, &["nothing was done", "key other"]).await;
    assert_eq!(shell.does("key delete other --yes --dir @dev", "").await, "deleted key other\n");
    let versions = shell.run("key describe my-key --dir @dev --json", "").await.json();
    assert_eq!((&versions["version"], versions["versions"].as_array().unwrap().len()), (&3.into(), 1), "{versions}");
}

/// What becomes of each file of a keystore of KES.
pub(super) async fn moved(shell: &Shell) {
    fs::create_dir(shell.file("keystore")).unwrap();
    let write = |name: &str, text: &str| fs::write(shell.file("keystore").join(name), text).unwrap();
    let json = format!(r#"{{"bytes":"{KEY}","algorithm":"ChaCha20","created_by":"3ecf"}}"#);
    write("minio-key", &json);
    write("my-key", &json);
    write("notes.txt", "no key");
    let line = "key import-dir @/keystore --to all --dir @dev";
    let done = shell.run(line, "").await;
    let told = "imported   minio-key\ndifferent  my-key  the node's key of this name is another one\n\
                no-key     notes.txt  no key can have this name\n1 imported, 1 different, 1 no-key\n";
    assert_eq!((done.code, done.out.as_str()), (1, told), "{done:?}");
    assert!(done.told.contains("2 files were not taken over"), "{done:?}");
    fs::remove_file(shell.file("keystore/my-key")).unwrap();
    fs::remove_file(shell.file("keystore/notes.txt")).unwrap();
    assert_eq!(shell.does(line, "").await, "present    minio-key\n1 present\n");
    let outcomes = shell.run(&format!("{line} --json"), "").await.json();
    assert_eq!(outcomes, serde_json::json!([{ "file": "minio-key", "outcome": "present", "why": "" }]));
    let shown = shell.does("key describe minio-key --dir @dev", "").await;
    assert!(shown.contains("3ecf") && shown.contains("ChaCha20") && shown.contains("distributed    all"), "{shown}");

    assert_eq!(shell.does("key import bare --cipher ChaCha20 --dir @dev", KEY).await, "imported key bare\n");
    let sealed = shell.does("key encrypt bare --dir @dev", PLAINTEXT).await;
    assert_eq!(shell.gives("key decrypt minio-key --dir @dev", &sealed).await, PLAINTEXT, "it is the same key");
    shell.fails("key import bad --dir @dev", "no key", 1, &["neither of the two formats"]).await;
}

/// A client with an API key may do what its policy says, and no more.
pub(super) async fn clients(shell: &mut Shell) {
    let made = shell.secret("identity new --json", "").await.json();
    let api_key = made["api-key"].as_str().unwrap();
    shell.world.canaries.add("API key", api_key.as_bytes());
    let identity = shell.does("identity new --out @/api-key --key @/client.key --cert @/client.crt", "").await;
    let identity = identity.trim_start_matches("identity").trim().to_owned();
    shell.world.canaries.add("API key in a file", &fs::read(shell.file("api-key")).unwrap());
    assert_eq!((shell.mode("api-key"), shell.mode("client.key")), (0o600, 0o600));
    for file in ["@/api-key", "@/client.crt"] {
        assert_eq!(shell.does(&format!("identity of {file}"), "").await.trim(), identity, "{file}");
    }
    let piped = shell.run("identity of - --json", api_key).await.json();
    assert_eq!(piped["identity"], made["identity"]);
    shell.fails("identity of @/client.key", "", 1, &["neither a certificate nor an API key"]).await;

    shell.fails("policy create app --dir @dev", "", 2, &["--allow"]).await;
    let rules = "policy create app --allow /v1/key/encrypt/my-* --deny /v1/key/encrypt/my-own --dir @dev";
    assert_eq!(shell.does(rules, "").await, "wrote policy app\n");
    shell.does("policy create older --file - --dir @dev", r#"{"paths":["/v1/key/list/*"]}"#).await;
    assert_eq!(shell.does("policy list --dir @dev", "").await, "POLICY\napp\nolder\n");
    assert_eq!(shell.does("policy list old --dir @dev", "").await, "POLICY\nolder\n");
    let shown = shell.does("policy show app --dir @dev", "").await;
    assert!(shown.starts_with("allow  /v1/key/encrypt/my-*\ndeny   /v1/key/encrypt/my-own\n"), "{shown}");
    assert!(shell.does("policy show older --dir @dev", "").await.contains("a * ends at a slash"));
    assert!(shell.does("policy info app --dir @dev", "").await.starts_with("name        app\n"));

    let (node, me) = (own_node(shell), "--api-key-file @/api-key");
    let encrypts = format!("key encrypt my-key {node}");
    shell.fails(&format!("{encrypts} {me}"), PLAINTEXT, 1, &["403", "holdfast identity of"]).await;
    shell.does(&format!("policy assign app {identity} --dir @dev"), "").await;
    shell.fails(&format!("policy assign none {identity} --dir @dev"), "", 1, &["policy does not exist"]).await;
    shell.does(&format!("{encrypts} {me}"), PLAINTEXT).await;
    shell.does(&format!("{encrypts} --client-cert @/client.crt --client-key @/client.key"), PLAINTEXT).await;
    shell.fails(&format!("key list {node} {me}"), "", 1, &["403"]).await;
    let own = shell.does(&format!("identity info {node} {me}"), "").await;
    assert!(own.contains(&identity) && own.contains("policy       app") && own.contains("allow  /v1/key/"), "{own}");
    let told = shell.does(&format!("identity info {identity} --dir @dev"), "").await;
    assert!(told.contains("policy       app") && !told.contains("/v1/"), "{told}");
    let all = shell.run("identity list --dir @dev --json", "").await.json();
    assert!(all.as_array().unwrap().contains(&Value::from(identity.as_str())), "{all}");
    let listed = shell.does(&format!("identity list {} --dir @dev", &identity[..8]), "").await;
    assert_eq!(listed, format!("IDENTITY\n{identity}\n"));
    shell.does(&format!("identity forget {identity} --dir @dev"), "").await;
    shell.fails(&format!("{encrypts} {me}"), PLAINTEXT, 1, &["403"]).await;
    for policy in ["app", "older"] {
        shell.does(&format!("policy delete {policy} --dir @dev"), "").await;
    }
    assert_eq!(shell.does("policy list --dir @dev", "").await, "no policies\n");
}

/// Where central is, for one who has no folder of it.
fn own_node(shell: &Shell) -> String {
    let central = shell.world.deployment.doc().unwrap().central;
    format!("--addr {} --ca-file {}", central.api, central.ca_file.display())
}
