//! What central's configuration says of KES clients and keys, made into rows: at each unseal, one change after the other.
//! What takes a right away comes first, and is written even when the disk is down to its reserve.
//!
//! Policies and identities that are gone from the configuration go; a key stays, as one that the API made, since nothing
//! could be decrypted without it. What the API has written under the same name is replaced.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::{Identity, KeyName, PolicyName};
use serde::{Deserialize, Serialize};

use crate::access_control::authority::Authority;
use crate::access_control::identities::{
    AssignPolicy, Assignment, Standing, assign_policy, forget_identity, set_admin,
};
use crate::access_control::policies::{Origin, Policy, Rules, WritePolicy, delete_policy, policies, write_policy};
use crate::access_control::serving::{Serving, set_serving};
use crate::audit_log::Line;
use crate::distribute::Distribute;
use crate::key_store::{CreateKey, FreshKey, TransitKey, create_key, set_origin};
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, Rows};

/// Who acts, in audit lines.
pub const CONFIGURATION: &str = "configuration";

/// What the configuration says of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// Who may do all.
    pub admins: BTreeSet<Identity>,
    /// Policies, and who has each.
    pub policies: BTreeMap<PolicyName, ConfiguredPolicy>,
    /// Keys that there have to be.
    pub keys: BTreeSet<KeyName>,
    /// How its clients are served.
    pub serving: Option<Serving>,
}

/// A policy and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredPolicy {
    /// What it says.
    pub rules: Rules,
    /// Who has it.
    pub identities: BTreeSet<Identity>,
}

impl Configured {
    /// Adds what another part of the configuration says of the same tenant. A policy may stand in both, if it says the
    /// same.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] says where they contradict each other; then it is as before.
    pub fn merge(&mut self, other: &Self) -> Result<(), Refusal> {
        let mut merged = self.clone();
        merged.admins.extend(&other.admins);
        merged.keys.extend(other.keys.iter().cloned());
        // Where a tenant is served in two ways, hosts do it in the first.
        merged.serving = merged.serving.or_else(|| other.serving.clone());
        for (name, policy) in &other.policies {
            let known = merged.policies.entry(name.clone()).or_insert_with(|| policy.clone());
            if known.rules != policy.rules {
                return Err(Refusal::Invalid(format!("policy {name}: says something else of the same tenant before")));
            }
            known.identities.extend(&policy.identities);
        }
        merged.check()?;
        *self = merged;
        Ok(())
    }

    /// Whether it contradicts itself.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] says where.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut assigned = BTreeMap::new();
        for (name, policy) in &self.policies {
            policy.rules.check().map_err(|why| Refusal::Invalid(format!("policy {name}: {why}")))?;
            for identity in &policy.identities {
                if self.admins.contains(identity) {
                    return Err(Refusal::Invalid(format!("policy {name}: {identity} is an administrator")));
                }
                if let Some(other) = assigned.insert(identity, name) {
                    return Err(Refusal::Invalid(format!("policies {other} and {name}: {identity} has both")));
                }
            }
        }
        Ok(())
    }
}

/// One step from the rows there are to those there have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A policy is gone.
    DeletePolicy(PolicyName),
    /// An identity is gone, or is to have something else than it has.
    ForgetIdentity(Identity),
    /// A policy that there is says something else.
    RewritePolicy(PolicyName, Rules),
    /// Clients are served in another way.
    Serve(Option<Serving>),
    /// A policy is new.
    WritePolicy(PolicyName, Rules),
    /// An administrator is new.
    SetAdmin(Identity),
    /// An identity has no policy yet.
    Assign(Identity, PolicyName),
    /// A key is missing.
    CreateKey(KeyName),
    /// A key that there is: whose it is now.
    SetOrigin(KeyName, Origin),
}

impl Change {
    /// Whether somebody may do less once it is done. Operators wrote it down, so it is bounded by their file.
    pub fn withdraws(&self) -> bool {
        match self {
            Self::DeletePolicy(_) | Self::ForgetIdentity(_) | Self::RewritePolicy(..) | Self::Serve(_) => true,
            Self::WritePolicy(..) | Self::SetAdmin(_) | Self::Assign(..) | Self::CreateKey(_) | Self::SetOrigin(..) => {
                false
            }
        }
    }
}

/// What has to be changed, in an order in which it can be, what [withdraws](Change::withdraws) first. Nothing is left to
/// do once all of it is done.
///
/// # Errors
/// [`Configured::check`]; the store's refusals.
pub fn outstanding(rows: &dyn Rows, realm: Realm, wanted: &Configured) -> Result<Vec<Change>, Refusal> {
    wanted.check()?;
    let mut changes = Vec::new();
    let there: BTreeMap<PolicyName, Policy> = policies(rows, realm)?
        .into_iter()
        .map(|row| Ok((row.name().parse().map_err(|_| Refusal::Corrupt)?, row.value)))
        .collect::<Result<_, Refusal>>()?;
    for (name, policy) in &there {
        if policy.origin == Origin::Config && !wanted.policies.contains_key(name) {
            changes.push(Change::DeletePolicy(name.clone()));
        }
    }
    for (name, ConfiguredPolicy { rules, .. }) in &wanted.policies {
        match there.get(name) {
            Some(known) if says(known, rules) => {}
            Some(_) => changes.push(Change::RewritePolicy(name.clone(), rules.clone())),
            None => changes.push(Change::WritePolicy(name.clone(), rules.clone())),
        }
    }
    outstanding_identities(rows, realm, wanted, &there, &mut changes)?;
    outstanding_keys(rows, realm, wanted, &mut changes)?;
    if Serving::read(rows, realm)? != wanted.serving {
        changes.push(Change::Serve(wanted.serving.clone()));
    }
    changes.sort_by_key(|change| !change.withdraws());
    Ok(changes)
}

fn says(policy: &Policy, rules: &Rules) -> bool {
    policy.origin == Origin::Config
        && (&policy.allow, &policy.deny, policy.globbing) == (&rules.allow, &rules.deny, rules.globbing)
}

fn outstanding_identities(
    rows: &dyn Rows,
    realm: Realm,
    wanted: &Configured,
    policies: &BTreeMap<PolicyName, Policy>,
    changes: &mut Vec<Change>,
) -> Result<(), Refusal> {
    let mut there = BTreeMap::new();
    for row in rows.list::<Assignment>(realm, &[])? {
        let identity: Identity = row.name().parse().map_err(|_| Refusal::Corrupt)?;
        there.insert(identity, row.value);
    }
    let assigned: BTreeMap<Identity, &PolicyName> = wanted
        .policies
        .iter()
        .flat_map(|(name, policy)| policy.identities.iter().map(move |identity| (*identity, name)))
        .collect();
    for (identity, known) in &there {
        let is_wanted = wanted.admins.contains(identity) || assigned.contains_key(identity);
        if known.origin == Origin::Config && !is_wanted {
            changes.push(Change::ForgetIdentity(*identity));
        }
    }
    for identity in &wanted.admins {
        let is_so = |known: &Assignment| known.origin == Origin::Config && known.standing == Standing::Admin;
        if !there.get(identity).is_some_and(is_so) {
            changes.push(Change::SetAdmin(*identity));
        }
    }
    for (identity, name) in assigned {
        // A policy that has yet to be written, or taken over, has no instance that anybody could have.
        let ours = policies.get(name).filter(|policy| policy.origin == Origin::Config);
        let instance = ours.map(|policy| policy.instance);
        let is_so = |known: &Assignment| {
            let standing = instance.map(|instance| Standing::Policy { name: name.clone(), instance });
            known.origin == Origin::Config && Some(&known.standing) == standing.as_ref()
        };
        let known = there.get(&identity);
        if known.is_some_and(is_so) {
            continue;
        }
        // What it has goes by itself: there may be room for that, and none for what it is to have.
        if known.is_some() {
            changes.push(Change::ForgetIdentity(identity));
        }
        changes.push(Change::Assign(identity, name.clone()));
    }
    Ok(())
}

/// Of which tenants something of the configuration may be among the rows: the row `["kes"]` of the node's realm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Their key spaces.
    pub realms: BTreeSet<Realm>,
}

impl Record for Served {
    const KIND: Kind = Kind::Served;
}

/// Of which tenants something may be there.
///
/// # Errors
/// The store's refusals.
pub fn served(rows: &dyn Rows) -> Result<BTreeSet<Realm>, Refusal> {
    Ok(rows.read::<Served>(Realm::NODE, &[SERVED])?.map(|row| row.value.realms).unwrap_or_default())
}

/// Says of which something may be there. To be said before there is anything of a tenant, and after there is nothing.
pub fn set_served(realms: BTreeSet<Realm>, now: Now) -> (Batch, ()) {
    let numbers: Vec<String> = realms.iter().map(|realm| realm.0.to_string()).collect();
    let line = Line::done(now.wall_us, CONFIGURATION, "kes.serve", numbers.join(" "));
    let mut batch = Batch::new(Realm::NODE, line);
    batch.put(Realm::NODE, &[SERVED], &Served { realms });
    (batch, ())
}

const SERVED: &str = "kes";

fn outstanding_keys(
    rows: &dyn Rows,
    realm: Realm,
    wanted: &Configured,
    changes: &mut Vec<Change>,
) -> Result<(), Refusal> {
    let mut missing = wanted.keys.clone();
    for row in rows.list::<TransitKey>(realm, &[])? {
        let name: KeyName = row.name().parse().map_err(|_| Refusal::Corrupt)?;
        let origin = if missing.remove(&name) { Origin::Config } else { Origin::Api };
        if row.value.origin != origin {
            changes.push(Change::SetOrigin(name, origin));
        }
    }
    changes.extend(missing.into_iter().map(Change::CreateKey));
    Ok(())
}

/// Does one of [`outstanding`], with the reserve of a full disk if it withdraws a right. What was done meanwhile is not
/// done again: that is [`Refusal::Exists`] for a key, and [`Refusal::NotFound`] for what is to go.
///
/// # Errors
/// As above; the store's refusals.
pub fn settle(
    change: &Change,
    (realm, cipher): (Realm, Cipher),
    fresh: &FreshKey,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, ()), Refusal> {
    let by = Authority::Node { realm, part: CONFIGURATION };
    let (batch, ()) = match change {
        Change::DeletePolicy(name) => delete_policy(&by, name, rows, now),
        Change::ForgetIdentity(identity) => forget_identity(&by, *identity, rows, now),
        Change::WritePolicy(name, rules) | Change::RewritePolicy(name, rules) => {
            write_policy(&WritePolicy { by, name: name.clone(), rules: rules.clone() }, rows, now)
        }
        Change::SetAdmin(identity) => set_admin(&by, *identity, rows, now),
        Change::Assign(identity, policy) => {
            assign_policy(&AssignPolicy { by, identity: *identity, policy: policy.clone() }, rows, now)
        }
        Change::CreateKey(name) => {
            let (name, fresh) = (name.clone(), fresh.duplicate());
            create_key(&CreateKey { by, name, cipher, fresh, distribute: Distribute::default() }, rows, now)
        }
        Change::SetOrigin(name, origin) => set_origin(&by, name, *origin, rows, now),
        Change::Serve(serving) => set_serving(&by, serving.as_ref(), rows, now),
    }?;
    Ok((if change.withdraws() { batch.from_reserve() } else { batch }, ()))
}
