//! Sealing and opening an envelope, against AES-256-GCM with a key that was set up before.

use std::hint::black_box;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{Criterion, criterion_group, criterion_main};
use holdfast_protocol::envelope;
use holdfast_protocol::secret::Secret;

const SIZES: [(usize, &str); 3] = [(64, "64 B"), (1 << 10, "1 KiB"), (64 << 10, "64 KiB")];
/// As long as a record's associated data.
const AAD: [u8; 100] = [7; 100];

fn raw_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("32 bytes make a key"))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([9; 12])
}

fn raw_seal(key: &LessSafeKey, plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(plaintext.len() + 16);
    buffer.extend_from_slice(plaintext);
    key.seal_in_place_append_tag(nonce(), Aad::from(&AAD), &mut buffer).expect("far below the limit");
    buffer
}

fn envelopes(c: &mut Criterion) {
    let key = Secret::<32>::fill_with(|bytes| bytes.fill(1));
    let raw_key = raw_key();
    for (size, name) in SIZES {
        let plaintext = vec![3; size];
        let mut group = c.benchmark_group(format!("seal {name}"));
        group.bench_function("raw AES-256-GCM", |b| b.iter(|| raw_seal(&raw_key, black_box(&plaintext))));
        group.bench_function("envelope", |b| b.iter(|| envelope::seal(&key, 1, [9; 24], &AAD, black_box(&plaintext))));
        group.finish();

        let (raw, sealed) = (raw_seal(&raw_key, &plaintext), envelope::seal(&key, 1, [9; 24], &AAD, &plaintext));
        let mut group = c.benchmark_group(format!("open {name}"));
        group.bench_function("raw AES-256-GCM", |b| {
            b.iter(|| {
                let mut buffer = black_box(&raw).clone();
                raw_key.open_in_place(nonce(), Aad::from(&AAD), &mut buffer).expect("it was sealed so");
                buffer
            });
        });
        group.bench_function("envelope", |b| {
            b.iter(|| envelope::open(|_| Some(&key), &AAD, black_box(&sealed)).expect("it was sealed so"));
        });
        group.finish();
    }
}

criterion_group!(benches, envelopes);
criterion_main!(benches);
