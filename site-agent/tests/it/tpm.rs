//! The TPM's thread against a software TPM.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_site_agent::tpm::{EkKind, SEALED_BYTES_MAX, TpmConfig, TpmError, TpmHandle};
use holdfast_testbed::swtpm::{Swtpm, boot_event, extended, identity};
use tempfile::TempDir;

use crate::verifier::{make_credential, quote_holds};

const SECRET: [u8; 32] = [0x5a; 32];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_tpm_with_both_keys_learns_the_activation_secret() {
    let (machine, other) = (Machine::start(0), Machine::start(1));
    for kind in [EkKind::Rsa2048, EkKind::P256] {
        let host = machine.tpm.identity(Some(kind)).await.unwrap();
        let ak = machine.tpm.create_ak(kind).await.unwrap();
        let (credential, encrypted) = make_credential(&host, &ak.public, &SECRET);
        let learnt = machine.tpm.activate(&ak, credential.clone(), encrypted.clone()).await.unwrap();
        assert_eq!(learnt.expose(), &SECRET);

        let second = machine.tpm.create_ak(kind).await.unwrap();
        let refused = machine.tpm.activate(&second, credential.clone(), encrypted.clone()).await;
        assert_eq!(refused.unwrap_err(), TpmError::NotOurs);
        assert_eq!(other.tpm.activate(&ak, credential, encrypted).await.unwrap_err(), TpmError::NotOurs);
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
    let quote = machine.tpm.quote(&ak, SECRET, &pcrs).await.unwrap();
    assert!(quote_holds(&ak.public, &quote, &SECRET));
    assert!(!quote_holds(&ak.public, &quote, &[1; 32]));
    assert_eq!(quote.pcrs.len(), 24);
    assert_eq!(quote.pcrs[4], (4, extended(&[boot_event(4)])));

    machine.swtpm.extend(4, [7; 32]).unwrap();
    let later = machine.tpm.quote(&ak, SECRET, &[4]).await.unwrap();
    assert_eq!(later.pcrs, [(4, extended(&[boot_event(4), [7; 32]]))]);
    assert!(quote_holds(&ak.public, &later, &SECRET));

    for selection in [&[][..], &[24]] {
        let refused = machine.tpm.quote(&ak, SECRET, selection).await;
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
    assert_eq!(after.reset_count, clock.reset_count + 1);
    assert_eq!(tpm.identity(None).await.unwrap(), before);
    assert_eq!(tpm.unseal(&blob).await.unwrap().expose(), &[7; 32]);
    assert_eq!(tpm.unseal_host_secret(&host_secret).await.unwrap().expose(), &[1; 32]);
    let quote = tpm.quote(&ak, SECRET, &[0]).await.unwrap();
    assert!(quote_holds(&ak.public, &quote, &SECRET));
    assert_eq!(quote.pcrs, [(0, [0; 32])]);
    // TPMS_ATTEST ends with resetCount, restartCount, safe, firmwareVersion and the 44 bytes about one register bank.
    let counted = quote.attest.len() - 44 - 8 - 1 - 4 - 4;
    assert_eq!(quote.attest[counted..counted + 4], after.reset_count.to_be_bytes(), "the same counter as in quotes");
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
                        assert!(quote_holds(&ak.public, &quote, &[number; 32]));
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
    _dir: TempDir,
}

impl Machine {
    fn start(index: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = boot(index, dir.path());
        let address = swtpm.tcti().parse().unwrap();
        let config = TpmConfig { address, host_secret_index: TpmConfig::HOST_SECRET_INDEX };
        Self { tpm: TpmHandle::start(config).unwrap(), swtpm, _dir: dir }
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
