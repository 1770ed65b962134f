//! Everything that tests of whole systems share.

pub mod procs;
pub mod swtpm;
