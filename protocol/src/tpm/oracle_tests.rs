//! Our parsers beside an independent one, on mutated bytes of a real TPM: what ours takes, that takes too and reads
//! the same; nothing panics.

use proptest::prelude::*;
use tpm2_protocol::data::{TpmsAttest, TpmtPublic, TpmuAttest};
use tpm2_protocol::{TpmField, TpmUnmarshal};

use crate::tpm::fixtures::{AK_P256, AK_RSA, EK_P256, EK_RSA, QUOTE_P256, QUOTE_RSA, bytes};
use crate::tpm::{Attest, Public};

/// Bytes of a real structure with some of them changed, cut or followed by others.
fn mutated(of: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    let more = prop::collection::vec(any::<u8>(), 0..3);
    (prop::sample::select(of), changes, cut, more).prop_map(|(of, changes, cut, more)| {
        let mut bytes = bytes(of);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(more);
        bytes
    })
}

fn agree_on_attest(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(ours) = Attest::parse(bytes) else { return Ok(()) };
    let theirs = TpmsAttest::unmarshal(bytes);
    prop_assert!(theirs.is_ok(), "only we took {ours:?}: {:?}", theirs.err());
    let (theirs, rest) = theirs.unwrap();
    prop_assert!(rest.is_empty());
    prop_assert_eq!(theirs.qualified_signer.as_ref(), &ours.qualified_signer[..]);
    prop_assert_eq!(theirs.extra_data.as_ref(), &ours.extra_data[..]);
    let clock = theirs.clock_info;
    let counters = (clock.reset_count.value(), clock.restart_count.value(), clock.clock.value());
    prop_assert_eq!(counters, (ours.counters.reset_count, ours.counters.restart_count, ours.counters.clock));
    prop_assert_eq!((bool::from(clock.safe), theirs.firmware_version.value()), (ours.safe, ours.firmware));
    let TpmuAttest::Quote(quote) = theirs.attested else { panic!("only we read a quote: {ours:?}") };
    prop_assert_eq!(quote.pcr_digest.as_ref(), &ours.pcr_digest[..]);
    prop_assert_eq!(quote.pcr_select.len(), ours.selections.len());
    Ok(())
}

fn agree_on_public(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(ours) = Public::parse(bytes) else { return Ok(()) };
    let theirs = TpmtPublic::cast_prefix_field(bytes);
    prop_assert!(theirs.is_ok(), "only we took {ours:?}: {:?}", theirs.err());
    let (theirs, rest) = theirs.unwrap();
    prop_assert!(rest.is_empty());
    prop_assert_eq!(theirs.object_attributes.bits(), ours.attributes);
    Ok(())
}

#[test]
fn real_structures_are_taken_by_both() {
    for quote in [QUOTE_P256, QUOTE_RSA] {
        assert!(Attest::parse(&bytes(quote)).is_ok());
        agree_on_attest(&bytes(quote)).unwrap();
    }
    for public in [EK_P256, AK_P256, EK_RSA, AK_RSA] {
        assert!(Public::parse(&bytes(public)).is_ok());
        agree_on_public(&bytes(public)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_we_take_as_a_quote_the_other_parser_takes_too(bytes in mutated(&[QUOTE_P256, QUOTE_RSA])) {
        agree_on_attest(&bytes)?;
    }

    #[test]
    fn what_we_take_as_a_key_the_other_parser_takes_too(bytes in mutated(&[EK_P256, AK_P256, EK_RSA, AK_RSA])) {
        agree_on_public(&bytes)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Attest::parse(&bytes);
        let _ = Public::parse(&bytes);
        let _ = crate::tpm::ek_cert::trim(&bytes);
    }
}
