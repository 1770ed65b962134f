//! Identities of KES clients: which policy each has, at most one. Assigned, forgotten, listed, and judged.

use std::collections::BTreeMap;

use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::{Identity, PolicyName};
use serde::{Deserialize, Serialize};

use crate::access_control::authority::Authority;
use crate::access_control::policies::{Origin, Policy, policy};
use crate::access_control::tenants::is_blocked;
use crate::audit_log::Line;
use crate::key_store::listing::Listed;
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, Rows};
use crate::secret_store::Stamp;
use crate::tally::{self, Bound};

/// Identities of a tenant, administrators included.
pub const IDENTITIES: Bound = Bound { what: "identities", max: 10_000 };
const NO_IDENTITY: Refusal = Refusal::NotFound("identity");

/// What an identity may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Everything.
    Admin,
    /// What a policy says, as long as it is this instance of it.
    Policy {
        /// Its name.
        name: PolicyName,
        /// See [`Policy::instance`].
        instance: u64,
    },
}

/// What is known of an identity: `[identity]`. Goes wherever the tenant has content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// What it may do.
    pub standing: Standing,
    /// Who says so.
    pub origin: Origin,
    /// When that was said, and by whom.
    pub assigned: Stamp,
}

impl Record for Assignment {
    const KIND: Kind = Kind::Identity;
}

/// An assignment that holds: an administrator's, or one to a policy that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Whose.
    pub identity: Identity,
    /// What is stored.
    pub assignment: Assignment,
    /// The policy that it has; `None`: an administrator.
    pub policy: Option<(PolicyName, Policy)>,
}

/// Gives an identity a policy, in place of the one it has.
#[derive(Debug)]
pub struct AssignPolicy {
    /// Who asks.
    pub by: Authority,
    /// To whom.
    pub identity: Identity,
    /// What.
    pub policy: PolicyName,
}

/// Assigns a policy.
///
/// # Errors
/// [`Refusal::Denied`]: not allowed, or to oneself; [`Refusal::Invalid`]: to an administrator; [`Refusal::NotFound`]: no
/// such policy; [`Refusal::Conflict`]: what it has, or the policy, is the configuration's, or
/// there are [`IDENTITIES`]; [`Refusal::Unauthenticated`].
pub fn assign_policy(cmd: &AssignPolicy, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let by = cmd.by.renewed(rows, now)?;
    if by.identity() == Some(cmd.identity) {
        return Err(Refusal::Denied);
    }
    let name = cmd.identity.to_string();
    let old = rows.read::<Assignment>(by.realm(), &[&name])?;
    if let Some(old) = &old {
        refuse_admin(&old.value, &by)?;
        old.value.origin.check(&by)?;
    }
    let Policy { origin, instance, .. } = policy(rows, by.realm(), &cmd.policy)?.value;
    // Who has a policy of the configuration stands there, and nowhere else.
    origin.check(&by)?;
    let standing = Standing::Policy { name: cmd.policy.clone(), instance };
    let object = format!("{} to {name}", cmd.policy);
    let line = Line::done(now.wall_us, by.actor(), "identity.assign", object);
    let mut batch = put(&by, &name, standing, line);
    if old.is_none() {
        tally::add::<Assignment>(&mut batch, rows, &by, IDENTITIES)?;
    }
    Ok((batch, ()))
}

/// Makes an identity an administrator of its tenant's keys. On the node's own authority only.
///
/// # Errors
/// [`Refusal::Denied`].
pub fn set_admin(by: &Authority, identity: Identity, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let by = by.renewed(rows, now)?;
    if Origin::of(&by) != Origin::Config {
        return Err(Refusal::Denied);
    }
    let name = identity.to_string();
    let line = Line::done(now.wall_us, by.actor(), "identity.admin", &name);
    let mut batch = put(&by, &name, Standing::Admin, line);
    if rows.read::<Assignment>(by.realm(), &[&name])?.is_none() {
        tally::add::<Assignment>(&mut batch, rows, &by, IDENTITIES)?;
    }
    Ok((batch, ()))
}

fn put(by: &Authority, name: &str, standing: Standing, line: Line) -> Batch {
    let assigned = Stamp { by: by.actor(), at_us: line.at_us };
    let mut batch = Batch::new(by.realm(), line);
    batch.put(by.realm(), &[name], &Assignment { standing, origin: Origin::of(by), assigned });
    batch
}

fn refuse_admin(old: &Assignment, by: &Authority) -> Result<(), Refusal> {
    match (&old.standing, Origin::of(by)) {
        (Standing::Admin, Origin::Api) => Err(Refusal::Invalid("identity is root".to_owned())),
        (Standing::Admin | Standing::Policy { .. }, _) => Ok(()),
    }
}

/// Takes from an identity what it may do.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Invalid`]: an administrator; [`Refusal::Conflict`]: it is the configuration's;
/// [`Refusal::Denied`]; [`Refusal::Unauthenticated`].
pub fn forget_identity(by: &Authority, identity: Identity, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let by = by.renewed(rows, now)?;
    let name = identity.to_string();
    let old = rows.read::<Assignment>(by.realm(), &[&name])?.ok_or(NO_IDENTITY)?.value;
    refuse_admin(&old, &by)?;
    old.origin.check(&by)?;
    let mut batch = Batch::new(by.realm(), Line::done(now.wall_us, by.actor(), "identity.forget", &name));
    tally::take::<Assignment>(&mut batch, rows, by.realm(), 1)?;
    batch.delete::<Assignment>(by.realm(), &[&name]);
    Ok((batch, ()))
}

/// An identity, if it may do anything at all.
///
/// # Errors
/// [`Refusal::NotFound`]; the store's refusals.
pub fn identity(rows: &dyn Rows, realm: Realm, identity: Identity) -> Result<Known, Refusal> {
    known_of(rows, realm, identity)?.ok_or(NO_IDENTITY)
}

/// Whether an identity may do anything at all.
///
/// # Errors
/// The store's refusals.
pub fn is_known(rows: &dyn Rows, realm: Realm, identity: Identity) -> Result<bool, Refusal> {
    Ok(known_of(rows, realm, identity)?.is_some())
}

/// The same; `None`: it may do nothing.
pub(crate) fn known_of(rows: &dyn Rows, realm: Realm, identity: Identity) -> Result<Option<Known>, Refusal> {
    match rows.read::<Assignment>(realm, &[&identity.to_string()])? {
        Some(row) => known(rows, realm, identity, row.value),
        None => Ok(None),
    }
}

/// All identities that may do anything, in order, and which policy each has; `None`: an administrator.
///
/// # Errors
/// The store's refusals.
pub fn identities(rows: &dyn Rows, realm: Realm) -> Result<Vec<Listed<Option<PolicyName>>>, Refusal> {
    let mut instances = BTreeMap::new();
    for row in rows.list::<Policy>(realm, &[])? {
        instances.insert(row.name().to_owned(), row.value.instance);
    }
    let all = rows.list::<Assignment>(realm, &[])?.into_iter().filter_map(|row| {
        let name = row.name().to_owned();
        match row.value.standing {
            Standing::Admin => Some(Listed { name, of: None }),
            Standing::Policy { name: policy, instance } => {
                (instances.get(policy.as_str()) == Some(&instance)).then_some(Listed { name, of: Some(policy) })
            }
        }
    });
    Ok(all.collect())
}

fn known(rows: &dyn Rows, realm: Realm, identity: Identity, assignment: Assignment) -> Result<Option<Known>, Refusal> {
    let policy = match policy_of(rows, realm, &assignment)? {
        Held::All => None,
        Held::Policy(name, policy) => Some((name, policy)),
        Held::Nothing => return Ok(None),
    };
    Ok(Some(Known { identity, assignment, policy }))
}

/// What an assignment gives.
enum Held {
    All,
    Policy(PolicyName, Policy),
    /// Its policy was deleted.
    Nothing,
}

fn policy_of(rows: &dyn Rows, realm: Realm, assignment: &Assignment) -> Result<Held, Refusal> {
    Ok(match &assignment.standing {
        Standing::Admin => Held::All,
        Standing::Policy { name, instance } => match rows.read::<Policy>(realm, &[name.as_str()])? {
            Some(row) if row.value.instance == *instance => Held::Policy(name.clone(), row.value),
            Some(_) | None => Held::Nothing,
        },
    })
}

/// Whether an assignment gives anything.
pub(crate) fn holds(rows: &dyn Rows, realm: Realm, assignment: &Assignment) -> Result<bool, Refusal> {
    Ok(!matches!(policy_of(rows, realm, assignment)?, Held::Nothing))
}

/// Whether an identity may call a path, as the rows of one snapshot say. Of a blocked tenant nobody may.
///
/// # Errors
/// [`Refusal::Denied`]; the store's refusals.
pub fn judge(rows: &dyn Rows, realm: Realm, who: Identity, path: &str) -> Result<Known, Refusal> {
    if is_blocked(rows, realm)? {
        return Err(Refusal::Denied);
    }
    let known = known_of(rows, realm, who)?.ok_or(Refusal::Denied)?;
    permitted(&known, path)?;
    Ok(known)
}

/// Whether what is known of an identity lets it call a path.
pub(crate) fn permitted(known: &Known, path: &str) -> Result<(), Refusal> {
    match &known.policy {
        Some((_, policy)) if !policy.permits(path) => Err(Refusal::Denied),
        Some(_) | None => Ok(()),
    }
}
