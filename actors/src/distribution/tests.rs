//! Both ends together: whatever happens at central, a host that has synced holds what is placed at its site, and never
//! anything else.

mod applying;
mod blast;
mod cuts;
mod placing;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use holdfast_protocol::bundle::{self, BundleKind, Header, Item};
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::{DeploymentId, DistEpoch, HostName, SealEpoch, Seq, SiteName, StandingGeneration, Term};
use holdfast_protocol::secret::{Secret, SecretBytes};
use proptest::prelude::*;

use super::build::{Built, Order, TenantRef, build};
use super::replica::{Apply, CHUNK_ROWS_MAX, Outcome, apply, judge, locate, orphans};
use super::*;
use crate::access_control::globs::Globbing;
use crate::access_control::identities::{Assignment, Standing as KesStanding};
use crate::access_control::policies::{Origin, Policy as KesPolicy};
use crate::access_control::records::{
    Approle, Login, Principal, Revocation, SecretId, TokenKey, TokenVerifier, key_id_segment,
};
use crate::attestation_verifier::appraisal::{Policy, ReferenceValues};
use crate::audit_log::verify::verify_store;
use crate::barrier::{Barrier, NoReads};
use crate::distribute::{Distribute, Placement};
use crate::key_store::{FreshKey, Material, TransitKey};
use crate::keyring::{Keyring, RealmKeys};
use crate::ports::{Entropy, Now};
use crate::rows::{Batch, ReadRows, Refusal, Rows};
use crate::secret_store::records::{
    BoxId, Category, CurrentSecret, DepositBox, Marks, SecretVersion, Stamp, VersionAction,
};
use crate::site_registry::certificates::SiteCertificates;
use crate::site_registry::{Deployment, EkTrust, Held, Site, Standing};
use crate::store::memory::MemoryEngine;
use crate::store::{Engine, Fault};

const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const NOW: Now = Now { mono: std::time::Duration::ZERO, wall_us: 1 };
const TENANTS: [(&str, Realm); 2] = [("acme", Realm(1)), ("beta", Realm(2))];
const SITES: [&str; 2] = ["udc1", "udc2"];
const CONTENT: [Kind; 11] = [
    Kind::Box,
    Kind::Secret,
    Kind::Principal,
    Kind::TokenVerifier,
    Kind::Revocation,
    Kind::Category,
    Kind::Approle,
    Kind::Policy,
    Kind::Identity,
    Kind::Serving,
    Kind::TransitKey,
];

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
        certificates: SiteCertificates::default(),
        earlier: None,
        allow_local_unseal: false,
        approved_since_us: 0,
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
        max_versions: None,
        cas_required: false,
    }
}

fn current(data: Vec<u8>) -> CurrentSecret {
    CurrentSecret {
        data: SecretBytes::new(data),
        version_id: "v".to_owned(),
        created: stamp(),
        updated: stamp(),
        version: 1,
        marks: Marks::default(),
    }
}

/// With a role-id and an instance of these bytes.
fn approle(to: Placement, (role, instance): (u8, u8), bound: bool) -> Approle {
    Approle {
        role_id: SecretBytes::new(vec![role; 16]),
        fixed_role_id: false,
        bind_secret_id: bound,
        weak_secret_id: false,
        secret_id_ttl_s: 0,
        secret_id_num_uses: 0,
        token_ttl_s: 60,
        token_policies: BTreeSet::new(),
        secret_id_minters: BTreeSet::new(),
        distribute: Distribute { to, offline_s: None },
        instance: [instance; 16],
        instance_us: i64::from(instance),
        created_by: "alice".to_owned(),
        created_us: 1,
    }
}

fn transit_key(to: Placement, fill: u8) -> TransitKey {
    let material = Material::fresh(Cipher::Aes256Gcm, &FreshKey { key: secret(fill), hmac_key: secret(fill) });
    let distribute = Distribute { to, offline_s: None };
    let mut key = TransitKey { distribute, origin: Origin::Api, next: 1, versions: Vec::new() };
    key.push(material, stamp(), (1, crate::key_store::Why::Rotated));
    key
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
        self.build_for(&tenant, site, base, &BTreeSet::new())
    }

    /// For hosts that will be sent it.
    fn build_for(
        &self,
        tenant: &TenantRef,
        site: usize,
        base: Option<&Position>,
        hosts: &BTreeSet<HostName>,
    ) -> Result<Option<(Position, Sent)>, Refusal> {
        let order = Order { tenant, site: &site_name(site), base, hosts };
        Ok(match build(&self.barrier, &order, &signer(), NOW)? {
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
    let approles = central.barrier.snapshot().unwrap().list::<Approle>(realm, &[]).unwrap();
    let approles = approles.into_iter().filter(|row| row.value.distribute.goes_to(&site_name(site)));
    let approles: BTreeSet<String> = approles.map(|row| row.name().to_owned()).collect();
    let keys = central.barrier.snapshot().unwrap().list::<TransitKey>(realm, &[]).unwrap();
    let keys = keys.into_iter().filter(|row| row.value.distribute.goes_to(&site_name(site)));
    let keys: BTreeSet<String> = keys.map(|row| row.name().to_owned()).collect();
    let has_content = !here.is_empty() || !keys.is_empty();
    let all = central.rows(&CONTENT, realm);
    all.into_iter()
        .filter(|(kind, path, _)| match kind {
            Kind::Approle => has_content && approles.contains(&path[0]),
            Kind::Box | Kind::Secret => here.contains(&path[0]),
            Kind::TransitKey => keys.contains(&path[0]),
            _ => has_content,
        })
        .collect()
}

fn header_of(sent: &Sent) -> Header {
    bundle::verify(&sent.bundles[0], signer().public()).unwrap().header
}
