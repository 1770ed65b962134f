//! What is stored about tenants, principals and tokens.

use std::collections::BTreeSet;

use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{Realm, TenantName};
use holdfast_protocol::secret::{Secret, sealed};
use serde::{Deserialize, Serialize};

use crate::rows::{Kind, Record};

/// What a tenant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TenantKind {
    /// The operator of the deployment; there is one, named `system`.
    System,
    /// Provides sites.
    SiteProvider,
    /// Owns applications.
    ApplicationOwner,
}

impl TenantKind {
    /// As the dialects write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::SiteProvider => "site-provider",
            Self::ApplicationOwner => "application-owner",
        }
    }
}

/// A tenant: `[name]` in the node's realm. The row of a deleted one stays, so that neither its name nor its realm number
/// is ever used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Its key space at central, and its number in tokens.
    pub realm: Realm,
    /// What it is for.
    pub kind: TenantKind,
    /// Whether it has its first administrator.
    pub set_up: bool,
    /// When it was made, microseconds since the Unix epoch.
    pub created_us: i64,
    /// When it was deleted, likewise: its keys are gone, and with them whatever it had.
    pub deleted_us: Option<i64>,
}

impl Record for Tenant {
    const KIND: Kind = Kind::Tenant;
}

/// What proves a user: `[username]`. Stays at central.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    /// Argon2id, PHC string. Not a key, but no one's business: this type has no `Debug`.
    pub password_hash: String,
    /// For people.
    pub full_name: Option<String>,
}

impl Record for Login {
    const KIND: Kind = Kind::Login;
}

/// What a principal is: `[name]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Names that permissions are given to.
    pub groups: BTreeSet<String>,
    /// Neither logs in nor uses a token.
    pub disabled: bool,
}

impl Record for Principal {
    const KIND: Kind = Kind::Principal;
}

/// A key that signs a tenant's tokens: `[key id]`. Stays at central.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenKey {
    /// Named by tokens.
    pub key_id: u32,
    /// What the key is made of.
    #[serde(with = "sealed")]
    pub seed: Secret<32>,
}

impl Record for TokenKey {
    const KIND: Kind = Kind::TokenKey;
}

/// The public half, which sites get: `[key id]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenVerifier {
    /// Named by tokens.
    pub key_id: u32,
    /// What verifies them.
    pub public: PublicKey,
}

impl Record for TokenVerifier {
    const KIND: Kind = Kind::TokenVerifier;
}

/// Path segment of a token key and its verifier; fixed width, so that the order of names is the order of ids.
pub fn key_id_segment(key_id: u32) -> String {
    format!("{key_id:010}")
}

/// An issued token: `[hex id]`. Stays at central; whether a token holds is said by [`Revocation`] rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose.
    pub principal: String,
    /// When, microseconds since the Unix epoch.
    pub issued_us: i64,
    /// Until when; 0: for ever.
    pub expires_us: i64,
    /// How often it was exchanged for a new one before it came to this.
    pub refresh_count: u32,
}

impl Record for Token {
    const KIND: Kind = Kind::Token;
}

/// What no longer holds: `["token", hex id]`, `["principal", name]` or `["tenant"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revocation {
    /// This one token; the row may go once it has expired (0: never).
    Token {
        /// When the token ends by itself.
        expires_us: i64,
    },
    /// All tokens of a principal issued before.
    Principal {
        /// Microseconds since the Unix epoch.
        not_before_us: i64,
    },
    /// All tokens of the tenant issued before, and while `blocked` all tokens whatsoever.
    Tenant {
        /// Microseconds since the Unix epoch.
        not_before_us: i64,
        /// Neither logs in nor uses tokens.
        blocked: bool,
    },
}

impl Record for Revocation {
    const KIND: Kind = Kind::Revocation;
}
