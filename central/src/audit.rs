//! `audit-verify`: follows every chain of a data folder and names the first break. Needs no key, and no stopped node.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_actors::audit_log::journal::verify_journal;
use holdfast_actors::audit_log::verify::{Break, Lines, Report, verify_store};
use holdfast_actors::store::Fault;
use holdfast_actors::store::lmdb::{LmdbReader, OpenError};
use serde_json::{Value, json};

/// Folder of the store within a data folder.
pub const STORE: &str = "store";
/// Folder of the read journal within a data folder.
pub const JOURNAL: &str = "audit";

/// Why nothing can be said about a log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store can't be opened.
    #[error("{}: {}", .0.display(), .1)]
    Open(PathBuf, OpenError),
    /// The store can't be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The journal can't be read.
    #[error("{}: {}", .0.display(), .1)]
    Journal(PathBuf, io::Error),
}

/// Verifies the log in `data`.
///
/// # Errors
/// It can't be read at all.
pub fn verify(data: &Path) -> Result<Report, AuditError> {
    let (store, journal) = (data.join(STORE), data.join(JOURNAL));
    let reader = LmdbReader::open(&store).map_err(|error| AuditError::Open(store, error))?;
    // The store goes first: what it says of the journal was on disk before.
    let mut report = verify_store(&*reader.snapshot()?)?;
    if journal.is_dir() {
        verify_journal(&journal, &mut report).map_err(|error| AuditError::Journal(journal, error))?;
    }
    Ok(report)
}

/// For people.
pub fn text(report: &Report) -> String {
    let Report { changes, commits, reads, gaps, .. } = report;
    let checked = format!("{changes} changes, {commits} commits, {reads} reads and refusals");
    let verdict = match &report.first_break {
        None => "the audit log holds".to_owned(),
        Some(Break { chain, realm, seq, what }) => {
            format!("BROKEN: {chain:?} of realm {}, line {seq}: {what}", realm.0)
        }
    };
    let gaps = match gaps {
        0 => String::new(),
        1 => "\n1 gap: reads of at most 50 ms before a power loss are missing".to_owned(),
        gaps => format!("\n{gaps} gaps: reads of at most 50 ms before a power loss are missing at each"),
    };
    format!("{verdict}\nverified: {checked}{gaps}")
}

/// For programs.
pub fn json(report: &Report) -> Value {
    let first_break = report.first_break.as_ref().map(|Break { chain, realm, seq, what }| {
        json!({ "chain": format!("{chain:?}").to_lowercase(), "realm": realm.0, "line": seq, "what": what })
    });
    let realms = report
        .realms
        .iter()
        .map(|(realm, Lines { changes, reads })| json!({ "realm": realm.0, "changes": changes, "reads": reads }));
    json!({
        "holds": first_break.is_none(),
        "changes": report.changes,
        "commits": report.commits,
        "reads": report.reads,
        "gaps": report.gaps,
        "realms": realms.collect::<Vec<_>>(),
        "first-break": first_break,
    })
}
