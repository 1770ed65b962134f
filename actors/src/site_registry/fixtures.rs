//! A deployment on the memory engine, for tests of this folder's decisions.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{CertificateGeneration, CertificateNumber, DeploymentId, HostId, Realm};
use holdfast_protocol::pki::{LEAF_VALID_S, Serial};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::site_bundle::SiteBundle;

use crate::attestation_verifier::appraisal::ReferenceValues;
use crate::audit_log::Line;
use crate::barrier::{Barrier, NoReads, Snapshot};
use crate::keyring::{Keyring, RealmKeys};
use crate::ports::{Entropy, Now};
use crate::rows::{Batch, Refusal, Rows};
use crate::site_registry::EkTrust;
use crate::site_registry::authorities::FreshKey;
use crate::site_registry::certificates::{Certified, Issued};
use crate::site_registry::initialise::{Fresh, initialise};
use crate::site_registry::sites::{Appraisal, CreateSite, Invite, NewHost, Reallow, TOKEN_VALID_S, invite, reallow};
use crate::site_registry::standing::{Decide, Decision, decide};
use crate::store::Engine;
use crate::store::memory::MemoryEngine;

pub(super) const NOW: Now = Now { mono: Duration::from_secs(1_000), wall_us: 1_800_000_000_000_000 };
pub(super) const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);

/// `NOW` and some seconds.
pub(super) fn after(seconds: u32) -> Now {
    let seconds = i64::from(seconds);
    let mono = NOW.mono + Duration::from_secs(seconds.unsigned_abs());
    Now { mono, wall_us: NOW.wall_us + seconds * 1_000_000 }
}

/// Every draw is filled with the next number.
#[derive(Default)]
pub(super) struct Counting(AtomicU8);

impl Entropy for Counting {
    fn fill(&self, into: &mut [u8]) {
        into.fill(self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
    }
}

pub(super) fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

pub(super) fn id(text: &str) -> HostId {
    let (site, host) = text.split_once('/').unwrap();
    HostId { site: site.parse().unwrap(), host: host.parse().unwrap() }
}

/// An unsealed store.
pub(super) struct Store {
    engine: Arc<MemoryEngine>,
    barrier: Barrier,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Store {
    /// With the node's realm and nothing in it.
    pub(super) fn empty() -> Self {
        let store = Self::over(MemoryEngine::new(), Counting::default());
        let ring = Keyring::new(DEPLOYMENT, secret(1));
        let keys = store.barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
        store.barrier.submit_begin(keys, Vec::new(), |outcome| outcome.unwrap());
        store.barrier.unseal(ring);
        store
    }

    fn over(engine: MemoryEngine, entropy: Counting) -> Self {
        let engine = Arc::new(engine);
        let barrier = Barrier::new(engine.clone(), Arc::new(entropy), Arc::new(NoReads));
        Self { engine, barrier, lines: Arc::default() }
    }

    /// A copy of it as it is now, opened by a process of its own, which leaves a line as each start does. Both go on.
    pub(super) fn copied(&self) -> Self {
        let drawn = self.engine.restarted().snapshot().unwrap().revision().0;
        let copy = Self::over(self.engine.restarted(), Counting(AtomicU8::new(drawn.to_be_bytes()[7] ^ 0x80)));
        copy.barrier.unseal(Keyring::new(DEPLOYMENT, secret(1)));
        copy.act("node.start");
        copy
    }

    /// A change that is only a line.
    pub(super) fn act(&self, action: &'static str) {
        let line = Line::done(NOW.wall_us, "alice", action, "");
        self.run(move |_| Ok((Batch::new(Realm::NODE, line.clone()), ()))).unwrap();
    }

    pub(super) fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// With a deployment.
    pub(super) fn initialised() -> Self {
        let store = Self::empty();
        let fresh = Fresh::draw(DEPLOYMENT, &Counting::default());
        store.run(move |rows| initialise(&fresh, rows, NOW)).unwrap();
        store
    }

    pub(super) fn rows(&self) -> Snapshot {
        self.barrier.snapshot().unwrap()
    }

    /// Decides and, unless refused, commits.
    pub(super) fn run<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (tell, told) = mpsc::channel();
        let lines = self.lines.clone();
        let noting = move |rows: &dyn Rows| {
            let (batch, reply) = decide(rows)?;
            lines.lock().unwrap().extend(batch.lines.iter().map(|(_, line)| line.clone()));
            Ok((batch, reply))
        };
        self.barrier.submit(noting, move |outcome| tell.send(outcome).unwrap());
        told.recv().unwrap().map(|(reply, _)| reply)
    }

    /// Actions of all lines so far.
    pub(super) fn actions(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|line| line.action.clone()).collect()
    }
}

/// A certificate of this number and fingerprint, of the first generation.
pub(super) fn certified(number: u64, fill: u8) -> Certified {
    let key = SigningKey::from_seed(&secret(90)).public().clone();
    let issued = Issued {
        generation: CertificateGeneration(1),
        number: CertificateNumber(number),
        fingerprint: [fill; 32],
        begins_s: NOW.wall_s(),
        ends_s: NOW.wall_s() + LEAF_VALID_S,
    };
    Certified::new(key, issued)
}

/// The command that makes a site with these hosts.
pub(super) fn new_site(name: &str, ek_trust: EkTrust, hosts: &[(&str, Option<[u8; 32]>)]) -> CreateSite {
    let host = |(name, ek_sha256): &(&str, Option<[u8; 32]>)| NewHost {
        name: name.parse().unwrap(),
        ek_sha256: *ek_sha256,
        agent_id: format!("agent of {name}"),
    };
    CreateSite {
        name: name.parse().unwrap(),
        ek_trust,
        appraisal: Appraisal { learn: true, ..Appraisal::default() },
        reference: ReferenceValues::default(),
        allow_local_unseal: false,
        hosts: hosts.iter().map(host).collect(),
        seal_key: secret(40),
        dist_seed: secret(41),
        api: FreshKey { seed: secret(42), serial: Serial([42; 16]) },
        dist: FreshKey { seed: secret(43), serial: Serial([43; 16]) },
        by: "alice".to_owned(),
    }
}

impl Store {
    /// Hands out a site's bundle, with tokens drawn from `seed`.
    pub(super) fn invite(&self, site: &str, seed: u8, now: Now) -> Result<SiteBundle, Refusal> {
        let cmd = Invite {
            site: site.parse().unwrap(),
            seed: secret(seed),
            valid_s: TOKEN_VALID_S,
            central: vec!["central.example:7443".to_owned()],
            by: "alice".to_owned(),
        };
        self.run(move |rows| invite(&cmd, rows, now))
    }

    /// Permits one more bundle.
    pub(super) fn reallow(&self, site: &str, host: Option<&str>) -> Result<(), Refusal> {
        let host = host.map(|name| name.parse().unwrap());
        let cmd = Reallow { site: site.parse().unwrap(), host, by: "alice".to_owned() };
        self.run(move |rows| reallow(&cmd, rows, NOW))
    }

    /// Cuts off or takes back a site, or with `SITE/HOST` a host.
    pub(super) fn decide(&self, whom: &str, decision: Decision) {
        let (site, host) = whom.split_once('/').map_or((whom, None), |(site, host)| (site, Some(host)));
        let cmd = Decide {
            site: site.parse().unwrap(),
            host: host.map(|name| name.parse().unwrap()),
            decision,
            actor: "alice".to_owned(),
            seed: secret(50),
        };
        self.run(move |rows| decide(&cmd, rows, NOW)).unwrap();
    }
}
