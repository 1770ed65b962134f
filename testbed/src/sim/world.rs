//! The world: what there is, what happens next, and the order of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_actors::attestation_verifier::core::{ConnId, Pass};
use holdfast_actors::distribution::core::StreamId;
use holdfast_protocol::ids::HostName;
use holdfast_protocol::wire::Position;
use holdfast_site_agent::uplink::core::Attempt;

use crate::sim::central::Central;
use crate::sim::chance::{Dice, Nonces};
use crate::sim::checkers::Checks;
use crate::sim::clock::WorldTime;
use crate::sim::deciding::Call;
use crate::sim::host::SimHost;
use crate::sim::model::Model;
use crate::sim::network::{Link, LinkId, Parcel};
use crate::sim::sabotage::Sabotage;

/// How big a world is, and how long it runs.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The seed.
    pub seed: u64,
    /// Most sites.
    pub sites: usize,
    /// Events before the faults stop.
    pub events: u64,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// Prints each event, effect and change.
    pub tell: bool,
}

impl Shape {
    /// A world of this seed with so many sites.
    pub fn new(seed: u64, sites: usize) -> Self {
        // Some are short: what goes wrong early is met more often.
        let events = if seed % 4 == 3 { 600 } else { 1_500 };
        Self { seed, sites, events, sabotage: None, tell: false }
    }
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// A parcel arrives.
    Arrives(LinkId, Parcel),
    /// A partition has lasted: its connections end. The number tells one partition of a host from another.
    IdledOut(LinkId, u64),
    /// An uplink's deadline.
    UplinkDue(usize, u64),
    /// An attempt has reached central, or found that it can't.
    Attempts(usize, u64, u64, Attempt),
    /// A host's process starts again.
    HostStarts(usize, u64),
    /// Central's process starts again.
    CentralStarts,
    /// An operator unseals central.
    Unseal(u64),
    /// The verifier's deadline.
    VerifierDue(u64),
    /// Distribution's deadline.
    DistributionDue(u64),
    /// The verifier takes its next message.
    VerifierTurn(u64),
    /// Distribution takes its next message.
    DistributionTurn(u64),
    /// A session's writer takes what is next.
    WriterTurn(ConnId),
    /// A pass is committed.
    Passes(u64, Box<Pass>),
    /// A build runs.
    Builds(u64, StreamId, Option<Position>, BTreeSet<HostName>),
    /// Central looks what has changed.
    ContentLook(u64),
    /// An operator's call has waited long enough.
    CallDue(u64),
    /// Somebody does something.
    Act,
    /// Something goes wrong, or well again.
    Misfortune,
}

impl Event {
    /// Whether it counts as an event. A message that moves from one part of central to the next does not.
    pub fn counts(&self) -> bool {
        !matches!(
            self,
            Self::VerifierTurn(_)
                | Self::DistributionTurn(_)
                | Self::WriterTurn(_)
                | Self::ContentLook(_)
                | Self::CallDue(_)
        )
    }
}

/// What was found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, or `converges`.
    pub invariant: &'static str,
    /// What is the matter.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What was found wrong first.
    pub violation: Option<Violation>,
    /// Of all events in their order.
    pub digest: u64,
    /// Counted by name.
    pub counts: BTreeMap<&'static str, u64>,
}

/// What the world is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Things go wrong.
    Chaos,
    /// Nothing goes wrong any more; by then all must be well.
    Calm {
        /// Microseconds since the world began.
        until_us: u64,
    },
}

/// A world in which nothing goes wrong is at work after so long.
const WARM_WITHIN_US: u64 = 60_000_000;

/// All of it.
pub struct World {
    /// What was asked for.
    pub shape: Shape,
    /// Chance.
    pub dice: Dice,
    /// Time.
    pub time: WorldTime,
    /// Central.
    pub central: Central,
    /// All hosts.
    pub hosts: Vec<SimHost>,
    /// All connections that some end still holds.
    pub links: BTreeMap<LinkId, Link>,
    /// What ought to be.
    pub model: Model,
    /// What was checked.
    pub checks: Checks,
    /// Nonces of all nodes.
    pub nonces: Arc<Mutex<Nonces>>,
    /// Operators' calls that have not returned.
    pub calls: BTreeMap<u64, Call>,
    /// What is counted for the figures.
    pub counts: BTreeMap<&'static str, u64>,
    /// What the world is about.
    pub phase: Phase,
    /// Whether all was well when somebody looked last.
    pub settled: bool,
    /// What was found wrong first.
    pub violation: Option<Violation>,
    /// Where the hosts keep their state files.
    pub folder: tempfile::TempDir,
    /// The number given last to anything that needs one.
    pub last_id: u64,
    queue: BTreeMap<(u64, u64), Event>,
    digest: u64,
    events: u64,
}

impl World {
    /// Runs a world to its end.
    pub fn run(shape: Shape) -> Outcome {
        // Nothing here waits for it; the product's limits on time need one to be made.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime without threads can always be had");
        let _entered = runtime.enter();
        let mut world = Self::new(shape);
        world.set_up();
        world.warm_up();
        world.let_things_go_wrong();
        world.live();
        world.outcome()
    }

    fn new(shape: Shape) -> Self {
        let time = WorldTime::default();
        let nonces = Arc::<Mutex<Nonces>>::default();
        nonces.lock().expect("nobody panics with it").repeat = shape.sabotage == Some(Sabotage::RepeatNonce);
        Self {
            dice: Dice::new(shape.seed),
            central: Central::new(shape.seed, &time, &nonces),
            time,
            hosts: Vec::new(),
            links: BTreeMap::new(),
            model: Model::default(),
            checks: Checks::default(),
            nonces,
            calls: BTreeMap::new(),
            counts: BTreeMap::new(),
            phase: Phase::Chaos,
            settled: false,
            violation: None,
            folder: folder(),
            last_id: 0,
            queue: BTreeMap::new(),
            digest: 0xCBF2_9CE4_8422_2325,
            events: 0,
            shape,
        }
    }

    /// Until all that was set up is at work, in most worlds; in the others everything happens at once.
    fn warm_up(&mut self) {
        if self.shape.seed.is_multiple_of(2) && self.shape.sites <= 3 {
            return;
        }
        while self.violation.is_none() && self.time.us() < WARM_WITHIN_US && !self.is_settled() {
            // Where nothing happens by itself, operators and misfortunes will see to it.
            if !(0..100).all(|_| self.step()) {
                break;
            }
        }
        self.events = 0;
    }

    fn live(&mut self) {
        self.schedule(0, Event::Act);
        self.schedule(1_000_000, Event::Misfortune);
        while self.violation.is_none() {
            if self.phase == Phase::Chaos && self.shape.events <= self.events {
                self.calm_down();
            }
            if let Phase::Calm { until_us } = self.phase
                && (self.settled || until_us < self.time.us())
            {
                self.check_settled();
                return;
            }
            if !self.step() {
                return self.broken("converges", "nothing will ever happen any more".to_owned());
            }
        }
    }

    /// The next event; whether there was one.
    fn step(&mut self) -> bool {
        let Some(((at, _), event)) = self.queue.pop_first() else { return false };
        self.time.advance_to(at);
        let counts = event.counts();
        self.events += u64::from(counts);
        self.tell(|| Self::name_of(&event));
        self.happen(event);
        self.bury_the_dead();
        self.look_at_calls();
        self.watch_content();
        self.arm_timers();
        if counts && self.events.is_multiple_of(50) {
            self.check_all();
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(link, parcel) => self.arrives(link, parcel),
            Event::IdledOut(link, outage) => self.idled_out(link, outage),
            Event::UplinkDue(host, life) => self.uplink_due(host, life),
            Event::Attempts(host, life, number, attempt) => self.attempt(host, life, number, attempt),
            Event::HostStarts(host, life) => self.host_starts(host, life),
            Event::CentralStarts => self.central_starts(),
            Event::Unseal(life) => self.unseal(life),
            Event::VerifierDue(hub) => self.verifier_due(hub),
            Event::DistributionDue(hub) => self.distribution_due(hub),
            Event::VerifierTurn(hub) => self.verifier_turn(hub),
            Event::DistributionTurn(hub) => self.distribution_turn(hub),
            Event::WriterTurn(conn) => self.writer_turn(conn),
            Event::Passes(hub, pass) => self.pass_recorded(hub, *pass),
            Event::Builds(hub, stream, base, hosts) => self.build_now(hub, stream, base, hosts),
            Event::ContentLook(hub) => self.content_look(hub),
            Event::CallDue(call) => self.call_due(call),
            Event::Act => self.act(),
            Event::Misfortune => self.misfortune(),
        }
    }

    /// Has something happen so many microseconds from now.
    pub fn schedule(&mut self, in_us: u64, event: Event) {
        self.schedule_at(self.time.us() + in_us, event);
    }

    /// Has something happen then.
    pub fn schedule_at(&mut self, at_us: u64, event: Event) {
        let number = self.next_id();
        self.queue.insert((at_us.max(self.time.us()), number), event);
    }

    /// A fresh number.
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Counts something for the figures.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Tells what happens: to whoever steps through the run, and to the digest.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let text = what();
        if self.shape.tell {
            println!("{:>12.6} {text}", Duration::from_micros(self.time.us()).as_secs_f64());
        }
        for byte in self.time.us().to_be_bytes().iter().chain(text.as_bytes()) {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    /// Something is not as it ought to be.
    pub fn broken(&mut self, invariant: &'static str, what: String) {
        self.tell(|| format!("VIOLATED {invariant}: {what}"));
        self.violation.get_or_insert(Violation { invariant, what });
    }

    /// Whether this is broken on purpose here.
    pub fn sabotaged(&self, by: Sabotage) -> bool {
        self.shape.sabotage == Some(by)
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    fn outcome(mut self) -> Outcome {
        self.counts.insert("events", self.events);
        self.counts.insert("simulated seconds", self.time.us() / 1_000_000);
        for (name, times) in self.checks.times.clone() {
            self.counts.insert(name, times);
        }
        Outcome { violation: self.violation, digest: self.digest, counts: self.counts }
    }
}

/// In memory where the system has a folder for that: nothing in a simulation needs a real disk.
fn folder() -> tempfile::TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("a folder for state files can be made")
}
