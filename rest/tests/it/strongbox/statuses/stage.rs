//! Where the calls of the tables happen: a central, or a host in front of the same rows, with things of which some are
//! there and some are not, and people and programs of every kind.
//!
//! | who | tenant | is |
//! |---|---|---|
//! | `root` | `system` | the root token |
//! | `olga`, `rita`, `sven` | `system` | in `admins`, in `read-only`, in `devs` |
//! | `ann`, `ron`, `wim`, `bob` | `acme` | in `admins`, in `read-only`, in `writers`, in `readers` |
//! | `prog` | `acme` | a program of the approle `reader`, which counts as one of `readers` |
//! | `eve` | `bolt` | in `admins` |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::access_control::logins::{LogIn, PutUser, log_in, login_of, put_user, revoke_own};
use holdfast_actors::access_control::tenants::{SetupTenant, set_blocked, setup_tenant};
use holdfast_actors::access_control::{Claims, password};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::site_registry::restored::Restored;
use holdfast_protocol::ids::{HostId, Realm, Revision, Term};
use holdfast_rest::front::Front;
use holdfast_rest::openapi;
use holdfast_rest::peer::Peer;
use serde_json::{Value, json};

use super::super::node::{Central, request, sealkey};
use super::host::AtHost;
use super::table::Call;
use crate::client::{Answer, Kept};

/// The parts of paths, where a call does not say otherwise.
const PARTS: [(&str, &str); 8] = [
    ("tenant", "acme"),
    ("username", "bob"),
    ("site", "udc1"),
    ("host", "udc1-001"),
    ("vault", "shop"),
    ("secret", "db"),
    ("approle", "reader"),
    ("accessor", "$accessor"),
];

/// The password of `lea`, who administers `acme`, too.
const PASSWORD: &str = "pw";
static HASH: LazyLock<String> = LazyLock::new(|| password::hash(PASSWORD.as_bytes(), &[7; 16]).unwrap());

/// The stage, set.
pub(super) struct Stage {
    pub(super) central: Central,
    /// In whose place a host stands, if it is one.
    pub(super) host: Option<AtHost>,
    front: Arc<Front>,
    /// Tokens by who has them.
    pub(super) tokens: BTreeMap<&'static str, String>,
    /// Tokens that hold no more, or never did.
    pub(super) bad_tokens: Vec<(&'static str, String)>,
    /// What the tables can't know.
    words: Vec<(&'static str, String)>,
}

impl Stage {
    pub(super) async fn at_central() -> Self {
        let central = Central::start().await;
        let front = central.front.clone();
        let (tokens, bad_tokens, words) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut stage = Self { central, host: None, front, tokens, bad_tokens, words };
        stage.people().await;
        stage.things().await;
        stage.bad_tokens().await;
        stage
    }

    pub(super) async fn at_host() -> Self {
        let mut stage = Self::at_central().await;
        let host = AtHost::beside(&stage.central);
        stage.front = host.front.clone();
        stage.host = Some(host);
        // One that was made at central is good there.
        let secret_id = stage.mint().await;
        stage.words.retain(|(word, _)| *word != "$secret-id");
        stage.words.push(("$secret-id", secret_id));
        stage
    }

    async fn run<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> T {
        self.central.access.node().barrier().run(decide).await.unwrap().0
    }

    fn text(&self, claims: &Claims) -> String {
        self.central.access.mint(claims).unwrap().to_string()
    }

    async fn people(&mut self) {
        for name in ["acme", "bolt", "blok", "fresh"] {
            self.set(201, "root", Method::POST, "/v1/config/tenants", json!({ "name": name })).await;
        }
        let [acme, bolt] = [self.set_up("acme").await, self.set_up("bolt").await];
        let system = self.central.root.clone();
        self.tokens.insert("root", system.clone());
        for (of, name, group) in [
            (&system, "olga", "admins"),
            (&system, "rita", "read-only"),
            (&system, "sven", "devs"),
            (&acme, "ann", "admins"),
            (&acme, "ron", "read-only"),
            (&acme, "wim", "writers"),
            (&acme, "bob", "readers"),
            (&bolt, "eve", "admins"),
        ] {
            let token = self.central.user_of(of, name, &[group.to_owned()]).await;
            self.tokens.insert(name, token);
        }
        let blok = self.set_up("blok").await;
        let blocked = self.central.user_of(&blok, "ada", &["admins".to_owned()]).await;
        self.bad_tokens.push(("a token of a blocked tenant", blocked));
        let now = self.central.access.now();
        self.run(move |rows| set_blocked(&"blok".parse().unwrap(), true, "olga", rows, now)).await;
    }

    /// Sets a tenant up, with `lea` as its administrator; its root token.
    async fn set_up(&self, name: &str) -> String {
        let node = self.central.access.node();
        let command = SetupTenant {
            name: name.parse().unwrap(),
            admin_username: "lea".to_owned(),
            password_hash: HASH.clone(),
            full_name: None,
            token_id: node.fresh_token_id(),
            by: "olga".to_owned(),
        };
        let now = node.now();
        let claims = self.run(move |rows| setup_tenant(&command, rows, now)).await;
        self.text(&claims)
    }

    async fn things(&mut self) {
        let config = "/v1/config/system/sites";
        for site in ["udc1", "udc2"] {
            let hosts = json!([{ "name": format!("{site}-001") }, { "name": format!("{site}-002") }]);
            self.set(201, "root", Method::POST, config, json!({ "name": site, "hosts": hosts })).await;
        }
        self.central.joins(HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() }).await;
        self.set(200, "root", Method::POST, "/v1/state/system/sites/udc2/site-bundle", json!({})).await;

        let vaults = "/v1/config/strongbox/vaults";
        let access = json!({ "readers": "read", "writers": "write" });
        for (name, distribute) in [
            ("shop", json!({ "sites": ["udc1"] })),
            ("elsewhere", json!({ "sites": ["udc2"] })),
            ("lent", json!({ "sites": ["udc1"], "offline": "1h" })),
        ] {
            let body = json!({ "name": name, "access": access, "distribute": distribute });
            self.set(201, "ann", Method::POST, vaults, body).await;
            let secret = json!({ "name": "db", "data": { "user": "u" } });
            self.set(201, "ann", Method::POST, &format!("{vaults}/{name}/secrets"), secret).await;
        }
        let approles = "/v1/config/strongbox/authentication/approles";
        let reader = json!({
            "name": "reader", "token-policies": ["readers"], "secret-id-minters": ["writers"], "secret-id-num-uses": 3,
            "distribute": { "sites": ["udc1"] },
        });
        let made = self.set(201, "ann", Method::POST, approles, reader).await;
        let trusting = json!({ "name": "trusting", "bind-secret-id": false, "distribute": { "sites": ["udc1"] } });
        self.set(201, "ann", Method::POST, approles, trusting).await;
        let (role_id, secret_id) = (made["role-id"].as_str().unwrap().to_owned(), self.mint().await);
        let login = json!({ "role-id": role_id, "secret-id": secret_id });
        let program = self.set(200, "root", Method::POST, "/v1/approle-login", login).await;
        self.tokens.insert("prog", program["token"].as_str().unwrap().to_owned());
        let about = self.set(200, "bob", Method::GET, "/v1/state/strongbox/token", Value::Null).await;
        self.words = vec![
            ("$accessor", about["accessor"].as_str().unwrap().to_owned()),
            ("$role-id", role_id),
            ("$secret-id", secret_id),
            ("$sealkey", STANDARD.encode(sealkey().expose())),
            ("$remote-sealkey", AtHost::remote_sealkey()),
        ];
    }

    /// A secret-id, where the calls go.
    async fn mint(&self) -> String {
        let path = "/v1/state/strongbox/authentication/approles/reader/generate-secret-id";
        let asked = request(Method::POST, path, None, "application/json", "");
        let answer = self.answer(asked, Some(&self.tokens["ann"]), false).await;
        answer.json()["secret-id"].as_str().unwrap().to_owned()
    }

    /// None of these may do anything.
    async fn bad_tokens(&mut self) {
        let ann = self.tokens["ann"].clone();
        self.bad_tokens.push(("no token of ours", "hft_AAAA".to_owned()));
        self.bad_tokens.push(("a token cut short", ann[..ann.len() - 2].to_owned()));
        let revoked = self.one_more("ann", 3600).await;
        let caller = self.central.access.node().whose(&revoked).unwrap();
        let now = self.central.access.now();
        self.run(move |rows| revoke_own(&caller, rows, now)).await;
        self.bad_tokens.push(("a revoked token", revoked));
        let disabled = self.central.user_of(&ann, "dan", &["admins".to_owned()]).await;
        let caller = self.central.access.node().whose(&ann).unwrap();
        let (username, groups) = ("dan".to_owned(), Default::default());
        let dan = PutUser { caller, username, password_hash: None, full_name: None, groups, disabled: true };
        self.run(move |rows| put_user(&dan, rows, now)).await;
        self.bad_tokens.push(("a token of a disabled user", disabled));
        self.bad_tokens.push(("an expired token", self.one_more("ann", 1).await));
        self.central.clock.0.fetch_add(2, Ordering::SeqCst);
    }

    /// A further token of a user of `acme`.
    async fn one_more(&self, username: &str, ttl_s: u64) -> String {
        let node = self.central.access.node();
        let (realm, now) = (Realm(2), node.now());
        let verified_version = login_of(&node.barrier().snapshot().unwrap(), realm, username).unwrap().unwrap().version;
        let token_id = node.fresh_token_id();
        let command = LogIn { realm, username: username.to_owned(), verified_version, token_id, ttl_s };
        let about = self.run(move |rows| log_in(&command, rows, now)).await;
        self.text(&about.claims)
    }

    /// What sets the stage goes well.
    async fn set(&self, status: u16, who: &str, method: Method, path: &str, body: Value) -> Value {
        let token = self.tokens.get(who).unwrap_or(&self.central.root);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let asked = request(method, path, Some(token), "application/json", &body);
        let answer = self.central.ask_from_afar(asked).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
        serde_json::from_str(&answer.text).unwrap_or_default()
    }

    /// From here on central is a copy that was restored, or is none any more.
    pub(super) async fn stopped(&self, stopped: bool) {
        let by = HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
        let row = Restored {
            stopped: true,
            noticed_us: 0,
            by,
            own: (Term(1), Revision(1)),
            term: Term(1),
            newest: None,
            adopted: None,
        };
        self.run(move |_| {
            let mut batch = Batch::housekeeping();
            match stopped {
                true => batch.put(Realm::NODE, &["restored"], &row),
                false => batch.delete::<Restored>(Realm::NODE, &["restored"]),
            }
            Ok((batch, ()))
        })
        .await;
    }

    /// What prints as a list of the routes.
    pub(super) fn routes(&self) -> String {
        self.host.as_ref().map_or_else(|| format!("{:?}", self.front), |host| host.routes.clone())
    }

    /// The rows' revision.
    pub(super) fn revision(&self) -> Revision {
        self.central.access.node().barrier().engine().snapshot().unwrap().revision()
    }

    /// What would show that something was done: the rows' revision, and what the keeper of the seal was asked.
    pub(super) fn trace(&self) -> (Revision, usize, u32) {
        let of_host = self.host.as_ref().map_or(0, |host| *host.seal.asked.lock().unwrap());
        (self.revision(), self.central.seal.asked.lock().unwrap().len(), of_host)
    }

    /// What a call of a route asks for, without a token.
    pub(super) fn request(&self, method: &str, route: &str, call: &Call) -> Request<Body> {
        let mut path = route.to_owned();
        for (part, usual) in PARTS {
            path = path.replace(&format!("{{{part}}}"), call.get(part).unwrap_or(usual));
        }
        if let Some(query) = call.get("?") {
            path = format!("{path}?{query}");
        }
        let method = method.parse().unwrap();
        let mut asked = request(method, &self.spoken(&path), None, "application/json", &self.spoken(&call.body));
        let known = ["as", "from", "seal", "?"];
        for (name, value) in &call.set {
            if !known.contains(&name.as_str()) && PARTS.iter().all(|(part, _)| part != name) {
                let name: axum::http::HeaderName = name.parse().unwrap();
                asked.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        asked
    }

    /// With what the tables can't know put in.
    fn spoken(&self, text: &str) -> String {
        // The longer name first: one begins as another does.
        let mut words: Vec<_> = self.words.iter().collect();
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        words.iter().fold(text.to_owned(), |text, (word, means)| text.replace(word, means))
    }

    /// What is answered to it.
    pub(super) async fn answer(&self, mut asked: Request<Body>, token: Option<&str>, here: bool) -> Answer {
        if let Some(token) = token {
            let scheme = if token.contains(' ') { token.to_owned() } else { format!("Bearer {token}") };
            asked.headers_mut().insert("authorization", scheme.parse().unwrap());
        }
        let from: [u8; 4] = if here { [127, 0, 0, 1] } else { [192, 0, 2, 7] };
        let peer = Peer::new(SocketAddr::from((from, 5000)), None);
        let (kept, asked) = Kept::of(asked).await;
        let answer = Answer::read(self.front.answer(peer, asked).await).await;
        kept.check(Some(self.node()), &answer);
        answer
    }

    /// Which kind of node it is.
    pub(super) fn node(&self) -> openapi::Node {
        if self.host.is_some() { openapi::Node::Site } else { openapi::Node::Central }
    }
}
