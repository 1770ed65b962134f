//! Safe deposit boxes, which are vaults, and the secrets in them: one model for all dialects.
//!
//! A ledger. Reading is the same code at central and at a site host ([`reading`]): it works on the rows of one
//! snapshot, whichever realm they lie in. Writing happens at central only.

pub mod boxes;
pub mod changing;
pub mod faults;
mod json;
pub mod members;
pub mod reading;
pub mod records;
pub mod secrets;
pub mod slug;
pub mod writing;

pub use boxes::{CheckedBox, CreateBox, NewBox, create_box};
pub use changing::{BoxPatch, EmptyBox, Groups, RemoveBox, UpdateBox, empty_box, remove_box, update_box};
pub use faults::{Fault, Invalid};
pub use members::Members;
pub use reading::{SecretView, list_boxes, list_secrets, open_box, read_box, read_secret, read_version, role_of};
pub use records::{
    BoxId, Category, CurrentSecret, DepositBox, GroupPermission, KeptVersion, Marks, PrincipalPermission, Role,
    SecretHistory, SecretVersion, Stamp, VersionAction, default_categories,
};
pub use secrets::{CheckedData, DeleteSecret, SecretPath, WriteSecret, delete_secret, write_secret};
pub use writing::{Content, PutSecret, RemoveSecret, SecretPatch, Terms, Written, put_secret, remove_secret};

#[cfg(test)]
mod tests;
