//! What builds remember of a tenant, so that each reads what has changed and not what there is: where its boxes and keys go,
//! and since when nothing has concerned a site.
//!
//! Not a second truth: it says what reading the rows of the snapshot would. It lies beside the realm's own keys
//! ([`crate::keyring::RealmKeys`]), so it goes where they go: when the node is sealed, and when the realm is erased.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use holdfast_protocol::ids::{Realm, Revision, SiteName};
use holdfast_protocol::wire::Position;

use crate::barrier::{ChangedRow, Snapshot};
use crate::distribute::Placement;
use crate::distribution::Cut;
use crate::distribution::placement::placement_of;
use crate::rows::{Kind, Refusal, Rows};

/// Whether a site has anything of a tenant, as a snapshot has it.
///
/// # Errors
/// The store's refusals.
pub(super) fn has_content(rows: &Snapshot, realm: Realm, site: &SiteName) -> Result<bool, Refusal> {
    let keys = rows.realm_keys(realm)?;
    let mut kept = keys.placed().kept();
    // Another build has brought it further than this snapshot.
    if kept.at.is_some_and(|at| rows.revision() < at) {
        drop(kept);
        return Ok(Kept::read(rows, realm)?.reaches(site));
    }
    kept.follow(rows, realm)?;
    Ok(kept.reaches(site))
}

/// The revision from which a site's changes since its last cut are to be looked for.
///
/// # Errors
/// The store's refusals.
pub(super) fn quiet_until(rows: &Snapshot, realm: Realm, site: &SiteName, last: &Cut) -> Result<Revision, Refusal> {
    let keys = rows.realm_keys(realm)?;
    let found = keys.placed().quiet().get(site).copied();
    Ok(found.filter(|(of, _)| *of == last.position).map_or(last.revision, |(_, until)| until))
}

/// Remembers that up to this snapshot nothing has concerned the site since its last cut.
///
/// # Errors
/// The store's refusals.
pub(super) fn note_quiet(rows: &Snapshot, realm: Realm, site: &SiteName, last: &Cut) -> Result<(), Refusal> {
    let keys = rows.realm_keys(realm)?;
    let mut quiet = keys.placed().quiet();
    let known = quiet.get(site).filter(|(of, _)| *of == last.position).map_or(last.revision, |(_, until)| *until);
    quiet.insert(site.clone(), (last.position, known.max(rows.revision())));
    Ok(())
}

/// What is kept of one realm.
#[derive(Default)]
pub(crate) struct Placed {
    kept: Mutex<Kept>,
    /// By site: its last cut, and the revision up to which nothing has concerned it since.
    quiet: Mutex<BTreeMap<SiteName, (Position, Revision)>>,
}

impl Placed {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock panics")
    }

    fn quiet(&self) -> MutexGuard<'_, BTreeMap<SiteName, (Position, Revision)>> {
        self.quiet.lock().expect("no holder of this lock panics")
    }
}

#[derive(Default)]
struct Kept {
    /// Of which revision all of it is; `None`: nothing has been read yet.
    at: Option<Revision>,
    /// What goes anywhere, by kind and name. Many things go to the same places.
    of: HashMap<(Kind, String), Arc<Placement>>,
    /// How many go to the same places.
    places: BTreeMap<Arc<Placement>, usize>,
}

impl Kept {
    fn read(rows: &Snapshot, realm: Realm) -> Result<Self, Refusal> {
        let mut kept = Self { at: Some(rows.revision()), ..Self::default() };
        for kind in KINDS {
            for row in rows.all(kind, realm, &[])? {
                kept.note(row)?;
            }
        }
        Ok(kept)
    }

    /// Brings it to the snapshot, by what has changed if that can be told.
    fn follow(&mut self, rows: &Snapshot, realm: Realm) -> Result<(), Refusal> {
        let changed = match self.at {
            Some(at) => rows.changes_of(|kind| KINDS.contains(&kind), realm, at)?,
            None => None,
        };
        let Some(changed) = changed else {
            *self = Self::read(rows, realm)?;
            return Ok(());
        };
        for row in changed {
            self.note(row)?;
        }
        self.at = Some(rows.revision());
        Ok(())
    }

    fn note(&mut self, mut row: ChangedRow) -> Result<(), Refusal> {
        let to = placement_of(&row)?.map(|distribute| distribute.to).filter(|to| *to != Placement::None);
        let Some(name) = row.key.path.pop() else { return Ok(()) };
        let name = (row.key.kind, name);
        let to =
            to.map(|to| self.places.get_key_value(&to).map_or_else(|| Arc::new(to.clone()), |(same, _)| same.clone()));
        let before = match &to {
            Some(to) => self.of.insert(name, to.clone()),
            None => self.of.remove(&name),
        };
        if let Some(to) = to {
            *self.places.entry(to).or_default() += 1;
        }
        if let Some(before) = before {
            self.left(&before);
        }
        Ok(())
    }

    /// One less goes there.
    fn left(&mut self, to: &Arc<Placement>) {
        if let Some(count) = self.places.get_mut(to) {
            *count -= 1;
            if *count == 0 {
                self.places.remove(to);
            }
        }
    }

    fn reaches(&self, site: &SiteName) -> bool {
        self.places.keys().any(|to| to.reaches(site))
    }
}

/// What makes content of a tenant at a site: approles alone do not.
const KINDS: [Kind; 2] = [Kind::Box, Kind::TransitKey];
