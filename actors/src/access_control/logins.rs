//! Users: made and changed, logged in and out, their tokens renewed and revoked.

use std::collections::BTreeSet;

use holdfast_protocol::ids::Realm;

use crate::access_control::ADMINS;
use crate::access_control::records::{Login, Principal, Revocation, Token};
use crate::access_control::tenants::{Issue, is_blocked, issue};
use crate::access_control::tokens::{Caller, Claims, ROOT, SYSTEM, TokenId, TokenKind, check_principal};
use crate::access_control::users::keep_an_admin;
use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, ReadRows, Refusal, Row, Rows};

/// Whether a user may be called so.
///
/// # Errors
/// [`Refusal::Invalid`].
pub fn check_username(name: &str) -> Result<(), Refusal> {
    check_principal(name)?;
    if name == ROOT { Err(Refusal::Invalid(format!("no user may be named {ROOT}"))) } else { Ok(()) }
}

/// What a user's password is verified against; `None`: no such user, or no such tenant.
///
/// # Errors
/// The store's refusals.
pub fn login_of(rows: &dyn Rows, realm: Realm, username: &str) -> Result<Option<Row<Login>>, Refusal> {
    if realm == Realm::NODE || check_username(username).is_err() {
        return Ok(None);
    }
    match rows.read::<Login>(realm, &[username]) {
        Err(Refusal::NotFound(_)) => Ok(None),
        other => other,
    }
}

/// Logs in a user whose password has been verified.
#[derive(Debug)]
pub struct LogIn {
    /// The tenant.
    pub realm: Realm,
    /// Who.
    pub username: String,
    /// Version of the row that held the hash: a password changed meanwhile does not log in by the old one.
    pub verified_version: u64,
    /// Fresh: names the token.
    pub token_id: TokenId,
    /// How long the token lives, seconds.
    pub ttl_s: u64,
}

/// A token, and what dialects say beside it.
#[derive(Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// What the token says; [`crate::access_control::tokens::mint`] makes the text after the commit.
    pub claims: Claims,
    /// The principal's groups.
    pub groups: BTreeSet<String>,
    /// How often the token was renewed.
    pub refresh_count: u32,
}

/// Logs a user in.
///
/// # Errors
/// [`Refusal::Unauthenticated`]: disabled, blocked, gone, or with another password by now.
pub fn log_in(cmd: &LogIn, rows: &dyn Rows, now: Now) -> Result<(Batch, LoggedIn), Refusal> {
    let login = login_of(rows, cmd.realm, &cmd.username)?.ok_or(Refusal::Unauthenticated)?;
    let principal = active_principal(rows, cmd.realm, &cmd.username)?;
    if login.version != cmd.verified_version {
        return Err(Refusal::Unauthenticated);
    }
    let mut batch = Batch::new(cmd.realm, Line::done(now.wall_us, &cmd.username, "login", cmd.token_id.accessor()));
    if cmd.realm == SYSTEM && principal.groups.contains(ADMINS) {
        // Who is to cut a host off while the disk is full has to get in first. Nobody else may cut off.
        batch = batch.from_reserve();
    }
    let token = Issue {
        tenant: cmd.realm,
        id: cmd.token_id,
        principal: cmd.username.clone(),
        kind: TokenKind::User,
        ttl_s: Some(cmd.ttl_s),
        refresh_count: 0,
    };
    let claims = issue(&mut batch, rows, &token, now)?;
    Ok((batch, LoggedIn { claims, groups: principal.groups, refresh_count: 0 }))
}

/// Whoever gives out tokens, by whatever proof, asks this first: of a blocked tenant there are no new ones.
///
/// # Errors
/// [`Refusal::Unauthenticated`].
pub fn refuse_blocked(rows: &dyn Rows, realm: Realm) -> Result<(), Refusal> {
    if is_blocked(rows, realm)? { Err(Refusal::Unauthenticated) } else { Ok(()) }
}

fn active_principal(rows: &dyn Rows, realm: Realm, name: &str) -> Result<Principal, Refusal> {
    refuse_blocked(rows, realm)?;
    match rows.read::<Principal>(realm, &[name])? {
        Some(row) if !row.value.disabled => Ok(row.value),
        _ => Err(Refusal::Unauthenticated),
    }
}

/// Exchanges the caller's token for a new one that lives `ttl_s` from now; the old one no longer holds.
///
/// # Errors
/// [`Refusal::Unauthenticated`]; [`Refusal::Denied`]: a root or an approle's token, or renewed `refresh_max` times already.
pub fn refresh(
    caller: &Caller,
    token_id: TokenId,
    ttl_s: u64,
    refresh_max: u32,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, LoggedIn), Refusal> {
    let caller = caller.renewed(rows, now)?;
    let old = rows.read::<Token>(caller.realm, &[&caller.token_id.to_string()])?;
    let refresh_count = old.map_or(0, |row| row.value.refresh_count) + 1;
    if caller.kind != TokenKind::User || refresh_max < refresh_count {
        return Err(Refusal::Denied);
    }
    let mut batch =
        Batch::new(caller.realm, Line::done(now.wall_us, caller.actor(), "token.refresh", token_id.accessor()));
    put_revocation(&mut batch, &caller);
    let token = Issue {
        tenant: caller.realm,
        id: token_id,
        principal: caller.principal.clone(),
        kind: TokenKind::User,
        ttl_s: Some(ttl_s),
        refresh_count,
    };
    let claims = issue(&mut batch, rows, &token, now)?;
    Ok((batch, LoggedIn { claims, groups: caller.groups, refresh_count }))
}

/// Ends the caller's own token.
///
/// # Errors
/// [`Refusal::Unauthenticated`]: it has ended already.
pub fn revoke_own(caller: &Caller, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let caller = caller.renewed(rows, now)?;
    let line = Line::done(now.wall_us, caller.actor(), "token.revoke", caller.token_id.accessor());
    let mut batch = Batch::new(caller.realm, line);
    put_revocation(&mut batch, &caller);
    Ok((batch, ()))
}

fn put_revocation(batch: &mut Batch, caller: &Caller) {
    let id = caller.token_id.to_string();
    batch.put(caller.realm, &["token", &id], &Revocation::Token { expires_us: caller.expires_us });
    batch.forget::<Token>(caller.realm, &[&id]);
}

/// Ends all tokens that a principal has so far.
///
/// # Errors
/// [`Refusal::NotFound`]: no such principal.
pub fn revoke_principal(realm: Realm, name: &str, by: &str, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    check_principal(name)?;
    if name != ROOT && rows.read::<Principal>(realm, &[name])?.is_none() {
        return Err(Refusal::NotFound("user"));
    }
    let mut batch = Batch::new(realm, Line::done(now.wall_us, by, "user.revoke", name));
    end_tokens(&mut batch, rows, (realm, name), now)?;
    Ok((batch, ()))
}

/// Ends, along with another change, all tokens that a principal has so far, also should it be made anew.
pub(super) fn end_tokens(
    batch: &mut Batch,
    rows: &dyn Rows,
    (realm, name): (Realm, &str),
    now: Now,
) -> Result<(), Refusal> {
    let path = ["principal", name];
    let before = match rows.read::<Revocation>(realm, &path)?.map(|row| row.value) {
        Some(Revocation::Principal { not_before_us }) => not_before_us,
        _ => i64::MIN,
    };
    // One more, so that a token issued in this very microsecond is among those that end.
    let not_before_us = now.wall_us.max(before).saturating_add(1);
    batch.put(realm, &path, &Revocation::Principal { not_before_us });
    Ok(())
}

/// Makes or changes a user. Carries a password's hash, so it has no `Debug`.
pub struct PutUser {
    /// Who asks; an administrator of the tenant.
    pub caller: Caller,
    /// Which user of the caller's tenant.
    pub username: String,
    /// Of [`crate::access_control::password::hash`]; `None` keeps the one there is.
    pub password_hash: Option<String>,
    /// For people.
    pub full_name: Option<String>,
    /// All groups, replacing those there are.
    pub groups: BTreeSet<String>,
    /// Neither logs in nor uses tokens.
    pub disabled: bool,
}

/// Makes or changes a user; replies whether it is new. A new password ends the tokens that the old one has given.
///
/// # Errors
/// [`Refusal::Denied`]; [`Refusal::Invalid`]: a name that can't be, or a new user without a password;
/// [`Refusal::Conflict`]: nobody else administers the tenant.
pub fn put_user(cmd: &PutUser, rows: &dyn Rows, now: Now) -> Result<(Batch, bool), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    if !caller.is_admin() {
        return Err(Refusal::Denied);
    }
    check_username(&cmd.username)?;
    check_groups(&cmd.groups)?;
    if cmd.disabled || !cmd.groups.contains(ADMINS) {
        keep_an_admin(rows, caller.realm, &cmd.username)?;
    }
    let path = [cmd.username.as_str()];
    let before = rows.read::<Login>(caller.realm, &path)?.map(|row| row.value);
    let new = before.is_none();
    let kept = before.map(|login| login.password_hash);
    let Some(password_hash) = cmd.password_hash.clone().or(kept) else {
        return Err(Refusal::Invalid("a new user needs a password".to_owned()));
    };
    let line = Line::done(now.wall_us, caller.actor(), "user.write", &cmd.username);
    let mut batch = Batch::new(caller.realm, line);
    if !new && cmd.password_hash.is_some() {
        end_tokens(&mut batch, rows, (caller.realm, &cmd.username), now)?;
    }
    batch.put(caller.realm, &path, &Login { password_hash, full_name: cmd.full_name.clone() });
    batch.put(caller.realm, &path, &Principal { groups: cmd.groups.clone(), disabled: cmd.disabled });
    Ok((batch, new))
}

fn check_groups(groups: &BTreeSet<String>) -> Result<(), Refusal> {
    if 256 < groups.len() || groups.iter().any(|name| name.trim().is_empty() || 255 < name.len()) {
        return Err(Refusal::Invalid("a user has at most 256 groups with names of 1 to 255 bytes".to_owned()));
    }
    Ok(())
}
