//! Making sites, handing out bundles, and what is shown of them.

use holdfast_protocol::ids::{Revision, Seq, Term};
use holdfast_protocol::wire::Position;
use serde_json::json;

use super::state::{Live, site_state, site_states};
use super::*;
use crate::distribution::{Cut, Cuts};
use crate::site_registry::Identity;
use crate::site_registry::fixtures::{NOW, Store, after, certified, id, new_site, secret};
use crate::site_registry::standing::Decision;

fn store() -> Store {
    let store = Store::initialised();
    let cmd = new_site("udc1", EkTrust::Token, &[("udc1-001", None), ("udc1-002", Some([0xab; 32]))]);
    store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    store
}

/// As if the host had joined.
fn join(store: &Store, whom: &str) {
    let whom = id(whom);
    let change = move |rows: &dyn Rows| {
        let row = crate::site_registry::host(rows, &whom)?.value;
        let identity = Identity { ek_public: vec![1], ak_public: vec![2], dist: certified(1, 0), api: certified(1, 1) };
        let row = Host { state: HostState::Joined, identity: Some(identity), ..row };
        let mut batch = Batch::housekeeping();
        batch.put(Realm::NODE, &[whom.site.as_str(), whom.host.as_str()], &row);
        Ok((batch, ()))
    };
    store.run(change).unwrap();
}

fn names(bundle: &SiteBundle) -> Vec<&str> {
    bundle.hosts.iter().map(|host| host.name.as_str()).collect()
}

fn conflict<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> String {
    match outcome {
        Err(Refusal::Conflict(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn invalid<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> String {
    match outcome {
        Err(Refusal::Invalid(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_site_is_made_once_with_its_hosts_and_authorities() {
    let store = store();
    let udc1: SiteName = "udc1".parse().unwrap();
    assert_eq!(hosts(&store.rows(), &udc1).unwrap().len(), 2);
    assert_eq!(site_names(&store.rows()).unwrap(), std::slice::from_ref(&udc1));
    let root = root_certificate(&store.rows()).unwrap();
    for authority in [Authority::SiteApi(udc1.clone()), Authority::SiteDist(udc1.clone())] {
        let certificate = Loaded::read(&store.rows(), authority).unwrap().certificate;
        assert_eq!(holdfast_protocol::pki::read::issued_by(&certificate, &root), Ok(()));
    }
    let again = new_site("udc1", EkTrust::Token, &[]);
    let refused = store.run(move |rows| create_site(&again, rows, NOW));
    assert!(matches!(refused, Err(Refusal::Exists("site"))));
    assert_eq!(host_of_agent(&store.rows(), "agent of udc1-002").unwrap(), id("udc1/udc1-002"));
    assert!(matches!(host_of_agent(&store.rows(), "nobody"), Err(Refusal::NotFound("agent"))));
}

#[test]
fn hosts_that_can_t_be_are_refused() {
    let store = store();
    let refused = |cmd: CreateSite| invalid(store.run(move |rows| create_site(&cmd, rows, NOW)));
    assert!(refused(new_site("udc2", EkTrust::Pinned, &[("a", Some([1; 32])), ("b", None)])).contains("b needs"));
    assert!(refused(new_site("udc2", EkTrust::Token, &[("a", None), ("a", None)])).contains("twice"));
    let mut many = new_site("udc2", EkTrust::Token, &[("a", None)]);
    many.hosts = (0..=HOSTS_PER_SITE_MAX)
        .map(|i| NewHost { name: format!("h{i}").parse().unwrap(), ek_sha256: None, agent_id: String::new() })
        .collect();
    assert!(refused(many).contains("at most"));
    let mut hasty = new_site("udc2", EkTrust::Token, &[]);
    hasty.appraisal.interval_ms = Some(1);
    assert!(refused(hasty).contains("interval"));
    let mut blind = new_site("udc2", EkTrust::Token, &[]);
    blind.appraisal.pcrs = Some(BTreeSet::new());
    assert!(refused(blind).contains("PCR"));
}

#[test]
fn the_largest_site_fits_into_one_transaction() {
    let store = Store::initialised();
    let mut cmd = new_site("udc1", EkTrust::Token, &[]);
    cmd.hosts = (0..HOSTS_PER_SITE_MAX)
        .map(|i| NewHost { name: format!("udc1-{i:03}").parse().unwrap(), ek_sha256: None, agent_id: String::new() })
        .collect();
    store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
    assert_eq!(store.invite("udc1", 1, NOW).unwrap().hosts.len(), HOSTS_PER_SITE_MAX);
    store.reallow("udc1", None).unwrap();
}

#[test]
fn hosts_are_added_beside_those_there_are() {
    let store = store();
    let add = |name: &str| {
        let host = NewHost { name: name.parse().unwrap(), ek_sha256: None, agent_id: "x".to_owned() };
        let cmd =
            AddHosts { site: "udc1".parse().unwrap(), hosts: vec![host], seed: secret(62), by: "alice".to_owned() };
        store.run(move |rows| add_hosts(&cmd, rows, NOW))
    };
    add("udc1-003").unwrap();
    assert!(matches!(add("udc1-001"), Err(Refusal::Exists("host"))));
    assert_eq!(hosts(&store.rows(), &"udc1".parse().unwrap()).unwrap().len(), 3);
}

#[test]
fn a_verdict_lasts_two_and_a_half_intervals_and_ten_seconds_at_least() {
    let of = |interval_ms| Appraisal { interval_ms, ..Appraisal::default() }.policy(PolicyVersion(1)).unwrap();
    assert_eq!((of(None).interval_ms, of(None).verdict_ttl_ms), (60_000, 150_000));
    assert_eq!(of(Some(2_000)).verdict_ttl_ms, 10_000);
    assert_eq!(of(None).pcrs, (0..=7).collect());
}

#[test]
fn the_bundle_is_given_once_until_one_more_is_permitted() {
    let store = store();
    let first = store.invite("udc1", 1, NOW).unwrap();
    assert_eq!(names(&first), ["udc1-001", "udc1-002"]);
    assert_eq!(first.hosts[1].ek_sha256, Some("ab".repeat(32)));
    assert_eq!(first.hosts[0].expires, "2027-01-22T08:00:00Z");
    assert!(first.root_ca.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!first.hosts[0].token.0.ct_eq(&first.hosts[1].token.0));
    assert!(conflict(store.invite("udc1", 2, NOW)).contains("reallow"));

    store.reallow("udc1", Some("udc1-002")).unwrap();
    let second = store.invite("udc1", 2, NOW).unwrap();
    assert_eq!(names(&second), ["udc1-002"]);
    assert!(!second.hosts[0].token.0.ct_eq(&first.hosts[1].token.0));
    store.reallow("udc1", None).unwrap();
    assert_eq!(names(&store.invite("udc1", 3, NOW).unwrap()), ["udc1-001", "udc1-002"]);
}

#[test]
fn expired_tokens_are_replaced_without_permission() {
    let store = store();
    store.invite("udc1", 1, NOW).unwrap();
    let later = after(u32::try_from(TOKEN_VALID_S).unwrap());
    assert_eq!(names(&store.invite("udc1", 2, later).unwrap()), ["udc1-001", "udc1-002"]);
}

#[test]
fn who_has_joined_or_is_cut_off_is_not_invited() {
    let store = store();
    join(&store, "udc1/udc1-001");
    assert_eq!(names(&store.invite("udc1", 1, NOW).unwrap()), ["udc1-002"]);
    assert!(conflict(store.reallow("udc1", Some("udc1-001"))).contains("left to join"));
    assert!(matches!(store.reallow("udc1", Some("udc1-009")), Err(Refusal::NotFound("host"))));
    assert!(matches!(store.reallow("udc9", None), Err(Refusal::NotFound("site"))));
    store.reallow("udc1", None).unwrap();
    store.decide("udc1", Decision::Quarantine { wipe: false });
    assert!(conflict(store.invite("udc1", 2, NOW)).contains("quarantined"));
    store.decide("udc1", Decision::Readmit);
    join(&store, "udc1/udc1-002");
    assert!(conflict(store.invite("udc1", 2, NOW)).contains("left to join"));
    assert!(conflict(store.reallow("udc1", None)).contains("left to join"));
}

#[test]
fn tokens_are_stored_as_hashes_only() {
    let store = store();
    let bundle = store.invite("udc1", 1, NOW).unwrap();
    let row = crate::site_registry::host(&store.rows(), &id("udc1/udc1-001")).unwrap().value;
    let invitation = row.invitation.unwrap();
    assert_eq!(invitation.token_hash, token_hash(bundle.hosts[0].token.0.expose()));
    assert_ne!(&invitation.token_hash, bundle.hosts[0].token.0.expose());
    assert!(format!("{bundle:?}").contains("[redacted]"));
}

#[test]
fn every_change_has_its_line() {
    let store = store();
    store.invite("udc1", 1, NOW).unwrap();
    store.reallow("udc1", None).unwrap();
    assert_eq!(store.actions()[2..], ["site.create", "site.bundle", "site.reallow-unwrap"]);
}

#[test]
fn the_state_joins_rows_and_what_is_live() {
    let store = store();
    store.invite("udc1", 1, NOW).unwrap();
    join(&store, "udc1/udc1-001");
    let live = Live {
        trusted: true,
        connected: true,
        lag: Some(2),
        behind_since_us: Some(NOW.wall_us - 5_000_000),
        quoted_us: Some(NOW.wall_us),
        ..Live::default()
    };
    let live = BTreeMap::from([(id("udc1/udc1-001"), live)]);
    let shown = serde_json::to_value(site_states(&store.rows(), &live, NOW).unwrap()).unwrap();
    let authority = |which: fn(SiteName) -> Authority| {
        let certificate = Loaded::read(&store.rows(), which("udc1".parse().unwrap())).unwrap().certificate;
        let current = json!({"sha256": hex::encode(sha256(&[&certificate])), "expires": "2037-01-14T20:00:00Z"});
        json!({"generation": 1, "current": current, "earlier": []})
    };
    let first = json!({
        "name": "udc1-001", "agent-id": "agent of udc1-001", "state": "joined", "standing": "trusted",
        "wipe": "none", "token": "open", "seal-epoch": null, "host-generation": 0, "connected": true,
        "verdict": "passed", "last-quote": "2027-01-15T08:00:00Z", "lag": 2, "lag-seconds": 5, "last-seen": null,
        "dist-certificate-expires": "2027-04-15T08:00:00Z", "api-certificate-expires": "2027-04-15T08:00:00Z",
        "rotation": {"api": "confirmed", "dist": "confirmed"}, "ek-sha256": hex::encode(sha256(&[&[1]])),
        "reasons": [],
    });
    let second = json!({
        "name": "udc1-002", "agent-id": "agent of udc1-002", "state": "invited", "standing": "stale",
        "wipe": "none", "token": "open", "seal-epoch": null, "host-generation": 0, "connected": false,
        "verdict": "none", "last-quote": null, "lag": null, "lag-seconds": null, "last-seen": null,
        "dist-certificate-expires": null, "api-certificate-expires": null, "rotation": null,
        "ek-sha256": "ab".repeat(32), "reasons": [],
    });
    let summary = json!({
        "hosts": 2, "joined": 1, "connected": 1, "trusted": 1, "unsealed": 0, "quarantined": 0, "behind": 1,
        "rotating": 0, "certificates-ending": 0,
    });
    let authorities = json!({"api": authority(Authority::SiteApi), "dist": authority(Authority::SiteDist)});
    let expected = json!({
        "name": "udc1", "standing": "trusted", "wipe": "none", "ek-trust": "token", "learn-reference-values": true,
        "policy-version": 1, "pcrs": [0, 1, 2, 3, 4, 5, 6, 7], "quote-interval-ms": 60_000, "seal-epoch": 1,
        "created": "2027-01-15T08:00:00Z", "quarantine-on-failure": false, "accept-earlier-values": false,
        "allow-local-unseal": false, "dist-epoch": 1, "term": 1, "authorities": authorities, "summary": summary,
        "hosts": [first, second],
    });
    assert_eq!(shown, json!([expected]));
}

#[test]
fn one_site_shows_where_each_host_stands_and_which_certificates_end_soon() {
    let store = store();
    join(&store, "udc1/udc1-001");
    let at = |seq| Position { term: Term(1), dist_epoch: DistEpoch(1), seq: Seq(seq), digest: [0; 32] };
    store
        .run(move |_| {
            let cut = Cut { position: at(7), revision: Revision(3), has_content: true };
            let mut batch = Batch::housekeeping();
            batch.put(Realm::NODE, &["system", "udc1"], &Cuts { kept: vec![cut] });
            Ok((batch, ()))
        })
        .unwrap();
    let positions = BTreeMap::from([("system".parse().unwrap(), at(4)), ("gone".parse().unwrap(), at(9))]);
    let live = Live { positions, reasons: vec!["PCR 0".to_owned()], ..Live::default() };
    let live = BTreeMap::from([(id("udc1/udc1-001"), live)]);
    let ending = after(80 * 86_400);
    let shown = site_state(&store.rows(), &"udc1".parse().unwrap(), &live, ending).unwrap();
    assert_eq!(shown.summary.certificates_ending, 1);
    let shown = serde_json::to_value(shown).unwrap();
    assert_eq!(shown["hosts"][0]["verdict"], "failed");
    let position = |seq| json!({"term": 1, "dist-epoch": 1, "seq": seq});
    let of_first = json!([{"tenant": "system", "applied": position(4), "central": position(7)}]);
    let of_second = json!([{"tenant": "system", "applied": null, "central": position(7)}]);
    assert_eq!((&shown["hosts"][0]["sync"], &shown["hosts"][1]["sync"]), (&of_first, &of_second));
}

#[test]
fn a_cut_off_site_shows_on_all_its_hosts() {
    let store = store();
    join(&store, "udc1/udc1-001");
    store.decide("udc1", Decision::Quarantine { wipe: true });
    let live = BTreeMap::from([(id("udc1/udc1-001"), Live { trusted: true, lag: Some(0), ..Live::default() })]);
    let udc1 = "udc1".parse().unwrap();
    let shown = serde_json::to_value(site_state(&store.rows(), &udc1, &live, NOW).unwrap()).unwrap();
    assert_eq!((&shown["standing"], &shown["wipe"]), (&json!("quarantined"), &json!("pending")));
    assert_eq!(shown["hosts"][0]["standing"], "quarantined");
    assert_eq!(shown["hosts"][0]["wipe"], "pending");

    let order = site(&store.rows(), &udc1).unwrap().value.standing.generation;
    let wiped = move |rows: &dyn Rows| crate::site_registry::standing::wiped(&id("udc1/udc1-001"), order, rows, NOW);
    store.run(wiped).unwrap();
    assert_eq!(serde_json::to_value(site_state(&store.rows(), &udc1, &live, NOW).unwrap()).unwrap()["wipe"], "done");
    store.decide("udc1", Decision::Readmit);
    store.decide("udc1/udc1-002", Decision::Quarantine { wipe: false });
    let shown = serde_json::to_value(site_state(&store.rows(), &udc1, &live, NOW).unwrap()).unwrap();
    let standings: Vec<_> = shown["hosts"].as_array().unwrap().iter().map(|host| &host["standing"]).collect();
    assert_eq!((&shown["standing"], standings), (&json!("trusted"), vec![&json!("trusted"), &json!("quarantined")]));
}
