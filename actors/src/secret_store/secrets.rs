//! Secrets: their paths and bounds, and how Cerberus writes and deletes them.

use holdfast_protocol::limits::{PATH_LEVELS_MAX, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX};
use holdfast_protocol::secret::SecretBytes;

use crate::access_control::Caller;
use crate::ports::Now;
use crate::rows::{Batch, Expected, Refusal, Rows};
use crate::secret_store::faults::{Fault, Invalid};
use crate::secret_store::json;
use crate::secret_store::records::{DepositBox, Marks};
use crate::secret_store::writing::{
    Content, IMAGE_ACCESS_MAX, PutSecret, RemoveSecret, Terms, put_secret, remove_secret,
};

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

    /// Whether there is room for what stands beside it in the same record.
    ///
    /// # Errors
    /// Too long together, or too many patterns of images.
    pub fn beside(&self, marks: &Marks) -> Result<(), Invalid> {
        let texts = marks.binary.iter().chain(&marks.image_access);
        let beside: usize = texts.map(|text| text.len() + 3).sum();
        if SECRET_BYTES_MAX < self.0.expose().len() + beside {
            return Err(Fault::other("A secret has at most 254 KiB.").into());
        }
        let bad = |text: &String| text.is_empty() || 512 < text.len() || text.contains(char::is_control);
        if IMAGE_ACCESS_MAX < marks.image_access.len() || marks.image_access.iter().any(bad) {
            return Err(Fault::other("allow-image-access has at most 64 patterns of 1 to 512 bytes.").into());
        }
        Ok(())
    }

    /// A second owner.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(SecretBytes::new(self.0.expose().to_vec()))
    }

    /// The object.
    pub fn into_bytes(self) -> SecretBytes {
        self.0
    }
}

/// Writes a secret, whatever stands there.
///
/// # Errors
/// As [`put_secret`].
pub fn write_secret(cmd: &WriteSecret, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let cmd = PutSecret {
        caller: cmd.caller.clone(),
        at: cmd.at.clone(),
        path: cmd.path.clone(),
        content: Content::Data(cmd.data.duplicate()),
        terms: Terms::default(),
        version_id: cmd.version_id.clone(),
    };
    put_secret(&cmd, rows, now).map(|(batch, _)| (batch, ()))
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

/// Deletes a secret, whatever it is.
///
/// # Errors
/// As [`remove_secret`].
pub fn delete_secret(cmd: &DeleteSecret, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let DeleteSecret { caller, at, path } = cmd;
    let expected = Expected::Anything;
    let cmd = RemoveSecret { caller: caller.clone(), at: at.clone(), path: path.clone(), expected };
    remove_secret(&cmd, rows, now)
}
