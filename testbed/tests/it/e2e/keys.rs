//! Keys at sites, used by clients of KES there.

use std::path::PathBuf;
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_protocol::kes::{ApiKey, Identity};
use holdfast_protocol::pki::pem;
use holdfast_protocol::pki::{Serial, Terms, Validity};
use holdfast_protocol::secret::Secret;
use holdfast_testbed::procs::client::{Answer, Client};
use holdfast_testbed::procs::until;
use hyper::Method;
use serde_json::{Value, json};

use super::{SOON, World};

const PLAINTEXT: &[u8] = b"canary: what a shop encrypts";
const AT_CENTRAL_ONLY: &str = "keys, policies and identities are changed at central, not at a site host";

/// A client of KES: what it shows, and what it is known by.
struct Program {
    certificate: PathBuf,
    key: PathBuf,
    identity: Identity,
}

impl Program {
    fn new(world: &World, fill: u8) -> Self {
        let key = ApiKey::from_seed(Secret::fill_with(|bytes| bytes.fill(fill)));
        let terms =
            Terms { serial: Serial([fill; 16]), validity: Validity { not_before: 0, not_after: 4_000_000_000 } };
        let folder = world.deployment.inside(&format!("program-{fill}")).unwrap();
        fs::create_dir_all(&folder).unwrap();
        let program = Self { certificate: folder.join("crt"), key: folder.join("key"), identity: key.identity() };
        fs::write(&program.certificate, pem::certificates(&[key.certificate(&terms).unwrap()])).unwrap();
        let pkcs8 = b64(&key.pkcs8_der());
        fs::write(&program.key, format!("-----BEGIN PRIVATE KEY-----\n{pkcs8}\n-----END PRIVATE KEY-----\n")).unwrap();
        program
    }

    fn at(&self, world: &World, host: &str) -> Client {
        let host = world.deployment.host(host).unwrap();
        Client::new(&host.api, &host.ca_file, Some((&self.certificate, &self.key))).unwrap()
    }

    fn at_central(&self, world: &World) -> Client {
        let central = world.deployment.doc().unwrap().central;
        Client::new(&central.api, &central.ca_file, Some((&self.certificate, &self.key))).unwrap()
    }
}

impl World {
    /// The administrator of keys.
    fn keeper(&self) -> Client {
        self.deployment.central_as_admin().unwrap()
    }

    /// A request of the administrator that is done.
    async fn keep(&self, path: &str, body: &Value) -> Answer {
        let answer = put(&self.keeper(), path, body).await;
        assert_eq!(answer.status, 200, "{path} {}", answer.text());
        answer
    }

    async fn make_key(&mut self, name: &str, distribute: Value) {
        self.canaries.add("key", name.as_bytes());
        self.canaries.add("plaintext", PLAINTEXT);
        self.keep(&format!("/v1/key/create/{name}"), &json!({ "distribute": distribute })).await;
    }

    /// Lets a program call what the patterns take.
    async fn permit(&self, program: &Program, policy: &str, allow: &[&str]) {
        let allow: Value =
            allow.iter().map(|pattern| ((*pattern).to_owned(), json!({}))).collect::<serde_json::Map<_, _>>().into();
        self.keep(&format!("/v1/policy/write/{policy}"), &json!({ "allow": allow, "deny": {} })).await;
        self.keep(&format!("/v1/identity/assign/{policy}/{}", program.identity), &Value::Null).await;
    }
}

async fn put(client: &Client, path: &str, body: &Value) -> Answer {
    client.ask(Method::PUT, path, Some(body)).await.unwrap()
}

fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

async fn encrypted(client: &Client, key: &str) -> Answer {
    let body = json!({ "plaintext": b64(PLAINTEXT), "context": b64(b"of a shop") });
    put(client, &format!("/v1/key/encrypt/{key}"), &body).await
}

async fn decrypts(client: &Client, key: &str, ciphertext: &Value) {
    let body = json!({ "ciphertext": ciphertext, "context": b64(b"of a shop") });
    let answer = put(client, &format!("/v1/key/decrypt/{key}"), &body).await;
    assert_eq!((answer.status, answer.json()["plaintext"].as_str()), (200, Some(b64(PLAINTEXT).as_str())));
}

/// Waits until encrypting is answered so.
async fn encrypting_is(client: &Client, key: &str, status: u16) -> Value {
    let look = async || {
        let answer = encrypted(client, key).await;
        match answer.status == status {
            true => Ok(Some(answer.json())),
            false => Err(io::Error::other(format!("{} {}", answer.status, answer.text()))),
        }
    };
    until(&format!("status {status} for {key}"), SOON, look).await.unwrap()
}

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["message"].as_str().unwrap_or_default().to_owned())
}

const USES: [&str; 6] = [
    "/v1/key/generate/canary-*",
    "/v1/key/encrypt/canary-*",
    "/v1/key/decrypt/canary-*",
    "/v1/key/hmac/canary-*",
    "/v1/key/list/*",
    "/v1/key/describe/canary-*",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_program_uses_its_key_at_its_site_without_the_wan_as_its_policy_says() {
    let mut world = World::behind_a_wan(&[1, 1]).await;
    let (program, stranger) = (Program::new(&world, 21), Program::new(&world, 22));
    world.permit(&program, "shop", &USES).await;
    world.make_key("canary-key", json!({ "sites": ["udc1"] })).await;
    world.make_key("canary-lent", json!({ "sites": ["udc1"], "offline": "3s" })).await;
    world.make_key("canary-unplaced", json!({ "to": "none" })).await;
    let here = program.at(&world, "udc1-001");
    encrypting_is(&here, "canary-key", 200).await;
    encrypting_is(&here, "canary-lent", 200).await;

    world.deployment.wan().cut();
    let ciphertext = encrypting_is(&here, "canary-key", 200).await["ciphertext"].clone();
    decrypts(&here, "canary-key", &ciphertext).await;
    let data_key = put(&here, "/v1/key/generate/canary-key", &json!({})).await.good().unwrap();
    let opened = put(&here, "/v1/key/decrypt/canary-key", &json!({ "ciphertext": data_key["ciphertext"] })).await;
    assert_eq!(opened.json()["plaintext"], data_key["plaintext"]);
    let mac = put(&here, "/v1/key/hmac/canary-key", &json!({ "message": b64(b"m") })).await.good().unwrap();
    let listed = here.get("/v1/key/list/canary-*").await.unwrap();
    assert!(listed.text().contains("canary-key") && !listed.text().contains("canary-unplaced"), "{}", listed.text());
    let described = here.get("/v1/key/describe/canary-key").await.unwrap().good().unwrap();
    assert_eq!((&described["name"], &described["algorithm"]), (&json!("canary-key"), &json!("AES256")));
    assert_eq!(encrypted(&here, "canary-unplaced").await.status, 404, "it is elsewhere");
    // What it may not do, and what nobody does here.
    let denied = (403, "not authorized: insufficient permissions".to_owned());
    assert_eq!(refused(&put(&here, "/v1/key/create/canary-new", &Value::Null).await), denied);
    assert_eq!(refused(&encrypted(&stranger.at(&world, "udc1-001"), "canary-key").await), denied);
    assert_eq!(refused(&encrypted(&program.at(&world, "udc2-001"), "canary-key").await), denied, "nothing is there");
    let admin = world.deployment.doc().unwrap().central;
    let host = world.deployment.host("udc1-001").unwrap();
    let admin = Client::new(&host.api, &host.ca_file, Some((&admin.admin_cert, &admin.admin_key))).unwrap();
    for (method, path) in [
        (Method::PUT, "/v1/key/create/canary-new"),
        (Method::DELETE, "/v1/key/delete/canary-key"),
        (Method::PUT, "/v1/key/rotate/canary-key"),
        (Method::PUT, "/v1/policy/write/shop"),
        (Method::DELETE, "/v1/identity/forget/beef"),
    ] {
        let answer = admin.ask(method, path, None).await.unwrap();
        assert_eq!(refused(&answer), (403, AT_CENTRAL_ONLY.to_owned()), "{path}");
    }
    encrypting_is(&here, "canary-key", 200).await;
    // What was lent ends without central.
    encrypting_is(&here, "canary-lent", 503).await;

    world.deployment.wan().mend();
    world.becomes("udc1-001", "unsealed", "trusted").await;
    let at_central = program.at_central(&world);
    decrypts(&at_central, "canary-key", &ciphertext).await;
    let same = put(&at_central, "/v1/key/hmac/canary-key", &json!({ "message": b64(b"m") })).await.good().unwrap();
    assert_eq!(same, mac);
    // A new version comes, and with it the old one still decrypts; then the policy goes, and with it the right.
    world.keep("/v1/key/rotate/canary-key", &Value::Null).await;
    let look = async || {
        let described = here.get("/v1/key/describe/canary-key").await?.good()?;
        Ok((described["version"] == 2).then_some(()))
    };
    until("the next version", SOON, look).await.unwrap();
    decrypts(&here, "canary-key", &ciphertext).await;
    let changed = world.keep("/v1/policy/write/shop", &json!({ "allow": { "/v1/key/list/*": {} } })).await;
    if !changed.headers.contains_key("holdfast-pending") {
        assert_eq!(refused(&encrypted(&here, "canary-key").await), denied, "as soon as the call has returned");
    }
    encrypting_is(&here, "canary-key", 403).await;
    world.permit(&program, "shop", &USES).await;
    encrypting_is(&here, "canary-key", 200).await;
    let gone = world.keeper().delete("/v1/key/delete/canary-key").await.unwrap();
    assert_eq!(gone.status, 200, "{}", gone.text());
    encrypting_is(&here, "canary-key", 404).await;
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_taken_away_is_gone_where_hosts_answer_and_a_hung_host_is_cut_off() {
    let mut world = World::start(&[2]).await;
    let program = Program::new(&world, 23);
    world.permit(&program, "shop", &USES).await;
    world.make_key("canary-key", json!({ "to": "all" })).await;
    let (awake, hung) = (program.at(&world, "udc1-001"), program.at(&world, "udc1-002"));
    encrypting_is(&awake, "canary-key", 200).await;
    encrypting_is(&hung, "canary-key", 200).await;

    let pid = world.deployment.host("udc1-002").unwrap().pid;
    world.deployment.hang(pid, true).unwrap();
    let answer = world.keeper().delete("/v1/policy/delete/shop").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers.get("holdfast-pending").map(|count| count.as_bytes()), Some(b"1".as_slice()));
    assert_eq!(encrypted(&awake, "canary-key").await.status, 403);
    world.deployment.hang(pid, false).unwrap();
    encrypting_is(&hung, "canary-key", 403).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_renews_the_keys_that_were_there_and_no_others() {
    let mut world = World::start(&[1, 1]).await;
    let program = Program::new(&world, 24);
    world.permit(&program, "shop", &USES).await;
    world.make_key("canary-of-both", json!({ "to": "all" })).await;
    world.make_key("canary-of-second", json!({ "sites": ["udc2"] })).await;
    let (lost, other) = (program.at(&world, "udc1-001"), program.at(&world, "udc2-001"));
    let ciphertext = encrypting_is(&lost, "canary-of-both", 200).await["ciphertext"].clone();
    encrypting_is(&other, "canary-of-both", 200).await;
    encrypting_is(&other, "canary-of-second", 200).await;
    let version = async |client: &Client, key: &str| {
        let described = client.get(&format!("/v1/key/describe/{key}")).await.unwrap().good().unwrap();
        described["version"].as_u64().unwrap()
    };

    let foretold = world.operate("udc1", "quarantine-site?validate=true", &json!({})).await.good().unwrap();
    assert_eq!((&foretold["keys-rotated"], &foretold["sites-with-new-keys"]), (&json!(1), &json!(1)), "{foretold}");
    let answer = world.operate("udc1", "quarantine-site", &json!({})).await;
    assert_eq!((answer.status, answer.headers.get("holdfast-pending")), (204, None), "{}", answer.text());
    let at_central = program.at_central(&world);
    assert_eq!(version(&at_central, "canary-of-both").await, 2);
    assert_eq!(version(&at_central, "canary-of-second").await, 1);
    assert_eq!(version(&other, "canary-of-both").await, 2, "it was delivered before the call returned");
    decrypts(&at_central, "canary-of-both", &ciphertext).await;
    decrypts(&other, "canary-of-both", &ciphertext).await;
    let report = world.operator.get("/v1/state/system/sites/udc1/blast-radius").await.unwrap().good().unwrap();
    let summary = &report["summary"];
    assert_eq!(
        (&summary["keys"], &summary["open"], &summary["rotated"]),
        (&json!(1), &json!(0), &json!(1)),
        "{report}"
    );
    encrypting_is(&lost, "canary-of-both", 503).await;

    // Cut off once more it is renewed no more; and let back, the site gets what there is now.
    world.operate("udc1", "quarantine-site", &json!({})).await;
    assert_eq!(version(&at_central, "canary-of-both").await, 2);
    assert_eq!(world.operate("udc1", "unquarantine-site", &json!({})).await.status, 204);
    world.becomes("udc1-001", "unsealed", "trusted").await;
    encrypting_is(&lost, "canary-of-both", 200).await;
    assert_eq!(version(&lost, "canary-of-both").await, 2);
    world.nothing_lies_about();
}
