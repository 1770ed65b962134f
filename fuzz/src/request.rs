//! Whole requests through the front of central and of a site host: method, path, query, headers and body of anybody.
//!
//! `flags | head line LF | header LF ... | LF | body`. `$R` stands for a root token, so that what is behind the check of
//! the caller is reached too.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use holdfast_protocol::ids::Revision;
use holdfast_protocol::kes::Identity;
use holdfast_protocol::pki::{Serial, Terms, Validity, pem};
use holdfast_rest::dispatch::Dialect;
use holdfast_rest::peer::{ClientCertificate, Peer};
use serde_json::Value;

use crate::world::{OPERATOR, PROXY, PROXY_HEADER, World, proxied};
use crate::{Memory, choose, chosen};

/// A request may make the node list all it has; passwords are hashed on threads of their own, which are not counted.
pub const MEMORY: Memory = Memory { fixed: 8 << 20, each: 512 };

/// To a site host, not to central.
const SITE: u8 = 1;
/// The node is sealed.
const SEALED: u8 = 2;
/// With an operator's certificate.
const CERTIFIED: u8 = 4;
/// From this machine.
const LOCAL: u8 = 8;
/// Through a proxy of KES' clients, which says in a header who calls.
const PROXIED: u8 = 16;
/// To central where clients of KES' last versions are at home.
const CURRENT: u8 = 32;

/// Requests to one deployment: what they made of it is then thrown away.
const REQUESTS_MAX: u32 = 2000;

thread_local! {
    static WORLD: RefCell<Option<(World, u32)>> = const { RefCell::new(None) };
}

/// Sends `data` as a request, and judges the answer.
pub fn target(data: &[u8]) {
    let Some((flags, bytes)) = choose(data) else { return };
    WORLD.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(_, requests)| REQUESTS_MAX <= *requests) {
            *kept = Some((World::new(), 0));
        }
        if let Some((world, requests)) = kept {
            *requests += 1;
            judge(world, flags, bytes);
        }
    });
}

fn judge(world: &World, flags: u8, bytes: &[u8]) {
    let Some(request) = parsed(bytes, &world.root) else { return };
    world.sealed.store(flags & SEALED != 0, Ordering::SeqCst);
    let front = match flags & (SITE | CURRENT) {
        0 => &world.central,
        CURRENT => &world.current,
        _ => &world.site,
    };
    let named = request.headers().get_all(PROXY_HEADER).iter().count();
    let (asked, dialect) = (format!("{} {}", request.method(), request.uri()), Dialect::of(&folded(request.uri())));
    let before = revision(world);
    let is_followed = request.uri().path().starts_with("/v1/log/");
    let (status, headers, body) = world.runtime.block_on(async {
        let answer = front.answer(peer(flags), request).await;
        let (parts, body) = answer.into_parts();
        // What is followed goes on until nobody reads it.
        let body = if is_followed && parts.status.is_success() { Body::empty() } else { body };
        (parts.status, parts.headers, to_bytes(body, usize::MAX).await.expect("an answer ends"))
    });
    let said = String::from_utf8_lossy(&body);
    assert!(!status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE, "{asked}: {status} {said}");
    if status.is_success() {
        let is_proxied = dialect == Dialect::Kes && flags & PROXIED != 0 && flags & SITE == 0;
        assert!(!is_proxied || named == 1, "{asked}: {status} for a proxy that names {named} clients");
        return;
    }
    assert_eq!(revision(world), before, "{asked}: refused with {status}, and something changed");
    assert!(!said.contains(&world.root), "{asked}: the answer shows the token");
    if flags & SITE == 0 && asked.split(' ').next() != Some("HEAD") {
        is_shaped(dialect, &headers, &body, &asked, status);
    }
}

fn revision(world: &World) -> Revision {
    world.barrier.engine().snapshot().expect("memory does not fail").revision()
}

/// A path as Cerberus reads it.
fn folded(uri: &Uri) -> String {
    let mut path = uri.path().to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    if Dialect::of(&path) == Dialect::Cerberus { path } else { uri.path().to_owned() }
}

fn peer(flags: u8) -> Peer {
    let client = if flags & PROXIED != 0 { PROXY } else { Identity([0; 32]) };
    let certificate = (flags & (CERTIFIED | PROXIED) != 0).then(|| ClientCertificate {
        der: Vec::new(),
        others: Vec::new(),
        fingerprint: [0; 32],
        spki_sha256: [0; 32],
        identity: OPERATOR.to_owned(),
        client: Ok(client),
        not_after: i64::MAX,
    });
    let from = if flags & LOCAL != 0 { [127, 0, 0, 1] } else { [192, 0, 2, 7] };
    Peer::new((from, 5000).into(), certificate)
}

/// The request, if the HTTP library would hand it on: what is no request line or header never reaches the front.
fn parsed(bytes: &[u8], root: &str) -> Option<Request<Body>> {
    let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, target) = split(lines.next()?, b' ')?;
    let mut request = Request::new(Body::from(body.to_vec()));
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::try_from(target).ok()?;
    *request.headers_mut() = headers(lines, root)?;
    Some(request)
}

fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>, root: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = split(line, b':')?;
        let value = match value.trim_ascii_end().strip_suffix(b"$R") {
            Some(before) => [before, root.as_bytes()].concat(),
            None => value.to_vec(),
        };
        let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
        headers.append(HeaderName::from_bytes(name).ok()?, value);
    }
    Some(headers)
}

/// What stands before and behind the first `at`.
fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..found], &bytes[found + 1..]))
}

/// A refusal has its dialect's shape, and says something.
fn is_shaped(dialect: Dialect, headers: &HeaderMap, body: &[u8], asked: &str, status: StatusCode) {
    let kind = headers.get("content-type").map_or(&[][..], HeaderValue::as_bytes);
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    let said = match kind {
        b"application/json" => serde_json::from_slice(body).ok(),
        b"application/yaml" => serde_saphyr::from_slice::<Value>(body).ok(),
        _ => return,
    };
    let said = said.unwrap_or_else(|| panic!("{asked}: {status} with a body that can't be read"));
    let text = match dialect {
        Dialect::Strongbox => &said["errors"][0]["error-message"],
        // So say Vault and Cerberus where there is no secret.
        Dialect::Cerberus if said == serde_json::json!({ "errors": [] }) => return,
        Dialect::Cerberus => &said["errors"][0]["message"],
        Dialect::Node | Dialect::Kes => &said["message"],
        Dialect::Keylime | Dialect::MarbleRun => return,
    };
    let shaped = text.as_str().is_some_and(|text| !text.is_empty());
    assert!(shaped || asked.contains("/v1/health"), "{asked}: {status} {said}");
}

/// A request of each kind, and some that no client makes.
pub fn seeds() -> Vec<Vec<u8>> {
    const BEARER: &str = "authorization: Bearer $R";
    const TOKEN: &str = "x-cerberus-token: $R";
    const VAULT: &str = "x-vault-token: $R\nx-cerberus-client: cli/1";
    const YAML: &str = "authorization: Bearer $R\ncontent-type: application/yaml\naccept: application/json";
    let requests = [
        ("GET /v1/health", "accept: */*", ""),
        ("GET /version", "", ""),
        ("GET /v1/metrics", "", ""),
        ("GET /v1/state/strongbox/system/seal-status", "accept: application/json", ""),
        (
            "POST /v1/state/strongbox/system/unseal",
            "",
            r#"{"sealkey": "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo="}"#,
        ),
        ("POST /v1/state/strongbox/system/unseal", "", "shares:\n- 1:WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=\n"),
        ("POST /v1/state/strongbox/system/reveal-sealkey", "holdfast-bootstrap-secret: first-light", "{}"),
        ("POST /v1/state/strongbox/system/seal", BEARER, ""),
        ("POST /v1/state/strongbox/system/rotate-seal", BEARER, ""),
        (
            "POST /v1/state/strongbox/system/setup-tenant",
            YAML,
            "name: nobody\nadmin-username: ann\nadmin-password: x\n",
        ),
        ("GET /v1/state/system/ca", "accept: application/json", ""),
        ("POST /v1/key/create/new", "", ""),
        ("PUT /v1/key/import/i", "", r#"{"key": "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=", "cipher": "AES256"}"#),
        ("POST /v1/key/import/j", "", r#"{"bytes": "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo="}"#),
        (
            "PUT /v1/key/import/l",
            "",
            r#"{"Key": "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=", "cipher": "ChaCha20", "hmac_key": "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=", "created_at": "2023-11-14T22:13:20.5Z", "created_by": "ann", "distribute": {"sites": ["udc1"], "offline": "1h"}}"#,
        ),
        (
            "PUT /v1/key/import/m",
            "",
            r#"{"key": "WlpaWg==", "bytes": null, "created_at": "yesterday", "created_by": 5}"#,
        ),
        ("PUT /v1/key/create/n", "", r#"{"cipher": "ChaCha20", "distribute": {"to": "all"}} and more"#),
        ("PUT /v1/key/rotate/k", "", r#"{"cipher": "AES256", "renew_hmac": true}"#),
        ("PUT /v1/key/erase/k", "", r#"{"versions": [1, 4294967295]}"#),
        ("PUT /v1/key/distribute/k", "", r#"{"sites": ["udc1"], "offline": 90}"#),
        ("PUT /v1/key/hmac/k", "", r#"{"message": "YQ==", "version": 1}"#),
        ("GET /v1/key/describe/k", "", ""),
        ("PUT /v1/key/bulk/decrypt/k", "", r#"[{"ciphertext": "YQ==", "context": ""}, {"ciphertext": ""}]"#),
        ("POST /v1/key/generate/k", "", r#"{"context": "YQ=="}"#),
        ("PUT /v1/key/encrypt/k", "", r#"{"plaintext": "YQ==", "Context": "Yg=="}"#),
        ("PUT /v1/key/decrypt/k", "", r#"{"ciphertext": "eyJhZWFkIjoiQUVTLTI1Ni1HQ00ifQ=="}"#),
        ("POST /v1/key/bulk/decrypt/k", "", r#"[{"ciphertext": "YQ=="}, null]"#),
        ("PUT /v1/key/hmac/k", "", r#"{"message": "YQ=="}"#),
        ("GET /v1/key/list/k*?enclave=system", "", ""),
        ("GET /v1/key/list/", "kes-enclave: system", ""),
        ("DELETE /v1/key/delete/k", "", ""),
        ("GET /v1/log/audit", "", ""),
        ("GET /v1/log/error/trace", "", ""),
        ("POST /v1/policy/write/p", "", r#"{"paths": ["/v1/key/*/[a-z]"]}"#),
        ("PUT /v1/policy/write/q", "", r#"{"allow": {"/v1/*": {}}, "deny": {"/v1/key/delete/*": {}}}"#),
        ("GET /v1/policy/list/*", "", ""),
        ("POST /v1/identity/assign/p/a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f", "", ""),
        ("GET /v1/identity/self/describe", "", ""),
        ("POST /v1/login", "content-type: application/json", r#"{"username": 1, "password": "x", "tenant": "acme"}"#),
        ("GET /v1/config/tenants", BEARER, ""),
        ("GET /v1/config/tenants/acme", BEARER, ""),
        ("POST /v1/config/tenants", BEARER, r#"{"name": "other", "kind": "site-provider"}"#),
        ("GET /v1/config/system/sites", BEARER, ""),
        ("GET /v1/config/system/sites/udc1", BEARER, ""),
        (
            "POST /v1/config/system/sites",
            YAML,
            "name: udc2\nek-trust: pinned\nlearn-reference-values: true\npcrs: [0, 7]\nquote-interval: 1m30s\nreference-values:\n  \"0\": [\"0000000000000000000000000000000000000000000000000000000000000001\"]\nhosts:\n- name: udc2-001\n",
        ),
        ("POST /v1/config/system/sites/udc1/hosts", BEARER, r#"{"hosts": [{"name": "udc1-003"}]}"#),
        ("GET /v1/state/system/sites", BEARER, ""),
        ("GET /v1/state/system/sites/udc1", BEARER, ""),
        ("POST /v1/state/system/sites/udc1/site-bundle", BEARER, r#"{"valid": "7d"}"#),
        ("POST /v1/state/system/sites/udc1/reallow-site-unwrap", BEARER, r#"{"host": "udc1-001"}"#),
        ("POST /v1/state/system/sites/udc1/quarantine-site", BEARER, r#"{"wipe": true}"#),
        ("POST /v1/state/system/sites/udc1/unquarantine-site", BEARER, ""),
        ("POST /v1/state/system/sites/udc1/quarantine-site-host", BEARER, r#"{"host": "udc1-001"}"#),
        ("POST /v1/state/system/sites/udc1/unquarantine-site-host", BEARER, r#"{"host": "udc1-002"}"#),
        ("GET /v2/auth/user", "authorization: Basic nonsense\nx-holdfast-tenant: acme", ""),
        ("GET /v2/auth/user/refresh", TOKEN, ""),
        ("GET /v1/category", VAULT, ""),
        ("GET /v1/category/1", TOKEN, ""),
        ("GET /v1/role", TOKEN, ""),
        ("GET /v2/safe-deposit-box", TOKEN, ""),
        (
            "POST /v2/safe-deposit-box/",
            TOKEN,
            r#"{"name": "My box", "category_id": "x", "owner": "admins", "user_group_permissions": [{"name": "g", "role_id": "r"}], "iam_principal_permissions": [{"iam_principal_arn": "arn:aws:iam::1:role/x", "role_id": "r"}], "distribute": {"sites": ["udc1"], "offline": "1h"}}"#,
        ),
        ("GET /v1/secret/app/box/a/b", TOKEN, ""),
        ("GET /v1/secret/app/box/a/b?versionId=CURRENT", TOKEN, ""),
        ("GET //v1//secret/app/box/?list=true", TOKEN, ""),
        ("POST /v1/secret/app/box/a%20b", TOKEN, r#"{"a": {"b": ["c"]}}"#),
        ("GET /v1/secret/app/box/a%2", TOKEN, ""),
        ("GET /v1/secret/app/box/..%2f..%2Fa%ff%00", TOKEN, ""),
        ("GET /v1/secret/app/box/a/b?versionId=%&list=%zz", TOKEN, ""),
        ("POST /v1/secret/app/box/n", TOKEN, r#"{"a": 1, "a": 2}"#),
        ("DELETE /v1/secret/app/box/a/b", TOKEN, ""),
        ("PATCH /v1/secret/app/box/a/b", TOKEN, ""),
        ("GET /v1/key/list", "", ""),
        ("GET /api/v2/status", "", ""),
    ];
    let written = requests.iter().map(|(line, headers, body)| match headers.is_empty() {
        true => format!("{line}\n\n{body}"),
        false => format!("{line}\n{headers}\n\n{body}"),
    });
    let flags = |text: &str| {
        if Dialect::of(text.split(' ').nth(1).unwrap_or_default()) == Dialect::Kes { LOCAL | CERTIFIED } else { LOCAL }
    };
    let mut seeds: Vec<Vec<u8>> = written.map(|text| chosen(flags(&text), text.as_bytes())).collect();
    seeds.extend(through_a_proxy());
    let of_kes: Vec<Vec<u8>> = seeds.iter().filter(|seed| seed[0] & CERTIFIED != 0).cloned().collect();
    for elsewhere in [SITE, CURRENT] {
        seeds.extend(of_kes.iter().map(|seed| chosen(seed[0] | elsewhere, &seed[1..])));
    }
    seeds.push(chosen(SITE | CERTIFIED, b"POST /v1/state/strongbox/system/seal\n\n"));
    seeds.push(chosen(SITE | SEALED, b"POST /v1/state/strongbox/system/unseal\n\n{}"));
    seeds.push(chosen(SITE, b"GET /v1/secret/app/box/a/b\nx-cerberus-token: $R\n\n"));
    seeds
}

/// Requests of a proxy: who says whose they are, who says it twice, and who does not.
fn through_a_proxy() -> Vec<Vec<u8>> {
    let terms = Terms { serial: Serial([1; 16]), validity: Validity { not_before: 0, not_after: 4_000_000_000 } };
    let certificate = proxied().certificate(&terms).expect("a certificate can be made");
    let header = |text: &str| {
        let escaped = text.replace('%', "%25").replace('+', "%2B").replace(' ', "%20").replace('\n', "%0A");
        format!("{PROXY_HEADER}: {escaped}\nx-forwarded-for: 203.0.113.9, ::1")
    };
    let one = header(&pem::certificates(std::slice::from_ref(&certificate)));
    let two = header(&pem::certificates(&[certificate.clone(), certificate]));
    let headers =
        [one.clone(), two, format!("{one}\n{one}"), header("x"), format!("{PROXY_HEADER}:"), String::from("a: b")];
    let lines = ["GET /v1/key/list/*", "PUT /v1/key/generate/k", "GET /v1/status"];
    let all = lines.iter().flat_map(|line| headers.iter().map(move |header| format!("{line}\n{header}\n\n{{}}")));
    all.map(|text| chosen(LOCAL | PROXIED, text.as_bytes())).collect()
}
