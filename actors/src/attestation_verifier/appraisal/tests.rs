//! Tables of what appraisal takes and refuses.

use holdfast_protocol::ids::{DeploymentId, HostGeneration, HostName, SiteName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::binding::QuoteBinding;
use holdfast_protocol::tpm::soft::{SoftTpm, encode_attest};

use super::*;

const NONCE: [u8; 32] = [2; 32];
const PCRS: [u8; 4] = [0, 2, 4, 7];

/// A booted software TPM, the policy of its site and the reference values of its boot.
struct Bench {
    tpm: SoftTpm,
    ak: Public,
    policy: Policy,
    reference: ReferenceValues,
    qualifying_data: [u8; 32],
}

fn tpm(seed: u8) -> SoftTpm {
    let mut tpm = SoftTpm::from_seed(&Secret::fill_with(|b| b.fill(seed)));
    for pcr in [0, 2, 4] {
        tpm.extend(pcr, &[pcr + 1; 32]);
    }
    tpm
}

fn qualifying_data(nonce: &[u8; 32], exporter: &[u8; 32]) -> [u8; 32] {
    let (site, host): (SiteName, HostName) = ("udc1".parse().unwrap(), "udc1-001".parse().unwrap());
    let binding = QuoteBinding {
        deployment: DeploymentId([1; 16]),
        site: &site,
        host: &host,
        host_generation: HostGeneration(1),
        nonce,
        exporter,
        hpke_suite: 1,
        hpke_public: &[4; 32],
        policy_version: PolicyVersion(1),
        ima_offset: 0,
        ima_count: 0,
    };
    binding.qualifying_data().1
}

impl Bench {
    fn new() -> Self {
        let tpm = tpm(1);
        let mut reference = ReferenceValues::default();
        for pcr in PCRS {
            reference.allow(pcr, tpm.pcrs.get(&pcr).copied().unwrap_or_default());
        }
        let policy = Policy {
            version: PolicyVersion(1),
            pcrs: PCRS.into(),
            interval_ms: 2_000,
            verdict_ttl_ms: 10_000,
            quarantine_on_failure: false,
            learn: false,
        };
        Self { ak: tpm.ak_public(), tpm, policy, reference, qualifying_data: qualifying_data(&NONCE, &[3; 32]) }
    }

    fn quote(&self) -> Evidence {
        self.tpm.quote(&self.qualifying_data, &PCRS)
    }

    fn judge_after(&self, evidence: &Evidence, last: Option<&Counters>) -> Verdict {
        let expected = Expected { ak: &self.ak, qualifying_data: self.qualifying_data };
        appraise(evidence, &self.policy, &self.reference, last, &expected)
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        self.judge_after(evidence, None)
    }

    /// The same quote with its signed content changed and signed again by the same key.
    fn resigned(&self, change: impl FnOnce(&mut Attest)) -> Evidence {
        let mut evidence = self.quote();
        let mut attest = Attest::parse(&evidence.attest).unwrap();
        change(&mut attest);
        evidence.attest = encode_attest(&attest);
        evidence.signature = self.tpm.sign(&evidence.attest);
        evidence
    }
}

/// Refused for just this reason; nothing is learned, and the counters are told only where the quote is bound.
fn assert_refused(verdict: &Verdict, reason: Reason, bound: bool) {
    assert_eq!(verdict.reasons, [reason]);
    assert_eq!((verdict.passed, verdict.bound(), &verdict.learned), (false, bound, &None));
}

#[test]
fn a_good_quote_passes() {
    let bench = Bench::new();
    let evidence = bench.quote();
    let verdict = bench.judge_after(&evidence, Some(&bench.tpm.counters));
    assert_eq!(verdict.reasons, []);
    assert!(verdict.passed && verdict.bound() && verdict.safe);
    assert_eq!(verdict.counters, Some(bench.tpm.counters));
    assert_eq!(verdict.quote_digest, sha256(&[&evidence.attest]));
    assert_eq!(verdict.learned, None);
}

#[test]
fn a_quote_for_another_question_or_session_is_not_bound() {
    let bench = Bench::new();
    for other in [qualifying_data(&[9; 32], &[3; 32]), qualifying_data(&NONCE, &[9; 32])] {
        assert_refused(&bench.judge(&bench.tpm.quote(&other, &PCRS)), Reason::QualifyingData, false);
    }
}

#[test]
fn a_quote_over_the_bare_nonce_is_not_bound() {
    // Other verifiers hand the nonce itself to the TPM: such a quote says nothing of our session.
    let bench = Bench::new();
    assert_refused(&bench.judge(&bench.tpm.quote(&NONCE, &PCRS)), Reason::QualifyingData, false);
    assert_refused(&bench.judge(&bench.tpm.quote(&[], &PCRS)), Reason::QualifyingData, false);
}

#[test]
fn another_tpms_quote_is_not_bound() {
    let bench = Bench::new();
    let foreign = tpm(2).quote(&bench.qualifying_data, &PCRS);
    assert_refused(&bench.judge(&foreign), Reason::Signature(TpmError::Signature), false);
}

#[test]
fn a_changed_signature_or_attestation_is_not_bound() {
    let bench = Bench::new();
    let good = bench.quote();
    for at in 0..good.signature.len() {
        let mut changed = good.clone();
        changed.signature[at] ^= 1;
        assert!(matches!(bench.judge(&changed).reasons[..], [Reason::Signature(_)]), "{at}");
    }
    for at in 0..good.attest.len() {
        let mut changed = good.clone();
        changed.attest[at] ^= 1;
        assert_refused(&bench.judge(&changed), Reason::Signature(TpmError::Signature), false);
    }
}

#[test]
fn truncated_or_longer_evidence_is_not_bound() {
    let bench = Bench::new();
    let good = bench.quote();
    for len in 0..good.attest.len() {
        let attest = good.attest[..len].to_vec();
        let cut = Evidence { attest: attest.clone(), ..good.clone() };
        assert_refused(&bench.judge(&cut), Reason::Signature(TpmError::Signature), false);
        // Even signed by the right key it is no quote.
        let signed = Evidence { signature: bench.tpm.sign(&attest), attest, ..good.clone() };
        assert!(matches!(bench.judge(&signed).reasons[..], [Reason::Quote(TpmError::Truncated { .. })]), "{len}");
    }
    for len in 0..good.signature.len() {
        let cut = Evidence { signature: good.signature[..len].to_vec(), ..good.clone() };
        assert!(matches!(bench.judge(&cut).reasons[..], [Reason::Signature(TpmError::Truncated { .. })]), "{len}");
    }
    let attest = [&good.attest[..], &[0]].concat();
    let longer = Evidence { signature: bench.tpm.sign(&attest), attest, ..good.clone() };
    assert_refused(&bench.judge(&longer), Reason::Quote(TpmError::Trailing { bytes: 1 }), false);
    let signature = [&good.signature[..], &[0]].concat();
    let longer = Evidence { signature, ..good };
    assert_refused(&bench.judge(&longer), Reason::Signature(TpmError::Trailing { bytes: 1 }), false);
}

#[test]
fn a_key_that_signs_anything_proves_nothing() {
    let mut bench = Bench::new();
    let mut raw = bench.ak.raw().to_vec();
    raw[5] &= !1; // restricted is bit 16 of the attributes
    bench.ak = Public::parse(&raw).unwrap();
    let reason = Reason::Key(TpmError::Attributes { missing: 1 << 16, forbidden: 0 });
    assert_refused(&bench.judge(&bench.quote()), reason, false);
}

#[test]
fn the_selection_is_exactly_what_was_asked() {
    let bench = Bench::new();
    let select = |bank: u16, pcrs: &[u8]| Selection { bank, pcrs: pcrs.to_vec() };
    let wrong = [
        vec![],
        vec![select(alg::SHA256, &[0, 2, 4])],
        vec![select(alg::SHA256, &[0, 2, 4, 7, 8])],
        vec![select(alg::SHA256, &[0, 2, 4, 8])],
        vec![select(alg::SHA1, &PCRS)],
        vec![select(alg::SHA256, &PCRS), select(alg::SHA1, &[])],
        vec![select(alg::SHA256, &PCRS), select(alg::SHA1, &[0])],
        vec![select(alg::SHA256, &[0, 2]), select(alg::SHA256, &[4, 7])],
    ];
    for quoted in wrong {
        let evidence = bench.resigned(|attest| attest.selections.clone_from(&quoted));
        assert_refused(&bench.judge(&evidence), Reason::Selection { quoted }, true);
    }
}

#[test]
fn the_values_reported_are_those_of_the_selection_in_order() {
    let bench = Bench::new();
    let good = bench.quote();
    let mut swapped = good.clone();
    swapped.pcrs.swap(0, 1);
    let mut fewer = good.clone();
    fewer.pcrs.pop();
    let mut twice = good.clone();
    twice.pcrs.push(good.pcrs[3]);
    for evidence in [swapped, fewer, twice] {
        assert_refused(&bench.judge(&evidence), Reason::Values, true);
    }
}

#[test]
fn the_digest_is_over_the_values_reported() {
    let bench = Bench::new();
    let mut lied = bench.quote();
    lied.pcrs[1].1[0] ^= 1;
    assert_refused(&bench.judge(&lied), Reason::Digest, true);
    for digest in [vec![], vec![0; 32], vec![0; 20]] {
        let evidence = bench.resigned(|attest| attest.pcr_digest = digest);
        assert_refused(&bench.judge(&evidence), Reason::Digest, true);
    }
}

#[test]
fn the_clock_rule_is_reset_then_restart_then_clock() {
    let at = |reset_count, restart_count, clock| Counters { reset_count, restart_count, clock };
    let last = at(5, 3, 1_000);
    let cases = [
        (at(5, 3, 1_000), None),
        (at(5, 3, 1_001), None),
        (at(5, 4, 0), None),
        (at(6, 0, 0), None),
        (at(6, 0, 2_000), None),
        (at(5, 3, 999), Some(Reason::Clock { last: 1_000, now: 999 })),
        (at(5, 2, 9_999), Some(Reason::RestartCount { last: 3, now: 2 })),
        (at(4, 9, 9_999), Some(Reason::ResetCount { last: 5, now: 4 })),
    ];
    let mut bench = Bench::new();
    for (now, refused) in cases {
        bench.tpm.counters = now;
        let verdict = bench.judge_after(&bench.quote(), Some(&last));
        assert_eq!(verdict.counters, Some(now));
        assert_eq!((verdict.passed, verdict.reasons), (refused.is_none(), refused.into_iter().collect()), "{now:?}");
        assert!(bench.judge(&bench.quote()).passed, "a first quote has nothing to be compared with");
    }
}

#[test]
fn an_unsafe_clock_is_recorded_and_passes() {
    let mut bench = Bench::new();
    bench.tpm.safe = false;
    let verdict = bench.judge_after(&bench.quote(), Some(&bench.tpm.counters));
    assert!(verdict.passed && !verdict.safe);
}

#[test]
fn boot_that_was_not_measured_is_refused_even_where_zero_is_a_reference_value() {
    for pcr in [0, 4] {
        let mut bench = Bench::new();
        bench.tpm.pcrs.remove(&pcr);
        bench.reference.allow(pcr, [0; 32]);
        assert_refused(&bench.judge(&bench.quote()), Reason::Zero { pcr }, true);
        bench.policy.learn = true;
        bench.reference = ReferenceValues::default();
        assert_refused(&bench.judge(&bench.quote()), Reason::Zero { pcr }, true);
    }
}

#[test]
fn a_value_that_is_no_reference_value_is_refused_and_each_is_told() {
    let mut bench = Bench::new();
    bench.tpm.extend(2, &[9; 32]);
    bench.tpm.extend(7, &[9; 32]);
    let changed = |pcr: u8| Reason::NotAllowed { pcr, value: bench.tpm.pcrs[&pcr] };
    let verdict = bench.judge(&bench.quote());
    assert_eq!(verdict.reasons, [changed(2), changed(7)]);
    assert!(verdict.bound() && !verdict.passed);
}

#[test]
fn old_and_new_values_may_be_allowed_together() {
    let mut bench = Bench::new();
    let old = bench.quote();
    bench.tpm.extend(7, &[9; 32]);
    bench.reference.allow(7, bench.tpm.pcrs[&7]);
    assert!(bench.judge(&old).passed);
    assert!(bench.judge(&bench.quote()).passed);
    bench.tpm.extend(7, &[9; 32]);
    assert!(!bench.judge(&bench.quote()).passed);
}

#[test]
fn values_are_learned_once_at_a_pass_and_hold_from_then_on() {
    let mut bench = Bench::new();
    let known = bench.reference.clone();
    bench.policy.learn = true;
    bench.reference = ReferenceValues::default();
    let learned = bench.judge(&bench.quote()).learned.expect("the first pass teaches");
    assert_eq!(learned, known);
    bench.reference = learned;
    let verdict = bench.judge(&bench.quote());
    assert_eq!((verdict.passed, verdict.learned), (true, None));
    bench.tpm.extend(7, &[9; 32]);
    assert_refused(&bench.judge(&bench.quote()), Reason::NotAllowed { pcr: 7, value: bench.tpm.pcrs[&7] }, true);
}

#[test]
fn given_values_are_kept_while_the_rest_is_learned() {
    let mut bench = Bench::new();
    bench.policy.learn = true;
    let known = bench.reference.clone();
    bench.reference.0.retain(|pcr, _| *pcr == 7);
    bench.reference.0.insert(2, BTreeSet::new());
    let mut rest = known;
    rest.0.remove(&7);
    assert_eq!(bench.judge(&bench.quote()).learned, Some(rest), "what was given is not learned");
    bench.reference.0.insert(7, [[8; 32]].into());
    let verdict = bench.judge(&bench.quote());
    assert_eq!((verdict.passed, verdict.learned), (false, None));
}

#[test]
fn a_pcr_without_reference_values_is_refused_where_none_are_learned() {
    let mut bench = Bench::new();
    bench.reference.0.insert(7, BTreeSet::new());
    assert_refused(&bench.judge(&bench.quote()), Reason::Unknown { pcr: 7 }, true);
}

#[test]
fn a_policy_must_ask_for_something_that_exists_in_time() {
    let good = Bench::new().policy;
    assert_eq!(good.check(), Ok(()));
    let none = Policy { pcrs: BTreeSet::new(), ..good.clone() };
    assert_eq!(none.check(), Err(PolicyError::NoPcr));
    let beyond = Policy { pcrs: [0, 24].into(), ..good.clone() };
    assert_eq!(beyond.check(), Err(PolicyError::UnknownPcr(24)));
    let lapsing = Policy { verdict_ttl_ms: 2_000, ..good.clone() };
    assert_eq!(lapsing.check(), Err(PolicyError::Interval));
    let busy = Policy { interval_ms: 0, ..good };
    assert_eq!(busy.check(), Err(PolicyError::Interval));
}

#[test]
fn hosts_spread_over_the_last_tenth_of_the_interval() {
    let policy = Policy { interval_ms: 10_000, ..Bench::new().policy };
    let all: Vec<u128> = (0..100).map(|conn| policy.jittered_interval(conn).as_millis()).collect();
    assert!(all.iter().all(|ms| (9_000..=10_000).contains(ms)), "{all:?}");
    assert!(all.iter().any(|ms| *ms < 9_300) && all.iter().any(|ms| *ms > 9_700), "{all:?}");
    let longest = Policy { interval_ms: u64::MAX, ..policy };
    assert!(longest.jittered_interval(1) <= Duration::from_millis(u64::MAX));
}

#[test]
fn reasons_are_told_in_plain_words() {
    let reason = Reason::NotAllowed { pcr: 7, value: [0xab; 32] }.to_string();
    assert_eq!(reason, format!("PCR 7 is not one of the reference values: {}", "ab".repeat(32)));
    let quoted = vec![Selection { bank: alg::SHA1, pcrs: vec![0, 1] }];
    let reason = Reason::Selection { quoted }.to_string();
    assert_eq!(reason, "the quote is not about the PCRs that were asked for, but about bank 0x0004 [0, 1]");
    let reason = Reason::ResetCount { last: 5, now: 4 }.to_string();
    assert_eq!(reason, "the TPM's reset count went back from 5 to 4");
}
