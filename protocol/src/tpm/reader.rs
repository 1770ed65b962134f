//! Reads big-endian TPM structures; every step is checked against what is left.

use crate::tpm::{TpmError, alg};

/// The unread rest of a structure.
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], TpmError> {
        let split = self.left.split_at_checked(len);
        let (head, tail) = split.ok_or(TpmError::Truncated { needed: len, left: self.left.len() })?;
        self.left = tail;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, TpmError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, TpmError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, TpmError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, TpmError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: two bytes of length, then as many bytes; at most `max` are taken.
    pub(super) fn sized(&mut self, what: &'static str, max: usize) -> Result<&'a [u8], TpmError> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(TpmError::Length { what, len });
        }
        self.take(len)
    }

    /// A field that has one acceptable value.
    pub(super) fn expect_u16(&mut self, what: &'static str, accepted: u16) -> Result<(), TpmError> {
        match self.u16()? {
            value if value == accepted => Ok(()),
            value => Err(TpmError::Unaccepted { what, value: value.into() }),
        }
    }

    /// The identifier of a hash; only what no TPM has is refused here.
    pub(super) fn hash(&mut self) -> Result<u16, TpmError> {
        match self.u16()? {
            hash @ (alg::SHA1 | alg::SHA256 | alg::SHA384 | alg::SHA512 | alg::SM3_256) => Ok(hash),
            hash @ alg::SHA3_256..=alg::SHA3_512 => Ok(hash),
            value => Err(TpmError::Unaccepted { what: "hash", value: value.into() }),
        }
    }

    pub(super) fn end(self) -> Result<(), TpmError> {
        if self.left.is_empty() { Ok(()) } else { Err(TpmError::Trailing { bytes: self.left.len() }) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TpmError> {
        let split = self.left.split_first_chunk();
        let (head, tail) = split.ok_or(TpmError::Truncated { needed: N, left: self.left.len() })?;
        self.left = tail;
        Ok(*head)
    }
}

/// A big integer of at most 32 bytes, padded to 32: some TPMs strip leading zeros.
pub(super) fn pad32(what: &'static str, bytes: &[u8]) -> Result<[u8; 32], TpmError> {
    let mut padded = [0; 32];
    let start = padded.len().checked_sub(bytes.len()).ok_or(TpmError::Length { what, len: bytes.len() })?;
    padded[start..].copy_from_slice(bytes);
    Ok(padded)
}

/// Appends a TPM2B.
pub(super) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).expect("TPM buffers are short").to_be_bytes());
    out.extend_from_slice(bytes);
}
