//! A deployment in memory for the targets that need one: central with tenants, a user, a box, a secret, a site; and a
//! site host that shares its store. The barrier, the ledgers, the journal and the dialects are the real ones; only the
//! seal keeper and the fleet, which need a whole process, answer by rote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::Request;
use holdfast_actors::access_control::identities::set_admin;
use holdfast_actors::access_control::tenants::create_root_token;
use holdfast_actors::access_control::tokens::mint;
use holdfast_actors::access_control::{Authority, TokenId};
use holdfast_actors::audit_log::journal::{Journal, Limits};
use holdfast_actors::barrier::Barrier;
use holdfast_actors::distribute::Distribute;
use holdfast_actors::distribution::Copy;
use holdfast_actors::key_store::{CreateKey, FreshKey, create_key};
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{Clock, Entropy, Now, draw, draw_secret};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::seal_keeper::{Class, Proof, RequestId, Revealer, SealRefusal, Status};
use holdfast_actors::site_registry::initialise::{Fresh, initialise};
use holdfast_actors::site_registry::restored::Report;
use holdfast_actors::site_registry::sites::state::Live;
use holdfast_actors::site_registry::standing::{Decide, decide};
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::{DeploymentId, HostId, Realm, SiteName};
use holdfast_protocol::kes::{ApiKey, Identity};
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::wire::Position;
use holdfast_rest::access::{Access, BoxFuture, NoWatch};
use holdfast_rest::cerberus;
use holdfast_rest::config::Checker;
use holdfast_rest::front::{Front, FrontOptions};
use holdfast_rest::health::{self, NodeState, SealState};
use holdfast_rest::kes;
use holdfast_rest::metrics::Metrics;
use holdfast_rest::node::{Node, Place};
use holdfast_rest::peer::Peer;
use holdfast_rest::routes::Routes;
use holdfast_rest::strongbox::{
    FleetControl, LOGIN_TTL_S, Operator, Pending, Revealed, Rotated, SealControl, SealError, SiteChange,
    SiteSealControl, SiteSealStatus, StrongboxNode, StrongboxSite, Unsealing, routes_central, routes_site,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Identity of the operator's client certificate.
pub(crate) const OPERATOR: &str = "c0ffee";
/// The proxy of KES' clients, and where it says who they are.
pub(crate) const PROXY: Identity = Identity([1; 32]);
pub(crate) const PROXY_HEADER: &str = "x-client";

/// The deployment.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) barrier: Barrier,
    pub(crate) central: Arc<Front>,
    /// The same central, for clients of KES' last versions.
    pub(crate) current: Arc<Front>,
    pub(crate) site: Arc<Front>,
    /// Token of the root of `system`.
    pub(crate) root: String,
    /// Whether both nodes say that they are sealed.
    pub(crate) sealed: Arc<AtomicBool>,
    journal_folder: TempDir,
}

/// What was done to a deployment to have something in it: method, path, body.
const DEEDS: [(&str, &str, &str); 4] = [
    ("POST", "/v1/config/tenants", r#"{"name": "acme"}"#),
    (
        "POST",
        "/v1/config/system/sites",
        r#"{"name": "udc1", "ek-trust": "token", "hosts": [{"name": "udc1-001"}, {"name": "udc1-002"}]}"#,
    ),
    ("POST", "/v1/state/system/sites/udc1/quarantine-site-host", r#"{"host": "udc1-002"}"#),
    ("POST", "/v1/state/system/sites/udc1/site-bundle", "{}"),
];

impl World {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
        let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
        let journal_folder = folder();
        let journal =
            Journal::open(journal_folder.path(), Limits::default(), entropy.clone()).expect("an empty folder");
        let journal = Arc::new(journal);
        let barrier = Barrier::new(Arc::new(MemoryEngine::new()), entropy, journal.clone());
        let root = runtime.block_on(begin(&barrier)).expect("a first start succeeds");
        let sealed = Arc::new(AtomicBool::new(false));
        let state = Arc::new(Saying(sealed.clone()));
        let [central, current] = ["seed", "current"].map(|profile| central(&barrier, &journal, &state, profile));
        let site = site(&barrier, &journal, &state);
        let world = Self { runtime, barrier, central, current, site, root, sealed, journal_folder };
        world.furnish();
        world.runtime.block_on(client(&world.barrier)).expect("a client and a key are made");
        world
    }

    /// Where the read journal is.
    pub(crate) fn journal_folder(&self) -> &Path {
        self.journal_folder.path()
    }

    /// Its one segment.
    pub(crate) fn journal_path(&self) -> PathBuf {
        self.journal_folder.path().join("reads-0000000001.log")
    }

    fn furnish(&self) {
        for (method, path, body) in DEEDS {
            self.must(method, path, body);
        }
        let category = self.must("GET", "/v1/category", "");
        let category = serde_json::from_slice::<serde_json::Value>(&category).expect("categories are JSON");
        let of_box = serde_json::json!({
            "name": "box", "category_id": category[0]["id"], "owner": "admins", "distribute": {"to": "all"},
        });
        self.must("POST", "/v2/safe-deposit-box", &of_box.to_string());
        self.must("POST", "/v1/secret/app/box/a/b", r#"{"key": "value"}"#);
        self.must("POST", "/v1/secret/app/box/a/b", r#"{"key": "value", "n": [1, {"x": null}]}"#);
        // Reads have lines in the journal.
        for path in ["/v1/secret/app/box/a/b", "/v1/secret/app/box/?list=true", "/v1/secret/app/box/a/b"] {
            self.must("GET", path, "");
        }
    }

    /// A deed that can only succeed; what was answered.
    fn must(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let request = Request::builder().method(method).uri(path).header("accept", "application/json");
        let request = request.header("authorization", format!("Bearer {}", self.root));
        let request = request.body(body.to_owned().into()).expect("a request");
        let peer = Peer::new(([127, 0, 0, 1], 5000).into(), None);
        self.runtime.block_on(async {
            let answer = self.central.answer(peer, request).await;
            let status = answer.status();
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("an answer ends");
            assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
            body.to_vec()
        })
    }
}

/// In memory, where there is such a place: journals are written to at each request.
pub(crate) fn folder() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    made.expect("a temporary folder can be made")
}

/// Initialises; gives the root token of `system`.
async fn begin(barrier: &Barrier) -> Result<String, Refusal> {
    let entropy = barrier.entropy().clone();
    let deployment = DeploymentId([7; 16]);
    let ring = Keyring::new(deployment, draw_secret(&*entropy));
    let keys = RealmKeys::new(draw_secret(&*entropy), draw_secret(&*entropy));
    barrier.begin(barrier.first_realm(&ring, keys), Vec::new()).await?;
    barrier.unseal(ring);
    let fresh = Fresh::draw(deployment, &*entropy);
    let now = Still.now();
    barrier.run(move |rows| initialise(&fresh, rows, now)).await?;
    let id = TokenId(draw(&*entropy));
    let (claims, _) = barrier.run(move |rows| create_root_token(Realm(1), id, "central", rows, now)).await?;
    Ok(mint(&barrier.snapshot()?, &claims)?.to_string())
}

/// Who comes with a certificate may do all with the keys of `system`, of which there is one.
async fn client(barrier: &Barrier) -> Result<(), Refusal> {
    let by = || Authority::Node { realm: Realm(1), part: "fuzz" };
    for identity in [Identity([0; 32]), proxied().identity()] {
        barrier.run(move |rows| set_admin(&by(), identity, rows, Still.now())).await?;
    }
    let (name, fresh) = ("k".parse().expect("a name"), FreshKey::draw(&**barrier.entropy()));
    let cmd = CreateKey { by: by(), name, cipher: Cipher::Aes256Gcm, fresh, distribute: Distribute::default() };
    barrier.run(move |rows| create_key(&cmd, rows, Still.now())).await?;
    barrier.run(|_| Ok((copied(), ()))).await.map(drop)
}

/// What tells the site host that `system` is served there.
fn copied() -> Batch {
    let copy = Copy { tenant_number: 1, realm: Some(Realm(1)), position: Position::default(), shadow: None };
    let mut batch = Batch::housekeeping();
    batch.put(Realm::NODE, &["system"], &copy);
    batch
}

/// Who comes through a proxy.
pub(crate) fn proxied() -> ApiKey {
    ApiKey::from_seed(Secret::fill_with(|bytes| bytes.fill(9)))
}

/// How clients of KES are served, of a profile; `PROXY` is a proxy.
fn section(profile: &str) -> kes::Section {
    let text =
        format!("[kes]\nprofile = {profile:?}\n[kes.proxy]\nidentities = [\"{PROXY}\"]\nheader = {PROXY_HEADER:?}\n");
    let checker = Checker::parse(&text).expect("it is TOML");
    let section = kes::Section::read(&checker, "kes", &[]);
    checker.finish(section).expect("it is a section")
}

fn central(barrier: &Barrier, journal: &Arc<Journal>, state: &Arc<Saying>, profile: &str) -> Arc<Front> {
    let access = Access::at_central(
        barrier.clone(),
        journal.clone(),
        Arc::new(Still),
        Arc::new(NoWatch),
        Arc::new(holdfast_rest::bite::NoHosts),
    );
    let access = Arc::new(access);
    let boxes = access.watched(cerberus::central_routes(access.node().clone(), cerberus::Settings::default()));
    let keys = kes::central_routes(access.node().clone(), section(profile), "0");
    let node = StrongboxNode {
        access,
        seal: Arc::new(ByRote),
        fleet: Arc::new(NoHosts(barrier.clone())),
        bootstrap_secret: Arc::new(|| Some(SecretBytes::from("first-light".to_owned()))),
        admin_identities: BTreeSet::from([OPERATOR.to_owned()]),
        login_ttl_s: LOGIN_TTL_S,
        quic_addresses: vec!["central.example:7443".to_owned()],
        quote_interval_ms: None,
    };
    front(keys.merge(routes_central(Arc::new(node))).merge(boxes), state)
}

fn site(barrier: &Barrier, journal: &Arc<Journal>, state: &Arc<Saying>) -> Arc<Front> {
    let place = AtSite("udc1".parse().expect("a name"));
    let node = Arc::new(Node::new(barrier.clone(), journal.clone(), Arc::new(Still), Arc::new(place)));
    let access = Arc::new(Access::at_site(node.clone()));
    let admin_identities = BTreeSet::from([OPERATOR.to_owned()]);
    let strongbox = StrongboxSite { access, seal: Arc::new(ByRote), admin_identities };
    let keys = kes::site_routes(node.clone(), "0");
    front(keys.merge(routes_site(Arc::new(strongbox))).merge(cerberus::site_routes(node)), state)
}

fn front(routes: impl Into<Routes>, state: &Arc<Saying>) -> Arc<Front> {
    let metrics = Arc::new(Metrics::new());
    let routes = routes.into().merge(health::routes(state.clone(), metrics.clone(), "0"));
    Front::new(routes, state.clone(), metrics, FrontOptions::default())
}

/// Never the same bytes twice, and the same in each run.
#[derive(Default)]
pub(crate) struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, into: &mut [u8]) {
        for chunk in into.chunks_mut(32) {
            let number = self.0.fetch_add(1, Ordering::SeqCst);
            chunk.copy_from_slice(&sha256(&[&number.to_be_bytes()])[..chunk.len()]);
        }
    }
}

/// A clock that stands.
struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now { mono: Duration::ZERO, wall_us: 1_800_000_000_000_000 }
    }
}

struct Saying(Arc<AtomicBool>);

impl NodeState for Saying {
    fn seal_state(&self) -> SealState {
        if self.0.load(Ordering::SeqCst) { SealState::Sealed } else { SealState::Unsealed }
    }
}

struct AtSite(SiteName);

impl Place for AtSite {
    fn site(&self) -> Option<&SiteName> {
        Some(&self.0)
    }
    fn locate(&self, _: &dyn Rows, tenant: u32) -> Option<Realm> {
        (tenant == 1).then_some(Realm(1))
    }
    fn lease_ok(&self, _: Realm, offline_s: Option<u64>) -> bool {
        offline_s.is_none()
    }
}

/// A seal that refuses whatever was read of a request.
struct ByRote;

impl SealControl for ByRote {
    fn status(&self) -> Status {
        Status { initialised: true, sealed: false, held: 0, threshold: 3, shares: 5 }
    }
    fn reveal(&self, _: Option<Revealer>) -> BoxFuture<'_, Result<Revealed, SealError>> {
        Box::pin(async { Err(SealRefusal::NotAllowed.into()) })
    }
    fn unseal(&self, _: Class, _: Proof) -> BoxFuture<'_, Result<Unsealing, SealError>> {
        Box::pin(async { Ok(Unsealing::MoreShares { held: 1, threshold: 3 }) })
    }
    fn prove(&self, _: Class, _: Proof) -> BoxFuture<'_, Result<(), SealError>> {
        Box::pin(async { Err(SealRefusal::WrongSealKey.into()) })
    }
    fn seal(&self, _: Operator) -> BoxFuture<'_, Result<(), SealError>> {
        Box::pin(async { Err(SealRefusal::NotAllowed.into()) })
    }
    fn rotate_seal(&self, _: Operator) -> BoxFuture<'_, Result<Rotated, SealError>> {
        Box::pin(async { Err(SealRefusal::NotAllowed.into()) })
    }
    fn reply_sent(&self, _: RequestId) {}
}

impl SiteSealControl for ByRote {
    fn status(&self) -> SiteSealStatus {
        SiteSealStatus { initialised: true, sealed: true, reason: None, ..SiteSealStatus::default() }
    }
    fn seal(&self, _: Operator) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Err(Refusal::Denied) })
    }
}

/// Commits decisions for real; has no connections.
struct NoHosts(Barrier);

impl FleetControl for NoHosts {
    fn live(&self) -> BTreeMap<HostId, Live> {
        BTreeMap::new()
    }
    fn decide(&self, decision: Decide) -> BoxFuture<'_, Result<Pending, Refusal>> {
        Box::pin(async move {
            self.0.run(move |rows| decide(&decision, rows, Still.now())).await?;
            Ok(Pending(0))
        })
    }
    fn adopt(&self, _: String) -> BoxFuture<'_, Result<Report, Refusal>> {
        Box::pin(async { Err(Refusal::Denied) })
    }
    fn site_changed(&self, _: &SiteName, _: SiteChange) {}

    fn rekeyed(&self, _: &SiteName) -> BoxFuture<'_, Pending> {
        Box::pin(async { Pending(0) })
    }
}
