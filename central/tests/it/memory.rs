//! What a sealed central has in memory: none of the keys that it sealed. The program itself runs and works; its memory
//! is read before and after, and searched once it has ended and its store has told the keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::shamir::decode_key;
use holdfast_protocol::wire::FromCentral;
use holdfast_testbed::APP;
use holdfast_testbed::figures::Figures;
use holdfast_testbed::memory::{Image, Needles, keys};
use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::crowd::{Ask, Crowd};
use holdfast_testbed::procs::until;
use quinn::{TransportConfig, VarInt};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, As, try_call};
use crate::process::Program;
use crate::quic::{Central, Host, Session, first_of, free_quic, hear, quic};
use crate::world::{First, SEAL};

/// What a central at work holds for as long as it is open, of each sort and of two tenants: the search finds what is
/// there, some of it only backwards.
const AT_WORK: [&str; 9] = [
    "root key at",
    "base of realm 1 at",
    "base of realm 6 at",
    "key 1 of realm 5 at",
    "key 1 of realm 6 at",
    "session key at",
    "private key of authority signer",
    "holdfast/realm/index/v1 of realm 5 at",
    "holdfast/realm/index/v1 of realm 6 at",
];
/// Distribution keys are made for each use, and erased: they are found while content waits for a host that reads nothing.
const WHILE_IT_WAITS: &str = "distribution key of ";
/// So are the keys of tokens. They live for less than an image takes, so that those found are counted only.
const FOR_A_MOMENT: &str = "seed of token key of ";
/// Of so many tenants they are found.
const TENANTS_IN_USE: usize = 2;
/// Tenants that are made at once: callers, and each one's requests.
const FLOOD: Crowd = Crowd { callers: 4, asks: 75, addresses: 1 };
/// For something that a busy machine does.
const SOON: Duration = Duration::from_secs(60);

/// A central at work, with a host connected and content on its way to it.
struct World {
    program: Program,
    central: Central,
    first: First,
    /// The key in force.
    sealkey: String,
    shares: Vec<String>,
    host: Host,
}

impl World {
    async fn start(folder: &Path) -> Self {
        let quic = free_quic();
        let program = Program::start_at(folder, quic).await;
        let first = program.initialise().await;
        let central = Central::elsewhere(program.addr, quic, first.token.clone());
        let host = Host::join_as(&central, first_of("udc1"), 1).await;
        let (sealkey, shares) = (first.sealkey.clone(), first.shares.clone());
        Self { program, central, first, sealkey, shares, host }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let who = As { token: Some(&self.first.token), operator: None };
        let answer = try_call(self.program.addr, who, (method, path), body).await.unwrap();
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text);
        answer
    }

    async fn seal(&self) {
        self.call("POST", &format!("{SEAL}/seal"), None).await;
    }

    async fn unseal(&self, proof: Value) {
        self.call("POST", &format!("{SEAL}/unseal"), Some(proof)).await;
    }

    async fn rotate(&mut self) {
        let rotated = self.call("POST", &format!("{SEAL}/rotate-seal"), None).await.json();
        self.sealkey = rotated["sealkey"].as_str().unwrap().to_owned();
        let shares = rotated["shares"].as_array().unwrap();
        self.shares = shares.iter().map(|share| share.as_str().unwrap().to_owned()).collect();
    }

    /// Tenants, logins, boxes, secrets, reads, and what is placed at the site on its way there.
    async fn work(&self, round: usize) {
        let tenant = format!("tenant-{round}");
        self.call("POST", "/v1/config/tenants", Some(json!({ "name": tenant }))).await;
        let setup = json!({ "name": tenant, "admin-username": "ann", "admin-password": "pw-for-ann" });
        self.call("POST", &format!("{SEAL}/setup-tenant"), Some(setup)).await;
        let login = json!({ "username": "ann", "password": "pw-for-ann", "tenant": tenant });
        let token = self.call("POST", "/v1/login", Some(login)).await.of("token");
        let call = async |method: &str, path: &str, body| {
            let who = As { token: Some(&token), operator: None };
            let answer = try_call(self.program.addr, who, (method, path), body).await.unwrap();
            assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text);
        };
        let placed = json!({ "name": "box", "category_id": APP, "owner": "admins", "distribute": { "to": "all" } });
        call("POST", "/v2/safe-deposit-box", Some(placed)).await;
        for number in 0..8 {
            let path = format!("/v1/secret/app/box/{number}");
            call("POST", &path, Some(json!({ "value": "x".repeat(100 << number) }))).await;
            call("GET", &path, None).await;
        }
        call("GET", "/v1/secret/app/box/?list=true", None).await;
    }

    /// A session up to the first bundle.
    async fn connect(&self) -> Session {
        let mut session = self.host.begin(&self.central).await;
        self.host.pass(&mut session).await;
        let bundle = async { while !matches!(hear(&mut session.from).await, FromCentral::Bundle(_)) {} };
        tokio::time::timeout(SOON, bundle).await.unwrap();
        session
    }

    /// A session that passed and reads no more, once content waits for it.
    async fn stall(&self) -> Session {
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(2048));
        let mut narrow = quic(self.host.tls());
        narrow.transport_config(Arc::new(transport));
        let mut session = self.host.begin_with(&self.central, narrow).await;
        self.host.pass(&mut session).await;
        let waits = async || {
            let metrics = self.call("GET", "/v1/metrics", None).await.text;
            let used =
                metrics.lines().find_map(|line| line.strip_prefix("holdfast_bound_used{bound=\"host-sequences\"} "));
            Ok((4.0 <= used.and_then(|used| used.parse::<f64>().ok()).unwrap_or_default()).then_some(()))
        };
        until("content that waits for the host", SOON, waits).await.unwrap();
        session
    }

    /// Many tenants at once; the last images from while they were made.
    async fn flood(&self, folder: &Path) -> Vec<Image> {
        let ca = folder.join("ca.crt");
        fs::write(&ca, self.call("GET", "/v1/state/system/ca", None).await.json()["ca"].as_str().unwrap()).unwrap();
        let client = Client::new(&format!("https://{}", self.program.addr), &ca, None).unwrap();
        let client = client.with_token(&self.first.token);
        let tenant = |number: usize| json!({ "name": format!("flood-{number}") }).to_string();
        let ask = move |number| Ask { path: "/v1/config/tenants".to_owned(), body: Some(tenant(number)) };
        let flood = tokio::spawn(async move { FLOOD.ask(&client, ask).await });
        let mut images = Vec::new();
        while !flood.is_finished() {
            let pid = self.program.pid();
            images.push(tokio::task::spawn_blocking(move || Image::of(pid).unwrap()).await.unwrap());
            images = images.split_off(images.len().saturating_sub(4));
        }
        let outcomes = flood.await.unwrap();
        assert_eq!(outcomes.get("201"), Some(&(FLOOD.callers * FLOOD.asks)), "{outcomes:?}");
        images
    }
}

/// The tenants whose key of a sort is among what was found.
fn tenants_of<'a>(sort: &str, found: &'a [String]) -> BTreeSet<&'a str> {
    let rests = found.iter().filter_map(|place| place.strip_prefix(sort));
    rests.map(|rest| rest.split([' ', ',']).next().unwrap_or_default()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_central_has_no_key_in_memory() {
    let folder = TempDir::new().unwrap();
    let mut world = World::start(folder.path()).await;
    let mut session_keys = Vec::new();
    for round in 0..3 {
        world.work(round).await;
        session_keys.extend(world.connect().await.key);
        world.rotate().await;
        world.seal().await;
        world
            .unseal(if round == 1 {
                json!({ "shares": world.shares[..3] })
            } else {
                json!({ "sealkey": world.sealkey })
            })
            .await;
    }
    for tenant in [8, 9] {
        world.work(tenant).await;
    }
    let session = world.stall().await;
    session_keys.extend(session.key.as_ref().map(|key| key.duplicate()));
    let before = Image::of(world.program.pid()).unwrap();
    let meanwhile = world.flood(folder.path()).await;
    world.seal().await;
    let after = Image::of(world.program.pid()).unwrap();

    let World { mut program, sealkey, shares, first, .. } = world;
    program.child.kill().await.unwrap();
    let mut needles = keys::of_central(&folder.path().join("data"), &decode_key(&sealkey).unwrap()).unwrap();
    for key in &session_keys {
        needles.add("session key", key.expose());
    }
    needles.add("first seal key", &STANDARD.decode(&first.sealkey).unwrap());
    for share in shares.iter().chain(&first.shares) {
        needles.add("share", &STANDARD.decode(share.split_once(':').unwrap().1).unwrap());
    }
    let found_before = before.find(&needles);
    for name in AT_WORK {
        assert!(found_before.iter().any(|place| place.starts_with(name)), "{name} is not found: {found_before:#?}");
    }
    let found_meanwhile: Vec<String> = meanwhile.iter().flat_map(|image| image.find(&needles)).collect();
    let tenants = tenants_of(WHILE_IT_WAITS, &found_before);
    assert!(TENANTS_IN_USE <= tenants.len(), "only {tenants:?} found, in {found_before:#?}");
    let found = after.find(&needles);
    let texts = texts_left(&after, [&sealkey, &first.sealkey].into_iter().chain(&shares).chain(&first.shares));
    Figures::of("memory-of-a-sealed-central")
        .add("keys looked for, each as it is and backwards", needles.count() / 2)
        .add("found before sealing", found_before.len())
        .add("keys of tokens found while tenants were made", tenants_of(FOR_A_MOMENT, &found_meanwhile).len())
        .add("found after", found.len())
        .add("bytes searched", after.bytes())
        .add("texts of seal keys or shares left in buffers", texts)
        .publish()
        .unwrap();
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
}

/// Seal keys and shares as they came in and went out, in base64. They lie in buffers of the connection too, where
/// erasing is best effort: they are counted, and nothing is promised.
fn texts_left<'a>(image: &Image, texts: impl Iterator<Item = &'a String>) -> usize {
    let mut needles = Needles::default();
    for text in texts {
        needles.add_as_is("text", text.rsplit(':').next().unwrap().as_bytes());
    }
    image.find(&needles).len()
}
