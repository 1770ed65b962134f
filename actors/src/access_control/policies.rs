//! KES policies: which paths a client may call. Written, read, listed and deleted.
//!
//! A policy has an *instance*: identities are assigned to that, so that those of a deleted policy are not those of a
//! later one with its name.

use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::PolicyName;
use serde::{Deserialize, Serialize};

use crate::access_control::authority::Authority;
use crate::access_control::globs::Globbing;
use crate::audit_log::Line;
use crate::key_store::listing::Listed;
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, Row, RowKey, Rows};
use crate::secret_store::Stamp;
use crate::tally::{self, Bound};

/// Policies of a tenant.
pub const POLICIES: Bound = Bound { what: "policies", max: 1000 };
/// Most patterns of a policy, allowed and denied together.
pub const PATTERNS_MAX: usize = 512;
/// Longest pattern.
pub const PATTERN_BYTES_MAX: usize = 256;
/// Bytes of all patterns of a policy. Judging a path takes at worst as many steps as this, times the path's bytes.
pub const RULES_BYTES_MAX: usize = 16 << 10;
/// Longest path that a policy lets anybody call; there is none in the API that is as long.
pub const PATH_BYTES_MAX: usize = 512;
const NO_POLICY: Refusal = Refusal::NotFound("policy");

/// Who says that something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Whoever called the API.
    Api,
    /// Central's configuration; the API changes none of it.
    Config,
}

impl Origin {
    /// Whether it may be changed on that authority.
    ///
    /// # Errors
    /// [`Refusal::Conflict`]: it is the configuration's.
    pub fn check(self, by: &Authority) -> Result<(), Refusal> {
        match (self, by) {
            (Self::Api, _) | (Self::Config, Authority::Node { .. }) => Ok(()),
            (Self::Config, _) => Err(Refusal::Conflict("it is set by the configuration of central".to_owned())),
        }
    }

    /// Of what is made on that authority.
    pub fn of(by: &Authority) -> Self {
        if matches!(by, Authority::Node { .. }) { Self::Config } else { Self::Api }
    }
}

/// A policy: `[name]`. Goes wherever the tenant has content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Patterns of paths that may be called.
    pub allow: Vec<String>,
    /// Patterns of paths that may not, whatever is allowed.
    pub deny: Vec<String>,
    /// What the patterns mean.
    pub globbing: Globbing,
    /// Version of the row when there first was such a policy of this origin, since one was last deleted.
    pub instance: u64,
    /// Who says so.
    pub origin: Origin,
    /// When it was last written, and by whom.
    pub written: Stamp,
}

impl Record for Policy {
    const KIND: Kind = Kind::Policy;
}

impl Policy {
    /// Whether it lets a path be called.
    pub fn permits(&self, path: &str) -> bool {
        let takes = |patterns: &[String]| patterns.iter().any(|pattern| self.globbing.matches(pattern, path));
        path.len() <= PATH_BYTES_MAX && !takes(&self.deny) && takes(&self.allow)
    }
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// See [`Policy`], as the following.
    pub allow: Vec<String>,
    /// Patterns.
    pub deny: Vec<String>,
    /// Their meaning.
    pub globbing: Globbing,
}

impl Rules {
    /// Whether they can be stored and meant.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] says what is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        if PATTERNS_MAX < self.allow.len() + self.deny.len() {
            return Err(Refusal::Invalid(format!("a policy has at most {PATTERNS_MAX} patterns")));
        }
        let bytes: usize = self.allow.iter().chain(&self.deny).map(String::len).sum();
        if RULES_BYTES_MAX < bytes {
            return Err(Refusal::Invalid(format!("the patterns of a policy have at most {RULES_BYTES_MAX} bytes")));
        }
        for pattern in self.allow.iter().chain(&self.deny) {
            if PATTERN_BYTES_MAX < pattern.len() {
                return Err(Refusal::Invalid(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes")));
            }
            self.globbing.check(pattern).map_err(|bad| Refusal::Invalid(bad.to_string()))?;
        }
        Ok(())
    }
}

/// Writes a policy, over the one there is.
#[derive(Debug)]
pub struct WritePolicy {
    /// Who asks.
    pub by: Authority,
    /// Its name.
    pub name: PolicyName,
    /// What it says.
    pub rules: Rules,
}

/// Writes a policy.
///
/// # Errors
/// [`Refusal::Denied`], [`Refusal::Unauthenticated`]; [`Refusal::Invalid`]; [`Refusal::Conflict`]: it is the
/// configuration's, or there are [`POLICIES`].
pub fn write_policy(cmd: &WritePolicy, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let by = cmd.by.renewed(rows, now)?;
    cmd.rules.check()?;
    let (realm, path) = (by.realm(), [cmd.name.as_str()]);
    let old = rows.read::<Policy>(realm, &path)?.map(|row| row.value);
    if let Some(old) = &old {
        old.origin.check(&by)?;
    }
    let is_new = old.is_none();
    let instance = match old {
        Some(old) if old.origin == Origin::of(&by) => old.instance,
        // Whoever the API gave a policy to has not the one that the configuration puts in its place.
        Some(_) | None => rows.load(&RowKey::of::<Policy>(realm, &path))?.map_or(0, |raw| raw.version) + 1,
    };
    let Rules { allow, deny, globbing } = cmd.rules.clone();
    let written = Stamp { by: by.actor(), at_us: now.wall_us };
    let policy = Policy { allow, deny, globbing, instance, origin: Origin::of(&by), written };
    let mut batch = Batch::new(realm, Line::done(now.wall_us, by.actor(), "policy.write", cmd.name.as_str()));
    if is_new {
        tally::add::<Policy>(&mut batch, rows, &by, POLICIES)?;
    }
    batch.put(realm, &path, &policy);
    Ok((batch, ()))
}

/// Deletes a policy; identities assigned to it may do nothing from here on.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::Conflict`]: it is the configuration's; [`Refusal::Denied`];
/// [`Refusal::Unauthenticated`].
pub fn delete_policy(by: &Authority, name: &PolicyName, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let by = by.renewed(rows, now)?;
    policy(rows, by.realm(), name)?.value.origin.check(&by)?;
    let mut batch = Batch::new(by.realm(), Line::done(now.wall_us, by.actor(), "policy.delete", name.as_str()));
    tally::take::<Policy>(&mut batch, rows, by.realm(), 1)?;
    batch.delete::<Policy>(by.realm(), &[name.as_str()]);
    Ok((batch, ()))
}

/// The policy of a name.
///
/// # Errors
/// [`Refusal::NotFound`]; the store's refusals.
pub fn policy(rows: &dyn Rows, realm: Realm, name: &PolicyName) -> Result<Row<Policy>, Refusal> {
    rows.read::<Policy>(realm, &[name.as_str()])?.ok_or(NO_POLICY)
}

/// The names of all policies of a tenant, in order.
///
/// # Errors
/// The store's refusals.
pub fn policy_names(rows: &dyn Rows, realm: Realm) -> Result<Vec<Listed<()>>, Refusal> {
    let there = rows.scan(Kind::Policy, realm, &[])?.into_iter().filter(|row| row.body.is_some());
    let mut all: Vec<_> = there.filter_map(|mut row| Some(Listed { name: row.path.pop()?, of: () })).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// All policies of a tenant, by their names.
///
/// # Errors
/// The store's refusals.
pub fn policies(rows: &dyn Rows, realm: Realm) -> Result<Vec<Row<Policy>>, Refusal> {
    rows.list::<Policy>(realm, &[])
}
