//! Everything that tests of whole systems share.

pub mod swtpm;
