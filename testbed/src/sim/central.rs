//! Central: its process and its seal. Its cores are the product's; what carries them here is a short mirror of its
//! composition root.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::{self as verifier, ConnId, Verifier};
use holdfast_actors::audit_log::Line;
use holdfast_actors::barrier::{Barrier, NoReads};
use holdfast_actors::distribution::core::{self as distribution, Distribution};
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{Clock, Now, draw_secret};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::seal_keeper::{
    Answer, BootRecord, Class, Effect, Event as SealEvent, FreshSeal, FreshStart, Proof, RequestId, Revealer,
    SealKeeper,
};
use holdfast_actors::site_registry::authorities::signer;
use holdfast_actors::site_registry::failure_lines::FailureLines;
use holdfast_actors::site_registry::initialise::{Fresh, initialise};
use holdfast_actors::site_registry::restored::refuse_while_stopped;
use holdfast_actors::site_registry::standing;
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{HostId, Realm, Revision, TenantName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::signed;
use holdfast_protocol::wire::{CloseCode, Position, Signable, Signed};

use crate::sim::at_once;
use crate::sim::chance::{Nonces, SeededEntropy};
use crate::sim::clock::{MachineClock, WorldTime};
use crate::sim::disk::Disk;
use crate::sim::sabotage::Sabotage;
use crate::sim::speaking::Conn;
use crate::sim::world::{Event, World};

/// The seal keeper's row outside the barrier.
const SEAL_ROW: &str = "seal";

/// Central's machine.
pub struct Central {
    /// Its disk.
    pub disk: Disk,
    /// Its clocks.
    pub clock: MachineClock,
    /// Its random bytes.
    pub entropy: Arc<SeededEntropy>,
    /// Its store, which stays when the process ends.
    pub engine: Arc<MemoryEngine>,
    /// Around the store.
    pub barrier: Barrier,
    /// The seal's machine.
    pub keeper: SealKeeper,
    /// Seal keys that the operators were given, the newest last.
    pub seal_keys: Vec<Secret<32>>,
    /// Which of them opens the copy that central was restored from.
    pub key_of_copy: Option<usize>,
    /// What serves hosts, while unsealed.
    pub hub: Option<Hub>,
    /// Whether its process runs.
    pub up: bool,
    /// Which process this is.
    pub life: u64,
    /// Whether this process has its line in the chain.
    pub start_noted: bool,
    /// Since when nothing has gone wrong with it.
    pub well_since_us: u64,
}

/// What central knows of a host's session now.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// The active connection.
    pub conn: Option<ConnId>,
    /// When the verdict ends.
    pub trusted_until: Option<Duration>,
    /// Tenants behind.
    pub lag: u64,
}

/// What serves hosts while central is unsealed.
pub struct Hub {
    /// Which one this is.
    pub number: u64,
    /// Signs bundles, heads, notices and leases.
    pub signer: SigningKey,
    /// Its certificate.
    pub certificate: Vec<u8>,
    /// The verifier.
    pub verifier: Verifier,
    /// Distribution.
    pub distribution: Distribution,
    /// What waits for the verifier.
    pub verifier_mail: VecDeque<verifier::Event>,
    /// What waits for distribution.
    pub distribution_mail: VecDeque<distribution::Event>,
    /// The sessions.
    pub conns: BTreeMap<ConnId, Conn>,
    /// What is known of the hosts.
    pub live: BTreeMap<HostId, Live>,
    /// What each hello said, until distribution has planned for it.
    pub hellos: BTreeMap<ConnId, BTreeMap<TenantName, Position>>,
    /// Which failures get a line.
    pub failure_lines: FailureLines,
    /// Up to where changes were looked at.
    pub cursor: Revision,
    /// A look at the changes is due.
    pub looking: bool,
    /// A host has shown a newer head.
    pub outdated: bool,
    /// When the verifier's timer was set for last.
    pub verifier_armed: Option<Duration>,
    /// When distribution's timer was set for last.
    pub distribution_armed: Option<Duration>,
}

impl Central {
    /// A machine with an empty store.
    pub fn new(seed: u64, time: &WorldTime, nonces: &Arc<Mutex<Nonces>>) -> Self {
        let entropy = Arc::new(SeededEntropy::new(seed, "central", nonces.clone()));
        let engine = Arc::new(MemoryEngine::new());
        let disk = Disk::new(seed ^ 0xC0);
        disk.carry(&engine);
        let barrier = Barrier::new(engine.clone(), entropy.clone(), Arc::new(NoReads));
        Self {
            disk,
            clock: MachineClock::new(time.clone(), 0),
            entropy,
            engine,
            barrier,
            keeper: SealKeeper::load(None, false),
            seal_keys: Vec::new(),
            key_of_copy: None,
            hub: None,
            up: true,
            life: 0,
            start_noted: true,
            well_since_us: 0,
        }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Runs a decision to its end.
    ///
    /// # Errors
    /// Its refusal, or the store's fault.
    pub fn commit<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        at_once(self.barrier.run(decide)).map(|(reply, _)| reply)
    }

    /// Whether a host has shown a newer head than its own.
    pub fn is_outdated(&self) -> bool {
        self.hub.as_ref().is_some_and(|hub| hub.outdated)
    }

    /// Runs a change of an operator or a user: refused while this is a copy that nobody has adopted, as at the fronts.
    ///
    /// # Errors
    /// As [`Central::commit`].
    pub fn change<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.commit(move |rows| {
            refuse_while_stopped(rows)?;
            decide(rows)
        })
    }

    /// Signs.
    ///
    /// # Errors
    /// Sealed.
    pub fn sign<T: Signable>(&self, value: &T) -> Result<Signed, Refusal> {
        let hub = self.hub.as_ref().ok_or(Refusal::Sealed)?;
        Ok(signed::sign(value, &hub.signer, hub.certificate.clone()))
    }

    /// The newest notice of a host, signed.
    ///
    /// # Errors
    /// Sealed, or no such host.
    pub fn notice(&self, host: &HostId) -> Result<Option<Signed>, Refusal> {
        let notice = standing::notice(host, &self.barrier.snapshot()?)?;
        notice.map(|notice| self.sign(&notice)).transpose()
    }
}

impl World {
    /// Reveals: a deployment begins.
    ///
    /// # Panics
    /// It does not, though nothing goes wrong yet.
    pub fn begin_deployment(&mut self) {
        let entropy = self.central.entropy.clone();
        let fresh = Box::new(FreshStart::draw(&*entropy));
        let (request, by) = (RequestId(self.next_id()), Some(Revealer::Loopback));
        self.seal_event(SealEvent::Reveal { request, by, fresh });
        let unsealed = !self.central.barrier.is_sealed();
        assert!(unsealed, "a fresh deployment is open");
    }

    /// Something for the seal keeper; whether it answered well.
    pub fn seal_event(&mut self, event: SealEvent) -> bool {
        let now = self.central.now();
        let effects = self.central.keeper.step(event, now);
        let mut done = false;
        for effect in effects {
            match self.seal_effect(effect) {
                Ok(answered) => done |= answered,
                // A keeper whose hands fail is started again from disk, and closed.
                Err(_) => {
                    self.reload_keeper();
                    return false;
                }
            }
        }
        done
    }

    /// Within a process that is open it stays open.
    fn reload_keeper(&mut self) {
        let open = !self.central.barrier.is_sealed() && self.central.hub.is_some();
        if !open {
            self.close_hub(CloseCode::CentralSealed);
            drop(self.central.barrier.seal());
        }
        let row = self.central.barrier.boot_row(SEAL_ROW).ok().flatten();
        let boot = row.and_then(|bytes| BootRecord::decode(&bytes).ok());
        self.central.keeper = SealKeeper::load(boot, open);
    }

    fn seal_effect(&mut self, effect: Effect) -> Result<bool, Refusal> {
        let barrier = self.central.barrier.clone();
        match effect {
            Effect::PersistBoot(boot) => at_once(barrier.write_boot(vec![(SEAL_ROW, Some(boot.encode()))]))?,
            Effect::ForgetBoot => at_once(barrier.write_boot(vec![(SEAL_ROW, None)]))?,
            Effect::Initialise { root, boot, .. } => self.initialise(Keyring::new(boot.deployment, root), &boot)?,
            Effect::InstallRoot { deployment, root } => {
                barrier.unseal(Keyring::new(deployment, root));
                self.note_start()?;
                self.open_hub()?;
            }
            Effect::SwapOut => {
                self.close_hub(CloseCode::CentralSealed);
                at_once(barrier.seal_and_erase());
            }
            Effect::Audit(line) => self.seal_line(line)?,
            Effect::Reply(_, Ok(answer)) => {
                if let Answer::Revealed { sealkey, .. } | Answer::Rotated { sealkey, .. } = answer {
                    self.central.key_of_copy = None;
                    self.central.seal_keys.push(sealkey);
                }
                return Ok(true);
            }
            Effect::Reply(_, Err(_)) => {}
        }
        Ok(false)
    }

    /// Every life of the process has a line of its own in the chain, by which a fork of the chain shows.
    fn note_start(&mut self) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.central.start_noted, true) {
            return Ok(());
        }
        let line = Line::done(self.central.now().wall_us, "central", "node.start", "");
        self.central.commit(move |_| Ok((Batch::new(Realm::NODE, line.clone()), ())))
    }

    fn seal_line(&mut self, line: Line) -> Result<(), Refusal> {
        if self.central.barrier.is_sealed() || line.outcome != "ok" {
            return Ok(());
        }
        self.central.commit(move |_| Ok((Batch::new(Realm::NODE, line.clone()), ())))
    }

    fn initialise(&mut self, keyring: Keyring, boot: &BootRecord) -> Result<(), Refusal> {
        let (barrier, entropy) = (self.central.barrier.clone(), self.central.entropy.clone());
        at_once(barrier.erase_all())?;
        let realm = barrier.first_realm(&keyring, RealmKeys::new(draw_secret(&*entropy), draw_secret(&*entropy)));
        let fresh = Fresh::draw(keyring.deployment(), &*entropy);
        at_once(barrier.begin(realm, vec![(SEAL_ROW, boot.encode())]))?;
        barrier.unseal(keyring);
        let now = self.central.now();
        self.central.commit(move |rows| initialise(&fresh, rows, now))?;
        self.open_hub()
    }

    /// What serves hosts begins.
    fn open_hub(&mut self) -> Result<(), Refusal> {
        let snapshot = self.central.barrier.snapshot()?;
        let (signer, certificate) = signer(&snapshot)?;
        let outdated = refuse_while_stopped(&snapshot).is_err();
        let number = self.next_id();
        self.central.hub = Some(Hub {
            number,
            signer,
            certificate,
            verifier: Verifier::default(),
            distribution: Distribution::default(),
            verifier_mail: VecDeque::new(),
            distribution_mail: VecDeque::new(),
            conns: BTreeMap::new(),
            live: BTreeMap::new(),
            hellos: BTreeMap::new(),
            failure_lines: FailureLines::default(),
            cursor: snapshot.revision(),
            looking: false,
            outdated,
            verifier_armed: None,
            distribution_armed: None,
        });
        self.central.well_since_us = self.time.us();
        self.tell(|| format!("central opens as {number}"));
        Ok(())
    }

    /// What serves hosts ends, and nothing is sent any more.
    pub fn close_hub(&mut self, code: CloseCode) {
        let Some(hub) = self.central.hub.take() else { return };
        self.calls.clear();
        for conn in hub.conns.into_values() {
            self.central_lets_go(conn.link, Some(code));
        }
        self.central.well_since_us = self.time.us();
    }

    /// Central's process ends as by kill -9, and starts again later.
    pub fn central_ends(&mut self, away_us: u64) {
        self.count("crashes of central");
        self.tell(|| "central ends".to_owned());
        let central = &mut self.central;
        central.up = false;
        central.life += 1;
        central.hub = None;
        self.calls.clear();
        drop(self.central.barrier.seal());
        self.central.well_since_us = self.time.us();
        self.central_falls_silent();
        self.schedule(away_us, Event::CentralStarts);
    }

    /// Central's process starts from its disk, sealed.
    pub fn central_starts(&mut self) {
        let engine = if self.sabotaged(Sabotage::LoseCommits) && self.model.older.is_some() {
            self.model.older.as_ref().map(|engine| engine.restarted())
        } else {
            Some(self.central.engine.restarted())
        };
        self.start_central_from(engine.unwrap_or_default());
    }

    /// Central's process starts from this store.
    pub fn start_central_from(&mut self, engine: MemoryEngine) {
        let central = &mut self.central;
        central.engine = Arc::new(engine);
        central.disk.carry(&central.engine);
        central.barrier = Barrier::new(central.engine.clone(), central.entropy.clone(), Arc::new(NoReads));
        central.up = true;
        central.start_noted = false;
        self.reload_keeper();
        self.tell(|| "central starts".to_owned());
        let (in_us, life) = (self.dice.between(100_000, 5_000_000), self.central.life);
        self.schedule(in_us, Event::Unseal(life));
    }

    /// An operator unseals central with the key that was given last, or with one that a rotation may have replaced.
    pub fn unseal(&mut self, life: u64) {
        if life != self.central.life || !self.central.up || !self.central.barrier.is_sealed() {
            return;
        }
        let newest = self.central.seal_keys.len() - 1;
        // Whoever brings a copy back brings the key that belongs to it.
        for index in [self.central.key_of_copy.unwrap_or(newest), newest] {
            let key = self.central.seal_keys[index].duplicate();
            let request = RequestId(self.next_id());
            let event = SealEvent::Unseal { request, class: Class::Local, proof: Proof::SealKey(key) };
            if self.seal_event(event) {
                break;
            }
            if self.central.engine.has_stopped() {
                return;
            }
        }
        if self.central.barrier.is_sealed() {
            let life = self.central.life;
            self.schedule(10_000_000, Event::Unseal(life));
        } else {
            self.count("unsealings of central");
            self.central_is_open();
        }
    }

    /// An operator seals central; somebody will unseal it later.
    pub fn seal_central(&mut self, again_us: u64) {
        let request = RequestId(self.next_id());
        if self.seal_event(SealEvent::Seal { request, by: "operator".to_owned() }) {
            self.count("seals of central");
        }
        let life = self.central.life;
        self.schedule(again_us, Event::Unseal(life));
    }

    /// An operator rotates the seal key.
    pub fn rotate_seal(&mut self) {
        let root = self.central.barrier.ring().ok().map(|ring| ring.root());
        let fresh = FreshSeal::draw(&*self.central.entropy);
        let request = RequestId(self.next_id());
        let event = SealEvent::RotateSeal { request, by: "operator".to_owned(), root, fresh };
        if self.seal_event(event) {
            self.count("rotations of the seal key");
            if self.dice.per_mille(800) {
                self.seal_event(SealEvent::ReplySent(request));
            }
        }
    }
}
