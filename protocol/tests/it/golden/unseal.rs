//! What hosts start with without central.

use holdfast_protocol::crypto::kem;
use holdfast_protocol::ids::{HostGeneration, PolicyVersion, SealEpoch};
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::{
    Approved, Challenge, FromCentral, FromHost, LocalShare, NoticedStanding, QuoteAnswer, RemoteKeyProof,
    RemoteSealKey, RemoteSealKeys, RemoteTerms, ResetBound, ShareHolder, ShareTerms, Sibling, SiblingAnswer,
    SiblingAsk, UnsealChallenge, UnsealPermit, UnsealReport,
};

use super::Golden;
use super::messages::{DEPLOYMENT, TIME_US, by_signer, golden, host, notice, parsed};

fn permit() -> UnsealPermit {
    UnsealPermit {
        deployment: DEPLOYMENT,
        host: host(),
        generation: HostGeneration(2),
        ak_public: b"ak".to_vec(),
        policy: PolicyVersion(300),
        pcrs: vec![0, 7],
        reference: vec![(0, vec![[0xc0; 32]]), (7, vec![[0xc7; 32], [0xc8; 32]])],
        counters: Counters { reset_count: 300, restart_count: 1, clock: 70_000 },
        issued_us: TIME_US,
        expires_us: TIME_US + 1,
        siblings: vec![
            Sibling {
                name: parsed("udc1-002"),
                address: Some("10.0.0.2:4646".to_owned()),
                generation: HostGeneration(300),
            },
            Sibling { name: parsed("udc1-003"), address: None, generation: HostGeneration(1) },
        ],
        authority: vec![4; 65],
        remote_key: Some([0x4e; 32]),
        address: Some("10.0.0.1:4646".to_owned()),
        local_unseal: true,
        debug_key: [0xdb; 32],
        approved_since_us: TIME_US - 1,
    }
}

fn share() -> LocalShare {
    let holder = |(fill, name): (u8, &str)| ShareHolder { name: parsed(name), digest: [fill; 32] };
    LocalShare {
        terms: ShareTerms {
            deployment: DEPLOYMENT,
            host: host(),
            epoch: SealEpoch(300),
            set: [0x5e; 32],
            threshold: 2,
            holders: (0xd0..).zip(["udc1-001", "udc1-002"]).map(holder).collect(),
            issued_us: TIME_US,
        },
        pcrs: vec![0, 7],
        approved: vec![Approved { pcr_digest: [0xd1; 32], signature: vec![0x51; 64] }],
        ephemeral: vec![4; 65],
        envelope: b"envelope".to_vec(),
    }
}

fn remote(reset: ResetBound, challenge: Option<[u8; 32]>) -> RemoteSealKey {
    let epochs = vec![SealEpoch(3), SealEpoch(300)];
    RemoteSealKey {
        terms: RemoteTerms { deployment: DEPLOYMENT, host: host(), epochs, reset, challenge, issued_us: TIME_US },
        pcrs: vec![0, 7],
        approved: vec![Approved { pcr_digest: [0xd1; 32], signature: vec![0x51; 64] }],
        ephemeral: vec![4; 65],
        envelope: b"envelope".to_vec(),
    }
}

fn report() -> UnsealReport {
    let proof =
        RemoteKeyProof { public: b"public".to_vec(), attest: b"attest".to_vec(), signature: b"signature".to_vec() };
    UnsealReport { remote_key: Some(proof), address: Some("10.0.0.1:4646".to_owned()) }
}

fn challenge() -> UnsealChallenge {
    UnsealChallenge {
        host: host(),
        generation: HostGeneration(2),
        nonce: [0x40; 32],
        seal_epoch: SealEpoch(300),
        attest: b"attest".to_vec(),
        signature: b"signature".to_vec(),
        pcrs: vec![(0, [0xc0; 32])],
    }
}

fn siblings() -> Vec<Golden> {
    let quote = QuoteAnswer {
        attest: b"attest".to_vec(),
        signature: b"signature".to_vec(),
        pcrs: vec![(0, [0xc0; 32])],
        hpke_public: [0x4b; 32],
        continuity: None,
    };
    let asked =
        Challenge { nonce: [0x40; 32], policy: PolicyVersion(3), pcrs: vec![0, 7], ima_offset: 0, ima_count: 0 };
    let message = kem::Message { encapped: [0x4e; 32], ciphertext: b"ciphertext".to_vec() };
    let signed = by_signer(&notice(NoticedStanding::Quarantined { wipe: false }));
    let begin = SiblingAsk::Begin { permit: by_signer(&permit()), notice: None, seal_epoch: SealEpoch(3) };
    let (permit, set) = (by_signer(&permit()), [0x5e; 32]);
    let begin_share = SiblingAsk::BeginShare { permit, notice: None, seal_epoch: SealEpoch(3), set };
    vec![
        golden("sibling-ask.begin", &begin),
        golden("sibling-ask.begin-share", &begin_share),
        golden("sibling-ask.quote", &SiblingAsk::Quote(Box::new(quote))),
        golden("sibling-answer.challenge", &SiblingAnswer::Challenge(asked)),
        golden("sibling-answer.released", &SiblingAnswer::Released(message)),
        golden("sibling-answer.refused", &SiblingAnswer::Refused { why: "no".to_owned(), notice: Some(signed) }),
    ]
}

pub(super) fn all() -> Vec<Golden> {
    let (ahead, answer) = (remote(ResetBound::From(300), None), remote(ResetBound::Exactly(5), Some([0x40; 32])));
    let sibling = by_signer(&notice(NoticedStanding::Clear));
    let mut all = vec![
        golden("from-host.unsealing", &FromHost::Unsealing(Box::new(report()))),
        golden("from-central.permit", &FromCentral::Permit(Box::new(by_signer(&permit())))),
        golden("from-central.sibling", &FromCentral::Sibling(Box::new(sibling))),
        golden("from-central.share", &FromCentral::Share(Box::new(by_signer(&share())))),
        golden("unseal-permit", &permit()),
        golden("local-share", &share()),
        golden("remote-seal-key.ahead", &ahead),
        golden("remote-seal-key.challenge", &answer),
        golden("remote-seal-keys", &RemoteSealKeys(vec![by_signer(&ahead)])),
        golden("unseal-challenge", &challenge()),
    ];
    all.extend(siblings());
    all
}
