//! Tenants: made, set up once, blocked; and root tokens, which tenants are given and operators make in emergencies.

use std::collections::BTreeSet;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{Realm, TenantName};
use holdfast_protocol::secret::Secret;

use crate::access_control::records::{
    Login, Principal, Revocation, Tenant, TenantKind, Token, TokenKey, TokenVerifier, key_id_segment,
};
use crate::access_control::tokens::{Claims, ROOT, SYSTEM, TokenId, TokenKind};
use crate::access_control::{ADMINS, logins};
use crate::audit_log::Line;
use crate::distribute::{Distribute, Placement};
use crate::key_store::TransitKey;
use crate::ports::Now;
use crate::rows::{Batch, ReadRows, Refusal, Rows};
use crate::secret_store::{DepositBox, default_categories};

/// The name of the tenant that operates the deployment.
pub const SYSTEM_NAME: &str = "system";
/// The first token key of a tenant.
const FIRST_KEY: u32 = 1;

/// The tenant of a name; a deleted one is not there.
///
/// # Errors
/// The store's refusals.
pub fn tenant(rows: &dyn Rows, name: &TenantName) -> Result<Option<Tenant>, Refusal> {
    let row = rows.read::<Tenant>(Realm::NODE, &[name.as_str()])?;
    Ok(row.map(|row| row.value).filter(|tenant| tenant.deleted_us.is_none()))
}

/// All tenants, by name.
///
/// # Errors
/// The store's refusals.
pub fn tenants(rows: &dyn Rows) -> Result<Vec<Tenant>, Refusal> {
    Ok(tenants_ever(rows)?.into_iter().filter(|tenant| tenant.deleted_us.is_none()).collect())
}

/// The same with those that were deleted: sites may still hold something of them.
///
/// # Errors
/// The store's refusals.
pub fn tenants_ever(rows: &dyn Rows) -> Result<Vec<Tenant>, Refusal> {
    Ok(rows.list::<Tenant>(Realm::NODE, &[])?.into_iter().map(|row| row.value).collect())
}

/// Makes a tenant with its keys; nobody can log in to it before it is set up.
#[derive(Debug)]
pub struct CreateTenant {
    /// Free, and `system` exactly if `kind` is.
    pub name: TenantName,
    /// What it is for.
    pub kind: TenantKind,
    /// Fresh: what hides its names.
    pub base: Secret<32>,
    /// Fresh: what encrypts its records.
    pub key: Secret<32>,
    /// Fresh: what signs its tokens.
    pub token_seed: Secret<32>,
    /// Who asks, for the audit log.
    pub by: String,
}

/// Makes a tenant.
///
/// # Errors
/// [`Refusal::Exists`]; [`Refusal::Conflict`]: one of this name was deleted; [`Refusal::Invalid`]: name and kind do not
/// go together.
pub fn create_tenant(cmd: &CreateTenant, rows: &dyn Rows, now: Now) -> Result<(Batch, Tenant), Refusal> {
    if (cmd.name.as_str() == SYSTEM_NAME) != (cmd.kind == TenantKind::System) {
        return Err(Refusal::Invalid("the tenant of kind system, and only it, is named system".to_owned()));
    }
    let existing = tenants_ever(rows)?;
    match existing.iter().find(|tenant| tenant.name == cmd.name) {
        None => {}
        Some(Tenant { deleted_us: None, .. }) => return Err(Refusal::Exists("tenant")),
        // Sites and audit lines that name the old one would be taken to speak of the new one.
        Some(_) => return Err(Refusal::Conflict("a tenant of this name was deleted".to_owned())),
    }
    let last = existing.iter().map(|tenant| tenant.realm).max().unwrap_or(SYSTEM).max(SYSTEM);
    let realm = if cmd.kind == TenantKind::System { SYSTEM } else { Realm(last.0 + 1) };
    let (name, kind, created_us) = (cmd.name.clone(), cmd.kind, now.wall_us);
    let tenant = Tenant { name, realm, kind, set_up: false, created_us, deleted_us: None };

    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, &cmd.by, "tenant.create", cmd.name.as_str()));
    batch.create_realm(realm, cmd.base.duplicate(), cmd.key.duplicate());
    batch.put(Realm::NODE, &[cmd.name.as_str()], &tenant);
    let public = SigningKey::from_seed(&cmd.token_seed).public().clone();
    let segment = key_id_segment(FIRST_KEY);
    batch.put(realm, &[&segment], &TokenKey { key_id: FIRST_KEY, seed: cmd.token_seed.duplicate() });
    batch.put(realm, &[&segment], &TokenVerifier { key_id: FIRST_KEY, public });
    for category in default_categories(now.wall_us) {
        batch.put(realm, &[&category.id], &category);
    }
    Ok((batch, tenant))
}

/// Gives a tenant its first administrator. Carries a password's hash, so it has no `Debug`.
pub struct SetupTenant {
    /// Which.
    pub name: TenantName,
    /// Will be in the group [`ADMINS`].
    pub admin_username: String,
    /// Of [`crate::access_control::password::hash`].
    pub password_hash: String,
    /// For people.
    pub full_name: Option<String>,
    /// Fresh: names the root token.
    pub token_id: TokenId,
    /// Who asks, for the audit log.
    pub by: String,
}

/// Sets a tenant up, once. The reply is what its root token says; [`crate::access_control::tokens::mint`] makes the
/// text of it after the commit.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Conflict`]: set up already; [`Refusal::Invalid`]: a user name that can't be.
pub fn setup_tenant(cmd: &SetupTenant, rows: &dyn Rows, now: Now) -> Result<(Batch, Claims), Refusal> {
    logins::check_username(&cmd.admin_username)?;
    let mut tenant = tenant(rows, &cmd.name)?.ok_or(Refusal::NotFound("tenant"))?;
    if tenant.set_up {
        return Err(Refusal::Conflict("the tenant is set up already".to_owned()));
    }
    if is_blocked(rows, tenant.realm)? {
        return Err(Refusal::Conflict("the tenant is blocked: it gets no tokens".to_owned()));
    }
    tenant.set_up = true;
    let mut batch = Batch::new(tenant.realm, Line::done(now.wall_us, &cmd.by, "tenant.setup", &cmd.admin_username));
    batch.put(Realm::NODE, &[cmd.name.as_str()], &tenant);
    let login = Login { password_hash: cmd.password_hash.clone(), full_name: cmd.full_name.clone() };
    batch.put(tenant.realm, &[&cmd.admin_username], &login);
    let admin = Principal { groups: BTreeSet::from([ADMINS.to_owned()]), disabled: false };
    batch.put(tenant.realm, &[&cmd.admin_username], &admin);
    let claims = issue(&mut batch, rows, &Issue::root(tenant.realm, cmd.token_id), now)?;
    Ok((batch, claims))
}

/// Marks a tenant as deleted: from here on its names and tokens are nobody's. What it had goes when the keys of its
/// realm are erased, which must follow; hosts are sent an empty copy. `force`: also if it has boxes
/// or keys.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: the tenant `system`, or one with boxes or keys.
pub fn delete_tenant(
    name: &TenantName,
    force: bool,
    by: &str,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, Realm), Refusal> {
    let mut tenant = tenant(rows, name)?.ok_or(Refusal::NotFound("tenant"))?;
    if tenant.realm == SYSTEM {
        return Err(Refusal::Conflict("the tenant system can't be deleted".to_owned()));
    }
    if !force {
        refuse_while_there_is_content(rows, tenant.realm)?;
    }
    tenant.deleted_us = Some(now.wall_us);
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, by, "tenant.delete", name.as_str()));
    batch.put(Realm::NODE, &[name.as_str()], &tenant);
    Ok((batch, tenant.realm))
}

fn refuse_while_there_is_content(rows: &dyn Rows, realm: Realm) -> Result<(), Refusal> {
    let boxes = rows.list::<DepositBox>(realm, &[])?;
    let keys = rows.list::<TransitKey>(realm, &[])?;
    if boxes.is_empty() && keys.is_empty() {
        return Ok(());
    }
    let is_placed = |distribute: &Distribute| distribute.to != Placement::None;
    let placed_boxes = boxes.iter().filter(|row| is_placed(&row.value.distribute)).count();
    let placed_keys = keys.iter().filter(|row| is_placed(&row.value.distribute)).count();
    let mut why = format!("the tenant has {} vaults or boxes, {placed_boxes} of them at sites", boxes.len());
    if !keys.is_empty() {
        why.push_str(&format!(", and {} keys, {placed_keys} of them at sites", keys.len()));
    }
    Err(Refusal::Conflict(why))
}

/// Makes a further root token, for emergencies.
///
/// # Errors
/// The store's refusals.
pub fn create_root_token(
    tenant: Realm,
    token_id: TokenId,
    by: &str,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, Claims), Refusal> {
    let mut batch = Batch::new(tenant, Line::done(now.wall_us, by, "token.create-root", token_id.accessor()));
    let claims = issue(&mut batch, rows, &Issue::root(tenant, token_id), now)?;
    Ok((batch, claims))
}

/// Blocks all of a tenant's tokens and logins, or lifts that; older tokens hold again then. To ask for what is so
/// already changes nothing.
///
/// # Errors
/// [`Refusal::NotFound`]: no such tenant; [`Refusal::Conflict`]: the tenant `system`, without which nobody could lift it.
pub fn set_blocked(
    name: &TenantName,
    blocked: bool,
    by: &str,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, Realm), Refusal> {
    let realm = tenant(rows, name)?.ok_or(Refusal::NotFound("tenant"))?.realm;
    if realm == SYSTEM {
        return Err(Refusal::Conflict("the tenant system can't be blocked: nobody could unblock it".to_owned()));
    }
    let (not_before_us, before) = match rows.read::<Revocation>(realm, &["tenant"])?.map(|row| row.value) {
        Some(Revocation::Tenant { not_before_us, blocked }) => (not_before_us, blocked),
        _ => (i64::MIN, false),
    };
    if before == blocked {
        return Ok((Batch::housekeeping(), realm));
    }
    let action = if blocked { "tenant.block" } else { "tenant.unblock" };
    // Who is to be kept out must be so on a full disk, too.
    let mut batch = Batch::new(realm, Line::done(now.wall_us, by, action, name.as_str())).from_reserve();
    batch.put(realm, &["tenant"], &Revocation::Tenant { not_before_us, blocked });
    Ok((batch, realm))
}

/// Whether a tenant is blocked.
///
/// # Errors
/// The store's refusals.
pub fn is_blocked(rows: &dyn Rows, realm: Realm) -> Result<bool, Refusal> {
    let row = rows.read::<Revocation>(realm, &["tenant"])?;
    Ok(row.is_some_and(|row| matches!(row.value, Revocation::Tenant { blocked: true, .. })))
}

/// A token to be issued.
pub(super) struct Issue {
    pub(super) tenant: Realm,
    pub(super) id: TokenId,
    pub(super) principal: String,
    pub(super) kind: TokenKind,
    /// Seconds; `None`: no end.
    pub(super) ttl_s: Option<u64>,
    pub(super) refresh_count: u32,
}

impl Issue {
    fn root(tenant: Realm, id: TokenId) -> Self {
        Self { tenant, id, principal: ROOT.to_owned(), kind: TokenKind::Root, ttl_s: None, refresh_count: 0 }
    }
}

/// Notes a token and gives its claims. It counts as issued after every revocation so far, even if the clock stepped back.
pub(super) fn issue(batch: &mut Batch, rows: &dyn Rows, issue: &Issue, now: Now) -> Result<Claims, Refusal> {
    let key_id = current_key(rows, issue.tenant)?;
    let mut claims = Claims::new(issue.tenant, key_id, issue.id, issue.principal.clone(), issue.kind);
    claims.issued_us = issue_time(rows, issue.tenant, &issue.principal, now)?;
    if let Some(ttl_s) = issue.ttl_s {
        claims.expires_us = after(claims.issued_us, ttl_s);
    }
    let token = Token {
        principal: issue.principal.clone(),
        issued_us: claims.issued_us,
        expires_us: claims.expires_us,
        refresh_count: issue.refresh_count,
    };
    batch.put(issue.tenant, &[&issue.id.to_string()], &token);
    Ok(claims)
}

/// When a token counts as issued: now, or after every revocation so far.
pub(super) fn issue_time(rows: &dyn Rows, realm: Realm, principal: &str, now: Now) -> Result<i64, Refusal> {
    let mut issued_us = now.wall_us;
    for path in [&["tenant"][..], &["principal", principal]] {
        match rows.read::<Revocation>(realm, path)?.map(|row| row.value) {
            Some(Revocation::Principal { not_before_us } | Revocation::Tenant { not_before_us, .. }) => {
                issued_us = issued_us.max(not_before_us);
            }
            Some(Revocation::Token { .. }) | None => {}
        }
    }
    Ok(issued_us)
}

/// So many seconds later.
pub(super) fn after(at_us: i64, seconds: u64) -> i64 {
    at_us.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}

fn current_key(rows: &dyn Rows, tenant: Realm) -> Result<u32, Refusal> {
    let verifiers = rows.list::<TokenVerifier>(tenant, &[])?;
    verifiers.last().map(|row| row.value.key_id).ok_or(Refusal::NotFound("token key"))
}
