//! What somebody gets who has carried off folders, keys or TPMs, or copies of them.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use holdfast_actors::seal_keeper::wrap::Unwrapped;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::secret::Secret;
use holdfast_site_agent::state::StateFile;
use holdfast_site_agent::tpm::TpmError;
use holdfast_testbed::memory::{Image, Needles, keys};
use holdfast_testbed::procs::{program, until};
use holdfast_testbed::swtpm::{self, Swtpm};
use serde_json::json;

use super::loot::{Loot, escrow, opened, tpm_of};
use super::wire::{boot_like_dev, config_for, copy_all};
use super::{SOON, World};

const SECRET: &str = "canary-box-of-all/some-canary";

#[tokio::test(flavor = "multi_thread")]
async fn a_sites_folders_and_seal_keys_open_nothing_without_the_very_tpm() {
    let mut world = World::start(&[2]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write(SECRET, "not for thieves").await;
    let mut folders = Vec::new();
    for host in ["udc1-001", "udc1-002"] {
        world.arrives(host, SECRET, "not for thieves").await;
        folders.push(world.deployment.host_dir(host).unwrap());
    }
    let central = world.deployment.doc().unwrap().central;
    world.deployment.stop().await.unwrap();

    let (deployment, seal_keys) = escrow(&central.data_dir, &central.sealkey);
    assert!(!seal_keys.is_empty());
    let [one, two] = [0, 1].map(|index: usize| Loot::of(&folders[index].join("data")));
    // With everything that lies in the folders and the seal keys of the site, but no TPM.
    for seal_key in &seal_keys {
        let guesses = [[0; 32], *seal_key.expose(), sha256(&[&one.blob.private]), sha256(&[&one.blob.public])];
        for guess in guesses {
            let guess = Secret::from_slice(&guess).unwrap();
            assert_eq!(one.unwrap(&guess, seal_key).unwrap_err(), Unwrapped::WrongKey);
        }
        assert!(!one.opens_with(deployment, seal_key.duplicate()));
    }
    // With the sibling's TPM, and with all that the sibling has in memory while it serves.
    let place = world.deployment.dir().join("stolen");
    copy_all(&folders[1].join("tpm"), &place.join("state"));
    let chip = Swtpm::start(&place).unwrap();
    let tpm = tpm_of(&chip);
    assert!(matches!(tpm.unseal_host_secret(&one.blob).await, Err(TpmError::NotOurs)));
    let secret_of_two = tpm.unseal_host_secret(&two.blob).await.unwrap();
    for seal_key in &seal_keys {
        assert_eq!(one.unwrap(&secret_of_two, seal_key).unwrap_err(), Unwrapped::WrongKey);
    }
    let root_of_two = seal_keys.iter().find_map(|key| two.unwrap(&secret_of_two, key).ok());
    let root_of_two = root_of_two.expect("both halves open what is theirs");
    assert!(!one.opens_with(deployment, root_of_two.duplicate()));
    // That it was tried rightly: with both halves it opens.
    assert!(two.opens_with(deployment, root_of_two));
}

/// The first is attacked, the second quarantined: with whatever lay in the second's memory while it served, against the
/// first's folder as it was at that time and as the quarantine left it.
#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_hosts_whole_memory_opens_nothing_of_a_siblings_folder() {
    let mut world = World::start(&[2]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write(SECRET, "not for thieves").await;
    for host in ["udc1-001", "udc1-002"] {
        world.arrives(host, SECRET, "not for thieves").await;
    }
    let memory = Image::of(world.deployment.host("udc1-002").unwrap().pid.unwrap()).unwrap();
    let [one, two] = ["udc1-001", "udc1-002"].map(|host| world.deployment.host_dir(host).unwrap());
    let [before, carried] = ["before", "carried"].map(|name| world.deployment.dir().join(name));
    let central = world.deployment.doc().unwrap().central;
    world.deployment.stop().await.unwrap();
    copy_all(&one, &before);
    copy_all(&two, &carried);
    let (deployment, known) = escrow(&central.data_dir, &central.sealkey);
    let taken = Loot::of(&carried.join("data"));
    let secret = secret_of(&carried, &taken).await;
    let root = known.iter().find_map(|key| taken.unwrap(&secret, key).ok()).expect("it served with this key");
    let mut of_two = Needles::default();
    drop(keys::open(&taken.store, deployment, root, &mut of_two).unwrap());
    let found = memory.find(&of_two);
    for own in ["root key at", "key 1 of realm 1 at"] {
        assert!(found.iter().any(|place| place.starts_with(own)), "the memory of a host at work: {found:#?}");
    }

    world.deployment.start_again().await.unwrap();
    let answer = world.operate("udc1", "quarantine-site-host", &json!({"host": "udc1-002"})).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    world.becomes("udc1-002", "sealed", "quarantined").await;
    world.write(SECRET, "nor this afterwards").await;
    world.arrives("udc1-001", SECRET, "nor this afterwards").await;
    world.deployment.stop().await.unwrap();
    let (_, afterwards) = escrow(&central.data_dir, &central.sealkey);
    let is_known = |key: &Secret<32>| known.iter().any(|known| known.expose() == key.expose());
    assert!(!is_known(afterwards.last().unwrap()), "there is a seal key that the second never had");

    let mut epochs = Vec::new();
    for folder in [before, one] {
        let sibling = Loot::of(&folder.join("data"));
        for seal_key in known.iter().chain(&afterwards) {
            assert_eq!(sibling.unwrap(&secret, seal_key).unwrap_err(), Unwrapped::WrongKey);
        }
        for key in of_two.all().chain(known.iter().map(|key| &key.expose()[..])).chain([&secret.expose()[..]]) {
            assert!(!sibling.opens_with(deployment, Secret::from_slice(key).unwrap()));
        }
        // Its own TPM opens it, and nothing that is behind it lay in the other's memory.
        let own = secret_of(&folder, &sibling).await;
        let root = known.iter().chain(&afterwards).find_map(|key| sibling.unwrap(&own, key).ok()).unwrap();
        assert!(sibling.opens_with(deployment, root.duplicate()));
        let mut behind = Needles::default();
        behind.add("its secret", own.expose());
        drop(keys::open(&sibling.store, deployment, root, &mut behind).unwrap());
        assert_eq!(memory.find(&behind), Vec::<String>::new());
        epochs.push(sibling.boot.seal_epoch);
    }
    assert!(epochs[0] < epochs[1], "the quarantine wrapped the first's root key anew");
}

/// What the TPM in a host's folder gives for it: half of what opens the folder.
async fn secret_of(folder: &Path, loot: &Loot) -> Secret<32> {
    let place = folder.join("opened");
    copy_all(&folder.join("tpm"), &place.join("state"));
    let chip = Swtpm::start(&place).unwrap();
    tpm_of(&chip).unseal_host_secret(&loot.blob).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_changed_or_turned_back_is_noticed() {
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write(SECRET, "only going forward").await;
    world.arrives("udc1-001", SECRET, "only going forward").await;
    let folder = world.deployment.host_dir("udc1-001").unwrap();
    let copy = world.deployment.dir().join("copy");
    world.deployment.stop().await.unwrap();
    copy_all(&folder, &copy);

    // The same data at another TPM: no key of it opens, so it does not even dial.
    let other = world.deployment.dir().join("other");
    copy_all(&copy.join("data"), &other.join("data"));
    swtpm::identity(12, &other).unwrap();
    let said = serves_not(&world, &other).await;
    assert!(said.contains("does not belong to this TPM"), "{said}");

    // At its own TPM, but made to believe another central.
    let misled = world.deployment.dir().join("misled");
    copy_all(&copy.join("data"), &misled.join("data"));
    copy_all(&copy.join("tpm"), &misled.join("state"));
    let state = StateFile::open(&misled.join("data")).unwrap().unwrap();
    let issuer = state.get().membership.as_ref().unwrap().dist_chain[1].clone();
    state.update(|state| state.root = issuer).unwrap();
    let said = serves_not(&world, &misled).await;
    assert!(said.contains("somebody has changed it"), "{said}");
    let store = opened(&misled.join("data/store"));
    assert!(store.boot_row("root").unwrap().is_some(), "its store was not touched");
    drop(store);

    // The TPM alone turned back, to as it was made: its reset count is lower than it was.
    world.deployment.start_again().await.unwrap();
    world.arrives("udc1-001", SECRET, "only going forward").await;
    world.deployment.stop().await.unwrap();
    fs::remove_dir_all(folder.join("tpm")).unwrap();
    swtpm::identity(0, &folder).unwrap();
    fs::rename(folder.join("state"), folder.join("tpm")).unwrap();
    world.deployment.begin_again().await.unwrap();
    is_cut_off(&world, &["reset count went back"]).await;
    assert_eq!(world.operate("udc1", "unquarantine-site-host", &json!({"host": "udc1-001"})).await.status, 204);
    world.becomes("udc1-001", "unsealed", "trusted").await;
    world.arrives("udc1-001", SECRET, "only going forward").await;

    // Disk and TPM turned back together, to a day that was this identity's: the token is of long ago, or the clock.
    let late = world.deployment.dir().join("late");
    world.deployment.stop().await.unwrap();
    copy_all(&folder, &late);
    world.deployment.start_again().await.unwrap();
    world.deployment.stop().await.unwrap();
    fs::remove_dir_all(&folder).unwrap();
    copy_all(&late, &folder);
    world.deployment.begin_again().await.unwrap();
    is_cut_off(&world, &["two machines claim to be this host", "TPM's clock went back"]).await;
    world.answers("udc1-001", SECRET, 503).await;
    world.nothing_lies_about();
}

/// Runs the agent of `place`, which is to end by itself; what it said.
pub(super) async fn serves_not(world: &World, place: &Path) -> String {
    let tpm = Swtpm::start(place).unwrap();
    boot_like_dev(&tpm);
    let config = config_for(world, place, &tpm);
    let mut agent = tokio::process::Command::new(program("holdfast-site-agent").unwrap());
    agent.args(["serve", "--config"]).arg(config).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(SOON, agent.output()).await.expect("the agent ends").unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Waits until the host is cut off, and central's log gives one of these reasons.
async fn is_cut_off(world: &World, why: &[&str]) {
    let look = async || {
        // Central may still be starting.
        let known = world.deployment.state_of(&world.operator, "udc1-001").await?;
        Ok((known["standing"] == "quarantined").then_some(()))
    };
    until("the host is cut off", SOON, look).await.unwrap();
    let log = fs::read_to_string(world.deployment.dir().join("central/log")).unwrap();
    assert!(why.iter().any(|why| log.contains(why)), "{log}");
}
