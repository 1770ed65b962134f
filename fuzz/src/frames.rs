//! Streams of a connection, as both ends read them: message by message, until one is none.

use holdfast_central::quic::frames::{FrameError, read};
use holdfast_protocol::codec;
use holdfast_protocol::limits::{ENROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use holdfast_protocol::wire::{EnrolAnswer, EnrolRequest, FromCentral, FromHost};
use holdfast_site_agent::quic::{Unread, frame};
use serde::de::DeserializeOwned;

use crate::{Memory, choose, chosen, corpus};

/// Room for a whole frame is made when its length is known: of peers with a certificate 2 MiB.
pub const MEMORY: Memory = Memory { fixed: (FRAME_BYTES_MAX + (64 << 10)) as u64, each: 256 };

/// Reads `data` as a stream of the kind that its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    runtime.block_on(async {
        match which % 4 {
            0 => at_central::<EnrolRequest>(bytes, ENROL_FRAME_BYTES_MAX).await,
            1 => at_central::<FromHost>(bytes, FRAME_BYTES_MAX).await,
            2 => at_a_host::<EnrolAnswer>(bytes, ENROL_FRAME_BYTES_MAX).await,
            _ => at_a_host::<FromCentral>(bytes, FRAME_BYTES_MAX).await,
        }
    });
}

async fn at_central<T: DeserializeOwned>(mut stream: &[u8], max: usize) {
    loop {
        let expected = expected::<T>(stream, max);
        match read::<T>(&mut stream, max).await {
            Ok(_) => assert_eq!(expected, Ok(stream)),
            Err(FrameError::Ended) => return assert_eq!(expected, Err(Unread::Ended)),
            Err(FrameError::Malformed) => return assert_eq!(expected, Err(Unread::Malformed)),
        }
    }
}

async fn at_a_host<T: DeserializeOwned>(mut stream: &[u8], max: usize) {
    loop {
        let expected = expected::<T>(stream, max);
        match frame::<T>(&mut stream, max).await {
            Ok(_) => assert_eq!(expected, Ok(stream)),
            Err(unread) => return assert_eq!(expected, Err(unread)),
        }
    }
}

/// What a stream begins with: a message, and then what is returned; or none.
fn expected<T: DeserializeOwned>(stream: &[u8], max: usize) -> Result<&[u8], Unread> {
    let (length, rest) = stream.split_first_chunk::<4>().ok_or(Unread::Ended)?;
    let length = u32::from_be_bytes(*length) as usize;
    if max < length {
        return Err(Unread::Malformed);
    }
    let (message, rest) = rest.split_at_checked(length).ok_or(Unread::Ended)?;
    codec::decode::<T>(message, max).map(|_| rest).map_err(|_| Unread::Malformed)
}

/// The golden messages of each direction, one after the other.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (which, prefix) in [(0, "enrol-request."), (1, "from-host."), (2, "enrol-answer."), (3, "from-central.")] {
        let messages: Vec<_> = corpus::golden().into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
        let frames: Vec<Vec<u8>> = messages.iter().map(|(_, bytes)| codec::length_prefixed(&[bytes])).collect();
        seeds.push(chosen(which, &frames.concat()));
        seeds.extend(frames.iter().map(|frame| chosen(which, frame)));
        seeds.push(chosen(which, &u32::MAX.to_be_bytes()));
    }
    seeds
}
