//! Who is sent what, and when: one build at a time per (tenant, site), one bundle sequence at a time per (host,
//! tenant), a bounded number of pushes over all.
//!
//! Only hosts with a verdict that holds are sent anything; whether it still holds is asked again right before each
//! frame is written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ids::{HostId, HostName, SiteName, TenantName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::wire::{Position, Signed};

use crate::attestation_verifier::core::ConnId;
use crate::ports::Now;

mod bites;

use bites::{Bites, Progress};

/// Hosts that are being sent bundles at the same time. More do not arrive sooner: they fill buffers.
pub const PUSHES_MAX: usize = 64;
/// How long a push that is not acknowledged counts against [`PUSHES_MAX`]: a slow host delays no other.
const PUSH_COUNTS_FOR: Duration = Duration::from_secs(10);
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
    /// Rows of a tenant have changed, and somebody waits until the change holds at every host that is connected.
    MustBite {
        /// Names the wait.
        ticket: u64,
        /// The tenant.
        tenant: TenantName,
        /// When the wait ends at the latest, on the monotonic clock.
        until: Duration,
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
    /// A head of the state that has the cut in it, signed; goes first. A host that holds newer content than a restored
    /// central knows has then a newer head to show.
    pub head: Signed,
    /// Who may be sent them: hosts of which it is written down.
    pub hosts: BTreeSet<HostName>,
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
        /// For these hosts: that they hold what is built is written down before it is sent.
        hosts: BTreeSet<HostName>,
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
    /// A wait of [`Event::MustBite`] has ended.
    Bitten {
        /// Which.
        ticket: u64,
        /// Who was connected and has not confirmed the change. Their connections are to be closed: they come back and
        /// get it then.
        late: Vec<(HostId, ConnId)>,
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
    /// When its verdict ends. `None`: it has ended; the connection may live on, and its next verdict renews the link.
    until: Option<Duration>,
    tenants: BTreeMap<TenantName, Link>,
    lag: Option<u64>,
}

#[derive(Debug)]
struct Link {
    position: Option<Position>,
    state: LinkState,
    /// The last build of which the host has confirmed what it read, be it that there was nothing new; 0: none.
    confirmed: u64,
}

impl Link {
    fn unknown(position: Option<Position>) -> Self {
        Self { position, state: LinkState::Unknown, confirmed: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LinkState {
    /// Its stream may have moved on since it was last looked at.
    Unknown,
    /// Waits for a place among the pushes.
    Queued,
    /// Bundles to this target are on their way; until then they count as in flight.
    Sent { target: Position, build: u64, counts_until: Duration },
    /// In step with the newest cut.
    InStep,
}

#[derive(Debug, Default)]
struct Stream {
    building: bool,
    /// The last build: how many had begun with it.
    build: u64,
    /// Whether the content may have changed since the build read it.
    moved: bool,
    retry_at: Option<Duration>,
}

/// A push that waits for a place. It is void once the host stands elsewhere than its base.
#[derive(Debug)]
struct Queued {
    host: HostId,
    conn: ConnId,
    base: Option<Position>,
    build: u64,
    push: Arc<Push>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Distribution {
    hosts: BTreeMap<HostId, HostLink>,
    streams: BTreeMap<StreamId, Stream>,
    queue: VecDeque<Queued>,
    /// Builds that have begun.
    builds: u64,
    bites: Bites,
}

impl Distribution {
    /// Takes an event; the effects are to be carried out in order.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::ContentChanged { tenants } => self.suspect(|(tenant, _)| tenants.contains(tenant), &tenants),
            Event::MustBite { ticket, tenant, until } => self.must_bite(ticket, tenant, until),
            Event::EpochAdvanced { site } => self.suspect(|(_, at)| *at == site, &BTreeSet::new()),
            Event::HostTrusted { host, conn, until, first } => {
                if self.is_renewal(&host, conn, first.as_ref(), now) {
                    self.trusted(host, conn, until, None);
                    return effects;
                }
                self.trusted(host, conn, until, first);
            }
            Event::HostLost { host, conn } => self.lost(&host, conn),
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
        let hosts = &self.hosts;
        let progress = |host: &HostId, conn, tenant: &TenantName, after| match hosts.get(host) {
            Some(link) if link.conn == conn && link.until.is_some() => link.progress(tenant, after),
            _ => Progress::Lost,
        };
        self.bites.settle(progress, now.mono, &mut effects);
        effects
    }

    /// When [`Event::TimePassed`] is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        let retries = self.streams.values().filter_map(|stream| stream.retry_at);
        let places = self.in_flight().filter(|_| !self.queue.is_empty());
        retries.chain(places).chain(self.bites.next_deadline()).min()
    }

    /// Tenants whose newest content a host has not confirmed; `None` while it is not trusted.
    pub fn lag(&self, host: &HostId) -> Option<u64> {
        self.hosts.get(host).filter(|link| link.until.is_some()).map(HostLink::behind)
    }

    /// Whether a verdict only follows another on the same connection: most do, and nothing else follows from it.
    fn is_renewal(&self, host: &HostId, conn: ConnId, first: Option<&FirstContact>, now: Now) -> bool {
        first.is_none() && self.hosts.get(host).is_some_and(|link| link.conn == conn && link.is_trusted(now))
    }

    fn trusted(&mut self, host: HostId, conn: ConnId, until: Duration, first: Option<FirstContact>) {
        if let Some(first) = first {
            let tenants = first.tenants.iter().chain(first.positions.keys());
            let links = tenants.map(|tenant| {
                let position = first.positions.get(tenant).copied().filter(|position| *position != Position::default());
                (tenant.clone(), Link::unknown(position))
            });
            let link = HostLink { conn, until: Some(until), tenants: links.collect(), lag: None };
            self.queue.retain(|queued| queued.host != host);
            self.hosts.insert(host, link);
        } else if let Some(link) = self.hosts.get_mut(&host).filter(|link| link.conn == conn) {
            link.until = Some(until);
        }
    }

    /// What was on its way may or may not arrive: should the host be trusted again, it is looked at anew.
    fn lost(&mut self, host: &HostId, conn: ConnId) {
        let Some(link) = self.hosts.get_mut(host).filter(|link| link.conn == conn) else { return };
        (link.until, link.lag) = (None, None);
        for link in link.tenants.values_mut() {
            link.state = LinkState::Unknown;
        }
        self.queue.retain(|queued| queued.host != *host);
    }

    fn suspect(&mut self, concerns: impl Fn((&TenantName, &SiteName)) -> bool, new: &BTreeSet<TenantName>) {
        for (_, stream) in self.streams.iter_mut().filter(|((tenant, site), _)| concerns((tenant, site))) {
            stream.moved = stream.building;
        }
        for (host, link) in &mut self.hosts {
            for tenant in new {
                link.tenants.entry(tenant.clone()).or_insert(Link::unknown(None));
            }
            for (tenant, link) in &mut link.tenants {
                // What is on its way is finished first; the host's acknowledgement shows that there is more.
                if concerns((tenant, &host.site)) && link.state == LinkState::InStep {
                    link.state = LinkState::Unknown;
                }
            }
        }
    }

    fn must_bite(&mut self, ticket: u64, tenant: TenantName, until: Duration) {
        self.suspect(|(of, _)| *of == tenant, &BTreeSet::from([tenant.clone()]));
        let connected = self.hosts.iter().filter(|(_, link)| link.until.is_some());
        let waits_for = connected.map(|(host, link)| (host.clone(), link.conn)).collect();
        self.bites.begin(ticket, tenant, (self.builds, until), waits_for);
    }

    fn stands(&mut self, host: &HostId, conn: ConnId, tenant: &TenantName, position: Position, applied: bool) {
        let Some(link) = self.hosts.get_mut(host).filter(|link| link.conn == conn) else { return };
        let Some(link) = link.tenants.get_mut(tenant) else { return };
        let position = Some(position).filter(|position| *position != Position::default());
        let moved = std::mem::replace(&mut link.position, position) != position;
        let look_again = match &link.state {
            // Whether the cut it now stands at is still the newest, the next build tells.
            LinkState::Sent { target, build, .. } if applied => {
                let has_arrived = position.as_ref() == Some(target);
                if has_arrived {
                    link.confirmed = *build;
                }
                has_arrived
            }
            LinkState::Sent { .. } => true,
            LinkState::Queued | LinkState::InStep => moved,
            LinkState::Unknown => false,
        };
        if look_again {
            link.state = LinkState::Unknown;
        }
    }

    fn built(&mut self, id: &StreamId, base: Option<Position>, outcome: &BuildOutcome, now: Now) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.building = false;
        let (moved, build) = (std::mem::take(&mut stream.moved), stream.build);
        if matches!(outcome, BuildOutcome::Failed) {
            stream.retry_at = Some(now.mono + RETRY_AFTER);
            return;
        }
        let (tenant, site) = id;
        for (host, link) in self.hosts.iter_mut().filter(|(host, _)| host.site == *site) {
            let conn = link.conn;
            let Some(link) = link.tenants.get_mut(tenant) else { continue };
            if link.position != base || link.state != LinkState::Unknown {
                continue;
            }
            match outcome {
                BuildOutcome::Nothing | BuildOutcome::UpToDate => {
                    link.confirmed = build;
                    // It was the newest when the build read it; since then the content may have changed.
                    if !moved {
                        link.state = LinkState::InStep;
                    }
                }
                // It came too late for this build; the next one is for it too.
                BuildOutcome::Bundles(push) if !push.hosts.contains(&host.host) => {}
                BuildOutcome::Bundles(push) => {
                    link.state = LinkState::Queued;
                    self.queue.push_back(Queued { host: host.clone(), conn, base, build, push: push.clone() });
                }
                BuildOutcome::Failed => {}
            }
        }
    }

    /// Until when each push in flight counts as one.
    fn in_flight(&self) -> impl Iterator<Item = Duration> {
        self.hosts.values().flat_map(|link| link.tenants.values()).filter_map(|link| match link.state {
            LinkState::Sent { counts_until, .. } => Some(counts_until),
            LinkState::Unknown | LinkState::Queued | LinkState::InStep => None,
        })
    }

    fn push(&mut self, effects: &mut Vec<Effect>, now: Now) {
        if self.queue.is_empty() {
            return;
        }
        let mut in_flight = self.in_flight().filter(|until| now.mono < *until).count();
        while in_flight < PUSHES_MAX {
            let Some(Queued { host, conn, base, build, push }) = self.queue.pop_front() else { return };
            let Some(link) = self.hosts.get_mut(&host).filter(|link| link.conn == conn) else { continue };
            let trusted = link.is_trusted(now);
            let Some(link) = link.tenants.get_mut(&push.tenant) else { continue };
            if link.state != LinkState::Queued || link.position != base {
                continue;
            }
            if !trusted {
                link.state = LinkState::Unknown;
                continue;
            }
            link.state = LinkState::Sent { target: push.target, build, counts_until: now.mono + PUSH_COUNTS_FOR };
            effects.push(Effect::Push { host, conn, push });
            in_flight += 1;
        }
    }

    fn begin_builds(&mut self, effects: &mut Vec<Effect>, now: Now) {
        for (host, link) in self.hosts.iter().filter(|(_, link)| link.is_trusted(now)) {
            for (tenant, link) in &link.tenants {
                if link.state != LinkState::Unknown {
                    continue;
                }
                let id = (tenant.clone(), host.site.clone());
                let stream = self.streams.entry(id.clone()).or_default();
                if !stream.building && stream.retry_at.is_none_or(|at| at <= now.mono) {
                    self.builds += 1;
                    (stream.building, stream.build) = (true, self.builds);
                    (stream.moved, stream.retry_at) = (false, None);
                    let base = link.position;
                    effects.push(Effect::Build { hosts: self.hosts_at(&id, base, now), stream: id, base });
                }
            }
        }
    }

    /// The hosts that wait for what leads on from `base`.
    fn hosts_at(&self, (tenant, site): &StreamId, base: Option<Position>, now: Now) -> BTreeSet<HostName> {
        let waits = |link: &HostLink| {
            let of = link.tenants.get(tenant);
            link.is_trusted(now) && of.is_some_and(|of| of.position == base && of.state == LinkState::Unknown)
        };
        let of_site = self.hosts.iter().filter(|(host, link)| host.site == *site && waits(link));
        of_site.map(|(host, _)| host.host.clone()).collect()
    }

    fn tell_lag(&mut self, effects: &mut Vec<Effect>) {
        for (host, link) in self.hosts.iter_mut().filter(|(_, link)| link.until.is_some()) {
            let behind = link.behind();
            if link.lag.replace(behind) != Some(behind) {
                effects.push(Effect::Lag { host: host.clone(), behind });
            }
        }
    }
}

impl HostLink {
    fn is_trusted(&self, now: Now) -> bool {
        self.until.is_some_and(|until| now.mono < until)
    }

    /// How it stands to what there was when so many builds had begun.
    fn progress(&self, tenant: &TenantName, builds: u64) -> Progress {
        match self.tenants.get(tenant) {
            Some(link) if link.state != LinkState::InStep && link.confirmed <= builds => Progress::Behind,
            _ => Progress::InStep,
        }
    }

    fn behind(&self) -> u64 {
        self.tenants.values().filter(|link| link.state != LinkState::InStep).count() as u64
    }
}

#[cfg(test)]
mod tests;
