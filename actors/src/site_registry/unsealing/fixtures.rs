//! A site with two hosts that have joined and passed, with TPMs in software.

use holdfast_protocol::crypto::tpm::AgreementKey;
use holdfast_protocol::ids::SealEpoch;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::remote::RemoteError;
use holdfast_protocol::tpm::share;
use holdfast_protocol::tpm::soft::{SoftTpm, remote_public};
use holdfast_protocol::wire::RemoteKeyProof;

use super::*;
use crate::site_registry::fixtures::{Counting, DEPLOYMENT, NOW, Store, certified, id, new_site, secret};
use crate::site_registry::shares::PreparedShare;
use crate::site_registry::sites::create_site;
use crate::site_registry::standing::{RecordPass, record_pass};
use crate::site_registry::{EkTrust, Identity};

pub(in crate::site_registry) const A: &str = "udc1/a";
pub(in crate::site_registry) const B: &str = "udc1/b";
pub(in crate::site_registry) const PCRS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

pub(in crate::site_registry) fn tpm(seed: u8) -> SoftTpm {
    let mut tpm = SoftTpm::from_seed(&secret(seed));
    for pcr in PCRS {
        tpm.extend(pcr, &[pcr + 1; 32]);
    }
    tpm
}

pub(in crate::site_registry) fn agreement(seed: u8) -> AgreementKey {
    AgreementKey::from_seed(&secret(seed + 100))
}

/// A site with two hosts that have joined, each with its TPM (seeds 1 and 2), and passed.
pub(in crate::site_registry) fn world() -> Store {
    let store = Store::initialised();
    let cmd = new_site("udc1", EkTrust::Token, &[("a", None), ("b", None)]);
    store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    for (whom, seed) in [(A, 1), (B, 2)] {
        store.run(move |rows| joined(rows, &id(whom), seed)).unwrap();
        pass(&store, whom, &tpm(seed));
    }
    store
}

fn joined(rows: &dyn Rows, whom: &HostId, seed: u8) -> Result<(Batch, ()), Refusal> {
    let identity = Identity {
        ek_public: Vec::new(),
        ak_public: tpm(seed).ak_public().raw().to_vec(),
        dist: certified(1, 1),
        api: certified(1, 2),
    };
    let entry = Host {
        identity: Some(identity),
        generation: HostGeneration(1),
        seal_epoch: Some(SealEpoch(1)),
        ..host(rows, whom)?.value
    };
    let mut batch = Batch::housekeeping();
    batch.put(Realm::NODE, &path(whom), &entry);
    Ok((batch, ()))
}

/// A quote that passed; the site learns.
fn pass(store: &Store, whom: &str, tpm: &SoftTpm) {
    let quoted: Vec<_> = tpm.pcrs.iter().map(|(pcr, value)| (*pcr, *value)).collect();
    let mut learned = ReferenceValues::default();
    quoted.iter().for_each(|(pcr, value)| learned.allow(*pcr, *value));
    let (host, generation, counters) = (id(whom), HostGeneration(1), tpm.counters);
    let cmd = RecordPass { host, generation, counters, quoted, learned: Some(learned), first: None };
    store.run(move |rows| record_pass(&cmd, rows, NOW)).unwrap();
}

/// The host's word about its remote key.
pub(in crate::site_registry) fn proof(store: &Store, whom: &str, seed: u8) -> RemoteKeyProof {
    let authority = unseal_authority(&store.rows()).unwrap();
    let since_us = site(&store.rows(), &id(whom).site).unwrap().value.approved_since_us;
    let reference = policy::reference(DEPLOYMENT, &id(whom), HostGeneration(1), since_us);
    let digest = policy::authorize_digest(authority.public(), &reference).unwrap();
    let (public, tpm) = (remote_public(&agreement(seed).public(), &digest), tpm(seed));
    let attest = tpm.certify(&public, &remote::certify_data(DEPLOYMENT, &id(whom), HostGeneration(1), &public));
    RemoteKeyProof { signature: tpm.sign(&attest), attest, public }
}

pub(in crate::site_registry) fn tell(
    store: &Store,
    whom: &'static str,
    key: Option<RemoteKeyProof>,
    address: Option<&str>,
) -> Result<(), Refusal> {
    let said = UnsealReport { remote_key: key, address: address.map(str::to_owned) };
    store.run(move |rows| report(&id(whom), &said, rows, NOW))
}

/// What a host makes of its share, but for its TPM.
pub(in crate::site_registry) fn opened_share(
    store: &Store,
    prepared: PreparedShare,
    seed: u8,
) -> Result<Secret<32>, RemoteError> {
    let local = prepared.encrypted(&unseal_authority(&store.rows()).unwrap(), &Counting::default()).unwrap();
    let own = Public::parse(&remote_public(&agreement(seed).public(), &[0; 32])).unwrap();
    share::open(&local, &agreement(seed).agree(&share::peer(&local).unwrap()).unwrap(), &own)
}
