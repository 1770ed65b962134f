//! Newer certificates for the keys that this host has: looked at, and kept before central hears that they came.

use holdfast_protocol::pki::{PkiError, read};
use holdfast_protocol::wire::CertificateUse;

use crate::state::{JoinState, Membership, StateError, StateFile};

/// A certificate that came is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    /// It is no certificate of the deployment.
    #[error("the certificate that central gave is not usable: {0}")]
    Unusable(#[from] PkiError),
    /// It is for another host or key, or lacks its issuer.
    #[error("the certificate that central gave {0}")]
    NotOurs(&'static str),
    /// It can't be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Takes a certificate and its issuer (DER, leaf first) in place of the one for the same use: from here on every start
/// begins with it. Gives what it is known by. The same once more changes nothing.
///
/// # Errors
/// Nothing has changed.
pub fn take(file: &StateFile, which: CertificateUse, chain: &[Vec<u8>]) -> Result<[u8; 32], CertificateFault> {
    let state = file.get();
    let member = state.membership.as_ref().ok_or(CertificateFault::NotOurs("came before this host has joined"))?;
    let fingerprint = check(&state, member, which, chain)?;
    if held(member, which) != chain {
        file.update(|state| {
            if let Some(member) = &mut state.membership {
                match which {
                    CertificateUse::Api => member.api_chain = chain.to_vec(),
                    CertificateUse::Dist => member.dist_chain = chain.to_vec(),
                }
            }
        })?;
    }
    Ok(fingerprint)
}

fn held(member: &Membership, which: CertificateUse) -> &[Vec<u8>] {
    match which {
        CertificateUse::Api => &member.api_chain,
        CertificateUse::Dist => &member.dist_chain,
    }
}

fn check(
    state: &JoinState,
    member: &Membership,
    which: CertificateUse,
    chain: &[Vec<u8>],
) -> Result<[u8; 32], CertificateFault> {
    let [leaf, issuer] = chain else { return Err(CertificateFault::NotOurs("lacks its issuer")) };
    read::issued_by(leaf, issuer)?;
    read::issued_by(issuer, &state.root)?;
    let before = held(member, which).first().ok_or(CertificateFault::NotOurs("replaces none"))?;
    if read::public_key_of(leaf)? != read::public_key_of(before)? {
        return Err(CertificateFault::NotOurs("is for another key"));
    }
    let named = match which {
        CertificateUse::Api => read::server_names(leaf)?.contains(&state.host.host.to_string()),
        CertificateUse::Dist => {
            let peer = read::peer_of(leaf)?;
            peer.deployment == state.deployment && peer.host == state.host && peer.generation == member.generation
        }
    };
    if !named {
        return Err(CertificateFault::NotOurs("is for another host"));
    }
    Ok(read::issued_sha256(leaf)?)
}

#[cfg(test)]
mod tests;
