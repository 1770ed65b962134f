//! The machine against a fake builder and fake hosts.

use std::collections::HashMap;

use holdfast_protocol::ids::{DistEpoch, Seq, Term};
use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(100_000);

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), wall_us: 0 }
}

fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

fn host(text: &str) -> HostId {
    let (site, host) = text.split_once('/').unwrap();
    HostId { site: site.parse().unwrap(), host: host.parse().unwrap() }
}

fn position(seq: u64) -> Position {
    Position { term: Term(1), dist_epoch: DistEpoch(1), seq: Seq(seq), digest: [seq as u8; 32] }
}

fn push_to(name: &str, seq: u64) -> BuildOutcome {
    let key = Secret::fill_with(|bytes| bytes.fill(1));
    let head = Signed { body: Vec::new(), signer: Vec::new(), signature: Vec::new() };
    let (tenant, target, bundles, hosts) = (tenant(name), position(seq), Vec::new(), BTreeSet::new());
    BuildOutcome::Bundles(Arc::new(Push { tenant, target, key, bundles, head, hosts }))
}

/// The outcome of a build that was made for these.
fn made_for(hosts: &BTreeSet<HostName>, outcome: BuildOutcome) -> BuildOutcome {
    match outcome {
        BuildOutcome::Bundles(push) => {
            let push = Push { hosts: hosts.clone(), ..Arc::into_inner(push).unwrap() };
            BuildOutcome::Bundles(Arc::new(push))
        }
        other => other,
    }
}

fn contact(tenants: &[&str]) -> Option<FirstContact> {
    Some(FirstContact { positions: BTreeMap::new(), tenants: tenants.iter().map(|name| tenant(name)).collect() })
}

/// Effects as short texts.
fn told(effects: &[Effect]) -> Vec<String> {
    let seq = |position: &Option<Position>| position.map_or("-".to_owned(), |position| position.seq.to_string());
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Build { stream, base, .. } => format!("build {} {} {}", stream.0, stream.1, seq(base)),
            Effect::Push { host, conn, push } => format!("push {host} {conn} {} {}", push.tenant, push.target.seq),
            Effect::Lag { host, behind } => format!("lag {host} {behind}"),
            Effect::Bitten { ticket, late } => {
                let late: Vec<String> = late.iter().map(|(host, conn)| format!(" {host} {conn}")).collect();
                format!("bitten {ticket}{}", late.concat())
            }
        })
        .collect()
}

/// The machine with short ways to say what happened.
#[derive(Default)]
struct Bench {
    machine: Distribution,
    now: u64,
    /// For whom the last build was asked.
    asked: BTreeSet<HostName>,
}

impl Bench {
    fn step(&mut self, event: Event) -> Vec<String> {
        let effects = self.machine.step(event, at(self.now));
        for effect in &effects {
            if let Effect::Build { hosts, .. } = effect {
                self.asked.clone_from(hosts);
            }
        }
        told(&effects)
    }

    fn trusted(&mut self, name: &str, conn: ConnId, until: u64, first: Option<FirstContact>) -> Vec<String> {
        self.step(Event::HostTrusted { host: host(name), conn, until: Duration::from_secs(until), first })
    }

    fn lost(&mut self, name: &str, conn: ConnId) -> Vec<String> {
        self.step(Event::HostLost { host: host(name), conn })
    }

    fn built(&mut self, base: Option<u64>, outcome: BuildOutcome) -> Vec<String> {
        let stream = (tenant("acme"), "udc1".parse().unwrap());
        let outcome = made_for(&self.asked, outcome);
        self.step(Event::BuildEnded { stream, base: base.map(position), outcome })
    }

    fn applied(&mut self, name: &str, conn: ConnId, seq: u64) -> Vec<String> {
        self.step(Event::Applied { host: host(name), conn, tenant: tenant("acme"), position: position(seq) })
    }

    fn changed(&mut self) -> Vec<String> {
        self.step(Event::ContentChanged { tenants: [tenant("acme")].into() })
    }

    /// So many hosts come, and what is built is for them. All but the first come while the first build runs.
    fn sent_to_many(&mut self, hosts: usize) -> Vec<String> {
        for index in 0..hosts {
            self.trusted(&format!("udc1/s{index:03}"), index as u64, 1_000, contact(&["acme"]));
        }
        [self.built(None, push_to("acme", 1)), self.built(None, push_to("acme", 1))].concat()
    }

    /// One host that is in step at cut 1.
    fn in_step() -> Self {
        let mut bench = Self::default();
        assert_eq!(bench.trusted("udc1/a", 1, 1_000, contact(&["acme"])), ["build acme udc1 -", "lag udc1/a 1"]);
        assert_eq!(bench.built(None, push_to("acme", 1)), ["push udc1/a 1 acme 1"]);
        assert_eq!(bench.applied("udc1/a", 1, 1), ["build acme udc1 1"]);
        assert_eq!(bench.built(Some(1), BuildOutcome::UpToDate), ["lag udc1/a 0"]);
        assert_eq!(bench.machine.lag(&host("udc1/a")), Some(0));
        bench
    }
}

/// A change that must bite, waited for until then.
fn must_bite(bench: &mut Bench, ticket: u64, until: u64) -> Vec<String> {
    bench.step(Event::MustBite { ticket, tenant: tenant("acme"), until: Duration::from_secs(until) })
}

#[test]
fn a_change_that_must_bite_is_told_of_when_the_host_has_confirmed_it() {
    let mut bench = Bench::in_step();
    assert_eq!(must_bite(&mut bench, 7, 2), ["build acme udc1 1", "lag udc1/a 1"]);
    assert_eq!(bench.machine.next_deadline(), Some(Duration::from_secs(2)));
    assert_eq!(bench.built(Some(1), push_to("acme", 2)), ["push udc1/a 1 acme 2"]);
    assert_eq!(bench.applied("udc1/a", 1, 2), ["build acme udc1 2", "bitten 7"], "there may be more");
    assert_eq!(bench.built(Some(2), BuildOutcome::UpToDate), ["lag udc1/a 0"]);
    assert_eq!(bench.machine.next_deadline(), None);
    assert_eq!(must_bite(&mut Bench::default(), 8, 2), ["bitten 8"], "nobody is connected");
}

#[test]
fn what_was_on_its_way_before_a_change_that_must_bite_does_not_count_as_it() {
    // A build that runs has read the state before.
    let mut bench = Bench::in_step();
    bench.changed();
    assert_eq!(must_bite(&mut bench, 7, 2), [""; 0]);
    assert_eq!(bench.built(Some(1), BuildOutcome::UpToDate), ["build acme udc1 1"]);
    assert_eq!(bench.built(Some(1), BuildOutcome::Nothing), ["lag udc1/a 0", "bitten 7"], "it is not concerned");
    // So has what was pushed already.
    let mut bench = Bench::in_step();
    bench.changed();
    bench.built(Some(1), push_to("acme", 2));
    assert_eq!(must_bite(&mut bench, 7, 2), [""; 0]);
    assert_eq!(bench.applied("udc1/a", 1, 2), ["build acme udc1 2"]);
    assert_eq!(bench.built(Some(2), push_to("acme", 3)), ["push udc1/a 1 acme 3"]);
    assert_eq!(bench.applied("udc1/a", 1, 3), ["build acme udc1 3", "bitten 7"]);
    assert_eq!(bench.built(Some(3), BuildOutcome::UpToDate), ["lag udc1/a 0"]);
}

#[test]
fn a_change_bites_though_the_content_changes_all_the_time() {
    // Each build ends, and each push is confirmed, when there is something newer.
    let mut bench = Bench::in_step();
    must_bite(&mut bench, 7, 2);
    for _ in 0..3 {
        assert_eq!(bench.changed(), [""; 0]);
    }
    assert_eq!(bench.built(Some(1), push_to("acme", 2)), ["push udc1/a 1 acme 2"]);
    assert_eq!(bench.changed(), [""; 0]);
    assert_eq!(bench.applied("udc1/a", 1, 2), ["build acme udc1 2", "bitten 7"]);
    // Nor does a host that the change does not concern wait for the end of all changes.
    assert_eq!(must_bite(&mut bench, 8, 2), [""; 0], "the build may have read the state before");
    assert_eq!(bench.built(Some(2), BuildOutcome::UpToDate), ["build acme udc1 2"]);
    assert_eq!(bench.changed(), [""; 0]);
    assert_eq!(bench.built(Some(2), BuildOutcome::UpToDate), ["build acme udc1 2", "bitten 8"]);
    assert_eq!(bench.machine.lag(&host("udc1/a")), Some(1), "it is behind all the same");
}

#[test]
fn who_has_not_confirmed_in_time_or_is_lost_meanwhile_is_late() {
    let mut bench = Bench::in_step();
    must_bite(&mut bench, 7, 2);
    bench.built(Some(1), push_to("acme", 2));
    bench.now = 1;
    assert_eq!(bench.step(Event::TimePassed), [""; 0]);
    bench.now = 2;
    assert_eq!(bench.step(Event::TimePassed), ["bitten 7 udc1/a 1"]);
    assert_eq!(bench.step(Event::TimePassed), [""; 0], "once");

    let mut bench = Bench::in_step();
    must_bite(&mut bench, 8, 2);
    assert_eq!(bench.lost("udc1/a", 1), ["bitten 8 udc1/a 1"]);
    let mut bench = Bench::in_step();
    must_bite(&mut bench, 9, 2);
    assert_eq!(bench.trusted("udc1/a", 2, 1_000, contact(&["acme"])), ["lag udc1/a 1", "bitten 9 udc1/a 1"]);
}

#[test]
fn a_change_reaches_a_host_and_is_confirmed() {
    let mut bench = Bench::in_step();
    assert_eq!(bench.changed(), ["build acme udc1 1", "lag udc1/a 1"]);
    assert_eq!(bench.built(Some(1), push_to("acme", 2)), ["push udc1/a 1 acme 2"]);
    assert_eq!(bench.applied("udc1/a", 1, 2), ["build acme udc1 2"]);
    assert_eq!(bench.built(Some(2), BuildOutcome::UpToDate), ["lag udc1/a 0"]);
}

#[test]
fn a_host_that_came_after_a_build_began_is_sent_the_next_one() {
    let mut bench = Bench::default();
    assert_eq!(bench.trusted("udc1/a", 1, 1_000, contact(&["acme"])), ["build acme udc1 -", "lag udc1/a 1"]);
    assert_eq!(bench.trusted("udc1/b", 2, 1_000, contact(&["acme"])), ["lag udc1/b 1"]);
    // Nothing is written down of what b holds yet.
    assert_eq!(bench.built(None, push_to("acme", 1)), ["push udc1/a 1 acme 1", "build acme udc1 -"]);
    assert_eq!(bench.asked, ["b".parse().unwrap()].into());
    assert_eq!(bench.built(None, push_to("acme", 1)), ["push udc1/b 2 acme 1"]);
}

#[test]
fn a_change_while_a_build_runs_is_not_lost() {
    for outcome in [BuildOutcome::UpToDate, BuildOutcome::Nothing] {
        let mut bench = Bench::in_step();
        assert_eq!(bench.changed(), ["build acme udc1 1", "lag udc1/a 1"]);
        assert_eq!(bench.changed(), [""; 0], "one build at a time");
        assert_eq!(bench.built(Some(1), outcome), ["build acme udc1 1"], "what was read may be older than the change");
        assert_eq!(bench.built(Some(1), push_to("acme", 2)), ["push udc1/a 1 acme 2"]);
    }
    let mut bench = Bench::in_step();
    bench.changed();
    bench.step(Event::EpochAdvanced { site: "udc1".parse().unwrap() });
    assert_eq!(bench.built(Some(1), BuildOutcome::UpToDate), ["build acme udc1 1"]);
    bench.step(Event::EpochAdvanced { site: "udc2".parse().unwrap() });
    assert_eq!(bench.built(Some(1), BuildOutcome::UpToDate), ["lag udc1/a 0"], "another site's");
}

#[test]
fn a_change_while_a_push_is_under_way_follows_it() {
    let mut bench = Bench::in_step();
    bench.changed();
    bench.built(Some(1), push_to("acme", 2));
    assert_eq!(bench.changed(), [""; 0]);
    assert_eq!(bench.applied("udc1/a", 1, 2), ["build acme udc1 2"]);
    assert_eq!(bench.built(Some(2), push_to("acme", 3)), ["push udc1/a 1 acme 3"]);
}

#[test]
fn a_verdict_that_lapsed_and_came_back_goes_on_where_it_was() {
    let mut bench = Bench::in_step();
    bench.lost("udc1/a", 1);
    assert_eq!(bench.machine.lag(&host("udc1/a")), None);
    assert_eq!(bench.changed(), [""; 0]);
    assert_eq!(bench.trusted("udc1/a", 1, 2_000, None), ["build acme udc1 1", "lag udc1/a 1"]);
    assert_eq!(bench.built(Some(1), push_to("acme", 2)), ["push udc1/a 1 acme 2"]);
    bench.lost("udc1/a", 1);
    assert_eq!(
        bench.trusted("udc1/a", 1, 3_000, None),
        ["build acme udc1 1", "lag udc1/a 1"],
        "what was under way is looked at again"
    );
}

#[test]
fn a_verdict_that_lapsed_unnoticed_stops_pushes_and_does_not_strand_them() {
    let mut bench = Bench::in_step();
    bench.changed();
    bench.now = 1_000;
    assert_eq!(bench.built(Some(1), push_to("acme", 2)), [""; 0]);
    assert_eq!(bench.trusted("udc1/a", 1, 2_000, None), ["build acme udc1 1"]);
}

#[test]
fn a_new_connection_replaces_the_old_and_what_it_waited_for() {
    let mut bench = Bench::in_step();
    bench.changed();
    bench.built(Some(1), push_to("acme", 2));
    let first =
        || Some(FirstContact { positions: [(tenant("acme"), position(2))].into(), tenants: [tenant("acme")].into() });
    assert_eq!(bench.trusted("udc1/a", 2, 1_000, first()), ["build acme udc1 2", "lag udc1/a 1"]);
    assert_eq!(bench.applied("udc1/a", 1, 9), [""; 0], "said on the old connection");
    assert_eq!(bench.lost("udc1/a", 1), [""; 0]);
    assert_eq!(bench.trusted("udc1/a", 1, 5_000, None), [""; 0], "the old connection's verdict");
    assert_eq!(bench.built(Some(2), BuildOutcome::UpToDate), ["lag udc1/a 0"]);
}

#[test]
fn a_host_that_stands_elsewhere_is_built_for_anew() {
    let mut bench = Bench::in_step();
    bench.changed();
    bench.built(Some(1), push_to("acme", 2));
    let elsewhere =
        |seq: Position| Event::OutOfStep { host: host("udc1/a"), conn: 1, tenant: tenant("acme"), position: seq };
    assert_eq!(bench.step(elsewhere(position(7))), ["build acme udc1 7"]);
    assert_eq!(bench.built(Some(7), push_to("acme", 2)), ["push udc1/a 1 acme 2"]);
    assert_eq!(bench.step(elsewhere(Position::default())), ["build acme udc1 -"], "nowhere yet");
    assert_eq!(bench.built(None, push_to("acme", 2)), ["push udc1/a 1 acme 2"]);
    assert_eq!(bench.applied("udc1/a", 1, 5), [""; 0], "not yet where the push leads");
    assert_eq!(bench.applied("udc1/a", 1, 2), ["build acme udc1 2"]);
}

#[test]
fn a_host_in_step_that_says_otherwise_is_believed() {
    let mut bench = Bench::in_step();
    assert_eq!(bench.applied("udc1/a", 1, 1), [""; 0], "said again");
    assert_eq!(bench.applied("udc1/a", 1, 4), ["build acme udc1 4", "lag udc1/a 1"]);
}

#[test]
fn a_failed_build_is_tried_again_after_a_while() {
    let mut bench = Bench::in_step();
    bench.changed();
    assert_eq!(bench.built(Some(1), BuildOutcome::Failed), [""; 0]);
    let due = bench.machine.next_deadline().unwrap();
    assert_eq!(due, RETRY_AFTER);
    assert_eq!(bench.changed(), [""; 0], "not before");
    bench.now = due.as_secs();
    assert_eq!(bench.step(Event::TimePassed), ["build acme udc1 1"]);
    assert_eq!(bench.machine.next_deadline(), None);
}

#[test]
fn a_host_whose_content_moved_while_its_push_waited_is_not_sent_the_old_push() {
    let mut bench = Bench::default();
    // Silent hosts take all places.
    bench.sent_to_many(PUSHES_MAX);
    bench.trusted("udc1/z", 900, 1_000, contact(&["acme"]));
    assert_eq!(bench.built(None, push_to("acme", 1)), [""; 0], "no place");
    bench.step(Event::OutOfStep { host: host("udc1/z"), conn: 900, tenant: tenant("acme"), position: position(5) });
    assert_eq!(bench.built(Some(5), push_to("acme", 6)), [""; 0]);
    assert_eq!(bench.applied("udc1/s000", 0, 1), ["push udc1/z 900 acme 6", "build acme udc1 1"]);
}

#[test]
fn silent_hosts_hold_their_places_for_a_while_only() {
    let mut bench = Bench::default();
    let pushed = bench.sent_to_many(PUSHES_MAX + 3);
    assert_eq!(pushed.iter().filter(|text| text.starts_with("push")).count(), PUSHES_MAX);
    assert_eq!(bench.machine.next_deadline(), Some(PUSH_COUNTS_FOR));
    bench.now = PUSH_COUNTS_FOR.as_secs();
    let pushed = bench.step(Event::TimePassed);
    assert_eq!(pushed.iter().filter(|text| text.starts_with("push")).count(), 3);
    assert_eq!(bench.machine.next_deadline(), None);
}

#[test]
fn dead_hosts_leave_nothing_in_the_queue() {
    let mut bench = Bench::default();
    bench.sent_to_many(PUSHES_MAX + 3);
    assert_eq!(bench.machine.queue.len(), 3);
    for index in PUSHES_MAX..PUSHES_MAX + 3 {
        bench.lost(&format!("udc1/s{index:03}"), index as u64);
    }
    assert!(bench.machine.queue.is_empty());
}

#[test]
fn a_tenant_made_later_is_looked_at_everywhere() {
    let mut bench = Bench::in_step();
    let made = bench.step(Event::ContentChanged { tenants: [tenant("later")].into() });
    assert_eq!(made, ["build later udc1 -", "lag udc1/a 1"]);
    let stream = (tenant("later"), "udc1".parse().unwrap());
    assert_eq!(bench.step(Event::BuildEnded { stream, base: None, outcome: BuildOutcome::Nothing }), ["lag udc1/a 0"]);
}

/// What happens to the simulated deployment.
#[derive(Debug, Clone)]
enum Step {
    Change(usize),
    Bite(usize),
    Advance(usize),
    Connect(usize),
    Lapse(usize),
    Renew(usize),
    Vanish(usize),
    Wait(u64),
    FinishBuild { pick: usize, fails: bool },
    Deliver { pick: usize, lies: bool },
}

const TENANTS: [&str; 3] = ["acme", "beta", "core"];
const SITES: usize = 2;
const HOSTS: usize = 6;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..TENANTS.len()).prop_map(Step::Change),
        3 => (0..TENANTS.len()).prop_map(Step::Bite),
        1 => (0..SITES).prop_map(Step::Advance),
        4 => (0..HOSTS).prop_map(Step::Connect),
        2 => (0..HOSTS).prop_map(Step::Lapse),
        2 => (0..HOSTS).prop_map(Step::Renew),
        1 => (0..HOSTS).prop_map(Step::Vanish),
        2 => (1..8u64).prop_map(Step::Wait),
        8 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(pick, fails)| Step::FinishBuild { pick, fails }),
        8 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(pick, lies)| Step::Deliver { pick, lies }),
    ];
    prop::collection::vec(step, 1..120)
}

/// A deployment around the machine: content as numbers, hosts as positions.
#[derive(Default)]
struct World {
    machine: Distribution,
    now: u64,
    /// The newest state of each stream; 0: nothing.
    newest: HashMap<StreamId, u64>,
    conns: HashMap<HostId, (ConnId, bool)>,
    held: HashMap<(HostId, TenantName), u64>,
    next_conn: ConnId,
    /// Builds under way, with what they read when they began.
    builds: Vec<(StreamId, Option<Position>, u64, BTreeSet<HostName>)>,
    pushes: Vec<(HostId, ConnId, Option<Position>, Arc<Push>)>,
    lags: HashMap<HostId, u64>,
    /// The newest that each host ever had.
    had: HashMap<(HostId, TenantName), u64>,
    tickets: u64,
    bites: HashMap<u64, Wait>,
}

/// For a change of a tenant: what was the newest then, and who was connected.
type Wait = (TenantName, HashMap<StreamId, u64>, Vec<(HostId, ConnId)>);

fn site_of(index: usize) -> String {
    format!("udc{}", index % SITES)
}

fn host_of(index: usize) -> HostId {
    host(&format!("{}/h{index}", site_of(index)))
}

impl World {
    fn event(&mut self, event: Event) {
        let now = at(self.now);
        for effect in self.machine.step(event, now) {
            match effect {
                Effect::Build { stream, base, hosts } => {
                    assert!(self.builds.iter().all(|(under_way, ..)| *under_way != stream), "one build per stream");
                    let newest = self.newest.get(&stream).copied().unwrap_or_default();
                    assert!(!hosts.is_empty(), "a build is for somebody");
                    self.builds.push((stream, base, newest, hosts));
                }
                Effect::Push { host, conn, push } => {
                    let (current, trusted) = self.conns[&host];
                    assert!(push.hosts.contains(&host.host), "only of whom it is written down");
                    assert!(current == conn && trusted, "only who is trusted is sent anything, and on its connection");
                    let same = |of: &Arc<Push>| of.tenant == push.tenant;
                    assert!(
                        !self.pushes.iter().any(|(to, on, _, of)| *to == host && *on == conn && same(of)),
                        "one sequence per host and tenant"
                    );
                    self.pushes.push((host, conn, None, push));
                }
                Effect::Lag { host, behind } => drop(self.lags.insert(host, behind)),
                Effect::Bitten { ticket, late } => self.bitten(ticket, &late),
            }
        }
        assert!(self.machine.in_flight().filter(|until| now.mono < *until).count() <= PUSHES_MAX);
        for (host, (_, trusted)) in &self.conns {
            assert_eq!(self.machine.lag(host).is_some(), *trusted);
            if *trusted {
                assert_eq!(self.machine.lag(host), self.lags.get(host).copied(), "each change of a lag is told");
            }
        }
    }

    /// Who was connected and is not late has had what was the newest when the wait began.
    fn bitten(&mut self, ticket: u64, late: &[(HostId, ConnId)]) {
        let (tenant, newest, waited_for) = self.bites.remove(&ticket).expect("each wait ends once");
        for (host, conn) in waited_for.iter().filter(|waited| !late.contains(waited)) {
            let needed = newest.get(&(tenant.clone(), host.site.clone())).copied().unwrap_or_default();
            let had = self.had.get(&(host.clone(), tenant.clone())).copied().unwrap_or_default();
            assert!(needed <= had, "{host} {conn} has {had} of {tenant} and needs {needed}");
        }
    }

    fn must_bite(&mut self, of: usize) {
        let tenant = tenant(TENANTS[of]);
        let connected = self.conns.iter().filter(|(_, (_, trusted))| *trusted);
        let waited_for = connected.map(|(host, (conn, _))| (host.clone(), *conn)).collect();
        self.tickets += 1;
        self.bites.insert(self.tickets, (tenant.clone(), self.newest.clone(), waited_for));
        let until = Duration::from_secs(self.now + 2);
        self.event(Event::MustBite { ticket: self.tickets, tenant, until });
    }

    fn change(&mut self, of: usize) {
        for site in 0..SITES {
            // Not every tenant is placed at every site.
            if of != site {
                *self.newest.entry((tenant(TENANTS[of]), site_of(site).parse().unwrap())).or_default() += 1;
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(of) => {
                self.change(of);
                self.event(Event::ContentChanged { tenants: [tenant(TENANTS[of])].into() });
            }
            Step::Bite(of) => {
                // The watch over commits tells of the change only later.
                self.change(of);
                self.must_bite(of);
            }
            Step::Advance(of) => {
                let site: SiteName = site_of(of).parse().unwrap();
                self.newest.iter_mut().filter(|((_, at), _)| *at == site).for_each(|(_, newest)| *newest += 1);
                self.event(Event::EpochAdvanced { site });
            }
            Step::Connect(of) => {
                self.vanish(of);
                self.next_conn += 1;
                let (host, conn) = (host_of(of), self.next_conn);
                self.conns.insert(host.clone(), (conn, true));
                let held = self.held.iter().filter(|((of, _), _)| *of == host);
                let positions = held.map(|((_, tenant), seq)| (tenant.clone(), position(*seq))).collect();
                let first = Some(FirstContact { positions, tenants: TENANTS.map(tenant).into() });
                self.event(Event::HostTrusted { host, conn, until: LONG, first });
            }
            Step::Lapse(of) => self.lapse(of),
            Step::Renew(of) => {
                let host = host_of(of);
                if let Some((conn, trusted)) = self.conns.get_mut(&host) {
                    *trusted = true;
                    let conn = *conn;
                    self.event(Event::HostTrusted { host, conn, until: LONG, first: None });
                }
            }
            Step::Vanish(of) => self.vanish(of),
            Step::Wait(seconds) => {
                let until = self.now + seconds;
                while let Some(due) = self.machine.next_deadline().filter(|due| due.as_secs() <= until) {
                    self.now = self.now.max(due.as_secs());
                    self.event(Event::TimePassed);
                    assert!(self.machine.next_deadline().is_none_or(|next| due < next), "time does not stand still");
                }
                self.now = until;
            }
            Step::FinishBuild { pick, fails } => self.finish_build(pick, fails),
            Step::Deliver { pick, lies } => self.deliver(pick, lies),
        }
    }

    fn lapse(&mut self, of: usize) {
        let host = host_of(of);
        if let Some((conn, trusted)) = self.conns.get_mut(&host)
            && std::mem::take(trusted)
        {
            let conn = *conn;
            self.pushes.retain(|(to, ..)| *to != host);
            self.event(Event::HostLost { host, conn });
        }
    }

    fn vanish(&mut self, of: usize) {
        self.lapse(of);
        self.conns.remove(&host_of(of));
    }

    fn finish_build(&mut self, pick: usize, fails: bool) {
        if self.builds.is_empty() {
            return;
        }
        let (stream, base, read, hosts) = self.builds.remove(pick % self.builds.len());
        let outcome = match (fails, read) {
            (true, _) => BuildOutcome::Failed,
            (_, 0) => BuildOutcome::Nothing,
            (_, read) if base == Some(position(read)) => BuildOutcome::UpToDate,
            (_, read) => push_to(stream.0.as_str(), read),
        };
        let outcome = made_for(&hosts, outcome);
        self.event(Event::BuildEnded { stream, base, outcome });
    }

    fn deliver(&mut self, pick: usize, lies: bool) {
        if self.pushes.is_empty() {
            return;
        }
        let (host, conn, _, push) = self.pushes.remove(pick % self.pushes.len());
        let tenant = push.tenant.clone();
        let key = (host.clone(), tenant.clone());
        if lies {
            // As if the disk had been put back: it stands at nothing.
            self.held.remove(&key);
            return self.event(Event::OutOfStep { host, conn, tenant, position: Position::default() });
        }
        let held = self.held.entry(key).or_default();
        assert!(*held <= push.target.seq.0, "never backwards");
        *held = push.target.seq.0;
        let had = self.had.entry((host.clone(), tenant.clone())).or_default();
        *had = push.target.seq.0.max(*had);
        self.event(Event::Applied { host, conn, tenant, position: push.target });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn once_faults_stop_every_trusted_host_is_in_step(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
        }
        (0..HOSTS).for_each(|of| world.step(Step::Renew(of)));
        for _ in 0..400 {
            world.step(Step::FinishBuild { pick: 0, fails: false });
            world.step(Step::Deliver { pick: 0, lies: false });
            world.step(Step::Wait(1));
        }
        prop_assert!(world.bites.is_empty(), "a wait that nobody ends");
        prop_assert!(world.builds.is_empty() && world.pushes.is_empty());
        for host in world.conns.keys() {
            prop_assert_eq!(world.machine.lag(host), Some(0));
            for name in TENANTS {
                let newest = world.newest.get(&(tenant(name), host.site.clone())).copied().unwrap_or_default();
                let held = world.held.get(&(host.clone(), tenant(name))).copied().unwrap_or_default();
                prop_assert_eq!(held, newest, "{} at {:?}", name, host);
            }
        }
    }
}
