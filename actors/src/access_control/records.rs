//! What is stored about tenants, principals and tokens.

use std::collections::BTreeSet;

use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{Realm, TenantName};
use holdfast_protocol::secret::{Secret, SecretBytes, sealed};
use serde::{Deserialize, Serialize};

use crate::distribute::Distribute;
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

/// Names an approle as it was first made, or made anew: what was issued under another one no longer holds.
pub type Instance = [u8; 16];

/// A role of programs: `[name]`. Goes to the sites that it names itself, where the tenant has content.
#[derive(Debug, Serialize, Deserialize)]
pub struct Approle {
    /// What a program says it is. A credential of its own where no secret-id is asked for.
    #[serde(with = "sealed")]
    pub role_id: SecretBytes,
    /// Whether somebody chose it.
    pub fixed_role_id: bool,
    /// A program must show a secret-id too.
    pub bind_secret_id: bool,
    /// A secret-id is enough: the program need not know its role-id.
    pub weak_secret_id: bool,
    /// Life of a secret-id, seconds; 0: no end.
    pub secret_id_ttl_s: u64,
    /// Logins with one secret-id; 0: no bound.
    pub secret_id_num_uses: u32,
    /// Life of a token, seconds.
    pub token_ttl_s: u64,
    /// The groups that a token counts as a member of: what boxes and vaults give to them, they give to it.
    pub token_policies: BTreeSet<String>,
    /// Groups whose members may have secret-ids made.
    pub secret_id_minters: BTreeSet<String>,
    /// Where programs may log in; without a bound on time of its own.
    pub distribute: Distribute,
    /// Drawn anew when older tokens and secret-ids are to end.
    pub instance: Instance,
    /// When that was, microseconds since the Unix epoch.
    pub instance_us: i64,
    /// Who made it.
    pub created_by: String,
    /// When it was made, microseconds since the Unix epoch.
    pub created_us: i64,
}

impl Record for Approle {
    const KIND: Kind = Kind::Approle;
}

/// A secret-id: `[tenant's realm at central, hash of the secret-id]`, at central in the tenant's realm, at a host in the
/// node's own. It is good where it was made and nowhere else, and goes with what a wipe destroys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretId {
    /// The approle.
    pub approle: String,
    /// As it was then.
    pub instance: Instance,
    /// Logins left; `None`: no bound.
    pub uses_left: Option<u32>,
    /// When it ends, microseconds since the Unix epoch; 0: never.
    pub expires_us: i64,
    /// By which people name it.
    pub accessor: [u8; 16],
    /// Who had it made.
    pub by: String,
}

impl Record for SecretId {
    const KIND: Kind = Kind::SecretId;
}

/// What signs the tokens that a host issues: `["approles"]` in the host's node realm. Known to no other node, so that no
/// other node takes those tokens.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostTokenKey {
    /// What the key is made of.
    #[serde(with = "sealed")]
    pub seed: Secret<32>,
    /// What verifies them.
    pub public: PublicKey,
}

impl Record for HostTokenKey {
    const KIND: Kind = Kind::HostTokenKey;
}
