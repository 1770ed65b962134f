//! An initialised central in memory, and requests to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use holdfast_actors::access_control::TokenId;
use holdfast_actors::access_control::logins::{LogIn, PutUser, log_in, login_of, put_user};
use holdfast_actors::access_control::tenants::create_root_token;
use holdfast_actors::audit_log::journal::{Journal, Limits, verify_journal};
use holdfast_actors::audit_log::verify::{Report, verify_store};
use holdfast_actors::barrier::Barrier;
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{Clock, Entropy, Now, draw, draw_secret};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::seal_keeper::{Class, Proof, RequestId, Revealer, SealRefusal, Status};
use holdfast_actors::shamir::Share;
use holdfast_actors::site_registry::certificates::{Certified, Issued};
use holdfast_actors::site_registry::initialise::{Fresh, initialise};
use holdfast_actors::site_registry::restored::{Adopt, Report as RestoredReport, adopt_site, finish, plan, report};
use holdfast_actors::site_registry::sites::state::Live;
use holdfast_actors::site_registry::standing::{Decide, decide};
use holdfast_actors::site_registry::{HostState, Identity, host};
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{CertificateGeneration, CertificateNumber, DeploymentId, HostId, Realm, SiteName};
use holdfast_protocol::pki::LEAF_VALID_S;
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_rest::access::{Access, BoxFuture, RootTokenWatch};
use holdfast_rest::bite::Bite;
use holdfast_rest::front::{Front, FrontOptions};
use holdfast_rest::health::{NodeState, SealState};
use holdfast_rest::metrics::Metrics;
use holdfast_rest::openapi;
use holdfast_rest::peer::{ClientCertificate, Peer};
use holdfast_rest::server::{Running, Server, ServerOptions};
use holdfast_rest::strongbox::{
    FleetControl, LOGIN_TTL_S, Operator, Pending, Revealed, Rotated, SealControl, SealError, SiteChange, StrongboxNode,
    Unsealing, routes_central,
};
use holdfast_rest::tls::{ServerIdentity, server_config};
use serde_json::Value;

use crate::client::{self, Answer, Credentials, Kept, client_config};

/// A central that serves.
pub(super) struct Central {
    pub(super) access: Arc<Access>,
    pub(super) seal: Arc<FakeSeal>,
    pub(super) fleet: Arc<FakeFleet>,
    pub(super) hosts: Arc<FakeHosts>,
    pub(super) front: Arc<Front>,
    pub(super) clock: Arc<Stepped>,
    /// Of the tenant `system`.
    pub(super) root: String,
    pub(super) admin: Credentials,
    pub(super) journal: Arc<Journal>,
    running: Running,
    folder: tempfile::TempDir,
}

/// The secret that an uninitialised central would have printed.
pub(super) const BOOTSTRAP: &str = "first-light";

impl Central {
    pub(super) async fn start() -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::open(folder.path(), Limits::default(), entropy.clone()).unwrap());
        let barrier = Barrier::new(Arc::new(MemoryEngine::new()), entropy, journal.clone());
        let clock = Arc::new(Stepped::default());
        let root = begin(&barrier, &clock).await;
        let seal = Arc::new(FakeSeal::default());
        let hosts = Arc::new(FakeHosts::default());
        let access = Access::at_central(barrier.clone(), journal.clone(), clock.clone(), seal.clone(), hosts.clone());
        let access = Arc::new(access);
        let fleet = Arc::new(FakeFleet {
            barrier,
            clock: clock.clone(),
            live: Mutex::default(),
            left: Mutex::default(),
            changed: Mutex::default(),
        });
        let admin = Credentials::new("admin", 9);
        let identity = ClientCertificate::from_chain(std::iter::once(admin.certificate.as_slice())).unwrap().identity;
        let node = StrongboxNode {
            access: access.clone(),
            seal: seal.clone(),
            fleet: fleet.clone(),
            bootstrap_secret: Arc::new(|| Some(SecretBytes::from(BOOTSTRAP.to_owned()))),
            admin_identities: BTreeSet::from([identity]),
            login_ttl_s: LOGIN_TTL_S,
            quic_addresses: vec!["central.example:7443".to_owned()],
            quote_interval_ms: Some(2000),
        };
        let state = Arc::new(Sealable(access.node().barrier().clone()));
        let metrics = Arc::new(Metrics::new());
        let front = Front::new(routes_central(Arc::new(node)), state, metrics, FrontOptions::default());
        let running = serve(front.clone()).await;
        Self { access, seal, fleet, hosts, front, clock, root, admin, journal, running, folder }
    }

    /// One request over TLS, from this machine, answered in JSON.
    pub(super) async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: &str) -> Answer {
        self.ask_as(None, method, path, token, body).await
    }

    /// The same with the admin's certificate.
    pub(super) async fn ask_as(
        &self,
        credentials: Option<&Credentials>,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> Answer {
        let config = client_config(credentials, "http/1.1");
        let request = request(method, path, token, "application/json", body);
        let (kept, request) = Kept::of(request).await;
        let answer = client::send(self.running.local_addr(), config, request).await.unwrap();
        kept.check(Some(openapi::Node::Central), &answer);
        answer
    }

    /// As the root of `system`.
    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(Method::POST, path, Some(&self.root), body).await
    }

    /// As the root of `system`.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, Some(&self.root), "").await
    }

    /// One request from another machine.
    pub(super) async fn ask_from_afar(&self, request: Request<Body>) -> Answer {
        let peer = Peer::new(SocketAddr::from(([192, 0, 2, 7], 5000)), None);
        let (kept, request) = Kept::of(request).await;
        let answer = Answer::read(self.front.answer(peer, request).await).await;
        kept.check(Some(openapi::Node::Central), &answer);
        answer
    }

    /// A user of `system` (or of the tenant of `by`) in these groups: its token.
    pub(super) async fn user(&self, by: &str, tenant: &str, name: &str, groups: &[&str]) -> String {
        let body = serde_json::json!({ "username": name, "password": "pw", "groups": groups }).to_string();
        let made = self.ask(Method::POST, "/v1/config/strongbox/authentication/userpass", Some(by), &body).await;
        assert_eq!(made.status.as_u16(), 201, "{}", made.text);
        self.log_in(tenant, name, "pw").await
    }

    pub(super) async fn log_in(&self, tenant: &str, name: &str, password: &str) -> String {
        let body = serde_json::json!({ "username": name, "password": password, "tenant": tenant }).to_string();
        let answer = self.ask(Method::POST, "/v1/login", None, &body).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// A set-up tenant's admin: its token.
    pub(super) async fn tenant(&self, name: &str) -> String {
        let made = self.post("/v1/config/tenants", &format!("{{\"name\": \"{name}\"}}")).await;
        assert_eq!(made.status.as_u16(), 201, "{}", made.text);
        let body = format!("{{\"name\": \"{name}\", \"admin-username\": \"ann\", \"admin-password\": \"pw-{name}\"}}");
        let set_up = self.post("/v1/state/strongbox/system/setup-tenant", &body).await;
        assert_eq!(set_up.status.as_u16(), 200, "{}", set_up.text);
        let login = format!("{{\"username\": \"ann\", \"password\": \"pw-{name}\", \"tenant\": \"{name}\"}}");
        let answer = self.ask(Method::POST, "/v1/login", None, &login).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// As if a host had joined: it has certificates.
    pub(super) async fn joins(&self, whom: HostId) {
        let now = self.clock.now();
        let issued = |fill| Issued {
            generation: CertificateGeneration(1),
            number: CertificateNumber(1),
            fingerprint: [fill; 32],
            begins_s: now.wall_s(),
            ends_s: now.wall_s() + LEAF_VALID_S,
        };
        let key = SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(8)));
        let certified = |fill| Certified { key: key.public().clone(), held: issued(fill), next: None };
        let (ek_public, ak_public, dist, api) = (vec![1], vec![2], certified(1), certified(2));
        let identity = Identity { ek_public, ak_public, dist, api };
        let joined = move |rows: &dyn Rows| {
            let mut entry = host(rows, &whom)?.value;
            (entry.state, entry.generation) = (HostState::Joined, entry.generation.next());
            entry.identity = Some(identity.clone());
            let mut batch = Batch::housekeeping();
            batch.put(Realm::NODE, &[whom.site.as_str(), whom.host.as_str()], &entry);
            Ok((batch, ()))
        };
        self.access.node().barrier().run(joined).await.unwrap();
    }

    /// A user of the admin's tenant: its token.
    pub(super) async fn user_of(&self, admin: &str, name: &str, groups: &[String]) -> String {
        let node = self.access.node();
        let caller = node.whose(admin).unwrap();
        let (realm, now) = (caller.realm, node.now());
        let (username, groups) = (name.to_owned(), groups.iter().cloned().collect());
        let password_hash = Some("nobody logs in by it".to_owned());
        let cmd = PutUser { caller, username, password_hash, full_name: None, groups, disabled: false };
        node.barrier().run(move |rows| put_user(&cmd, rows, now)).await.unwrap();
        let version = login_of(&node.barrier().snapshot().unwrap(), realm, name).unwrap().unwrap().version;
        let token_id = node.fresh_token_id();
        let cmd = LogIn { realm, username: name.to_owned(), verified_version: version, token_id, ttl_s: 3600 };
        let (about, _) = node.barrier().run(move |rows| log_in(&cmd, rows, now)).await.unwrap();
        self.access.mint(&about.claims).unwrap().to_string()
    }

    /// Lines of changes, and lines of reads and refusals, so far.
    pub(super) fn lines(&self) -> (u64, u64) {
        let view = self.access.node().barrier().engine().snapshot().unwrap();
        let changes = verify_store(&*view).unwrap();
        assert_eq!(changes.first_break, None);
        let mut journal = Report::default();
        verify_journal(self.folder.path(), &mut journal).unwrap();
        assert_eq!(journal.first_break, None);
        (changes.changes, journal.reads)
    }

    /// Whatever is asked is refused with `status`, has exactly one line, and changes nothing.
    pub(super) async fn refuses(
        &self,
        status: u16,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> Answer {
        let before = self.lines();
        let answer = self.ask(method, path, token, body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text);
        let message = answer.json()["errors"][0]["error-message"].as_str().unwrap().to_owned();
        assert!(!message.is_empty());
        assert_eq!(self.lines(), (before.0, before.1 + 1), "{path} {body}");
        answer
    }
}

pub(super) fn request(method: Method, path: &str, token: Option<&str>, accept: &str, body: &str) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path).header("host", "localhost").header("accept", accept);
    if let Some(token) = token {
        builder = builder.header("authorization", format!("Bearer {token}"));
    }
    builder.body(Body::from(body.to_owned())).unwrap()
}

/// A YAML answer's value.
pub(super) fn yaml(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), "application/yaml");
    serde_saphyr::from_str(&answer.text).unwrap()
}

async fn serve(front: Arc<Front>) -> Running {
    let shown = Credentials::new("server", 1);
    let identity = Arc::new(ServerIdentity::new(vec![shown.certificate], &shown.key).unwrap());
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bound = Server::bind(any_port, Some(server_config(identity)), front, ServerOptions::default()).await.unwrap();
    bound.start().await.unwrap()
}

/// Initialises; gives the root token of `system`.
async fn begin(barrier: &Barrier, clock: &Arc<Stepped>) -> String {
    let entropy = barrier.entropy().clone();
    let deployment = DeploymentId([7; 16]);
    let ring = Keyring::new(deployment, draw_secret(&*entropy));
    let keys = RealmKeys::new(draw_secret(&*entropy), draw_secret(&*entropy));
    barrier.begin(barrier.first_realm(&ring, keys), Vec::new()).await.unwrap();
    barrier.unseal(ring);
    let fresh = Fresh::draw(deployment, &*entropy);
    let now = clock.now();
    barrier.run(move |rows| initialise(&fresh, rows, now)).await.unwrap();
    let id = TokenId(draw(&*entropy));
    let (claims, _) = barrier.run(move |rows| create_root_token(Realm(1), id, "central", rows, now)).await.unwrap();
    holdfast_actors::access_control::tokens::mint(&barrier.snapshot().unwrap(), &claims).unwrap().to_string()
}

pub(super) struct Sealable(pub(super) Barrier);

impl NodeState for Sealable {
    fn seal_state(&self) -> SealState {
        if self.0.is_sealed() { SealState::Sealed } else { SealState::Unsealed }
    }
}

/// Never the same bytes twice.
#[derive(Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, into: &mut [u8]) {
        for chunk in into.chunks_mut(32) {
            let number = self.0.fetch_add(1, Ordering::SeqCst);
            chunk.copy_from_slice(&sha256(&[&number.to_be_bytes()])[..chunk.len()]);
        }
    }
}

/// Time that a test moves.
#[derive(Default)]
pub(super) struct Stepped(pub(super) AtomicU64);

impl Clock for Stepped {
    fn now(&self) -> Now {
        let passed = self.0.load(Ordering::SeqCst);
        Now {
            mono: Duration::from_secs(passed),
            wall_us: 1_800_000_000_000_000 + i64::try_from(passed).unwrap() * 1_000_000,
        }
    }
}

/// Says what it is told to, and remembers what it was asked.
#[derive(Default)]
pub(super) struct FakeSeal {
    pub(super) refuse: Mutex<Option<SealRefusal>>,
    pub(super) progress: Mutex<Option<usize>>,
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) sent: Mutex<Vec<RequestId>>,
    pub(super) root_used: AtomicU64,
}

impl FakeSeal {
    fn ask(&self, what: String) -> Result<(), SealError> {
        self.asked.lock().unwrap().push(what);
        match self.refuse.lock().unwrap().clone() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(()),
        }
    }

    pub(super) fn refuses(&self, refusal: SealRefusal) {
        *self.refuse.lock().unwrap() = Some(refusal);
    }

    pub(super) fn last_asked(&self) -> String {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

pub(super) fn sealkey() -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(0x5e))
}

fn shares() -> Vec<Share> {
    (1..=5).map(|x| Share::new(x, Secret::fill_with(|bytes| bytes.fill(x))).unwrap()).collect()
}

impl SealControl for FakeSeal {
    fn status(&self) -> Status {
        let held = self.progress.lock().unwrap().unwrap_or(0);
        Status { initialised: true, sealed: false, held, threshold: 3, shares: 5 }
    }
    fn reveal(&self, by: Option<Revealer>) -> BoxFuture<'_, Result<Revealed, SealError>> {
        Box::pin(async move {
            self.ask(format!("reveal {by:?}"))?;
            let root_token = "hft_root".to_owned().into();
            let accessor = "3be91214-176c-4b4d-bae7-4c432f342661".to_owned();
            Ok(Revealed {
                sealkey: sealkey(),
                shares: shares(),
                root_token,
                accessor,
                created_us: 1_800_000_000_000_000,
            })
        })
    }
    fn unseal(&self, class: Class, proof: Proof) -> BoxFuture<'_, Result<Unsealing, SealError>> {
        Box::pin(async move {
            let proof = match proof {
                Proof::SealKey(key) => format!("key {}", key.ct_eq(&sealkey())),
                Proof::Shares(shares) => format!("shares {}", shares.len()),
            };
            self.ask(format!("unseal {} {proof}", class.as_str()))?;
            Ok(match *self.progress.lock().unwrap() {
                Some(held) => Unsealing::MoreShares { held, threshold: 3 },
                None => Unsealing::Unsealed,
            })
        })
    }
    fn prove(&self, class: Class, proof: Proof) -> BoxFuture<'_, Result<(), SealError>> {
        Box::pin(async move {
            let proof = match proof {
                Proof::SealKey(key) => format!("key {}", key.ct_eq(&sealkey())),
                Proof::Shares(shares) => format!("shares {}", shares.len()),
            };
            self.ask(format!("prove {} {proof}", class.as_str()))
        })
    }
    fn seal(&self, by: Operator) -> BoxFuture<'_, Result<(), SealError>> {
        Box::pin(async move { self.ask(format!("seal {} {}", by.class.as_str(), by.name)) })
    }
    fn rotate_seal(&self, by: Operator) -> BoxFuture<'_, Result<Rotated, SealError>> {
        Box::pin(async move {
            self.ask(format!("rotate {} {}", by.class.as_str(), by.name))?;
            Ok(Rotated { rotation: RequestId(4), sealkey: sealkey(), shares: shares() })
        })
    }
    fn reply_sent(&self, rotation: RequestId) {
        self.sent.lock().unwrap().push(rotation);
    }
}

impl RootTokenWatch for FakeSeal {
    fn root_token_used(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        self.root_used.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

/// Remembers what had to bite, and says that so many hosts are late.
#[derive(Default)]
pub(super) struct FakeHosts {
    pub(super) bitten: Mutex<Vec<Realm>>,
    pub(super) late: AtomicU64,
}

impl Bite for FakeHosts {
    fn bite(&self, realm: Realm) -> BoxFuture<'_, Pending> {
        self.bitten.lock().unwrap().push(realm);
        Box::pin(async { Pending(self.late.load(Ordering::SeqCst)) })
    }
}

/// Commits decisions for real; has no connections.
pub(super) struct FakeFleet {
    barrier: Barrier,
    clock: Arc<Stepped>,
    pub(super) live: Mutex<BTreeMap<HostId, Live>>,
    pub(super) left: Mutex<u64>,
    pub(super) changed: Mutex<Vec<(String, SiteChange)>>,
}

impl FleetControl for FakeFleet {
    fn live(&self) -> BTreeMap<HostId, Live> {
        self.live.lock().unwrap().clone()
    }
    fn decide(&self, decision: Decide) -> BoxFuture<'_, Result<Pending, Refusal>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.barrier.run(move |rows| decide(&decision, rows, now)).await?;
            Ok(Pending(*self.left.lock().unwrap()))
        })
    }
    fn site_changed(&self, site: &SiteName, change: SiteChange) {
        self.changed.lock().unwrap().push((site.to_string(), change));
    }
    fn rekeyed(&self, _: &SiteName) -> BoxFuture<'_, Pending> {
        Box::pin(async { Pending(*self.left.lock().unwrap()) })
    }
    fn adopt(&self, by: String) -> BoxFuture<'_, Result<RestoredReport, Refusal>> {
        Box::pin(async move {
            let (barrier, now) = (&self.barrier, self.clock.now());
            let plan = plan(&barrier.snapshot()?)?;
            let seed = Secret::fill_with(|into| into.fill(7));
            let cmd = Arc::new(Adopt { term: plan.term, incarnation: [7; 16], seed, by });
            for name in plan.sites {
                let cmd = cmd.clone();
                barrier.run(move |rows| adopt_site(&cmd, &name, rows, now)).await?;
            }
            barrier.run(move |rows| finish(&cmd, rows, now)).await?;
            report(&barrier.snapshot()?)?.ok_or(Refusal::Corrupt)
        })
    }
}
