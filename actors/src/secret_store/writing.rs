//! A secret's current version replaced or taken away, by whichever dialect: conditions, versions, and the bound on them.

use crate::access_control::Caller;
use crate::audit_log::Line;
use crate::distribute::Gate;
use crate::ports::Now;
use crate::rows::{Batch, Expected, ReadRows, Refusal, RowKey, Rows};
use crate::secret_store::members::Members;
use crate::secret_store::reading::box_at;
use crate::secret_store::records::{
    CurrentSecret, DepositBox, KeptVersion, Marks, Role, SecretHistory, SecretVersion, Stamp, VersionAction,
};
use crate::secret_store::secrets::{CheckedData, SecretPath};

/// Earlier versions that one change takes away, when a bound was lowered: one transaction has room for no more. The
/// next change takes away the rest.
const PRUNED_MAX: usize = 64;
/// Patterns of images of one secret.
pub const IMAGE_ACCESS_MAX: usize = 64;

/// Under which conditions a secret is written.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// What the caller expects of the version there is.
    pub expected: Expected,
    /// There may be none yet: else it is [`Refusal::Exists`].
    pub must_be_new: bool,
    /// There must be one already: else it is [`Refusal::NotFound`].
    pub must_exist: bool,
}

/// What is written.
#[derive(Debug)]
pub enum Content {
    /// These members in place of all there were; which of those were binary is forgotten, the images stay.
    Data(CheckedData),
    /// This, in place of all that was there.
    Whole(CheckedData, Marks),
    /// These members and marks, in place of those with the same names.
    Merged(SecretPatch),
}

/// What of a secret is to change.
#[derive(Debug, Default)]
pub struct SecretPatch {
    /// Members that are texts.
    pub texts: Members,
    /// Members that are the base64 of binary data; they win over texts of the same names.
    pub binary: Members,
    /// All patterns of images.
    pub image_access: Option<Vec<String>>,
}

/// Replaces what stands at a path.
#[derive(Debug)]
pub struct PutSecret {
    /// Who asks.
    pub caller: Caller,
    /// Category and slug of the box.
    pub at: (String, String),
    /// Where in it.
    pub path: SecretPath,
    /// What.
    pub content: Content,
    /// When.
    pub terms: Terms,
    /// Fresh UUID.
    pub version_id: String,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Number of the version.
    pub version: u64,
    /// Nothing stood there before.
    pub created: bool,
}

/// Writes a secret.
///
/// # Errors
/// [`Refusal::NotFound`]: no such box, or nothing to change; [`Refusal::Exists`]; [`Refusal::Changed`];
/// [`Refusal::Invalid`]: too long by now, or the box demands to be told which version is replaced; [`Refusal::Denied`];
/// [`Refusal::Unauthenticated`].
pub fn put_secret(cmd: &PutSecret, rows: &dyn Rows, now: Now) -> Result<(Batch, Written), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let (of, place) = Place::find(&caller, &cmd.at, &cmd.path, rows)?;
    let old = rows.read::<CurrentSecret>(caller.realm, &place.path)?.map(|row| row.value);
    cmd.terms.check(&of, old.as_ref())?;
    let version = place.next_version(rows)?;
    let stamp = Stamp { by: caller.actor().to_owned(), at_us: now.wall_us };
    let (data, marks) = cmd.content.over(old.as_ref())?;
    let line = Line::done(now.wall_us, caller.actor(), "secret.write", cmd.path.under(&of));
    let mut batch = Batch::new(caller.realm, line);
    let created = old.as_ref().map_or_else(|| stamp.clone(), |old| old.created.clone());
    let is_new = old.is_none();
    place.end(&mut batch, &of, old, (VersionAction::Update, &stamp), rows)?;
    let version_id = cmd.version_id.clone();
    let current = CurrentSecret { data: data.into_bytes(), version_id, created, updated: stamp, version, marks };
    batch.put(caller.realm, &place.path, &current);
    Ok((batch, Written { version, created: is_new }))
}

/// Takes away what stands at a path; it remains as a version, where the box keeps any.
#[derive(Debug)]
pub struct RemoveSecret {
    /// Who asks.
    pub caller: Caller,
    /// Category and slug of the box.
    pub at: (String, String),
    /// Where in it.
    pub path: SecretPath,
    /// What the caller expects of the version there is.
    pub expected: Expected,
}

/// Takes a secret away.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Changed`], [`Refusal::Denied`], [`Refusal::Unauthenticated`].
pub fn remove_secret(cmd: &RemoveSecret, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let (of, place) = Place::find(&caller, &cmd.at, &cmd.path, rows)?;
    let old = rows.read::<CurrentSecret>(caller.realm, &place.path)?.map(|row| row.value);
    cmd.expected.check(old.as_ref().map(|old| old.version))?;
    let old = old.ok_or(Refusal::NotFound("secret"))?;
    let stamp = Stamp { by: caller.actor().to_owned(), at_us: now.wall_us };
    let line = Line::done(now.wall_us, caller.actor(), "secret.delete", cmd.path.under(&of));
    let mut batch = Batch::new(caller.realm, line);
    place.end(&mut batch, &of, Some(old), (VersionAction::Delete, &stamp), rows)?;
    batch.delete::<CurrentSecret>(caller.realm, &place.path);
    Ok((batch, ()))
}

impl Terms {
    fn check(&self, of: &DepositBox, old: Option<&CurrentSecret>) -> Result<(), Refusal> {
        if self.must_be_new && old.is_some() {
            return Err(Refusal::Exists("secret"));
        }
        self.expected.check(old.map(|old| old.version))?;
        if self.must_exist && old.is_none() {
            return Err(Refusal::NotFound("secret"));
        }
        // Who makes a new one and says so has said what he replaces.
        let is_said = self.must_be_new || matches!(self.expected, Expected::Absent | Expected::Versions(_));
        if of.cas_required && !is_said {
            return Err(Refusal::Invalid(
                "this vault is written only with cas or If-Match, which say what is replaced".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Content {
    fn over(&self, old: Option<&CurrentSecret>) -> Result<(CheckedData, Marks), Refusal> {
        let (data, marks) = match self {
            Self::Data(data) => {
                let image_access = old.map_or_else(Vec::new, |old| old.marks.image_access.clone());
                (data.duplicate(), Marks { image_access, ..Marks::default() })
            }
            Self::Whole(data, marks) => (data.duplicate(), marks.clone()),
            Self::Merged(patch) => patch.over(old)?,
        };
        data.beside(&marks)?;
        Ok((data, marks))
    }
}

impl SecretPatch {
    /// The whole secret that these make of an old one.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]: too long; [`Refusal::Corrupt`]: the old one can't be read.
    pub fn over(&self, old: Option<&CurrentSecret>) -> Result<(CheckedData, Marks), Refusal> {
        let mut marks = old.map_or_else(Marks::default, |old| old.marks.clone());
        let mut members = match old {
            Some(old) => Members::parse(old.data.expose()).ok_or(Refusal::Corrupt)?,
            None => Members::default(),
        };
        members.merge(&self.texts);
        marks.binary.retain(|name| !self.texts.has(name));
        members.merge(&self.binary);
        marks.binary.extend(self.binary.names().map(str::to_owned));
        if let Some(image_access) = &self.image_access {
            marks.image_access.clone_from(image_access);
        }
        Ok((CheckedData::new(members.join())?, marks))
    }
}

/// Where a secret lies.
struct Place<'a> {
    caller: &'a Caller,
    path: Vec<&'a str>,
}

impl<'a> Place<'a> {
    /// The box, for who may write in it, and the place in it.
    fn find(
        caller: &'a Caller,
        (category, slug): &'a (String, String),
        path: &'a SecretPath,
        rows: &dyn Rows,
    ) -> Result<(DepositBox, Self), Refusal> {
        let of = box_at(rows, caller, &Gate::CENTRAL, (category, slug), Role::Write)?;
        Ok((of, Self { caller, path: path.below(slug) }))
    }

    /// Every write at this path has counted, deletions too, so that no number comes back.
    fn next_version(&self, rows: &dyn Rows) -> Result<u64, Refusal> {
        let raw = rows.load(&RowKey::of::<CurrentSecret>(self.caller.realm, &self.path))?;
        Ok(raw.map_or(0, |raw| raw.version) + 1)
    }

    /// Ends the version there is: it is kept as an earlier one, as far as the box keeps any.
    fn end(
        &self,
        batch: &mut Batch,
        of: &DepositBox,
        old: Option<CurrentSecret>,
        (action, ended): (VersionAction, &Stamp),
        rows: &dyn Rows,
    ) -> Result<(), Refusal> {
        let Some(old) = old else { return Ok(()) };
        let Some(bound) = of.max_versions else {
            self.archive(batch, old, action, ended);
            return Ok(());
        };
        let known = rows.read::<SecretHistory>(self.caller.realm, &self.path)?;
        let had_history = known.is_some();
        let mut history = known.map_or_else(SecretHistory::default, |row| row.value);
        if 1 < bound {
            history.kept.push(KeptVersion {
                version: old.version,
                id: old.version_id.clone(),
                written: old.updated.clone(),
                ended: ended.clone(),
                action,
            });
            self.archive(batch, old, action, ended);
        }
        self.prune(batch, &mut history, bound);
        if !history.kept.is_empty() {
            batch.put(self.caller.realm, &self.path, &history);
        } else if had_history {
            batch.delete::<SecretHistory>(self.caller.realm, &self.path);
        }
        Ok(())
    }

    fn archive(&self, batch: &mut Batch, old: CurrentSecret, action: VersionAction, ended: &Stamp) {
        let CurrentSecret { data, version_id, updated: written, version, marks, .. } = old;
        let path: Vec<&str> = self.path.iter().copied().chain([version_id.as_str()]).collect();
        let archived = SecretVersion { data, action, written, ended: ended.clone(), version, marks };
        batch.put(self.caller.realm, &path, &archived);
    }

    /// Takes away the oldest above the bound, of which the current version is one.
    fn prune(&self, batch: &mut Batch, history: &mut SecretHistory, bound: u32) {
        let earlier = usize::try_from(bound.saturating_sub(1)).unwrap_or(usize::MAX);
        let excess = history.kept.len().saturating_sub(earlier).min(PRUNED_MAX);
        for kept in history.kept.drain(..excess) {
            let path: Vec<&str> = self.path.iter().copied().chain([kept.id.as_str()]).collect();
            batch.delete::<SecretVersion>(self.caller.realm, &path);
        }
    }
}
