//! Many who want the same at once, over a real barrier.

use std::sync::mpsc;
use std::sync::{Arc, Barrier as Gathering};

use holdfast_protocol::ids::DeploymentId;

use super::*;
use crate::barrier::{Barrier, NoReads};
use crate::keyring::{Keyring, RealmKeys};
use crate::ports::Entropy;
use crate::store::memory::MemoryEngine;

struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, into: &mut [u8]) {
        into.fill(7);
    }
}

pub(super) fn store() -> (Barrier, Arc<MemoryEngine>) {
    let engine = Arc::new(MemoryEngine::new());
    let barrier = Barrier::new(engine.clone(), Arc::new(Fixed), Arc::new(NoReads));
    let ring = Keyring::new(DeploymentId([7; 16]), secret(1));
    let keys = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
    barrier.submit_begin(keys, Vec::new(), |outcome| outcome.unwrap());
    barrier.unseal(ring);
    decide(&barrier, |_| {
        let mut batch = Batch::housekeeping();
        batch.create_realm(TENANT, secret(4), secret(5));
        Ok((batch, ()))
    })
    .unwrap();
    (barrier, engine)
}

pub(super) fn decide<T: Send + 'static>(
    barrier: &Barrier,
    decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let (tell, told) = mpsc::channel();
    barrier.submit(decide, move |outcome| tell.send(outcome).unwrap());
    told.recv().unwrap().map(|(reply, _)| reply)
}

#[test]
fn of_many_who_make_a_key_at_once_exactly_one_has_made_it() {
    let (barrier, _) = store();
    let gathering = Arc::new(Gathering::new(64));
    let creators: Vec<_> = (0..64u8)
        .map(|fill| {
            let (barrier, gathering) = (barrier.clone(), gathering.clone());
            std::thread::spawn(move || {
                let cmd = CreateKey {
                    by: NODE,
                    name: name("k"),
                    cipher: Cipher::Aes256Gcm,
                    fresh: fresh(fill),
                    distribute: Distribute::default(),
                };
                gathering.wait();
                decide(&barrier, move |rows| create_key(&cmd, rows, at(1))).map(|()| fill)
            })
        })
        .collect();
    let outcomes: Vec<_> = creators.into_iter().map(|creator| creator.join().unwrap()).collect();
    let made: Vec<u8> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok().copied()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let lost = outcomes.iter().filter(|outcome| matches!(outcome, Err(Refusal::Exists("key"))));
    assert_eq!(lost.count(), 63);
    let found = lookup(&barrier.snapshot().unwrap(), TENANT, &Gate::CENTRAL, &name("k")).unwrap();
    assert_eq!(found.newest().unwrap().material.key.expose(), &[made[0]; 32]);
}
