//! Values to bytes and back: postcard, bounded, and never with trailing bytes.

use postcard::ser_flavors::Size;
use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than this kind of value may have.
    #[error("{len} bytes are more than the {max} allowed")]
    TooLong {
        /// Bytes offered.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not an encoding of the expected type.
    #[error("not a valid encoding")]
    Malformed,
    /// A value, followed by something else.
    #[error("bytes follow the value")]
    Trailing,
    /// Written by a version this build does not know.
    #[error("version {0} is not known")]
    Version(u8),
}

/// Encodes; the types of this workspace can't fail to. The bytes are allocated whole: a buffer that grows would leave
/// what it held, perhaps a key, behind in memory at each step.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    const SERIALISABLE: &str = "our types have no unserialisable member";
    let len = postcard::serialize_with_flavor(value, Size::default()).expect(SERIALISABLE);
    postcard::to_extend(value, Vec::with_capacity(len)).expect(SERIALISABLE)
}

/// Decodes exactly one value of at most `max` bytes.
///
/// # Errors
/// Too long, malformed, or followed by further bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(DecodeError::Trailing),
        Err(_) => Err(DecodeError::Malformed),
    }
}

/// Decodes the first members of a value of at most `max` bytes, and nothing of what follows.
///
/// # Errors
/// Too long, or malformed.
pub fn decode_beginning<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    postcard::take_from_bytes(bytes).map(|(value, _)| value).map_err(|_| DecodeError::Malformed)
}

/// Joins `parts`, each behind its 4-byte big-endian length, so that no two lists of parts give the same bytes.
pub fn length_prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.len() + 4).sum());
    for part in parts {
        out.extend_from_slice(&prefix(part));
        out.extend_from_slice(part);
    }
    out
}

/// What [`length_prefixed`] puts before a part.
pub(crate) fn prefix(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).expect("a part is far below 4 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_and_oversized_bytes_are_refused() {
        let mut bytes = encode(&(7u32, "x"));
        assert_eq!(decode::<(u32, String)>(&bytes, 16), Ok((7, "x".into())));
        assert_eq!(decode::<(u32, String)>(&bytes, 2), Err(DecodeError::TooLong { len: 3, max: 2 }));
        bytes.push(0);
        assert_eq!(decode::<(u32, String)>(&bytes, 16), Err(DecodeError::Trailing));
        assert_eq!(decode::<(u32, String)>(&bytes[..2], 16), Err(DecodeError::Malformed));
        assert_eq!(decode_beginning::<u32>(&bytes, 16), Ok(7));
        assert_eq!(decode_beginning::<u32>(&bytes, 3), Err(DecodeError::TooLong { len: 4, max: 3 }));
        assert_eq!(decode_beginning::<u32>(&[], 16), Err(DecodeError::Malformed));
    }

    #[test]
    fn what_is_encoded_was_allocated_whole() {
        for len in [0, 1, 7, 8, 9, 100, 1000] {
            let bytes = encode(&(vec![7u8; len], "x"));
            assert_eq!(bytes.capacity(), bytes.len());
        }
    }

    #[test]
    fn length_prefixes_tell_parts_apart() {
        assert_ne!(length_prefixed(&[b"ab", b"c"]), length_prefixed(&[b"a", b"bc"]));
    }
}
