//! An unsealed node on the memory engine, with a journal on disk, tenants and users.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use holdfast_actors::access_control::logins::{PutUser, login_of, put_user};
use holdfast_actors::access_control::tenants::{CreateTenant, SetupTenant, create_tenant, setup_tenant};
use holdfast_actors::access_control::tokens::mint;
use holdfast_actors::access_control::{TenantKind, TokenId, VerifiedTokens, password, verify};
use holdfast_actors::audit_log::journal::{Journal, Limits};
use holdfast_actors::audit_log::{Chain, Line, line_aad};
use holdfast_actors::barrier::Barrier;
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{Clock, Entropy, Now};
use holdfast_actors::rows::Rows;
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::codec;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::envelope;
use holdfast_protocol::ids::{DeploymentId, Realm, SiteName};
use holdfast_protocol::secret::Secret;
use holdfast_rest::bite::Bite;
use holdfast_rest::node::{Central, Node, Place};
use tempfile::TempDir;

/// The password of every user here.
pub(crate) const PASSWORD: &str = "correct horse";

/// Different bytes at each call, the same in each run.
#[derive(Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, into: &mut [u8]) {
        for chunk in into.chunks_mut(32) {
            let bytes = sha256(&[&self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes()]);
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// A clock that stands until it is put forward.
pub(crate) struct Hand(AtomicI64);

impl Hand {
    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Now {
        Now { mono: Duration::ZERO, wall_us: self.0.load(Ordering::SeqCst) }
    }
}

/// A site host that holds copies under the realm numbers of central.
pub(crate) struct AtSite {
    pub(crate) site: SiteName,
    pub(crate) lease_ok: Arc<AtomicBool>,
}

impl Place for AtSite {
    fn site(&self) -> Option<&SiteName> {
        Some(&self.site)
    }
    fn locate(&self, _: &dyn Rows, tenant: u32) -> Option<Realm> {
        (tenant == 1).then_some(Realm(1))
    }
    fn lease_ok(&self, _: Realm, offline_s: Option<u64>) -> bool {
        offline_s.is_none() || self.lease_ok.load(Ordering::SeqCst)
    }
}

pub(crate) struct World {
    pub(crate) node: Arc<Node>,
    pub(crate) clock: Arc<Hand>,
    /// Of `system` and `acme`.
    pub(crate) roots: [String; 2],
    pub(crate) folder: TempDir,
    journal: Arc<Journal>,
}

fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

fn password_hash() -> String {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| password::hash(PASSWORD.as_bytes(), &[7; 16]).unwrap()).clone()
}

impl World {
    /// Central with the tenants `system` and `acme`, each with the administrator `admin`.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
        let journal = Arc::new(Journal::open(folder.path(), Limits::default(), entropy.clone()).unwrap());
        let barrier = Barrier::new(Arc::new(MemoryEngine::new()), entropy, journal.clone());
        let ring = Keyring::new(DeploymentId([1; 16]), secret(1));
        let node_realm = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
        barrier.begin(node_realm, Vec::new()).await.unwrap();
        barrier.unseal(ring);
        let clock = Arc::new(Hand(AtomicI64::new(1_700_000_000_000_000)));
        let node = Node::new(barrier, journal.clone(), clock.clone(), Arc::new(Central));
        let mut world = Self { node: Arc::new(node), clock, roots: Default::default(), folder, journal };
        world.roots[0] = world.tenant("system", TenantKind::System, 10).await;
        world.roots[1] = world.tenant("acme", TenantKind::ApplicationOwner, 20).await;
        world
    }

    async fn tenant(&self, name: &str, kind: TenantKind, fill: u8) -> String {
        let (base, key, token_seed) = (secret(fill), secret(fill + 1), secret(fill + 2));
        let cmd = CreateTenant { name: name.parse().unwrap(), kind, base, key, token_seed, by: "test".into() };
        let now = self.node.now();
        self.node.barrier().run(move |rows| create_tenant(&cmd, rows, now)).await.unwrap();
        let cmd = SetupTenant {
            name: name.parse().unwrap(),
            admin_username: "admin".into(),
            password_hash: password_hash(),
            full_name: None,
            token_id: TokenId([fill; 16]),
            by: "test".into(),
        };
        let (claims, _) = self.node.barrier().run(move |rows| setup_tenant(&cmd, rows, now)).await.unwrap();
        mint(&self.node.barrier().snapshot().unwrap(), &claims).unwrap().to_string()
    }

    /// Makes or changes a user of `system` (0) or `acme` (1).
    pub(crate) async fn user(&self, tenant: usize, name: &str, groups: &[&str]) {
        let now = self.node.now();
        let rows = self.node.barrier().snapshot().unwrap();
        let locate = |number| Some(Realm(number));
        let caller = verify(&self.roots[tenant], &locate, &rows, now, &VerifiedTokens::default()).unwrap();
        let is_new = login_of(&rows, caller.realm, name).unwrap().is_none();
        drop(rows);
        let groups: BTreeSet<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        // Whoever is there keeps the password, and with it the tokens.
        let password_hash = is_new.then(password_hash);
        let cmd = PutUser { caller, username: name.into(), password_hash, full_name: None, groups, disabled: false };
        self.node.barrier().run(move |rows| put_user(&cmd, rows, now)).await.unwrap();
    }

    /// The same central, whose changes hold at these hosts.
    pub(crate) fn biting(&self, hosts: Arc<dyn Bite>) -> Arc<Node> {
        let barrier = self.node.barrier().clone();
        Arc::new(Node::new(barrier, self.journal.clone(), self.clock.clone(), Arc::new(Central)).biting(hosts))
    }

    /// The same store seen by a host of `site`.
    pub(crate) fn at_site(&self, site: &str, lease_ok: Arc<AtomicBool>) -> Arc<Node> {
        let place = AtSite { site: site.parse().unwrap(), lease_ok };
        let barrier = self.node.barrier().clone();
        Arc::new(Node::new(barrier, self.journal.clone(), self.clock.clone(), Arc::new(place)))
    }

    /// All lines of the read journal, decrypted, each with its realm.
    pub(crate) fn journal_lines(&self) -> Vec<(u32, Line)> {
        let rows = self.node.barrier().snapshot().unwrap();
        let mut files: Vec<_> =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut lines = Vec::new();
        for file in files {
            let bytes = std::fs::read(file).unwrap();
            let number = |at: &[u8]| u32::from_be_bytes(at[..4].try_into().unwrap());
            let mut rest = &bytes[12 + number(&bytes[8..]) as usize..];
            while !rest.is_empty() {
                let (line, after) = rest[4..].split_at(number(rest) as usize);
                let realm = Realm(number(line));
                let seq = u64::from_be_bytes(line[4..12].try_into().unwrap());
                let keys = rows.realm_keys(realm).unwrap();
                let aad = line_aad(Chain::Reads, rows.ring().deployment(), realm, seq);
                let plain = envelope::open(|id| keys.version(id), &aad, &line[20..line.len() - 32]).unwrap();
                lines.push((realm.0, codec::decode(plain.expose(), 1 << 16).unwrap()));
                rest = after;
            }
        }
        lines
    }
}
