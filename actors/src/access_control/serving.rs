//! How a tenant's KES clients are served, as central's configuration says: a row, so that it is known wherever the tenant
//! has content.

use std::time::Duration;

use holdfast_protocol::ids::Realm;
use serde::{Deserialize, Serialize};

use crate::access_control::authority::Authority;
use crate::access_control::configured::CONFIGURATION;
use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, Rows};

const NAME: &str = "kes";

/// How clients are served: row `["kes"]`. Goes wherever the tenant has content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The way of speaking, by its name in the configuration.
    pub profile: String,
    /// Whether it is the tenant of those who are nobody's: the one of the main listener.
    pub is_first: bool,
    /// Whether a certificate that has ended is as good as another.
    pub accept_expired_certificates: bool,
    /// Paths that are called in another way than usual, in their order.
    pub apis: Vec<ServedApi>,
}

/// How a path is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedApi {
    /// The path.
    pub path: String,
    /// Whether by anybody.
    pub skip_auth: bool,
    /// Until the answer.
    pub timeout: Option<Duration>,
}

impl Record for Serving {
    const KIND: Kind = Kind::Serving;
}

impl Serving {
    /// How the clients of a tenant are served; `None`: the configuration says nothing of it.
    ///
    /// # Errors
    /// The store's refusals.
    pub fn read(rows: &dyn Rows, realm: Realm) -> Result<Option<Self>, Refusal> {
        Ok(rows.read::<Self>(realm, &[NAME])?.map(|row| row.value))
    }
}

/// Writes what the configuration says, or that it says nothing any more.
///
/// # Errors
/// The store's refusals.
pub fn set_serving(
    by: &Authority,
    serving: Option<&Serving>,
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, ()), Refusal> {
    let by = by.renewed(rows, now)?;
    let mut batch = Batch::new(by.realm(), Line::done(now.wall_us, by.actor(), "kes.serve", CONFIGURATION));
    match serving {
        Some(serving) => batch.put(by.realm(), &[NAME], serving),
        None => batch.delete::<Serving>(by.realm(), &[NAME]),
    }
    Ok((batch, ()))
}
