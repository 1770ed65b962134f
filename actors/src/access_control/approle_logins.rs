//! Programs: their secret-ids made, and they themselves logged in, at central and at site hosts.
//!
//! A secret-id is random, names its tenant, and is stored as a hash where it was made: at central in the tenant's realm,
//! at a host in the host's own. No node hands them on. So one made at a host is good at that host only, and is gone when
//! the host was wiped.
//!
//! A token from central is signed by the tenant's key, and holds wherever the approle is. A token from a host is signed
//! by that host's own key, and holds at that host only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{ItemName, Realm};
use holdfast_protocol::secret::{Secret, SecretBytes};
use zeroize::Zeroizing;

use crate::access_control::approles::{NO_APPROLE, TEXT_BYTES_MAX, is_no_tenant, parse_role_id};
use crate::access_control::logins::refuse_blocked;
use crate::access_control::records::{Approle, HostTokenKey, Instance, SecretId};
use crate::access_control::tenants::{Issue, after, issue, issue_time};
use crate::access_control::tokens::{
    APPROLE_PREFIX, Caller, Claims, HOST_KEY, HOST_KEY_NAME, TokenId, TokenKind, mint, text_of,
};
use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Refusal, RowKey, Rows};

/// What a secret-id begins with.
const SECRET_ID: &str = "hfs_";
/// Live secret-ids of one tenant at one node.
pub const SECRET_IDS_MAX: usize = 1024;
/// Dead ones that go when a new one is made.
const SWEPT_MAX: usize = 64;

/// Where something is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issuer {
    /// At central.
    Central,
    /// At a site's host, whose node realm holds what it issues.
    Host,
}

impl Issuer {
    /// Where the secret-ids of a tenant lie.
    fn home(self, tenant: Realm) -> Realm {
        match self {
            Self::Central => tenant,
            Self::Host => Realm::NODE,
        }
    }

    /// A line in the chain of the tenant; at a host in the host's own, since the realm of a tenant's content there is
    /// replaced by every full copy.
    fn batch(self, tenant: (u32, Realm), line: impl FnOnce(String) -> Line) -> Batch {
        match self {
            Self::Central => Batch::new(tenant.1, line(String::new())),
            Self::Host => Batch::new(Realm::NODE, line(format!("tenant {}: ", tenant.0))),
        }
    }
}

/// The text of a secret-id.
pub fn secret_id_text(tenant: u32, secret: &Secret<28>) -> Zeroizing<String> {
    let bytes = Zeroizing::new([&tenant.to_be_bytes()[..], secret.expose()].concat());
    let mut text = Zeroizing::new(String::with_capacity(SECRET_ID.len() + 44));
    text.push_str(SECRET_ID);
    URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
    text
}

fn tenant_of_secret_id(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= TEXT_BYTES_MAX)?;
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.strip_prefix(SECRET_ID)?).ok()?);
    let (tenant, random) = bytes.split_first_chunk::<4>()?;
    (random.len() == 28).then_some(u32::from_be_bytes(*tenant))
}

/// Under which name a secret-id is stored. It is random enough that a plain hash gives nothing away.
fn hash_of(text: &[u8]) -> String {
    hex::encode(sha256(&[b"holdfast/secret-id/v1", text]))
}

/// Makes a secret-id.
#[derive(Debug)]
pub struct MintSecretId {
    /// Who asks: an administrator, or one of those whom the approle names.
    pub caller: Caller,
    /// Which approle of the caller's tenant.
    pub approle: ItemName,
    /// Fresh.
    pub secret: Secret<28>,
    /// Fresh, names it for people.
    pub accessor: [u8; 16],
    /// A shorter life than the approle's secret-ids have, seconds.
    pub ttl_s: Option<u64>,
    /// Fewer uses.
    pub num_uses: Option<u32>,
    /// Where.
    pub issuer: Issuer,
}

/// A secret-id, but for its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// When it ends; 0: never.
    pub expires_us: i64,
    /// Logins with it; `None`: no bound.
    pub num_uses: Option<u32>,
}

/// Whether a caller may have secret-ids of an approle made, and so may know its role-id.
pub fn may_mint(caller: &Caller, of: &Approle) -> bool {
    caller.is_admin() || (!caller.is_reader() && !of.secret_id_minters.is_disjoint(&caller.groups))
}

/// The approle of which a caller may have secret-ids made.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Denied`].
pub fn check_minter(rows: &dyn Rows, caller: &Caller, name: &ItemName) -> Result<Approle, Refusal> {
    let found = rows.read::<Approle>(caller.realm, &[name.as_str()])?.ok_or(NO_APPROLE)?.value;
    if may_mint(caller, &found) { Ok(found) } else { Err(Refusal::Denied) }
}

/// Makes a secret-id.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: too many, or the approle takes none; [`Refusal::Invalid`]: more than the
/// approle gives; [`Refusal::Denied`]; [`Refusal::Unauthenticated`].
pub fn mint_secret_id(cmd: &MintSecretId, rows: &dyn Rows, now: Now) -> Result<(Batch, Minted), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let of = check_minter(rows, &caller, &cmd.approle)?;
    if !of.bind_secret_id {
        return Err(Refusal::Conflict("this approle has no secret-ids: bind-secret-id is false".to_owned()));
    }
    let (ttl_s, num_uses) =
        (within(cmd.ttl_s, of.secret_id_ttl_s)?, within(cmd.num_uses.map(u64::from), of.secret_id_num_uses.into())?);
    let num_uses = u32::try_from(num_uses).ok().filter(|uses| *uses != 0);
    let expires_us = if ttl_s == 0 { 0 } else { after(now.wall_us, ttl_s) };
    let home = cmd.issuer.home(caller.realm);
    let accessor = uuid::Uuid::from_bytes(cmd.accessor);
    let mut batch = cmd.issuer.batch((caller.tenant, caller.realm), |of| {
        Line::done(now.wall_us, caller.actor(), "approle.secret-id", format!("{of}{} {accessor}", cmd.approle))
    });
    make_room(&mut batch, rows, &caller, home, now)?;
    let made = SecretId {
        approle: cmd.approle.to_string(),
        instance: of.instance,
        uses_left: num_uses,
        expires_us,
        accessor: cmd.accessor,
        by: caller.actor().to_owned(),
    };
    let hash = hash_of(secret_id_text(caller.tenant, &cmd.secret).as_bytes());
    batch.put(home, &[&caller.tenant.to_string(), &hash], &made);
    Ok((batch, Minted { expires_us, num_uses }))
}

/// As much as was asked for, if the bound allows it; 0 is endless.
fn within(asked: Option<u64>, bound: u64) -> Result<u64, Refusal> {
    match asked {
        None => Ok(bound),
        Some(asked) if bound == 0 || (1..=bound).contains(&asked) => Ok(asked),
        Some(_) => Err(Refusal::Invalid(
            "a secret-id may live no longer and be used no more often than its approle says".to_owned(),
        )),
    }
}

/// Takes away what no longer holds; refuses where too many do.
fn make_room(batch: &mut Batch, rows: &dyn Rows, caller: &Caller, home: Realm, now: Now) -> Result<(), Refusal> {
    let all = rows.list::<SecretId>(home, &[&caller.tenant.to_string()])?;
    let approles = rows.list::<Approle>(caller.realm, &[])?;
    let instances: Vec<Instance> = approles.into_iter().map(|row| row.value.instance).collect();
    let holds = |id: &SecretId| (id.expires_us == 0 || now.wall_us < id.expires_us) && instances.contains(&id.instance);
    let (live, dead): (Vec<_>, Vec<_>) = all.into_iter().partition(|row| holds(&row.value));
    if SECRET_IDS_MAX <= live.len() {
        return Err(Refusal::Conflict(format!("{SECRET_IDS_MAX} secret-ids of the tenant are in use at this node")));
    }
    for row in dead.into_iter().take(SWEPT_MAX) {
        batch.forget_key(RowKey { kind: Kind::SecretId, realm: home, path: row.path });
    }
    Ok(())
}

/// A program logs in.
#[derive(Debug)]
pub struct ApproleLogin {
    /// What it says it is.
    pub role_id: Option<SecretBytes>,
    /// What proves it.
    pub secret_id: Option<SecretBytes>,
    /// Fresh: names the token.
    pub token_id: TokenId,
    /// Fresh: should a host have no key for tokens yet.
    pub host_key: Secret<32>,
    /// Where.
    pub issuer: Issuer,
}

/// Logs a program in. `locate` finds a tenant's realm at this node by its number. The reply is what the token says.
///
/// # Errors
/// [`Refusal::Unauthenticated`], whatever is wrong; the store's refusals.
pub fn log_in_approle(
    cmd: &ApproleLogin,
    locate: &dyn Fn(u32) -> Option<Realm>,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, Claims), Refusal> {
    let Proven { tenant, realm, name, approle, used } = prove(cmd, locate, rows, now)?;
    refuse_blocked(rows, realm)?;
    let principal = format!("{APPROLE_PREFIX}{name}");
    let mut batch = cmd.issuer.batch((tenant, realm), |of| {
        Line::done(now.wall_us, &principal, "approle.login", format!("{of}{}", cmd.token_id.accessor()))
    });
    if let Some((hash, id)) = used {
        let (home, path) = (cmd.issuer.home(realm), [tenant.to_string(), hash]);
        let path = [path[0].as_str(), path[1].as_str()];
        match id.uses_left {
            Some(0 | 1) => batch.forget::<SecretId>(home, &path),
            Some(left) => batch.put(home, &path, &SecretId { uses_left: Some(left - 1), ..id }),
            None => {}
        }
    }
    let to = To { issuer: cmd.issuer, tenant, realm, principal, approle: &approle };
    let claims = to.issue(&mut batch, (cmd.token_id, &cmd.host_key), rows, now)?;
    Ok((batch, claims))
}

/// A program that gets a token.
struct To<'a> {
    issuer: Issuer,
    tenant: u32,
    realm: Realm,
    principal: String,
    approle: &'a Approle,
}

impl To<'_> {
    fn issue(
        self,
        batch: &mut Batch,
        (id, host_key): (TokenId, &Secret<32>),
        rows: &dyn Rows,
        now: Now,
    ) -> Result<Claims, Refusal> {
        let Self { issuer, tenant, realm, principal, approle } = self;
        let kind = TokenKind::Approle(approle.instance);
        if issuer == Issuer::Central {
            let ttl_s = Some(approle.token_ttl_s);
            return issue(batch, rows, &Issue { tenant: realm, id, principal, kind, ttl_s, refresh_count: 0 }, now);
        }
        keep_host_key(batch, rows, host_key)?;
        let mut claims = Claims::new(Realm(tenant), HOST_KEY, id, principal, kind);
        claims.issued_us = issue_time(rows, realm, &claims.principal, now)?;
        claims.expires_us = after(claims.issued_us, approle.token_ttl_s);
        Ok(claims)
    }
}

/// Who has proved what.
struct Proven {
    tenant: u32,
    realm: Realm,
    name: ItemName,
    approle: Approle,
    /// The secret-id, by its hash.
    used: Option<(String, SecretId)>,
}

fn prove(
    cmd: &ApproleLogin,
    locate: &dyn Fn(u32) -> Option<Realm>,
    rows: &dyn Rows,
    now: Now,
) -> Result<Proven, Refusal> {
    let realm_of = |tenant: u32| locate(tenant).filter(|realm| !is_no_tenant(*realm)).ok_or(Refusal::Unauthenticated);
    let role_id = cmd.role_id.as_ref().map(SecretBytes::expose);
    let Some(secret_id) = cmd.secret_id.as_ref().map(SecretBytes::expose) else {
        let (tenant, name) = role_id.and_then(parse_role_id).ok_or(Refusal::Unauthenticated)?;
        let realm = realm_of(tenant)?;
        let approle = known::<Approle>(rows, realm, &[name.as_str()])?;
        let good = !approle.bind_secret_id && role_id.is_some_and(|shown| approle.role_id.ct_eq(shown));
        let proven = Proven { tenant, realm, name, approle, used: None };
        return if good { Ok(proven) } else { Err(Refusal::Unauthenticated) };
    };
    let tenant = tenant_of_secret_id(secret_id).ok_or(Refusal::Unauthenticated)?;
    let (realm, hash) = (realm_of(tenant)?, hash_of(secret_id));
    let id = known::<SecretId>(rows, cmd.issuer.home(realm), &[&tenant.to_string(), &hash])?;
    let approle = known::<Approle>(rows, realm, &[&id.approle])?;
    let shown = role_id.unwrap_or_default();
    let weak = approle.weak_secret_id && (shown.is_empty() || shown == secret_id);
    let holds = (id.expires_us == 0 || now.wall_us < id.expires_us) && id.instance == approle.instance;
    if !holds || !(weak || approle.role_id.ct_eq(shown)) {
        return Err(Refusal::Unauthenticated);
    }
    let name = id.approle.parse().map_err(|_| Refusal::Corrupt)?;
    Ok(Proven { tenant, realm, name, approle, used: Some((hash, id)) })
}

/// A row that proves something; nothing is proved where there is none, or no such realm.
fn known<T: crate::rows::Record>(rows: &dyn Rows, realm: Realm, path: &[&str]) -> Result<T, Refusal> {
    match rows.read::<T>(realm, path) {
        Ok(Some(row)) => Ok(row.value),
        Ok(None) | Err(Refusal::NotFound(_)) => Err(Refusal::Unauthenticated),
        Err(refusal) => Err(refusal),
    }
}

fn keep_host_key(batch: &mut Batch, rows: &dyn Rows, fresh: &Secret<32>) -> Result<(), Refusal> {
    if rows.read::<HostTokenKey>(Realm::NODE, &[HOST_KEY_NAME])?.is_none() {
        let public = SigningKey::from_seed(fresh).public().clone();
        batch.put(Realm::NODE, &[HOST_KEY_NAME], &HostTokenKey { seed: fresh.duplicate(), public });
    }
    Ok(())
}

/// The text of a token whose claims have been committed.
///
/// # Errors
/// [`Refusal::NotFound`]: no such key; the store's refusals.
pub fn token_text(rows: &dyn Rows, claims: &Claims) -> Result<Zeroizing<String>, Refusal> {
    if claims.key_id != HOST_KEY {
        return mint(rows, claims);
    }
    let key = rows.read::<HostTokenKey>(Realm::NODE, &[HOST_KEY_NAME])?.ok_or(Refusal::NotFound("token key"))?;
    Ok(text_of(&SigningKey::from_seed(&key.value.seed), claims))
}

/// Exchanges a program's token for one that lives as long as a new one, at the node that the caller calls. The one before
/// holds until its own end.
///
/// # Errors
/// [`Refusal::Unauthenticated`]; [`Refusal::Denied`]: no program's.
pub fn renew_approle_token(
    (caller, token_id, issuer): (&Caller, TokenId, Issuer),
    host_key: &Secret<32>,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, Claims), Refusal> {
    let caller = caller.renewed(rows, now)?;
    let name = caller.principal.strip_prefix(APPROLE_PREFIX).ok_or(Refusal::Denied)?;
    let approle = known::<Approle>(rows, caller.realm, &[name])?;
    let mut batch = issuer.batch((caller.tenant, caller.realm), |of| {
        Line::done(now.wall_us, caller.actor(), "token.refresh", format!("{of}{}", token_id.accessor()))
    });
    let (tenant, realm, principal) = (caller.tenant, caller.realm, caller.principal.clone());
    let to = To { issuer, tenant, realm, principal, approle: &approle };
    let claims = to.issue(&mut batch, (token_id, host_key), rows, now)?;
    Ok((batch, claims))
}
