//! Random events of three hosts, watched by somebody who sees only the effects.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Hello { host: usize },
    Quote { pick: usize, kind: u8 },
    Recorded { pick: usize },
    Refused { pick: usize },
    Spurious { conn: ConnId },
    Wait { ms: u64 },
    Unseen { ms: u64 },
    CutOff { host: usize, whole_site: bool },
    Gone { pick: usize },
    Advanced { host: usize },
    Sealed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3usize).prop_map(|host| Step::Hello { host }),
        10 => (any::<usize>(), 0..8u8).prop_map(|(pick, kind)| Step::Quote { pick, kind }),
        6 => any::<usize>().prop_map(|pick| Step::Recorded { pick }),
        1 => any::<usize>().prop_map(|pick| Step::Refused { pick }),
        1 => (1..12u64).prop_map(|conn| Step::Spurious { conn }),
        5 => prop_oneof![1..3_000u64, 5_000..40_000u64].prop_map(|ms| Step::Wait { ms }),
        1 => (5_000..40_000u64).prop_map(|ms| Step::Unseen { ms }),
        1 => (0..3usize, any::<bool>()).prop_map(|(host, whole_site)| Step::CutOff { host, whole_site }),
        1 => any::<usize>().prop_map(|pick| Step::Gone { pick }),
        3 => (0..3usize).prop_map(|host| Step::Advanced { host }),
        1 => Just(Step::Sealed),
    ];
    prop::collection::vec(step, 1..60)
}

const NAMES: [&str; 3] = [HOST, SIBLING, AFAR];

/// What an observer of effects knows.
#[derive(Default)]
struct Watch {
    challenges: BTreeMap<ConnId, (usize, Challenge, u64)>,
    spent: BTreeSet<[u8; 32]>,
    recording: BTreeMap<ConnId, usize>,
    open: BTreeMap<ConnId, usize>,
    trusted: BTreeMap<usize, ConnId>,
    released: BTreeSet<ConnId>,
    /// How often a site's epochs have advanced.
    epochs: BTreeMap<SiteName, u64>,
    /// That number when the key was read that was given on a connection: as early as may be.
    given: BTreeMap<ConnId, u64>,
    /// When the last verdict on a connection ends.
    until: BTreeMap<ConnId, Duration>,
}

impl Watch {
    fn epoch(&self, host: &HostId) -> u64 {
        self.epochs.get(&host.site).copied().unwrap_or(0)
    }

    /// `good`: the nonce of a good quote that is being answered now.
    fn see(&mut self, effects: &[Effect], now: u64, good: Option<[u8; 32]>, recorded: Option<ConnId>) {
        let index = |id: &HostId| NAMES.iter().position(|name| host(name) == *id).unwrap();
        for effect in effects {
            match effect {
                Effect::Welcome { .. } => {}
                Effect::Rewrap { host, conn } => {
                    assert_eq!(self.trusted.get(&index(host)), Some(conn), "keys are for who is trusted");
                    assert!(at(now).mono < self.until[conn], "as long as the verdict holds");
                    self.given.insert(*conn, self.epoch(host));
                }
                Effect::Challenge { conn, challenge } => {
                    assert!(self.spent.insert(challenge.nonce), "nonces are new");
                    self.challenges.insert(*conn, (self.open[conn], challenge.clone(), now));
                }
                Effect::RecordPass(pass) => {
                    let (_, challenge, asked) = &self.challenges[&pass.conn];
                    assert_eq!(good, Some(challenge.nonce), "a pass rests on a quote over the newest nonce");
                    assert!(now < asked + 30_000);
                    assert_eq!(pass.first.is_some(), !self.released.contains(&pass.conn));
                    if pass.first.is_some() {
                        self.given.insert(pass.conn, self.epoch(&pass.host));
                    }
                    self.recording.insert(pass.conn, index(&pass.host));
                }
                Effect::RecordFailure(failure) => assert!(self.open.contains_key(&failure.conn)),
                Effect::Trusted { host, conn, first, until } => {
                    self.until.insert(*conn, *until);
                    assert_eq!(recorded, Some(*conn), "trust follows a record");
                    assert!(self.recording.remove(conn).is_some());
                    assert_eq!(*first, self.released.insert(*conn));
                    self.trusted.insert(index(host), *conn);
                }
                Effect::Stale { host, conn } => {
                    assert_eq!(self.trusted.remove(&index(host)), Some(*conn));
                }
                Effect::Close { conn, .. } => {
                    self.open.remove(conn);
                    self.recording.remove(conn);
                    self.challenges.remove(conn);
                    assert!(
                        self.trusted.values().all(|trusted| trusted != conn)
                            || effects.iter().any(|effect| {
                                matches!(effect, Effect::Trusted { conn: other, .. } if other != conn)
                            })
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn trust_rests_on_a_fresh_quote_that_was_recorded(steps in steps()) {
        let machines = NAMES.map(Machine::new);
        let (mut bench, mut watch, mut next) = (Bench::new(), Watch::default(), 0);
        for step in steps {
            let (mut good, mut recorded) = (None, None);
            let event = match step {
                Step::Hello { host } => {
                    next += 1;
                    watch.open.insert(next, host);
                    let (facts, hello, seed) = (Box::new(machines[host].facts()), Box::new(hello()), bench.seed());
                    let host = machines[host].id.clone();
                    Event::HelloReceived { conn: next, host, exporter: EXPORTER, hello, facts, seed }
                }
                Step::Quote { pick, kind } => {
                    let Some((conn, (host, challenge, _))) = watch.challenges.iter().nth(pick % 4) else { continue };
                    let (machine, conn) = (&machines[*host], *conn);
                    let answer = match kind {
                        0 => machine.answer_over(&[]),
                        1 => machine.answer(&Challenge { nonce: [0; 32], ..challenge.clone() }),
                        _ => {
                            good = Some(challenge.nonce);
                            machine.answer(challenge)
                        }
                    };
                    let facts = machine.facts();
                    bench.quote_event(conn, answer, facts)
                }
                Step::Recorded { pick } => {
                    let Some((conn, _)) = watch.recording.iter().nth(pick % 4) else { continue };
                    recorded = Some(*conn);
                    Event::PassRecorded { conn: *conn, ttl: Duration::from_secs(10) }
                }
                Step::Refused { pick } => {
                    let Some((conn, _)) = watch.recording.iter().nth(pick % 4) else { continue };
                    Event::PassRefused { conn: *conn, code: CloseCode::Quarantined }
                }
                Step::Spurious { conn } => {
                    recorded = Some(conn);
                    if watch.recording.contains_key(&conn) { continue }
                    Event::PassRecorded { conn, ttl: Duration::from_secs(10) }
                }
                Step::Wait { ms } => {
                    bench.now += ms;
                    Event::TimePassed { seed: bench.seed() }
                }
                // Time passes, and nobody has looked yet.
                Step::Unseen { ms } => {
                    bench.now += ms;
                    continue;
                }
                Step::CutOff { host, whole_site } => {
                    let id = machines[host].id.clone();
                    let host = (!whole_site).then_some(id.host);
                    Event::CutOff { site: id.site, host, code: CloseCode::Quarantined }
                }
                Step::Gone { pick } => {
                    let Some((conn, _)) = watch.open.iter().nth(pick % 4) else { continue };
                    let conn = *conn;
                    watch.open.remove(&conn);
                    watch.recording.remove(&conn);
                    watch.challenges.remove(&conn);
                    Event::Gone { conn }
                }
                Step::Advanced { host } => {
                    let site = machines[host].id.site.clone();
                    *watch.epochs.entry(site.clone()).or_default() += 1;
                    Event::EpochAdvanced { site }
                }
                Step::Sealed => Event::Sealed,
            };
            let cut = match &event {
                Event::CutOff { site, host, .. } => Some((site.clone(), host.clone())),
                _ => None,
            };
            let effects = bench.effects(event);
            watch.see(&effects, bench.now, good, recorded);
            if let Some((site, name)) = cut {
                for (index, machine) in machines.iter().enumerate() {
                    if machine.id.site == site && name.as_ref().is_none_or(|name| *name == machine.id.host) {
                        prop_assert!(!watch.trusted.contains_key(&index));
                        prop_assert!(!watch.open.values().any(|open| *open == index));
                    }
                }
            }
            for (index, machine) in machines.iter().enumerate() {
                if bench.verifier.is_trusted(&machine.id, at(bench.now)) {
                    prop_assert!(watch.trusted.contains_key(&index));
                    let given = watch.given.get(&watch.trusted[&index]);
                    prop_assert_eq!(given, Some(&watch.epoch(&machine.id)), "who is trusted has the newest key");
                }
                let held = bench.verifier.connections.values().filter(|held| held.host == machine.id).count();
                prop_assert!(held <= CONNECTIONS_PER_HOST_MAX);
            }
            prop_assert!(bench.verifier.connections.keys().all(|conn| watch.open.contains_key(conn)));
        }
    }
}
