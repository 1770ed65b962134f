//! Who is refused, and how: strangers, certificates of other sites, the quarantined.

use std::sync::{Arc, Mutex};

use holdfast_actors::site_registry::authority;
use holdfast_actors::site_registry::standing::Decision;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{CertificateNumber, HostGeneration, HostId};
use holdfast_protocol::pki::issue::{Issuer, Terms, Validity, operator_client};
use holdfast_protocol::pki::{Authority, Leaf, Serial};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::site_bundle::JoinToken;
use holdfast_site_agent::quic::{Central, ClientIdentity, Lost};
use holdfast_site_agent::state::StateFile;
use holdfast_site_agent::time::AgentClock;

use crate::agent::Agent;
use crate::dice::EPOCH_US;
use crate::for_seeds;
use crate::world::{World, ms, secs};

type Outcome = Arc<Mutex<Option<Lost>>>;

fn key() -> SigningKey {
    SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(77)))
}

fn terms() -> Terms {
    Terms { serial: Serial([9; 16]), validity: Validity::of_leaf(EPOCH_US / 1_000_000) }
}

/// A machine that dials for a session with this chain, and how central ends that.
fn visitor(world: &mut World, known: &Arc<Agent>, chain: Vec<Vec<u8>>) -> Outcome {
    let outcome = Outcome::default();
    let (slot, known) = (outcome.clone(), known.clone());
    world.sim.host("visitor", move || {
        let (slot, known, chain) = (slot.clone(), known.clone(), chain.clone());
        async move {
            let (state, ports) = (StateFile::open(&known.folder)?.unwrap().get(), known.ports());
            let central = Central {
                addresses: state.central.clone(),
                deployment: state.deployment,
                root: state.root.clone(),
                network: ports.network.clone(),
            };
            let clock = Arc::new(AgentClock::new(Box::new(ports.clock.clone()), None));
            let ended = match central.dial_sync(ClientIdentity { chain: &chain, key: &key() }, &clock).await {
                // A client of TLS 1.3 learns only after its own handshake what the server thinks of its certificate.
                Ok(link) => holdfast_site_agent::quic::lost(link.connection.closed().await),
                Err(lost) => lost,
            };
            *slot.lock().unwrap() = Some(ended);
            Ok(())
        }
    });
    outcome
}

fn refused_at_the_handshake(world: &mut World, outcome: &Outcome) {
    world.until(secs(3), "the visitor is refused", |_| outcome.lock().unwrap().is_some());
    let ended = outcome.lock().unwrap().clone().unwrap();
    // Of TLS: the certificate. What central closes by itself has a code of ours.
    match &ended {
        Lost::Superseded => {}
        Lost::Network(text) => assert!(text.contains("cryptographic handshake failed"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.trace.count("connected to central"), 1, "nobody else was welcomed");
}

#[test]
fn a_strangers_certificate_is_refused_at_the_handshake() {
    for_seeds("stranger", 1..=3, |seed| {
        let mut world = World::new(seed, ms(40));
        let hosts = world.site("udc1", 1);
        world.settle(secs(5));
        let chain = vec![operator_client(&key(), "stranger", &terms()).unwrap()];
        let outcome = visitor(&mut world, &hosts[0], chain);
        refused_at_the_handshake(&mut world, &outcome);
        assert!(world.in_sync(&hosts[0]));
    });
}

#[test]
fn what_one_sites_authority_issues_for_another_sites_host_is_refused_at_the_handshake() {
    for_seeds("certificate of another site", 1..=3, |seed| {
        let mut world = World::new(seed, ms(40));
        let hosts = world.site("udc1", 1);
        world.settle(secs(5));
        world.site_as("udc2", 1, crate::world::quick(), |agent| agent, |_| "elsewhere".to_owned());
        let (deployment, issuer) = world.ask(|central| async move {
            let snapshot = central.node.barrier.snapshot().unwrap();
            let deployment = holdfast_actors::site_registry::deployment(&snapshot).unwrap().id;
            (deployment, authority(&snapshot, &["site", "udc1", "dist"]).unwrap())
        });
        // Whoever has the key of udc1's authority claims to be udc2's.
        let stolen = SigningKey::from_seed(&issuer.seed);
        let issuing = Issuer::new(deployment, Authority::SiteDist("udc2".parse().unwrap()), &stolen);
        let host = HostId { site: "udc2".parse().unwrap(), host: "udc2-001".parse().unwrap() };
        let leaf = Leaf::HostQuic { host, generation: HostGeneration(1), number: CertificateNumber(1) };
        let leaf = issuing.certify(&leaf, key().public(), &terms()).unwrap();
        world.part("elsewhere");
        let outcome = visitor(&mut world, &hosts[0], vec![leaf, issuer.certificate]);
        refused_at_the_handshake(&mut world, &outcome);
    });
}

#[test]
fn a_token_that_central_never_gave_joins_nobody() {
    for_seeds("wrong token", 1..=3, |seed| {
        let mut world = World::new(seed, ms(40));
        let forged = |mut agent: Agent| {
            let text = serde_json::to_vec(&*agent.bundle).unwrap();
            let mut bundle: holdfast_protocol::site_bundle::SiteBundle = serde_json::from_slice(&text).unwrap();
            bundle.hosts[0].token = JoinToken(Secret::fill_with(|bytes| bytes.fill(1)));
            agent.bundle = Arc::new(bundle);
            agent
        };
        let hosts = world.site_as("udc1", 1, crate::world::quick(), forged, str::to_owned);
        world.until(secs(10), "it is refused, and refused again", |_| 2 < hosts[0].refused().len());
        assert!(!hosts[0].has_joined());
        let state = world.ask(|central| async move {
            let snapshot = central.node.barrier.snapshot().unwrap();
            holdfast_actors::site_registry::hosts(&snapshot, &"udc1".parse().unwrap()).unwrap()
        });
        assert!(state.values().all(|host| host.identity.is_none()), "nothing was written");
    });
}

#[test]
fn a_host_quarantined_while_away_is_refused_at_the_handshake_and_fetches_its_notice() {
    for_seeds("quarantined while away", 1..=4, |seed| {
        let mut world = World::new(seed, ms(60));
        let hosts = world.site("udc1", 2);
        world.settle(secs(5));
        let (away, id) = (hosts[0].clone(), hosts[0].id.clone());
        away.crash();
        world.sim.crash(&*away.machine);
        world.run(secs(1));
        world.ask(move |central| async move { central.decide(&id, Decision::Quarantine { wipe: false }).await });
        world.sim.bounce(&*away.machine);
        world.until(secs(5), "it has its notice", |_| away.seen().notice);
        assert!(away.seen().sealed);
        assert_eq!(world.trace.count("refused this host's certificate as revoked"), 1, "that is how it heard of it");
        assert_eq!(world.trace.count("connected to central"), 2, "it was never welcomed again");
        let id = away.id.clone();
        world.ask(move |central| async move { central.decide(&id, Decision::Readmit).await });
        world.until(secs(90), "taken back, it enrols again and comes in sync", |world| world.in_sync(&away));
        world.settle(secs(5));
    });
}
