//! Tokens that were given out, by their accessors: listed, shown, revoked. The text of a token is kept nowhere.

use holdfast_protocol::ids::Realm;

use crate::access_control::records::{Revocation, Token};
use crate::access_control::tokens::{APPROLE_PREFIX, Caller, Claims, ROOT, TokenId, TokenKind, is_revoked};
use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, ReadRows, Refusal, Rows};

/// A token that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its name.
    pub id: TokenId,
    /// Whose it is, since when and until when.
    pub token: Token,
}

impl Issued {
    /// What it is good for.
    pub fn kind(&self) -> TokenKind {
        match self.token.principal.as_str() {
            ROOT => TokenKind::Root,
            // Under which instance is not written down: whatever ends one ends the approle's tokens so far, too.
            name if name.starts_with(APPROLE_PREFIX) => TokenKind::Approle([0; 16]),
            _ => TokenKind::User,
        }
    }

    fn holds(&self, rows: &dyn Rows, realm: Realm, now: Now) -> Result<bool, Refusal> {
        let Token { principal, issued_us, expires_us, .. } = &self.token;
        let mut claims = Claims::new(realm, 0, self.id, principal.clone(), self.kind());
        (claims.issued_us, claims.expires_us) = (*issued_us, *expires_us);
        let expired = *expires_us != 0 && *expires_us <= now.wall_us;
        Ok(!expired && !is_revoked(&claims, realm, rows)?)
    }
}

/// A tenant's token that holds, by its name.
///
/// # Errors
/// The store's refusals.
pub fn issued(rows: &dyn Rows, realm: Realm, id: TokenId, now: Now) -> Result<Option<Issued>, Refusal> {
    let Some(row) = rows.read::<Token>(realm, &[&id.to_string()])? else { return Ok(None) };
    let found = Issued { id, token: row.value };
    Ok(if found.holds(rows, realm, now)? { Some(found) } else { None })
}

/// All tokens of a tenant that hold, by their names.
///
/// # Errors
/// The store's refusals.
pub fn all_issued(rows: &dyn Rows, realm: Realm, now: Now) -> Result<Vec<Issued>, Refusal> {
    let mut found = Vec::new();
    for row in rows.list::<Token>(realm, &[])? {
        let Some(id) = TokenId::of_hex(row.name()) else { continue };
        let one = Issued { id, token: row.value };
        if one.holds(rows, realm, now)? {
            found.push(one);
        }
    }
    Ok(found)
}

/// Ends one token of the caller's tenant.
///
/// # Errors
/// [`Refusal::Denied`]: neither an administrator nor its own; [`Refusal::NotFound`]: there is none that holds.
pub fn revoke(caller: &Caller, id: TokenId, rows: &dyn Rows, now: Now) -> Result<(Batch, ()), Refusal> {
    let caller = caller.renewed(rows, now)?;
    if !caller.is_admin() && caller.token_id != id {
        return Err(Refusal::Denied);
    }
    let found = issued(rows, caller.realm, id, now)?.ok_or(Refusal::NotFound("token"))?;
    let line = Line::done(now.wall_us, caller.actor(), "token.revoke", id.accessor());
    let mut batch = Batch::new(caller.realm, line);
    let name = id.to_string();
    batch.put(caller.realm, &["token", &name], &Revocation::Token { expires_us: found.token.expires_us });
    batch.forget::<Token>(caller.realm, &[&name]);
    Ok((batch, ()))
}
