//! The rehearsal at a host: would it come back after a power cut while the WAN is down, by what it holds itself. Nothing is
//! tried and nobody is asked, so how other hosts stand at that moment it can't know. The rules are
//! [`holdfast_actors::seal_keeper::rehearsal`]'s.

use holdfast_actors::ports::Clock;
use holdfast_actors::seal_keeper::local::{Gatherer, may_gather};
use holdfast_actors::seal_keeper::rehearsal::{HostRehearsal, Other, Way, by_shares, by_sibling, has_leave, outcome};
use holdfast_actors::store::Fault;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::SealEpoch;
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::{NoticedStanding, ShareTerms, UnsealPermit};
use holdfast_rest::strongbox::OwnRehearsal;
use holdfast_rest::time::rfc3339_us;

use crate::local::Local;
use crate::tpm::TpmError;

/// It could not be said.
#[derive(Debug, thiserror::Error)]
pub enum NoRehearsal {
    /// The TPM did not say what time it is.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
}

impl Local {
    /// Rehearses.
    ///
    /// # Errors
    /// What it takes can't be read.
    pub async fn rehearse(&self) -> Result<OwnRehearsal, NoRehearsal> {
        let (id, permit, counters) = (self.id(), self.permit()?, self.seal.counters().await?);
        let until_us = permit.as_ref().map_or(0, |permit| permit.expires_us);
        let leave = has_leave(until_us, self.clock.now().wall_us);
        let (sibling, remote, shares) = match (self.may_climb()?, permit) {
            (Err(barred), _) => (Err(barred.to_string()), Err(barred.to_string()), Err(barred.to_string())),
            (Ok(_), None) => {
                let never = || leave.clone().err().unwrap_or_default();
                (Err(never()), Err(never()), Err(never()))
            }
            (Ok(epoch), Some(permit)) => {
                let others = self.others(&permit)?;
                let sibling = leave.and_then(|()| by_siblings(&others));
                (sibling, self.by_remote_key(&permit)?, self.by_shares(&permit, counters, epoch, &others)?)
            }
        };
        let whole_site = outcome(shares.is_ok(), remote.is_ok());
        let permit_until = (until_us != 0).then(|| rfc3339_us(until_us));
        let alone = HostRehearsal::of(sibling, remote, shares, permit_until);
        Ok(OwnRehearsal { site: id.site, host: id.host, whole_site, alone })
    }

    /// The other hosts that central has named, and what is known to keep one from doing its part.
    fn others(&self, permit: &UnsealPermit) -> Result<Vec<Other>, Fault> {
        let mut others = Vec::new();
        for sibling in &permit.siblings {
            let held = self.boot.sibling_notice(&sibling.name)?;
            let held = held.and_then(|held| self.trust.sibling_notice(&held).ok());
            let does = match held.map(|notice| notice.standing) {
                Some(NoticedStanding::Quarantined { .. }) => Err("is quarantined".to_owned()),
                Some(NoticedStanding::Untrusted) => Err("failed its appraisal".to_owned()),
                Some(NoticedStanding::Clear) | None if sibling.address.is_none() => {
                    Err("has not said where siblings reach it".to_owned())
                }
                Some(NoticedStanding::Clear) | None => Ok(()),
            };
            others.push((sibling.name.to_string(), does));
        }
        Ok(others)
    }

    fn by_remote_key(&self, permit: &UnsealPermit) -> Result<Way, Fault> {
        let own = self.boot.remote_key()?.map(|own| sha256(&[&own.key.public]));
        Ok(match own.is_some() && own == permit.remote_key {
            true => Ok("central can make one for the next boot".to_owned()),
            false => Err("central does not know this host's remote key yet".to_owned()),
        })
    }

    fn by_shares(
        &self,
        permit: &UnsealPermit,
        counters: Counters,
        epoch: SealEpoch,
        others: &[Other],
    ) -> Result<Way, Fault> {
        let held: Vec<ShareTerms> = self.shares()?.into_iter().map(|share| share.terms).collect();
        let (own, now_us) = (self.id(), self.clock.now().wall_us);
        let of = Gatherer { own: &own, permit, counters, now_us, epoch };
        let terms = match may_gather(&of, &held) {
            Ok(terms) => terms,
            Err(why) => return Ok(Err(why.to_string())),
        };
        let holders: Vec<Other> = terms
            .holders
            .iter()
            .filter(|holder| holder.name != own.host)
            .map(|holder| {
                let known = others.iter().find(|(name, _)| name == holder.name.as_str()).cloned();
                known.unwrap_or_else(|| (holder.name.to_string(), Err("has not joined".to_owned())))
            })
            .collect();
        Ok(by_shares(Ok(()), usize::from(terms.threshold), &holders))
    }
}

fn by_siblings(others: &[Other]) -> Way {
    by_sibling(others, |helpers| {
        format!("{} would be asked; whether it is open then is not known here", helpers.join(", "))
    })
}
