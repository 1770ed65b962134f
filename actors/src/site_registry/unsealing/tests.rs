//! Permits and remote seal keys on a real store, with a TPM in software.

use holdfast_protocol::ids::{SealEpoch, StandingGeneration};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::signed;
use holdfast_protocol::tpm::soft::{SoftTpm, remote_public};
use holdfast_protocol::wire::{NoticedStanding, RemoteKeyProof};

use super::fixtures::{A, B, PCRS, agreement, proof, tell, tpm, world};
use super::*;
use crate::site_registry::authorities::signer;
use crate::site_registry::fixtures::{Counting, DEPLOYMENT, NOW, Store, id, secret};
use crate::site_registry::sites::policy::{Revise, revise};
use crate::site_registry::standing::Decision;

const QUARANTINE: Decision = Decision::Quarantine { wipe: false };
const HOUR: Duration = Duration::from_secs(3600);

fn leave_of(store: &Store, whom: &str) -> Option<Leave> {
    leave(&id(whom), HOUR, &store.rows(), NOW).unwrap()
}

fn ask(store: &Store, challenge: Option<UnsealChallenge>) -> Result<Offers, Refusal> {
    let cmd = AskRemote { site: "udc1".parse().unwrap(), challenge, by: "alice".to_owned() };
    store.run(move |rows| remote_sealkeys(&cmd, rows, NOW))
}

fn challenge(whom: &str, tpm: &SoftTpm, epoch: u64) -> UnsealChallenge {
    let (host, generation, nonce, seal_epoch) = (id(whom), HostGeneration(1), [9; 32], SealEpoch(epoch));
    let quote = tpm.quote(&challenge_data(DEPLOYMENT, &host, generation, &nonce, seal_epoch), &PCRS);
    let (attest, signature, pcrs) = (quote.attest, quote.signature, quote.pcrs);
    UnsealChallenge { host, generation, nonce, seal_epoch, attest, signature, pcrs }
}

fn why(offers: &Offers, name: &str) -> String {
    offers[&name.parse::<HostName>().unwrap()].as_ref().unwrap_err().clone()
}

#[test]
fn a_permit_says_what_a_sibling_needs_and_goes_to_hosts_in_good_standing() {
    let store = world();
    tell(&store, B, None, Some("10.0.0.2:4646")).unwrap();
    let Leave { permit, notices } = leave_of(&store, A).unwrap();
    assert_eq!((permit.host.clone(), permit.generation), (id(A), HostGeneration(1)));
    assert_eq!(permit.ak_public, tpm(1).ak_public().raw());
    assert_eq!(permit.pcrs, PCRS);
    let values: Vec<_> = permit.reference.iter().flat_map(|(_, values)| values.clone()).collect();
    assert_eq!(values, tpm(1).pcrs.values().copied().collect::<Vec<_>>());
    assert_eq!(permit.counters, tpm(1).counters);
    assert_eq!((permit.issued_us, permit.expires_us), (NOW.wall_us, NOW.wall_us + 3_600_000_000));
    let siblings: Vec<_> =
        permit.siblings.iter().map(|known| (known.name.as_str(), known.address.as_deref(), known.generation)).collect();
    assert_eq!(siblings, [("b", Some("10.0.0.2:4646"), HostGeneration(1))]);
    assert!(notices.is_empty());

    let content = leave_of(&store, A).unwrap().content();
    store.decide(B, QUARANTINE);
    assert_eq!(leave_of(&store, B), None);
    let leave = leave_of(&store, A).unwrap();
    assert_ne!(leave.content(), content, "to be given again at once");
    let [notice] = leave.notices.as_slice() else { panic!("{leave:?}") };
    assert_eq!(notice.standing, NoticedStanding::Quarantined { wipe: false });
    assert_eq!((notice.host.as_ref().unwrap().as_str(), notice.generation), ("b", StandingGeneration(1)));
    store.decide(B, Decision::Readmit);
    let notices = leave_of(&store, A).unwrap().notices;
    assert_eq!(notices[0].standing, NoticedStanding::Clear);
    store.decide("udc1", QUARANTINE);
    assert_eq!(leave_of(&store, A), None);
}

#[test]
fn a_remote_key_is_believed_by_proof_and_only_of_this_identity() {
    let store = world();
    assert_eq!(leave_of(&store, A).unwrap().permit.remote_key, None);
    let good = proof(&store, A, 1);
    for bad in [
        RemoteKeyProof { signature: vec![0; 72], ..good.clone() },
        RemoteKeyProof { public: good.public[..40].to_vec(), ..good.clone() },
        proof(&store, B, 1),
        proof(&store, A, 2),
    ] {
        assert!(matches!(tell(&store, A, Some(bad), None), Err(Refusal::Invalid(_))));
    }
    assert!(matches!(tell(&store, A, None, Some("nowhere")), Err(Refusal::Invalid(_))));
    assert_eq!(leave_of(&store, A).unwrap().permit.remote_key, None);
    tell(&store, A, Some(good.clone()), None).unwrap();
    assert_eq!(leave_of(&store, A).unwrap().permit.remote_key, Some(sha256(&[&good.public])));
    assert_eq!(store.actions().iter().filter(|action| *action == "host.remote-key").count(), 1);
    tell(&store, A, Some(good.clone()), None).unwrap();
    assert_eq!(store.actions().iter().filter(|action| *action == "host.remote-key").count(), 1, "nothing new");

    // Another machine under the same name, and the same machine enrolled anew.
    for changed in [
        |entry: Host| Host { agent_id: "another".to_owned(), ..entry },
        |entry: Host| Host { generation: HostGeneration(2), agent_id: "agent of a".to_owned(), ..entry },
    ] {
        store
            .run(move |rows| {
                let mut batch = Batch::housekeeping();
                batch.put(Realm::NODE, &path(&id(A)), &changed(host(rows, &id(A))?.value));
                Ok((batch, ()))
            })
            .unwrap();
        assert_eq!(leave_of(&store, A).unwrap().permit.remote_key, None);
    }
}

/// What the host does with it, but for its TPM.
fn opened(store: &Store, prepared: Prepared, seed: u8, epoch: u64) -> Option<(Secret<32>, RemoteSealKey)> {
    let rows = store.rows();
    let remote_key = prepared.encrypted(&unseal_authority(&rows).unwrap(), &Counting::default()).unwrap();
    let (key, certificate) = signer(&rows).unwrap();
    let signed = signed::sign(&remote_key, &key, certificate);
    let read: RemoteSealKey = signed::open(&signed, key.public()).unwrap();
    let peer = PublicKey::from_sec1(&read.ephemeral).unwrap();
    let own = Public::parse(&remote_public(&agreement(seed).public(), &[0; 32])).unwrap();
    let opened = remote::open(&read, &agreement(seed).agree(&peer).unwrap(), &own, SealEpoch(epoch)).ok()?;
    Some((opened.key, read))
}

#[test]
fn each_host_gets_the_keys_it_may_need_for_the_values_it_may_boot_into() {
    let store = world();
    assert!(matches!(ask(&store, None), Err(Refusal::Conflict(why)) if why.contains("a: it has not told central")));
    tell(&store, A, Some(proof(&store, A, 1)), None).unwrap();
    let mut offers = ask(&store, None).unwrap();
    assert!(why(&offers, "b").contains("not told central of a remote key"));
    assert_eq!(store.actions().last().unwrap(), "site.remote-sealkey");
    let prepared = offers.remove(&"a".parse::<HostName>().unwrap()).unwrap().unwrap();
    let (key, read) = opened(&store, prepared, 1, 1).unwrap();
    assert!(key.ct_eq(&secret(40)), "the site's seal key");
    assert_eq!(read.terms.reset, ResetBound::From(tpm(1).counters.reset_count));
    assert_eq!((read.terms.host, read.terms.challenge, read.pcrs), (id(A), None, PCRS.to_vec()));
    let values: Vec<_> = tpm(1).pcrs.values().copied().collect();
    assert_eq!(read.approved.len(), 1);
    assert_eq!(read.approved[0].pcr_digest, digest_of(values.iter()));
    let authority = unseal_authority(&store.rows()).unwrap();
    let reference = policy::reference(DEPLOYMENT, &id(A), HostGeneration(1), NOW.wall_us);
    let message = [policy::pcr_digest(&PCRS, &read.approved[0].pcr_digest), reference];
    assert!(authority.public().verify(&message.concat(), &read.approved[0].signature));

    // A sibling's quarantine moves the site to another epoch, and a host that is away needs the one it has.
    store.decide(B, QUARANTINE);
    let mut offers = ask(&store, None).unwrap();
    assert_eq!(why(&offers, "b"), "it is quarantined");
    let prepared = offers.remove(&"a".parse::<HostName>().unwrap()).unwrap().unwrap();
    assert_eq!(prepared.terms.epochs, [SealEpoch(1), SealEpoch(2)]);
    assert!(opened(&store, prepared, 2, 1).is_none(), "another host's key does not open it");
}

#[test]
fn what_was_approved_before_values_were_taken_away_is_of_no_use_for_any_key_to_come() {
    let revised = |store: &Store, reference: &[(u8, [u8; 32])], accept_earlier| {
        let mut values = ReferenceValues::default();
        reference.iter().for_each(|(pcr, value)| values.allow(*pcr, *value));
        let cmd = Revise { reference: Some(values), accept_earlier: Some(accept_earlier), ..Revise::default() };
        store.run(move |rows| revise(&"udc1".parse().unwrap(), &cmd, ("alice", &secret(60)), rows, NOW)).unwrap();
    };
    let store = world();
    let (before, learned) = (proof(&store, A, 1), tpm(1).pcrs[&0]);
    tell(&store, A, Some(before.clone()), None).unwrap();
    revised(&store, &[(0, [9; 32])], true);
    assert!(leave_of(&store, A).unwrap().permit.remote_key.is_some(), "more values need no other key");
    assert!(ask(&store, None).is_ok());

    revised(&store, &[(0, learned)], false);
    let permit = leave_of(&store, A).unwrap().permit;
    assert_eq!((permit.remote_key, permit.approved_since_us), (None, NOW.wall_us + 1));
    assert!(matches!(ask(&store, None), Err(Refusal::Conflict(why)) if why.contains("since register values were")));
    assert!(matches!(ask(&store, Some(challenge(A, &tpm(1), 1))), Err(Refusal::Conflict(_))));
    assert!(matches!(tell(&store, A, Some(before), None), Err(Refusal::Invalid(_))), "of the key before");
    tell(&store, A, Some(proof(&store, A, 1)), None).unwrap();
    let prepared = ask(&store, None).unwrap().remove(&"a".parse::<HostName>().unwrap()).unwrap().unwrap();
    assert_eq!(prepared.reference, policy::reference(DEPLOYMENT, &id(A), HostGeneration(1), NOW.wall_us + 1));
}

#[test]
fn nobody_who_is_cut_off_gets_one() {
    let store = world();
    for (whom, seed) in [(A, 1), (B, 2)] {
        tell(&store, whom, Some(proof(&store, whom, seed)), None).unwrap();
    }
    store.decide(B, QUARANTINE);
    assert!(matches!(ask(&store, Some(challenge(B, &tpm(2), 1))), Err(Refusal::Denied)));
    assert!(ask(&store, Some(challenge(A, &tpm(1), 1))).is_ok());
    store.decide("udc1", QUARANTINE);
    assert!(matches!(ask(&store, None), Err(Refusal::Denied)));
    assert!(matches!(ask(&store, Some(challenge(A, &tpm(1), 1))), Err(Refusal::Denied)));
}

#[test]
fn the_answer_to_a_challenge_is_for_that_boot_and_host_and_what_it_shows() {
    let store = world();
    tell(&store, A, Some(proof(&store, A, 1)), None).unwrap();
    let mut rebooted = tpm(1);
    rebooted.counters.reset_count += 3;
    let mut offers = ask(&store, Some(challenge(A, &rebooted, 1))).unwrap();
    assert_eq!(offers.len(), 1);
    let prepared = offers.remove(&"a".parse::<HostName>().unwrap()).unwrap().unwrap();
    assert_eq!(prepared.terms.reset, ResetBound::Exactly(rebooted.counters.reset_count));
    assert_eq!((prepared.terms.challenge, &*prepared.terms.epochs), (Some([9; 32]), &[SealEpoch(1)][..]));

    let refused = |challenge| match ask(&store, Some(challenge)) {
        Err(Refusal::Conflict(why)) => why,
        other => panic!("{other:?}"),
    };
    let mut changed = rebooted;
    changed.extend(4, &[1; 32]);
    assert!(refused(challenge(A, &changed, 1)).contains("PCR 4 is not one of the reference values"));
    let mut back = tpm(1);
    back.counters.reset_count = 0;
    assert!(refused(challenge(A, &back, 1)).contains("went back"));
    assert!(refused(challenge(A, &tpm(2), 1)).contains("not signed"));
    assert!(refused(challenge(A, &tpm(1), 7)).contains("has been erased"));
    let bent = UnsealChallenge { seal_epoch: SealEpoch(2), ..challenge(A, &tpm(1), 1) };
    assert!(refused(bent).contains("not made for this session"));
    let unknown = UnsealChallenge { host: id("udc1/c"), ..challenge(A, &tpm(1), 1) };
    assert!(matches!(ask(&store, Some(unknown)), Err(Refusal::NotFound(_))));
}

#[test]
fn values_that_are_approved_are_those_quoted_last_and_the_few_that_references_give() {
    let policy = |pcrs: &[u8]| Policy {
        version: holdfast_protocol::ids::PolicyVersion(1),
        pcrs: pcrs.iter().copied().collect(),
        interval_ms: 1,
        verdict_ttl_ms: 2,
        quarantine_on_failure: false,
        learn: false,
    };
    let mut reference = ReferenceValues::default();
    for pcr in 0..5 {
        (0..=1).for_each(|value| reference.allow(pcr, [value; 32]));
    }
    let set = |values: &[u8]| {
        let values: Vec<[u8; 32]> = values.iter().map(|value| [*value; 32]).collect();
        digest_of(values.iter())
    };
    let quoted =
        |values: &[u8]| -> Vec<(u8, [u8; 32])> { (0..).zip(values).map(|(pcr, value)| (pcr, [*value; 32])).collect() };
    let few = approvable(&policy(&[0, 1]), &reference, &quoted(&[1, 0]));
    assert_eq!(few, [set(&[1, 0]), set(&[0, 0]), set(&[0, 1]), set(&[1, 1])]);
    let many = approvable(&policy(&[0, 1, 2, 3, 4]), &reference, &quoted(&[1, 0, 1, 0, 1]));
    assert_eq!(many, [set(&[1, 0, 1, 0, 1])]);
    assert_eq!(approvable(&policy(&[0, 1, 2, 3, 4]), &reference, &quoted(&[7, 0, 1, 0, 1])), [[0; 32]; 0]);
    assert_eq!(approvable(&policy(&[0, 9]), &reference, &quoted(&[0, 0])), [[0; 32]; 0]);
}
