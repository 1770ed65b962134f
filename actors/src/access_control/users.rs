//! Users of a tenant as its administrators see them: listed, shown, changed in part, taken away. They are made, and
//! written whole, in [`crate::access_control::logins`].

use std::collections::BTreeSet;

use holdfast_protocol::ids::Realm;

use crate::access_control::ADMINS;
use crate::access_control::logins::{PutUser, check_username, end_tokens, login_of, put_user};
use crate::access_control::records::{Login, Principal};
use crate::access_control::tokens::Caller;
use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Expected, ReadRows, Refusal, Row, Rows};

/// A user, without what proves him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub username: String,
    /// For people.
    pub full_name: Option<String>,
    /// Names that permissions are given to.
    pub groups: BTreeSet<String>,
    /// Neither logs in nor uses tokens.
    pub disabled: bool,
    /// Of all that is written about him.
    pub version: u64,
}

/// A user by name.
///
/// # Errors
/// The store's refusals.
pub fn user(rows: &dyn Rows, realm: Realm, username: &str) -> Result<Option<User>, Refusal> {
    match login_of(rows, realm, username)? {
        Some(login) => with_principal(rows, realm, username, login).map(Some),
        None => Ok(None),
    }
}

/// All users of a tenant, by name.
///
/// # Errors
/// The store's refusals.
pub fn users(rows: &dyn Rows, realm: Realm) -> Result<Vec<User>, Refusal> {
    let logins = rows.list::<Login>(realm, &[])?;
    let shown = logins.into_iter().map(|login| {
        let username = login.name().to_owned();
        with_principal(rows, realm, &username, login)
    });
    shown.collect()
}

fn with_principal(rows: &dyn Rows, realm: Realm, username: &str, login: Row<Login>) -> Result<User, Refusal> {
    let (principal, version) = match rows.read::<Principal>(realm, &[username])? {
        Some(row) => (row.value, row.version),
        None => (Principal::default(), 0),
    };
    let Principal { groups, disabled } = principal;
    // Both rows only ever grow, so their sum names a state of the two.
    let version = version.saturating_add(login.version);
    Ok(User { username: username.to_owned(), full_name: login.value.full_name, groups, disabled, version })
}

/// Whether a user is in the state that a caller expects.
///
/// # Errors
/// [`Refusal::Changed`]; the store's refusals.
pub fn expect(rows: &dyn Rows, realm: Realm, username: &str, expected: &Expected) -> Result<(), Refusal> {
    expected.check(user(rows, realm, username)?.map(|user| user.version))
}

/// Changes some of what there is of a user and leaves the rest. Carries a password's hash, so it has no `Debug`.
pub struct PatchUser {
    /// Who asks; an administrator of the tenant.
    pub caller: Caller,
    /// Which user of the caller's tenant.
    pub username: String,
    /// The state that the caller expects him to be in.
    pub expected: Expected,
    /// Of [`crate::access_control::password::hash`].
    pub password_hash: Option<String>,
    /// For people.
    pub full_name: Option<String>,
    /// Groups that he joins.
    pub joins: BTreeSet<String>,
    /// Groups that he leaves, if he is in them.
    pub leaves: BTreeSet<String>,
    /// Neither logs in nor uses tokens.
    pub disabled: Option<bool>,
}

/// Changes a user. A new password ends the tokens that the old one has given.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Changed`]; [`Refusal::Invalid`]: a group both joined and left; those of [`put_user`].
pub fn patch_user(cmd: &PatchUser, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    if !caller.is_admin() {
        return Err(Refusal::Denied);
    }
    let user = user(rows, caller.realm, &cmd.username)?.ok_or(Refusal::NotFound("user"))?;
    cmd.expected.check(Some(user.version))?;
    if !cmd.joins.is_disjoint(&cmd.leaves) {
        return Err(Refusal::Invalid("a group is either joined or left".to_owned()));
    }
    let whole = PutUser {
        caller,
        username: cmd.username.clone(),
        password_hash: cmd.password_hash.clone(),
        full_name: cmd.full_name.clone().or(user.full_name),
        groups: user.groups.union(&cmd.joins).filter(|group| !cmd.leaves.contains(*group)).cloned().collect(),
        disabled: cmd.disabled.unwrap_or(user.disabled),
    };
    put_user(&whole, rows, now).map(|(batch, _)| (batch, ()))
}

/// Takes a user away, and with him all tokens that he has.
///
/// # Errors
/// [`Refusal::Denied`]; [`Refusal::NotFound`]; [`Refusal::Conflict`]: nobody else administers the tenant.
pub fn delete_user(caller: &Caller, username: &str, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let caller = caller.renewed(rows, now)?;
    if !caller.is_admin() {
        return Err(Refusal::Denied);
    }
    user(rows, caller.realm, username)?.ok_or(Refusal::NotFound("user"))?;
    keep_an_admin(rows, caller.realm, username)?;
    let mut batch = Batch::new(caller.realm, Line::done(now.wall_us, caller.actor(), "user.delete", username));
    batch.delete::<Login>(caller.realm, &[username]);
    batch.delete::<Principal>(caller.realm, &[username]);
    end_tokens(&mut batch, rows, (caller.realm, username), now)?;
    Ok((batch, ()))
}

/// Whether the tenant has an administrator left who can log in, once `username` is none any more. Root tokens don't
/// count: nobody can have a new one made for a tenant.
///
/// # Errors
/// [`Refusal::Conflict`].
pub(super) fn keep_an_admin(rows: &dyn Rows, realm: Realm, username: &str) -> Result<(), Refusal> {
    let administers = |name: &str| -> Result<bool, Refusal> {
        let principal = rows.read::<Principal>(realm, &[name])?.map(|row| row.value);
        Ok(principal.is_some_and(|principal| !principal.disabled && principal.groups.contains(ADMINS)))
    };
    if check_username(username).is_err() || !administers(username)? {
        return Ok(());
    }
    for login in rows.list::<Login>(realm, &[])? {
        if login.name() != username && administers(login.name())? {
            return Ok(());
        }
    }
    Err(Refusal::Conflict("nobody else administers this tenant".to_owned()))
}
