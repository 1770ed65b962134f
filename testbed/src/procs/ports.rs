//! Blocks of ports for deployments that run side by side.

use std::io::{self, Error};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that systems hand out by themselves, which begin at 32768 on Linux.
const FIRST: u16 = 22_000;
const LAST: u16 = 32_000;
/// More than a deployment of this size needs.
const BLOCK: u16 = 100;
const TRIES: u16 = (LAST - FIRST) / BLOCK;

/// The next block of this process; others start elsewhere.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// The base of a block whose ports are all free now. No two calls of one process give the same.
pub(super) fn free_block(hosts: usize) -> io::Result<u16> {
    let offset = u16::try_from(std::process::id() % u32::from(TRIES)).unwrap_or_default();
    for _ in 0..TRIES {
        let block = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(offset) % TRIES;
        let base = FIRST + block * BLOCK;
        if is_free(base, hosts) {
            return Ok(base);
        }
    }
    Err(Error::other("no block of free ports"))
}

fn is_free(base: u16, hosts: usize) -> bool {
    let last = base.saturating_add(11).saturating_add(u16::try_from(2 * hosts).unwrap_or(u16::MAX));
    UdpSocket::bind((Ipv4Addr::LOCALHOST, base + 1)).is_ok()
        && (base..=last).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_differ_and_are_free() {
        let (first, second) = (free_block(3).unwrap(), free_block(3).unwrap());
        assert!(first.abs_diff(second) >= BLOCK);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 13)).unwrap();
        assert!(!is_free(first, 3));
        drop(taken);
        assert!(is_free(first, 3));
    }
}
