//! Secrets: written and deleted, with what was there before kept as a version.

use holdfast_protocol::limits::{PATH_LEVELS_MAX, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX};
use holdfast_protocol::secret::SecretBytes;

use crate::access_control::Caller;
use crate::audit_log::Line;
use crate::distribute::Gate;
use crate::ports::Now;
use crate::rows::{Batch, ReadRows, Refusal, Rows};
use crate::secret_store::faults::{Fault, Invalid};
use crate::secret_store::json;
use crate::secret_store::reading::box_at;
use crate::secret_store::records::{CurrentSecret, DepositBox, Role, SecretVersion, Stamp, VersionAction};

/// Longest secret. The rest of a record is for who wrote it and when.
pub const SECRET_BYTES_MAX: usize = RECORD_BYTES_MAX - 2048;
/// Longest path within a box, slashes included.
const PATH_BYTES_MAX: usize = 255;

/// A secret's path within its box: 1 to 14 segments, 255 bytes in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPath(Vec<String>);

impl SecretPath {
    /// Takes segments that may come from anywhere.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub fn new(segments: Vec<String>) -> Result<Self, Refusal> {
        // One level is the box, one a version's id.
        if segments.is_empty() || PATH_LEVELS_MAX - 2 < segments.len() {
            return Err(Refusal::Invalid(format!("a secret's path has 1 to {} parts", PATH_LEVELS_MAX - 2)));
        }
        let bytes = segments.iter().map(|segment| segment.len() + 1).sum::<usize>() - 1;
        let bad = |s: &String| {
            s.is_empty() || SEGMENT_BYTES_MAX < s.len() || s.contains(|c: char| c.is_control() || c == '/')
        };
        if PATH_BYTES_MAX < bytes || segments.iter().any(bad) {
            return Err(Refusal::Invalid(format!(
                "a secret's path has at most {PATH_BYTES_MAX} bytes, none of control"
            )));
        }
        Ok(Self(segments))
    }

    /// The row path in a box.
    pub fn below<'a>(&'a self, slug: &'a str) -> Vec<&'a str> {
        std::iter::once(slug).chain(self.0.iter().map(String::as_str)).collect()
    }

    /// For people: `category/slug/path`.
    pub fn under(&self, of: &DepositBox) -> String {
        format!("{}{}", of.path(), self.0.join("/"))
    }
}

/// Replaces what stands at a path.
#[derive(Debug)]
pub struct WriteSecret {
    /// Who asks.
    pub caller: Caller,
    /// Category and slug of the box.
    pub at: (String, String),
    /// Where in it.
    pub path: SecretPath,
    /// What.
    pub data: CheckedData,
    /// Fresh UUID.
    pub version_id: String,
}

/// A JSON object within bounds.
#[derive(Debug)]
pub struct CheckedData(SecretBytes);

impl CheckedData {
    /// Checks what a client sent.
    ///
    /// # Errors
    /// Not one JSON object, too long or too deep.
    pub fn new(data: SecretBytes) -> Result<Self, Invalid> {
        if SECRET_BYTES_MAX < data.expose().len() {
            return Err(Fault::other("A secret has at most 254 KiB.").into());
        }
        if json::is_object(data.expose()) { Ok(Self(data)) } else { Err(Fault::BODY_MALFORMED.into()) }
    }

    fn duplicate(&self) -> SecretBytes {
        SecretBytes::new(self.0.expose().to_vec())
    }
}

/// Writes a secret.
///
/// # Errors
/// [`Refusal::NotFound`]: no such box; [`Refusal::Denied`]; [`Refusal::Unauthenticated`].
pub fn write_secret(cmd: &WriteSecret, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let at = (cmd.at.0.as_str(), cmd.at.1.as_str());
    let of = box_at(rows, &caller, &Gate::CENTRAL, at, Role::Write)?;
    let path = cmd.path.below(at.1);
    let stamp = Stamp { by: caller.actor().to_owned(), at_us: now.wall_us };
    let line = Line::done(now.wall_us, caller.actor(), "secret.write", cmd.path.under(&of));
    let mut batch = Batch::new(caller.realm, line);
    let created = match rows.read::<CurrentSecret>(caller.realm, &path)? {
        Some(old) => {
            let created = old.value.created.clone();
            archive(&mut batch, &caller, &path, old.value, VersionAction::Update, &stamp);
            created
        }
        None => stamp.clone(),
    };
    let current =
        CurrentSecret { data: cmd.data.duplicate(), version_id: cmd.version_id.clone(), created, updated: stamp };
    batch.put(caller.realm, &path, &current);
    Ok((batch, ()))
}

fn archive(
    batch: &mut Batch,
    caller: &Caller,
    path: &[&str],
    old: CurrentSecret,
    action: VersionAction,
    ended: &Stamp,
) {
    let CurrentSecret { data, version_id, updated: written, .. } = old;
    let path: Vec<&str> = path.iter().copied().chain([version_id.as_str()]).collect();
    batch.put(caller.realm, &path, &SecretVersion { data, action, written, ended: ended.clone() });
}

/// Deletes what stands at a path; it remains as a version.
#[derive(Debug)]
pub struct DeleteSecret {
    /// Who asks.
    pub caller: Caller,
    /// Category and slug of the box.
    pub at: (String, String),
    /// Where in it.
    pub path: SecretPath,
}

/// Deletes a secret.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Denied`], [`Refusal::Unauthenticated`].
pub fn delete_secret(cmd: &DeleteSecret, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let caller = cmd.caller.renewed(rows, now)?;
    let at = (cmd.at.0.as_str(), cmd.at.1.as_str());
    let of = box_at(rows, &caller, &Gate::CENTRAL, at, Role::Write)?;
    let path = cmd.path.below(at.1);
    let old = rows.read::<CurrentSecret>(caller.realm, &path)?.ok_or(Refusal::NotFound("secret"))?;
    let stamp = Stamp { by: caller.actor().to_owned(), at_us: now.wall_us };
    let line = Line::done(now.wall_us, caller.actor(), "secret.delete", cmd.path.under(&of));
    let mut batch = Batch::new(caller.realm, line);
    archive(&mut batch, &caller, &path, old.value, VersionAction::Delete, &stamp);
    batch.delete::<CurrentSecret>(caller.realm, &path);
    Ok((batch, ()))
}
