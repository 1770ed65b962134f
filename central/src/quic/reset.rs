//! How hosts hear that central has forgotten their connections: by stateless resets, which need the same key before
//! and after a crash. Without it they would notice by the silence only, half a minute later. It follows from the key of
//! central's distribution CA, so whoever can compute resets could do worse.

use std::sync::Arc;
use std::time::Duration;

use holdfast_actors::ports::{Entropy, draw};
use holdfast_protocol::crypto::hash::{ct_eq, hmac};
use holdfast_protocol::secret::Secret;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};

/// Bytes of a connection's id.
const ID_BYTES: usize = 8;

/// An endpoint whose resets are known by `key`.
pub(super) fn endpoint_config(key: Secret<32>, entropy: &Arc<dyn Entropy>) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(key)));
    let entropy = entropy.clone();
    // The usual ids are recognised only by the process that made them, and others are not answered at all.
    config.cid_generator(move || Box::new(RandomIds(entropy.clone())));
    config
}

struct ResetKey(Secret<32>);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&hmac(self.0.expose(), &[data]));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if ct_eq(&hmac(self.0.expose(), &[data]), signature) { Ok(()) } else { Err(CryptoError) }
    }
}

struct RandomIds(Arc<dyn Entropy>);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&draw::<ID_BYTES>(&*self.0))
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
