//! Who may have a session, and what the verifier needs to know of it.

use holdfast_protocol::ids::HostId;
use holdfast_protocol::tpm::Public;
use holdfast_protocol::wire::CloseCode;

use crate::attestation_verifier::appraisal::ReferenceValues;
use crate::attestation_verifier::core::Facts;
use crate::barrier::Snapshot;
use crate::rows::Refusal;
use crate::site_registry::{Held, Host, Site, deployment, host, site};

/// Why a host gets no session, as it hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfit(pub CloseCode);

impl From<Refusal> for Unfit {
    fn from(refusal: Refusal) -> Self {
        Self(if matches!(refusal, Refusal::Sealed) { CloseCode::CentralSealed } else { CloseCode::Protocol })
    }
}

/// The values that a host is held to: those of its site, and for registers without any those learned of itself. While
/// earlier ones are accepted too, all that counted before stands beside them.
pub fn reference_of(entry: &Host, place: &Site) -> ReferenceValues {
    accepted(entry, &place.reference, place.earlier.as_ref())
}

/// The same, by these values of its site.
pub(super) fn accepted(entry: &Host, given: &ReferenceValues, earlier: Option<&ReferenceValues>) -> ReferenceValues {
    let mut reference = given.clone();
    for (pcr, values) in &entry.reference.0 {
        match earlier {
            Some(_) => reference.0.entry(*pcr).or_default().extend(values),
            None => _ = reference.0.entry(*pcr).or_insert_with(|| values.clone()),
        }
    }
    for (pcr, values) in earlier.iter().flat_map(|earlier| &earlier.0) {
        reference.0.entry(*pcr).or_default().extend(values);
    }
    reference
}

/// What the rows say of a host that shows a certificate of this fingerprint.
///
/// # Errors
/// What its connection is closed with.
pub fn facts(snapshot: &Snapshot, id: &HostId, shown: &[u8; 32]) -> Result<Facts, Unfit> {
    let entry = host(snapshot, id)?.value;
    let place = site(snapshot, &id.site)?.value;
    if entry.is_cut_off(&place) {
        return Err(Unfit(CloseCode::Quarantined));
    }
    let identity = entry.identity.as_ref().ok_or(Unfit(CloseCode::Protocol))?;
    if !identity.dist.is(shown) {
        // An earlier one: the answer to a later enrolment never came to be kept by the host, or it was itself restored. A
        // later one: of an enrolment that was lost with what this store was restored from. Its TPM has to speak for it in
        // either case.
        return Err(Unfit(CloseCode::EnrolAgain));
    }
    let reference = reference_of(&entry, &place);
    Ok(Facts {
        deployment: deployment(snapshot)?.id,
        generation: entry.generation,
        ak: Public::parse(&identity.ak_public).map_err(|_| Unfit(CloseCode::Protocol))?,
        policy: place.policy,
        reference,
        counters: entry.counters,
        untrusted_at_reset: match entry.standing.held {
            Held::Untrusted { reset_count } => Some(reset_count),
            Held::Nothing | Held::Quarantined => None,
        },
    })
}
