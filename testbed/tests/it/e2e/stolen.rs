//! A site is stolen: what is cut off, what is known of what it held, and how all of that ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use holdfast_testbed::procs::{program, until};
use holdfast_testbed::swtpm::{self, Swtpm};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::loot::opened;
use super::thieves::serves_not;
use super::wire::{boot_like_dev, config_for, copy_all};
use super::{SOON, World};

const ONE: &str = "canary-box-of-all/one-canary";
const TWO: &str = "canary-box-of-all/two-canary";
const TILLS: &str = "approle canary-tills";
const APPROLES: &str = "/v1/config/strongbox/authentication/approles";
const EVERYWHERE: [&str; 6] = ["udc1-001", "udc1-002", "udc2-001", "udc2-002", "udc3-001", "udc3-002"];

impl World {
    async fn asked(&self, site: &str, what: &str) -> Value {
        let path = format!("/v1/state/system/sites/{site}/{what}");
        let answer = self.operator.get(path.trim_end_matches('/')).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Path and status of each entry of the site's blast radius, and whether the counts agree.
    async fn radius(&self, site: &str, host: Option<&str>) -> Vec<(String, String)> {
        let of_host = host.map(|host| format!("&host={host}")).unwrap_or_default();
        let report = self.asked(site, &format!("blast-radius?limit=1000{of_host}")).await;
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let entries = report["entries"].as_array().unwrap();
        let name = |entry: &Value| match entry["kind"] == "approle" {
            true => format!("approle {}", text(entry, "approle")),
            false => format!("{}/{}", text(entry, "vault"), text(entry, "secret")),
        };
        let mut told: Vec<_> = entries.iter().map(|entry| (name(entry), text(entry, "status"))).collect();
        told.sort();
        let open = told.iter().filter(|(_, status)| status == "open").count();
        assert_eq!((&report["summary"]["open"], &report["summary"]["versions"]), (&json!(open), &json!(told.len())));
        told
    }

    /// Waits until every rotation of the site is complete; what central says then.
    async fn rotated(&self, site: &str) -> Value {
        let look = async || {
            let told = self.asked(site, "rotation-receipts").await;
            match told["complete"] == true {
                true => Ok(Some(told)),
                false => Err(std::io::Error::other(told["rotations"].to_string())),
            }
        };
        until(&format!("receipts of {site}"), SOON, look).await.unwrap()
    }

    /// Waits until central says so of an ordered wipe.
    async fn wipe_of(&self, host: &str, wipe: &str) {
        let look = async || Ok((self.state_of(host).await["wipe"] == wipe).then_some(()));
        until(&format!("wipe of {host} {wipe}"), SOON, look).await.unwrap();
    }
}

/// A host's folder, carried off with its TPM, and the agent that the thief runs on it.
struct Carried {
    place: PathBuf,
    // Before the TPM: it goes first.
    agent: Child,
    _tpm: Swtpm,
}

impl Carried {
    /// Brings a host up elsewhere, with the TPM that was stolen with it.
    fn start(world: &World, host: &str) -> Self {
        let place = world.deployment.dir().join("stolen").join(host);
        std::fs::rename(place.join("tpm"), place.join("state")).unwrap();
        assert!(opened(&place.join("data/store")).boot_row("root").unwrap().is_some(), "there is something to wipe");
        let tpm = Swtpm::start(&place).unwrap();
        boot_like_dev(&tpm);
        let log = std::fs::File::create(place.join("log")).unwrap();
        let mut agent = Command::new(program("holdfast-site-agent").unwrap());
        agent.args(["serve", "--config"]).arg(config_for(world, &place, &tpm));
        agent.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
        Self { agent: agent.spawn().unwrap(), _tpm: tpm, place }
    }

    /// Waits until the wipe is confirmed, and takes the machine away.
    async fn ends_wiped(mut self, world: &World, host: &str) {
        world.wipe_of(host, "done").await;
        self.agent.kill().await.unwrap();
        assert_eq!(opened(&self.place.join("data/store")).boot_row("root").unwrap(), None, "nothing opens it any more");
        let known = world.state_of(host).await;
        assert_eq!((&known["standing"], &known["state"]), (&json!("quarantined"), &json!("sealed")), "{known}");
    }
}

fn entries(told: &[(&str, &str)]) -> Vec<(String, String)> {
    told.iter().map(|(path, status)| ((*path).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_site_is_cut_off_and_what_it_held_is_rotated_until_nothing_is_open() {
    let mut world = World::start(&[2, 2, 2]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    let role = json!({"name": "canary-tills", "distribute": {"to": "all"}});
    world.central().post(APPROLES, &role).await.unwrap().good().unwrap();
    world.write(ONE, "first one").await;
    world.write(TWO, "first two").await;
    for host in EVERYWHERE {
        world.arrives(host, TWO, "first two").await;
    }
    // What is read there is known before anybody asks.
    let look = async || {
        let report = world.asked("udc3", "blast-radius?host=udc3-001").await;
        let read = report["entries"].as_array().unwrap().iter().find(|entry| !entry["last-read"].is_null());
        Ok(read.map(|entry| entry["secret"].clone()))
    };
    assert_eq!(until("a read is told", SOON, look).await.unwrap(), json!("two-canary"));
    let first = entries(&[(TILLS, "open"), (ONE, "open"), (TWO, "open")]);
    assert_eq!(world.radius("udc3", None).await, first);

    powered_off_and_carried_off(&world).await;
    // One of the two is at work again elsewhere before anybody notices, the other lies in a boot.
    let carried = brought_up_elsewhere(&mut world).await;
    cut_off_and_wiped(&world, carried).await;
    closes_as_secrets_are_rotated(&mut world).await;
    cut_off_while_connected(&world).await;
    comes_back(&world).await;
    world.nothing_lies_about();
}

async fn powered_off_and_carried_off(world: &World) {
    for host in ["udc3-001", "udc3-002"] {
        let folder = world.deployment.host_dir(host).unwrap();
        world.deployment.freeze(host).unwrap();
        copy_all(&folder, &world.deployment.dir().join("stolen").join(host));
    }
    for host in ["udc3-001", "udc3-002"] {
        let look = async || Ok((world.state_of(host).await["standing"] == "stale").then_some(()));
        until(&format!("{host} stale"), SOON, look).await.unwrap();
    }
}

/// With another TPM, and with its own: that one is the host, wherever it stands, until somebody says otherwise.
async fn brought_up_elsewhere(world: &mut World) -> Carried {
    let other = world.deployment.dir().join("other");
    copy_all(&world.deployment.dir().join("stolen/udc3-001/data"), &other.join("data"));
    swtpm::identity(12, &other).unwrap();
    let said = serves_not(world, &other).await;
    assert!(said.contains("does not belong to this TPM"), "{said}");
    assert_eq!(world.state_of("udc3-001").await["standing"], "stale");

    let carried = Carried::start(world, "udc3-001");
    world.becomes("udc3-001", "unsealed", "trusted").await;
    world.write(ONE, "second one").await;
    let both = entries(&[(TILLS, "open"), (ONE, "open"), (ONE, "rotated"), (TWO, "open")]);
    let look = async || Ok((world.radius("udc3", Some("udc3-001")).await == both).then_some(()));
    until("it is sent what is new", SOON, look).await.unwrap();
    assert_eq!(world.radius("udc3", None).await, both);
    let before = entries(&[(TILLS, "open"), (ONE, "rotated"), (TWO, "open")]);
    assert_eq!(world.radius("udc3", Some("udc3-002")).await, before, "that one was sent nothing since");
    carried
}

/// The one while it is connected, the other while it is not.
async fn cut_off_and_wiped(world: &World, carried: Carried) {
    let foretold = world.operate("udc3", "quarantine-site?validate=true", &json!({"wipe": true})).await;
    assert_eq!(foretold.status, 200, "{}", foretold.text());
    let foretold = foretold.json();
    let host = |index: usize| (foretold["hosts"][index]["becomes"].clone(), foretold["hosts"][index]["wipes"].clone());
    assert_eq!(host(0), (json!("cut-off"), json!("now")), "{foretold}");
    assert_eq!(host(1), (json!("cut-off"), json!("when-it-comes")), "{foretold}");
    let total = &foretold["total"];
    assert_eq!((&total["open"], &total["rotated"], &total["approles"]), (&json!(3), &json!(1), &json!(1)));
    assert_eq!(foretold["sites-with-new-keys"], 0);
    assert_eq!(world.asked("udc3", "").await["standing"], "trusted", "nothing was done");

    let done = world.operate("udc3", "quarantine-site", &json!({"wipe": true})).await;
    assert_eq!(done.status, 204, "{}", done.text());
    assert!(done.headers.contains_key("holdfast-pending"), "the other can't have confirmed it");
    carried.ends_wiped(world, "udc3-001").await;
    let of_site = world.asked("udc3", "").await;
    assert_eq!((&of_site["standing"], &of_site["wipe"]), (&json!("quarantined"), &json!("pending")));
    assert_eq!(world.state_of("udc3-002").await["wipe"], "pending");
    Carried::start(world, "udc3-002").ends_wiped(world, "udc3-002").await;
    assert_eq!(world.asked("udc3", "").await["wipe"], "done");
}

async fn closes_as_secrets_are_rotated(world: &mut World) {
    let held = entries(&[(TILLS, "open"), (ONE, "open"), (ONE, "rotated"), (TWO, "open")]);
    assert_eq!(world.radius("udc3", None).await, held, "a wipe takes nothing out of a thief's head");
    world.write(ONE, "third one").await;
    let held = entries(&[(TILLS, "open"), (ONE, "rotated"), (ONE, "rotated"), (TWO, "open")]);
    assert_eq!(world.radius("udc3", None).await, held);
    let deleted = world.central().delete(&super::secret(TWO)).await.unwrap();
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let revoke = "/v1/state/strongbox/authentication/approles/canary-tills/revoke";
    let revoked = world.central().post(revoke, &Value::Null).await.unwrap();
    assert_eq!(revoked.status, 204, "{}", revoked.text());
    let closed = entries(&[(TILLS, "rotated"), (ONE, "rotated"), (ONE, "rotated"), (TWO, "deleted")]);
    assert_eq!(world.radius("udc3", None).await, closed);
    // The others go on, and theirs is a longer list: they were sent the new ones too.
    for host in ["udc1-001", "udc1-002", "udc2-001", "udc2-002"] {
        world.arrives(host, ONE, "third one").await;
        world.answers(host, TWO, 404).await;
    }
    let told = world.radius("udc1", None).await;
    assert!(told.contains(&(ONE.to_owned(), "open".to_owned())), "{told:?}");
    assert!(told.contains(&(TILLS.to_owned(), "open".to_owned())), "{told:?}");
}

async fn cut_off_while_connected(world: &World) {
    let done = world.operate("udc2", "quarantine-site", &json!({"wipe": true})).await;
    assert_eq!(done.status, 204, "{}", done.text());
    for host in ["udc2-001", "udc2-002"] {
        world.wipe_of(host, "done").await;
        world.answers(host, ONE, 503).await;
    }
    // Of a host its sibling shows that it has newer keys; anybody can check that.
    let done = world.operate("udc1", "quarantine-site-host", &json!({"host": "udc1-001"})).await;
    assert_eq!(done.status, 204, "{}", done.text());
    let told = world.rotated("udc1").await;
    assert_eq!(told["rotations"][0]["hosts"][0]["state"], "installed", "{told}");
    let file = world.deployment.dir().join("receipts.json");
    std::fs::write(&file, told.to_string()).unwrap();
    let ca = world.deployment.doc().unwrap().central.ca_file;
    let (file, ca) = (file.to_string_lossy().into_owned(), ca.to_string_lossy().into_owned());
    let checked = world.deployment.holdfast(&["site", "verify-receipt", &file, "--root", &ca]).await.unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(said.contains("udc1/udc1-002"), "{said}");
}

async fn comes_back(world: &World) {
    for host in ["udc3-001", "udc3-002"] {
        world.deployment.thaw(host).unwrap();
    }
    for site in ["udc2", "udc3"] {
        let done = world.operate(site, "unquarantine-site", &json!({})).await;
        assert_eq!(done.status, 204, "{}", done.text());
    }
    // What stands there now is the machine as it was before the theft. To central, it is the copy.
    let look = async || Ok((world.state_of("udc3-001").await["standing"] == "quarantined").then_some(()));
    until("udc3-001 is taken for a copy", SOON, look).await.unwrap();
    for (site, host) in [("udc1", "udc1-001"), ("udc3", "udc3-001")] {
        let done = world.operate(site, "unquarantine-site-host", &json!({"host": host})).await;
        assert_eq!(done.status, 204, "{}", done.text());
    }
    for host in EVERYWHERE {
        world.becomes(host, "unsealed", "trusted").await;
        world.arrives(host, ONE, "third one").await;
        world.answers(host, TWO, 404).await;
    }
    for site in ["udc1", "udc2", "udc3"] {
        let look = async || {
            let told = world.rotated(site).await;
            let is_newest = |receipt: &&Value| {
                receipt["seal-epoch"] == told["seal-epoch"] && receipt["dist-epoch"] == told["dist-epoch"]
            };
            let newest = told["receipts"].as_array().unwrap().iter().filter(is_newest);
            let hosts: BTreeSet<&str> = newest.filter_map(|receipt| receipt["host"].as_str()).collect();
            Ok((hosts.len() == 2).then_some(()))
        };
        until(&format!("receipts for the newest keys of {site}"), SOON, look).await.unwrap();
    }
    let now = entries(&[
        (TILLS, "open"),
        (TILLS, "rotated"),
        (ONE, "open"),
        (ONE, "rotated"),
        (ONE, "rotated"),
        (TWO, "deleted"),
    ]);
    assert_eq!(world.radius("udc3", None).await, now, "from here on it holds the new ones too");
}
