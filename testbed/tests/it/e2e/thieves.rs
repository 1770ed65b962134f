//! What somebody gets who has carried off folders, keys or TPMs, or copies of them.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use holdfast_actors::barrier::{Barrier, NoReads};
use holdfast_actors::distribution::Copy;
use holdfast_actors::keyring::Keyring;
use holdfast_actors::rows::ReadRows;
use holdfast_actors::seal_keeper::BootRecord;
use holdfast_actors::seal_keeper::wrap::{HostBoot, HostKeys, Unwrapped};
use holdfast_actors::shell::OsEntropy;
use holdfast_actors::site_registry::site;
use holdfast_actors::store::lmdb::{LmdbEngine, Settings};
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::{DeploymentId, Realm};
use holdfast_protocol::secret::Secret;
use holdfast_site_agent::state::StateFile;
use holdfast_site_agent::tpm::{SealedBlob, TpmConfig, TpmError, TpmHandle};
use holdfast_testbed::procs::{program, until};
use holdfast_testbed::swtpm::{self, Swtpm};
use serde_json::json;

use super::wire::{boot_like_dev, config_for, copy_all};
use super::{SOON, World};

const SECRET: &str = "canary-box-of-all/some-canary";

/// A host's folder, carried off.
struct Loot {
    store: Barrier,
    boot: HostBoot,
    blob: SealedBlob,
}

impl Loot {
    fn of(data: &Path) -> Self {
        let store = opened(&data.join("store"));
        let boot = HostBoot::decode(&store.boot_row("root").unwrap().unwrap()).unwrap();
        let blob = StateFile::open(data).unwrap().unwrap().get().host_secret.clone().unwrap();
        Self { store, boot, blob }
    }

    fn unwrap(&self, host_secret: &Secret<32>, seal_key: &Secret<32>) -> Result<Secret<32>, Unwrapped> {
        self.boot.unwrap(HostKeys { host_secret, site_seal_key: seal_key })
    }

    /// Whether content can be read with this root key.
    fn opens_with(&self, deployment: DeploymentId, root: Secret<32>) -> bool {
        self.store.unseal(Keyring::new(deployment, root));
        let read = self.store.snapshot().and_then(|rows| rows.list::<Copy>(Realm::NODE, &[]));
        read.is_ok_and(|copies| copies.iter().any(|copy| copy.value.realm.is_some()))
    }
}

/// A store, opened as its program would.
fn opened(folder: &Path) -> Barrier {
    let engine = LmdbEngine::open(folder, Settings::default(), Box::new(|why| panic!("{why}"))).unwrap();
    Barrier::new(Arc::new(engine), Arc::new(OsEntropy), Arc::new(NoReads))
}

/// The seal keys of `udc1` in central's escrow: what a thief has who has broken central as well.
fn escrow(central: &Path, sealkey: &str) -> (DeploymentId, Vec<Secret<32>>) {
    let store = opened(&central.join("store"));
    let record = BootRecord::decode(&store.boot_row("seal").unwrap().unwrap()).unwrap();
    let sealkey = Secret::from_slice(&super::base64(sealkey)).unwrap();
    let root = record.newest().open(&sealkey, record.deployment).unwrap();
    store.unseal(Keyring::new(record.deployment, root));
    let place = site(&store.snapshot().unwrap(), &"udc1".parse().unwrap()).unwrap().value;
    (record.deployment, place.seal_keys.into_iter().map(|kept| kept.key).collect())
}

fn tpm_of(tpm: &Swtpm) -> TpmHandle {
    let address = tpm.tcti().parse().unwrap();
    TpmHandle::start(TpmConfig { address, host_secret_index: TpmConfig::HOST_SECRET_INDEX }).unwrap()
}

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
async fn serves_not(world: &World, place: &Path) -> String {
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
