//! What must hold for every value in the bounded encoding (`protocol::codec`), whatever its type.

use holdfast_protocol::codec::{self, DecodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Decodes `bytes`. What is taken must be taken alone (not with a byte more, not with one less, not above the bound), and
/// what is written of it must be read as the same and be no longer.
///
/// The encoding has more than one spelling of a number (a varint with zeros behind), so the bytes themselves need not
/// come back; nothing compares or hashes bytes that it did not receive as they are.
pub(crate) fn reread<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Option<T> {
    let value: T = codec::decode(bytes, max).ok()?;
    assert!(bytes.len() <= max, "{} bytes were taken where {max} are allowed", bytes.len());
    let written = codec::encode(&value);
    assert!(written.len() <= bytes.len(), "{} bytes became {}", bytes.len(), written.len());
    let again: T = codec::decode(&written, max).expect("what we write is read");
    assert_eq!(codec::encode(&again), written, "a value changed on its way");
    assert_alone::<T>(bytes, max);
    Some(value)
}

fn assert_alone<T: DeserializeOwned>(bytes: &[u8], max: usize) {
    let longer = [bytes, &[0]].concat();
    let refused =
        if max < longer.len() { DecodeError::TooLong { len: longer.len(), max } } else { DecodeError::Trailing };
    assert_eq!(codec::decode::<T>(&longer, max).err(), Some(refused), "a byte followed");
    if let Some((_, shorter)) = bytes.split_last() {
        assert!(codec::decode::<T>(shorter, max).is_err(), "the last byte was not needed");
    }
    if let Some(short) = bytes.len().checked_sub(1) {
        let refused = DecodeError::TooLong { len: bytes.len(), max: short };
        assert_eq!(codec::decode::<T>(bytes, short).err(), Some(refused), "longer than allowed");
    }
}
