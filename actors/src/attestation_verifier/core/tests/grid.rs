//! Every event in every phase, and which connections are taken on at all.

use super::*;

const PHASES: [&str; 6] = ["none", "challenged", "recording", "resting", "challenged again", "recording again"];

/// One line per event: what follows from it in each of [`PHASES`].
#[test]
fn each_event_has_its_effects_in_each_phase() {
    type Act = fn(&mut Bench) -> Vec<String>;
    let close = "close 1 Protocol";
    let stale = "stale udc1/a 1, close 1 Protocol";
    let rows: [(&str, Act, [&str; 6]); 14] = [
        ("hello", |b| b.hello(1, HOST, hello()), ["welcome 1, challenge 1", close, close, stale, stale, stale]),
        (
            "quote",
            |b| {
                let challenge = b.challenges.get(&1).cloned();
                let challenge = challenge.unwrap_or(Challenge {
                    nonce: [0; 32],
                    policy: PolicyVersion(1),
                    pcrs: PCRS.into(),
                    ima_offset: 0,
                    ima_count: 0,
                });
                let (answer, facts) = (b.machine.answer(&challenge), b.machine.facts());
                b.quote_with(1, answer, facts)
            },
            ["", "pass 1 first", close, stale, "pass 1", stale],
        ),
        (
            "bad quote",
            |b| {
                let (answer, facts) = (b.machine.answer_over(&[0; 32]), b.machine.facts());
                b.quote_with(1, answer, facts)
            },
            ["", "failure 1, close 1 Untrusted", close, stale, "failure 1, stale udc1/a 1, close 1 Untrusted", stale],
        ),
        ("pass recorded", |b| b.recorded(1), ["", "", "trusted udc1/a 1 first", "", "", "trusted udc1/a 1"]),
        (
            "pass refused",
            |b| b.step(Event::PassRefused { conn: 1, code: CloseCode::Clone }),
            [
                "close 1 Clone",
                "close 1 Clone",
                "close 1 Clone",
                "stale udc1/a 1, close 1 Clone",
                "stale udc1/a 1, close 1 Clone",
                "stale udc1/a 1, close 1 Clone",
            ],
        ),
        ("tick, early", Bench::tick, ["", "", "", "", "", ""]),
        (
            "tick after half a minute",
            |b| {
                b.now += 30_000;
                b.tick()
            },
            ["", "close 1 Stale", "", "stale udc1/a 1, challenge 1", "stale udc1/a 1, challenge 1", "stale udc1/a 1"],
        ),
        (
            "cut off",
            |b| b.cut_off(HOST, false),
            [
                "",
                "close 1 Quarantined",
                "close 1 Quarantined",
                "stale udc1/a 1, close 1 Quarantined",
                "stale udc1/a 1, close 1 Quarantined",
                "stale udc1/a 1, close 1 Quarantined",
            ],
        ),
        ("sibling cut off", |b| b.cut_off(SIBLING, false), [""; 6]),
        (
            "gone",
            |b| b.step(Event::Gone { conn: 1 }),
            ["", "", "", "stale udc1/a 1", "stale udc1/a 1", "stale udc1/a 1"],
        ),
        (
            "epoch advanced",
            |b| b.step(Event::EpochAdvanced { site: host(HOST).site }),
            ["", "", "", "rewrap 1", "rewrap 1", "rewrap 1"],
        ),
        (
            "policy changed",
            |b| {
                assert_eq!(b.policy_changed(HOST), Vec::<String>::new());
                b.tick()
            },
            ["", "", "", "challenge 1", "", ""],
        ),
        (
            "policy of another site changed",
            |b| {
                b.policy_changed("udc2/a");
                b.tick()
            },
            [""; 6],
        ),
        (
            "sealed",
            |b| b.step(Event::Sealed),
            [
                "",
                "close 1 CentralSealed",
                "close 1 CentralSealed",
                "stale udc1/a 1, close 1 CentralSealed",
                "stale udc1/a 1, close 1 CentralSealed",
                "stale udc1/a 1, close 1 CentralSealed",
            ],
        ),
    ];
    for (event, act, expected) in rows {
        for (phase, expected) in PHASES.into_iter().zip(expected) {
            let mut bench = Bench::in_phase(phase);
            assert_eq!(act(&mut bench).join(", "), expected, "{event} when {phase}");
        }
    }
}

#[test]
fn a_hello_is_answered_only_where_it_fits() {
    let cases = [
        ("generation", Hello { generation: HostGeneration(2), ..hello() }),
        ("too new", Hello { version_min: VERSION_MAX + 1, version_max: VERSION_MAX + 1, ..hello() }),
        ("too old", Hello { version_min: 0, version_max: VERSION_MIN - 1, ..hello() }),
    ];
    for (what, hello) in cases {
        let mut bench = Bench::new();
        assert_eq!(bench.hello(1, HOST, hello), ["close 1 Protocol"], "{what}");
        assert_eq!(bench.verifier.next_deadline(), None, "{what}");
    }
    let mut bench = Bench::new();
    assert_eq!(bench.hello(1, HOST, Hello { version_min: 0, version_max: u16::MAX, ..hello() })[0], "welcome 1");
}

#[test]
fn a_host_without_a_pass_holds_a_few_connections_only() {
    let mut bench = Bench::new();
    for conn in 1..=4 {
        assert_eq!(bench.hello(conn, HOST, hello()).len(), 2);
    }
    assert_eq!(bench.hello(5, HOST, hello()), ["close 5 Protocol"]);
    assert_eq!(bench.hello(6, SIBLING, hello()).len(), 2);
    bench.step(Event::Gone { conn: 2 });
    assert_eq!(bench.hello(7, HOST, hello()).len(), 2);
}
