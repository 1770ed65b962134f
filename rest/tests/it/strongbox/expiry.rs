//! What has ended of tokens and secret-ids is taken away, by a clock that the test moves; and nothing that still counts.

use std::sync::atomic::Ordering;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::access_control::approle_logins::{Issuer, MintSecretId, mint_secret_id};
use holdfast_actors::access_control::expiry::{AT_CENTRAL, Deadline, KEPT_S, PAGE_ROWS, at_central, clear};
use holdfast_actors::access_control::logins::{LogIn, log_in, login_of, revoke_own};
use holdfast_actors::ports::{Clock, draw, draw_secret};
use holdfast_actors::rows::Kind;
use holdfast_protocol::ids::Realm;
use serde_json::{Value, json};

use super::node::{Central, sealkey};

const ACME: Realm = Realm(2);
const TOKEN: &str = "/v1/state/strongbox/token";
const REVOKE: &str = "/v1/state/strongbox/token/revoke";
const APPROLES: &str = "/v1/config/strongbox/authentication/approles";
const MINT: &str = "/v1/state/strongbox/authentication/approles/reader/generate-secret-id";

/// A central with a tenant `acme`, and the token of its administrator.
struct Aging {
    central: Central,
    acme: String,
}

impl Aging {
    async fn start() -> Self {
        let central = Central::start().await;
        let acme = central.tenant("acme").await;
        let aging = Self { central, acme };
        aging.must(201, APPROLES, json!({ "name": "reader", "token-ttl": "1m" })).await;
        aging
    }

    async fn must(&self, status: u16, path: &str, body: Value) -> Value {
        let answer = self.central.ask(Method::POST, path, Some(&self.acme), &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
        serde_json::from_str(&answer.text).unwrap_or_default()
    }

    async fn status(&self, token: &str) -> u16 {
        self.central.ask(Method::GET, TOKEN, Some(token), "").await.status.as_u16()
    }

    /// A program's login: by its role-id and a secret-id of these bounds, so often.
    async fn log_in(&self, role_id: &Value, secret_id: &Value) -> u16 {
        let body = json!({ "role-id": role_id, "secret-id": secret_id }).to_string();
        self.central.ask(Method::POST, "/v1/approle-login", None, &body).await.status.as_u16()
    }

    /// A token that the administrator gets by a login, and whether it is revoked again.
    async fn token(&self, revoked: bool) -> String {
        let node = self.central.access.node();
        let now = node.now();
        let verified_version = login_of(&node.barrier().snapshot().unwrap(), ACME, "ann").unwrap().unwrap().version;
        let (username, token_id) = ("ann".to_owned(), node.fresh_token_id());
        let cmd = LogIn { realm: ACME, username, verified_version, token_id, ttl_s: 3600 };
        let (about, _) = node.barrier().run(move |rows| log_in(&cmd, rows, now)).await.unwrap();
        let text = self.central.access.mint(&about.claims).unwrap().to_string();
        if revoked {
            let caller = node.whose(&text).unwrap();
            node.barrier().run(move |rows| revoke_own(&caller, rows, now)).await.unwrap();
        }
        text
    }

    /// Stored rows of these kinds, tombstones included.
    fn stored(&self) -> [usize; 3] {
        let view = self.central.access.node().barrier().engine().snapshot().unwrap();
        [Kind::Token, Kind::Revocation, Kind::SecretId]
            .map(|kind| view.range(&[kind as u8], &[kind as u8 + 1], usize::MAX).unwrap().len())
    }

    /// As the node does by itself; how many rows went.
    async fn clear(&self, deadline: &mut Deadline) -> usize {
        let (clock, node) = (self.central.clock.clone(), self.central.access.node());
        clear(node.barrier(), (AT_CENTRAL, at_central), deadline.us(clock.now()), move || clock.now()).await.unwrap()
    }

    fn passes(&self, seconds: u64) {
        self.central.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn what_has_ended_is_taken_away_after_a_day_and_what_counts_stays() {
    let aging = Aging::start().await;
    let mut deadline = Deadline::new(aging.central.clock.now());
    let reader = aging.central.ask(Method::GET, &MINT.replace("/generate-secret-id", ""), Some(&aging.acme), "").await;
    let role_id = &reader.json()["role-id"];
    let before = aging.stored();
    // Far more than one decision takes away; every other one is revoked.
    let many = 5 * PAGE_ROWS;
    for number in 0..many {
        aging.token(number % 2 == 0).await;
    }
    let revoked = aging.token(true).await;
    // A root token has no end, and so has its revocation none.
    let key = json!({ "sealkey": STANDARD.encode(sealkey().expose()) }).to_string();
    let root = aging.central.ask(Method::POST, "/v1/state/strongbox/system/create-root-token", None, &key).await.json();
    let root = root["token"].as_str().unwrap();
    assert_eq!(aging.central.ask(Method::POST, REVOKE, Some(root), "").await.status.as_u16(), 204);
    // Secret-ids: endless, used up, ended, and of an approle made anew.
    let endless = aging.must(200, MINT, json!({})).await["secret-id"].clone();
    let once = aging.must(200, MINT, json!({ "num-uses": 1 })).await["secret-id"].clone();
    assert_eq!((aging.log_in(role_id, &once).await, aging.log_in(role_id, &once).await), (200, 401));
    let short = aging.must(200, MINT, json!({ "ttl": "1m" })).await["secret-id"].clone();
    // 1 login of the root, 1 by the secret-id; what was used up has left nothing.
    let full = [before[0] + many / 2 + 1, before[1] + many / 2 + 2, before[2] + 2];
    assert_eq!(aging.stored(), full);

    // Nothing goes before its end, nor within a day of it.
    assert_eq!(aging.clear(&mut deadline).await, 0);
    aging.passes(3600 + KEPT_S - 1);
    let early = aging.clear(&mut deadline).await;
    assert_eq!((early, aging.log_in(role_id, &short).await), (2, 401), "the program's token and secret-id of a minute");
    assert_eq!(aging.status(&revoked).await, 401);
    let lines = aging.central.lines();
    aging.passes(1);
    let cleared = aging.clear(&mut deadline).await;
    // Of the administrator's tokens, that of the start went along.
    assert_eq!(cleared, many + 1 + 1, "{:?}", aging.stored());
    let decisions = u64::try_from((many / 2).div_ceil(PAGE_ROWS) * 2).unwrap();
    let written = aging.central.lines().0 - lines.0;
    assert!((decisions..=decisions + 2).contains(&written), "{written} lines for {decisions} decisions");
    // The two root tokens of the set-up, the revocation of the third, the endless secret-id.
    assert_eq!(aging.stored(), [2, before[1] + 1, 1]);
    assert_eq!(aging.clear(&mut deadline).await, 0);

    assert_eq!(aging.status(root).await, 401, "a revocation without end stays");
    assert_eq!(aging.status(&revoked).await, 401, "it had ended by itself");
    assert_eq!(aging.log_in(role_id, &endless).await, 200);
    aging.central.log_in("acme", "ann", "pw-acme").await;
}

#[tokio::test]
async fn secret_ids_of_an_approle_that_is_gone_go_at_once_also_those_that_a_host_has_made() {
    let aging = Aging::start().await;
    let mut deadline = Deadline::new(aging.central.clock.now());
    aging.must(200, MINT, json!({})).await;
    let node = aging.central.access.node();
    let cmd = MintSecretId {
        caller: node.whose(&aging.acme).unwrap(),
        approle: "reader".parse().unwrap(),
        secret: draw_secret(&**node.barrier().entropy()),
        accessor: draw(&**node.barrier().entropy()),
        ttl_s: None,
        num_uses: None,
        issuer: Issuer::Host,
    };
    let now = node.now();
    node.barrier().run(move |rows| mint_secret_id(&cmd, rows, now)).await.unwrap();
    assert_eq!((aging.stored()[2], aging.clear(&mut deadline).await), (2, 0));
    let gone = aging.central.ask(Method::DELETE, &format!("{APPROLES}/reader"), Some(&aging.acme), "").await;
    assert_eq!(gone.status.as_u16(), 204, "{}", gone.text);
    assert_eq!(aging.stored()[2], 1, "its own go with it, those of hosts are beyond its reach");
    assert_eq!((aging.clear(&mut deadline).await, aging.stored()[2]), (1, 0));
}

#[tokio::test]
async fn a_wall_clock_that_runs_ahead_forgets_nothing() {
    let aging = Aging::start().await;
    let mut deadline = Deadline::new(aging.central.clock.now());
    let revoked = aging.token(true).await;
    let before = aging.stored();
    let mut ahead = aging.central.clock.now();
    ahead.wall_us += 400 * 24 * 3_600_000_000;
    let clock = aging.central.clock.clone();
    let barrier = aging.central.access.node().barrier();
    assert_eq!(clear(barrier, (AT_CENTRAL, at_central), deadline.us(ahead), move || clock.now()).await.unwrap(), 0);
    assert_eq!((aging.stored(), aging.status(&revoked).await), (before, 401));
}
