//! Logging in with user name and password, renewing a token, logging out. There is no second factor here.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::access_control::logins::{self, LogIn, LoggedIn, login_of};
use holdfast_actors::access_control::tenants::{SYSTEM_NAME, tenant};
use holdfast_actors::access_control::tokens::mint;
use holdfast_actors::access_control::{ADMINS, Caller};
use holdfast_actors::rows::Refusal;
use holdfast_protocol::ids::Realm;
use holdfast_protocol::secret::SecretBytes;
use schemars::JsonSchema;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cerberus::answers::{Token, done, json as ok, problem};
use crate::cerberus::{Cerberus, HOLDERS};
use crate::node::{Deed, NOBODY};
use crate::openapi::operation::{self as on, KnownBy, Operations, Query, Who, Work};
use crate::problem::Problem;
use crate::secret::Reveal;

/// What can be done with tokens.
pub(super) fn operations() -> Operations<Cerberus> {
    let users = Who { says: "anybody with a user name and a password", known_by: KnownBy::Password };
    let tenant = &[("X-Holdfast-Tenant", "The user's tenant, if it does not stand before a slash in the user name.")];
    Operations::under("")
        .with(
            on::get(
                "/v2/auth/user",
                Work::new(log_in, users, Query::None).action("login").gives::<LoginAnswer<'_>>(),
                "Exchanges a user name and a password for a token",
            )
            .headers(tenant),
        )
        .with(on::get(
            "/v2/auth/user/refresh",
            Work::new(refresh, HOLDERS, Query::None).action("token.refresh").gives::<LoginAnswer<'_>>(),
            "Exchanges the token of the call for a new one",
        ))
        .with(
            on::delete(
                "/v1/auth",
                Work::new(log_out, HOLDERS, Query::None).action("token.revoke"),
                "Ends the token of the call",
            )
            .done()
            .bites(),
        )
}

/// Who says to be whom, and where.
struct Credentials {
    tenant: String,
    username: String,
    password: SecretBytes,
}

impl Credentials {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let plain = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
        let (username, password) = std::str::from_utf8(&plain).ok()?.split_once(':')?;
        let named = headers.get("x-holdfast-tenant").and_then(|value| value.to_str().ok());
        let (tenant, username) = username.split_once('/').unwrap_or((named.unwrap_or(SYSTEM_NAME), username));
        let password = SecretBytes::new(password.as_bytes().to_vec());
        Some(Self { tenant: tenant.to_owned(), username: username.to_owned(), password })
    }
}

async fn log_in(State(cerberus): State<Cerberus>, headers: HeaderMap) -> Result<Response, Problem> {
    let node = &cerberus.node;
    let deed = |tenant: &str| Deed::of("login", tenant);
    let Some(Credentials { tenant, username, password }) = Credentials::of(&headers) else {
        let refusal = node.refuse(Realm::NODE, NOBODY, &deed(""), Refusal::Unauthenticated);
        return Err(refused(refusal));
    };
    let account = Account::find(&cerberus, &tenant, &username).map_err(refused)?;
    let good = node.passwords().verify(password, account.stored).await.map_err(refused)?;
    let (true, Some(verified_version)) = (good, account.version) else {
        return Err(refused(node.refuse(account.realm, &username, &deed(&tenant), Refusal::Unauthenticated)));
    };
    let cmd = LogIn {
        realm: account.realm,
        username: username.clone(),
        verified_version,
        token_id: node.fresh_token_id(),
        ttl_s: cerberus.settings.token_ttl_s,
    };
    let now = node.now();
    let decided = node.barrier().run(move |rows| logins::log_in(&cmd, rows, now)).await;
    let (logged_in, _) =
        decided.map_err(|refusal| refused(node.refuse(account.realm, &username, &deed(&tenant), refusal)))?;
    answer(&cerberus, &logged_in)
}

/// What a password is judged by. Of an unknown user there is nothing but the place where the failure is noted.
struct Account {
    realm: Realm,
    stored: Option<String>,
    version: Option<u64>,
}

impl Account {
    fn find(cerberus: &Cerberus, tenant_name: &str, username: &str) -> Result<Self, Refusal> {
        let rows = cerberus.node.barrier().snapshot()?;
        let found = match tenant_name.parse() {
            Ok(name) => tenant(&rows, &name)?,
            Err(_) => None,
        };
        let realm = found.map_or(Realm::NODE, |tenant| tenant.realm);
        let login = login_of(&rows, realm, username)?;
        let version = login.as_ref().map(|row| row.version);
        Ok(Self { realm, stored: login.map(|row| row.value.password_hash), version })
    }
}

async fn refresh(State(cerberus): State<Cerberus>, token: Token) -> Result<Response, Problem> {
    let node = &cerberus.node;
    let deed = Deed::of("token.refresh", "");
    let caller = authenticate(&cerberus, &token, &deed)?;
    if caller.is_root() {
        let refusal = node.refuse(caller.realm, caller.actor(), &deed, Refusal::Denied);
        return Err(denied(refusal, 99231, "Only tokens of users can be renewed."));
    }
    let (id, settings, by) = (node.fresh_token_id(), cerberus.settings.clone(), caller.clone());
    let renewed = node.change_even_stopped(&caller, &deed, move |rows, now| {
        logins::refresh(&by, id, settings.token_ttl_s, settings.token_refreshes_max, rows, now)
    });
    let renewed = renewed.await;
    answer(&cerberus, &renewed.map_err(|refusal| denied(refusal, 99230, "The token can't be renewed any more."))?)
}

async fn log_out(State(cerberus): State<Cerberus>, token: Token) -> Result<Response, Problem> {
    let deed = Deed::of("token.revoke", "");
    let caller = authenticate(&cerberus, &token, &deed)?;
    let by = caller.clone();
    let revoked =
        cerberus.node.change_of_own(&caller, &deed, move |rows, now| logins::revoke_own(&by, rows, now)).await;
    revoked.map_err(problem)?;
    let pending = cerberus.node.bite(caller.realm).await;
    Ok(pending.told_in(done()))
}

fn authenticate(cerberus: &Cerberus, token: &Token, deed: &Deed) -> Result<Caller, Problem> {
    cerberus.node.consult(token.get(), deed, |view| Ok(view.caller.clone())).map_err(problem)
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unauthenticated => Problem::unauthorized("Invalid credentials").code(99106),
        other => problem(other),
    }
}

fn denied(refusal: Refusal, code: u32, message: &'static str) -> Problem {
    match refusal {
        Refusal::Denied => Problem::forbidden(message).code(code),
        other => problem(other),
    }
}

/// Makes the token's text, now that it is committed, and says what Cerberus says beside it.
fn answer(cerberus: &Cerberus, logged_in: &LoggedIn) -> Result<Response, Problem> {
    let rows = cerberus.node.barrier().snapshot().map_err(problem)?;
    let mut text = mint(&rows, &logged_in.claims).map_err(problem)?;
    drop(rows);
    let LoggedIn { claims, groups, refresh_count } = logged_in;
    let groups_text = groups.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let client_token = ClientToken {
        client_token: Reveal::from(std::mem::take(&mut *text)),
        policies: [],
        metadata: Metadata {
            username: claims.principal.clone(),
            is_admin: groups.contains(ADMINS).to_string(),
            groups: groups_text,
            refresh_count: refresh_count.to_string(),
            max_refresh_count: cerberus.settings.token_refreshes_max.to_string(),
        },
        lease_duration: claims.expires_us.saturating_sub(claims.issued_us) / 1_000_000,
        renewable: true,
    };
    let (user_id, username) = (&claims.principal, &claims.principal);
    let data = LoginData { user_id, username, state_token: None, factor_result: None, devices: [], client_token };
    Ok(ok(&LoginAnswer { status: "success", data }))
}

#[derive(Serialize, JsonSchema)]
struct LoginAnswer<'a> {
    status: &'static str,
    data: LoginData<'a>,
}

/// The members for a second factor are always empty.
#[derive(Serialize, JsonSchema)]
struct LoginData<'a> {
    user_id: &'a str,
    username: &'a str,
    state_token: Option<String>,
    factor_result: Option<String>,
    devices: [(); 0],
    client_token: ClientToken,
}

#[derive(Serialize, JsonSchema)]
struct ClientToken {
    client_token: Reveal,
    policies: [(); 0],
    metadata: Metadata,
    /// Seconds.
    lease_duration: i64,
    renewable: bool,
}

/// All are texts, numbers too.
#[derive(Serialize, JsonSchema)]
struct Metadata {
    username: String,
    is_admin: String,
    /// With commas between.
    groups: String,
    refresh_count: String,
    max_refresh_count: String,
}
