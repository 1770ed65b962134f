//! Which quote passes, and what one that does not pass leads to.

use super::*;

#[test]
fn only_a_quote_bound_to_all_of_its_session_passes() {
    let mut bench = Bench::in_phase("challenged");
    let (machine, challenge) = (Machine::new(HOST), bench.challenges[&1].clone());
    let good = machine.binding(&challenge);
    let (site, name) = (host(AFAR).site, host(SIBLING).host);
    let other_key = *kem::KemSecret::from_seed(&seed(99)).public();
    let wrong = [
        ("bare nonce", challenge.nonce.to_vec()),
        ("nothing", Vec::new()),
        ("deployment", QuoteBinding { deployment: DeploymentId([2; 16]), ..good }.qualifying_data().1.to_vec()),
        ("site", QuoteBinding { site: &site, ..good }.qualifying_data().1.to_vec()),
        ("host", QuoteBinding { host: &name, ..good }.qualifying_data().1.to_vec()),
        ("generation", QuoteBinding { host_generation: HostGeneration(2), ..good }.qualifying_data().1.to_vec()),
        ("nonce", QuoteBinding { nonce: &[9; 32], ..good }.qualifying_data().1.to_vec()),
        ("connection", QuoteBinding { exporter: &[9; 32], ..good }.qualifying_data().1.to_vec()),
        ("key", QuoteBinding { hpke_public: &other_key, ..good }.qualifying_data().1.to_vec()),
        ("suite", QuoteBinding { hpke_suite: 0, ..good }.qualifying_data().1.to_vec()),
        ("policy", QuoteBinding { policy_version: PolicyVersion(2), ..good }.qualifying_data().1.to_vec()),
    ];
    for (what, qualifying_data) in wrong {
        let mut bench = Bench::in_phase("challenged");
        let (answer, facts) = (machine.answer_over(&qualifying_data), machine.facts());
        assert_eq!(bench.quote_with(1, answer, facts), ["failure 1", "close 1 Untrusted"], "{what}");
        assert_eq!(bench.recorded(1), [""; 0], "{what}");
        assert!(!bench.is_trusted());
    }
    let (answer, facts) = (Machine::new(SIBLING).answer(&challenge), machine.facts());
    assert_eq!(bench.quote_with(1, answer, facts), ["failure 1", "close 1 Untrusted"], "another TPM");
    let mut bench = Bench::in_phase("challenged");
    let mut answer = machine.answer(&bench.challenges[&1]);
    answer.hpke_public = other_key;
    assert_eq!(bench.quote_with(1, answer, machine.facts()), ["failure 1", "close 1 Untrusted"], "key exchanged");
}

#[test]
fn a_quote_of_another_connection_does_not_pass() {
    let mut bench = Bench::in_phase("challenged");
    bench.hello(2, HOST, hello());
    assert_ne!(bench.challenges[&1].nonce, bench.challenges[&2].nonce);
    let (answer, facts) = (bench.machine.answer(&bench.challenges[&2]), bench.machine.facts());
    assert_eq!(bench.quote_with(1, answer, facts)[0], "failure 1");
}

#[test]
fn an_unusable_session_key_is_no_pass() {
    let mut bench = Bench::in_phase("challenged");
    bench.machine.hpke_public = [0; 32];
    assert_eq!(bench.quote(1), ["close 1 Protocol"], "a point of low order agrees on nothing");
}

#[test]
fn the_session_key_opens_for_the_quoted_key_and_transcript_only() {
    let mut bench = Bench::in_phase("challenged");
    let challenge = bench.challenges[&1].clone();
    let answer = bench.machine.answer(&challenge);
    let (transcript, _) = bench.machine.binding(&challenge).qualifying_data();
    let info = session_info(&transcript, &answer.attest);
    let facts = bench.machine.facts();
    let event = bench.quote_event(1, answer, facts);
    let effects = bench.effects(event);
    let [Effect::RecordPass(pass)] = effects.as_slice() else { panic!("{effects:?}") };
    let first = pass.first.as_ref().unwrap();
    let number = sha256(&[HOST.as_bytes()])[0];
    let key = kem::KemSecret::from_seed(&Secret::fill_with(|bytes| bytes.fill(number)));
    let opened = key.open(&info, b"", &first.message).unwrap();
    assert_eq!(opened.expose(), first.session_key.expose());
    assert!(key.open(&session_info(&transcript, b"other"), b"", &first.message).is_err());
    assert!(!format!("{pass:?}").contains(&format!("{:?}", first.session_key.expose())));
}

#[test]
fn a_nonce_passes_once() {
    let mut bench = Bench::in_phase("challenged");
    let answer = bench.machine.answer(&bench.challenges[&1]);
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, answer.clone(), facts), ["pass 1 first"]);
    bench.recorded(1);
    bench.wait();
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, answer, facts)[0], "failure 1");
}

#[test]
fn untrusted_leads_back_only_over_a_reboot() {
    for (reset, expected) in [(1, "failure 1"), (2, "failure 1"), (3, "pass 1 first")] {
        let mut bench = Bench::in_phase("challenged");
        bench.machine.tpm.counters.reset_count = reset;
        let answer = bench.machine.answer(&bench.challenges[&1]);
        let facts = Facts { untrusted_at_reset: Some(2), ..bench.machine.facts() };
        assert_eq!(bench.quote_with(1, answer, facts)[0], expected, "reset {reset}");
    }
}

#[test]
fn counters_that_go_back_are_a_clone() {
    let last = Counters { reset_count: 5, restart_count: 5, clock: 5_000 };
    let cases = [
        (Counters { reset_count: 4, ..last }, false),
        (Counters { restart_count: 4, ..last }, false),
        (Counters { clock: 4_999, ..last }, false),
        (last, true),
        (Counters { reset_count: 6, restart_count: 0, clock: 0 }, true),
        (Counters { restart_count: 6, clock: 0, ..last }, true),
    ];
    for (counters, passes) in cases {
        let mut bench = Bench::in_phase("challenged");
        bench.machine.tpm.counters = counters;
        let answer = bench.machine.answer(&bench.challenges[&1]);
        let facts = Facts { counters: Some(last), ..bench.machine.facts() };
        let effects = bench.quote_with(1, answer, facts);
        let expected: &[&str] = if passes { &["pass 1 first"] } else { &["failure 1 quarantine", "close 1 Clone"] };
        assert_eq!(effects, expected, "{counters:?}");
    }
}

#[test]
fn a_failure_tells_the_resets_of_a_quote_that_is_bound_and_else_the_last_known() {
    let failure_of = |bound: bool| {
        let mut bench = Bench::in_phase("challenged");
        bench.machine.tpm.counters.reset_count = 9;
        bench.machine.tpm.pcrs.insert(0, [0; 32]);
        let answer = if bound { bench.machine.answer(&bench.challenges[&1]) } else { bench.machine.answer_over(&[]) };
        let counters = Some(Counters { reset_count: 4, restart_count: 0, clock: 0 });
        let quarantine = Policy { quarantine_on_failure: true, ..policy() };
        bench.verifier.connections.get_mut(&1).unwrap().policy = quarantine.clone();
        let facts = Facts { counters, policy: quarantine, ..bench.machine.facts() };
        let event = bench.quote_event(1, answer, facts);
        match bench.effects(event).remove(0) {
            Effect::RecordFailure(failure) => *failure,
            other => panic!("{other:?}"),
        }
    };
    let (bound, unbound) = (failure_of(true), failure_of(false));
    assert_eq!((bound.reset_count, bound.quarantine), (9, true));
    assert_eq!(bound.reasons, ["PCR 0 is zero: boot was not measured"]);
    assert_eq!((unbound.reset_count, unbound.quarantine), (4, true));
}

#[test]
fn a_policy_changed_since_the_question_is_asked_about_anew() {
    let mut bench = Bench::in_phase("challenged");
    let newer = Policy { version: PolicyVersion(2), ..policy() };
    let (answer, facts) = (bench.machine.answer(&bench.challenges[&1]), bench.machine.facts());
    let facts = Facts { policy: newer, ..facts };
    assert_eq!(bench.quote_with(1, answer, facts.clone()), ["challenge 1"]);
    assert_eq!(bench.challenges[&1].policy, PolicyVersion(2));
    let answer = bench.machine.answer(&bench.challenges[&1]);
    assert_eq!(bench.quote_with(1, answer, facts), ["pass 1 first"]);
}

#[test]
fn who_rests_is_asked_under_a_changed_policy_at_once_and_keeps_its_verdict_until_it_answers() {
    let mut bench = Bench::in_phase("resting");
    bench.policy_changed(HOST);
    assert_eq!(bench.tick(), ["challenge 1"]);
    assert_eq!(bench.challenges[&1].policy, PolicyVersion(2));
    assert!(bench.is_trusted());
    let facts = Facts { policy: Policy { version: PolicyVersion(2), ..policy() }, ..bench.machine.facts() };
    let answer = bench.machine.answer(&bench.challenges[&1]);
    assert_eq!(bench.quote_with(1, answer, facts), ["pass 1"]);
}
