//! Messages encrypted under the key of one session, central to host.
//!
//! Associated data: length-prefixed (domain string, site, host, counter u64 BE). The counter starts at 0 and each message
//! must carry exactly the next one, so none can be dropped, repeated or moved to another session or host.

use zeroize::Zeroizing;

use crate::codec::{self, DecodeError, length_prefixed};
use crate::envelope::{self, EnvelopeError};
use crate::ids::HostId;
use crate::limits::FRAME_BYTES_MAX;
use crate::secret::Secret;
use crate::wire::Sealed;

const DOMAIN: &[u8] = b"holdfast/session/v1";
/// A session has one key.
const KEY_ID: u32 = 1;

/// Why a message is not taken; the session is over then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Not the message that comes next.
    #[error("message {received} of a session came where {expected} is due")]
    OutOfOrder {
        /// The number it came with.
        received: u64,
        /// The number that is due.
        expected: u64,
    },
    /// Not encrypted for this session, host and number.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Encrypted for us, but no message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Encrypts message number `counter` of a session to `host`; `nonce` is fresh.
pub fn seal_message(key: &Secret<32>, nonce: [u8; 24], host: &HostId, counter: u64, message: &Sealed) -> Vec<u8> {
    let plain = Zeroizing::new(codec::encode(message));
    envelope::seal(key, KEY_ID, nonce, &aad(host, counter), &plain)
}

/// Decrypts the message that came as number `counter`, when `expected` is due.
///
/// # Errors
/// Another number, another session, or no message.
pub fn open_message(
    key: &Secret<32>,
    host: &HostId,
    expected: u64,
    counter: u64,
    bytes: &[u8],
) -> Result<Sealed, SessionError> {
    if counter != expected {
        return Err(SessionError::OutOfOrder { received: counter, expected });
    }
    let plain = envelope::open(|id| (id == KEY_ID).then_some(key), &aad(host, counter), bytes)?;
    Ok(codec::decode(plain.expose(), FRAME_BYTES_MAX)?)
}

fn aad(host: &HostId, counter: u64) -> Vec<u8> {
    length_prefixed(&[DOMAIN, host.site.as_str().as_bytes(), host.host.as_str().as_bytes(), &counter.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SealEpoch;
    use crate::wire::SealKey;

    fn secret(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    fn host(name: &str) -> HostId {
        HostId { site: "udc1".parse().unwrap(), host: name.parse().unwrap() }
    }

    #[test]
    fn a_message_opens_only_in_its_session_and_place() {
        let message = Sealed::Rewrap(SealKey { epoch: SealEpoch(3), key: secret(7) });
        let bytes = seal_message(&secret(1), [9; 24], &host("udc1-001"), 4, &message);
        let opened = open_message(&secret(1), &host("udc1-001"), 4, 4, &bytes).unwrap();
        assert!(matches!(opened, Sealed::Rewrap(SealKey { epoch: SealEpoch(3), key }) if key.ct_eq(&secret(7))));
        let unopened = SessionError::Envelope(EnvelopeError::Unopened);
        let refused =
            |key, name, counter| open_message(&secret(key), &host(name), counter, counter, &bytes).unwrap_err();
        assert_eq!(refused(2, "udc1-001", 4), unopened);
        assert_eq!(refused(1, "udc1-002", 4), unopened);
        assert_eq!(refused(1, "udc1-001", 5), unopened);
    }

    #[test]
    fn messages_are_taken_in_their_order_only() {
        let message = Sealed::Rewrap(SealKey { epoch: SealEpoch(3), key: secret(7) });
        let bytes = seal_message(&secret(1), [9; 24], &host("udc1-001"), 4, &message);
        for expected in [3, 5] {
            assert_eq!(
                open_message(&secret(1), &host("udc1-001"), expected, 4, &bytes).unwrap_err(),
                SessionError::OutOfOrder { received: 4, expected }
            );
        }
    }
}
