//! Who is sent what, and when: one build at a time per (tenant, site), one bundle sequence at a time per (host,
//! tenant), a bounded number of pushes over all.
//!
//! Only hosts with a verdict that holds are sent anything; whether it still holds is asked again right before each
//! frame is written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ids::{HostId, SiteName, TenantName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::wire::Position;

use crate::attestation_verifier::core::ConnId;
use crate::ports::Now;

/// Hosts that are being sent bundles at the same time. More do not arrive sooner: they fill buffers.
pub const PUSHES_MAX: usize = 64;
/// A build that failed is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A stream of content.
pub type StreamId = (TenantName, SiteName);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Rows of these tenants, or the placement of their rows, may have changed.
    ContentChanged {
        /// The tenants.
        tenants: BTreeSet<TenantName>,
    },
    /// A site's epochs advanced: everything there comes under new keys.
    EpochAdvanced {
        /// The site.
        site: SiteName,
    },
    /// A host has a verdict that holds until then.
    HostTrusted {
        /// The host.
        host: HostId,
        /// Its active connection.
        conn: ConnId,
        /// When the verdict ends.
        until: Duration,
        /// On the first of a connection: what it holds, and every tenant there is.
        first: Option<FirstContact>,
    },
    /// A host has no verdict any more, or no connection.
    HostLost {
        /// The host.
        host: HostId,
        /// The connection it was trusted on.
        conn: ConnId,
    },
    /// A host has applied up to here.
    Applied {
        /// The host.
        host: HostId,
        /// The connection.
        conn: ConnId,
        /// The tenant.
        tenant: TenantName,
        /// Where it stands now.
        position: Position,
    },
    /// A host stands elsewhere than the bundle it was sent begins.
    OutOfStep {
        /// The host.
        host: HostId,
        /// The connection.
        conn: ConnId,
        /// The tenant.
        tenant: TenantName,
        /// Where it stands.
        position: Position,
    },
    /// A build has ended.
    BuildEnded {
        /// What was built.
        stream: StreamId,
        /// From where.
        base: Option<Position>,
        /// What it gave.
        outcome: BuildOutcome,
    },
    /// The deadline of [`Distribution::next_deadline`] came.
    TimePassed,
}

/// What a host says of itself when it is first trusted on a connection.
#[derive(Debug, Clone)]
pub struct FirstContact {
    /// What it holds.
    pub positions: BTreeMap<TenantName, Position>,
    /// Every tenant that may have content at its site.
    pub tenants: BTreeSet<TenantName>,
}

/// How a build ended.
#[derive(Debug, Clone)]
pub enum BuildOutcome {
    /// Nothing is or was ever placed there.
    Nothing,
    /// The base is the newest state.
    UpToDate,
    /// These lead on.
    Bundles(Arc<Push>),
    /// It failed; try again later.
    Failed,
}

/// Bundles for one or more hosts.
#[derive(Debug)]
pub struct Push {
    /// Whose content.
    pub tenant: TenantName,
    /// Where the bundles lead.
    pub target: Position,
    /// The key they are encrypted with; goes ahead of them under each connection's session key.
    pub key: Secret<32>,
    /// Encoded bundles, in order.
    pub bundles: Vec<Arc<[u8]>>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Build what leads from `base` to the newest state.
    Build {
        /// Of what.
        stream: StreamId,
        /// From where.
        base: Option<Position>,
    },
    /// Send.
    Push {
        /// To whom.
        host: HostId,
        /// On which connection.
        conn: ConnId,
        /// What.
        push: Arc<Push>,
    },
    /// How far a host is behind has changed: tenants not in step.
    Lag {
        /// The host.
        host: HostId,
        /// The number.
        behind: u64,
    },
}

#[derive(Debug)]
struct HostLink {
    conn: ConnId,
    until: Duration,
    tenants: BTreeMap<TenantName, Link>,
    lag: Option<u64>,
}

#[derive(Debug)]
struct Link {
    position: Option<Position>,
    state: LinkState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LinkState {
    /// Its stream may have moved on since it was last looked at.
    Unknown,
    /// Waits for a place among the pushes.
    Queued,
    /// Bundles to this target are on their way.
    Sent(Position),
    /// In step with the newest cut.
    InStep,
}

#[derive(Debug, Default)]
struct Stream {
    building: Option<Option<Position>>,
    retry_at: Option<Duration>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Distribution {
    hosts: BTreeMap<HostId, HostLink>,
    streams: BTreeMap<StreamId, Stream>,
    queue: VecDeque<(HostId, Arc<Push>)>,
}

impl Distribution {
    /// Takes an event; the effects are to be carried out in order.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::ContentChanged { tenants } => self.suspect(|_, tenant| tenants.contains(tenant), &tenants),
            Event::EpochAdvanced { site } => self.suspect(|host, _| host.site == site, &BTreeSet::new()),
            Event::HostTrusted { host, conn, until, first } => self.trusted(host, conn, until, first),
            Event::HostLost { host, conn } => {
                if self.hosts.get(&host).is_some_and(|link| link.conn == conn) {
                    self.hosts.remove(&host);
                }
            }
            Event::Applied { host, conn, tenant, position } => self.stands(&host, conn, &tenant, position, true),
            Event::OutOfStep { host, conn, tenant, position } => self.stands(&host, conn, &tenant, position, false),
            Event::BuildEnded { stream, base, outcome } => self.built(&stream, base, &outcome, now),
            Event::TimePassed => {
                for stream in self.streams.values_mut() {
                    stream.retry_at = stream.retry_at.filter(|at| now.mono < *at);
                }
            }
        }
        self.push(&mut effects, now);
        self.begin_builds(&mut effects, now);
        self.tell_lag(&mut effects);
        effects
    }

    /// When [`Event::TimePassed`] is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.streams.values().filter_map(|stream| stream.retry_at).min()
    }

    /// Tenants whose newest content a host has not confirmed; `None` while it is not trusted.
    pub fn lag(&self, host: &HostId) -> Option<u64> {
        self.hosts.get(host).map(HostLink::behind)
    }

    fn trusted(&mut self, host: HostId, conn: ConnId, until: Duration, first: Option<FirstContact>) {
        if let Some(first) = first {
            let tenants = first.tenants.iter().chain(first.positions.keys());
            let links = tenants.map(|tenant| {
                let position = first.positions.get(tenant).copied();
                (tenant.clone(), Link { position, state: LinkState::Unknown })
            });
            let link = HostLink { conn, until, tenants: links.collect(), lag: None };
            self.hosts.insert(host, link);
        } else if let Some(link) = self.hosts.get_mut(&host).filter(|link| link.conn == conn) {
            link.until = until;
        }
    }

    fn suspect(&mut self, concerns: impl Fn(&HostId, &TenantName) -> bool, new: &BTreeSet<TenantName>) {
        for (host, link) in &mut self.hosts {
            for tenant in new {
                link.tenants.entry(tenant.clone()).or_insert(Link { position: None, state: LinkState::Unknown });
            }
            for (tenant, link) in &mut link.tenants {
                // What is on its way is finished first; the host's acknowledgement shows that there is more.
                if concerns(host, tenant) && link.state == LinkState::InStep {
                    link.state = LinkState::Unknown;
                }
            }
        }
    }

    fn stands(&mut self, host: &HostId, conn: ConnId, tenant: &TenantName, position: Position, applied: bool) {
        let Some(link) = self.hosts.get_mut(host).filter(|link| link.conn == conn) else { return };
        let Some(link) = link.tenants.get_mut(tenant) else { return };
        let expected = matches!(&link.state, LinkState::Sent(target) if !applied || *target == position);
        link.position = Some(position).filter(|position| *position != Position::default());
        if expected {
            // Whether the cut it now stands at is still the newest, the next build tells.
            link.state = LinkState::Unknown;
        }
    }

    fn built(&mut self, id: &StreamId, base: Option<Position>, outcome: &BuildOutcome, now: Now) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.building = None;
        if matches!(outcome, BuildOutcome::Failed) {
            stream.retry_at = Some(now.mono + RETRY_AFTER);
            return;
        }
        let (tenant, site) = id;
        for (host, link) in self.hosts.iter_mut().filter(|(host, _)| host.site == *site) {
            let Some(link) = link.tenants.get_mut(tenant) else { continue };
            if link.position != base || link.state != LinkState::Unknown {
                continue;
            }
            link.state = match outcome {
                BuildOutcome::Nothing | BuildOutcome::UpToDate | BuildOutcome::Failed => LinkState::InStep,
                BuildOutcome::Bundles(push) => {
                    self.queue.push_back((host.clone(), push.clone()));
                    LinkState::Queued
                }
            };
        }
    }

    fn push(&mut self, effects: &mut Vec<Effect>, now: Now) {
        let sent = |link: &HostLink| link.tenants.values().any(|link| matches!(link.state, LinkState::Sent(_)));
        let mut in_flight = self.hosts.values().filter(|link| sent(link)).count();
        while in_flight < PUSHES_MAX {
            let Some((host, push)) = self.queue.pop_front() else { return };
            let Some(link) = self.hosts.get_mut(&host).filter(|link| now.mono < link.until) else { continue };
            let conn = link.conn;
            let Some(link) = link.tenants.get_mut(&push.tenant) else { continue };
            if link.state == LinkState::Queued {
                link.state = LinkState::Sent(push.target);
                effects.push(Effect::Push { host, conn, push });
                in_flight += 1;
            }
        }
    }

    fn begin_builds(&mut self, effects: &mut Vec<Effect>, now: Now) {
        for (host, link) in self.hosts.iter().filter(|(_, link)| now.mono < link.until) {
            for (tenant, link) in &link.tenants {
                if link.state != LinkState::Unknown {
                    continue;
                }
                let id = (tenant.clone(), host.site.clone());
                let stream = self.streams.entry(id.clone()).or_default();
                if stream.building.is_none() && stream.retry_at.is_none_or(|at| at <= now.mono) {
                    stream.building = Some(link.position);
                    stream.retry_at = None;
                    effects.push(Effect::Build { stream: id, base: link.position });
                }
            }
        }
    }

    fn tell_lag(&mut self, effects: &mut Vec<Effect>) {
        for (host, link) in &mut self.hosts {
            let behind = link.behind();
            if link.lag.replace(behind) != Some(behind) {
                effects.push(Effect::Lag { host: host.clone(), behind });
            }
        }
    }
}

impl HostLink {
    fn behind(&self) -> u64 {
        self.tenants.values().filter(|link| link.state != LinkState::InStep).count() as u64
    }
}
