//! What has ended by itself and proves nothing any more: tokens, revocations of single tokens, secret-ids. It is taken
//! away, so that a store does not grow with every login.
//!
//! The names of all these are random and never used again, so nothing is left of them, not even a tombstone
//! ([`Batch::forget_key`]). No bundle tells of it: each node takes away what it has by itself. To forget too early would
//! let what was revoked hold again, so nothing goes before it has been over for [`KEPT_S`], by a clock that did not run
//! ahead ([`Deadline`]).
//!
//! At central, identities go as well whose policy was deleted. They may do nothing from that moment on, so no list tells of
//! them; but they count among those that a tenant may have as long as they are there. They leave a tombstone, by which they
//! go from hosts, too.

use holdfast_protocol::ids::Realm;

use crate::access_control::identities::{Assignment, holds};
use crate::access_control::records::{Approle, Revocation, SecretId, Token};
use crate::audit_log::Line;
#[cfg(feature = "shell")]
use crate::barrier::Barrier;
use crate::barrier::Snapshot;
use crate::ports::Now;
use crate::rows::{Batch, Kind, RawRow, ReadRows, Refusal, RowKey, Rows, decode_body};
use crate::site_registry::restored::refuse_while_stopped;
use crate::tally;

/// How long something stays after its end, in seconds: what clocks may differ by, and more.
pub const KEPT_S: u64 = 24 * 3600;
/// Rows looked at by one snapshot, and taken away by one decision at most.
pub const PAGE_ROWS: usize = 64;
/// What ends by itself at a host.
pub const AT_HOST: &[Kind] = &[Kind::Token, Kind::Revocation, Kind::SecretId];
/// What ends by itself at central.
pub const AT_CENTRAL: &[Kind] = &[Kind::Token, Kind::Revocation, Kind::SecretId, Kind::Identity];

/// Where the content of the tenant with a number lies at this node.
pub type Locate = fn(&dyn Rows, u32) -> Result<Option<Realm>, Refusal>;

/// Where it lies at central.
///
/// # Errors
/// None.
pub fn at_central(_: &dyn Rows, tenant: u32) -> Result<Option<Realm>, Refusal> {
    Ok(Some(Realm(tenant)))
}

/// Up to which end something may go. A wall clock that has run ahead since this began, and will be set back, forgets
/// nothing: time is reckoned by the clock that can't be set. One that was set right is believed after [`KEPT_S`].
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Now);

impl Deadline {
    /// From a moment on at which the time is believed.
    pub fn new(began: Now) -> Self {
        Self(began)
    }

    /// What ended before goes: microseconds since the Unix epoch.
    pub fn us(&mut self, now: Now) -> i64 {
        let passed = now.mono.saturating_sub(self.0.mono);
        let reckoned = self.0.wall_us.saturating_add(i64::try_from(passed.as_micros()).unwrap_or(i64::MAX));
        if KEPT_S <= passed.as_secs() {
            self.0 = now;
        }
        reckoned.min(now.wall_us).saturating_sub(i64::try_from(KEPT_S * 1_000_000).unwrap_or(i64::MAX))
    }
}

/// What of a page may go, and after which row the next page begins; `None`: it was the last one.
///
/// # Errors
/// The store's refusals; [`Refusal::NotFound`]: a realm without keys, which has nothing.
pub fn ended(
    rows: &Snapshot,
    (kind, realm): (Kind, Realm),
    after: Option<&[String]>,
    (locate, until_us): (Locate, i64),
) -> Result<(Vec<RowKey>, Option<Vec<String>>), Refusal> {
    let page = rows.page((kind, realm), &[], after, PAGE_ROWS)?;
    let last = page.last().filter(|_| page.len() == PAGE_ROWS).map(|row| row.path.clone());
    let mut found = Vec::new();
    for row in page {
        let key = RowKey { kind, realm, path: row.path.clone() };
        if may_go(rows, &key, &row, (locate, until_us))? {
            found.push(key);
        }
    }
    Ok((found, last))
}

/// Takes away those of `keys` that still may go, with one line in the node's chain; gives how many they were.
///
/// # Errors
/// The store's refusals; central is a restored copy.
pub fn take_away(
    keys: &[RowKey],
    (locate, until_us): (Locate, i64),
    rows: &dyn Rows,
    now: Now,
) -> Result<(Batch, usize), Refusal> {
    refuse_while_stopped(rows)?;
    let mut gone = Vec::new();
    for key in keys {
        if let Some(row) = rows.load(key)?
            && may_go(rows, key, &row, (locate, until_us))?
        {
            gone.push(key.clone());
        }
    }
    let Some(first) = gone.first() else { return Ok((Batch::housekeeping(), 0)) };
    let object = format!("{} {} of realm {}", gone.len(), what(first.kind), first.realm.0);
    let mut batch = Batch::new(Realm::NODE, Line::done(now.wall_us, "node", "access.expire", object));
    let number = gone.len();
    if first.kind == Kind::Identity {
        tally::take::<Assignment>(&mut batch, rows, first.realm, u32::try_from(number).unwrap_or(u32::MAX))?;
        gone.into_iter().for_each(|key| batch.delete_key(key));
    } else {
        gone.into_iter().for_each(|key| batch.forget_key(key));
    }
    Ok((batch, number))
}

fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::Token => "tokens",
        Kind::Revocation => "revocations",
        Kind::Identity => "identities",
        _ => "secret-ids",
    }
}

/// Whether a row proves nothing any more. A tombstone never did, and goes if its name is never used again.
fn may_go(rows: &dyn Rows, key: &RowKey, row: &RawRow, (locate, until_us): (Locate, i64)) -> Result<bool, Refusal> {
    let Some(body) = &row.body else { return Ok(key.kind != Kind::Identity) };
    let is_over = |ends_us: i64| ends_us != 0 && ends_us <= until_us;
    match key.kind {
        Kind::Token => Ok(is_over(decode_body::<Token>(body.expose())?.expires_us)),
        Kind::Revocation => match decode_body::<Revocation>(body.expose())? {
            Revocation::Token { expires_us } => Ok(is_over(expires_us)),
            // These end tokens of whatever age.
            Revocation::Principal { .. } | Revocation::Tenant { .. } => Ok(false),
        },
        Kind::SecretId => {
            let id = decode_body::<SecretId>(body.expose())?;
            Ok(is_over(id.expires_us) || is_of_no_approle(rows, key, &id, locate)?)
        }
        Kind::Identity => Ok(!holds(rows, key.realm, &decode_body::<Assignment>(body.expose())?)?),
        _ => Ok(false),
    }
}

/// Whether the approle of a secret-id is gone, or was made anew. Where a node has nothing of the tenant it can't tell.
fn is_of_no_approle(rows: &dyn Rows, key: &RowKey, id: &SecretId, locate: Locate) -> Result<bool, Refusal> {
    let tenant = key.path.first().and_then(|number| number.parse().ok());
    let Some(realm) = tenant.map(|tenant| locate(rows, tenant)).transpose()?.flatten() else { return Ok(false) };
    let approle = rows.read::<Approle>(realm, &[&id.approle])?;
    Ok(approle.is_none_or(|row| row.value.instance != id.instance))
}

/// Takes away all that may go, some rows at a time, so that other changes get their turn; gives how many they were.
///
/// # Errors
/// The store's refusals. What was taken away until then is gone.
#[cfg(feature = "shell")]
pub async fn clear(
    barrier: &Barrier,
    (kinds, locate): (&[Kind], Locate),
    until_us: i64,
    now: impl Fn() -> Now + Send + Sync + Clone + 'static,
) -> Result<usize, Refusal> {
    let realms = barrier.snapshot()?.realms()?;
    let mut cleared = 0;
    let all: Vec<_> = realms.into_iter().flat_map(|realm| kinds.iter().map(move |kind| (*kind, realm))).collect();
    for of in all {
        let mut after = None::<Vec<String>>;
        loop {
            let look = || ended(&barrier.snapshot()?, of, after.as_deref(), (locate, until_us));
            let (found, next) = match look() {
                // Its keys are gone, and with them whatever it had.
                Err(Refusal::NotFound(_)) => break,
                looked => looked?,
            };
            if !found.is_empty() {
                let now = now.clone();
                let decide = move |rows: &dyn Rows| take_away(&found, (locate, until_us), rows, now());
                cleared += barrier.run(decide).await?.0;
            }
            let Some(next) = next else { break };
            after = Some(next);
            tokio::task::yield_now().await;
        }
    }
    Ok(cleared)
}
