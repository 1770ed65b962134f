//! Reading keys: the same at central and at a site host.

use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::KeyName;

use crate::distribute::{Distribute, Gate};
use crate::key_store::listing::Listed;
use crate::key_store::records::TransitKey;
use crate::rows::{Kind, ReadRows, Refusal, Rows, decode_beginning};

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

/// The names of all keys of a tenant, in order, and where each goes; no key is decoded for it. Of which of them may be told
/// at this node see [`Gate::is_placed`].
///
/// # Errors
/// The store's refusals.
pub fn key_names(rows: &dyn Rows, realm: Realm) -> Result<Vec<Listed<Distribute>>, Refusal> {
    let mut all = Vec::new();
    for mut row in rows.scan(Kind::TransitKey, realm, &[])? {
        if let (Some(body), Some(name)) = (row.body, row.path.pop()) {
            all.push(Listed { name, of: decode_beginning::<TransitKey, _>(body.expose())? });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}
