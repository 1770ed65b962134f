//! Reading keys: the same at central and at a site host.

use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::KeyName;

use crate::distribute::Gate;
use crate::key_store::records::TransitKey;
use crate::rows::{ReadRows, Refusal, Row, Rows};

pub(super) const NO_KEY: Refusal = Refusal::NotFound("key");

/// The key of a name, for use at this node: with all its versions, out of one row. One that has not been placed here
/// looks like none.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::LeaseExpired`]; the store's refusals.
pub fn lookup(rows: &dyn Rows, realm: Realm, gate: &Gate<'_>, name: &KeyName) -> Result<TransitKey, Refusal> {
    let key = rows.read::<TransitKey>(realm, &[name.as_str()])?.ok_or(NO_KEY)?.value;
    served(&key, gate)?;
    Ok(key)
}

/// Whether a key is used at this node.
pub(super) fn served(key: &TransitKey, gate: &Gate<'_>) -> Result<(), Refusal> {
    if !gate.is_placed(&key.distribute) {
        return Err(NO_KEY);
    }
    gate.check_lease(&key.distribute)
}

/// All keys of a tenant that are here, by their names, those too whose lease has ended.
///
/// # Errors
/// The store's refusals.
pub fn keys(rows: &dyn Rows, realm: Realm, gate: &Gate<'_>) -> Result<Vec<Row<TransitKey>>, Refusal> {
    let mut all = rows.list::<TransitKey>(realm, &[])?;
    all.retain(|row| gate.is_placed(&row.value.distribute));
    Ok(all)
}
