//! A site whose hosts all start at once while the WAN is down: it opens itself by the shares in its TPMs where that is
//! allowed, and not where it is not, nor with too few hosts, nor by what was once allowed.

use holdfast_protocol::tpm::{Public, share};
use holdfast_site_agent::tpm::TpmError;
use holdfast_testbed::procs::{Options, until};
use holdfast_testbed::swtpm::Swtpm;
use hyper::Method;
use serde_json::{Value, json};

use super::loot::{Loot, tpm_of};
use super::wire::{boot_like_dev, copy_all};
use super::{SOON, World};

const SYSTEM: &str = "/v1/state/strongbox/system";
const HOSTS: [&str; 3] = ["udc1-001", "udc1-002", "udc1-003"];
const SECRET: &str = "canary-box-of-site/a-canary";
const VALUE: &str = "kept by the whole site";

impl World {
    async fn of_three() -> Self {
        let mut world = Self::of(Options { hosts: vec![3], wan: true, ..Options::default() }).await;
        world.make_box("canary-box-of-site", json!({"to": "all"})).await;
        world.write(SECRET, VALUE).await;
        for host in HOSTS {
            world.arrives(host, SECRET, VALUE).await;
        }
        world
    }

    async fn allow_local_unseal(&self, allow: bool) {
        self.change_site(json!({ "allow-local-unseal": allow })).await;
    }

    async fn change_site(&self, body: Value) {
        let answer = self.operator.ask(Method::PATCH, "/v1/config/system/sites/udc1", Some(&body)).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Waits until the rehearsal says this of the whole site, and gives all that it says.
    async fn site_would(&self, outcome: &str) -> Value {
        let look = async || {
            let said = self.operator.get("/v1/state/system/sites/udc1/rehearsal").await?.json();
            match said["whole-site"] == outcome {
                true => Ok(Some(said)),
                false => Err(std::io::Error::other(said.to_string())),
            }
        };
        until(&format!("udc1 would come back {outcome}"), SOON, look).await.unwrap()
    }

    /// Waits until a host has a share of the key of this epoch.
    async fn holds_a_share(&self, host: &str, epoch: u64) {
        let expected = json!({ "seal-epoch": epoch, "needed": 2, "hosts": 3 });
        let look = async || {
            let status = self.seal_status(host).await?;
            match status["local-share"] == expected {
                true => Ok(Some(())),
                false => Err(std::io::Error::other(status.to_string())),
            }
        };
        until(&format!("{host} holds a share"), SOON, look).await.unwrap();
    }

    async fn own_rehearsal(&self, host: &str) -> Value {
        let answer = self.at(host).get(&format!("{SYSTEM}/rehearsal")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn seal_status(&self, host: &str) -> std::io::Result<Value> {
        Ok(self.at(host).get(&format!("{SYSTEM}/seal-status")).await?.json())
    }

    /// Waits until a host tells of its last attempt of a rung in these words.
    async fn attempted(&self, host: &str, rung: &str, opened: bool, words: &str) {
        let look = async || {
            let status = self.seal_status(host).await?;
            let rungs = status["ladder"].as_array().cloned().unwrap_or_default();
            let told = rungs.iter().any(|tried| {
                let says = tried["reason"].as_str().is_some_and(|reason| reason.contains(words));
                tried["rung"] == rung && tried["opened"] == opened && says
            });
            match told {
                true => Ok(Some(())),
                false => Err(std::io::Error::other(status.to_string())),
            }
        };
        until(&format!("{host} tells of {rung}: {words}"), SOON, look).await.unwrap();
    }

    fn cut_the_power(&self) {
        HOSTS.iter().for_each(|host| self.deployment.cut_power(host).unwrap());
    }

    async fn comes_back(&self) {
        self.deployment.wan().mend();
        for host in HOSTS {
            self.becomes(host, "unsealed", "trusted").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_site_opens_itself_by_shares_where_that_is_allowed_and_only_there() {
    let mut world = World::of_three().await;
    let said = world.site_would("with-an-operator").await;
    assert!(said["hosts"][HOSTS[0]]["local-shares"]["reason"].to_string().contains("is not set"), "{said}");

    // Not allowed: nobody is open, so nobody helps.
    world.deployment.wan().cut();
    world.cut_the_power();
    for host in HOSTS {
        world.attempted(host, "sibling", false, "sealed itself").await;
        let status = world.seal_status(host).await.unwrap();
        assert_eq!((&status["allow-local-unseal"], &status["local-share"]), (&json!(false), &Value::Null), "{status}");
        assert!(!status["ladder"].to_string().contains("local-shares"), "{status}");
        world.answers(host, SECRET, 503).await;
    }
    world.comes_back().await;

    world.allow_local_unseal(true).await;
    let said = world.site_would("by-itself").await;
    assert!(said["reason"].as_str().unwrap().contains("by the shares of udc1-001, udc1-002, udc1-003"), "{said}");
    let state = world.operator.get("/v1/state/system/sites/udc1").await.unwrap().json();
    assert_eq!(state["allow-local-unseal"], true, "{state}");
    for host in HOSTS {
        world.holds_a_share(host, 1).await;
    }
    world.deployment.wan().cut();
    // A host says so too, by what it holds.
    let own = world.own_rehearsal(HOSTS[0]).await;
    assert_eq!((&own["whole-site"], &own["outcome"]), (&json!("by-itself"), &json!("by-itself")), "{own}");
    assert_eq!(own["local-shares"]["reason"], "2 shares are needed: its own and those of udc1-002, udc1-003", "{own}");
    assert!(own["sibling"]["reason"].as_str().unwrap().contains("udc1-002, udc1-003 would be asked"), "{own}");
    world.cut_the_power();
    for host in HOSTS {
        world.arrives(host, SECRET, VALUE).await;
    }
    // Whoever was first had nobody to open it but shares.
    let ladders: Vec<Value> = {
        let mut all = Vec::new();
        for host in HOSTS {
            all.push(world.seal_status(host).await.unwrap()["ladder"].clone());
        }
        all
    };
    let by_shares = |ladder: &Value| ladder.to_string().contains("by shares of 2 of this site's 3 hosts");
    assert!(ladders.iter().any(by_shares), "{ladders:?}");

    // One alone is too few.
    let others = [HOSTS[1], HOSTS[2]].map(|host| world.deployment.host(host).unwrap().pid);
    others.iter().for_each(|pid| world.deployment.hang(*pid, true).unwrap());
    world.deployment.cut_power(HOSTS[0]).unwrap();
    world.attempted(HOSTS[0], "local-shares", false, "1 of the 2 shares that it takes are in hand").await;
    world.answers(HOSTS[0], SECRET, 503).await;
    others.iter().for_each(|pid| world.deployment.hang(*pid, false).unwrap());
    world.arrives(HOSTS[0], SECRET, VALUE).await;

    // What a host runs that central has not approved opens no share, its own not and another's not.
    world.deployment.extend(HOSTS[2], 4, [7; 32]).await.unwrap();
    let kill = |host: &str| world.deployment.kill_process(world.deployment.host(host).unwrap().pid).unwrap();
    kill(HOSTS[2]);
    world.attempted(HOSTS[2], "local-shares", false, "no values that central has approved").await;

    world.deployment.wan().mend();
    for host in [HOSTS[0], HOSTS[1]] {
        world.becomes(host, "unsealed", "trusted").await;
    }
    world.becomes(HOSTS[2], "sealed", "untrusted").await;
    world.nothing_lies_about();

    // A share opens in its own TPM, and is of no use to another.
    let folders = HOSTS.map(|host| world.deployment.host_dir(host).unwrap());
    world.deployment.stop().await.unwrap();
    let (share, key, leave) = Loot::of(&folders[0].join("data")).share();
    let peer = share::peer(&share).unwrap();
    for (whose, expected) in [(1, Err(TpmError::NotOurs)), (0, Ok(()))] {
        let place = world.deployment.dir().join(format!("carried-{whose}"));
        copy_all(&folders[whose].join("tpm"), &place.join("state"));
        let chip = Swtpm::start(&place).unwrap();
        boot_like_dev(&chip);
        let agreed = tpm_of(&chip).agree(&key, &leave, &peer).await;
        let own = Public::parse(&key.public).unwrap();
        let opened = agreed.map(|agreed| assert!(share::open(&share, &agreed, &own).is_ok()));
        assert_eq!(opened, expected, "the TPM of host {whose}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_brings_no_share_and_what_was_allowed_once_opens_nothing() {
    let world = World::of_three().await;
    world.allow_local_unseal(true).await;
    world.site_would("by-itself").await;
    let answer = world.operate("udc1", "quarantine-site-host", &json!({ "host": HOSTS[2] })).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let said = world.site_would("by-itself").await;
    assert!(said["reason"].as_str().unwrap().contains("by the shares of udc1-001, udc1-002"), "{said}");
    let status = world.seal_status(HOSTS[2]).await.unwrap();
    assert_eq!((&status["sealed"], &status["local-share"]), (&json!(true), &Value::Null), "{status}");
    for host in [HOSTS[0], HOSTS[1]] {
        world.holds_a_share(host, 2).await;
    }
    let own = world.own_rehearsal(HOSTS[0]).await;
    assert_eq!(own["local-shares"]["reason"], "2 shares are needed: its own and those of udc1-002", "{own}");

    world.deployment.wan().cut();
    world.cut_the_power();
    for host in [HOSTS[0], HOSTS[1]] {
        world.arrives(host, SECRET, VALUE).await;
    }
    let look = async || {
        let status = world.seal_status(HOSTS[2]).await?;
        Ok(status["reason"].as_str().is_some_and(|reason| reason.contains("is quarantined")).then_some(()))
    };
    until("it knows that it is quarantined", SOON, look).await.unwrap();

    // Not allowed any more: the hosts that are connected have no share left when the call returns.
    world.deployment.wan().mend();
    for host in [HOSTS[0], HOSTS[1]] {
        world.becomes(host, "unsealed", "trusted").await;
    }
    world.allow_local_unseal(false).await;
    for host in [HOSTS[0], HOSTS[1]] {
        let status = world.seal_status(host).await.unwrap();
        assert_eq!((&status["allow-local-unseal"], &status["local-share"]), (&json!(false), &Value::Null), "{status}");
        let own = world.own_rehearsal(host).await;
        assert_eq!((&own["whole-site"], &own["outcome"]), (&json!("with-an-operator"), &json!("by-itself")), "{own}");
        assert!(own["local-shares"]["reason"].as_str().unwrap().contains("allow-local-unseal is not set"), "{own}");
    }
    world.deployment.wan().cut();
    world.cut_the_power();
    for host in [HOSTS[0], HOSTS[1]] {
        world.attempted(host, "sibling", false, "sealed itself").await;
        world.answers(host, SECRET, 503).await;
    }
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_register_values_are_fewer_makes_new_keys_and_opens_itself_still() {
    let world = World::of_three().await;
    world.allow_local_unseal(true).await;
    for host in HOSTS {
        world.holds_a_share(host, 1).await;
    }
    let another = json!({ "0": ["ab".repeat(32)] });
    world.change_site(json!({ "reference-values": another, "accept-earlier-values": true })).await;
    world.site_would("by-itself").await;
    // Only what was learned counts again: what was approved beside it is to open nothing more.
    world.change_site(json!({ "reference-values": { "0": [] } })).await;
    for host in HOSTS {
        world.holds_a_share(host, 2).await;
    }
    let said = world.operator.get("/v1/state/system/sites/udc1/rotation-receipts").await.unwrap().json();
    assert_eq!(said["rotations"][0]["cause"], "values-withdrawn", "{said}");
    world.site_would("by-itself").await;
    world.deployment.wan().cut();
    world.cut_the_power();
    for host in HOSTS {
        world.arrives(host, SECRET, VALUE).await;
    }
    world.nothing_lies_about();
}
