//! Dumps that strangers ask for.

use std::sync::atomic::Ordering;

use holdfast_protocol::debug::DebugKey;
use holdfast_protocol::secret::Secret;

use super::*;
use crate::local::tests::Bench;

fn key(bench: &Bench) -> DebugKey {
    let host = bench.local.id();
    DebugKey::derive(&Secret::fill_with(|into| into.fill(1)), bench.local.file.get().deployment, &host, "agent")
}

#[tokio::test]
async fn a_hundred_who_ask_at_once_are_given_one_dump_and_the_tpm_is_asked_for_none() {
    let bench = Bench::new().await;
    bench.permit(key(&bench).public()).await;
    let config = Config::parse("data_dir = \"d\"").unwrap();
    let jobs = bench.chip.jobs.load(Ordering::SeqCst);
    let first = bench.local.debug_dump(&config, &[]).await.unwrap();
    for _ in 1..100 {
        assert_eq!(bench.local.debug_dump(&config, &[]).await.unwrap(), first);
    }
    assert_eq!(bench.chip.jobs.load(Ordering::SeqCst), jobs);
    let said: Value = serde_json::from_slice(first.open(&key(&bench)).unwrap().expose()).unwrap();
    assert_eq!((&said["sealed"], &said["tpm"]["resets"]), (&json!(false), &json!(1)), "as at unsealing");
    assert_eq!(said["tpm"]["read-at"], json!({ "seconds-since-boot": 60 }), "{said}");

    bench.later(MADE_EVERY);
    let second = bench.local.debug_dump(&config, &[]).await.unwrap();
    assert_ne!(second, first);
    let said: Value = serde_json::from_slice(second.open(&key(&bench)).unwrap().expose()).unwrap();
    assert_eq!(said["seconds-since-boot"], 70, "{said}");

    // Sealed since its start it has the counters that central saw.
    let bench = bench.restarted();
    let dump = bench.local.debug_dump(&config, &[]).await.unwrap();
    let said: Value = serde_json::from_slice(dump.open(&key(&bench)).unwrap().expose()).unwrap();
    assert_eq!((&said["sealed"], &said["tpm"]["resets"]), (&json!(true), &json!(7)), "{said}");
    assert_eq!(bench.chip.jobs.load(Ordering::SeqCst), jobs);
}
