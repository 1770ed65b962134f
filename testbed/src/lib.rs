//! Everything that tests of whole systems share.

pub mod figures;
pub mod lines;
pub mod memory;
pub mod openapi;
pub mod procs;
pub mod routes;
pub mod sim;
pub mod swtpm;

/// The id of the category that every tenant has, as clients send it.
pub const APP: &str = "f7ff85a0-faaa-11e5-a8a9-7fa3b294cd46";
