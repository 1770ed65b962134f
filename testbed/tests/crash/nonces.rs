//! No key is ever used twice with the same nonce, by all processes together.

use std::collections::HashSet;
use std::path::Path;
use std::{fs, io};

/// A record as `holdfast_rest::nonces` writes it: key, nonce, process.
const RECORD_BYTES: usize = 32 + 24 + 8;

/// What was recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Uses of a key.
    pub(crate) uses: usize,
    /// Keys.
    pub(crate) keys: usize,
    /// Processes.
    pub(crate) processes: usize,
}

/// Reads the records; a pair that stands there twice is a failure.
pub(crate) fn all_differ(path: &Path) -> io::Result<Recorded> {
    let bytes = fs::read(path)?;
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    assert!(rest.is_empty(), "records are whole");
    let (mut pairs, mut keys, mut processes) = (HashSet::new(), HashSet::new(), HashSet::new());
    for record in records {
        assert!(pairs.insert(&record[..56]), "a key was used twice with the same nonce: {}", hex::encode(record));
        keys.insert(&record[..32]);
        processes.insert(&record[56..]);
    }
    Ok(Recorded { uses: records.len(), keys: keys.len(), processes: processes.len() })
}
