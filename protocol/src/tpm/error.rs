//! Why a TPM structure is refused.

/// Why bytes are no acceptable TPM structure, or a structure is not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// The structure goes on where the bytes end.
    #[error("{needed} bytes are needed where {left} are left")]
    Truncated {
        /// Bytes the next field has.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// Bytes follow the structure.
    #[error("{bytes} bytes follow the structure")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A value that is wrong, or right but nothing this build takes.
    #[error("{what} is {value:#x}, which is not accepted")]
    Unaccepted {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u32,
    },
    /// A buffer of a wrong length.
    #[error("{what} has {len} bytes")]
    Length {
        /// The field.
        what: &'static str,
        /// Its length.
        len: usize,
    },
    /// The coordinates are no point of P-256.
    #[error("the coordinates are no point of the curve P-256")]
    OffCurve,
    /// A key lacks attributes its role demands, or has ones its role forbids (masks of TPMA_OBJECT).
    #[error("key attributes: {missing:#x} missing, {forbidden:#x} not allowed")]
    Attributes {
        /// Demanded and clear.
        missing: u32,
        /// Forbidden and set.
        forbidden: u32,
    },
    /// A key that is used by another policy than it must be.
    #[error("the policy is not the one that such a key has")]
    Policy,
    /// The signature is not the key's over these bytes.
    #[error("the signature does not verify")]
    Signature,
    /// The key that signed is no child of that endorsement key.
    #[error("the signer is not a child of the endorsement key")]
    Hierarchy,
    /// An endorsement key that nothing can be encrypted to.
    #[error("nothing can be encrypted to this endorsement key")]
    Unencryptable,
    /// A certificate that can't be read.
    #[error("the endorsement certificate can't be read")]
    CertificateMalformed,
    /// The certificate is about another key.
    #[error("the endorsement certificate is for another key")]
    CertificateKey,
    /// The certificate is none for an endorsement key.
    #[error("the certificate is not for an endorsement key: {why}")]
    CertificateUse {
        /// What speaks against it.
        why: &'static str,
    },
    /// No trusted authority made the certificate.
    #[error("no trusted authority signed the endorsement certificate")]
    CertificateUntrusted,
    /// The certificate, or the authority's own, is not valid at the time given.
    #[error("valid from {not_before} to {not_after} (seconds since 1970), and it is {now}")]
    CertificateDates {
        /// Begin.
        not_before: i64,
        /// End.
        not_after: i64,
        /// The time given.
        now: i64,
    },
}
