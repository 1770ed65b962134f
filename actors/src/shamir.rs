//! Shamir's secret sharing of 32-byte keys, bytewise over GF(2^8) with the polynomial 0x11D: the field in which the
//! shares of Strongbox are made (not AES's 0x11B).
//!
//! Too few or wrong shares combine to garbage, not to an error: callers judge each share by its digest and the result
//! by a check value.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_protocol::secret::Secret;
use zeroize::Zeroizing;

/// Characters of 32 bytes in padded base64.
const BASE64_CHARS: usize = 44;

/// Why shares can't be made, read or combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShamirError {
    /// Not `2 <= threshold <= shares`.
    #[error("{threshold} of {shares} is no threshold")]
    Threshold {
        /// Shares needed.
        threshold: u8,
        /// Shares made.
        shares: u8,
    },
    /// Splitting takes one coefficient less than the threshold.
    #[error("{given} coefficients where {needed} are needed")]
    Coefficients {
        /// Coefficients given.
        given: usize,
        /// Coefficients needed.
        needed: usize,
    },
    /// Fewer shares than the threshold.
    #[error("{given} shares where {needed} are needed")]
    TooFew {
        /// Shares given.
        given: usize,
        /// Shares needed.
        needed: u8,
    },
    /// Two shares with one index.
    #[error("share {0} is given twice")]
    Twice(u8),
    /// Not of the form `x:base64(32 bytes)` with x from 1 to 255.
    #[error("a share reads x:base64, with x from 1 to 255 and 32 bytes")]
    Text,
}

/// How many shares are made and how many of them give the secret back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidThreshold {
    threshold: u8,
    shares: u8,
}

impl ValidThreshold {
    /// `threshold` of `shares`.
    ///
    /// # Errors
    /// A threshold below 2 (each share would be the secret) or above the number of shares.
    pub fn new(threshold: u8, shares: u8) -> Result<Self, ShamirError> {
        if threshold < 2 || threshold > shares {
            return Err(ShamirError::Threshold { threshold, shares });
        }
        Ok(Self { threshold, shares })
    }

    /// More than half of them. Of a single one that is the one: then the share is the secret, and whoever keeps it knows
    /// that. `None` of none.
    pub fn majority(shares: u8) -> Option<Self> {
        (shares != 0).then_some(Self { threshold: shares / 2 + 1, shares })
    }

    /// Shares needed.
    pub fn threshold(self) -> u8 {
        self.threshold
    }

    /// Shares made.
    pub fn shares(self) -> u8 {
        self.shares
    }
}

/// One point of the 32 polynomials.
pub struct Share {
    x: u8,
    y: Secret<32>,
}

impl Share {
    /// The share at `x`; there is none at 0, where the secret lies.
    pub fn new(x: u8, y: Secret<32>) -> Option<Self> {
        (x != 0).then_some(Self { x, y })
    }

    /// Its index, which is no secret.
    pub fn x(&self) -> u8 {
        self.x
    }

    /// Its bytes.
    pub fn y(&self) -> &Secret<32> {
        &self.y
    }

    /// `x:base64`, as operators keep it; erased when dropped.
    pub fn expose_text(&self) -> Zeroizing<String> {
        // Allocated whole, so that growing leaves no copy behind.
        let mut text = Zeroizing::new(String::with_capacity(4 + BASE64_CHARS));
        text.push_str(&self.x.to_string());
        text.push(':');
        STANDARD.encode_string(self.y.expose(), &mut text);
        text
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({}:[redacted])", self.x)
    }
}

impl FromStr for Share {
    type Err = ShamirError;

    fn from_str(text: &str) -> Result<Self, ShamirError> {
        let (x, y) = text.split_once(':').ok_or(ShamirError::Text)?;
        let plain = !x.is_empty() && !x.starts_with('0') && x.bytes().all(|b| b.is_ascii_digit());
        let x = if plain { x.parse().map_err(|_| ShamirError::Text)? } else { return Err(ShamirError::Text) };
        Self::new(x, decode_key(y).ok_or(ShamirError::Text)?).ok_or(ShamirError::Text)
    }
}

/// Reads a 32-byte key in padded standard base64, the form of seal keys and of a share's bytes.
pub fn decode_key(text: &str) -> Option<Secret<32>> {
    // `decode_slice` wants room for its estimate, which is above 32.
    let mut buffer = Zeroizing::new([0u8; 36]);
    if text.len() != BASE64_CHARS {
        return None;
    }
    let len = STANDARD.decode_slice(text, buffer.as_mut_slice()).ok()?;
    Secret::from_slice(buffer.get(..len)?)
}

/// Enough shares for a threshold, each with an index of its own.
#[derive(Debug)]
pub struct ValidShares(Vec<Share>);

impl ValidShares {
    /// Checks number and indices.
    ///
    /// # Errors
    /// Too few, or an index twice.
    pub fn new(threshold: ValidThreshold, shares: Vec<Share>) -> Result<Self, ShamirError> {
        if shares.len() < usize::from(threshold.threshold) {
            return Err(ShamirError::TooFew { given: shares.len(), needed: threshold.threshold });
        }
        let mut seen = [false; 256];
        for share in &shares {
            if std::mem::replace(&mut seen[usize::from(share.x)], true) {
                return Err(ShamirError::Twice(share.x));
            }
        }
        Ok(Self(shares))
    }
}

/// Splits `secret` into shares 1 to n. `coefficients` are fresh random secrets, one less than the threshold, never
/// used again.
///
/// # Errors
/// Another number of coefficients.
pub fn split(
    secret: &Secret<32>,
    threshold: ValidThreshold,
    coefficients: &[Secret<32>],
) -> Result<Vec<Share>, ShamirError> {
    let needed = usize::from(threshold.threshold) - 1;
    if coefficients.len() != needed {
        return Err(ShamirError::Coefficients { given: coefficients.len(), needed });
    }
    Ok((1..=threshold.shares).map(|x| Share { x, y: evaluate(secret, coefficients, x) }).collect())
}

/// The value at `x` of the polynomials with the constant terms `secret`, by Horner's rule.
fn evaluate(secret: &Secret<32>, coefficients: &[Secret<32>], x: u8) -> Secret<32> {
    Secret::fill_with(|into| {
        for (at, y) in into.iter_mut().enumerate() {
            for coefficient in coefficients.iter().rev() {
                *y = multiply(*y ^ coefficient.expose()[at], x);
            }
            *y ^= secret.expose()[at];
        }
    })
}

/// The secret: the value at 0 of the polynomials through all the shares.
pub fn combine(shares: &ValidShares) -> Secret<32> {
    Secret::fill_with(|into| {
        for share in &shares.0 {
            let weight = weight_at_zero(share.x, &shares.0);
            for (sum, y) in into.iter_mut().zip(share.y.expose()) {
                *sum ^= multiply(weight, *y);
            }
        }
    })
}

/// Lagrange's weight at 0 of the share at `x`: the product of `m / (m - x)` over the others' indices m.
fn weight_at_zero(x: u8, shares: &[Share]) -> u8 {
    let others = shares.iter().map(|s| s.x).filter(|m| *m != x);
    others.fold(1, |weight, m| multiply(weight, multiply(m, invert(m ^ x))))
}

/// Product in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11D): no table and no branch that depends on an operand.
fn multiply(mut a: u8, b: u8) -> u8 {
    let mut product = 0;
    for bit in 0..8 {
        product ^= a & (b >> bit & 1).wrapping_neg();
        a = (a << 1) ^ (0x1D & (a >> 7).wrapping_neg());
    }
    product
}

/// The inverse: `a^254`.
fn invert(a: u8) -> u8 {
    let mut power = a;
    let mut inverse = 1;
    for _ in 0..7 {
        power = multiply(power, power);
        inverse = multiply(inverse, power);
    }
    inverse
}

#[cfg(test)]
mod tests;
