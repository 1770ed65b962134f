//! For tests of whole processes: each pair of key and nonce that this process uses, in a file.
//!
//! In builds without debug assertions this does not exist; in others it does nothing unless the environment asks.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use holdfast_protocol::envelope::witness;

/// Names the file. Many processes may share one.
pub const VARIABLE: &str = "HOLDFAST_TEST_NONCE_SINK";
/// A record: a digest of the key, the nonce, the process. It divides a page, so that no record is ever half written.
pub const RECORD_BYTES: usize = 32 + 24 + 8;

/// Begins to record, if the environment names a file. A record is with the kernel before its ciphertext is anywhere, so
/// that killing the process loses none.
///
/// # Errors
/// The file can't be opened.
pub fn record() -> io::Result<()> {
    let Some(path) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    witness::install(Box::new(move |key, nonce| {
        let mut record = [0; RECORD_BYTES];
        record[..32].copy_from_slice(&key);
        record[32..56].copy_from_slice(&nonce);
        record[56..].copy_from_slice(&u64::from(std::process::id()).to_be_bytes());
        // One call: what several processes append does not mix.
        let written = (&file).write(&record).expect("the file of nonces can be written");
        assert_eq!(written, RECORD_BYTES, "a record of a nonce was cut short");
    }));
    Ok(())
}
