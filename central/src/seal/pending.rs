//! Audit lines that wait outside the barrier until central is unsealed.
//!
//! They hold no secret. There is room for few, since strangers can cause them: what finds no room is counted, and the
//! count gets a line of its own.

use holdfast_actors::audit_log::Line;
use holdfast_actors::rows::Batch;
use holdfast_protocol::codec;
use holdfast_protocol::ids::Realm;
use serde::{Deserialize, Serialize};

/// Row outside the barrier.
pub(super) const ROW: &str = "audit-pending";
/// Lines kept.
const LINES_MAX: usize = 64;
/// Longest stored form that is read; lines of the seal keeper have at most a few hundred bytes.
const BYTES_MAX: usize = 128 << 10;

/// The lines in their order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Pending {
    lines: Vec<Line>,
    omitted: u64,
}

impl Pending {
    /// Reads the row; nothing, or something unreadable, are no lines.
    pub(super) fn decode(row: Option<&[u8]>) -> Self {
        match row.map(|bytes| codec::decode(bytes, BYTES_MAX)) {
            None => Self::default(),
            Some(Ok(pending)) => pending,
            Some(Err(_)) => {
                tracing::error!("the audit lines from before unsealing are damaged");
                Self { lines: Vec::new(), omitted: 1 }
            }
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Adds a line; whether the stored form changed. Counts beyond the room stay in memory, or a stranger could have
    /// something written to disk for ever.
    pub(super) fn push(&mut self, line: Line) -> bool {
        let has_room = self.lines.len() < LINES_MAX;
        if has_room {
            self.lines.push(line);
        } else {
            self.omitted += 1;
        }
        has_room
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.omitted == 0
    }

    /// The batch that moves all lines into the node's chain and removes the row.
    pub(super) fn batch(&self, now_us: i64) -> Batch {
        let mut batch = Batch::housekeeping().from_reserve();
        for line in &self.lines {
            batch.audit(Realm::NODE, line.clone());
        }
        if self.omitted > 0 {
            let object = format!("{} lines", self.omitted);
            batch.audit(Realm::NODE, Line::refused(now_us, "central", "audit.omit", object, "too many while sealed"));
        }
        batch.put_boot(ROW, None);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut pending = Pending::default();
        let line = |at| Line::refused(at, "other", "seal.unseal", "", "wrong seal key");
        let stored = (0..100).filter(|at| pending.push(line(*at))).count();
        assert_eq!((stored, pending.lines.len(), pending.omitted), (64, 64, 36));
        let again = Pending::decode(Some(&pending.encode()));
        assert_eq!((again.lines, again.omitted), (pending.lines, pending.omitted));
        assert!(Pending::decode(None).is_empty());
        assert_eq!(Pending::decode(Some(b"?")).omitted, 1);
    }
}
