//! Safe deposit boxes, which are vaults, and the secrets in them: one model for all dialects.
//!
//! A ledger. Reading is the same code at central and at a site host ([`reading`]): it works on the rows of one
//! snapshot, whichever realm they lie in. Writing happens at central only.

pub mod boxes;
pub mod faults;
mod json;
pub mod reading;
pub mod records;
pub mod secrets;
pub mod slug;

pub use boxes::{CheckedBox, CreateBox, NewBox, create_box};
pub use faults::{Fault, Invalid};
pub use reading::{SecretView, list_boxes, list_secrets, read_box, read_secret, read_version, role_of};
pub use records::{
    BoxId, Category, CurrentSecret, DepositBox, GroupPermission, PrincipalPermission, Role, SecretVersion, Stamp,
    VersionAction, default_categories,
};
pub use secrets::{CheckedData, DeleteSecret, SecretPath, WriteSecret, delete_secret, write_secret};

#[cfg(test)]
mod tests;
