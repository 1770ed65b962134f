//! Connections between hosts and central. Within one, messages arrive whole and in order, as QUIC promises; between two
//! of the same host, in any order. Loss is delay; a partition holds messages back, and ends the connections when it
//! lasts.

use std::collections::VecDeque;

use holdfast_actors::attestation_verifier::core::ConnId;
use holdfast_protocol::ids::HostGeneration;
use holdfast_protocol::wire::{CloseCode, FromCentral, FromHost};

use crate::sim::world::{Event, World};

/// Without a word for so long a connection has ended, for each end by itself: microseconds.
pub const IDLE_US: u64 = 30_000_000;

/// Names a connection in the world.
pub type LinkId = u64;

/// What travels.
#[derive(Debug)]
pub enum Parcel {
    /// To central.
    Up(FromHost),
    /// To the host.
    Down(FromCentral),
    /// The host's end closed.
    UpClose,
    /// Central's end closed, with this code; without one it just broke.
    DownClose(Option<CloseCode>),
}

impl Parcel {
    /// Whether it goes to central.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up(_) | Self::UpClose)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Whose.
    pub host: usize,
    /// The host's process that dialled.
    pub host_life: u64,
    /// Central's process that took it.
    pub central_life: u64,
    /// The exporter of its TLS session.
    pub exporter: [u8; 32],
    /// Of the certificate that the host showed: which of its identities it names.
    pub generation: HostGeneration,
    /// Its fingerprint.
    pub fingerprint: [u8; 32],
    /// Central's name for it, once the host said hello.
    pub conn: Option<ConnId>,
    /// Whether the host's end is open.
    pub host_open: bool,
    /// Whether central's end is open.
    pub central_open: bool,
    /// When the last parcel up arrives.
    pub up_us: u64,
    /// When the last parcel down arrives.
    pub down_us: u64,
    /// What waits for the partition's end.
    pub held: VecDeque<Parcel>,
}

impl World {
    /// How long a parcel of this host takes now.
    pub fn latency(&mut self, host: usize) -> u64 {
        let base = 3_000 + 7_000 * (host as u64 % 9);
        // What is lost is sent again, and later.
        let lost = if self.dice.per_mille(30) { self.dice.between(200_000, 3_000_000) } else { 0 };
        base + self.dice.between(0, 20_000) + lost
    }

    /// A host's connection is made.
    pub fn connect(&mut self, host: usize, exporter: [u8; 32], shown: (HostGeneration, [u8; 32])) -> LinkId {
        let id = self.next_id();
        let link = Link {
            host,
            host_life: self.hosts[host].life,
            central_life: self.central.life,
            exporter,
            generation: shown.0,
            fingerprint: shown.1,
            conn: None,
            host_open: true,
            central_open: true,
            up_us: 0,
            down_us: 0,
            held: VecDeque::new(),
        };
        self.links.insert(id, link);
        self.count("connections");
        id
    }

    /// Sends a parcel, which leaves `in_us` from now. What is sent later in the same direction arrives later.
    pub fn send(&mut self, link: LinkId, parcel: Parcel, in_us: u64) {
        let Some(host) = self.links.get(&link).map(|link| link.host) else { return };
        let at_us = self.time.us() + in_us + self.latency(host);
        let Some(of) = self.links.get_mut(&link) else { return };
        let last = if parcel.is_up() { &mut of.up_us } else { &mut of.down_us };
        *last = at_us.max(*last + 1);
        let at_us = *last;
        self.schedule_at(at_us, Event::Arrives(link, parcel));
    }

    /// A parcel has come to the end of its way, unless there is none now.
    pub fn arrives(&mut self, link: LinkId, parcel: Parcel) {
        if let Some(of) = self.links.get_mut(&link) {
            of.held.push_back(parcel);
            self.drain(link);
        }
    }

    /// Hands out what has arrived.
    pub fn drain(&mut self, link: LinkId) {
        while let Some(of) = self.links.get_mut(&link)
            && self.hosts[of.host].outage.is_none()
            && let Some(parcel) = of.held.pop_front()
        {
            self.deliver(link, parcel);
        }
    }

    fn deliver(&mut self, link: LinkId, parcel: Parcel) {
        let Some(of) = self.links.get_mut(&link) else { return };
        let host = of.host;
        match parcel {
            Parcel::Up(message) if of.central_open => self.central_hears(link, message),
            Parcel::Down(message) if of.host_open => self.host_hears(host, link, message),
            Parcel::UpClose => {
                of.central_open = false;
                if let Some(conn) = of.conn {
                    self.conn_ended(conn);
                }
            }
            Parcel::DownClose(code) if of.host_open => {
                of.host_open = false;
                self.host_hears_end(host, link, code);
            }
            Parcel::Up(_) | Parcel::Down(_) | Parcel::DownClose(_) => {}
        }
        self.forget_link(link);
    }

    fn forget_link(&mut self, link: LinkId) {
        if self.links.get(&link).is_some_and(|link| !link.host_open && !link.central_open) {
            self.links.remove(&link);
        }
    }

    /// The host's end closes; where its process died, central may find out late.
    pub fn host_lets_go(&mut self, link: LinkId, died: bool) {
        let Some(of) = self.links.get_mut(&link) else { return };
        of.host_open = false;
        let in_us = if died { self.dice.between(0, IDLE_US) } else { 0 };
        self.send(link, Parcel::UpClose, in_us);
        self.forget_link(link);
    }

    /// Central's end closes.
    pub fn central_lets_go(&mut self, link: LinkId, code: Option<CloseCode>) {
        let Some(of) = self.links.get_mut(&link).filter(|of| of.central_open) else { return };
        of.central_open = false;
        self.send(link, Parcel::DownClose(code), 0);
        self.forget_link(link);
    }

    /// Central's process died: hosts find out, some sooner than others.
    pub fn central_falls_silent(&mut self) {
        let open: Vec<LinkId> = self.links.iter().filter(|(_, of)| of.central_open).map(|(link, _)| *link).collect();
        for link in open {
            let in_us = self.dice.between(10_000, IDLE_US);
            if let Some(of) = self.links.get_mut(&link) {
                of.central_open = false;
            }
            self.send(link, Parcel::DownClose(None), in_us);
            self.forget_link(link);
        }
    }

    /// A host is cut off from central, for so long.
    pub fn partition(&mut self, host: usize) {
        if self.hosts[host].outage.is_some() {
            return;
        }
        self.count("partitions");
        let outage = self.next_id();
        self.hosts[host].outage = Some(outage);
        self.hosts[host].well_since_us = self.time.us();
        self.tell(|| format!("host {host} is cut off from central"));
        let links: Vec<LinkId> = self.links.iter().filter(|(_, of)| of.host == host).map(|(link, _)| *link).collect();
        for link in links {
            let in_us = IDLE_US - self.dice.between(0, 5_000_000);
            self.schedule(in_us, Event::IdledOut(link, outage));
        }
    }

    /// It reaches central again.
    pub fn heal(&mut self, host: usize) {
        if self.hosts[host].outage.take().is_none() {
            return;
        }
        self.hosts[host].well_since_us = self.time.us();
        self.tell(|| format!("host {host} reaches central again"));
        let links: Vec<LinkId> = self.links.iter().filter(|(_, of)| of.host == host).map(|(link, _)| *link).collect();
        links.into_iter().for_each(|link| self.drain(link));
    }

    /// A connection has been silent for too long.
    pub fn idled_out(&mut self, link: LinkId, outage: u64) {
        let Some(of) = self.links.get_mut(&link) else { return };
        let host = of.host;
        if self.hosts[host].outage != Some(outage) {
            return;
        }
        of.held.clear();
        let (conn, was_open) = (of.conn, of.host_open);
        (of.central_open, of.host_open) = (false, false);
        if let Some(conn) = conn {
            self.conn_ended(conn);
        }
        if was_open {
            self.host_hears_end(host, link, None);
        }
        self.forget_link(link);
    }
}
