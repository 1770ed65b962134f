//! Messages on a QUIC stream: `length u32 BE | postcard`. The length is checked before anything is allocated.

use holdfast_protocol::codec;
use quinn::SendStream;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream or the connection has ended.
    #[error("the connection has ended")]
    Ended,
    /// What came is no message.
    #[error("not a message")]
    Malformed,
}

/// Reads one message of at most `max` bytes.
///
/// # Errors
/// The stream has ended, or what came is no message.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), max: usize) -> Result<T, FrameError> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.map_err(|_| FrameError::Ended)?;
    let length = u32::from_be_bytes(length) as usize;
    if max < length {
        return Err(FrameError::Malformed);
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await.map_err(|_| FrameError::Ended)?;
    codec::decode(&bytes, max).map_err(|_| FrameError::Malformed)
}

/// Writes one message.
pub(crate) async fn write<T: Serialize>(to: &mut SendStream, message: &T) -> Result<(), FrameError> {
    let bytes = codec::encode(message);
    let length = u32::try_from(bytes.len()).map_err(|_| FrameError::Malformed)?;
    to.write_all(&length.to_be_bytes()).await.map_err(|_| FrameError::Ended)?;
    to.write_all(&bytes).await.map_err(|_| FrameError::Ended)
}
