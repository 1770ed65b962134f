//! A world: central, hosts, the network between them and a clock that waits for nobody. Tests step it and look.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_actors::site_registry::sites::Appraisal;
use holdfast_protocol::ids::HostId;
use holdfast_rest::strongbox::FleetControl;
use tempfile::TempDir;
use tracing::subscriber::DefaultGuard;
use turmoil::Sim;

use crate::agent::{Agent, Seen};
use crate::air::Air;
use crate::central::{CENTRAL, Central, Process};
use crate::count;
use crate::trace::Trace;

/// How long anything asked of central may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// What time goes by.
const TICK: Duration = Duration::from_millis(2);

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) sim: Sim<'static>,
    pub(crate) air: Arc<Air>,
    pub(crate) central: Arc<Central>,
    pub(crate) agents: Vec<Arc<Agent>>,
    pub(crate) trace: Trace,
    seen: Vec<Seen>,
    folder: TempDir,
    /// Kept for last: what is dropped with the world is still traced.
    _tracing: DefaultGuard,
}

impl World {
    /// With a central, and packets that take from 5 ms to `slowest`.
    pub(crate) fn new(seed: u64, slowest: Duration) -> Self {
        let trace = Trace::default();
        let tracing = trace.begin();
        let folder = TempDir::new().unwrap();
        let mut sim = turmoil::Builder::new()
            .simulation_duration(secs(100_000))
            .tick_duration(TICK)
            .min_message_latency(ms(5))
            .max_message_latency(slowest)
            .udp_capacity(1 << 16)
            .rng_seed(seed)
            .build();
        let air = Air::new(seed);
        let central = Central::new(seed, folder.path().join(CENTRAL), &air);
        let runs = central.clone();
        sim.host(CENTRAL, move || runs.clone().run());
        let (agents, seen) = (Vec::new(), Vec::new());
        let mut world = Self { seed, sim, air, central, agents, trace, seen, folder, _tracing: tracing };
        world.until(secs(5), "central is up", |world| world.central.process().is_some());
        world
    }

    /// Makes a site of these hosts, each on a machine of its own, and lets their agents join.
    pub(crate) fn site(&mut self, name: &str, hosts: usize) -> Vec<Arc<Agent>> {
        self.site_as(name, hosts, quick(), |agent| agent, |host| host.to_owned())
    }

    /// The same; `machine` says where each host is, and `made` may change it first.
    pub(crate) fn site_as(
        &mut self,
        name: &str,
        hosts: usize,
        appraisal: Appraisal,
        made: impl Fn(Agent) -> Agent,
        machine: impl Fn(&str) -> String,
    ) -> Vec<Arc<Agent>> {
        let names: Vec<String> = (1..=hosts).map(|number| format!("{name}-{number:03}")).collect();
        let (site, invited) = (name.to_owned(), names.clone());
        let bundle = self.ask(move |process| async move { process.make_site(&site, &invited, appraisal).await });
        let bundle = Arc::new(bundle);
        let agent = |host: &String| {
            let id = HostId { site: name.parse().unwrap(), host: host.parse().unwrap() };
            let folder = self.folder.path().join(host);
            made(Agent::new(self.seed, id, &machine(host), folder, bundle.clone(), &self.air))
        };
        let agents: Vec<Arc<Agent>> = names.iter().map(agent).map(Arc::new).collect();
        let mut machines: BTreeMap<String, Vec<Arc<Agent>>> = BTreeMap::new();
        for agent in &agents {
            machines.entry(agent.machine.clone()).or_default().push(agent.clone());
        }
        for (machine, of_machine) in machines {
            self.sim.host(machine, move || run_all(of_machine.clone()));
        }
        self.seen.extend(agents.iter().map(|agent| agent.seen()));
        self.agents.extend(agents.clone());
        agents
    }

    /// Has central do something, and waits for it.
    pub(crate) fn ask<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        work: impl FnOnce(Arc<Process>) -> F + Send + 'static,
    ) -> T {
        let answer = self.begin(work);
        self.until(ANSWER_LIMIT, "central has answered", |_| answer.lock().unwrap().is_some());
        let answer = answer.lock().unwrap().take();
        answer.unwrap()
    }

    /// Has central do something; the answer comes some time.
    pub(crate) fn begin<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        work: impl FnOnce(Arc<Process>) -> F + Send + 'static,
    ) -> Arc<Mutex<Option<T>>> {
        let answer = Arc::new(Mutex::new(None));
        let slot = answer.clone();
        self.central.ask(move |process| async move {
            let done = work(process).await;
            *slot.lock().unwrap() = Some(done);
        });
        answer
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step();
        }
    }

    /// Lets time pass until `holds`, but not longer than `limit`; how long it took.
    pub(crate) fn until(&mut self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let began = self.sim.elapsed();
        while !holds(self) {
            let took = self.sim.elapsed() - began;
            if limit < took {
                self.fail(&format!("{what}: not within {limit:?}"));
            }
            self.step();
        }
        self.sim.elapsed() - began
    }

    /// Ends the test with all that is known.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let lines = self.trace.lines();
        for line in &lines[lines.len().saturating_sub(60)..] {
            eprintln!("{line}");
        }
        for agent in &self.agents {
            let error = agent.host().and_then(|host| host.status.get().error);
            eprintln!("{}: {:?} {:?}, {error:?}", agent.id, agent.seen(), self.live(agent));
        }
        panic!("seed {}, at {:?}: {what}", self.seed, self.sim.elapsed());
    }

    fn step(&mut self) {
        if let Err(error) = self.sim.step() {
            self.fail(&format!("a program has ended: {error}"));
        }
        for (agent, before) in self.agents.iter().zip(&mut self.seen) {
            let seen = agent.seen();
            if seen != *before {
                self.trace.note(format!("{} ms {} {seen:?}", self.sim.elapsed().as_millis(), agent.id));
                *before = seen;
            }
        }
    }

    /// What central knows of a host's session: trusted, and how far behind.
    pub(crate) fn live(&self, agent: &Agent) -> (bool, Option<u64>) {
        let Some(process) = self.central.process() else { return (false, None) };
        process.fleet.live().get(&agent.id).map_or((false, None), |live| (live.trusted, live.lag))
    }

    /// Whether a host is unsealed and has all content, as both ends see it.
    pub(crate) fn in_sync(&self, agent: &Agent) -> bool {
        agent.seen().is_served() && self.live(agent) == (true, Some(0))
    }

    pub(crate) fn all_in_sync(&self) -> bool {
        if !self.agents.iter().all(|agent| agent.seen().is_served()) {
            return false;
        }
        let Some(process) = self.central.process() else { return false };
        let live = process.fleet.live();
        let is_in_sync = |agent: &Arc<Agent>| live.get(&agent.id).is_some_and(|it| it.trusted && it.lag == Some(0));
        self.agents.iter().all(is_in_sync)
    }

    /// Waits until all hosts are unsealed and have all content.
    pub(crate) fn settle(&mut self, limit: Duration) -> Duration {
        self.until(limit, "every host is unsealed and in sync", Self::all_in_sync)
    }

    /// Cuts a machine's way to central and back.
    pub(crate) fn part(&self, machine: &str) {
        self.sim.partition(machine, CENTRAL);
    }

    pub(crate) fn heal(&self, machine: &str) {
        self.sim.repair(machine, CENTRAL);
    }

    /// A host loses its power, and has it again after `off`.
    pub(crate) fn crash_host(&mut self, agent: &Agent, off: Duration) {
        agent.crash();
        self.sim.crash(&*agent.machine);
        self.run(off);
        self.sim.bounce(&*agent.machine);
    }

    /// Central loses its power, and has it again after `off`.
    pub(crate) fn crash_central(&mut self, off: Duration) {
        self.central.crash();
        self.sim.crash(CENTRAL);
        self.run(off);
        self.sim.bounce(CENTRAL);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        count::world(self.sim.elapsed(), self.air.dials(), self.trace.count("connected to central"));
    }
}

/// Quotes every two seconds, as in a demonstration.
pub(crate) fn quick() -> Appraisal {
    Appraisal { interval_ms: Some(2_000), learn: true, ..Appraisal::default() }
}

async fn run_all(agents: Vec<Arc<Agent>>) -> turmoil::Result {
    let tasks: Vec<_> = agents.into_iter().map(|agent| tokio::task::spawn_local(agent.run())).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}
