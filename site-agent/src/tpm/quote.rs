//! Quotes with the register values that they cover, and the clock.

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::tpm::{Counters, Evidence};
use tss_esapi::Context;
use tss_esapi::abstraction::pcr::PcrData;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{
    Attest, AttestInfo, Data, PcrSelectionList, PcrSelectionListBuilder, PcrSlot, Signature, SignatureScheme,
};
use tss_esapi::traits::Marshall;

use super::chip::{Chip, failed};
use super::keys::load_ak;
use super::raw::u32_at;
use super::{AkBlob, TpmClock, TpmError};

/// Registers may be extended between reading and quoting; under a storm of measurements we give up.
const TRIES: u32 = 8;
/// Registers of a PC client TPM.
const PCRS: u8 = 24;

pub(super) fn quote(chip: &Chip, ak: &AkBlob, qualifying: &[u8; 32], pcrs: &[u8]) -> Result<Evidence, TpmError> {
    let mut wanted = pcrs.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let selection = selection(&wanted)?;
    let qualifying = Data::try_from(qualifying.as_slice()).map_err(|_| TpmError::Malformed("qualifying data"))?;
    chip.connected(|context| {
        let (_, key) = load_ak(context, ak)?;
        for _ in 0..TRIES {
            let values = read(context, &wanted, &selection)?;
            let (attest, signature) = sign(context, key, &qualifying, &selection)?;
            if covers(&attest, &values) {
                let attest = attest.marshall().map_err(|_| TpmError::Malformed("quote"))?;
                let signature = signature.marshall().map_err(|_| TpmError::Malformed("quote"))?;
                return Ok(Evidence { attest, signature, pcrs: values });
            }
        }
        Err(TpmError::Unsteady)
    })
}

pub(super) fn clock(chip: &Chip) -> Result<TpmClock, TpmError> {
    let answer = chip.raw()?.read_clock()?;
    // TPMS_TIME_INFO: time u64, clock u64, resetCount u32, restartCount u32, safe u8.
    let fields = || {
        let counters = Counters {
            clock: u64::from_be_bytes(*answer.get(8..)?.first_chunk()?),
            reset_count: u32_at(&answer, 16)?,
            restart_count: u32_at(&answer, 20)?,
        };
        Some(TpmClock { counters, safe: *answer.get(24)? == 1 })
    };
    fields().ok_or(TpmError::Malformed("clock"))
}

pub(super) fn selection(pcrs: &[u8]) -> Result<PcrSelectionList, TpmError> {
    if pcrs.is_empty() || pcrs.iter().any(|pcr| *pcr >= PCRS) {
        return Err(TpmError::Malformed("register selection"));
    }
    let slots: Vec<_> = pcrs.iter().map(|pcr| slot(*pcr)).collect::<Result<_, _>>()?;
    PcrSelectionListBuilder::new()
        .with_selection(HashingAlgorithm::Sha256, &slots)
        .build()
        .map_err(|_| TpmError::Malformed("register selection"))
}

fn slot(pcr: u8) -> Result<PcrSlot, TpmError> {
    PcrSlot::try_from(1_u32 << pcr).map_err(|_| TpmError::Malformed("register selection"))
}

fn sign(
    context: &mut Context,
    key: KeyHandle,
    qualifying: &Data,
    selection: &PcrSelectionList,
) -> Result<(Attest, Signature), TpmError> {
    context
        .execute_with_nullauth_session(|context| {
            context.quote(key, qualifying.clone(), SignatureScheme::Null, selection.clone())
        })
        .map_err(failed("quote"))
}

/// Reads the registers, at most eight in a command. A TPM without the SHA-256 bank gives none, and must not keep us
/// asking for ever.
fn read(context: &mut Context, pcrs: &[u8], wanted: &PcrSelectionList) -> Result<Vec<(u8, [u8; 32])>, TpmError> {
    let mut left = wanted.clone();
    let mut data = PcrData::new();
    while !left.is_empty() {
        let (_, given, digests) = context
            .execute_without_session(|context| context.pcr_read(left.clone()))
            .map_err(failed("show its registers"))?;
        if digests.is_empty() {
            return Err(TpmError::Malformed("register bank SHA-256"));
        }
        let added = data.add(&given, &digests).and_then(|()| left.subtract(&given));
        added.map_err(|_| TpmError::Malformed("registers"))?;
    }
    let bank = data.pcr_bank(HashingAlgorithm::Sha256).ok_or(TpmError::Malformed("registers"))?;
    let value = |pcr: &u8| {
        let digest = bank.get_digest(slot(*pcr)?).ok_or(TpmError::Malformed("registers"))?;
        Ok((*pcr, digest.value().try_into().map_err(|_| TpmError::Malformed("registers"))?))
    };
    pcrs.iter().map(value).collect()
}

fn covers(attest: &Attest, values: &[(u8, [u8; 32])]) -> bool {
    let AttestInfo::Quote { info } = attest.attested() else { return false };
    let values: Vec<&[u8]> = values.iter().map(|(_, value)| value.as_slice()).collect();
    info.pcr_digest().value() == sha256(&values)
}
