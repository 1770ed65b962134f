//! The network between hosts and central: a UDP relay that can be cut.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// No datagram is longer.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A relay in front of central's QUIC port. It ends with this.
pub struct Wan {
    addr: SocketAddr,
    cut: Arc<AtomicBool>,
    _relay: JoinSet<()>,
}

impl Wan {
    /// A relay to `central` on a port of its own.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn open(central: SocketAddr) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let (addr, cut) = (socket.local_addr()?, Arc::<AtomicBool>::default());
        let mut relay = JoinSet::new();
        relay.spawn(up(socket, central, cut.clone()));
        Ok(Self { addr, cut, _relay: relay })
    }

    /// Where hosts dial.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on every datagram is lost.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// From now on none is.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

/// Each host gets a socket of its own towards central, so that central tells them apart.
async fn up(socket: Arc<UdpSocket>, central: SocketAddr, cut: Arc<AtomicBool>) {
    let mut ways: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut back = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, host)) = socket.recv_from(&mut datagram).await else { continue };
        if cut.load(Ordering::SeqCst) {
            continue;
        }
        let way = match ways.get(&host) {
            Some(way) => way.clone(),
            None => {
                let Ok(way) = towards(central).await else { continue };
                let way = Arc::new(way);
                back.spawn(down(way.clone(), socket.clone(), host, cut.clone()));
                ways.insert(host, way.clone());
                way
            }
        };
        // A datagram may be lost: nobody listens while central is being started again.
        let _ = way.send(&datagram[..length]).await;
    }
}

async fn down(way: Arc<UdpSocket>, socket: Arc<UdpSocket>, host: SocketAddr, cut: Arc<AtomicBool>) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error tells that an earlier datagram met nobody.
        let Ok(length) = way.recv(&mut datagram).await else { continue };
        if !cut.load(Ordering::SeqCst) {
            let _ = socket.send_to(&datagram[..length], host).await;
        }
    }
}

async fn towards(central: SocketAddr) -> io::Result<UdpSocket> {
    let way = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    way.connect(central).await?;
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_pass_both_ways_until_the_wan_is_cut() {
        let central = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let wan = Wan::open(central.local_addr().unwrap()).await.unwrap();
        let host = towards(wan.addr()).await.unwrap();
        let mut received = [0; 8];
        host.send(b"up").await.unwrap();
        let (length, way) = central.recv_from(&mut received).await.unwrap();
        assert_eq!(&received[..length], b"up");
        central.send_to(b"down", way).await.unwrap();
        let length = host.recv(&mut received).await.unwrap();
        assert_eq!(&received[..length], b"down");
        wan.cut();
        host.send(b"lost").await.unwrap();
        // The relay handles datagrams in order: when this one has gone the other way round, the lost one was seen.
        wan.mend();
        host.send(b"up again").await.unwrap();
        let (length, _) = central.recv_from(&mut received).await.unwrap();
        assert!(matches!(&received[..length], b"up again" | b"lost"));
    }
}
