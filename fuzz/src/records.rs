//! What a node reads of its own disk: rows behind the barrier, rows outside of it, the state of joining, pending audit
//! lines. Rows are what central sends to a host, too.

use std::time::Duration;

use holdfast_actors::access_control::configured::Served;
use holdfast_actors::access_control::globs::Globbing;
use holdfast_actors::access_control::identities::{Assignment, Standing};
use holdfast_actors::access_control::policies::{Origin, Policy};
use holdfast_actors::access_control::serving::{ServedApi, Serving};
use holdfast_actors::access_control::{
    Approle, HostTokenKey, Login, Principal, Revocation, SecretId, Tenant, Token, TokenKey, TokenVerifier,
};
use holdfast_actors::audit_log::{CommitLine, Head, Line};
use holdfast_actors::distribute::{Distribute, Placement};
use holdfast_actors::distribution::reads::LastReads;
use holdfast_actors::distribution::{Copy, Cuts, Holding, HostHolding};
use holdfast_actors::key_store::{FreshKey, KeyVersion, Material, TransitKey, VersionState, Why};
use holdfast_actors::ports::draw_secret;
use holdfast_actors::rows::{Kind, Record, Rows, decode_body, encode_body};
use holdfast_actors::seal_keeper::record::WrappedRoot;
use holdfast_actors::seal_keeper::wrap::{HostBoot, HostKeys};
use holdfast_actors::seal_keeper::{Attempts, BootRecord, FreshSeal, Revealer};
use holdfast_actors::secret_store::{BoxId, Category, CurrentSecret, DepositBox, SecretHistory, SecretVersion, Stamp};
use holdfast_actors::shamir::Share;
use holdfast_actors::site_registry::restored::{Adopted, Beyond, Restored, Shown};
use holdfast_actors::site_registry::rotations::{Receipts, Rotations};
use holdfast_actors::site_registry::sites::removal::Departed;
use holdfast_actors::site_registry::unsealing::{GivenShare, Unsealing};
use holdfast_actors::site_registry::{AuthorityKey, Deployment, Host, Site};
use holdfast_actors::tally::Tally;
use holdfast_protocol::codec;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::{DeploymentId, HostGeneration, HostId, Realm, Revision, SealEpoch, Seq, Term};
use holdfast_protocol::limits::RECORD_BYTES_MAX;
use holdfast_protocol::secret::Secret;
use holdfast_site_agent::boot::Contact;
use holdfast_site_agent::state::JoinState;
use holdfast_site_agent::tpm::{AkBlob, EkKind, Identity, SealedBlob};

use crate::reread::reread;
use crate::world::{Counted, World};
use crate::{Memory, choose, chosen};

/// A list of short texts takes the most for its length.
pub const MEMORY: Memory = Memory { fixed: 64 << 10, each: 512 };

/// A decoder of a row's body, by the kind of row.
type Row = (Kind, fn(&[u8]));

const ROWS: [Row; 37] = [
    (Kind::Tenant, row::<Tenant>),
    (Kind::Site, row::<Site>),
    (Kind::Host, row::<Host>),
    (Kind::Authority, row::<AuthorityKey>),
    (Kind::Deployment, row::<Deployment>),
    (Kind::Cut, row::<Cuts>),
    (Kind::Holding, row::<Holding>),
    (Kind::Restored, row::<Restored>),
    (Kind::Shown, row::<Shown>),
    (Kind::Unsealing, row::<Unsealing>),
    (Kind::Departed, row::<Departed>),
    (Kind::HostHolding, row::<HostHolding>),
    (Kind::Rotations, row::<Rotations>),
    (Kind::Receipts, row::<Receipts>),
    (Kind::LastReads, row::<LastReads>),
    (Kind::Login, row::<Login>),
    (Kind::Principal, row::<Principal>),
    (Kind::Token, row::<Token>),
    (Kind::TokenKey, row::<TokenKey>),
    (Kind::TokenVerifier, row::<TokenVerifier>),
    (Kind::Revocation, row::<Revocation>),
    (Kind::Box, row::<DepositBox>),
    (Kind::BoxId, row::<BoxId>),
    (Kind::Secret, row::<CurrentSecret>),
    (Kind::SecretVersion, row::<SecretVersion>),
    (Kind::Category, row::<Category>),
    (Kind::SecretHistory, row::<SecretHistory>),
    (Kind::Copy, row::<Copy>),
    (Kind::Approle, row::<Approle>),
    (Kind::SecretId, row::<SecretId>),
    (Kind::HostTokenKey, row::<HostTokenKey>),
    (Kind::Policy, row::<Policy>),
    (Kind::Identity, row::<Assignment>),
    (Kind::Serving, row::<Serving>),
    (Kind::TransitKey, row::<TransitKey>),
    (Kind::Served, row::<Served>),
    (Kind::Tally, row::<Tally>),
];

/// Decoders of what stands outside the barrier: their first bytes are above those of all kinds of rows.
const OUTSIDE: [fn(&[u8]); 7] = [boot_record, host_boot, join_state, contact, pending, line, commit_line];
const OUTSIDE_FROM: u8 = 0x80;

/// Reads `data` as what its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    if let Some(decode) = which.checked_sub(OUTSIDE_FROM) {
        return OUTSIDE[usize::from(decode) % OUTSIDE.len()](bytes);
    }
    let kind = Kind::from_byte(which);
    if let Some((_, decode)) = ROWS.iter().find(|(of, _)| Some(*of) == kind) {
        decode(bytes);
    }
}

/// A body is its version and the value, and nothing else.
fn row<T: Record>(bytes: &[u8]) {
    let decoded = decode_body::<T>(bytes);
    let known = bytes.first() == Some(&T::VERSION);
    let alone = known.then(|| reread::<T>(&bytes[1..], RECORD_BYTES_MAX)).flatten();
    assert_eq!(decoded.is_ok(), alone.is_some());
    if let Ok(value) = decoded {
        let written = encode_body(&value);
        let again: T = decode_body(written.expose()).unwrap_or_else(|why| panic!("what we write is not read: {why}"));
        assert!(encode_body(&again).ct_eq(written.expose()), "a row changed on its way");
    }
}

/// Whatever stands there, judging a share or a seal key by it does not panic, and nothing opens it but its own.
fn boot_record(bytes: &[u8]) {
    let Ok(record) = BootRecord::decode(bytes) else { return };
    assert_eq!(BootRecord::decode(&record.encode()), Ok(record.clone()));
    let newest = record.newest();
    let threshold = newest.threshold();
    assert!((2..=threshold.shares()).contains(&threshold.threshold()));
    let opened = newest.open(&secret(1), record.deployment).is_ok();
    let known = Share::new(1, secret(1)).is_some_and(|share| newest.knows(&share));
    assert!(!opened && !known, "nothing here was wrapped with this key");
    assert!(BootRecord::decode(&[bytes, &[0]].concat()).is_err(), "a byte followed");
}

fn host_boot(bytes: &[u8]) {
    let Ok(boot) = HostBoot::decode(bytes) else { return };
    assert_eq!(HostBoot::decode(&boot.encode()), Ok(boot.clone()));
    let (host_secret, site_seal_key) = (secret(1), secret(9));
    let keys = HostKeys { host_secret: &host_secret, site_seal_key: &site_seal_key };
    assert!(boot.unwrap(keys).is_err(), "nothing here was wrapped with these keys");
    assert!(HostBoot::decode(&[bytes, &[0]].concat()).is_err(), "a byte followed");
}

fn join_state(bytes: &[u8]) {
    let Ok(state) = JoinState::decode(bytes) else { return };
    assert_eq!(JoinState::decode(&state.encode()), Ok(state));
    assert!(JoinState::decode(&[bytes, &[0]].concat()).is_err(), "a byte followed");
}

fn contact(bytes: &[u8]) {
    reread::<Contact>(bytes, 64 << 10);
}

/// The lines that wait at a sealed central, and how many found no room.
fn pending(bytes: &[u8]) {
    reread::<(Vec<Line>, u64)>(bytes, 128 << 10);
}

fn line(bytes: &[u8]) {
    reread::<Line>(bytes, 64 << 10);
}

fn commit_line(bytes: &[u8]) {
    reread::<CommitLine>(bytes, RECORD_BYTES_MAX);
    if let Some(head) = Head::from_bytes(bytes) {
        assert_eq!(head.to_bytes()[..], *bytes);
    }
}

fn secret(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}

/// Every row of a deployment in memory, and the records outside of the barrier.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = [outside(), of_a_copy(), of_kes()].concat();
    let world = World::new();
    let rows = world.barrier.snapshot().expect("it is unsealed");
    for (kind, _) in ROWS {
        for realm in [Realm::NODE, Realm(1), Realm(2)] {
            let found = rows.scan(kind, realm, &[]).expect("all rows open");
            let bodies = found.iter().filter_map(|row| row.body.as_ref());
            seeds.extend(bodies.take(3).map(|body| chosen(kind as u8, body.expose())));
        }
    }
    seeds
}

/// Rows that only a central restored from an older copy has.
fn of_a_copy() -> Vec<Vec<u8>> {
    let adopted = Adopted { from: Term(1), to: Term(3), at_us: 2, by: "ann".to_owned() };
    let restored = Restored {
        stopped: true,
        noticed_us: 1,
        by: host(),
        own: (Term(1), Revision(9)),
        term: Term(2),
        newest: None,
        adopted: Some(adopted),
    };
    let shown = Shown {
        term: Term(1),
        at_us: 1,
        known: true,
        head: None,
        notice: None,
        generation: Some(HostGeneration(2)),
        own_generation: HostGeneration(1),
        beyond: vec![Beyond { tenant: "acme".parse().expect("a name"), shown: Seq(4), own: Some(Seq(3)) }],
    };
    let unsealing = Unsealing {
        agent_id: "agent".to_owned(),
        generation: HostGeneration(1),
        remote_key: Some(vec![1; 90]),
        authority: vec![4; 65],
        address: Some("10.0.0.2:4646".to_owned()),
        quoted: vec![(0, [1; 32])],
        permit_until_us: 1,
        share: Some(GivenShare { generation: HostGeneration(1), epoch: SealEpoch(1), set: [1; 32] }),
        approved_since_us: 1,
    };
    let (restored, shown, unsealing) = (encode_body(&restored), encode_body(&shown), encode_body(&unsealing));
    vec![
        chosen(Kind::Restored as u8, restored.expose()),
        chosen(Kind::Shown as u8, shown.expose()),
        chosen(Kind::Unsealing as u8, unsealing.expose()),
    ]
}

/// Rows of clients of KES and their keys.
fn of_kes() -> Vec<Vec<u8>> {
    let stamp = || Stamp { by: "ann".to_owned(), at_us: 1 };
    let policy = Policy {
        allow: vec!["/v1/key/*/app-*".to_owned()],
        deny: vec!["/v1/key/delete/*".to_owned()],
        globbing: Globbing::Segments,
        instance: 3,
        origin: Origin::Config,
        written: stamp(),
    };
    let standing = Standing::Policy { name: "app".parse().expect("a name"), instance: 3 };
    let served = ServedApi { path: "/v1/status".to_owned(), skip_auth: true, timeout: Some(Duration::from_secs(1)) };
    let serving =
        Serving { profile: "seed".to_owned(), is_first: true, accept_expired_certificates: false, apis: vec![served] };
    let assignment = Assignment { standing, origin: Origin::Api, assigned: stamp() };
    let fresh = FreshKey { key: secret(4), hmac_key: secret(5) };
    let version = |number, state, cipher| KeyVersion {
        number,
        hint: [6; 4],
        state,
        created: stamp(),
        material: Material::fresh(cipher, &fresh),
    };
    let retired = VersionState::DecryptOnly { since_us: 2, why: Why::Quarantined };
    let key = TransitKey {
        distribute: Distribute { to: Placement::All, offline_s: Some(60) },
        origin: Origin::Api,
        next: 3,
        versions: vec![
            version(1, retired, Cipher::ChaCha20Poly1305),
            version(2, VersionState::Active, Cipher::Aes256Gcm),
        ],
    };
    vec![
        chosen(Kind::Policy as u8, encode_body(&policy).expose()),
        chosen(Kind::Identity as u8, encode_body(&assignment).expose()),
        chosen(Kind::Serving as u8, encode_body(&serving).expose()),
        chosen(Kind::TransitKey as u8, encode_body(&key).expose()),
    ]
}

fn host() -> HostId {
    HostId { site: "udc1".parse().expect("a name"), host: "udc1-001".parse().expect("a name") }
}

fn outside() -> Vec<Vec<u8>> {
    let entropy = Counted::default();
    let deployment = DeploymentId([7; 16]);
    let host = host();
    let (wrap, _) = WrappedRoot::new(1, deployment, &draw_secret(&entropy), &FreshSeal::draw(&entropy));
    let record = BootRecord::new(deployment, wrap, Attempts::default(), Revealer::Loopback);
    let (host_secret, site_seal_key, root) = (draw_secret(&entropy), draw_secret(&entropy), draw_secret(&entropy));
    let keys = HostKeys { host_secret: &host_secret, site_seal_key: &site_seal_key };
    let boot = HostBoot::wrap(&root, keys, deployment, host.clone(), SealEpoch(4), [9; 24]);
    let line = Line::done(1, "ann", "secret.read", "app/box/a");
    let commit = CommitLine { revision: 3, changes: vec![(Realm(1), Head::default())], reads: Vec::new() };
    [
        (0, record.encode()),
        (1, boot.encode()),
        (2, joining(host).encode()),
        (3, codec::encode(&Contact::default())),
        (4, codec::encode(&(vec![&line], 2u64))),
        (5, codec::encode(&line)),
        (6, codec::encode(&commit)),
        (6, Head { seq: 7, hash: [7; 32] }.to_bytes().to_vec()),
    ]
    .map(|(which, bytes)| chosen(OUTSIDE_FROM + which, &bytes))
    .to_vec()
}

fn joining(host: HostId) -> JoinState {
    let blob = |byte| SealedBlob { public: vec![byte], private: vec![byte; 40] };
    JoinState {
        deployment: DeploymentId([7; 16]),
        host,
        central: vec!["central.example:7443".to_owned()],
        root: vec![1],
        tpm: Identity { ek_kind: EkKind::P256, ek_public: vec![2], ek_certificate: None },
        ak: AkBlob { ek_kind: EkKind::P256, public: vec![3], private: vec![4] },
        quic_seed: blob(5),
        rest_seed: blob(6),
        binding: [8; 32],
        membership: None,
        renewal: None,
        host_secret: Some(blob(7)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_row_has_its_decoder() {
        let kinds: Vec<Kind> = (0..=u8::MAX).filter_map(Kind::from_byte).collect();
        assert_eq!(kinds.len(), ROWS.len());
        assert!(kinds.iter().all(|kind| (*kind as u8) < OUTSIDE_FROM), "a kind is taken for what stands outside");
        for kind in kinds {
            assert!(ROWS.iter().any(|(of, _)| *of == kind), "{kind:?} has no decoder here");
        }
        let seeds = seeds();
        let kes = [Kind::Policy, Kind::Identity, Kind::Serving, Kind::TransitKey];
        for kind in [Kind::Restored, Kind::Shown, Kind::Unsealing].into_iter().chain(kes) {
            assert!(seeds.iter().any(|seed| seed[0] == kind as u8), "{kind:?} has no seed");
        }
    }
}
