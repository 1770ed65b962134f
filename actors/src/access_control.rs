//! Who may act: tenants, the people and programs in them, their groups and tokens.
//!
//! A ledger: everything it knows is rows, and its functions decide on rows. Groups and revocations are looked up at
//! each request, so a change bites without a new token. Passwords are hashed and verified before, on threads that may
//! be busy ([`password`]).
//!
//! Beside these there are the clients of KES, which have certificates instead of tokens: [`identities`], their
//! [`policies`], and what the configuration says of both ([`configured`]).

pub mod approle_logins;
pub mod approles;
pub mod authority;
pub mod configured;
pub mod expiry;
pub mod globs;
pub mod identities;
pub mod issued;
pub mod logins;
pub mod password;
pub mod policies;
pub mod records;
pub mod serving;
pub mod tenants;
pub mod tokens;
pub mod users;

pub use authority::Authority;
pub use records::{
    Approle, HostTokenKey, Instance, Login, Principal, Revocation, SecretId, Tenant, TenantKind, Token, TokenKey,
    TokenVerifier,
};
pub use tokens::{Caller, Claims, TokenId, TokenKind, VerifiedTokens, verify};

/// The group whose members may administer their tenant, in every dialect.
pub const ADMINS: &str = "admins";
/// The group whose members may look at how their tenant is set up, in every dialect, but for secrets; they change nothing.
pub const READERS: &str = "read-only";

#[cfg(test)]
mod tests;
