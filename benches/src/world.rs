//! A node in process, as central is: LMDB, barrier, read journal, and a tenant with a box full of secrets.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use holdfast_actors::access_control::logins::{LogIn, PutUser, log_in, login_of, put_user};
use holdfast_actors::access_control::tenants::{CreateTenant, SetupTenant, create_tenant, setup_tenant};
use holdfast_actors::access_control::tokens::mint;
use holdfast_actors::access_control::{Caller, Claims, TenantKind, TokenId, VerifiedTokens, verify};
use holdfast_actors::audit_log::journal::{Journal, Limits};
use holdfast_actors::barrier::Barrier;
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{Entropy, Now};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::secret_store::{
    CreateBox, CurrentSecret, Marks, NewBox, Role, SecretPath, Stamp, create_box, default_categories,
};
use holdfast_actors::shell::{OsClock, OsEntropy};
use holdfast_actors::store::lmdb::{LmdbEngine, Settings};
use holdfast_protocol::ids::{DeploymentId, Realm};
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_rest::node::{Central, Node};
use tokio::runtime::Runtime;

/// Category and slug of the box.
pub const BOX: (&str, &str) = ("app", "stage");
/// The tenant's realm.
pub const REALM: Realm = Realm(2);
const ACTOR: &str = "bench";
/// Secrets written by one transaction while filling the box.
const FILL: usize = 90;

/// The node and what a reader needs.
pub struct World {
    /// As its fronts see it.
    pub node: Node,
    /// Where reads are noted.
    pub journal: Arc<Journal>,
    /// Of alice, who may read the box because of one of her groups.
    pub token: String,
    runtime: Runtime,
}

fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

/// An engine in `folder`.
pub fn engine(folder: &Path) -> LmdbEngine {
    LmdbEngine::open(folder, Settings::default(), Box::new(|why| panic!("the store stopped: {why}")))
        .expect("an empty folder can be opened")
}

/// An unsealed barrier above an engine in `folder`, whose reads are noted in `journal`.
pub fn barrier(folder: &Path, journal: &Arc<Journal>, runtime: &Runtime) -> Barrier {
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let barrier = Barrier::new(Arc::new(engine(&folder.join("store"))), entropy, journal.clone());
    let ring = Keyring::new(DeploymentId([1; 16]), secret(1));
    let node_realm = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
    runtime.block_on(barrier.begin(node_realm, Vec::new())).expect("an empty store takes it");
    barrier.unseal(ring);
    barrier
}

/// A read journal below `folder`.
pub fn journal(folder: &Path) -> Arc<Journal> {
    let journal = Journal::open(&folder.join("reads"), Limits::default(), Arc::new(OsEntropy));
    Arc::new(journal.expect("an empty folder can be opened"))
}

/// A runtime of one thread.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("threads can be had")
}

impl World {
    /// A node with `secrets` secrets, its files below `folder`.
    pub fn new(folder: &Path, secrets: usize) -> Self {
        let runtime = runtime();
        let journal = journal(folder);
        let barrier = barrier(folder, &journal, &runtime);
        let node = Node::new(barrier, journal.clone(), Arc::new(OsClock::start()), Arc::new(Central));
        let mut world = Self { node, journal, token: String::new(), runtime };
        let root = world.tenant();
        world.token = world.reader(&root);
        world.make_box(&root);
        world.fill(secrets);
        world
    }

    /// Where secret `number` is.
    pub fn path(number: usize) -> SecretPath {
        SecretPath::new(vec!["db".to_owned(), format!("password-{number}")]).expect("a path that can be")
    }

    fn change<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> T {
        let now = self.node.now();
        let done = self.runtime.block_on(self.node.barrier().run(move |rows| decide(rows, now)));
        done.expect("nothing speaks against it").0
    }

    fn tenant(&self) -> Caller {
        let name = || "acme".parse().expect("a name that can be");
        let kind = TenantKind::ApplicationOwner;
        let (base, key, token_seed) = (secret(4), secret(5), secret(6));
        let made = CreateTenant { name: name(), kind, base, key, token_seed, by: ACTOR.to_owned() };
        self.change(move |rows, now| create_tenant(&made, rows, now));
        let set_up = SetupTenant {
            name: name(),
            admin_username: "admin".to_owned(),
            password_hash: "nobody logs in by it".to_owned(),
            full_name: None,
            token_id: TokenId([1; 16]),
            by: ACTOR.to_owned(),
        };
        let claims = self.change(move |rows, now| setup_tenant(&set_up, rows, now));
        self.caller(&self.text_of(&claims))
    }

    fn text_of(&self, claims: &Claims) -> String {
        let rows = self.node.barrier().snapshot().expect("it is unsealed");
        mint(&rows, claims).expect("the tenant has a key").to_string()
    }

    fn caller(&self, token: &str) -> Caller {
        let rows = self.node.barrier().snapshot().expect("it is unsealed");
        let verified = VerifiedTokens::default();
        verify(token, &|tenant| Some(Realm(tenant)), &rows, self.node.now(), &verified).expect("a good token")
    }

    fn reader(&self, root: &Caller) -> String {
        let put = PutUser {
            caller: root.clone(),
            username: "alice".to_owned(),
            password_hash: Some("nobody logs in by it".to_owned()),
            full_name: None,
            groups: BTreeSet::from(["devs".to_owned(), "staff".to_owned()]),
            disabled: false,
        };
        self.change(move |rows, now| put_user(&put, rows, now));
        let rows = self.node.barrier().snapshot().expect("it is unsealed");
        let login = login_of(&rows, REALM, "alice").expect("readable").expect("just made");
        drop(rows);
        let log = LogIn {
            realm: REALM,
            username: "alice".to_owned(),
            verified_version: login.version,
            token_id: TokenId([2; 16]),
            ttl_s: 1_000_000,
        };
        let logged_in = self.change(move |rows, now| log_in(&log, rows, now));
        self.text_of(&logged_in.claims)
    }

    fn make_box(&self, root: &Caller) {
        let categories = default_categories(0);
        let new = NewBox {
            name: "Stage".to_owned(),
            category_id: categories[0].id.clone(),
            owner: "owners".to_owned(),
            groups: vec![("devs".to_owned(), Role::Read.id().to_owned())],
            ..NewBox::default()
        };
        let checked = new.check(&categories).expect("a box that can be");
        let (id, permission_ids) = ("id".to_owned(), vec!["permission".to_owned()]);
        let cmd = CreateBox { caller: root.clone(), id, checked, permission_ids };
        self.change(move |rows, now| create_box(&cmd, rows, now));
    }

    fn fill(&self, secrets: usize) {
        for first in (0..secrets).step_by(FILL) {
            let numbers = first..secrets.min(first + FILL);
            self.change(move |_, now| {
                let mut batch = Batch::housekeeping();
                for number in numbers.clone() {
                    batch.put(REALM, &Self::path(number).below(BOX.1), &value(number, now));
                }
                Ok((batch, ()))
            });
        }
    }
}

/// About 200 bytes in one JSON object.
fn value(number: usize, now: Now) -> CurrentSecret {
    let stamp = Stamp { by: "alice".to_owned(), at_us: now.wall_us };
    let data = format!(r#"{{"username":"service-{number}","password":"{}"}}"#, "x".repeat(160));
    CurrentSecret {
        data: SecretBytes::from(data),
        version_id: format!("version-{number}"),
        created: stamp.clone(),
        updated: stamp,
        version: 1,
        marks: Marks::default(),
    }
}
