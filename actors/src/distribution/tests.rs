//! Both ends together: whatever happens at central, a host that has synced holds what is placed at its site, and never
//! anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use holdfast_protocol::bundle::{self, BundleKind, Header, Item};
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{DeploymentId, DistEpoch, SealEpoch, Seq, SiteName, StandingGeneration, Term};
use holdfast_protocol::secret::{Secret, SecretBytes};
use proptest::prelude::*;

use super::build::{Built, TenantRef, build};
use super::replica::{Apply, CHUNK_ROWS_MAX, Outcome, apply, judge, locate, orphans};
use super::*;
use crate::access_control::records::{Login, Principal, Revocation, TokenKey, TokenVerifier, key_id_segment};
use crate::attestation_verifier::appraisal::{Policy, ReferenceValues};
use crate::audit_log::verify::verify_store;
use crate::barrier::{Barrier, NoReads};
use crate::distribute::{Distribute, Placement};
use crate::keyring::{Keyring, RealmKeys};
use crate::ports::{Entropy, Now};
use crate::rows::{Batch, ReadRows, Refusal, Rows};
use crate::secret_store::records::{BoxId, Category, CurrentSecret, DepositBox, SecretVersion, Stamp, VersionAction};
use crate::site_registry::{Deployment, EkTrust, Held, Site, Standing};
use crate::store::memory::MemoryEngine;
use crate::store::{Engine, Fault};

const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const NOW: Now = Now { mono: std::time::Duration::ZERO, wall_us: 1 };
const TENANTS: [(&str, Realm); 2] = [("acme", Realm(1)), ("beta", Realm(2))];
const SITES: [&str; 2] = ["udc1", "udc2"];
const CONTENT: [Kind; 6] =
    [Kind::Box, Kind::Secret, Kind::Principal, Kind::TokenVerifier, Kind::Revocation, Kind::Category];

/// Every draw differs from every other, at every node.
static DRAWS: AtomicU64 = AtomicU64::new(0);

struct Counting;

impl Entropy for Counting {
    fn fill(&self, into: &mut [u8]) {
        let drawn = sha256(&[&DRAWS.fetch_add(1, Ordering::Relaxed).to_be_bytes()]);
        into.iter_mut().zip(drawn).for_each(|(into, byte)| *into = byte);
    }
}

fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

fn site_name(index: usize) -> SiteName {
    SITES[index].parse().unwrap()
}

fn stamp() -> Stamp {
    Stamp { by: "alice".to_owned(), at_us: 1 }
}

/// Rows by kind, names and body.
type Contents = BTreeSet<(Kind, Vec<String>, Vec<u8>)>;

/// A store with its barrier, at central or at a host.
struct Node {
    engine: Arc<MemoryEngine>,
    barrier: Barrier,
}

impl Node {
    fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let node = Self::over(engine);
        let ring = Keyring::new(DEPLOYMENT, secret(1));
        let keys = node.barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
        node.barrier.submit_begin(keys, Vec::new(), |outcome| outcome.unwrap());
        node
    }

    fn over(engine: Arc<MemoryEngine>) -> Self {
        let barrier = Barrier::new(engine.clone(), Arc::new(Counting), Arc::new(NoReads));
        barrier.unseal(Keyring::new(DEPLOYMENT, secret(1)));
        Self { engine, barrier }
    }

    fn restarted(&self) -> Self {
        Self::over(Arc::new(self.engine.restarted()))
    }

    fn run<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (tell, told) = mpsc::channel();
        self.barrier.submit(decide, move |outcome| tell.send(outcome).unwrap());
        told.recv().unwrap().map(|(reply, _)| reply)
    }

    fn write(&self, fill: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::housekeeping();
        fill(&mut batch);
        let mut batch = Some(batch);
        self.run(move |_| Ok((batch.take().unwrap(), ()))).unwrap();
    }

    /// All rows of these kinds that exist, by kind, names and body.
    fn rows(&self, kinds: &[Kind], realm: Realm) -> Contents {
        let snapshot = self.barrier.snapshot().unwrap();
        let mut found = BTreeSet::new();
        for kind in kinds {
            for changed in snapshot.all(*kind, realm, &[]).unwrap() {
                found.extend(changed.row.body.map(|body| (*kind, changed.key.path, body.expose().to_vec())));
            }
        }
        found
    }
}

fn central() -> Node {
    let node = Node::new();
    node.write(|batch| {
        let deployment = Deployment {
            id: DEPLOYMENT,
            term: Term(1),
            incarnation: [1; 16],
            created_us: 0,
            standing_generation: StandingGeneration::default(),
            standing_digest: [0; 32],
        };
        batch.put(Realm::NODE, &["deployment"], &deployment);
        SITES.iter().for_each(|name| batch.put(Realm::NODE, &[name], &place(1, Held::Nothing)));
        for (index, (_, realm)) in TENANTS.iter().enumerate() {
            let fill = u8::try_from(index).unwrap();
            batch.create_realm(*realm, secret(10 + fill), secret(20 + fill));
        }
    });
    node
}

fn place(dist_epoch: u64, held: Held) -> Site {
    Site {
        ek_trust: EkTrust::Token,
        policy: Policy {
            version: holdfast_protocol::ids::PolicyVersion(1),
            pcrs: [0].into(),
            interval_ms: 1,
            verdict_ttl_ms: 2,
            quarantine_on_failure: false,
            learn: true,
        },
        reference: ReferenceValues::default(),
        seal_epoch: SealEpoch(1),
        seal_keys: Vec::new(),
        dist_epoch: DistEpoch(dist_epoch),
        dist_seed: secret(u8::try_from(dist_epoch).unwrap()),
        standing: Standing { held, ..Standing::default() },
        created_us: 0,
    }
}

fn boxed(slug: &str, to: Placement) -> DepositBox {
    DepositBox {
        id: format!("id of {slug}"),
        name: slug.to_owned(),
        slug: slug.to_owned(),
        description: None,
        category_id: "c".to_owned(),
        category_path: "app".to_owned(),
        owner: "owners".to_owned(),
        user_group_permissions: Vec::new(),
        iam_principal_permissions: Vec::new(),
        distribute: Distribute { to, offline_s: None },
        created: stamp(),
        updated: stamp(),
    }
}

fn current(data: Vec<u8>) -> CurrentSecret {
    CurrentSecret { data: SecretBytes::new(data), version_id: "v".to_owned(), created: stamp(), updated: stamp() }
}

fn signer() -> SigningKey {
    SigningKey::from_seed(&secret(77))
}

/// What a build gave, with all that a host has to know of it.
#[derive(Clone)]
struct Sent {
    key: Arc<Secret<32>>,
    bundles: Vec<Vec<u8>>,
}

impl Node {
    fn build(&self, tenant: usize, site: usize, base: Option<&Position>) -> Result<Option<(Position, Sent)>, Refusal> {
        let (name, realm) = TENANTS[tenant];
        let tenant = TenantRef { name: name.parse().unwrap(), realm };
        Ok(match build(&self.barrier, &tenant, &site_name(site), base, &signer())? {
            Built::Nothing | Built::UpToDate => None,
            Built::Bundles { target, key, bundles } => Some((target, Sent { key: Arc::new(key), bundles })),
        })
    }
}

/// A host of a site, as its agent drives the replica.
struct Host {
    site: usize,
    node: Node,
}

impl Host {
    fn new(site: usize) -> Self {
        Self { site, node: Node::new() }
    }

    fn copy(&self, tenant: usize) -> Option<Copy> {
        let rows = self.node.barrier.snapshot().unwrap();
        rows.read::<Copy>(Realm::NODE, &[TENANTS[tenant].0]).unwrap().map(|row| row.value)
    }

    fn position(&self, tenant: usize) -> Option<Position> {
        self.copy(tenant).filter(|copy| copy.realm.is_some()).map(|copy| copy.position)
    }

    /// Takes a bundle in chunks of `rows`; with `chunks_max` it dies after so many.
    fn take(&self, bytes: &[u8], key: &Secret<32>, rows: usize, chunks_max: &mut usize) -> Option<Outcome> {
        let verified = bundle::verify(bytes, signer().public()).unwrap();
        if verified.header.site != site_name(self.site) {
            return None;
        }
        if let Some(outcome) = judge(&verified.header, &self.node.barrier.snapshot().unwrap()).unwrap() {
            return Some(outcome);
        }
        let mut items = verified.open(key).unwrap();
        let mut outcome = Outcome::Partly;
        loop {
            if *chunks_max == 0 {
                return None;
            }
            *chunks_max -= 1;
            let whole = verified.header.kind == BundleKind::Delta;
            let rest = items.split_off(items.len().min(if whole { items.len() } else { rows }));
            let cmd = Apply {
                header: verified.header.clone(),
                items: std::mem::replace(&mut items, rest),
                ends_part: items.is_empty(),
                realm_base: crate::ports::draw_secret(&Counting),
                realm_key: crate::ports::draw_secret(&Counting),
            };
            let ends = cmd.ends_part;
            let reached = self.node.run(move |rows| apply(&cmd, rows, NOW)).unwrap();
            assert!(outcome == Outcome::Partly);
            outcome = reached;
            if ends || outcome != Outcome::Partly {
                return Some(outcome);
            }
        }
    }

    fn take_all(&self, sent: &Sent, rows: usize, chunks_max: &mut usize) -> Vec<Option<Outcome>> {
        sent.bundles.iter().map(|bytes| self.take(bytes, &sent.key, rows, chunks_max)).collect()
    }

    fn sweep(&self) {
        for realm in orphans(&self.node.barrier.snapshot().unwrap()).unwrap() {
            assert_ne!(realm, Realm::NODE);
            loop {
                let (tell, told) = mpsc::channel();
                self.node.barrier.submit_erase_realm(realm, move |outcome| tell.send(outcome).unwrap());
                if !told.recv().unwrap().unwrap() {
                    break;
                }
            }
        }
    }
}

/// What central would have at this site.
fn placed(central: &Node, tenant: usize, site: usize) -> Contents {
    let realm = TENANTS[tenant].1;
    let boxes = central.barrier.snapshot().unwrap().list::<DepositBox>(realm, &[]).unwrap();
    let here: BTreeSet<String> = boxes
        .into_iter()
        .filter(|row| match &row.value.distribute.to {
            Placement::None => false,
            Placement::All => true,
            Placement::Sites(sites) => sites.contains(&site_name(site)),
        })
        .map(|row| row.value.slug)
        .collect();
    let all = central.rows(&CONTENT, realm);
    all.into_iter()
        .filter(|(kind, path, _)| match kind {
            Kind::Box | Kind::Secret => here.contains(&path[0]),
            _ => !here.is_empty(),
        })
        .collect()
}

/// Everything that ever was placed at a site: what a host there may know.
#[derive(Default)]
struct EverPlaced(BTreeMap<(usize, usize), Contents>);

#[derive(Debug, Clone)]
enum Step {
    PutBox { tenant: usize, slug: u8, to: u8 },
    DeleteBox { tenant: usize, slug: u8 },
    PutSecret { tenant: usize, slug: u8, name: u8, bytes: usize },
    DeleteSecret { tenant: usize, slug: u8, name: u8 },
    Common { tenant: usize, which: u8, name: u8, delete: bool },
    Private { tenant: usize, name: u8 },
    Advance { site: usize },
    RaiseTerm,
    Compact,
    Cut { tenant: usize, site: usize },
    Sync { host: usize, tenant: usize },
    Interrupt { host: usize, tenant: usize, chunks: usize, restart: bool },
    Replay { host: usize, pick: usize },
    Sweep { host: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (tenant, site, host) = (0..2usize, 0..2usize, 0..HOSTS.len());
    let (slug, name) = (0..3u8, 0..4u8);
    let step = prop_oneof![
        4 => (tenant.clone(), slug.clone(), 0..5u8).prop_map(|(tenant, slug, to)| Step::PutBox { tenant, slug, to }),
        1 => (tenant.clone(), slug.clone()).prop_map(|(tenant, slug)| Step::DeleteBox { tenant, slug }),
        6 => (tenant.clone(), slug.clone(), name.clone(), prop_oneof![4 => 0..50usize, 1 => Just(200 << 10)])
            .prop_map(|(tenant, slug, name, bytes)| Step::PutSecret { tenant, slug, name, bytes }),
        2 => (tenant.clone(), slug.clone(), name.clone())
            .prop_map(|(tenant, slug, name)| Step::DeleteSecret { tenant, slug, name }),
        3 => (tenant.clone(), 0..4u8, name.clone(), any::<bool>())
            .prop_map(|(tenant, which, name, delete)| Step::Common { tenant, which, name, delete }),
        2 => (tenant.clone(), name.clone()).prop_map(|(tenant, name)| Step::Private { tenant, name }),
        1 => site.clone().prop_map(|site| Step::Advance { site }),
        1 => Just(Step::RaiseTerm),
        1 => Just(Step::Compact),
        2 => (tenant.clone(), site.clone()).prop_map(|(tenant, site)| Step::Cut { tenant, site }),
        8 => (host.clone(), tenant.clone()).prop_map(|(host, tenant)| Step::Sync { host, tenant }),
        3 => (host.clone(), tenant.clone(), 0..4usize, any::<bool>())
            .prop_map(|(host, tenant, chunks, restart)| Step::Interrupt { host, tenant, chunks, restart }),
        4 => (host.clone(), any::<usize>()).prop_map(|(host, pick)| Step::Replay { host, pick }),
        1 => host.prop_map(|host| Step::Sweep { host }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Sites of the hosts.
const HOSTS: [usize; 3] = [0, 0, 1];

struct World {
    central: Node,
    hosts: Vec<Host>,
    ever: EverPlaced,
    sent: Vec<Sent>,
    epochs: [u64; 2],
    writes: u64,
}

impl World {
    fn new() -> Self {
        let hosts = HOSTS.into_iter().map(Host::new).collect();
        Self { central: central(), hosts, ever: EverPlaced::default(), sent: Vec::new(), epochs: [1; 2], writes: 0 }
    }

    fn step(&mut self, step: Step) {
        self.writes += 1;
        let write = self.writes;
        let realm = |tenant: usize| TENANTS[tenant].1;
        let slug = |slug: u8| format!("box{slug}");
        match step {
            Step::PutBox { tenant, slug: of, to } => {
                let to = match to {
                    0 => Placement::None,
                    1 => Placement::All,
                    2 => Placement::Sites([site_name(0)].into()),
                    3 => Placement::Sites([site_name(1)].into()),
                    _ => Placement::Sites([site_name(0), site_name(1), "later".parse().unwrap()].into()),
                };
                let slug = slug(of);
                self.central.write(|batch| {
                    batch.put(realm(tenant), &[&slug], &boxed(&slug, to));
                    batch.put(realm(tenant), &[&format!("id of {slug}")], &BoxId { slug: slug.clone() });
                });
            }
            Step::DeleteBox { tenant, slug: of } => {
                self.central.write(|batch| batch.delete::<DepositBox>(realm(tenant), &[&slug(of)]));
            }
            Step::PutSecret { tenant, slug: of, name, bytes } => {
                let mut data = format!("canary-{write}").into_bytes();
                data.resize(data.len() + bytes, 7);
                let version = SecretVersion {
                    data: SecretBytes::new(b"old".to_vec()),
                    action: VersionAction::Update,
                    written: stamp(),
                    ended: stamp(),
                };
                self.central.write(|batch| {
                    batch.put(realm(tenant), &[&slug(of), "dir", &name.to_string()], &current(data));
                    batch.put(realm(tenant), &[&slug(of), "dir", &name.to_string(), "v"], &version);
                });
            }
            Step::DeleteSecret { tenant, slug: of, name } => self
                .central
                .write(|batch| batch.delete::<CurrentSecret>(realm(tenant), &[&slug(of), "dir", &name.to_string()])),
            Step::Common { tenant, which, name, delete } => self.common(realm(tenant), which, name, delete),
            Step::Private { tenant, name } => self.central.write(|batch| {
                let login = Login { password_hash: format!("canary-hash-{write}"), full_name: None };
                batch.put(realm(tenant), &[&name.to_string()], &login);
                batch.put(realm(tenant), &[&name.to_string()], &TokenKey { key_id: 1, seed: secret(9) });
            }),
            Step::Advance { site } => {
                self.epochs[site] += 1;
                let epoch = self.epochs[site];
                self.central.write(|batch| batch.put(Realm::NODE, &[SITES[site]], &place(epoch, Held::Nothing)));
            }
            Step::RaiseTerm => self
                .central
                .run(|rows| {
                    let mut deployment = crate::site_registry::deployment(rows)?;
                    deployment.term = deployment.term.next();
                    let mut batch = Batch::housekeeping();
                    batch.put(Realm::NODE, &["deployment"], &deployment);
                    Ok((batch, ()))
                })
                .unwrap(),
            Step::Compact => {
                let revision = self.central.engine.snapshot().unwrap().revision();
                self.central.engine.compact(revision).unwrap();
            }
            Step::Cut { tenant, site } => drop(self.central.build(tenant, site, None).unwrap()),
            Step::Sync { host, tenant } => self.sync(host, tenant, usize::MAX),
            Step::Interrupt { host, tenant, chunks, restart } => {
                self.sync(host, tenant, chunks);
                if restart {
                    self.hosts[host].node = self.hosts[host].node.restarted();
                }
            }
            Step::Replay { host, pick } => self.replay(host, pick),
            Step::Sweep { host } => self.hosts[host].sweep(),
        }
        self.note_what_is_placed();
        (0..HOSTS.len()).for_each(|host| self.check_only_placed(host));
    }

    fn common(&self, realm: Realm, which: u8, name: u8, delete: bool) {
        let (write, name) = (self.writes, name.to_string());
        self.central.write(|batch| match (which, delete) {
            (0, false) => {
                let groups = [format!("group {write}")].into();
                batch.put(realm, &[&name], &Principal { groups, disabled: false });
            }
            (0, true) => batch.delete::<Principal>(realm, &[&name]),
            (1, false) => {
                let public = signer().public().clone();
                batch.put(realm, &[&key_id_segment(1)], &TokenVerifier { key_id: 1, public });
            }
            (1, true) => batch.delete::<TokenVerifier>(realm, &[&key_id_segment(1)]),
            (2, false) => {
                let not_before_us = i64::try_from(write).unwrap();
                batch.put(realm, &["principal", &name], &Revocation::Principal { not_before_us });
            }
            (2, true) => batch.delete::<Revocation>(realm, &["principal", &name]),
            (_, false) => {
                let (display_name, path) = (format!("category {write}"), "app".to_owned());
                let category = Category { id: name.clone(), display_name, path, created: stamp(), updated: stamp() };
                batch.put(realm, &[&name], &category);
            }
            (_, true) => batch.delete::<Category>(realm, &[&name]),
        });
    }

    fn note_what_is_placed(&mut self) {
        for tenant in 0..TENANTS.len() {
            for site in 0..SITES.len() {
                self.ever.0.entry((tenant, site)).or_default().extend(placed(&self.central, tenant, site));
            }
        }
    }

    /// Whatever a host has, complete or not, was once placed at its site.
    fn check_only_placed(&self, host: usize) {
        let host = &self.hosts[host];
        let realms: BTreeMap<Realm, usize> = (0..TENANTS.len())
            .filter_map(|tenant| Some((tenant, host.copy(tenant)?)))
            .flat_map(|(tenant, copy)| {
                copy.realm.into_iter().chain(copy.shadow.map(|shadow| shadow.realm)).map(move |realm| (realm, tenant))
            })
            .collect();
        for (realm, tenant) in realms {
            let all = host.node.rows(&Kind::ALL, realm);
            assert!(all.is_subset(&self.ever.0[&(tenant, host.site)]), "something that was never placed here");
        }
    }

    /// Up to `chunks` transactions of a sync; all of it where there is no bound.
    fn sync(&mut self, host: usize, tenant: usize, chunks: usize) {
        let mut chunks_left = chunks;
        for _ in 0..3 {
            let host = &self.hosts[host];
            let before = host.position(tenant);
            let Some((target, sent)) = self.central.build(tenant, host.site, before.as_ref()).unwrap() else { break };
            self.sent.push(sent.clone());
            let rows = if self.writes.is_multiple_of(2) { 2 } else { CHUNK_ROWS_MAX };
            let superseded = host.copy(tenant).and_then(|copy| copy.realm);
            let outcomes = host.take_all(&sent, rows, &mut chunks_left);
            if chunks_left == 0 {
                return;
            }
            assert_eq!(host.position(tenant), Some(target));
            let (last, others) = outcomes.split_last().unwrap();
            assert!(others.iter().all(|outcome| *outcome == Some(Outcome::Partly)));
            let Some(Outcome::Applied { superseded: told }) = last else { panic!("{last:?}") };
            let is_full = host.copy(tenant).and_then(|copy| copy.realm) != superseded;
            assert_eq!(*told, if is_full { superseded } else { None }, "what is superseded is told");
            assert!(before.is_none_or(|before| (before.term, before.dist_epoch) <= (target.term, target.dist_epoch)));
            assert!(before.is_none_or(|before| before.seq < target.seq || before.term < target.term));
        }
        let host = &self.hosts[host];
        let expected = placed(&self.central, tenant, host.site);
        let Some(realm) = host.copy(tenant).and_then(|copy| copy.realm) else {
            assert!(expected.is_empty());
            return;
        };
        assert_eq!(host.node.rows(&Kind::ALL, realm), expected);
        let rows = host.node.barrier.snapshot().unwrap();
        assert_eq!(locate(&rows, TENANTS[tenant].1.0).unwrap(), Some(realm));
    }

    fn replay(&mut self, host: usize, pick: usize) {
        if self.sent.is_empty() {
            return;
        }
        let sent = &self.sent[pick % self.sent.len()];
        let host = &self.hosts[host];
        let held: Vec<_> = (0..TENANTS.len()).map(|tenant| host.copy(tenant)).collect();
        for bytes in sent.bundles.iter().rev().chain(&sent.bundles) {
            let header = bundle::verify(bytes, signer().public()).unwrap().header;
            let tenant = TENANTS.iter().position(|(name, _)| *name == header.tenant.as_str()).unwrap();
            let before = host.position(tenant);
            let outcome = host.take(bytes, &sent.key, 3, &mut usize::MAX.clone());
            let after = host.position(tenant);
            match outcome {
                None => assert_ne!(header.site, site_name(host.site)),
                Some(Outcome::AlreadyThere) => assert_eq!(before, Some(header.target)),
                Some(Outcome::OutOfStep(told)) => assert_eq!(told, before.unwrap_or_default()),
                Some(Outcome::Alarm(_)) => assert!(before.is_some()),
                Some(Outcome::Partly) => {}
                Some(Outcome::Applied { .. }) => {
                    assert_eq!(after, Some(header.target));
                    continue;
                }
            }
            assert_eq!(before, after, "{outcome:?} moves nothing");
        }
        for (tenant, held) in held.into_iter().enumerate() {
            if let Some(before) = held.filter(|copy| copy.realm.is_some()) {
                let after = host.position(tenant).unwrap();
                let moved = before.position != after;
                assert!(!moved || before.position.term < after.term || before.position.seq < after.seq);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_host_that_has_synced_holds_what_is_placed_at_its_site_and_nothing_else(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        for host in 0..HOSTS.len() {
            (0..TENANTS.len()).for_each(|tenant| world.sync(host, tenant, usize::MAX));
            world.hosts[host].sweep();
            let node = &world.hosts[host].node;
            let snapshot = node.barrier.snapshot().unwrap();
            let mut used = BTreeSet::from([Realm::NODE]);
            used.extend((0..TENANTS.len()).filter_map(|tenant| world.hosts[host].copy(tenant)?.realm));
            used.extend((0..TENANTS.len()).filter_map(|tenant| Some(world.hosts[host].copy(tenant)?.shadow?.realm)));
            prop_assert_eq!(snapshot.realms().unwrap(), used, "nothing is left of what was before");
            prop_assert_eq!(verify_store(&*node.engine.snapshot().unwrap()).unwrap().first_break, None);
        }
    }
}

/// Central with one placed box and a host in step.
fn in_step() -> World {
    let mut world = World::new();
    world.step(Step::PutBox { tenant: 0, slug: 0, to: 1 });
    world.step(Step::PutSecret { tenant: 0, slug: 0, name: 0, bytes: 1 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    world
}

fn header_of(sent: &Sent) -> Header {
    bundle::verify(&sent.bundles[0], signer().public()).unwrap().header
}

#[test]
fn what_does_not_concern_a_site_makes_no_cut() {
    let mut world = in_step();
    let cuts = |world: &World| {
        let rows = world.central.barrier.snapshot().unwrap();
        rows.read::<Cuts>(Realm::NODE, &["acme", "udc1"]).unwrap().unwrap().value.kept.len()
    };
    let before = cuts(&world);
    world.step(Step::PutBox { tenant: 0, slug: 1, to: 0 });
    world.step(Step::PutSecret { tenant: 0, slug: 1, name: 0, bytes: 1 });
    world.step(Step::PutBox { tenant: 0, slug: 2, to: 3 });
    world.step(Step::Private { tenant: 0, name: 1 });
    let base = world.hosts[0].position(0);
    assert!(world.central.build(0, 0, base.as_ref()).unwrap().is_none());
    assert_eq!(cuts(&world), before);
}

#[test]
fn a_small_change_is_a_delta_and_only_of_what_changed() {
    let mut world = in_step();
    world.step(Step::PutSecret { tenant: 0, slug: 0, name: 1, bytes: 1 });
    let (_, sent) = world.central.build(0, 0, world.hosts[0].position(0).as_ref()).unwrap().unwrap();
    let verified = bundle::verify(&sent.bundles[0], signer().public()).unwrap();
    assert_eq!((sent.bundles.len(), verified.header.kind), (1, BundleKind::Delta));
    let items: Vec<String> = verified.open(&sent.key).unwrap().into_iter().map(|item| item.path.join("/")).collect();
    assert_eq!(items, ["box0/dir/1"]);
}

#[test]
fn leaving_a_placement_takes_rows_away_and_names_nothing_else() {
    let mut world = in_step();
    world.step(Step::PutBox { tenant: 0, slug: 1, to: 1 });
    world.step(Step::PutSecret { tenant: 0, slug: 1, name: 3, bytes: 1 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    world.step(Step::PutBox { tenant: 0, slug: 1, to: 0 });
    world.step(Step::PutSecret { tenant: 0, slug: 1, name: 2, bytes: 1 });
    let (_, sent) = world.central.build(0, 0, world.hosts[0].position(0).as_ref()).unwrap().unwrap();
    let verified = bundle::verify(&sent.bundles[0], signer().public()).unwrap();
    let items = verified.open(&sent.key).unwrap();
    let mut taken: Vec<String> = items.iter().map(|item| item.path.join("/")).collect();
    taken.sort();
    assert_eq!(taken, ["box1", "box1/dir/3"], "a name the site never had stays unknown there");
    assert!(items.iter().all(|item| item.body.is_none()));
    world.step(Step::Sync { host: 0, tenant: 0 });
}

#[test]
fn a_tenant_that_leaves_a_site_leaves_nothing_there() {
    let mut world = in_step();
    world.step(Step::PutBox { tenant: 0, slug: 0, to: 3 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    let realm = world.hosts[0].copy(0).unwrap().realm.unwrap();
    assert!(world.hosts[0].node.rows(&Kind::ALL, realm).is_empty());
    world.hosts[0].sweep();
    assert_eq!(world.hosts[0].node.barrier.snapshot().unwrap().realms().unwrap(), BTreeSet::from([Realm::NODE, realm]));
    world.step(Step::PutBox { tenant: 0, slug: 0, to: 1 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    world.step(Step::Sync { host: 1, tenant: 0 });
}

#[test]
fn a_change_too_large_for_a_delta_is_a_full_copy_in_parts() {
    let mut world = in_step();
    let base = world.hosts[0].position(0);
    for name in 0..12 {
        world.step(Step::PutSecret { tenant: 0, slug: 0, name, bytes: 200 << 10 });
    }
    let (_, sent) = world.central.build(0, 0, base.as_ref()).unwrap().unwrap();
    assert!(4 < sent.bundles.len());
    assert!(matches!(header_of(&sent).kind, BundleKind::Full { part: 0, .. }));
    for bytes in &sent.bundles {
        assert!(bytes.len() < holdfast_protocol::limits::BUNDLE_BYTES_MAX);
    }
    world.step(Step::Sync { host: 0, tenant: 0 });
    let mut many = in_step();
    for index in 0..DELTA_ROWS_MAX + 1 {
        many.central.write(|batch| {
            batch.put(TENANTS[0].1, &["box0", &index.to_string()], &current(vec![1]));
        });
    }
    let (_, sent) = many.central.build(0, 0, many.hosts[0].position(0).as_ref()).unwrap().unwrap();
    assert!(matches!(header_of(&sent).kind, BundleKind::Full { part: 0, of: 1 }));
    many.step(Step::Sync { host: 0, tenant: 0 });
}

#[test]
fn a_host_behind_all_kept_cuts_takes_a_full_copy() {
    let mut world = in_step();
    let base = world.hosts[0].position(0);
    for round in 0..=CUTS_KEPT {
        world.step(Step::PutSecret { tenant: 0, slug: 0, name: 0, bytes: round });
        world.step(Step::Cut { tenant: 0, site: 0 });
    }
    let (_, sent) = world.central.build(0, 0, base.as_ref()).unwrap().unwrap();
    assert!(matches!(header_of(&sent).kind, BundleKind::Full { .. }));
    world.step(Step::Sync { host: 0, tenant: 0 });
}

#[test]
fn a_site_that_is_cut_off_is_neither_cut_nor_built_for() {
    let mut world = in_step();
    world.step(Step::PutSecret { tenant: 0, slug: 0, name: 1, bytes: 1 });
    world.central.write(|batch| batch.put(Realm::NODE, &["udc1"], &place(2, Held::Quarantined)));
    let before = world.central.engine.snapshot().unwrap().revision();
    for base in [None, world.hosts[0].position(0)] {
        assert!(matches!(world.central.build(0, 0, base.as_ref()), Err(Refusal::Denied)));
    }
    assert_eq!(world.central.engine.snapshot().unwrap().revision(), before);
    assert!(world.central.build(0, 1, None).is_ok(), "another site");
    world.central.barrier.seal();
    assert!(matches!(world.central.build(0, 1, None), Err(Refusal::Sealed)));
}

#[test]
fn a_new_epoch_comes_under_a_key_that_the_old_one_does_not_tell() {
    let mut world = in_step();
    let base = world.hosts[0].position(0);
    let (_, old) = world.central.build(0, 0, None).unwrap().unwrap();
    world.step(Step::Advance { site: 0 });
    let (target, sent) = world.central.build(0, 0, base.as_ref()).unwrap().unwrap();
    assert_eq!(target.dist_epoch, DistEpoch(2));
    assert!(!sent.key.ct_eq(&old.key));
    let verified = bundle::verify(&sent.bundles[0], signer().public()).unwrap();
    assert!(verified.open(&old.key).is_err());
    let (_, other) = world.central.build(0, 1, None).unwrap().unwrap();
    assert!(!sent.key.ct_eq(&other.key), "sites have keys of their own");
    world.step(Step::Sync { host: 0, tenant: 0 });
}

#[test]
fn a_new_term_builds_on_no_cut_of_an_earlier_one() {
    let mut world = in_step();
    let base = world.hosts[0].position(0).unwrap();
    world.central.write(|batch| {
        let deployment = Deployment {
            id: DEPLOYMENT,
            term: Term(2),
            incarnation: [2; 16],
            created_us: 0,
            standing_generation: StandingGeneration::default(),
            standing_digest: [0; 32],
        };
        batch.put(Realm::NODE, &["deployment"], &deployment);
    });
    let (target, sent) = world.central.build(0, 0, Some(&base)).unwrap().unwrap();
    assert!(matches!(header_of(&sent).kind, BundleKind::Full { .. }), "{:?}", header_of(&sent));
    assert_eq!(target.term, Term(2));
    world.step(Step::Sync { host: 0, tenant: 0 });
    assert_eq!(world.hosts[0].position(0), Some(target));
}

#[test]
fn holdings_tell_what_a_site_was_sent_and_what_was_taken_back() {
    let mut world = in_step();
    world.step(Step::PutBox { tenant: 0, slug: 1, to: 1 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    world.step(Step::PutBox { tenant: 0, slug: 1, to: 0 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    let rows = world.central.barrier.snapshot().unwrap();
    let held = rows.list::<Holding>(Realm::NODE, &["udc1", "acme"]).unwrap();
    let mut told: Vec<_> = held.into_iter().map(|row| (row.value.path.join("/"), row.value.left)).collect();
    told.sort();
    assert_eq!(told, [("box0".to_owned(), false), ("box0/dir/0".to_owned(), false), ("box1".to_owned(), true)]);
    assert!(rows.list::<Holding>(Realm::NODE, &["udc2"]).unwrap().is_empty());
}

#[test]
fn a_bundle_is_judged_by_where_it_leads_and_where_it_starts() {
    let mut world = in_step();
    world.step(Step::Advance { site: 0 });
    world.step(Step::Sync { host: 0, tenant: 0 });
    world.step(Step::RaiseTerm);
    world.step(Step::Sync { host: 0, tenant: 0 });
    let host = &world.hosts[0];
    let held = host.position(0).unwrap();
    let (_, sent) = world.central.build(0, 0, None).unwrap().unwrap();
    let full = Header { kind: BundleKind::Full { part: 0, of: 1 }, ..header_of(&sent) };
    let next = Position { seq: held.seq.next(), digest: [9; 32], ..held };
    let target = |target: Position| Header { target, ..full.clone() };
    let delta = |base: Position| Header { kind: BundleKind::Delta, base, target: next, ..full.clone() };
    let backwards = Some(Outcome::Alarm("a bundle that leads backwards"));
    let older = Some(Outcome::Alarm("a bundle of an older term or epoch"));
    let cases = [
        ("the held one", target(held), Some(Outcome::AlreadyThere)),
        ("the next", target(next), None),
        ("a delta from here", delta(held), None),
        ("a delta from elsewhere", delta(Position { digest: [1; 32], ..held }), Some(Outcome::OutOfStep(held))),
        ("a delta from nowhere", delta(Position::default()), Some(Outcome::OutOfStep(held))),
        (
            "another digest",
            target(Position { digest: [9; 32], ..held }),
            Some(Outcome::Alarm("a bundle of the held number with another digest")),
        ),
        ("a lower number", target(Position { seq: Seq(1), ..held }), backwards.clone()),
        (
            "a lower number in a newer epoch",
            target(Position { seq: Seq(1), dist_epoch: held.dist_epoch.next(), ..held }),
            backwards,
        ),
        ("an older epoch", target(Position { dist_epoch: DistEpoch(1), ..next }), older.clone()),
        ("an older term", target(Position { term: Term(1), ..next }), older.clone()),
        ("an older term, newer epoch", target(Position { term: Term(1), dist_epoch: DistEpoch(9), ..next }), older),
        ("a newer term counts anew", target(Position { term: held.term.next(), seq: Seq(1), ..next }), None),
    ];
    let rows = host.node.barrier.snapshot().unwrap();
    for (what, header, expected) in cases {
        assert_eq!(judge(&header, &rows).unwrap(), expected, "{what}");
        let unknown = Header { tenant: "other".parse().unwrap(), ..header };
        let expected = (unknown.kind == BundleKind::Delta).then(|| Outcome::OutOfStep(Position::default()));
        assert_eq!(judge(&unknown, &rows).unwrap(), expected, "{what}, of a tenant not here yet");
    }
}

#[test]
fn a_bundle_of_anything_but_content_is_refused_whole() {
    let world = in_step();
    let host = &world.hosts[0];
    let held = host.position(0).unwrap();
    let before = host.node.engine.snapshot().unwrap().revision();
    let header = Header {
        kind: BundleKind::Delta,
        base: held,
        target: Position { seq: held.seq.next(), ..held },
        ..header_of(&world.sent[0])
    };
    for kind in (0..=u8::MAX).filter(|kind| Kind::from_byte(*kind).is_none_or(|kind| !CONTENT.contains(&kind))) {
        let item = |kind: u8| Item { kind, path: vec!["a".to_owned()], body: None };
        let cmd = Apply {
            header: header.clone(),
            items: vec![item(Kind::Principal as u8), item(kind)],
            ends_part: true,
            realm_base: secret(1),
            realm_key: secret(2),
        };
        let refused = host.node.run(move |rows| apply(&cmd, rows, NOW));
        assert!(matches!(refused, Err(Refusal::Corrupt)), "kind {kind}");
    }
    assert_eq!(host.node.engine.snapshot().unwrap().revision(), before);
}

#[test]
fn parts_out_of_order_change_nothing_that_is_read() {
    let mut world = in_step();
    for name in 0..8 {
        world.step(Step::PutSecret { tenant: 0, slug: 0, name, bytes: 200 << 10 });
    }
    let base = world.hosts[0].position(0);
    let (target, sent) = world.central.build(0, 0, base.as_ref()).unwrap().unwrap();
    let host = &world.hosts[0];
    let take =
        |part: usize| host.take(&sent.bundles[part], &sent.key, CHUNK_ROWS_MAX, &mut usize::MAX.clone()).unwrap();
    let last = sent.bundles.len() - 1;
    assert!(2 < last);
    assert_eq!(take(1), Outcome::OutOfStep(base.unwrap()), "it begins with the first");
    assert_eq!(take(0), Outcome::Partly);
    assert_eq!(take(last), Outcome::OutOfStep(base.unwrap()), "and leaves none out");
    assert_eq!(host.position(0), base);
    // Whoever lost step begins again.
    for part in 0..last {
        assert_eq!(take(part), Outcome::Partly);
    }
    assert!(matches!(take(last), Outcome::Applied { superseded: Some(_) }));
    assert_eq!(host.position(0), Some(target));
    assert_eq!(take(0), Outcome::AlreadyThere);
}

#[test]
fn a_cut_that_was_made_meanwhile_is_not_made_twice() {
    // Two builders of one stream at once are a bug of who runs them; the store still lets one through only.
    let world = in_step();
    let tenant = TenantRef { name: "acme".parse().unwrap(), realm: TENANTS[0].1 };
    world.central.write(|batch| batch.put(TENANTS[0].1, &["box0", "x"], &current(vec![1])));
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let build = || build(&world.central.barrier, &tenant, &site_name(0), None, &signer());
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(build)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let targets: BTreeSet<_> = outcomes
        .into_iter()
        .filter_map(|outcome| match outcome {
            Ok(Built::Bundles { target, .. }) => Some(target),
            Ok(other) => panic!("{other:?}"),
            Err(Refusal::Conflict(_)) => None,
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert!(targets.len() <= 1, "{targets:?}");
}

#[test]
fn a_full_store_fails_a_build_and_cuts_nothing() {
    let mut world = in_step();
    world.step(Step::PutSecret { tenant: 0, slug: 0, name: 1, bytes: 1 });
    world.central.engine.inject(Box::new(|_| crate::store::memory::Injected::Refuse(Fault::Full)));
    let base = world.hosts[0].position(0);
    assert!(matches!(world.central.build(0, 0, base.as_ref()), Err(Refusal::Fault(Fault::Full))));
    world.central.engine.inject(Box::new(|_| crate::store::memory::Injected::Pass));
    world.step(Step::Sync { host: 0, tenant: 0 });
}

#[test]
fn lines_tell_what_was_applied() {
    let world = in_step();
    let report = verify_store(&*world.hosts[0].node.engine.snapshot().unwrap()).unwrap();
    assert_eq!((report.changes, report.first_break), (1, None));
}
