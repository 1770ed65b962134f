//! From a user's name and password to a token, for every dialect with a login.

use std::time::Duration;

use holdfast_actors::access_control::logins::{self, LogIn, LoggedIn};
use holdfast_actors::access_control::tenants::tenant;
use holdfast_actors::access_control::tokens::mint;
use holdfast_actors::access_control::{Claims, TokenId, password};
use holdfast_actors::ports::draw;
use holdfast_actors::rows::Refusal;
use holdfast_actors::store::Fault;
use holdfast_protocol::ids::{Realm, TenantName};
use holdfast_protocol::secret::SecretBytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use crate::access::{Access, Refused};

/// Hashes at once: each takes 19 MiB and a processor.
const AT_ONCE: usize = 4;
/// How long a login waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// A name and a password.
#[derive(Debug)]
pub struct Credentials {
    /// The user's tenant.
    pub tenant: String,
    /// The user.
    pub username: String,
    /// The password.
    pub password: SecretBytes,
}

/// A token that was just made.
#[derive(Debug)]
pub struct Issued {
    /// Its text.
    pub token: Zeroizing<String>,
    /// What it says, and what stands beside it.
    pub about: LoggedIn,
}

/// Hashing of passwords off the event loop, a bounded number at a time.
pub struct Passwords(Semaphore);

impl Default for Passwords {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Passwords {
    /// Hashes a new password.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]: empty or too long; overloaded.
    pub async fn hash(&self, text: SecretBytes, salt: [u8; 16]) -> Result<String, Refusal> {
        let _turn = self.turn().await?;
        let hashed = tokio::task::spawn_blocking(move || password::hash(text.expose(), &salt)).await;
        hashed
            .ok()
            .flatten()
            .ok_or_else(|| Refusal::Invalid(format!("a password has 1 to {} bytes", password::PASSWORD_BYTES_MAX)))
    }

    async fn verify(&self, text: SecretBytes, stored: Option<String>) -> Result<bool, Refusal> {
        let _turn = self.turn().await?;
        let verified = tokio::task::spawn_blocking(move || password::verify(text.expose(), stored.as_deref())).await;
        Ok(verified.unwrap_or(false))
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        match tokio::time::timeout(TURN_TIMEOUT, self.0.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Fault::Overloaded.into()),
        }
    }
}

impl Access {
    /// Logs a user in for `ttl_s` seconds. Why it was refused shows in the audit log only as far as the caller may
    /// know: an unknown tenant, an unknown user and a wrong password look the same and take as long.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], journalled under `action`; the store's refusals.
    pub async fn log_in(&self, credentials: Credentials, ttl_s: u64, action: &str) -> Result<Issued, Refusal> {
        let Credentials { tenant, username, password } = credentials;
        let (realm, login) = self.stored_login(&tenant, &username)?;
        let (stored, version) = login.map_or((None, 0), |(hash, version)| (Some(hash), version));
        let outcome = match self.passwords.verify(password, stored).await? {
            true => self.open_session(realm, username.clone(), version, ttl_s).await,
            false => Err(Refusal::Unauthenticated),
        };
        if let Err(Refusal::Unauthenticated) = outcome {
            let known = logins::check_username(&username).is_ok();
            let actor = if known { username.as_str() } else { "-" };
            let refused = Refused { actor, action, object: "", why: "wrong tenant, user name or password" };
            self.note_refusal(realm, &refused)?;
        }
        outcome
    }

    /// The tenant's key space (the node's own if there is no such tenant), and the hash with its row's version.
    #[expect(clippy::type_complexity, reason = "taken apart at once by the only caller")]
    fn stored_login(&self, name: &str, username: &str) -> Result<(Realm, Option<(String, u64)>), Refusal> {
        let snapshot = self.barrier.snapshot()?;
        let found = match name.parse::<TenantName>() {
            Ok(name) => tenant(&snapshot, &name)?,
            Err(_) => None,
        };
        let Some(found) = found else { return Ok((Realm::NODE, None)) };
        let login = logins::login_of(&snapshot, found.realm, username)?;
        Ok((found.realm, login.map(|row| (row.value.password_hash, row.version))))
    }

    async fn open_session(
        &self,
        realm: Realm,
        username: String,
        verified_version: u64,
        ttl_s: u64,
    ) -> Result<Issued, Refusal> {
        let token_id = TokenId(draw(&**self.barrier.entropy()));
        let command = LogIn { realm, username, verified_version, token_id, ttl_s };
        let about = self.change(move |rows, now| logins::log_in(&command, rows, now)).await?;
        Ok(Issued { token: self.mint(&about.claims)?, about })
    }

    /// The text of a token whose claims have been committed.
    ///
    /// # Errors
    /// Sealed meanwhile, or the store's refusals.
    pub fn mint(&self, claims: &Claims) -> Result<Zeroizing<String>, Refusal> {
        mint(&self.barrier.snapshot()?, claims)
    }
}
