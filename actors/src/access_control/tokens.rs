//! Tokens: text that proves who calls, without a look at central.
//!
//! `hft_` and base64url without padding of `claims (postcard) | signature (64)`. The signature is over the
//! length-prefixed (`holdfast/token/v1`, claims) by the tenant's token key, whose private half never leaves central.
//! Claims say who, not what for: groups, permissions and revocations are rows at the node that judges.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_protocol::codec::{self, length_prefixed};
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::{PublicKey, SIGNATURE_BYTES, SigningKey};
use holdfast_protocol::ids::Realm;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::access_control::records::{
    Approle, HostTokenKey, Instance, Principal, Revocation, TokenKey, TokenVerifier, key_id_segment,
};
use crate::access_control::{ADMINS, READERS};
use crate::ports::Now;
use crate::rows::{ReadRows, Refusal, Rows};

const DOMAIN: &[u8] = b"holdfast/token/v1";
const PREFIX: &str = "hft_";
const VERSION: u8 = 1;
/// Longest text that is looked at.
pub const TOKEN_TEXT_BYTES_MAX: usize = 1024;
/// How long a user's token lives unless configured otherwise, in seconds.
pub const USER_TTL_S: u64 = 3600;
/// The realm, and so the number in tokens, of the tenant `system`.
pub const SYSTEM: Realm = Realm(1);
/// Signature verdicts remembered at once.
const VERIFIED_MAX: usize = 4096;

/// Names a token; not secret, since nobody can make another token with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 16]);

impl TokenId {
    /// The id in the form of a UUID, by which people and Strongbox name a token.
    pub fn accessor(self) -> String {
        uuid::Uuid::from_bytes(self.0).to_string()
    }

    /// The id behind an accessor.
    pub fn of_accessor(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(|id| Self(id.into_bytes()))
    }

    /// The id as rows are named by it.
    pub(super) fn of_hex(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok().map(|()| Self(id))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenKind {
    /// Everything within its tenant; has no end.
    Root,
    /// What its principal may do.
    User,
    /// What its approle may do, as long as that is the one that it was issued under.
    Approle(Instance),
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Of this encoding.
    pub version: u8,
    /// The tenant's realm at central.
    pub tenant: u32,
    /// The key that signed it.
    pub key_id: u32,
    /// Its name.
    pub id: TokenId,
    /// Whose it is.
    pub principal: String,
    /// What it is good for.
    pub kind: TokenKind,
    /// Microseconds since the Unix epoch; fine enough to tell a token from a revocation in the same second.
    pub issued_us: i64,
    /// End, likewise; 0: none.
    pub expires_us: i64,
}

impl Claims {
    /// Claims under the current encoding.
    pub fn new(tenant: Realm, key_id: u32, id: TokenId, principal: String, kind: TokenKind) -> Self {
        Self { version: VERSION, tenant: tenant.0, key_id, id, principal, kind, issued_us: 0, expires_us: 0 }
    }
}

/// Who calls, as the rows of one snapshot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant's key space at this node.
    pub realm: Realm,
    /// The tenant's realm at central.
    pub tenant: u32,
    /// Whose token it is.
    pub principal: String,
    /// The principal's groups now.
    pub groups: BTreeSet<String>,
    /// What the token is good for.
    pub kind: TokenKind,
    /// The token.
    pub token_id: TokenId,
    /// When it was issued, microseconds since the Unix epoch.
    pub issued_us: i64,
    /// When it ends; 0: never.
    pub expires_us: i64,
}

impl Caller {
    /// Whether it may administer its tenant. A program never does.
    pub fn is_admin(&self) -> bool {
        self.is_root() || (!self.is_approle() && self.groups.contains(ADMINS))
    }

    /// Whether it is a program that logged in with an approle.
    pub fn is_approle(&self) -> bool {
        matches!(self.kind, TokenKind::Approle(_))
    }

    /// Whether it is one of those who only look, and nothing more.
    pub fn is_reader(&self) -> bool {
        !self.is_admin() && self.groups.contains(READERS)
    }

    /// Whether it came with a root token.
    pub fn is_root(&self) -> bool {
        self.kind == TokenKind::Root
    }

    /// Whether it belongs to the tenant that operates the deployment.
    pub fn is_system(&self) -> bool {
        self.tenant == SYSTEM.0
    }

    /// The name for audit lines and `created_by`.
    pub fn actor(&self) -> &str {
        &self.principal
    }

    /// The same caller by the rows of another snapshot, such as the writer's, where a revocation may have come between.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] where the token no longer holds.
    pub fn renewed(&self, rows: &dyn Rows, now: Now) -> Result<Self, Refusal> {
        let mut claims = Claims::new(Realm(self.tenant), 0, self.token_id, self.principal.clone(), self.kind);
        (claims.issued_us, claims.expires_us) = (self.issued_us, self.expires_us);
        hold(&claims, self.realm, rows, now)
    }
}

/// What stands before an approle's name where it acts as a principal.
pub const APPROLE_PREFIX: &str = "approle:";
/// Number in tokens of the key of the host that issued them; those of tenants begin above.
pub const HOST_KEY: u32 = 0;
/// Where a host has that key.
pub const HOST_KEY_NAME: &str = "approles";

/// The principal that root tokens name; no user may be called so.
pub const ROOT: &str = "root";

/// Makes the text of a token with the tenant's key, at central.
///
/// # Errors
/// [`Refusal::NotFound`]: no such key; faults.
pub fn mint(rows: &dyn Rows, claims: &Claims) -> Result<Zeroizing<String>, Refusal> {
    let key = rows.read::<TokenKey>(Realm(claims.tenant), &[&key_id_segment(claims.key_id)])?;
    let key = key.ok_or(Refusal::NotFound("token key"))?;
    Ok(text_of(&SigningKey::from_seed(&key.value.seed), claims))
}

/// The text of a token signed with `key`.
pub fn text_of(key: &SigningKey, claims: &Claims) -> Zeroizing<String> {
    let mut bytes = codec::encode(claims);
    let signature = key.sign(&signed_bytes(&bytes));
    bytes.extend_from_slice(&signature);
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + bytes.len() * 4 / 3 + 4));
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(Zeroizing::new(bytes), &mut text);
    text
}

fn signed_bytes(claims: &[u8]) -> Vec<u8> {
    length_prefixed(&[DOMAIN, claims])
}

/// Judges a token: its form, its signature, its end, and what the rows say of it and its principal. `locate` finds the
/// key space of a tenant (named by its realm at central) at this node.
///
/// # Errors
/// [`Refusal::Unauthenticated`], whatever is wrong with the token; otherwise the store's refusals.
pub fn verify(
    text: &str,
    locate: &dyn Fn(u32) -> Option<Realm>,
    rows: &dyn Rows,
    now: Now,
    verified: &VerifiedTokens,
) -> Result<Caller, Refusal> {
    let token = Parsed::of(text).ok_or(Refusal::Unauthenticated)?;
    let realm = locate(token.claims.tenant).filter(|realm| *realm != Realm::NODE).ok_or(Refusal::Unauthenticated)?;
    let public = match public_key(&token.claims, realm, rows) {
        Ok(Some(public)) => public,
        Ok(None) | Err(Refusal::NotFound(_)) => return Err(Refusal::Unauthenticated),
        Err(refusal) => return Err(refusal),
    };
    if !verified.check(&public, &token) {
        return Err(Refusal::Unauthenticated);
    }
    hold(&token.claims, realm, rows, now)
}

/// The key that has to have signed these claims: the tenant's, or for approles this host's own.
fn public_key(claims: &Claims, realm: Realm, rows: &dyn Rows) -> Result<Option<PublicKey>, Refusal> {
    if claims.key_id != HOST_KEY {
        let verifier = rows.read::<TokenVerifier>(realm, &[&key_id_segment(claims.key_id)])?;
        return Ok(verifier.map(|row| row.value.public));
    }
    match claims.kind {
        TokenKind::Approle(_) => {
            Ok(rows.read::<HostTokenKey>(Realm::NODE, &[HOST_KEY_NAME])?.map(|row| row.value.public))
        }
        TokenKind::Root | TokenKind::User => Ok(None),
    }
}

/// What the rows say of claims that are known to be genuine.
fn hold(claims: &Claims, realm: Realm, rows: &dyn Rows, now: Now) -> Result<Caller, Refusal> {
    let expired = claims.expires_us != 0 && claims.expires_us <= now.wall_us;
    if expired || is_revoked(claims, realm, rows)? {
        return Err(Refusal::Unauthenticated);
    }
    let groups = match claims.kind {
        TokenKind::Root => BTreeSet::from([ADMINS.to_owned()]),
        TokenKind::User => match rows.read::<Principal>(realm, &[&claims.principal])? {
            Some(row) if !row.value.disabled => row.value.groups,
            _ => return Err(Refusal::Unauthenticated),
        },
        TokenKind::Approle(instance) => policies(&claims.principal, instance, realm, rows)?,
    };
    Ok(Caller {
        realm,
        tenant: claims.tenant,
        principal: claims.principal.clone(),
        groups,
        kind: claims.kind,
        token_id: claims.id,
        issued_us: claims.issued_us,
        expires_us: claims.expires_us,
    })
}

/// What an approle's tokens count as members of now.
fn policies(principal: &str, instance: Instance, realm: Realm, rows: &dyn Rows) -> Result<BTreeSet<String>, Refusal> {
    let name = principal.strip_prefix(APPROLE_PREFIX).ok_or(Refusal::Unauthenticated)?;
    match rows.read::<Approle>(realm, &[name])? {
        Some(row) if row.value.instance == instance => Ok(row.value.token_policies),
        Some(_) | None => Err(Refusal::Unauthenticated),
    }
}

pub(super) fn is_revoked(claims: &Claims, realm: Realm, rows: &dyn Rows) -> Result<bool, Refusal> {
    let id = claims.id.to_string();
    for path in [&["tenant"][..], &["principal", &claims.principal], &["token", &id]] {
        let revoked = match rows.read::<Revocation>(realm, path)?.map(|row| row.value) {
            None => false,
            Some(Revocation::Token { .. }) => true,
            Some(Revocation::Principal { not_before_us }) => claims.issued_us < not_before_us,
            Some(Revocation::Tenant { not_before_us, blocked }) => blocked || claims.issued_us < not_before_us,
        };
        if revoked {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A token's parts, with nothing proved yet.
struct Parsed {
    claims: Claims,
    signed: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

impl Parsed {
    fn of(text: &str) -> Option<Self> {
        if TOKEN_TEXT_BYTES_MAX < text.len() {
            return None;
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?);
        let (claims, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>()?;
        let signed = signed_bytes(claims);
        let claims: Claims = codec::decode(claims, TOKEN_TEXT_BYTES_MAX).ok()?;
        (claims.version == VERSION && is_whole(&claims)).then_some(Self { claims, signed, signature: *signature })
    }
}

/// Whether the principal is one of the kind that the token is of: no user's name has a `:`, an approle's has.
fn is_whole(claims: &Claims) -> bool {
    let name = match claims.kind {
        TokenKind::Root | TokenKind::User => Some(claims.principal.as_str()),
        TokenKind::Approle(_) => claims.principal.strip_prefix(APPROLE_PREFIX),
    };
    name.is_some_and(|name| check_principal(name).is_ok())
}

/// Remembers which tokens' signatures have been found good, and nothing else: the end of a token, revocations and
/// groups are looked up each time. Bound to the key that verified, so a verifier that is gone is not remembered for.
#[derive(Default)]
pub struct VerifiedTokens(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    known: HashSet<[u8; 32]>,
    oldest_first: VecDeque<[u8; 32]>,
}

impl VerifiedTokens {
    fn check(&self, public: &PublicKey, token: &Parsed) -> bool {
        let name = sha256(&[&public.0, &token.signature, &token.signed]);
        if self.0.lock().expect("no holder of this lock panics").known.contains(&name) {
            return true;
        }
        let good = public.verify(&token.signed, &token.signature);
        if good {
            self.remember(name);
        }
        good
    }

    fn remember(&self, name: [u8; 32]) {
        let mut remembered = self.0.lock().expect("no holder of this lock panics");
        if !remembered.known.insert(name) {
            return;
        }
        remembered.oldest_first.push_back(name);
        if VERIFIED_MAX < remembered.oldest_first.len()
            && let Some(oldest) = remembered.oldest_first.pop_front()
        {
            remembered.known.remove(&oldest);
        }
    }
}

/// Whether a text may be the name of a principal: 1 to 128 bytes without control characters, `:` (it ends the name in
/// Basic authentication) and `/` (it ends the tenant before a name).
///
/// # Errors
/// [`Refusal::Invalid`].
pub fn check_principal(name: &str) -> Result<(), Refusal> {
    let bad = |c: char| c.is_control() || c == ':' || c == '/';
    if name.is_empty() || 128 < name.len() || name.trim() != name || name.contains(bad) {
        return Err(Refusal::Invalid("a user name has 1 to 128 bytes, without ':', '/' and outer blanks".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::secret::Secret;

    use super::*;

    fn claims() -> Claims {
        Claims::new(Realm(7), 1, TokenId([3; 16]), "alice".to_owned(), TokenKind::User)
    }

    fn key(fill: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(fill)))
    }

    #[test]
    fn a_token_reads_back_and_every_changed_byte_spoils_it() {
        let text = text_of(&key(1), &claims());
        let verified = VerifiedTokens::default();
        let parsed = Parsed::of(&text).unwrap();
        assert_eq!(parsed.claims, claims());
        for _ in 0..2 {
            assert!(verified.check(key(1).public(), &parsed));
            assert!(!verified.check(key(2).public(), &parsed));
        }
        let bytes = URL_SAFE_NO_PAD.decode(&text[PREFIX.len()..]).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let changed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            assert!(Parsed::of(&changed).is_none_or(|token| !verified.check(key(1).public(), &token)), "byte {at}");
        }
    }

    #[test]
    fn the_text_of_a_token_does_not_change() {
        // Sites of the version before judge tokens of this one: a change here needs a new version number.
        let text = text_of(&key(1), &claims());
        assert_eq!(
            &*text,
            "hft_AQcBAwMDAwMDAwMDAwMDAwMDAwVhbGljZQEAAGApfh4Lsnl67r1Fdszwuvk41b4_Whhp3eXv_pYYJP7_k-8NYa9hfqOYnNzW5cc9yTUxCw1YKklGwMp71SqMn_A"
        );
    }

    #[test]
    fn what_is_no_token_is_refused_within_bounds() {
        let long = format!("{PREFIX}{}", "A".repeat(TOKEN_TEXT_BYTES_MAX));
        for text in ["", "hft_", "hft_AAAA", "hft_!", "HFT_AAAA", "hft_====", &long] {
            assert!(Parsed::of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_so_many_verdicts_are_remembered() {
        let verified = VerifiedTokens::default();
        for number in 0..=VERIFIED_MAX {
            verified.remember(sha256(&[&number.to_be_bytes()]));
        }
        let remembered = verified.0.lock().unwrap();
        assert_eq!((remembered.known.len(), remembered.oldest_first.len()), (VERIFIED_MAX, VERIFIED_MAX));
        assert!(!remembered.known.contains(&sha256(&[&0usize.to_be_bytes()])));
    }
}
