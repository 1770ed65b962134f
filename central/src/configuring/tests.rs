//! What there was no room for is done once there is.

use std::sync::Arc;

use holdfast_actors::access_control::identities::judge;
use holdfast_actors::access_control::tokens::SYSTEM;
use holdfast_actors::audit_log::journal::{Journal, Limits};
use holdfast_actors::barrier::Barrier;
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::shell::os::{OsClock, OsEntropy};
use holdfast_actors::site_registry::initialise::{Fresh, initialise};
use holdfast_actors::store::memory::{Injected, MemoryEngine};
use holdfast_protocol::ids::DeploymentId;
use holdfast_protocol::kes::Identity;
use holdfast_rest::health::{NodeState, SealState};
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::node::{Gate, on_threads};
use crate::quic::network::OsNetwork;

const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const CLIENT: Identity = Identity([9; 32]);

/// An unsealed central, above a store whose disk may be full.
async fn world(folder: &TempDir) -> (Arc<MemoryEngine>, Node) {
    let (engine, entropy) = (Arc::new(MemoryEngine::new()), Arc::new(OsEntropy));
    let journal = Arc::new(Journal::open(folder.path(), Limits::default(), entropy.clone()).unwrap());
    let barrier = Barrier::new(engine.clone(), entropy.clone(), journal.clone());
    let ring = Keyring::new(DEPLOYMENT, draw_secret(&*entropy));
    let keys = barrier.first_realm(&ring, RealmKeys::new(draw_secret(&*entropy), draw_secret(&*entropy)));
    barrier.begin(keys, Vec::new()).await.unwrap();
    barrier.unseal(ring);
    let (clock, gate) = (Arc::new(OsClock::start()), Arc::<Gate>::default());
    gate.set(SealState::Unsealed);
    let node = Node {
        config: Arc::new(Config::parse("data_dir = \"d\"").unwrap()),
        barrier,
        journal,
        clock,
        entropy,
        network: Arc::new(OsNetwork),
        blocking: on_threads,
        metrics: Arc::default(),
        gate,
    };
    let (fresh, now) = (Fresh::draw(DEPLOYMENT, &*node.entropy), node.now());
    node.barrier.run(move |rows| initialise(&fresh, rows, now)).await.unwrap();
    (engine, node)
}

/// The same node, told something else.
fn told(node: &Node, kes: &str) -> Node {
    Node { config: Arc::new(Config::parse(&format!("data_dir = \"d\"\n{kes}")).unwrap()), ..node.clone() }
}

fn may(node: &Node) -> bool {
    judge(&node.barrier.snapshot().unwrap(), SYSTEM, CLIENT, "/v1/key/create/a").is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_right_that_could_not_be_withdrawn_for_want_of_room_is_withdrawn_once_there_is_room() {
    let folder = TempDir::new().unwrap();
    let (engine, node) = world(&folder).await;
    let policy = format!("[kes.policy.app]\nallow = [\"/v1/key/create/*\"]\nidentities = [\"{CLIENT}\"]\n");
    configure(&told(&node, &policy)).await.unwrap();
    assert_eq!((may(&node), node.gate.reason()), (true, None));

    engine.inject(Box::new(|_| Injected::Refuse(Fault::Full)));
    let full = configure(&node).await;
    assert!(matches!(full, Err(Refusal::Fault(Fault::Full))), "{full:?}");
    assert!(node.gate.reason().is_some(), "whoever looks after it can see that");
    let keeping = tokio::spawn(keep_configuring(node.clone()));
    tokio::time::sleep(3 * RETRY_AFTER).await;
    assert!(may(&node), "nothing can be written");
    engine.inject(Box::new(|_| Injected::Pass));
    tokio::time::sleep(2 * RETRY_AFTER).await;
    assert_eq!((may(&node), node.gate.reason()), (false, None));
    keeping.abort();
}
