//! The appraisal of one quote: a pure function from evidence and expectations to a verdict with its reasons.
//!
//! First what binds the evidence: the key is an attestation key, it signed these very bytes, they are a quote, and the
//! quote answers this question of this session. Only then is anything in them believed, and judged: the clock, the
//! selection, the values, the reference values. Every reason is told, not just the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use holdfast_protocol::crypto::hash::{ct_eq, sha256};
use holdfast_protocol::ids::PolicyVersion;
use holdfast_protocol::tpm::{Attest, Public, Selection, TpmError, alg, verify_signature};
pub use holdfast_protocol::tpm::{Counters, Evidence};

/// PCRs a TPM of the PC client profile has.
const PCRS: u8 = 24;
/// PCRs that firmware (0) and boot loader (4) always extend: all-zero means measured boot did not happen.
const NEVER_ZERO: [u8; 2] = [0, 4];

/// What a site's hosts must show, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Which version of the site's policy this is; a quote commits to it.
    pub version: PolicyVersion,
    /// PCRs of the SHA-256 bank that are quoted.
    pub pcrs: BTreeSet<u8>,
    /// Milliseconds between quotes.
    pub interval_ms: u64,
    /// Milliseconds a passing verdict lasts.
    pub verdict_ttl_ms: u64,
    /// Whether a failed appraisal is a quarantine at once.
    pub quarantine_on_failure: bool,
    /// Whether PCRs without reference values take them from the first pass.
    pub learn: bool,
}

/// Why a policy can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A quote of nothing shows nothing.
    #[error("a policy names at least one PCR")]
    NoPcr,
    /// No TPM has this PCR.
    #[error("there is no PCR {0}")]
    UnknownPcr(u8),
    /// Verdicts would lapse between two quotes, or never be made.
    #[error("a verdict must outlast the interval between quotes, and the interval be more than nothing")]
    Interval,
}

impl Policy {
    /// Checks what types can't.
    ///
    /// # Errors
    /// No PCR, one that does not exist, or times that can't work.
    pub fn check(&self) -> Result<(), PolicyError> {
        match self.pcrs.last() {
            None => return Err(PolicyError::NoPcr),
            Some(last) if *last >= PCRS => return Err(PolicyError::UnknownPcr(*last)),
            Some(_) => {}
        }
        let lasts = self.interval_ms > 0 && self.verdict_ttl_ms > self.interval_ms;
        if lasts { Ok(()) } else { Err(PolicyError::Interval) }
    }

    /// How long a passing verdict lasts.
    pub fn verdict_ttl(&self) -> Duration {
        Duration::from_millis(self.verdict_ttl_ms)
    }

    /// The interval less up to a tenth, told by `spread` (any number that differs between hosts), so that hosts which
    /// came together do not quote together for ever. Never longer than the interval.
    pub fn jittered_interval(&self, spread: u64) -> Duration {
        let [high, low, ..] = sha256(&[&spread.to_be_bytes()]);
        let part = u64::from(u16::from_be_bytes([high, low]));
        let less = u128::from(self.interval_ms) * u128::from(part) / 10 / u128::from(u16::MAX);
        Duration::from_millis(self.interval_ms - u64::try_from(less).expect("a tenth of the interval"))
    }
}

/// Values each PCR may have. A PCR with none has not been learned yet; several stand side by side while a fleet moves
/// from one boot chain to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceValues(pub BTreeMap<u8, BTreeSet<[u8; 32]>>);

impl ReferenceValues {
    /// The values `pcr` may have; `None` when nothing is known of it.
    fn of(&self, pcr: u8) -> Option<&BTreeSet<[u8; 32]>> {
        self.0.get(&pcr).filter(|values| !values.is_empty())
    }

    /// Whether a pass by this policy would have something to learn.
    pub fn are_learned_by(&self, policy: &Policy) -> bool {
        policy.learn && policy.pcrs.iter().any(|pcr| self.of(*pcr).is_none())
    }

    /// Allows these besides.
    pub fn extend(&mut self, others: &Self) {
        for (pcr, values) in &others.0 {
            self.0.entry(*pcr).or_default().extend(values);
        }
    }

    /// Allows one more value.
    pub fn allow(&mut self, pcr: u8, value: [u8; 32]) {
        self.0.entry(pcr).or_default().insert(value);
    }
}

/// What this very quote must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The key pinned at enrolment.
    pub ak: &'a Public,
    /// Hash of the session's transcript, see `protocol::tpm::binding`.
    pub qualifying_data: [u8; 32],
}

/// One thing that speaks against a host; shown to operators as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The key may not attest.
    Key(TpmError),
    /// The signature is missing, malformed or not the key's.
    Signature(TpmError),
    /// What was signed is no quote.
    Quote(TpmError),
    /// A quote for another question, session, host or time.
    QualifyingData,
    /// Not the PCRs that were asked for, or in another bank.
    Selection {
        /// What was quoted.
        quoted: Vec<Selection>,
    },
    /// The values reported beside the quote are not those of the selection.
    Values,
    /// The values reported are not the ones that were quoted.
    Digest,
    /// A PCR that measured boot always extends was never extended.
    Zero {
        /// Index.
        pcr: u8,
    },
    /// A value that is not allowed.
    NotAllowed {
        /// Index.
        pcr: u8,
        /// Its value.
        value: [u8; 32],
    },
    /// A PCR with no reference values, where none are learned.
    Unknown {
        /// Index.
        pcr: u8,
    },
    /// The TPM has been reset less often than before: cleared, or another.
    ResetCount {
        /// What it told last time.
        last: u32,
        /// What it tells now.
        now: u32,
    },
    /// Fewer restarts since the same reset than before.
    RestartCount {
        /// What it told last time.
        last: u32,
        /// What it tells now.
        now: u32,
    },
    /// The clock went back.
    Clock {
        /// Milliseconds it told last time.
        last: u64,
        /// Milliseconds it tells now.
        now: u64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => write!(f, "the key may not attest: {error}"),
            Self::Signature(error) => write!(f, "the quote is not signed by the host's attestation key: {error}"),
            Self::Quote(error) => write!(f, "what was signed is no quote: {error}"),
            Self::QualifyingData => f.write_str("the quote was not made for this session and question"),
            Self::Selection { quoted } => {
                f.write_str("the quote is not about the PCRs that were asked for, but about")?;
                if quoted.is_empty() {
                    f.write_str(" none")?;
                }
                quoted.iter().try_for_each(|s| write!(f, " bank {:#06x} {:?}", s.bank, s.pcrs))
            }
            Self::Values => f.write_str("the values reported are not of the PCRs that were asked for, ascending"),
            Self::Digest => f.write_str("the values reported are not the ones that were quoted"),
            Self::Zero { pcr } => write!(f, "PCR {pcr} is zero: boot was not measured"),
            Self::NotAllowed { pcr, value } => {
                write!(f, "PCR {pcr} is not one of the reference values: {}", hex::encode(value))
            }
            Self::Unknown { pcr } => write!(f, "PCR {pcr} has no reference values"),
            Self::ResetCount { last, now } => write!(f, "the TPM's reset count went back from {last} to {now}"),
            Self::RestartCount { last, now } => write!(f, "the TPM's restart count went back from {last} to {now}"),
            Self::Clock { last, now } => write!(f, "the TPM's clock went back from {last} to {now} ms"),
        }
    }
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether nothing speaks against the host.
    pub passed: bool,
    /// Everything that does.
    pub reasons: Vec<Reason>,
    /// What the TPM tells of its time; `None` unless the quote is bound. To be kept after a failure too: leaving
    /// `untrusted` takes a higher reset count than this.
    pub counters: Option<Counters>,
    /// SHA-256 of the attestation as received.
    pub quote_digest: [u8; 32],
    /// Whether the TPM vouches for its clock; recorded, not judged.
    pub safe: bool,
    /// After a pass: values of registers of which nothing was known, if there are any.
    pub learned: Option<ReferenceValues>,
}

impl Verdict {
    /// Whether the evidence is a quote by this host's key for this session at all. A failure without it says nothing of
    /// the host's software: whoever speaks here has no such quote.
    pub fn bound(&self) -> bool {
        self.counters.is_some()
    }
}

/// Judges `evidence`. `last` are the counters of this host's last bound quote, under the same attestation key.
pub fn appraise(
    evidence: &Evidence,
    policy: &Policy,
    reference: &ReferenceValues,
    last: Option<&Counters>,
    expected: &Expected,
) -> Verdict {
    let quote_digest = sha256(&[&evidence.attest]);
    match bind(evidence, expected) {
        Ok(attest) => judge(&attest, evidence, policy, reference, last, quote_digest),
        Err(reason) => {
            Verdict { passed: false, reasons: vec![reason], counters: None, quote_digest, safe: false, learned: None }
        }
    }
}

/// The signature goes first: the parser sees only bytes that the pinned key signed.
fn bind(evidence: &Evidence, expected: &Expected) -> Result<Attest, Reason> {
    expected.ak.check_ak().map_err(Reason::Key)?;
    verify_signature(expected.ak, &evidence.attest, &evidence.signature).map_err(Reason::Signature)?;
    let attest = Attest::parse(&evidence.attest).map_err(Reason::Quote)?;
    let ours = ct_eq(&attest.extra_data, &expected.qualifying_data);
    if ours { Ok(attest) } else { Err(Reason::QualifyingData) }
}

fn judge(
    attest: &Attest,
    evidence: &Evidence,
    policy: &Policy,
    reference: &ReferenceValues,
    last: Option<&Counters>,
    quote_digest: [u8; 32],
) -> Verdict {
    let mut reasons: Vec<Reason> = last.and_then(|last| went_back(last, &attest.counters)).into_iter().collect();
    // Values are judged only once they are known to be the quoted ones.
    match quoted_values(attest, evidence, policy) {
        Ok(values) => reasons.extend(judge_values(values, policy, reference)),
        Err(reason) => reasons.push(reason),
    }
    let passed = reasons.is_empty();
    let learned = if passed && policy.learn { learn(&evidence.pcrs, reference) } else { None };
    Verdict { passed, reasons, counters: Some(attest.counters), quote_digest, safe: attest.safe, learned }
}

/// A reset makes the restart count 0, and may set the clock back to when it was last saved: each is compared only
/// where what ranks before it is equal.
fn went_back(last: &Counters, now: &Counters) -> Option<Reason> {
    if now >= last {
        return None;
    }
    Some(if now.reset_count != last.reset_count {
        Reason::ResetCount { last: last.reset_count, now: now.reset_count }
    } else if now.restart_count != last.restart_count {
        Reason::RestartCount { last: last.restart_count, now: now.restart_count }
    } else {
        Reason::Clock { last: last.clock, now: now.clock }
    })
}

fn quoted_values<'a>(attest: &Attest, evidence: &'a Evidence, policy: &Policy) -> Result<&'a [(u8, [u8; 32])], Reason> {
    let asked = policy.pcrs.iter();
    let selected = match attest.selections.as_slice() {
        [Selection { bank: alg::SHA256, pcrs }] => asked.clone().eq(pcrs),
        _ => false,
    };
    if !selected {
        return Err(Reason::Selection { quoted: attest.selections.clone() });
    }
    if !asked.eq(evidence.pcrs.iter().map(|(pcr, _)| pcr)) {
        return Err(Reason::Values);
    }
    let parts: Vec<&[u8]> = evidence.pcrs.iter().map(|(_, value)| value.as_slice()).collect();
    if attest.pcr_digest == sha256(&parts) { Ok(&evidence.pcrs) } else { Err(Reason::Digest) }
}

fn judge_values(values: &[(u8, [u8; 32])], policy: &Policy, reference: &ReferenceValues) -> Vec<Reason> {
    let judge = |(pcr, value): &(u8, [u8; 32])| {
        let (pcr, value) = (*pcr, *value);
        if NEVER_ZERO.contains(&pcr) && value == [0; 32] {
            return Some(Reason::Zero { pcr });
        }
        match reference.of(pcr) {
            Some(allowed) if allowed.contains(&value) => None,
            Some(_) => Some(Reason::NotAllowed { pcr, value }),
            None if policy.learn => None,
            None => Some(Reason::Unknown { pcr }),
        }
    };
    values.iter().filter_map(judge).collect()
}

fn learn(values: &[(u8, [u8; 32])], reference: &ReferenceValues) -> Option<ReferenceValues> {
    let mut learned = ReferenceValues::default();
    for (pcr, value) in values.iter().filter(|(pcr, _)| reference.of(*pcr).is_none()) {
        learned.allow(*pcr, *value);
    }
    (learned != ReferenceValues::default()).then_some(learned)
}

#[cfg(test)]
mod tests;
