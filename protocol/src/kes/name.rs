//! Names of keys and policies: 1 to 80 of `0-9A-Za-z_-`, no `-` at either end, and not `_` alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::checked_text;

/// Longest name.
pub const NAME_BYTES_MAX: usize = 80;

/// The text is no name: empty, too long, or with characters that a name has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to {NAME_BYTES_MAX} of 0-9A-Za-z_-, without - at either end, and not _ alone")]
pub struct NameError;

/// Whether a text may be a name.
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    bytes.len() <= NAME_BYTES_MAX
        && bytes.iter().all(|byte| is_of_name(*byte))
        && edge(bytes.first())
        && edge(bytes.last())
        && text != "_"
}

/// Whether a character may stand in a name.
pub fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn check(text: &str) -> Result<(), NameError> {
    if is_name(text) { Ok(()) } else { Err(NameError) }
}

checked_text!(
    /// Names a key.
    KeyName,
    NameError,
    check
);
checked_text!(
    /// Names a policy.
    PolicyName,
    NameError,
    check
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let (longest, too_long) = ("a".repeat(NAME_BYTES_MAX), "a".repeat(NAME_BYTES_MAX + 1));
        for good in ["a", "0", "A", "my-key", "my_key", "_a", "a_", "__", "a--b", "my-key1", &longest] {
            assert_eq!(good.parse::<KeyName>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-", "_", "-a", "a-", "a.b", "a/b", "a b", "a*", "\u{e4}", "a\0", "a\n", "..", &too_long] {
            assert_eq!(bad.parse::<KeyName>(), Err(NameError), "{bad:?}");
            assert_eq!(bad.parse::<PolicyName>(), Err(NameError), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_checked_when_decoded() {
        assert!(serde_json::from_str::<KeyName>("\"my-key\"").is_ok());
        assert!(serde_json::from_str::<KeyName>("\"../x\"").is_err());
    }
}
