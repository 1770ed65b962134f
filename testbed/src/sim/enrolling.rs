//! Joining and enrolling again, and the fetching of notices: central's decisions are the product's, the host's side is a
//! short mirror of [`holdfast_site_agent::join`], whose TPM runs on a thread of its own.

use holdfast_actors::ports::{Clock, draw};
use holdfast_actors::site_registry::enrolment::{self, Seeds, Serials};
use holdfast_actors::site_registry::restored::Claims;
use holdfast_actors::site_registry::standing;
use holdfast_protocol::codec;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::pki::request::request;
use holdfast_protocol::tpm::Credential;
use holdfast_protocol::tpm::binding::{enrol_answer, enrol_qualifying_data};
use holdfast_protocol::wire::{Enrol, EnrolAnswer, EnrolProof, Enrolled, RefusalCode};
use holdfast_site_agent::local::Local;
use holdfast_site_agent::state::Membership;
use holdfast_site_agent::uplink::core::End;

use crate::sim::at_once;
use crate::sim::world::World;

/// Why no certificates came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEnrolled {
    /// No connection, or no answer on it.
    Lost,
    /// Central says no.
    Refused(RefusalCode),
}

impl World {
    /// Enrols a host: with a token for the first time, without one again.
    ///
    /// # Errors
    /// No answer came, or it was no.
    pub fn enrol(&mut self, host: usize, token: Option<[u8; 32]>) -> Result<(), NotEnrolled> {
        if !self.reaches_central(host) || self.central.is_outdated() {
            return Err(NotEnrolled::Lost);
        }
        let state = self.hosts[host].file.get();
        let it = &self.hosts[host];
        let ask = Enrol {
            deployment: state.deployment,
            host: state.host.clone(),
            token,
            ek_public: state.tpm.ek_public.clone(),
            ek_certificate: None,
            ak_public: state.ak.public.clone(),
            dist_request: request(&it.quic),
            api_request: request(&it.rest),
        };
        let exporter: [u8; 32] = draw(&*it.entropy);
        let chip = it.chip.clone();
        let prove = |credential: Credential, hash: &[u8; 32]| {
            let activation = chip.with(|tpm| tpm.activate_credential(&credential))?;
            let quote = chip.with(|tpm| tpm.quote(&enrol_qualifying_data(&exporter, hash), &[0]));
            let mac = enrol_answer(&activation, &exporter, hash);
            Some(EnrolProof { mac, attest: quote.attest, signature: quote.signature })
        };
        let enrolled = self.central_enrols(&ask, &exporter, prove)?;
        if self.dice.per_mille(20) {
            // The answer is lost on its way.
            return Err(NotEnrolled::Lost);
        }
        let Enrolled { generation, agent_id, dist_chain, api_chain, time_us, .. } = enrolled;
        if let Some(local) = &self.hosts[host].local {
            local.clock.set(time_us);
        }
        let membership = Membership { generation, agent_id, dist_chain, api_chain };
        let kept = self.hosts[host].file.update(|state| state.membership = Some(membership));
        kept.map_err(|_| NotEnrolled::Lost)?;
        self.count("enrolments");
        Ok(())
    }

    fn central_enrols(
        &mut self,
        ask: &Enrol,
        exporter: &[u8; 32],
        prove: impl FnOnce(Credential, &[u8; 32]) -> Option<EnrolProof>,
    ) -> Result<Enrolled, NotEnrolled> {
        let bytes = codec::encode(ask);
        let central = &self.central;
        let (now, entropy) = (central.clock.now(), central.entropy.clone());
        let begun = {
            let snapshot = central.barrier.snapshot().map_err(|_| NotEnrolled::Lost)?;
            enrolment::begin(ask, &bytes, &snapshot, &[], Seeds::draw(&*entropy), now)
        };
        let pending = begun.map_err(|refused| NotEnrolled::Refused(refused.reason.code()))?;
        let EnrolAnswer::Challenge { credential, secret } = pending.answer() else { return Err(NotEnrolled::Lost) };
        let credential = Credential { blob: credential, encrypted_secret: secret };
        let proof = prove(credential, &sha256(&[&bytes])).ok_or(NotEnrolled::Lost)?;
        let complete = enrolment::finish(pending, &proof, exporter, Serials::draw(&*entropy), now)
            .map_err(|refused| NotEnrolled::Refused(refused.reason.code()))?;
        match self.central.commit(move |rows| enrolment::complete(&complete, rows, now)) {
            Ok(Ok(enrolled)) => Ok(*enrolled),
            Ok(Err(refused)) => Err(NotEnrolled::Refused(refused.reason.code())),
            Err(_) => Err(NotEnrolled::Lost),
        }
    }

    /// Enrols again, as the uplink asks.
    pub fn enrol_attempt(&mut self, host: usize, _: &Local) -> End {
        match self.enrol(host, None) {
            Ok(()) => End::Enrolled,
            Err(NotEnrolled::Refused(RefusalCode::NotAccepted)) => End::NotAccepted,
            Err(_) => End::Lost,
        }
    }

    /// Fetches the newest notice and follows it.
    pub fn notice_attempt(&mut self, host: usize, local: &Local) -> End {
        // What it remembers of a notice, or is told now, may seal it.
        let end = self.fetch_notice(host, local);
        self.note_seal(host, true);
        end
    }

    fn fetch_notice(&mut self, host: usize, local: &Local) -> End {
        let _ = at_once(local.resume_wipe());
        if !self.reaches_central(host) {
            return End::Lost;
        }
        let id = self.hosts[host].id.clone();
        let (head, held) = (local.contact().head, local.boot.notice().ok().flatten());
        let claims =
            Claims { host: &id, certificate: None, head: head.as_ref(), notice: held.as_ref(), positions: &[] };
        let _ = self.look_at(claims);
        let fetched = match self.central.notice(&id) {
            Ok(fetched) => fetched,
            Err(refusal) => {
                self.tell(|| format!("central can't say how {id} stands: {refusal}"));
                return End::Lost;
            }
        };
        if let Some(signed) = fetched {
            let heeded = match at_once(local.heed(&signed)) {
                Ok(heeded) => heeded,
                Err(fault) => {
                    self.tell(|| format!("{id} can't follow its notice: {fault}"));
                    return End::Lost;
                }
            };
            if let Some(generation) = heeded.wiped {
                let now = self.central.clock.now();
                let recorded = self.central.commit(move |rows| standing::wiped(&id, generation, rows, now));
                if recorded.is_err() {
                    return End::Lost;
                }
                self.count("wipes");
            }
            if heeded.course.readmitted {
                return End::Readmitted;
            }
        }
        match local.is_barred() {
            Ok(true) => End::Barred,
            Ok(false) => End::Free,
            Err(_) => End::Lost,
        }
    }
}
