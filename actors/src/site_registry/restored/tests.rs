//! Two lives of one store: one that goes on after the backup, and the copy that is opened in its place.

mod adoption;
mod carried;
mod findings;
mod hidden;

use holdfast_protocol::ids::{DeploymentId, DistEpoch, SealEpoch};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::Counters;

use super::*;
use crate::site_registry::authorities::signer;
use crate::site_registry::fixtures::{NOW, Store, certified, id, new_site, secret};
use crate::site_registry::sites::create_site;
use crate::site_registry::standing::{
    Decide, Decision, FirstOfConnection, Passed, RecordPass, continuity_stored, decide, notice, record_pass, wiped,
};
use crate::site_registry::{EkTrust, HostState, Identity, Invitation, Standing, head};

const A: &str = "udc1/a";
const B: &str = "udc1/b";
const C: &str = "udc2/c";
const QUARANTINE: Decision = Decision::Quarantine { wipe: false };

fn store() -> Store {
    let store = Store::initialised();
    for (site, hosts) in [("udc1", &["a", "b"][..]), ("udc2", &["c"])] {
        let hosts: Vec<_> = hosts.iter().map(|name| (*name, None)).collect();
        let cmd = new_site(site, EkTrust::Token, &hosts);
        store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    }
    for whom in [A, B, C] {
        store.enrolled(whom, 1);
    }
    store
}

/// What a host shows in these tests.
#[derive(Default, Clone)]
struct Shows {
    head: Option<Signed>,
    notice: Option<Signed>,
    certificate: Option<(u64, u8)>,
}

impl Store {
    /// As an enrolment leaves it.
    fn enrolled(&self, whom: &str, generation: u8) {
        self.change_host(whom, move |entry| {
            entry.state = HostState::Joined;
            (0..24).for_each(|pcr| entry.reference.allow(pcr, [1; 32]));
            entry.generation = HostGeneration(generation.into());
            entry.identity = Some(Identity {
                ek_public: vec![1],
                ak_public: vec![generation],
                dist: certified(generation.into(), generation),
                api: certified(generation.into(), generation),
            });
        });
    }

    fn change_host(&self, whom: &str, change: impl Fn(&mut Host) + Send + 'static) {
        let whom = id(whom);
        self.run(move |rows| {
            let mut entry = host(rows, &whom)?.value;
            change(&mut entry);
            let mut batch = Batch::housekeeping();
            put(&mut batch, &whom, &entry);
            Ok((batch, ()))
        })
        .unwrap();
    }

    fn host_of(&self, whom: &str) -> Host {
        host(&self.rows(), &id(whom)).unwrap().value
    }

    fn site_of(&self, name: &str) -> Site {
        site(&self.rows(), &name.parse().unwrap()).unwrap().value
    }

    fn head(&self) -> Signed {
        self.signed(&head(&self.rows()).unwrap())
    }

    fn signed<T: Signable>(&self, value: &T) -> Signed {
        let (key, certificate) = signer(&self.rows()).unwrap();
        signed::sign(value, &key, certificate)
    }

    /// The newest notice about a host.
    fn notice_for(&self, whom: &str) -> Option<Signed> {
        notice(&id(whom), &self.rows()).unwrap().map(|notice| self.signed(&notice))
    }

    /// All that the host can show of this life.
    fn all_of(&self, whom: &str) -> Shows {
        let entry = self.host_of(whom);
        let fingerprint = entry.identity.unwrap().dist.held.fingerprint[0];
        let certificate = Some((entry.generation.0, fingerprint));
        Shows { head: Some(self.head()), notice: self.notice_for(whom), certificate }
    }

    fn find(&self, whom: &str, shows: &Shows) -> Option<Finding> {
        let claims = Claims {
            host: &id(whom),
            certificate: shows.certificate.map(|(generation, fill)| ShownCertificate {
                generation: HostGeneration(generation),
                number: CertificateNumber(fill.into()),
                fingerprint: [fill; 32],
            }),
            head: shows.head.as_ref(),
            notice: shows.notice.as_ref(),
            positions: &[],
        };
        examine(claims, &self.rows()).unwrap()
    }

    fn note(&self, whom: &str, shows: &Shows) -> Option<Noted> {
        let cmd = Note { finding: self.find(whom, shows)?, seed: secret(70) };
        Some(self.run(move |rows| note(&cmd, rows, NOW)).unwrap())
    }

    fn adopted(&self, incarnation: u8) -> Result<Report, Refusal> {
        let Plan { term, sites, report } = plan(&self.rows())?;
        for name in sites {
            let cmd = Adopt { term, incarnation: [incarnation; 16], seed: secret(80), by: "alice".to_owned() };
            self.run(move |rows| adopt_site(&cmd, &name, rows, NOW))?;
        }
        let cmd = Adopt { term, incarnation: [incarnation; 16], seed: secret(80), by: "alice".to_owned() };
        self.run(move |rows| finish(&cmd, rows, NOW))?;
        Ok(report)
    }

    fn is_stopped(&self) -> bool {
        refuse_while_stopped(&self.rows()).is_err()
    }

    fn quotes(&self, whom: &str, shown: Option<u8>, next: u8, reset_count: u32) -> Result<&'static str, Refusal> {
        let whom = id(whom);
        let passed = self.run(move |rows| {
            let first = Some(FirstOfConnection {
                continuity: shown.map(|fill| Secret::fill_with(|it| *it = [fill; 32])),
                continuity_next: Secret::fill_with(|it| *it = [next; 32]),
                seal_epoch: None,
                needs_seal_key: true,
            });
            let generation = host(rows, &whom)?.value.generation;
            let counters = Counters { reset_count, restart_count: 0, clock: 1 };
            record_pass(
                &RecordPass { host: whom.clone(), generation, counters, quoted: Vec::new(), learned: None, first },
                rows,
                NOW,
            )
        })?;
        Ok(match passed {
            Passed::Granted(_) => "granted",
            Passed::CutOff => "cut off",
            Passed::Clone => "clone",
        })
    }

    fn keeps(&self, whom: &str, token: u8) {
        let whom = id(whom);
        let hash = holdfast_protocol::crypto::hash::sha256(&[&[token; 32]]);
        self.run(move |rows| continuity_stored(&whom, &hash, rows)).unwrap();
    }
}

impl Store {
    fn fails(&self, whom: &str) {
        let cmd = crate::site_registry::standing::RecordFailure {
            host: id(whom),
            reasons: Vec::new(),
            reset_count: 3,
            quarantine: false,
            unwritten: Some(0),
            seed: secret(60),
        };
        self.run(move |rows| crate::site_registry::standing::record_failure(&cmd, rows, NOW)).unwrap();
    }
}
