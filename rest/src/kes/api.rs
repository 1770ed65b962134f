//! The table of what clients can call: `/v1/api` tells it, routes are made by it, and settings are found by it.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;

use super::Kes;
use crate::openapi::operation::{self as on, KnownBy, Operation, Operations, Who, Work};

/// Longest body; a longer one is one that can't be read.
pub(super) const BODY_BYTES_MAX: usize = 1_000_000;

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth {
    /// Whom a policy lets, or an administrator.
    Policy,
    /// Whoever has a certificate that the tenant knows.
    Known,
}

/// Since when it could be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// In both profiles.
    Always,
    /// By clients of the newer profile only.
    Later,
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// Tells.
    Tell,
    /// Computes with a key, again and again.
    Use,
    /// Changes something: at central only.
    Change,
}

/// Something that clients can call.
#[derive(Debug)]
pub(super) struct Api {
    /// What a path begins with; behind a slash follows a name or a pattern.
    pub(super) path: &'static str,
    /// By which it is called, the one that the newer profile names first.
    pub(super) methods: &'static [&'static str],
    /// Longest body, bytes.
    pub(super) body_max: usize,
    /// Until the answer, unless the configuration says something else.
    pub(super) timeout: Duration,
    pub(super) auth: Auth,
    pub(super) spoken: Spoken,
    /// Whether what it changes holds at every connected host before it is answered.
    pub(super) bites: bool,
    pub(super) does: Does,
    /// In the audit log.
    pub(super) action: &'static str,
    /// Whether the answer goes on for as long as somebody reads it.
    pub(super) goes_on: bool,
}

const WRITE: &[&str] = &["PUT", "POST"];
const READ: &[&str] = &["GET"];
const DELETE: &[&str] = &["DELETE"];

impl Api {
    const fn new(path: &'static str, methods: &'static [&'static str], action: &'static str) -> Self {
        let (auth, spoken, does, timeout) = (Auth::Policy, Spoken::Always, Does::Tell, Duration::from_secs(15));
        Self { path, methods, body_max: 0, timeout, auth, spoken, does, bites: false, action, goes_on: false }
    }

    const fn biting(self) -> Self {
        Self { bites: true, ..self.changes() }
    }

    /// Of which the answer goes on. Only its beginning has to come in time.
    const fn stream(path: &'static str, action: &'static str) -> Self {
        Self { goes_on: true, ..Self::new(path, READ, action) }
    }

    const fn with_body(self) -> Self {
        Self { body_max: BODY_BYTES_MAX, ..self }
    }

    const fn uses(self) -> Self {
        Self { does: Does::Use, ..self.with_body() }
    }

    const fn changes(self) -> Self {
        Self { does: Does::Change, ..self }
    }

    const fn later(self) -> Self {
        Self { spoken: Spoken::Later, ..self }
    }

    /// Whether only clients of the older profile call it so.
    pub(super) fn is_trace(&self) -> bool {
        self.path.ends_with("/trace")
    }

    /// Whether clients ask for all that there is by this path, with the slash left away.
    pub(super) fn lists_all_at(&self, path: &str) -> bool {
        self.path.ends_with("/list/") && self.path.strip_suffix('/') == Some(path)
    }

    /// Whether the configuration may let anybody call it: it tells of the node only.
    pub(super) fn may_skip_auth(&self) -> bool {
        matches!(self.path, "/v1/api" | "/v1/ready" | "/v1/status")
    }

    /// Whether it may be that its body is read before the caller is judged: it only reads, and is called all the time.
    pub(super) fn reads_body_first(&self) -> bool {
        self.does == Does::Use
    }

    /// Whether something follows in its path.
    pub(super) fn takes_name(&self) -> bool {
        self.path.ends_with('/')
    }
}

macro_rules! table {
    ($($name:ident = $api:expr;)*) => {
        $(pub(super) static $name: Api = $api;)*

        /// All of it.
        pub(super) static ALL: &[&Api] = &[$(&$name),*];
    };
}

table! {
    READY = Api::new("/v1/ready", READ, "kes.ready").later();
    STATUS = Api::new("/v1/status", READ, "kes.status").later();
    API = Api { timeout: Duration::from_secs(10), ..Api::new("/v1/api", READ, "kes.api").later() };
    KEY_CREATE = Api::new("/v1/key/create/", WRITE, "key.create").changes().with_body();
    KEY_IMPORT = Api::new("/v1/key/import/", WRITE, "key.import").changes().with_body();
    KEY_DESCRIBE = Api::new("/v1/key/describe/", READ, "key.describe").later();
    KEY_LIST = Api::new("/v1/key/list/", READ, "key.list");
    // The page of the older profile names one method and shows the other.
    KEY_DELETE = Api::new("/v1/key/delete/", &["DELETE", "POST"], "key.delete").biting();
    KEY_GENERATE = Api::new("/v1/key/generate/", WRITE, "key.generate").uses();
    KEY_ENCRYPT = Api::new("/v1/key/encrypt/", WRITE, "key.encrypt").uses();
    KEY_DECRYPT = Api::new("/v1/key/decrypt/", WRITE, "key.decrypt").uses();
    KEY_BULK_DECRYPT = Api::new("/v1/key/bulk/decrypt/", WRITE, "key.decrypt").uses().later();
    KEY_HMAC = Api::new("/v1/key/hmac/", WRITE, "key.hmac").uses().later();
    KEY_ROTATE = Api::new("/v1/key/rotate/", WRITE, "key.rotate").changes().with_body().later();
    KEY_DISTRIBUTE = Api::new("/v1/key/distribute/", WRITE, "key.distribute").with_body().later().biting();
    KEY_ERASE = Api::new("/v1/key/erase/", WRITE, "key.erase-versions").with_body().later().biting();
    POLICY_WRITE = Api::new("/v1/policy/write/", WRITE, "policy.write").with_body().biting();
    POLICY_DESCRIBE = Api::new("/v1/policy/describe/", READ, "policy.describe").later();
    POLICY_READ = Api::new("/v1/policy/read/", READ, "policy.read");
    POLICY_LIST = Api::new("/v1/policy/list/", READ, "policy.list");
    POLICY_ASSIGN = Api { body_max: 1 << 10, ..Api::new("/v1/policy/assign/", WRITE, "identity.assign").later().biting() };
    POLICY_DELETE = Api::new("/v1/policy/delete/", DELETE, "policy.delete").biting();
    IDENTITY_ASSIGN = Api::new("/v1/identity/assign/", WRITE, "identity.assign").biting();
    IDENTITY_DESCRIBE = Api::new("/v1/identity/describe/", READ, "identity.describe").later();
    IDENTITY_SELF = Api {
        auth: Auth::Known,
        ..Api::new("/v1/identity/self/describe", READ, "identity.describe-self").later()
    };
    IDENTITY_LIST = Api::new("/v1/identity/list/", READ, "identity.list");
    IDENTITY_DELETE = Api::new("/v1/identity/delete/", DELETE, "identity.forget").later().biting();
    IDENTITY_FORGET = Api::new("/v1/identity/forget/", DELETE, "identity.forget").biting();
    LOG_AUDIT = Api::stream("/v1/log/audit", "kes.log-audit").later();
    LOG_AUDIT_TRACE = Api::stream("/v1/log/audit/trace", "kes.log-audit");
    LOG_ERROR = Api::stream("/v1/log/error", "kes.log-error").later();
    LOG_ERROR_TRACE = Api::stream("/v1/log/error/trace", "kes.log-error");
}

/// What a request with another method meant.
pub(super) fn of_path(path: &str) -> Option<&'static Api> {
    let path = judged_path(path);
    let is_it = |api: &&&Api| if api.takes_name() { path.starts_with(api.path) } else { path == api.path };
    ALL.iter().copied().find(|api| is_it(&api))
}

/// As policies see a path: a list of all as what lists by an empty prefix.
fn judged_path(path: &str) -> Cow<'_, str> {
    if ALL.iter().any(|api| api.lists_all_at(path)) { format!("{path}/").into() } else { path.into() }
}

/// Whom a policy lets.
pub(super) const PERMITTED: Who =
    Who { says: "an administrator, or whom a policy lets", known_by: KnownBy::Certificate };
/// Everybody who is known.
pub(super) const KNOWN: Who = Who { says: "whoever is known", known_by: KnownBy::Certificate };

/// The routes to it: by each of its methods, with a name behind it and without, since a missing name is refused in the
/// words of the dialect.
pub(super) fn routes(
    api: &'static Api,
    work: impl Fn() -> Work<Kes>,
    dress: impl Fn(Operation<Kes>) -> Operation<Kes>,
    summary: &'static str,
) -> Operations<Kes> {
    let named = api.takes_name().then(|| format!("{}{{*name}}", api.path));
    // Where all are asked for, clients leave the slash away.
    let bare = api.path.ends_with("/list/").then(|| api.path.trim_end_matches('/').to_owned());
    let paths: Vec<String> = std::iter::once(api.path.to_owned()).chain(named).chain(bare).collect();
    let mut all = Operations::under("");
    for path in &paths {
        for method in api.methods {
            let operation = match *method {
                "GET" => on::get(path, work(), summary),
                "PUT" => on::put(path, work(), summary),
                "POST" => on::post(path, work(), summary),
                _ => on::delete(path, work(), summary),
            };
            let operation = if api.body_max == 0 { operation } else { operation.may(&[408]) };
            let operation = if api.bites { operation.bites() } else { operation };
            let operation = dress(operation).headers(ENCLAVE).never(&[401, 413, 415]);
            all = all.with(operation.may(&[400, 403, 404]));
        }
    }
    all
}

/// What the query may say, as later clients do.
const ENCLAVE: &[(&str, &str)] = &[("Kes-Enclave", "The same as enclave, where that is not given.")];

/// Says that it answers 200 without a body.
pub(super) fn bare(operation: Operation<Kes>) -> Operation<Kes> {
    operation.ends(StatusCode::OK)
}
