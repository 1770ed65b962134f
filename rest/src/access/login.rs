//! From a user's name and password to a token, for every dialect with a login.

use holdfast_actors::access_control::Claims;
use holdfast_actors::access_control::logins::{self, LogIn, LoggedIn};
use holdfast_actors::access_control::tenants::tenant;
use holdfast_actors::access_control::tokens::mint;
use holdfast_actors::rows::Refusal;
use holdfast_protocol::ids::{Realm, TenantName};
use holdfast_protocol::secret::SecretBytes;
use zeroize::Zeroizing;

use crate::access::Access;
use crate::node::{Deed, NOBODY};
use crate::secret::SecretText;

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
    pub token: SecretText,
    /// What it says, and what stands beside it.
    pub about: LoggedIn,
}

impl Access {
    /// Logs a user in for `ttl_s` seconds. Why it was refused shows in the audit log only as far as the caller may
    /// know: an unknown tenant, an unknown user and a wrong password look the same and take as long.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], journalled; the store's refusals.
    pub async fn log_in(&self, credentials: Credentials, ttl_s: u64) -> Result<Issued, Refusal> {
        let Credentials { tenant, username, password } = credentials;
        let (realm, login) = self.stored_login(&tenant, &username)?;
        let (stored, version) = login.map_or((None, 0), |(hash, version)| (Some(hash), version));
        let outcome = match self.node.passwords().verify(password, stored).await? {
            true => self.open_session(realm, username.clone(), version, ttl_s).await,
            false => Err(Refusal::Unauthenticated),
        };
        if let Err(Refusal::Unauthenticated) = outcome {
            let actor = if logins::check_username(&username).is_ok() { &username } else { NOBODY };
            self.note_refusal(realm, actor, &Deed::of("login", tenant), "wrong tenant, user name or password")?;
        }
        outcome
    }

    /// The tenant's key space (the node's own if there is no such tenant), and the hash with its row's version.
    fn stored_login(&self, name: &str, username: &str) -> Result<(Realm, Option<(String, u64)>), Refusal> {
        let snapshot = self.snapshot()?;
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
        let token_id = self.node.fresh_token_id();
        let command = LogIn { realm, username, verified_version, token_id, ttl_s };
        let about = self.change_even_stopped(move |rows, now| logins::log_in(&command, rows, now)).await?;
        Ok(Issued { token: self.mint(&about.claims)?.into(), about })
    }

    /// The text of a token whose claims have been committed.
    ///
    /// # Errors
    /// Sealed meanwhile, or the store's refusals.
    pub fn mint(&self, claims: &Claims) -> Result<Zeroizing<String>, Refusal> {
        mint(&self.snapshot()?, claims)
    }
}
