//! The TPM's thread against a software TPM.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::crypto::tpm::AgreementKey;
use holdfast_protocol::ids::{DeploymentId, HostGeneration, HostId};
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::tpm::{Attest, Evidence, Key, Public, make_credential, policy, remote, verify_signature};
use holdfast_protocol::wire::{Approved, RemoteKeyProof};
use holdfast_site_agent::tpm::{AkBlob, EkKind, Leave, SEALED_BYTES_MAX, TpmConfig, TpmError, TpmHandle};
use holdfast_testbed::swtpm::{Swtpm, boot_event, extended, identity};
use tempfile::TempDir;

const QUESTION: [u8; 32] = [0x5a; 32];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_tpm_with_both_keys_learns_the_activation_secret() {
    let (machine, other) = (Machine::start(0), Machine::start(1));
    for kind in [EkKind::Rsa2048, EkKind::P256] {
        let host = machine.tpm.identity(Some(kind)).await.unwrap();
        let ak = machine.tpm.create_ak(kind).await.unwrap();
        let (ek, key) = (Public::parse(&host.ek_public).unwrap(), Public::parse(&ak.public).unwrap());
        key.check_ak().unwrap();
        let credential = make_credential(&ek, &key.name(), &secret(1), &secret(2)).unwrap();
        assert!(machine.tpm.activate(&ak, &credential).await.unwrap().ct_eq(&secret(1)));

        let second = machine.tpm.create_ak(kind).await.unwrap();
        assert_eq!(machine.tpm.activate(&second, &credential).await.unwrap_err(), TpmError::NotOurs);
        assert_eq!(other.tpm.activate(&ak, &credential).await.unwrap_err(), TpmError::NotOurs);

        let quote = Attest::parse(&machine.tpm.quote(&ak, QUESTION, &[0]).await.unwrap().attest).unwrap();
        quote.check_signer_is_child(&ek, &key).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certified_endorsement_key_is_chosen() {
    let machine = Machine::start(0);
    let chosen = machine.tpm.identity(None).await.unwrap();
    assert_eq!(chosen.ek_kind, EkKind::Rsa2048);
    let certificate = chosen.ek_certificate.unwrap();
    let modulus = &chosen.ek_public[chosen.ek_public.len() - 256..];
    assert!(certificate.windows(256).any(|window| window == modulus), "the certificate is for that key");
    let uncertified = machine.tpm.identity(Some(EkKind::P256)).await.unwrap();
    assert_eq!(uncertified.ek_certificate, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quote_states_the_registers_and_the_question() {
    let machine = Machine::start(0);
    let ak = machine.tpm.create_ak(EkKind::Rsa2048).await.unwrap();
    let pcrs: Vec<u8> = (0..24).rev().collect();
    let quote = machine.tpm.quote(&ak, QUESTION, &pcrs).await.unwrap();
    assert!(holds(&ak, &quote, &QUESTION));
    assert!(!holds(&ak, &quote, &[1; 32]));
    assert_eq!(quote.pcrs.len(), 24);
    assert_eq!(quote.pcrs[4], (4, extended(&[boot_event(4)])));

    machine.swtpm.extend(4, [7; 32]).unwrap();
    let later = machine.tpm.quote(&ak, QUESTION, &[4]).await.unwrap();
    assert_eq!(later.pcrs, [(4, extended(&[boot_event(4), [7; 32]]))]);
    assert!(holds(&ak, &later, &QUESTION));

    for selection in [&[][..], &[24]] {
        let refused = machine.tpm.quote(&ak, QUESTION, selection).await;
        assert_eq!(refused, Err(TpmError::Malformed("register selection")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_data_opens_in_its_own_tpm_only() {
    let (machine, other) = (Machine::start(0), Machine::start(1));
    for length in [1, 32, SEALED_BYTES_MAX] {
        let blob = machine.tpm.seal(SecretBytes::new(vec![7; length])).await.unwrap();
        assert_eq!(machine.tpm.unseal(&blob).await.unwrap().expose(), vec![7; length]);
        assert_eq!(other.tpm.unseal(&blob).await.unwrap_err(), TpmError::NotOurs);
        let mut changed = blob.clone();
        *changed.private.last_mut().unwrap() ^= 1;
        assert_eq!(machine.tpm.unseal(&changed).await.unwrap_err(), TpmError::NotOurs);
    }
    let too_long = machine.tpm.seal(SecretBytes::new(vec![7; SEALED_BYTES_MAX + 1])).await;
    assert!(matches!(too_long, Err(TpmError::Malformed(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_host_secret_stays_destroyed_for_copies_of_its_blob() {
    let machine = Machine::start(0);
    let tpm = &machine.tpm;
    tpm.destroy_host_secret().await.unwrap();
    let copy = tpm.create_host_secret(secret(1)).await.unwrap();
    assert_eq!(tpm.unseal_host_secret(&copy).await.unwrap().expose(), &[1; 32]);
    assert!(tpm.unseal(&copy).await.is_err(), "not without the authorisation value");

    tpm.destroy_host_secret().await.unwrap();
    assert_eq!(tpm.unseal_host_secret(&copy).await.unwrap_err(), TpmError::Destroyed);
    tpm.destroy_host_secret().await.unwrap();

    let second = tpm.create_host_secret(secret(2)).await.unwrap();
    assert_eq!(tpm.unseal_host_secret(&second).await.unwrap().expose(), &[2; 32]);
    assert_eq!(tpm.unseal_host_secret(&copy).await.unwrap_err(), TpmError::Destroyed);

    let third = tpm.create_host_secret(secret(3)).await.unwrap();
    assert_eq!(tpm.unseal_host_secret(&second).await.unwrap_err(), TpmError::Destroyed);
    assert_eq!(tpm.unseal_host_secret(&third).await.unwrap().expose(), &[3; 32]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wipe_that_was_cut_short_has_destroyed_the_host_secret_and_can_be_finished() {
    let machine = Machine::start(0);
    let blob = machine.tpm.create_host_secret(secret(1)).await.unwrap();
    let zeros = machine.dir.path().join("zeros");
    std::fs::write(&zeros, [0; 32]).unwrap();
    let index = format!("{:#x}", TpmConfig::HOST_SECRET_INDEX);
    let words = [index.as_str(), "-C", index.as_str(), "-i", zeros.to_str().unwrap()];
    machine.swtpm.tool("tpm2_nvwrite", words.map(str::to_owned)).unwrap();
    assert_eq!(machine.tpm.unseal_host_secret(&blob).await.unwrap_err(), TpmError::Destroyed);
    machine.tpm.destroy_host_secret().await.unwrap();
    assert_eq!(machine.tpm.unseal_host_secret(&blob).await.unwrap_err(), TpmError::Destroyed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_nv_index_is_left_alone() {
    let machine = Machine::start(0);
    let index = format!("{:#x}", TpmConfig::HOST_SECRET_INDEX);
    let words = [index.as_str(), "-C", "o", "-s", "8", "-a", "ownerwrite|ownerread"];
    machine.swtpm.tool("tpm2_nvdefine", words.map(str::to_owned)).unwrap();
    let taken = TpmError::IndexTaken(TpmConfig::HOST_SECRET_INDEX);
    assert_eq!(machine.tpm.create_host_secret(secret(1)).await.unwrap_err(), taken);
    assert_eq!(machine.tpm.destroy_host_secret().await.unwrap_err(), taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_keeps_everything_and_counts_as_a_reset() {
    let mut machine = Machine::start(0);
    let tpm = machine.tpm.clone();
    let ak = tpm.create_ak(EkKind::Rsa2048).await.unwrap();
    let (before, clock) = (tpm.identity(None).await.unwrap(), tpm.clock().await.unwrap());
    let blob = tpm.seal(SecretBytes::new(vec![7; 32])).await.unwrap();
    let host_secret = tpm.create_host_secret(secret(1)).await.unwrap();

    machine.swtpm.kill().unwrap();
    assert!(matches!(tpm.clock().await, Err(TpmError::Unavailable(_))));
    assert!(matches!(tpm.identity(None).await, Err(TpmError::Unavailable(_))));
    machine.swtpm.restart().unwrap();

    let after = tpm.clock().await.unwrap();
    assert_eq!(after.counters.reset_count, clock.counters.reset_count + 1);
    assert_eq!(tpm.identity(None).await.unwrap(), before);
    assert_eq!(tpm.unseal(&blob).await.unwrap().expose(), &[7; 32]);
    assert_eq!(tpm.unseal_host_secret(&host_secret).await.unwrap().expose(), &[1; 32]);
    let quote = tpm.quote(&ak, QUESTION, &[0]).await.unwrap();
    assert!(holds(&ak, &quote, &QUESTION));
    assert_eq!(quote.pcrs, [(0, [0; 32])]);
    let counters = Attest::parse(&quote.attest).unwrap().counters;
    assert_eq!(counters.reset_count, after.counters.reset_count, "the same counter as in quotes");
    assert!(counters > after.counters);
}

/// More often than a TPM takes wrong guesses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_that_is_cut_again_and_again_locks_nothing() {
    let mut machine = Machine::start(0);
    let tpm = machine.tpm.clone();
    let host = tpm.identity(None).await.unwrap();
    let ak = tpm.create_ak(host.ek_kind).await.unwrap();
    let blob = tpm.seal(SecretBytes::new(vec![7; 32])).await.unwrap();
    let host_secret = tpm.create_host_secret(secret(1)).await.unwrap();
    let (ek, key) = (Public::parse(&host.ek_public).unwrap(), Public::parse(&ak.public).unwrap());
    let credential = make_credential(&ek, &key.name(), &secret(1), &secret(2)).unwrap();
    for _ in 0..6 {
        tpm.quote(&ak, QUESTION, &[0]).await.unwrap();
        tpm.activate(&ak, &credential).await.unwrap();
        tpm.unseal(&blob).await.unwrap();
        tpm.unseal_host_secret(&host_secret).await.unwrap();
        machine.swtpm.kill().unwrap();
        machine.swtpm.restart().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_callers_and_other_programs_share_the_tpm() {
    let machine = Machine::start(0);
    let ak = machine.tpm.create_ak(EkKind::Rsa2048).await.unwrap();
    let jobs: Vec<_> = (0..24_u8)
        .map(|number| {
            let (tpm, ak) = (machine.tpm.clone(), ak.clone());
            tokio::spawn(async move {
                match number % 3 {
                    0 => {
                        let quote = tpm.quote(&ak, [number; 32], &[0, 7]).await.unwrap();
                        assert!(holds(&ak, &quote, &[number; 32]));
                    }
                    1 => {
                        let blob = tpm.seal(SecretBytes::new(vec![number])).await.unwrap();
                        assert_eq!(tpm.unseal(&blob).await.unwrap().expose(), [number]);
                    }
                    _ => drop(tpm.clock().await.unwrap()),
                }
            })
        })
        .collect();
    for _ in 0..10 {
        machine.swtpm.tool("tpm2_pcrread", ["sha256:0".to_owned()]).unwrap();
    }
    for job in jobs {
        job.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_left_loaded_is_no_obstacle() {
    let machine = Machine::start(0);
    for _ in 0..3 {
        let words = ["-C", "o", "-G", "ecc", "-c", "/dev/null"].map(str::to_owned);
        machine.swtpm.tool("tpm2_createprimary", words).unwrap();
    }
    machine.tpm.identity(Some(EkKind::P256)).await.unwrap();

    let mut killed = TcpStream::connect(("127.0.0.1", machine.swtpm.port)).unwrap();
    for _ in 0..3 {
        assert_eq!(start_session(&mut killed), 0);
    }
    drop(killed);
    machine.tpm.identity(Some(EkKind::P256)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_key_is_vouched_for_and_used_only_with_approved_registers() {
    let (machine, other) = (Machine::start(0), Machine::start(1));
    let (deployment, generation) = (DeploymentId([7; 16]), HostGeneration(1));
    let host = HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
    let (authority, since_us) = (SigningKey::from_seed(&secret(3)), 7);
    let reference = policy::reference(deployment, &host, generation, since_us);
    let digest = policy::authorize_digest(authority.public(), &reference).unwrap();
    let key = machine.tpm.create_remote_key(digest).await.unwrap();

    for kind in [EkKind::Rsa2048, EkKind::P256] {
        let ak = machine.tpm.create_ak(kind).await.unwrap();
        let data = remote::certify_data(deployment, &host, generation, &key.public);
        let (attest, signature) = machine.tpm.certify_remote_key(&ak, &key, data).await.unwrap();
        let proof = RemoteKeyProof { public: key.public.clone(), attest, signature };
        let ak = Public::parse(&ak.public).unwrap();
        remote::check_proof(&proof, &ak, (deployment, &host, generation), (authority.public(), since_us)).unwrap();
    }

    let Key::P256(own) = Public::parse(&key.public).unwrap().key else { panic!("no point") };
    let (pcrs, peer) = (vec![0, 4, 7], AgreementKey::from_seed(&secret(5)));
    let values =
        |events: &[[u8; 32]]| sha256(&[&extended(&[boot_event(0)]), &extended(events), &extended(&[boot_event(7)])]);
    let good = policy::approve(&authority, &pcrs, &values(&[boot_event(4)]), &reference);
    let later = policy::approve(&authority, &pcrs, &values(&[boot_event(4), [7; 32]]), &reference);
    let leave = |approved: &[&Approved]| Leave {
        authority: authority.public().clone(),
        reference,
        pcrs: pcrs.clone(),
        approved: approved.iter().map(|approved| (*approved).clone()).collect(),
    };
    let agreed = machine.tpm.agree(&key, &leave(&[&later, &good]), &peer.public()).await.unwrap();
    assert!(agreed.ct_eq(&peer.agree(&own).unwrap()));
    assert_eq!(other.tpm.agree(&key, &leave(&[&good]), &peer.public()).await.unwrap_err(), TpmError::NotOurs);

    let stranger = policy::approve(&SigningKey::from_seed(&secret(4)), &pcrs, &values(&[boot_event(4)]), &reference);
    let elsewhere = policy::approve(&authority, &pcrs, &values(&[boot_event(4)]), &[1; 32]);
    // The very values, approved before some were taken away, or for the machine as it had joined before.
    let of_then = policy::reference(deployment, &host, generation, since_us - 1);
    let of_before = policy::reference(deployment, &host, HostGeneration(0), since_us);
    let old = [of_then, of_before].map(|then| policy::approve(&authority, &pcrs, &values(&[boot_event(4)]), &then));
    for (approved, then) in old.iter().zip([of_then, of_before]) {
        let kept = Leave { reference: then, ..leave(&[approved]) };
        let refused = machine.tpm.agree(&key, &kept, &peer.public()).await;
        assert!(matches!(refused, Err(TpmError::Refused { .. })), "an old approval opens a newer key");
    }
    for bad in [&stranger, &elsewhere, &later, &old[0], &old[1]] {
        let refused = machine.tpm.agree(&key, &leave(&[bad]), &peer.public()).await;
        assert_eq!(refused.unwrap_err(), TpmError::NotApproved);
    }
    // By its own policy the key takes no other authority or reference, whatever the TPM would verify.
    let usurper = SigningKey::from_seed(&secret(4));
    let usurped = Leave { authority: usurper.public().clone(), ..leave(&[&stranger]) };
    assert!(matches!(machine.tpm.agree(&key, &usurped, &peer.public()).await, Err(TpmError::Refused { .. })));

    machine.swtpm.extend(4, [7; 32]).unwrap();
    let refused = machine.tpm.agree(&key, &leave(&[&good]), &peer.public()).await;
    assert_eq!(refused.unwrap_err(), TpmError::NotApproved);
    assert!(machine.tpm.agree(&key, &leave(&[&good, &later]), &peer.public()).await.is_ok());
}

/// Signature, question and registers.
fn holds(ak: &AkBlob, evidence: &Evidence, question: &[u8; 32]) -> bool {
    let attest = Attest::parse(&evidence.attest).unwrap();
    let values: Vec<&[u8]> = evidence.pcrs.iter().map(|(_, value)| value.as_slice()).collect();
    verify_signature(&Public::parse(&ak.public).unwrap(), &evidence.attest, &evidence.signature).is_ok()
        && attest.extra_data == question
        && attest.pcr_digest == sha256(&values)
}

/// `TPM2_StartAuthSession`, HMAC, without salt; returns the response code.
fn start_session(tpm: &mut TcpStream) -> u32 {
    let command = [
        &[0x80, 0x01, 0, 0, 0, 43, 0, 0, 0x01, 0x76, 0x40, 0, 0, 7, 0x40, 0, 0, 7, 0, 16][..],
        &[3; 16],
        &[0, 0, 0, 0, 0x10, 0, 0x0b],
    ];
    tpm.write_all(&command.concat()).unwrap();
    let mut header = [0; 10];
    tpm.read_exact(&mut header).unwrap();
    let length = u32::from_be_bytes(*header[2..].first_chunk().unwrap());
    tpm.read_exact(&mut vec![0; length as usize - header.len()]).unwrap();
    u32::from_be_bytes(*header[6..].first_chunk().unwrap())
}

/// A software TPM with its boot measured, and the thread that owns it.
struct Machine {
    tpm: TpmHandle,
    swtpm: Swtpm,
    dir: TempDir,
}

impl Machine {
    fn start(index: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = boot(index, dir.path());
        let address = swtpm.tcti().parse().unwrap();
        let config = TpmConfig { address, host_secret_index: TpmConfig::HOST_SECRET_INDEX };
        Self { tpm: TpmHandle::start(config).unwrap(), swtpm, dir }
    }
}

fn boot(index: usize, dir: &Path) -> Swtpm {
    identity(index, dir).unwrap();
    let swtpm = Swtpm::start(dir).unwrap();
    swtpm.boot_events().unwrap();
    swtpm
}

fn secret(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}
