//! Every key behind the barrier of a stopped node, taken from its files by somebody who holds what opens them: what a
//! sealed node must not have in memory. Nothing of the product's own way to the keys is used beyond opening envelopes.

use std::path::Path;
use std::sync::Arc;

use holdfast_actors::access_control::TokenKey;
use holdfast_actors::access_control::tenants::tenants;
use holdfast_actors::barrier::{Barrier, NoReads, Snapshot};
use holdfast_actors::keyring::{Keyring, realm_store_key};
use holdfast_actors::rows::ReadRows;
use holdfast_actors::seal_keeper::BootRecord;
use holdfast_actors::shell::OsEntropy;
use holdfast_actors::site_registry::sites::site_names;
use holdfast_actors::site_registry::{AuthorityKey, Site, authority, site};
use holdfast_actors::store::lmdb::{LmdbEngine, Settings};
use holdfast_protocol::codec::{decode, length_prefixed};
use holdfast_protocol::crypto::hash::hkdf;
use holdfast_protocol::envelope;
use holdfast_protocol::ids::{DeploymentId, Realm, SealEpoch, SiteName};
use holdfast_protocol::secret::Secret;

use super::Needles;

/// A failure of any part.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The store in a node's data folder, closed.
///
/// # Errors
/// It is in use or damaged.
pub fn store(data: &Path) -> Result<Barrier, Failure> {
    let engine = LmdbEngine::open(&data.join("store"), Settings::default(), Box::new(|_| ()))?;
    Ok(Barrier::new(Arc::new(engine), Arc::new(OsEntropy), Arc::new(NoReads)))
}

/// All of central's keys, and all that its sites' hosts are ever given.
///
/// # Errors
/// `seal_key` does not open the store, or the store is damaged.
pub fn of_central(data: &Path, seal_key: &Secret<32>) -> Result<Needles, Failure> {
    let barrier = store(data)?;
    let boot = BootRecord::decode(&barrier.boot_row("seal")?.ok_or("not initialised")?)?;
    let root = boot.newest().open(seal_key, boot.deployment)?;
    let mut needles = Needles::default();
    needles.add("seal key", seal_key.expose());
    needles
        .add("key around the root key", hkdf(seal_key.expose(), "holdfast/seal-wrap/v1", &boot.deployment.0).expose());
    let rows = open(&barrier, boot.deployment, root, &mut needles)?;
    for path in [&["root"][..], &["api"], &["dist"], &["signer"]] {
        add_authority(&mut needles, &path.join(" "), &authority(&rows, path)?);
    }
    for name in site_names(&rows)? {
        for which in ["api", "dist"] {
            let path = ["site", name.as_str(), which];
            add_authority(&mut needles, &path.join(" "), &authority(&rows, &path)?);
        }
        add_site(&mut needles, &rows, name.as_str(), &site(&rows, &name)?.value)?;
    }
    for tenant in tenants(&rows)? {
        for key in rows.list::<TokenKey>(tenant.realm, &[])? {
            add_signing_key(&mut needles, &format!("token key of {}", tenant.name), &key.value.seed);
        }
    }
    Ok(needles)
}

/// The seal key of a site of one epoch, as central escrows it.
///
/// # Errors
/// As [`of_central`]; or there is no such key.
pub fn site_seal_key(
    data: &Path,
    seal_key: &Secret<32>,
    name: &SiteName,
    epoch: SealEpoch,
) -> Result<Secret<32>, Failure> {
    let barrier = store(data)?;
    let boot = BootRecord::decode(&barrier.boot_row("seal")?.ok_or("not initialised")?)?;
    let root = boot.newest().open(seal_key, boot.deployment)?;
    let rows = open(&barrier, boot.deployment, root, &mut Needles::default())?;
    let place = site(&rows, name)?.value;
    let record = place.seal_keys.iter().find(|record| record.epoch == epoch);
    Ok(record.ok_or("no key of that epoch")?.key.duplicate())
}

/// Opens a store with its root key, and adds that and all keys that stand in rows of their own under it.
///
/// # Errors
/// The key does not open the store, or the store is damaged.
pub fn open(
    barrier: &Barrier,
    deployment: DeploymentId,
    root: Secret<32>,
    needles: &mut Needles,
) -> Result<Snapshot, Failure> {
    needles.add("root key", root.expose());
    let wrapping = hkdf(root.expose(), "holdfast/root/realm-keys/v1", b"");
    needles.add("key around tenants' keys", wrapping.expose());
    barrier.unseal(Keyring::new(deployment, root));
    let rows = barrier.snapshot()?;
    let view = barrier.engine().snapshot()?;
    for realm in rows.realms()? {
        let Some(entry) = view.get(&realm_store_key(realm))? else { continue };
        let aad = length_prefixed(&[b"holdfast/realm-keys/v1", &deployment.0, &realm.0.to_be_bytes()]);
        let plain = envelope::open(|_| Some(&wrapping), &aad, &entry.value)?;
        add_realm(needles, realm, plain.expose())?;
    }
    Ok(rows)
}

/// As they are stored: the base, the number of the current key, and all keys by their numbers.
type StoredRealm = (Vec<u8>, u32, Vec<(u32, Vec<u8>)>);

fn add_realm(needles: &mut Needles, Realm(number): Realm, plain: &[u8]) -> Result<(), Failure> {
    let (base, _, versions): StoredRealm = decode(plain, plain.len())?;
    needles.add(&format!("base of realm {number}"), &base);
    for label in ["holdfast/realm/index/v1", "holdfast/cut-digest/v1"] {
        needles.add(&format!("{label} of realm {number}"), hkdf(&base, label, b"").expose());
    }
    for (version, key) in versions {
        needles.add(&format!("key {version} of realm {number}"), &key);
    }
    Ok(())
}

fn add_authority(needles: &mut Needles, name: &str, key: &AuthorityKey) {
    add_signing_key(needles, &format!("authority {name}"), &key.seed);
}

/// The seed, and the number that it stands for.
fn add_signing_key(needles: &mut Needles, name: &str, seed: &Secret<32>) {
    needles.add(&format!("seed of {name}"), seed.expose());
    needles.add(&format!("private key of {name}"), hkdf(seed.expose(), "holdfast/signing-key/v1", &[0]).expose());
}

fn add_site(needles: &mut Needles, rows: &Snapshot, name: &str, site: &Site) -> Result<(), Failure> {
    for record in &site.seal_keys {
        needles.add(&format!("seal key {} of {name}", record.epoch.0), record.key.expose());
    }
    needles.add(&format!("distribution seed of {name}"), site.dist_seed.expose());
    for tenant in tenants(rows)? {
        let key = site.dist_key(&tenant.name);
        needles.add(&format!("distribution key of {} for {name}", tenant.name), key.expose());
    }
    Ok(())
}
