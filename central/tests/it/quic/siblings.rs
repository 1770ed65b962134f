//! Hosts of one site: what one of them does to the others.

use holdfast_protocol::ids::{HostId, SealEpoch};
use holdfast_protocol::session::open_message;
use holdfast_protocol::wire::{FromCentral, FromHost, Sealed};
use serde_json::json;

use crate::client::{As, try_call};
use crate::quic::{Central, Host, Session, first_of, hear, say};

/// Waits for the next seal key; gives its epoch.
async fn next_epoch(session: &mut Session, id: &HostId, counter: &mut u64) -> SealEpoch {
    loop {
        if let FromCentral::Sealed { counter: sent, envelope } = hear(&mut session.from).await {
            let key = session.key.as_ref().unwrap();
            let message = open_message(key, id, *counter, sent, &envelope).unwrap();
            *counter += 1;
            if let Sealed::Rewrap(current) = message {
                return current.epoch;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_fails_again_and_again_makes_its_sibling_speak_once() {
    let central = Central::unsealed().await;
    let ids = [first_of("udc1"), HostId { host: "udc1-002".parse().unwrap(), ..first_of("udc1") }];
    let site = json!({ "name": "udc1", "ek-trust": "token", "learn-reference-values": true,
                       "hosts": [{ "name": ids[0].host }, { "name": ids[1].host }] });
    central.ask("POST", "/v1/config/system/sites", Some(site)).await;
    let bundle = central.ask("POST", "/v1/state/system/sites/udc1/site-bundle", None).await;
    let bundle = serde_json::from_value(bundle).unwrap();
    let good = Host::join_site(&central, ids[0].clone(), &bundle, 1).await;
    let failing = Host::join_site(&central, ids[1].clone(), &bundle, 21).await;
    let mut session = good.begin(&central).await;
    good.pass(&mut session).await;
    let mut counter = 1;

    for _ in 0..3 {
        let mut session = failing.begin(&central).await;
        failing.quote_as(&mut session, &ids[1], Some(&[0; 32])).await;
        session.connection.closed().await;
    }
    assert_eq!(next_epoch(&mut session, &ids[0], &mut counter).await, SealEpoch(2));
    // What comes next is of the operator's decision.
    let (path, body) = ("/v1/state/system/sites/udc1/quarantine-site-host", json!({ "host": ids[1].host }));
    let who = As { token: Some(&central.root), operator: None };
    let (answer, epoch) = tokio::join!(try_call(central.rest, who, ("POST", path), Some(body)), async {
        let epoch = next_epoch(&mut session, &ids[0], &mut counter).await;
        say(&mut session.to, &FromHost::SealConfirmed(epoch)).await;
        epoch
    });
    assert_eq!(answer.unwrap().status, 204);
    assert_eq!(epoch, SealEpoch(3), "a failure that changes nothing makes the sibling say something");
    central.stop().await;
}
