//! The other end of the sync: applying bundles at a site host.
//!
//! A replica never moves backwards: (term, dist_epoch, seq) only grow. A delta is one transaction together with its new
//! position; a full copy goes into a realm of its own beside the one that reads use, and its last part makes it the
//! content.

use std::collections::BTreeSet;

use holdfast_protocol::bundle::{BundleKind, Header, Item};
use holdfast_protocol::ids::Realm;
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::wire::Position;

use crate::audit_log::Line;
use crate::barrier::Snapshot;
use crate::distribution::{Copy, DELTA_ROWS_MAX, Shadow};
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Refusal, RowKey, Rows};

/// Rows of a full copy applied by one transaction.
pub const CHUNK_ROWS_MAX: usize = DELTA_ROWS_MAX;
/// Bytes of a full copy applied by one transaction.
pub const CHUNK_BYTES_MAX: usize = 512 << 10;

/// What came of a bundle, or of a chunk of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Applied up to the target; a realm that nothing refers to any more is to be erased.
    Applied {
        /// The realm that held the content before.
        superseded: Option<Realm>,
    },
    /// More of it must follow before it counts.
    Partly,
    /// It was applied before.
    AlreadyThere,
    /// It starts somewhere else than here.
    OutOfStep(Position),
    /// It contradicts what is held or leads backwards; somebody must look.
    Alarm(&'static str),
}

/// What a bundle's header asks of a replica, before anything of it is decrypted.
///
/// # Errors
/// The store's fault.
pub fn judge(header: &Header, rows: &dyn Rows) -> Result<Option<Outcome>, Refusal> {
    let held = copy(rows, header)?.filter(|copy| copy.realm.is_some()).map(|copy| copy.position);
    let (target, Some(held)) = (header.target, held) else {
        return Ok((header.kind == BundleKind::Delta).then(|| Outcome::OutOfStep(Position::default())));
    };
    if target == held {
        return Ok(Some(Outcome::AlreadyThere));
    }
    if (target.term, target.dist_epoch) < (held.term, held.dist_epoch) {
        return Ok(Some(Outcome::Alarm("a bundle of an older term or epoch")));
    }
    if target.term == held.term && target.seq == held.seq {
        return Ok(Some(Outcome::Alarm("a bundle of the held number with another digest")));
    }
    if target.term == held.term && target.seq < held.seq {
        return Ok(Some(Outcome::Alarm("a bundle that leads backwards")));
    }
    if header.kind == BundleKind::Delta && header.base != held {
        return Ok(Some(Outcome::OutOfStep(held)));
    }
    Ok(None)
}

/// A bundle's rows, or a chunk of a full copy's, to be applied.
#[derive(Debug)]
pub struct Apply {
    /// The bundle's header.
    pub header: Header,
    /// Rows to write; at most [`CHUNK_ROWS_MAX`].
    pub items: Vec<Item>,
    /// Whether the part ends with this chunk.
    pub ends_part: bool,
    /// Fresh keys, should a realm be begun.
    pub realm_base: Secret<32>,
    /// Fresh keys, should a realm be begun.
    pub realm_key: Secret<32>,
}

/// Applies rows; judged again in the transaction.
///
/// # Errors
/// Rows that no bundle may carry, or the store's fault.
pub fn apply(cmd: &Apply, rows: &dyn Rows, now: Now) -> Result<(Batch, Outcome), Refusal> {
    if let Some(outcome) = judge(&cmd.header, rows)? {
        return Ok((Batch::default(), outcome));
    }
    match cmd.header.kind {
        BundleKind::Delta => delta(cmd, rows, now),
        BundleKind::Full { part, of } => full(cmd, part, of, rows, now),
    }
}

fn delta(cmd: &Apply, rows: &dyn Rows, now: Now) -> Result<(Batch, Outcome), Refusal> {
    let Some(mut copy) = copy(rows, &cmd.header)? else {
        return Ok((Batch::default(), Outcome::OutOfStep(Position::default())));
    };
    let realm = copy.realm.ok_or(Refusal::Corrupt)?;
    let mut batch = Batch::new(Realm::NODE, line(cmd, now));
    write(&mut batch, realm, &cmd.items)?;
    copy.position = cmd.header.target;
    batch.put(Realm::NODE, &[cmd.header.tenant.as_str()], &copy);
    Ok((batch, Outcome::Applied { superseded: None }))
}

fn full(cmd: &Apply, part: u32, of: u32, rows: &dyn Rows, now: Now) -> Result<(Batch, Outcome), Refusal> {
    let mut copy = copy(rows, &cmd.header)?.unwrap_or(Copy {
        tenant_number: cmd.header.tenant_number,
        realm: None,
        position: Position::default(),
        shadow: None,
    });
    let mut batch = Batch::housekeeping();
    let mut shadow = match copy.shadow.take() {
        Some(shadow) if shadow.target == cmd.header.target && shadow.parts == part => shadow,
        Some(_) | None if part == 0 => {
            // A shadow that was begun for an older target is left behind; the erasing of realms nothing names finds it.
            let realm = free_realm(rows)?;
            batch.create_realm(realm, cmd.realm_base.duplicate(), cmd.realm_key.duplicate());
            Shadow { realm, target: cmd.header.target, parts: 0 }
        }
        Some(_) | None => return Ok((Batch::default(), Outcome::OutOfStep(copy.position))),
    };
    write(&mut batch, shadow.realm, &cmd.items)?;
    let mut outcome = Outcome::Partly;
    if cmd.ends_part {
        shadow.parts += 1;
    }
    if cmd.ends_part && shadow.parts == of {
        batch.audit(Realm::NODE, line(cmd, now));
        outcome = Outcome::Applied { superseded: copy.realm.replace(shadow.realm) };
        copy.position = cmd.header.target;
    } else {
        copy.shadow = Some(shadow);
    }
    copy.tenant_number = cmd.header.tenant_number;
    batch.put(Realm::NODE, &[cmd.header.tenant.as_str()], &copy);
    Ok((batch, outcome))
}

/// Realms of this store that no copy refers to, to be erased: former contents, full copies that were interrupted, and
/// what an erasing left that was interrupted itself.
///
/// # Errors
/// The store's fault.
pub fn orphans(snapshot: &Snapshot) -> Result<BTreeSet<Realm>, Refusal> {
    let referenced = referenced_realms(snapshot)?;
    Ok(snapshot.realms()?.difference(&referenced).copied().collect())
}

/// Local realms that are in use: the node's own, each copy's, and that of each full copy on its way.
///
/// # Errors
/// The store's fault.
pub fn referenced_realms(rows: &dyn Rows) -> Result<BTreeSet<Realm>, Refusal> {
    let mut realms = BTreeSet::from([Realm::NODE]);
    for row in rows.list::<Copy>(Realm::NODE, &[])? {
        realms.extend(row.value.realm);
        realms.extend(row.value.shadow.map(|shadow| shadow.realm));
    }
    Ok(realms)
}

/// Where the content of the tenant with this number lies.
///
/// # Errors
/// The store's fault.
pub fn locate(rows: &dyn Rows, tenant_number: u32) -> Result<Option<Realm>, Refusal> {
    // A central restored from a copy may give a number again: then it is the newer tenant's.
    let copies = rows.list::<Copy>(Realm::NODE, &[])?.into_iter().map(|row| row.value);
    let of_number = copies.filter(|copy| copy.tenant_number == tenant_number && copy.realm.is_some());
    Ok(of_number.max_by_key(|copy| copy.position.term).and_then(|copy| copy.realm))
}

/// The first number above all that were ever used: a realm's rows outlive its keys until they are swept.
fn free_realm(rows: &dyn Rows) -> Result<Realm, Refusal> {
    let highest = rows.highest_realm()?;
    Ok(Realm(highest.0.checked_add(1).ok_or(Refusal::Corrupt)?))
}

fn copy(rows: &dyn Rows, header: &Header) -> Result<Option<Copy>, Refusal> {
    Ok(rows.read::<Copy>(Realm::NODE, &[header.tenant.as_str()])?.map(|row| row.value))
}

fn write(batch: &mut Batch, realm: Realm, items: &[Item]) -> Result<(), Refusal> {
    for item in items {
        let kind = Kind::from_byte(item.kind).filter(|kind| is_content(*kind)).ok_or(Refusal::Corrupt)?;
        let key = RowKey { kind, realm, path: item.path.clone() };
        match &item.body {
            Some(body) => batch.put_encoded(key, SecretBytes::new(body.0.expose().to_vec())),
            None => batch.delete_key(key),
        }
    }
    Ok(())
}

/// Kinds a bundle may carry: nothing of a node's own realm.
fn is_content(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Box
            | Kind::Secret
            | Kind::Principal
            | Kind::TokenVerifier
            | Kind::Revocation
            | Kind::Category
            | Kind::Approle
            | Kind::Policy
            | Kind::Identity
            | Kind::Serving
            | Kind::TransitKey
    )
}

fn line(cmd: &Apply, now: Now) -> Line {
    let object = format!("{} seq {}", cmd.header.tenant, cmd.header.target.seq);
    Line::done(now.wall_us, "central", "content.applied", object)
}
