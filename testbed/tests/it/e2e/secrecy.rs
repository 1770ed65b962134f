//! What may not lie about, with everything told that can be: logs at their loudest, answers, metrics, arguments, files
//! and their modes; and what a sealed host has in its memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::seal_keeper::wrap::{HostBoot, HostKeys};
use holdfast_actors::shamir::decode_key;
use holdfast_protocol::secret::Secret;
use holdfast_site_agent::Config;
use holdfast_site_agent::state::StateFile;
use holdfast_site_agent::tpm::TpmHandle;
use holdfast_testbed::figures::Figures;
use holdfast_testbed::memory::{Image, Needles, keys};
use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::{Options, until};
use holdfast_testbed::swtpm::Swtpm;
use hyper::Method;
use serde_json::{Value, json};

use super::{APP, SOON, World, secret};

const SEAL: &str = "/v1/state/strongbox/system";
/// The root key of a stopped host: its TPM gives the one half of the key around it, central's store the other.
async fn root_key(dir: &Path, central: &Path, seal_key: &Secret<32>) -> (Secret<32>, HostBoot) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("state")).unwrap();
    for entry in fs::read_dir(dir.join("tpm")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != ".lock" {
            fs::copy(entry.path(), place.path().join("state").join(entry.file_name())).unwrap();
        }
    }
    let swtpm = Swtpm::start(place.path()).unwrap();
    let text = fs::read_to_string(dir.join("agent.toml")).unwrap();
    let at_port =
        |line: &str| if line.starts_with("tcti") { format!("tcti = {:?}", swtpm.tcti()) } else { line.to_owned() };
    let text = text.lines().map(at_port).collect::<Vec<_>>().join("\n");
    let tpm = TpmHandle::start(Config::parse(&text).unwrap().tpm).unwrap();
    let state = StateFile::open(&dir.join("data")).unwrap().unwrap().get();
    let host_secret = tpm.unseal_host_secret(state.host_secret.as_ref().unwrap()).await.unwrap();
    let boot = keys::store(&dir.join("data")).unwrap().boot_row("root").unwrap().unwrap();
    let boot = HostBoot::decode(&boot).unwrap();
    let given = keys::site_seal_key(central, seal_key, &boot.host.site, boot.seal_epoch).unwrap();
    let halves = HostKeys { host_secret: &host_secret, site_seal_key: &given };
    (boot.unwrap(halves).unwrap(), boot)
}

/// As loud as can be, of everything.
const LOUD: &str = "[log]\nlevel = \"trace\"\n";
const PASSWORD: &str = "the password of a canary";
const GUESS: &str = "a canary that somebody guessed";

/// Secrets where they do not belong, and where they do: each must be refused or taken without a word about it.
async fn provoke(world: &mut World, client: &Client, answers: &mut Vec<String>) {
    world.canaries.add("a guess", GUESS.as_bytes());
    let wrong_key = STANDARD.encode(GUESS.as_bytes().iter().cycle().take(32).copied().collect::<Vec<u8>>());
    world.canaries.add("a wrong key as text", wrong_key.as_bytes());
    let guesses = [
        ("/v1/login", json!({ "username": "ann", "password": GUESS, "tenant": "system" })),
        ("/v1/login", json!({ "username": "ann", "password": { "nested": GUESS } })),
        ("/v1/login", json!({ "username": "ann", "password": "x", "pass\u{77}ord": GUESS })),
        ("/v1/login", json!([GUESS])),
        (&format!("{SEAL}/unseal"), json!({ "sealkey": GUESS })),
        (&format!("{SEAL}/unseal"), json!({ "sealkey": [GUESS] })),
        (&format!("{SEAL}/unseal"), json!({ "sealkey": wrong_key })),
        (&format!("{SEAL}/unseal"), json!({ "shares": [format!("1:{wrong_key}"), GUESS] })),
        (&format!("{SEAL}/unseal"), json!({ "remote-sealkey": GUESS })),
        (
            &format!("{SEAL}/setup-tenant"),
            json!({ "name": "system", "admin-username": "a:b", "admin-password": GUESS }),
        ),
        (&format!("{SEAL}/reveal-sealkey"), json!({ "bootstrap-secret": GUESS })),
        ("/v2/safe-deposit-box", json!({ "name": "x", "category_id": GUESS, "owner": [GUESS] })),
        (&secret("no-such-box/x"), json!({ "value": GUESS })),
        (&secret("no-such-box/x"), json!(GUESS)),
    ];
    for (path, body) in guesses {
        for caller in [client, &world.at("udc1-001")] {
            let answer = caller.post(path, &body).await.unwrap();
            assert!(answer.status >= 400 || path.ends_with("unseal"), "{path}: {}", answer.text());
            answers.push(format!("{:?} {}", answer.headers, answer.text()));
        }
    }
    let bad = [client.with_token(GUESS.replace(' ', "-")), client.with_password("ann", GUESS)];
    world.canaries.add("a token that is none", GUESS.replace(' ', "-").as_bytes());
    for caller in bad {
        for path in [&secret("no-such-box/x"), "/v2/auth/user", "/v1/config/tenants"] {
            let answer = caller.get(path).await.unwrap();
            assert_eq!(answer.status, 401, "{path}");
            answers.push(answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_told_by_the_loudest_log_an_answer_an_argument_or_a_file() {
    let mut world = World::of(Options { hosts: vec![1], added: LOUD.to_owned(), ..Options::default() }).await;
    world.canaries.add("tenant", b"canaries-inc");
    world.make_box("canary-box-told", json!({ "to": "all" })).await;
    world.write("canary-box-told/some-canary", "what \"nobody\"\n may be told").await;
    world.arrives("udc1-001", "canary-box-told/some-canary", "what \"nobody\"\n may be told").await;
    let (central, mut answers) = (world.central(), Vec::new());
    provoke(&mut world, &central, &mut answers).await;
    let (token, _) = second_tenant(&mut world).await;
    for by in [&central, &world.deployment.central().unwrap().with_token(&token), &world.at("udc1-001")] {
        by.over_h2(Method::GET, &secret("canary-box-told/some-canary")).await.unwrap();
    }
    for node in [&central, &world.at("udc1-001")] {
        for path in ["/v1/metrics", "/v1/health", "/version", &format!("{SEAL}/seal-status")] {
            answers.push(node.get(path).await.unwrap().text());
        }
    }
    for answer in &answers {
        assert_eq!(world.canaries.find(answer.as_bytes()), Vec::<&str>::new(), "{answer}");
    }
    let pids = processes(&world);
    for pid in &pids {
        // Whoever runs the tests put the operators' own things into the environment of `holdfast dev`, if anybody did.
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert_eq!(world.canaries.find(&text), Vec::<&str>::new(), "{file} of {pid}");
        }
    }
    let logs = loudness(&world);
    world.nothing_lies_about();
    let files = modes(&world);
    Figures::of("secrecy")
        .add("canaries, each in every form", world.canaries.count())
        .add("answers", answers.len())
        .add("processes", pids.len())
        .add("files with their modes", files)
        .add("bytes of logs at trace", logs)
        .publish()
        .unwrap();
}

/// Another tenant, with a user: the tenant's token, and the user's.
async fn second_tenant(world: &mut World) -> (String, String) {
    let central = world.central();
    world.canaries.add("password", PASSWORD.as_bytes());
    let setup = json!({ "name": "canaries-inc", "admin-username": "canary-user", "admin-password": PASSWORD });
    central.post("/v1/config/tenants", &json!({ "name": "canaries-inc" })).await.unwrap().good().unwrap();
    let made = central.post(&format!("{SEAL}/setup-tenant"), &setup).await.unwrap().good().unwrap();
    let token = made["token"].as_str().unwrap().to_owned();
    world.canaries.add("a tenant's root token", token.as_bytes());
    let caller = world.deployment.central().unwrap().with_password("canaries-inc/canary-user", PASSWORD);
    let session = caller.get("/v2/auth/user").await.unwrap().good().unwrap();
    let user = session["data"]["client_token"]["client_token"].as_str().unwrap().to_owned();
    world.canaries.add("token", user.as_bytes());
    (token, user)
}

/// Central and the agents.
fn processes(world: &World) -> Vec<u32> {
    let doc = world.deployment.doc().unwrap();
    let hosts = doc.sites.iter().flat_map(|site| &site.hosts).filter_map(|host| host.pid);
    let pids: Vec<u32> = hosts.chain(doc.central.pid).chain([doc.pid]).collect();
    assert!(pids.len() >= 3);
    pids
}

/// That the logs are loud indeed, and yet hold no line of a library that prints what it carries.
fn loudness(world: &World) -> usize {
    let mut bytes = 0;
    for log in [world.deployment.dir().join("central/log"), world.deployment.host_dir("udc1-001").unwrap().join("log")]
    {
        let text = fs::read_to_string(&log).unwrap();
        bytes += text.len();
        let own = |line: &str| line.contains(" holdfast_");
        let loud = |line: &str| line.contains(" TRACE ") || line.contains("DEBUG ");
        assert!(text.lines().any(|line| loud(line) && own(line)), "{log:?} is not loud");
        let others: Vec<&str> = text.lines().filter(|line| loud(line) && !own(line)).take(3).collect();
        assert!(others.is_empty(), "{log:?}: {others:?}");
    }
    bytes
}

/// Every file in a node's data folder is for its owner alone, though nothing was masked; certificates are public.
fn modes(world: &World) -> usize {
    let doc = world.deployment.doc().unwrap();
    let hosts = doc.sites.iter().flat_map(|site| &site.hosts).map(|host| host.data_dir.clone());
    let mut folders: Vec<_> = hosts.chain([doc.central.data_dir.clone()]).collect();
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{folder:?}");
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let public = path.extension().is_some_and(|extension| extension == "crt");
            assert_eq!(mode(&path), if public { 0o644 } else { 0o600 }, "{path:?}");
            seen += 1;
        }
    }
    assert!(seen > 8);
    seen
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What a host at work holds for as long as it is open, and of how many realms or tenants at least: its own realm's and
/// those of two tenants with content.
const AT_WORK: [(&str, usize); 4] =
    [("root key at ", 1), ("base of realm ", 3), ("key 1 of realm ", 3), ("distribution key of ", 2)];

/// The realm or tenant that a found key is of.
fn number(rest: &str) -> &str {
    rest.split([' ', ',']).next().unwrap_or_default()
}

/// Content of another tenant at the host.
async fn hold_for_another(world: &mut World) {
    let (_, user) = second_tenant(world).await;
    let central = world.deployment.central().unwrap().with_token(&user);
    let placed =
        json!({ "name": "canary-box-other", "category_id": APP, "owner": "admins", "distribute": { "to": "all" } });
    central.post("/v2/safe-deposit-box", &placed).await.unwrap().good().unwrap();
    let path = secret("canary-box-other/another-canary");
    let written = central.post(&path, &json!({ "value": "content of another tenant" })).await.unwrap();
    assert_eq!(written.status, 204, "{}", written.text());
    let host = world.deployment.at("udc1-001").unwrap().with_token(&user);
    let arrived = async || Ok((host.get(&path).await?.status == 200).then_some(()));
    until("another tenant's content at the host", SOON, arrived).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_host_has_no_key_in_memory() {
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-held", json!({ "to": "all" })).await;
    for number in 0..8 {
        let path = format!("canary-box-held/canary-{number}");
        world.write(&path, &format!("content {number} of a canary")).await;
        world.arrives("udc1-001", &path, &format!("content {number} of a canary")).await;
    }
    hold_for_another(&mut world).await;
    let host = world.deployment.host("udc1-001").unwrap();
    let pid = host.pid.unwrap();
    let before = Image::of(pid).unwrap();
    // Central first, so that nobody gives the host its key again.
    let sealed = world.central().post(&format!("{SEAL}/seal"), &Value::Null).await.unwrap();
    assert_eq!(sealed.status, 204, "{}", sealed.text());
    let central = world.deployment.doc().unwrap().central;
    let operator = world.at("udc1-001");
    let sealed = operator.post(&format!("{SEAL}/seal"), &Value::Null).await.unwrap();
    assert_eq!(sealed.status, 204, "{}", sealed.text());
    let closed = async || Ok((operator.get("/v1/health").await?.status == 503).then_some(()));
    until("a sealed host", SOON, closed).await.unwrap();
    let after = Image::of(pid).unwrap();

    let dir = world.deployment.host_dir("udc1-001").unwrap();
    world.deployment.stop().await.unwrap();
    let seal_key = decode_key(&central.sealkey).unwrap();
    let needles = keys::of_central(&central.data_dir, &seal_key).unwrap();
    let mut own = Needles::default();
    let (root, boot) = root_key(&dir, &central.data_dir, &seal_key).await;
    let barrier = keys::store(&dir.join("data")).unwrap();
    drop(keys::open(&barrier, boot.deployment, root, &mut own).unwrap());
    let found_before = [before.find(&needles), before.find(&own)].concat();
    for (sort, count) in AT_WORK {
        let kinds: BTreeSet<_> = found_before.iter().filter_map(|place| place.strip_prefix(sort)).map(number).collect();
        assert!(count <= kinds.len(), "{sort}: {kinds:?} found, in {found_before:#?}");
    }
    let found = [after.find(&needles), after.find(&own)].concat();
    Figures::of("memory-of-a-sealed-host")
        .add("keys looked for, each as it is and backwards", (needles.count() + own.count()) / 2)
        .add("of these the host's own", own.count() / 2)
        .add("found before sealing", found_before.len())
        .add("found after", found.len())
        .add("bytes searched", after.bytes())
        .publish()
        .unwrap();
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
}
