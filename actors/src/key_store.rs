//! Keys that encrypt for clients and never leave the node: made, imported, rotated, distributed, deleted.
//!
//! A ledger. A key is one row with all its versions, so that whoever uses it reads one row: of one snapshot, the same at
//! central and at a site host ([`reading`]). What is done with a key is computing on that row ([`operations`]). Changes
//! happen at central only ([`writing`], [`quarantine`]). What is used again and again is not read again as long as nothing
//! has changed ([`hot`]).
//!
//! Names and formats are those of MinIO's KES (`holdfast_protocol::kes`); versions are ours.

pub mod hot;
pub mod listing;
pub mod operations;
pub mod quarantine;
pub mod reading;
pub mod records;
pub mod writing;

pub use hot::HotRealm;
pub use listing::{Listed, Listing, Page};
pub use operations::{Unusable, decrypt, encrypt, hmac};
pub use reading::{key_names, lookup};
pub use records::{FreshKey, KeyVersion, Material, TransitKey, VersionState, Why};
pub use writing::{
    CreateKey, EraseVersions, ImportKey, RotateKey, SetDistribute, create_key, delete_key, erase_versions, import_key,
    rotate_key, set_distribute, set_origin,
};

#[cfg(test)]
mod tests;
