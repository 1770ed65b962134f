//! What a thief has in hand: a host's folder, its TPM, and central's escrow of seal keys.

use std::path::Path;
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
use holdfast_protocol::codec;
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{DeploymentId, Realm};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::wire::{LocalShare, Signed};
use holdfast_site_agent::state::StateFile;
use holdfast_site_agent::tpm::{Leave, SealedBlob, TpmConfig, TpmHandle};
use holdfast_site_agent::unseal::RemoteKey;
use holdfast_testbed::swtpm::Swtpm;

/// A host's folder, carried off.
pub(super) struct Loot {
    pub(super) store: Barrier,
    pub(super) boot: HostBoot,
    pub(super) blob: SealedBlob,
}

impl Loot {
    pub(super) fn of(data: &Path) -> Self {
        let store = opened(&data.join("store"));
        let boot = HostBoot::decode(&store.boot_row("root").unwrap().unwrap()).unwrap();
        let blob = StateFile::open(data).unwrap().unwrap().get().host_secret.clone().unwrap();
        Self { store, boot, blob }
    }

    pub(super) fn unwrap(&self, host_secret: &Secret<32>, seal_key: &Secret<32>) -> Result<Secret<32>, Unwrapped> {
        self.boot.unwrap(HostKeys { host_secret, site_seal_key: seal_key })
    }

    /// The host's share of its site's seal key, the key of its TPM that it is for, and all that this asks for.
    pub(super) fn share(&self) -> (LocalShare, SealedBlob, Leave) {
        let row = |name: &str| self.store.boot_row(name).unwrap().unwrap();
        let shares: Vec<Signed> = codec::decode(&row("shares"), 64 << 10).unwrap();
        let share: LocalShare = codec::decode(&shares.last().unwrap().body, 64 << 10).unwrap();
        let remote: RemoteKey = codec::decode(&row("remote-key"), 64 << 10).unwrap();
        let authority = PublicKey::from_sec1(&remote.authority).unwrap();
        let reference = remote.reference(share.terms.deployment, &share.terms.host);
        let leave = Leave { authority, reference, pcrs: share.pcrs.clone(), approved: share.approved.clone() };
        (share, remote.key, leave)
    }

    /// Whether content can be read with this root key.
    pub(super) fn opens_with(&self, deployment: DeploymentId, root: Secret<32>) -> bool {
        self.store.unseal(Keyring::new(deployment, root));
        let read = self.store.snapshot().and_then(|rows| rows.list::<Copy>(Realm::NODE, &[]));
        read.is_ok_and(|copies| copies.iter().any(|copy| copy.value.realm.is_some()))
    }
}

/// A store, opened as its program would.
pub(super) fn opened(folder: &Path) -> Barrier {
    let engine = LmdbEngine::open(folder, Settings::default(), Box::new(|why| panic!("{why}"))).unwrap();
    Barrier::new(Arc::new(engine), Arc::new(OsEntropy), Arc::new(NoReads))
}

/// The seal keys of `udc1` in central's escrow: what a thief has who has broken central as well.
pub(super) fn escrow(central: &Path, sealkey: &str) -> (DeploymentId, Vec<Secret<32>>) {
    let store = opened(&central.join("store"));
    let record = BootRecord::decode(&store.boot_row("seal").unwrap().unwrap()).unwrap();
    let sealkey = Secret::from_slice(&super::base64(sealkey)).unwrap();
    let root = record.newest().open(&sealkey, record.deployment).unwrap();
    store.unseal(Keyring::new(record.deployment, root));
    let place = site(&store.snapshot().unwrap(), &"udc1".parse().unwrap()).unwrap().value;
    (record.deployment, place.seal_keys.into_iter().map(|kept| kept.key).collect())
}

pub(super) fn tpm_of(tpm: &Swtpm) -> TpmHandle {
    let address = tpm.tcti().parse().unwrap();
    TpmHandle::start(TpmConfig { address, host_secret_index: TpmConfig::HOST_SECRET_INDEX }).unwrap()
}
