//! How many rows of a kind a tenant has, kept beside them: a bound is then looked up, and needs no counting of rows that show
//! neither names nor whether they are deleted. Changed with the row that is added or taken away, in one batch. Where there
//! is none yet, the rows are counted once: there may be some from before they were.

use holdfast_protocol::ids::Realm;
use serde::{Deserialize, Serialize};

use crate::access_control::Authority;
use crate::access_control::policies::Origin;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, Rows};

/// Rows of one kind: `[number of the kind]`. Stays at central.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// So many there are, tombstones aside.
    pub count: u32,
}

impl Record for Tally {
    const KIND: Kind = Kind::Tally;
}

/// How many there may be, and of what.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// In the plural.
    pub what: &'static str,
    /// Most of a tenant.
    pub max: u32,
}

fn name<T: Record>() -> String {
    (T::KIND as u8).to_string()
}

/// How many of a kind there are.
///
/// # Errors
/// The store's refusals.
pub fn tally<T: Record>(rows: &dyn Rows, realm: Realm) -> Result<u32, Refusal> {
    match rows.read::<Tally>(realm, &[&name::<T>()])? {
        Some(row) => Ok(row.value.count),
        None => {
            let there = rows.scan(T::KIND, realm, &[])?.iter().filter(|row| row.body.is_some()).count();
            Ok(u32::try_from(there).unwrap_or(u32::MAX))
        }
    }
}

/// Counts one more. What the configuration wants is counted too, but not refused: an operator wrote it down.
///
/// # Errors
/// [`Refusal::Conflict`]: there are as many as there may be.
pub(crate) fn add<T: Record>(batch: &mut Batch, rows: &dyn Rows, by: &Authority, bound: Bound) -> Result<(), Refusal> {
    let count = tally::<T>(rows, by.realm())?;
    if bound.max <= count && Origin::of(by) == Origin::Api {
        return Err(Refusal::Conflict(format!("a tenant has at most {} {}", bound.max, bound.what)));
    }
    batch.put(by.realm(), &[&name::<T>()], &Tally { count: count.saturating_add(1) });
    Ok(())
}

/// Counts so many less.
///
/// # Errors
/// The store's refusals.
pub(crate) fn take<T: Record>(batch: &mut Batch, rows: &dyn Rows, realm: Realm, gone: u32) -> Result<(), Refusal> {
    let count = tally::<T>(rows, realm)?.saturating_sub(gone);
    batch.put(realm, &[&name::<T>()], &Tally { count });
    Ok(())
}
