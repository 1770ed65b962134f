//! Everything that tests of whole systems share.

pub mod figures;
pub mod memory;
pub mod procs;
pub mod routes;
pub mod sim;
pub mod swtpm;
