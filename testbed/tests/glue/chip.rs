//! A TPM in software behind the agent's port: what it is given survives its host's crashes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::tpm::soft::SoftTpm;
use holdfast_protocol::tpm::{Counters, Credential, Evidence};
use holdfast_site_agent::chip::{BoxFuture, Chip, SecretChip};
use holdfast_site_agent::tpm::{AkBlob, EkKind, Identity, SealedBlob, TpmError};
use holdfast_site_agent::uplink::dialogue::Quoter;

use crate::dice::Dice;

/// What a software TPM takes for a quote, about.
const QUOTE_TAKES: Duration = Duration::from_millis(40);

pub(crate) struct SimChip(Mutex<Inner>);

struct Inner {
    tpm: SoftTpm,
    sealed: BTreeMap<u64, Vec<u8>>,
    host_secret: Option<(u64, Secret<32>)>,
    made: u64,
}

fn measured(tpm: &mut SoftTpm) {
    (0..=7).for_each(|pcr| tpm.extend(pcr, &[pcr + 1; 32]));
}

impl SimChip {
    /// After its first boot, with the usual measurements.
    pub(crate) fn new(seed: u64, host: &str) -> Self {
        let bytes = Dice::new(seed, &format!("chip of {host}")).bytes();
        let mut tpm = SoftTpm::from_seed(&Secret::fill_with(|into| *into = bytes));
        measured(&mut tpm);
        Self(Mutex::new(Inner { tpm, sealed: BTreeMap::new(), host_secret: None, made: 0 }))
    }

    /// Its machine boots once more, with the usual measurements.
    pub(crate) fn boot(&self) {
        let tpm = &mut self.lock().tpm;
        tpm.pcrs.clear();
        tpm.counters.reset_count += 1;
        measured(tpm);
    }

    /// Something is measured that nobody expects.
    pub(crate) fn tamper(&self) {
        self.lock().tpm.extend(4, &[0xee; 32]);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Inner {
    /// The clock goes with the world.
    fn tell_time(&mut self) {
        let world = turmoil::sim_elapsed().expect("a simulated host");
        self.tpm.counters.clock = u64::try_from(world.as_millis()).unwrap();
    }

    fn blob(&mut self) -> (u64, SealedBlob) {
        self.made += 1;
        (self.made, SealedBlob { public: self.made.to_be_bytes().to_vec(), private: vec![0; 96] })
    }
}

fn number(blob: &SealedBlob) -> Result<u64, TpmError> {
    Ok(u64::from_be_bytes(blob.public.as_slice().try_into().map_err(|_| TpmError::NotOurs)?))
}

impl SecretChip for SimChip {
    fn create<'a>(&'a self, secret: &'a Secret<32>) -> BoxFuture<'a, Result<SealedBlob, TpmError>> {
        Box::pin(async move {
            let mut inner = self.lock();
            let (number, blob) = inner.blob();
            inner.host_secret = Some((number, secret.duplicate()));
            Ok(blob)
        })
    }

    fn open<'a>(&'a self, blob: &'a SealedBlob) -> BoxFuture<'a, Result<Secret<32>, TpmError>> {
        Box::pin(async move {
            let number = number(blob)?;
            match &self.lock().host_secret {
                Some((of, secret)) if *of == number => Ok(secret.duplicate()),
                _ => Err(TpmError::Destroyed),
            }
        })
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), TpmError>> {
        Box::pin(async {
            self.lock().host_secret = None;
            Ok(())
        })
    }

    fn counters(&self) -> BoxFuture<'_, Result<Counters, TpmError>> {
        Box::pin(async {
            let mut inner = self.lock();
            inner.tell_time();
            Ok(inner.tpm.counters)
        })
    }
}

impl Chip for SimChip {
    fn identity(&self, _: Option<EkKind>) -> BoxFuture<'_, Result<Identity, TpmError>> {
        Box::pin(async {
            let ek_public = self.lock().tpm.ek_public().raw().to_vec();
            Ok(Identity { ek_kind: EkKind::P256, ek_public, ek_certificate: None })
        })
    }

    fn create_ak(&self, ek_kind: EkKind) -> BoxFuture<'_, Result<AkBlob, TpmError>> {
        Box::pin(async move {
            let public = self.lock().tpm.ak_public().raw().to_vec();
            Ok(AkBlob { ek_kind, public, private: vec![0; 96] })
        })
    }

    fn activate<'a>(
        &'a self,
        _: &'a AkBlob,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Secret<32>, TpmError>> {
        Box::pin(async move { self.lock().tpm.activate_credential(credential).ok_or(TpmError::NotOurs) })
    }

    fn seal(&self, data: SecretBytes) -> BoxFuture<'_, Result<SealedBlob, TpmError>> {
        Box::pin(async move {
            let mut inner = self.lock();
            let (number, blob) = inner.blob();
            inner.sealed.insert(number, data.expose().to_vec());
            Ok(blob)
        })
    }

    fn unseal<'a>(&'a self, blob: &'a SealedBlob) -> BoxFuture<'a, Result<SecretBytes, TpmError>> {
        Box::pin(async move {
            let number = number(blob)?;
            self.lock().sealed.get(&number).cloned().map(SecretBytes::new).ok_or(TpmError::NotOurs)
        })
    }
}

impl Quoter for SimChip {
    fn quote<'a>(
        &'a self,
        _: &'a AkBlob,
        qualifying: [u8; 32],
        pcrs: &'a [u8],
    ) -> BoxFuture<'a, Result<Evidence, TpmError>> {
        Box::pin(async move {
            tokio::time::sleep(QUOTE_TAKES).await;
            let mut inner = self.lock();
            inner.tell_time();
            Ok(inner.tpm.quote(&qualifying, pcrs))
        })
    }
}
