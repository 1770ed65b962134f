//! Another tenant, and whoever has a credential of any kind, against what a tenant has at central: through every route,
//! by the router's own list of them. What is asked about a thing that exists is answered as if it did not, nothing of
//! the tenant is named, and nothing of it changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::access_control::identities::set_admin;
use holdfast_actors::access_control::logins::{LogIn, PutUser, log_in, login_of, put_user};
use holdfast_actors::access_control::tokens::{mint, text_of};
use holdfast_actors::access_control::{Authority, Claims, TokenId, TokenKey, TokenKind, VerifiedTokens, verify};
use holdfast_actors::distribute::Distribute;
use holdfast_actors::key_store::{CreateKey, FreshKey, create_key};
use holdfast_actors::rows::ReadRows;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::Identity;
use holdfast_protocol::pki::issue::operator_client;
use holdfast_protocol::pki::{Serial, Terms, Validity};
use holdfast_rest::dispatch::Dialect;
use holdfast_rest::peer::{ClientCertificate, Peer};
use holdfast_testbed::APP;
use holdfast_testbed::figures::Figures;
use holdfast_testbed::routes::routes;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::quic::{Central, Host, first_of, secret};
use crate::world::SEAL;

/// What the attacked tenant calls its things; none of it may come out.
const NAMES: [&str; 6] = ["acme", "alpha-vault", "alpha-role", "alpha-key", "dbpass", "swordfish"];
const BOX: &str = "/v2/safe-deposit-box";
const VAULTS: &str = "/v1/config/strongbox/vaults";
const APPROLES: &str = "/v1/config/strongbox/authentication/approles";
const APPROLE_STATE: &str = "/v1/state/strongbox/authentication/approles";

/// An end of certificates that is not lived to see: the year 9999.
const LATE: i64 = 253_402_300_799;

/// Who asks, and by what.
struct Credential {
    name: &'static str,
    token: Option<String>,
    certificate: Option<Vec<u8>>,
}

/// What is asked.
#[derive(Clone)]
struct Asked {
    path: String,
    body: String,
    basic: Option<String>,
}

fn ask(path: impl Into<String>, body: Value) -> Asked {
    Asked { path: path.into(), body: body.to_string(), basic: None }
}

/// What a route is tried with.
enum Trial {
    /// The same of a thing that exists and of one that does not; what tells them apart in the answers is named.
    Pair { there: Asked, absent: Asked, words: [String; 2] },
    /// It is not about a thing of a tenant: whatever is answered names nothing of others.
    Alone(Asked),
}

/// An answer without what differs from one to the next by itself.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    text: String,
}

struct World {
    central: Central,
    /// The attacked tenant's key space and its administrator's token.
    acme: (Realm, String),
    box_id: String,
    /// Of its administrator's token.
    accessor: String,
    /// A program of the attacked tenant: its role-id and a secret-id.
    program: [String; 2],
    credentials: Vec<Credential>,
}

impl World {
    async fn start() -> Self {
        let central = Central::unsealed().await;
        let mut realms = BTreeMap::new();
        for name in ["acme", "bolt"] {
            central.ask("POST", "/v1/config/tenants", Some(json!({ "name": name }))).await;
            let setup = json!({ "name": name, "admin-username": "ann", "admin-password": format!("pw-{name}") });
            let root = central.ask("POST", &format!("{SEAL}/setup-tenant"), Some(setup)).await["token"].clone();
            realms.insert(name, root.as_str().unwrap().to_owned());
        }
        let host = Host::join_as(&central, first_of("udc1"), 1).await;
        let (acme, [box_id, accessor]) = ((Realm(2), String::new()), [String::new(), String::new()]);
        let (program, credentials) = (Default::default(), vec![]);
        let mut world = Self { central, acme, box_id, accessor, program, credentials };
        world.acme.1 = world.token(Realm(2), "ann", 3600).await;
        world.add_user(Realm(2), &realms["acme"], "zoe").await;
        world.fill().await;
        world.credentials = world.attackers(&realms["bolt"], &host).await;
        world
    }

    /// What is attacked.
    async fn fill(&mut self) {
        let owner = self.acme();
        let body =
            json!({ "name": "alpha-vault", "category_id": APP, "owner": "admins", "distribute": { "to": "all" } });
        let made = self.answer("POST", &ask(BOX, body), &owner).await;
        assert_eq!(made.status, 201, "{made:?}");
        let member = |answer: &Answer, name: &str| {
            serde_json::from_str::<Value>(&answer.text).unwrap()[name].as_str().unwrap().to_owned()
        };
        self.box_id = member(&made, "id");
        let own = self.answer("GET", &ask("/v1/state/strongbox/token", Value::Null), &owner).await;
        self.accessor = member(&own, "accessor");
        for value in ["first swordfish", "second swordfish"] {
            let write = ask("/v1/secret/app/alpha-vault/dbpass", json!({ "value": value }));
            assert_eq!(self.answer("POST", &write, &owner).await.status, 204);
        }
        let role =
            json!({ "name": "alpha-role", "token-policies": ["admins-of-vaults"], "distribute": { "to": "all" } });
        let made = self.answer("POST", &ask(APPROLES, role), &owner).await;
        assert_eq!(made.status, 201, "{made:?}");
        let mint = format!("{APPROLE_STATE}/alpha-role/generate-secret-id");
        let minted = self.answer("POST", &ask(mint, Value::Null), &owner).await;
        let member = |answer: &Answer, name: &str| {
            serde_json::from_str::<Value>(&answer.text).unwrap()[name].as_str().unwrap().to_owned()
        };
        self.program = [member(&made, "role-id"), member(&minted, "secret-id")];
        self.add_key().await;
    }

    /// A key of the attacked tenant, that its own client uses.
    async fn add_key(&self) {
        let node = self.central.running().node();
        let (realm, now) = (self.acme.0, node.now());
        let by = || Authority::Node { realm, part: "test" };
        let (name, fresh) = ("alpha-key".parse().unwrap(), FreshKey::draw(&*node.entropy));
        let cmd = CreateKey { by: by(), name, cipher: Cipher::Aes256Gcm, fresh, distribute: Distribute::default() };
        node.barrier.run(move |rows| create_key(&cmd, rows, now)).await.unwrap();
        self.add_client(realm, &operator(79, LATE)).await;
    }

    /// Who holds the certificate may do all with a tenant's keys.
    async fn add_client(&self, realm: Realm, certificate: &[u8]) {
        let node = self.central.running().node();
        let (now, identity) = (node.now(), Identity::of_certificate(certificate).unwrap());
        let by = Authority::Node { realm, part: "test" };
        node.barrier.run(move |rows| set_admin(&by, identity, rows, now)).await.unwrap();
    }

    fn acme(&self) -> Credential {
        Credential { name: "its own", token: Some(self.acme.1.clone()), certificate: None }
    }

    async fn attackers(&self, root: &str, host: &Host) -> Vec<Credential> {
        const BOLT: Realm = Realm(3);
        self.add_user(BOLT, root, "bob").await;
        let admin = self.token(BOLT, "ann", 3600).await;
        let revoked = self.token(BOLT, "ann", 3600).await;
        let whose = |name, token: Option<&str>, certificate: Option<&[u8]>| Credential {
            name,
            token: token.map(str::to_owned),
            certificate: certificate.map(<[u8]>::to_vec),
        };
        let program = self.program_of(root).await;
        let reader = self.reader_of(BOLT, root).await;
        let logout = ask("/v1/auth", Value::Null);
        let gone = whose("a revoked token", Some(&revoked), None);
        assert_eq!(self.answer("DELETE", &logout, &gone).await.status, 204);
        let stranger = operator(77, LATE);
        let client = operator(80, LATE);
        self.add_client(BOLT, &client).await;
        let expired = operator(78, 1_000_000_000);
        let leaf = host.enrolled.dist_chain[0].as_slice();
        vec![
            whose("nothing", None, None),
            whose("an administrator's token of another tenant", Some(&admin), None),
            whose("a root token of another tenant", Some(root), None),
            whose("a user's token of another tenant", Some(&self.token(BOLT, "bob", 3600).await), None),
            whose("a reader's token of another tenant", Some(&reader), None),
            whose("a program's token of another tenant, with a group of the same name", Some(&program), None),
            whose("a token that has ended", Some(&self.token(BOLT, "bob", 0).await), None),
            gone,
            whose("a token for the tenant by another's key", Some(&self.forged(BOLT)), None),
            whose("a token cut short", Some(&self.acme.1[..self.acme.1.len() - 2]), None),
            whose("a stranger's certificate", None, Some(&stranger)),
            whose("a certificate that has ended", None, Some(&expired)),
            whose("an administrator's of another tenant's keys", None, Some(&client)),
            whose("a site host's certificate", None, Some(leaf)),
            whose("a site host's certificate and another's token", Some(&admin), Some(leaf)),
        ]
    }

    /// A program of another tenant that counts as one of a group which has the same name as one of the attacked.
    async fn program_of(&self, root: &str) -> String {
        let owner = Credential { name: "its own", token: Some(root.to_owned()), certificate: None };
        let member = |answer: &Answer, name: &str| {
            serde_json::from_str::<Value>(&answer.text).unwrap()[name].as_str().unwrap().to_owned()
        };
        let role = json!({ "name": "bolts-role", "token-policies": ["admins-of-vaults"] });
        let made = self.answer("POST", &ask(APPROLES, role), &owner).await;
        let mint = format!("{APPROLE_STATE}/bolts-role/generate-secret-id");
        let minted = self.answer("POST", &ask(mint, Value::Null), &owner).await;
        let login = json!({ "role-id": member(&made, "role-id"), "secret-id": member(&minted, "secret-id") });
        member(&self.answer("POST", &ask("/v1/approle-login", login), &owner).await, "token")
    }

    async fn reader_of(&self, realm: Realm, root: &str) -> String {
        self.add_user_in(realm, root, ("rob", "read-only")).await;
        self.token(realm, "rob", 3600).await
    }

    async fn add_user(&self, realm: Realm, root: &str, name: &str) {
        self.add_user_in(realm, root, (name, "engineers")).await;
    }

    async fn add_user_in(&self, realm: Realm, root: &str, (name, group): (&str, &str)) {
        let node = self.central.running().node();
        let (rows, now) = (node.barrier.snapshot().unwrap(), node.now());
        let caller = verify(root, &|number| Some(Realm(number)), &rows, now, &VerifiedTokens::default()).unwrap();
        assert_eq!(caller.realm, realm);
        drop(rows);
        let (username, password_hash) = (name.to_owned(), Some("nobody logs in by it".to_owned()));
        let groups = [group.to_owned()].into();
        let cmd = PutUser { caller, username, password_hash, full_name: None, groups, disabled: false };
        node.barrier.run(move |rows| put_user(&cmd, rows, now)).await.unwrap();
    }

    /// A token of a user's, as a login gives it.
    async fn token(&self, realm: Realm, name: &str, ttl_s: u64) -> String {
        let node = self.central.running().node();
        let version = login_of(&node.barrier.snapshot().unwrap(), realm, name).unwrap().unwrap().version;
        let token_id = TokenId(holdfast_actors::ports::draw(&*node.entropy));
        let cmd = LogIn { realm, username: name.to_owned(), verified_version: version, token_id, ttl_s };
        let now = node.now();
        let (logged_in, _) = node.barrier.run(move |rows| log_in(&cmd, rows, now)).await.unwrap();
        mint(&node.barrier.snapshot().unwrap(), &logged_in.claims).unwrap().to_string()
    }

    /// Says that it is of the attacked tenant and its administrator's, signed by the key of `realm`.
    fn forged(&self, realm: Realm) -> String {
        let rows = self.central.running().node().barrier.snapshot().unwrap();
        let key = rows.list::<TokenKey>(realm, &[]).unwrap().remove(0).value;
        let claims = Claims::new(self.acme.0, key.key_id, TokenId([5; 16]), "ann".to_owned(), TokenKind::Root);
        text_of(&SigningKey::from_seed(&key.seed), &claims).to_string()
    }

    async fn answer(&self, method: &str, asked: &Asked, by: &Credential) -> Answer {
        let mut request = Request::builder().method(method).uri(&asked.path).header("accept", "application/json");
        if let Some(token) = &by.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let (Some(basic), None) = (&asked.basic, &by.token) {
            request = request.header("authorization", format!("Basic {}", STANDARD.encode(basic)));
        }
        let certificate = by.certificate.as_deref();
        let certificate = certificate.and_then(|leaf| ClientCertificate::from_chain(std::iter::once(leaf)));
        // From another machine: what this one may, it may as its operator.
        let peer = Peer::new(SocketAddr::from(([192, 0, 2, 7], 4711)), certificate);
        let body = Body::from(if asked.body == "null" { String::new() } else { asked.body.clone() });
        let response = self.central.running().front().answer(peer, request.body(body).unwrap()).await;
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let id = parts.headers["x-request-id"].to_str().unwrap().to_owned();
        Answer { status: parts.status.as_u16(), headers: told(&parts.headers, &id), text: text.replace(&id, "ID") }
    }

    /// What each route is tried with; `None` for one that nobody has thought of.
    fn trial(&self, path: &str) -> Option<Trial> {
        let site = |rest: &str| {
            let at = |site: &str| ask(path.replace("{site}", site), json!({ "host": format!("{site}-001") }));
            assert!(path.ends_with(rest));
            Trial::Pair { there: at("udc1"), absent: at("udc9"), words: ["udc1".into(), "udc9".into()] }
        };
        let at_box = |rest: &str| {
            let absent = "00000000-0000-4000-8000-000000000000";
            let at = |id: &str| ask(format!("{BOX}/{id}{rest}"), Value::Null);
            Trial::Pair { there: at(&self.box_id), absent: at(absent), words: [self.box_id.clone(), absent.into()] }
        };
        let login = |user: &str| {
            let body = json!({ "username": user, "password": "a guess", "tenant": "acme" });
            Asked { basic: Some(format!("acme/{user}:a guess")), ..ask(path, body) }
        };
        let tenant = |name: &str| json!({ "name": name, "admin-username": "eve", "admin-password": "pw-of-eve" });
        let words = |there: &str, absent: &str| [there.to_owned(), absent.to_owned()];
        Some(match path {
            "/v1/secret/{*path}" => {
                let at = |name: &str| ask(format!("/v1/secret/app/{name}/dbpass"), json!({ "value": "mine" }));
                let words = words("alpha-vault", "omega-vault");
                Trial::Pair { there: at("alpha-vault"), absent: at("omega-vault"), words }
            }
            "/v2/safe-deposit-box/{id}" => at_box(""),
            "/v2/safe-deposit-box/{id}/" => at_box("/"),
            "/v1/login" | "/v2/auth/user" => {
                Trial::Pair { there: login("ann"), absent: login("zed"), words: words("ann", "zed") }
            }
            "/v1/config/tenants/{tenant}" => {
                let at = |name: &str| ask(format!("/v1/config/tenants/{name}"), Value::Null);
                Trial::Pair { there: at("acme"), absent: at("xxxx"), words: words("acme", "xxxx") }
            }
            "/v1/state/strongbox/system/block-tenant" | "/v1/state/strongbox/system/unblock-tenant" => {
                let at = |name: &str| ask(path, json!({ "tenant": name }));
                Trial::Pair { there: at("acme"), absent: at("xxxx"), words: words("acme", "xxxx") }
            }
            "/v1/config/strongbox/authentication/userpass/{username}" => {
                let at = |name: &str| ask(path.replace("{username}", name), json!({ "password": "a-guess" }));
                Trial::Pair { there: at("zoe"), absent: at("zed"), words: words("zoe", "zed") }
            }
            "/v1/config/strongbox/authentication/userpass" => {
                let at = |name: &str| ask(path, json!({ "username": name, "password": "a-guess" }));
                Trial::Pair { there: at("zoe"), absent: at("zed"), words: words("zoe", "zed") }
            }
            "/v1/state/strongbox/token/accessors/{accessor}" => {
                let absent = "00000000-0000-4000-8000-000000000000";
                let at = |id: &str| ask(path.replace("{accessor}", id), Value::Null);
                Trial::Pair { there: at(&self.accessor), absent: at(absent), words: words(&self.accessor, absent) }
            }
            "/v1/state/strongbox/token/revoke" => {
                let absent = "00000000-0000-4000-8000-000000000000";
                let at = |id: &str| ask(path, json!({ "accessor": id }));
                Trial::Pair { there: at(&self.accessor), absent: at(absent), words: words(&self.accessor, absent) }
            }
            "/v1/state/strongbox/system/create-root-token" => Trial::Alone(ask(path, json!({ "sealkey": "a guess" }))),
            "/v1/config/tenants" | "/v1/state/strongbox/system/setup-tenant" => {
                let at = |name: &str| ask(path, tenant(name));
                Trial::Pair { there: at("acme"), absent: at("xxxx"), words: words("acme", "xxxx") }
            }
            // A vault, a secret in it and an approle may be called as another tenant's are.
            _ if path.starts_with(VAULTS) || path.starts_with("/v1/state/strongbox/vaults") => {
                let at = |name: &str| {
                    let path = path.replace("{vault}", name).replace("{secret}", "dbpass");
                    let in_it = path.ends_with("secrets") || path.ends_with("dbpass");
                    let (secret, vault) =
                        (json!({ "name": "dbpass", "data": { "a": "mine" } }), json!({ "name": name }));
                    ask(path, if in_it { secret } else { vault })
                };
                let words = words("alpha-vault", "omega-vault");
                Trial::Pair { there: at("alpha-vault"), absent: at("omega-vault"), words }
            }
            _ if path.starts_with(APPROLES) => {
                let at = |name: &str| ask(path.replace("{approle}", name), json!({ "name": name }));
                Trial::Pair {
                    there: at("alpha-role"),
                    absent: at("omega-role"),
                    words: words("alpha-role", "omega-role"),
                }
            }
            _ if path.starts_with(APPROLE_STATE) => {
                let at = |name: &str| ask(path.replace("{approle}", name), Value::Null);
                Trial::Pair {
                    there: at("alpha-role"),
                    absent: at("omega-role"),
                    words: words("alpha-role", "omega-role"),
                }
            }
            "/v1/approle-login" => {
                let [role_id, secret_id] = &self.program;
                let at =
                    |role_id: &str, secret_id: &str| ask(path, json!({ "role-id": role_id, "secret-id": secret_id }));
                let (there, absent) = (at(role_id, &secret_id[..secret_id.len() - 1]), at("hfr_none", secret_id));
                Trial::Pair { there, absent, words: words(role_id, "hfr_none") }
            }
            // A box may be called as another tenant's is.
            "/v2/safe-deposit-box" | "/v2/safe-deposit-box/" => {
                let body = |name: &str| json!({ "name": name, "category_id": APP, "owner": "admins" });
                let at = |name: &str| ask(path, body(name));
                Trial::Pair {
                    there: at("alpha-vault"),
                    absent: at("omega-vault"),
                    words: words("alpha-vault", "omega-vault"),
                }
            }
            "/v1/category/{id}" | "/v1/role/{id}" => Trial::Alone(ask(path.replace("{id}", APP), Value::Null)),
            "/v1/config/system/sites" | "/v1/state/system/sites" => {
                let at = |name: &str| ask(path, json!({ "name": name }));
                Trial::Pair { there: at("udc1"), absent: at("udc9"), words: words("udc1", "udc9") }
            }
            "/v1/state/strongbox/system/debug-key" => {
                let at = |name: &str| ask(path, json!({ "site": name, "host": format!("{name}-001") }));
                Trial::Pair { there: at("udc1"), absent: at("udc9"), words: words("udc1", "udc9") }
            }
            _ if path.starts_with("/v1/state/strongbox/system/update-") => {
                let at = |name: &str| ask(path, json!({ "site": name }));
                Trial::Pair { there: at("udc1"), absent: at("udc9"), words: words("udc1", "udc9") }
            }
            _ if path.contains("/sites/{site}") => site(""),
            // Of a tenant that there is, and of one that there is not.
            _ if Dialect::of(path) == Dialect::Kes => {
                let at = |name: &str, tenant: &str| {
                    ask(format!("{}?enclave={tenant}", path.replace("{*name}", name)), json!({ "ciphertext": "" }))
                };
                let (there, absent) = (at("alpha-key", "acme"), at("omega-key", "xxxx"));
                Trial::Pair { there, absent, words: words("alpha-key", "omega-key") }
            }
            "/v1/state/strongbox/system/unseal" => Trial::Alone(ask(path, json!({ "sealkey": "a guess" }))),
            "/v1/auth"
            | "/v1/category"
            | "/v1/health"
            | "/v1/metrics"
            | "/v1/role"
            | "/v1/state/strongbox/system/reveal-sealkey"
            | "/v1/state/strongbox/system/rotate-seal"
            | "/v1/state/strongbox/system/seal"
            | "/v1/state/strongbox/system/seal-status"
            | "/v1/state/strongbox/token"
            | "/v1/state/strongbox/token/accessors"
            | "/v1/state/strongbox/token/refresh"
            | "/v1/state/system/adopt-restored"
            | "/v1/state/system/ca"
            | "/v2/auth/user/refresh"
            | "/version" => Trial::Alone(ask(path, Value::Null)),
            _ => return None,
        })
    }

    /// Revision of the last change of any of the tenant's rows, and its chain of changes.
    fn trace(&self) -> String {
        let rows = self.central.running().node().barrier.snapshot().unwrap();
        let last = rows.changes(self.acme.0, holdfast_protocol::ids::Revision(0)).unwrap().unwrap();
        let last = last.last().map(|changed| (changed.row.modified, changed.ciphertext_hash));
        format!("{last:?} {:?}", rows.change_head(self.acme.0).unwrap())
    }

    /// What the tenant sees of its own.
    async fn view(&self) -> Vec<Answer> {
        let owner = self.acme();
        let mut seen = Vec::new();
        let (of_box, approle) = (format!("{BOX}/{}", self.box_id), format!("{APPROLES}/alpha-role"));
        let state = "/v1/state/strongbox/vaults/alpha-vault/secrets/dbpass";
        let (vault, secret) = (format!("{VAULTS}/alpha-vault"), "/v1/secret/app/alpha-vault/dbpass");
        for path in [BOX, &of_box, secret, state, &vault, &approle, "/v1/config/tenants"] {
            seen.push(self.answer("GET", &ask(path, Value::Null), &owner).await);
        }
        let client = Credential { name: "its client", token: None, certificate: Some(operator(79, LATE)) };
        let key = ask("/v1/key/describe/alpha-key?enclave=acme", Value::Null);
        seen.push(self.answer("GET", &key, &client).await);
        assert_eq!(seen[7].status, 200, "{:?}", seen[7]);
        assert!(seen[2].text.contains("second swordfish"));
        // What was written as a box is read as a vault.
        assert_eq!(
            serde_json::from_str::<Value>(&seen[3].text).unwrap()["dict"],
            json!({ "value": "second swordfish" })
        );
        seen
    }
}

/// An operator's kind of certificate, by its own key.
fn operator(fill: u8, not_after: i64) -> Vec<u8> {
    let key = SigningKey::from_seed(&secret(fill));
    let terms = Terms { serial: Serial([fill; 16]), validity: Validity { not_before: 0, not_after } };
    operator_client(&key, "eve", &terms).unwrap()
}

fn told(headers: &HeaderMap, id: &str) -> BTreeMap<String, String> {
    let told = headers.iter().filter(|(name, _)| *name != "x-request-id" && *name != "date");
    told.map(|(name, value)| (name.to_string(), value.to_str().unwrap().replace(id, "ID"))).collect()
}

impl Answer {
    /// The same with both names of a pair written as one. Of what was made for the caller itself only the members.
    fn blurred(mut self, words: &[String; 2]) -> Self {
        let blur = |text: &str| words.iter().fold(text.to_owned(), |text, word| text.replace(word.as_str(), "NAME"));
        self.text = blur(&self.text);
        if self.status == 201 && !self.text.is_empty() {
            let made: BTreeMap<String, Value> = serde_json::from_str(&self.text).unwrap();
            self.text = made.into_keys().collect::<Vec<_>>().join(" ");
            self.headers.remove("location");
        }
        self.headers.values_mut().for_each(|value| *value = blur(value));
        self
    }
}

/// Whatever takes a caller's own token away comes last, and before that what makes things of his own: then there are
/// some that he may see.
fn order(path: &str) -> u8 {
    match path {
        "/v2/auth/user/refresh" => 2,
        "/v1/state/strongbox/token/refresh" => 3,
        "/v1/auth" => 4,
        _ => u8::from(makes_own(path)),
    }
}

/// Routes at which a stranger may name an own thing as he likes: what he makes there is his.
fn makes_own(path: &str) -> bool {
    const OWN: [&str; 3] = [VAULTS, APPROLES, "/v1/config/strongbox/authentication/userpass"];
    path.trim_end_matches('/') == BOX || OWN.iter().any(|of| path.starts_with(of))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_of_central_tells_one_tenant_of_another_or_changes_anything_of_it() {
    let world = World::start().await;
    let (trace, view) = (world.trace(), world.view().await);
    let table = routes(&format!("{:?}", world.central.running().front()));
    let mut paths: Vec<_> = table.iter().collect();
    paths.sort_by_key(|(path, _)| order(path));
    let mut asked = 0;
    for (path, methods) in paths {
        let trial = world.trial(path).unwrap_or_else(|| panic!("{path} is a route that nobody has tried"));
        for method in methods.iter().map(String::as_str).chain(["PATCH"]) {
            for by in &world.credentials {
                let what = format!("{method} {path} with {}", by.name);
                match &trial {
                    Trial::Pair { there, absent, words } => {
                        let first = world.answer(method, there, by).await;
                        assert!(
                            makes_own(path) || !(200..300).contains(&first.status) || !first.text.contains(&words[0]),
                            "{what}: {first:?}"
                        );
                        let second = world.answer(method, absent, by).await;
                        assert_eq!(first.blurred(words), second.blurred(words), "{what}");
                        asked += 2;
                    }
                    Trial::Alone(one) => {
                        let answer = world.answer(method, one, by).await;
                        let names = NAMES.iter().find(|name| answer.text.contains(*name));
                        assert_eq!(names, None, "{what}: {answer:?}");
                        asked += 1;
                    }
                }
                assert_eq!(world.trace(), trace, "{what} left a trace");
            }
        }
    }
    assert_eq!(world.view().await, view);
    let write = ask("/v1/secret/app/alpha-vault/dbpass", json!({ "value": "third" }));
    assert_eq!(world.answer("PUT", &write, &world.acme()).await.status, 204, "nobody was locked out");
    let [role_id, secret_id] = &world.program;
    let nobody = Credential { name: "nothing", token: None, certificate: None };
    let login = ask("/v1/approle-login", json!({ "role-id": role_id, "secret-id": secret_id }));
    assert_eq!(world.answer("POST", &login, &nobody).await.status, 200, "nor its program");
    Figures::of("isolation-at-central")
        .add("routes", table.len())
        .add("credentials", world.credentials.len())
        .add("requests", asked)
        .publish()
        .unwrap();
    world.central.stop().await;
}
