//! What comes late, in between or from two connections of one host at once.

use super::*;

#[test]
fn a_late_answer_is_no_failure_and_no_pass() {
    let mut bench = Bench::in_phase("challenged again");
    let late = bench.machine.answer(&bench.challenges[&1]);
    bench.now += 30_000;
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, late.clone(), facts), [""; 0], "at the deadline, before anybody looked");
    assert_eq!(bench.tick(), ["stale udc1/a 1", "challenge 1"]);
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, late.clone(), facts), [""; 0], "after the next question");
    assert!(!bench.is_trusted());
    assert_eq!(bench.quote(1), ["pass 1"]);
    assert_eq!(bench.recorded(1), ["trusted udc1/a 1"]);
    assert_eq!(bench.wait(), ["challenge 1"]);
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, late, facts)[0], "failure 1", "an old quote played again");
}

#[test]
fn answers_that_come_late_by_several_questions_are_no_failures() {
    let mut bench = Bench::in_phase("challenged again");
    let mut late = vec![bench.machine.answer(&bench.challenges[&1])];
    bench.now += 30_000;
    assert_eq!(bench.tick(), ["stale udc1/a 1", "challenge 1"]);
    for _ in 0..4 {
        late.push(bench.machine.answer(&bench.challenges[&1]));
        bench.now += 30_000;
        assert_eq!(bench.tick(), ["challenge 1"]);
    }
    for answer in late {
        let facts = bench.machine.facts();
        assert_eq!(bench.quote_with(1, answer, facts), [""; 0]);
    }
    assert!(!bench.is_trusted());
    assert_eq!(bench.quote(1), ["pass 1"], "the newest one heals");
}

#[test]
fn a_late_answer_is_let_pass_once() {
    let mut bench = Bench::in_phase("challenged again");
    let late = bench.machine.answer(&bench.challenges[&1]);
    bench.now += 30_000;
    assert_eq!(bench.tick(), ["stale udc1/a 1", "challenge 1"]);
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, late.clone(), facts), [""; 0]);
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, late, facts)[0], "failure 1", "each one costs the checking of a signature");
}

#[test]
fn an_answer_that_came_late_counts_as_none_all_the_same() {
    let mut bench = Bench::in_phase("challenged again");
    for asked in 0.. {
        let late = bench.machine.answer(&bench.challenges[&1]);
        bench.now += 30_000;
        let effects = bench.tick();
        if effects.last().is_some_and(|effect| effect == "close 1 Stale") {
            assert_eq!(asked, UNANSWERED_MAX);
            break;
        }
        assert!(asked < UNANSWERED_MAX, "{effects:?}");
        let facts = bench.machine.facts();
        assert_eq!(bench.quote_with(1, late, facts), [""; 0]);
    }
}

#[test]
fn a_connection_that_answers_nothing_is_given_up_some_time() {
    let mut bench = Bench::in_phase("challenged again");
    let mut asked = 0;
    loop {
        bench.now += 30_000;
        let effects = bench.tick();
        asked += 1;
        assert!(asked <= UNANSWERED_MAX + 1, "{effects:?}");
        if effects.last().is_some_and(|effect| effect == "close 1 Stale") {
            break;
        }
    }
    assert_eq!(asked, UNANSWERED_MAX + 1);
}

#[test]
fn a_second_connection_takes_over_only_after_its_own_pass() {
    let mut bench = Bench::in_phase("resting");
    bench.hello(2, HOST, hello());
    assert!(bench.is_trusted());
    assert_eq!(bench.quote(2), ["pass 2 first"]);
    assert_eq!(bench.recorded(2), ["close 1 Replaced", "trusted udc1/a 2 first"]);
    assert_eq!(bench.step(Event::Gone { conn: 1 }), [""; 0]);
    assert!(bench.is_trusted());

    let mut bench = Bench::in_phase("recording again");
    bench.hello(2, HOST, hello());
    bench.quote(2);
    bench.recorded(2);
    assert_eq!(bench.recorded(1), [""; 0], "the first's pass came too late");
    assert!(bench.is_trusted());

    let mut bench = Bench::in_phase("resting");
    bench.hello(2, HOST, hello());
    bench.now += 30_000;
    assert_eq!(bench.tick(), ["stale udc1/a 1", "challenge 1", "close 2 Stale"], "silence takes nothing over");
}

#[test]
fn a_failure_ends_what_other_connections_of_the_host_were_granted() {
    let mut bench = Bench::in_phase("resting");
    bench.hello(2, HOST, hello());
    bench.hello(3, SIBLING, hello());
    let (answer, facts) = (bench.machine.answer_over(&[0; 32]), bench.machine.facts());
    let effects = bench.quote_with(2, answer, facts);
    assert_eq!(effects, ["failure 2", "stale udc1/a 1", "close 1 Untrusted", "close 2 Untrusted"]);
    assert!(!bench.is_trusted());
}

#[test]
fn cut_off_between_quote_and_record_leads_to_nothing() {
    for (whom, whole_site) in [(HOST, false), (HOST, true), (SIBLING, true)] {
        let mut bench = Bench::in_phase("recording");
        bench.hello(2, AFAR, hello());
        assert_eq!(bench.cut_off(whom, whole_site), ["close 1 Quarantined"]);
        assert_eq!(bench.recorded(1), [""; 0]);
        assert!(!bench.is_trusted());
        assert_eq!(bench.verifier.connections.len(), 1, "another site's stay");
    }
    let mut bench = Bench::in_phase("recording");
    bench.step(Event::Sealed);
    assert_eq!(bench.recorded(1), [""; 0]);
}

/// Whether the key was read before or after there was a newer one, nobody knows.
#[test]
fn newer_keys_are_not_missed_by_a_host_whose_pass_is_being_recorded_or_whose_verdict_has_lapsed() {
    let advanced = |bench: &mut Bench| bench.step(Event::EpochAdvanced { site: host(HOST).site });
    let mut bench = Bench::in_phase("recording");
    assert_eq!(advanced(&mut bench), [""; 0], "what is given now might overtake the release");
    assert_eq!(bench.recorded(1), ["trusted udc1/a 1 first", "rewrap 1"]);

    let mut bench = Bench::in_phase("challenged again");
    bench.now += 30_000;
    assert_eq!(bench.tick(), ["stale udc1/a 1", "challenge 1"]);
    assert_eq!(advanced(&mut bench), [""; 0], "it has no verdict");
    assert_eq!(bench.quote(1), ["pass 1"]);
    assert_eq!(bench.recorded(1), ["trusted udc1/a 1", "rewrap 1"]);
    bench.wait();
    bench.quote(1);
    assert_eq!(bench.recorded(1), ["trusted udc1/a 1"], "once");

    let mut bench = Bench::in_phase("challenged again");
    bench.now += 30_000;
    assert_eq!(advanced(&mut bench), [""; 0], "it has none any more, though nobody has looked yet");
    bench.tick();
    bench.quote(1);
    assert_eq!(bench.recorded(1), ["trusted udc1/a 1", "rewrap 1"]);

    let mut bench = Bench::in_phase("challenged");
    assert_eq!(advanced(&mut bench), [""; 0]);
    bench.quote(1);
    assert_eq!(bench.recorded(1), ["trusted udc1/a 1 first"], "its release has the newer one");
}

#[test]
fn a_quote_overtaken_by_another_connections_pass_is_no_clone() {
    let mut bench = Bench::in_phase("challenged again");
    let earlier = bench.machine.answer(&bench.challenges[&1]);
    bench.hello(2, HOST, hello());
    bench.machine.tpm.counters.clock += 500;
    assert_eq!(bench.quote(2), ["pass 2 first"]);
    // Committed, but the machine has not heard of it yet.
    let facts = Facts { counters: Some(bench.machine.tpm.counters), ..bench.machine.facts() };
    assert_eq!(bench.quote_with(1, earlier, facts), ["stale udc1/a 1", "close 1 Replaced"]);
    assert_eq!(bench.recorded(2), ["trusted udc1/a 2 first"]);
}
