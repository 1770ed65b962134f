//! Random bytes of the system.

use holdfast_protocol::pki::issue::Serial;
use holdfast_protocol::secret::Secret;

use crate::failure::Failure;

/// As many as are asked for.
pub(crate) fn random<const N: usize>() -> Result<Secret<N>, Failure> {
    let mut outcome = Ok(());
    let secret = Secret::fill_with(|into| outcome = getrandom::fill(into));
    outcome.map_err(|error| Failure::unfit(format!("the system gives no randomness: {error}")))?;
    Ok(secret)
}

/// The number of a certificate.
pub(crate) fn serial() -> Result<Serial, Failure> {
    Ok(Serial(*Secret::<16>::expose(&random()?)))
}
