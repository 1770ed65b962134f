//! Everything that tests of whole systems share.

pub mod figures;
pub mod procs;
pub mod swtpm;
