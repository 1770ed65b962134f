//! Approles, by which programs log in: made, changed, removed, at central.
//!
//! What a program may do is said by its `token_policies`: names of groups. It counts as a member of these and of no other
//! group, and administers nothing. They are looked up at each request, so a change bites without a new token.
//!
//! Each approle has an *instance*, drawn anew when it is made and when what proves a program changes. Tokens and
//! secret-ids carry it: those of another instance are none, at every node that has the newer row.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_protocol::ids::{ItemName, Realm};
use holdfast_protocol::secret::SecretBytes;

use crate::access_control::ADMINS;
use crate::access_control::logins::end_tokens;
use crate::access_control::records::{Approle, Instance, SecretId};
use crate::access_control::tokens::{APPROLE_PREFIX, Caller};
use crate::audit_log::Line;
use crate::distribute::Distribute;
use crate::ports::Now;
use crate::rows::{Batch, Expected, ReadRows, Refusal, Row, RowKey, Rows};

/// Most approles of a tenant.
pub const APPROLES_MAX: usize = 500;
/// Longest life of a token or a secret-id: ten years.
const TTL_S_MAX: u64 = 10 * 365 * 86_400;
/// Most groups that an approle names, of either kind.
const GROUPS_MAX: usize = 64;
/// How long a program's token lives unless somebody says otherwise, in seconds.
pub const TOKEN_TTL_S: u64 = 3600;
/// What a role-id that was drawn begins with.
const ROLE_ID: &str = "hfr_";
/// Longest role-id or secret-id that is looked at.
pub(super) const TEXT_BYTES_MAX: usize = 256;
/// Secret-ids that one change takes away; the others hold no longer either, and go when new ones are made.
const REMOVED_MAX: usize = 64;
pub(super) const NO_APPROLE: Refusal = Refusal::NotFound("approle");

/// An approle as somebody asks for it.
#[derive(Debug, Clone)]
pub struct ApproleSpec {
    /// Chosen, not drawn.
    pub fixed_role_id: Option<String>,
    /// See [`Approle`], as the following.
    pub bind_secret_id: bool,
    /// A secret-id is enough.
    pub weak_secret_id: bool,
    /// Seconds; 0: no end.
    pub secret_id_ttl_s: u64,
    /// 0: no bound.
    pub secret_id_num_uses: u32,
    /// Seconds.
    pub token_ttl_s: u64,
    /// Groups.
    pub token_policies: BTreeSet<String>,
    /// Groups.
    pub secret_id_minters: BTreeSet<String>,
    /// Where programs may log in.
    pub distribute: Distribute,
}

impl Default for ApproleSpec {
    fn default() -> Self {
        Self {
            fixed_role_id: None,
            bind_secret_id: true,
            weak_secret_id: false,
            secret_id_ttl_s: 0,
            secret_id_num_uses: 0,
            token_ttl_s: TOKEN_TTL_S,
            token_policies: BTreeSet::new(),
            secret_id_minters: BTreeSet::new(),
            distribute: Distribute::default(),
        }
    }
}

impl ApproleSpec {
    /// What an approle is, as somebody would ask for it.
    pub fn of(approle: &Approle) -> Self {
        let role_id = String::from_utf8_lossy(approle.role_id.expose()).into_owned();
        Self {
            fixed_role_id: approle.fixed_role_id.then_some(role_id),
            bind_secret_id: approle.bind_secret_id,
            weak_secret_id: approle.weak_secret_id,
            secret_id_ttl_s: approle.secret_id_ttl_s,
            secret_id_num_uses: approle.secret_id_num_uses,
            token_ttl_s: approle.token_ttl_s,
            token_policies: approle.token_policies.clone(),
            secret_id_minters: approle.secret_id_minters.clone(),
            distribute: approle.distribute.clone(),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let invalid = |why: &str| Err(Refusal::Invalid(why.to_owned()));
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.fixed_role_id.as_ref().is_some_and(|id| !(8..=128).contains(&id.len()) || !id.chars().all(good)) {
            return invalid("fixed-role-id has 8 to 128 letters, digits and ._-");
        }
        if !self.bind_secret_id && (self.fixed_role_id.is_some() || self.weak_secret_id) {
            // The role-id alone proves the program then: nobody may choose it, and two tenants may not share it.
            return invalid("with bind-secret-id false there is neither fixed-role-id nor weak-secret-id");
        }
        if self.token_ttl_s == 0 || TTL_S_MAX < self.token_ttl_s || TTL_S_MAX < self.secret_id_ttl_s {
            return invalid("token-ttl is 1 second to ten years, secret-id-ttl at most that");
        }
        for groups in [&self.token_policies, &self.secret_id_minters] {
            let bad = |name: &String| name.trim() != name || name.is_empty() || 255 < name.len();
            if GROUPS_MAX < groups.len() || groups.iter().any(bad) {
                return invalid("token-policies and secret-id-minters have at most 64 names of 1 to 255 bytes each");
            }
        }
        if self.token_policies.contains(ADMINS) {
            return invalid("token-policies: a program does not administer");
        }
        if self.distribute.offline_s.is_some() {
            return invalid("distribute: an approle has no offline time of its own; those of the vaults hold");
        }
        self.distribute.check()
    }
}

/// What comes of an old approle, where there is one.
pub type Change = dyn Fn(Option<ApproleSpec>) -> Result<ApproleSpec, Refusal> + Send + Sync;

/// Fresh random bytes for an approle.
#[derive(Debug, Clone, Copy)]
pub struct FreshRole {
    /// For a role-id.
    pub role: [u8; 16],
    /// The instance, should it have to be a new one.
    pub instance: Instance,
}

/// Makes or changes an approle.
pub struct PutApprole {
    /// Who asks; an administrator of the tenant.
    pub caller: Caller,
    /// Which.
    pub name: ItemName,
    /// What it shall be; refuses what may not be made, or only be made.
    pub change: Box<Change>,
    /// What the caller expects of the one there is, by its row's version.
    pub expected: Expected,
    /// Random bytes.
    pub fresh: FreshRole,
}

/// What came of it.
#[derive(Debug)]
pub struct PutDone {
    /// As it is now.
    pub approle: Approle,
    /// Version of its row.
    pub version: u64,
    /// There was none before.
    pub created: bool,
}

/// Makes or changes an approle.
///
/// # Errors
/// What the change refuses; [`Refusal::Changed`]; [`Refusal::Invalid`]; [`Refusal::Conflict`]: too many;
/// [`Refusal::Denied`]; [`Refusal::Unauthenticated`].
pub fn put_approle(cmd: &PutApprole, rows: &dyn Rows, now: Now) -> Result<(Batch, PutDone), Refusal> {
    let caller = administrator(&cmd.caller, rows, now)?;
    let path = [cmd.name.as_str()];
    let old = rows.read::<Approle>(caller.realm, &path)?;
    let spec = (cmd.change)(old.as_ref().map(|row| ApproleSpec::of(&row.value)))?;
    cmd.expected.check(old.as_ref().map(|row| row.version))?;
    spec.check()?;
    if old.is_none() && APPROLES_MAX <= rows.list::<Approle>(caller.realm, &[])?.len() {
        return Err(Refusal::Conflict(format!("a tenant has at most {APPROLES_MAX} approles")));
    }
    let (approle, created) = (made_of(spec, old.as_ref(), cmd, &caller, now), old.is_none());
    let action = if created { "approle.create" } else { "approle.update" };
    let mut batch = Batch::new(caller.realm, Line::done(now.wall_us, caller.actor(), action, cmd.name.as_str()));
    batch.put(caller.realm, &path, &approle);
    if let Some(old) = old.filter(|old| old.value.instance != approle.instance) {
        end_issued(&mut batch, rows, (&caller, &cmd.name, &old.value.instance), now)?;
    }
    let version = rows.load(&RowKey::of::<Approle>(caller.realm, &path))?.map_or(0, |row| row.version) + 1;
    Ok((batch, PutDone { approle, version, created }))
}

/// The approle, with the old instance if what proves a program is the same.
fn made_of(spec: ApproleSpec, old: Option<&Row<Approle>>, cmd: &PutApprole, caller: &Caller, now: Now) -> Approle {
    let old = old.map(|row| &row.value);
    let kept = |old: &&Approle| !old.fixed_role_id && spec.fixed_role_id.is_none();
    let role_id = match (&spec.fixed_role_id, old.filter(kept)) {
        (Some(fixed), _) => SecretBytes::from(fixed.clone()),
        (None, Some(old)) => SecretBytes::new(old.role_id.expose().to_vec()),
        (None, None) => SecretBytes::from(drawn_role_id(caller.tenant, cmd.name.as_str(), &cmd.fresh.role)),
    };
    let same = |old: &&Approle| {
        old.role_id.ct_eq(role_id.expose())
            && old.bind_secret_id == spec.bind_secret_id
            && old.weak_secret_id == spec.weak_secret_id
    };
    Approle {
        instance: old.filter(same).map_or(cmd.fresh.instance, |old| old.instance),
        instance_us: old.filter(same).map_or(now.wall_us, |old| old.instance_us),
        created_by: old.map_or_else(|| caller.actor().to_owned(), |old| old.created_by.clone()),
        created_us: old.map_or(now.wall_us, |old| old.created_us),
        role_id,
        fixed_role_id: spec.fixed_role_id.is_some(),
        bind_secret_id: spec.bind_secret_id,
        weak_secret_id: spec.weak_secret_id,
        secret_id_ttl_s: spec.secret_id_ttl_s,
        secret_id_num_uses: spec.secret_id_num_uses,
        token_ttl_s: spec.token_ttl_s,
        token_policies: spec.token_policies,
        secret_id_minters: spec.secret_id_minters,
        distribute: spec.distribute,
    }
}

/// Removes an approle: its tokens and secret-ids end.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Changed`], [`Refusal::Denied`], [`Refusal::Unauthenticated`].
pub fn delete_approle(
    (caller, name, expected): (&Caller, &ItemName, &Expected),
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, ()), Refusal> {
    let caller = administrator(caller, rows, now)?;
    let path = [name.as_str()];
    let old = rows.read::<Approle>(caller.realm, &path)?.ok_or(NO_APPROLE)?;
    expected.check(Some(old.version))?;
    let line = Line::done(now.wall_us, caller.actor(), "approle.delete", name.as_str());
    let mut batch = Batch::new(caller.realm, line);
    batch.delete::<Approle>(caller.realm, &path);
    end_issued(&mut batch, rows, (&caller, name, &old.value.instance), now)?;
    Ok((batch, ()))
}

/// Ends all tokens and secret-ids that an approle has so far, wherever they were issued. A role-id that was drawn stays.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Denied`], [`Refusal::Unauthenticated`].
pub fn revoke_approle(
    (caller, name, instance): (&Caller, &ItemName, Instance),
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, ()), Refusal> {
    let caller = administrator(caller, rows, now)?;
    let path = [name.as_str()];
    let mut approle = rows.read::<Approle>(caller.realm, &path)?.ok_or(NO_APPROLE)?.value;
    let before = std::mem::replace(&mut approle.instance, instance);
    approle.instance_us = now.wall_us;
    let line = Line::done(now.wall_us, caller.actor(), "approle.revoke", name.as_str());
    let mut batch = Batch::new(caller.realm, line);
    batch.put(caller.realm, &path, &approle);
    end_issued(&mut batch, rows, (&caller, name, &before), now)?;
    Ok((batch, ()))
}

/// An approle of the caller's tenant; `None` if there is none.
///
/// # Errors
/// The store's refusals.
pub fn approle(rows: &dyn Rows, caller: &Caller, name: &ItemName) -> Result<Option<Row<Approle>>, Refusal> {
    rows.read::<Approle>(caller.realm, &[name.as_str()])
}

fn administrator(caller: &Caller, rows: &dyn Rows, now: Now) -> Result<Caller, Refusal> {
    let caller = caller.renewed(rows, now)?;
    if caller.is_admin() { Ok(caller) } else { Err(Refusal::Denied) }
}

/// The new instance is what ends tokens and secret-ids; besides, no list shows them any more.
fn end_issued(
    batch: &mut Batch,
    rows: &dyn Rows,
    (caller, name, of): (&Caller, &ItemName, &Instance),
    now: Now,
) -> Result<(), Refusal> {
    end_tokens(batch, rows, (caller.realm, &format!("{APPROLE_PREFIX}{name}")), now)?;
    let all = rows.list::<SecretId>(caller.realm, &[&caller.tenant.to_string()])?;
    for row in all.into_iter().filter(|row| row.value.instance == *of).take(REMOVED_MAX) {
        batch.forget_key(RowKey { kind: crate::rows::Kind::SecretId, realm: caller.realm, path: row.path });
    }
    Ok(())
}

/// A role-id says whose it is, so that a login finds the approle by it.
fn drawn_role_id(tenant: u32, name: &str, random: &[u8; 16]) -> String {
    format!("{ROLE_ID}{}", URL_SAFE_NO_PAD.encode([&tenant.to_be_bytes()[..], random, name.as_bytes()].concat()))
}

/// The tenant's number and the approle's name in a role-id that was drawn.
pub(super) fn parse_role_id(text: &[u8]) -> Option<(u32, ItemName)> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= TEXT_BYTES_MAX)?;
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(ROLE_ID)?).ok()?;
    let (tenant, rest) = bytes.split_first_chunk::<4>()?;
    let name = std::str::from_utf8(rest.get(16..)?).ok()?;
    Some((u32::from_be_bytes(*tenant), name.parse().ok()?))
}

/// Whether nothing of a tenant can lie there.
pub(super) fn is_no_tenant(realm: Realm) -> bool {
    realm == Realm::NODE
}
