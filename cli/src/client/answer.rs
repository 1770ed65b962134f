//! What central answers.

use std::ops::{Deref, DerefMut};

use serde_json::Value;
use zeroize::Zeroize;

use super::ClientError;

/// A good answer.
pub(crate) struct Answer {
    /// `METHOD path`, for messages.
    pub(super) request: String,
    /// The body; null where there is none.
    pub(crate) body: Erased,
    /// `Holdfast-Pending`: hosts or jobs that have not caught up yet.
    pub(crate) pending: Option<String>,
    /// The version of what was read, as a change expects it.
    pub(crate) etag: Option<String>,
}

impl Answer {
    /// A text member that must be there.
    pub(crate) fn text(&self, member: &str) -> Result<String, ClientError> {
        let text = self.body[member].as_str().map(str::to_owned);
        text.ok_or_else(|| self.lacks(&format!("has no text `{member}`")))
    }

    /// A boolean member that must be there.
    pub(crate) fn flag(&self, member: &str) -> Result<bool, ClientError> {
        self.body[member].as_bool().ok_or_else(|| self.lacks(&format!("has no boolean `{member}`")))
    }

    /// The body as a list.
    pub(crate) fn list(&self) -> Result<&[Value], ClientError> {
        self.body.as_array().map(Vec::as_slice).ok_or_else(|| self.lacks("is no list"))
    }

    pub(super) fn lacks(&self, what: &str) -> ClientError {
        ClientError::Answer { request: self.request.clone(), what: what.to_owned() }
    }
}

/// A body that may hold secrets: its texts are overwritten once it is done with. It has no `Debug`.
pub(crate) struct Erased(pub(crate) Value);

impl Deref for Erased {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.0
    }
}

impl DerefMut for Erased {
    fn deref_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

fn erase(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(erase),
        Value::Object(members) => members.values_mut().for_each(erase),
        _ => {}
    }
}
