//! The appraisal of a quote, against verifying its signature alone.

use std::hint::black_box;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use criterion::{Criterion, criterion_group, criterion_main};
use holdfast_actors::attestation_verifier::appraisal::{Expected, Policy, ReferenceValues, appraise};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::PolicyVersion;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::tpm::soft::SoftTpm;

const PCRS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

fn appraisals(c: &mut Criterion) {
    let mut tpm = SoftTpm::from_seed(&Secret::fill_with(|bytes| bytes.fill(1)));
    let mut reference = ReferenceValues::default();
    for pcr in PCRS {
        tpm.extend(pcr, &[pcr + 1; 32]);
        reference.allow(pcr, tpm.pcrs[&pcr]);
    }
    let policy = Policy {
        version: PolicyVersion(1),
        pcrs: PCRS.into(),
        interval_ms: 2_000,
        verdict_ttl_ms: 10_000,
        quarantine_on_failure: false,
        learn: false,
    };
    let (ak, qualifying_data) = (tpm.ak_public(), [7; 32]);
    let expected = Expected { ak: &ak, qualifying_data };
    let evidence = tpm.quote(&qualifying_data, &PCRS);
    let last = Counters { clock: 0, ..tpm.counters };

    let key = SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(2)));
    let signature = key.sign(&evidence.attest);
    let raw = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public().0);

    let mut group = c.benchmark_group("appraisal");
    group.bench_function("raw ECDSA P-256 verify", |b| {
        b.iter(|| raw.verify(black_box(&evidence.attest), &signature).expect("it was signed so"));
    });
    group.bench_function("quote", |b| {
        b.iter(|| {
            let verdict = appraise(black_box(&evidence), &policy, &reference, Some(&last), &expected);
            assert!(verdict.passed);
        });
    });
    group.finish();
}

criterion_group!(benches, appraisals);
criterion_main!(benches);
