//! What a run consists of: names of sites and hosts, and their ports.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use super::Args;
use super::file::Doc;
use crate::failure::Failure;

/// Most hosts of one deployment on one machine: with more the default port ranges would meet.
const HOSTS_MAX: usize = 500;
/// Central's REST port by default.
const REST: u16 = 7373;
/// Central's QUIC port by default.
const QUIC: u16 = 7443;
/// REST port of the first host by default.
const HOST_REST: u16 = 4646;

/// How long programs of a run that was killed may take to let go of their ports.
const PORTS_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at the ports.
const PORTS_POLL: Duration = Duration::from_millis(100);

/// Names and ports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Central's REST port.
    pub(crate) rest: u16,
    /// Central's QUIC port (UDP).
    pub(crate) quic: u16,
    /// The sites, `udc1` first.
    pub(crate) sites: Vec<SitePlan>,
}

/// One site.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SitePlan {
    /// `udc1`, `udc2`, ...
    pub(crate) name: String,
    /// Its hosts, `udc1-001` first.
    pub(crate) hosts: Vec<HostPlan>,
}

/// One host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HostPlan {
    /// `udc1-001`, ...
    pub(crate) name: String,
    /// The agent's REST port.
    pub(crate) rest: u16,
}

impl Plan {
    /// The plan for these arguments in a folder that `known` describes. Sites may be added to a folder, never taken
    /// away, and a site keeps its hosts.
    pub(crate) fn new(args: &Args, known: Option<&Doc>) -> Result<Self, Failure> {
        let known: Vec<u16> =
            known.iter().flat_map(|doc| &doc.sites).filter_map(|site| u16::try_from(site.hosts.len()).ok()).collect();
        let counts = counts(args.sites, &args.hosts, &known)?;
        if known.len() > counts.len() || known.iter().zip(&counts).any(|(had, has)| had != has) {
            return Err(Failure::unfit(format!(
                "the folder holds sites with {known:?} hosts; sites can be added, not taken away or resized (asked: \
                 {counts:?})"
            )));
        }
        let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
        if total > HOSTS_MAX {
            return Err(Failure::unfit(format!("{total} hosts; at most {HOSTS_MAX} fit on one machine")));
        }
        let mut ports = Ports::new(args.port_base, total)?;
        let (rest, quic) = (ports.rest()?, ports.quic()?);
        let mut sites = Vec::new();
        for (index, count) in counts.iter().enumerate() {
            let name = format!("udc{}", index + 1);
            let host =
                |number: u16| Ok(HostPlan { name: format!("{name}-{:03}", number + 1), rest: ports.next_host()? });
            let hosts = (0..*count).map(host).collect::<Result<_, Failure>>()?;
            sites.push(SitePlan { name, hosts });
        }
        Ok(Self { rest, quic, sites })
    }

    /// Returns when all ports are free, and names those that stay taken.
    pub(crate) async fn wait_for_ports(&self) -> Result<(), Failure> {
        let free = async {
            while !self.taken_ports().is_empty() {
                tokio::time::sleep(PORTS_POLL).await;
            }
        };
        if tokio::time::timeout(PORTS_LIMIT, free).await.is_ok() {
            return Ok(());
        }
        Err(Failure::unfit(format!(
            "in use by another program: {}; stop that, or give --port-base P (0 takes free ports)",
            self.taken_ports().join(", ")
        )))
    }

    fn taken_ports(&self) -> Vec<String> {
        let hosts = self.sites.iter().flat_map(|site| &site.hosts).map(|host| host.rest);
        let tcp = std::iter::once(self.rest).chain(hosts);
        let taken = tcp.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err());
        let mut taken: Vec<String> = taken.map(|port| format!("127.0.0.1:{port}")).collect();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, self.quic)).is_err() {
            taken.push(format!("127.0.0.1:{} (udp)", self.quic));
        }
        taken
    }
}

/// Hosts per site.
fn counts(sites: Option<u16>, hosts: &[u16], known: &[u16]) -> Result<Vec<u16>, Failure> {
    if hosts.contains(&0) {
        return Err(Failure::unfit("a site has at least one host"));
    }
    match (sites, hosts) {
        (None, []) if !known.is_empty() => Ok(known.to_vec()),
        // More sites than before: the old ones as they are, the new ones with one host.
        (Some(sites), []) => Ok((0..usize::from(sites)).map(|i| known.get(i).copied().unwrap_or(1)).collect()),
        (None, []) => Ok(vec![1, 1]),
        (None, [count]) => Ok(vec![*count; known.len().max(2)]),
        (Some(sites), [count]) => Ok(vec![*count; usize::from(sites)]),
        (None, counts) => Ok(counts.to_vec()),
        (Some(sites), counts) if counts.len() == usize::from(sites) => Ok(counts.to_vec()),
        (Some(sites), counts) => {
            Err(Failure::unfit(format!("--hosts names {} sites, --sites says {sites}", counts.len())))
        }
    }
}

/// Where ports come from.
enum Ports {
    /// Central's two, and the hosts' one after the other.
    Fixed { rest: u16, quic: u16, hosts: Box<dyn Iterator<Item = u16>> },
    /// Whatever is free. The sockets are held until all are chosen, so that none is chosen twice.
    Free { held: Vec<TcpListener> },
}

impl Ports {
    fn new(base: Option<u16>, hosts: usize) -> Result<Self, Failure> {
        let Some(base) = base else {
            return Ok(Self::Fixed { rest: REST, quic: QUIC, hosts: Box::new(HOST_REST..) });
        };
        if base == 0 {
            return Ok(Self::Free { held: Vec::new() });
        }
        // P+2 to P+4 are for Keylime's listeners, and every second port of a host for its Keylime API.
        let last = usize::from(base) + 11 + 2 * hosts;
        if last > usize::from(u16::MAX) {
            return Err(Failure::unfit(format!("--port-base {base}: {hosts} hosts need ports up to {last}")));
        }
        Ok(Self::Fixed { rest: base, quic: base + 1, hosts: Box::new((base + 10..).step_by(2)) })
    }

    fn rest(&mut self) -> Result<u16, Failure> {
        match self {
            Self::Fixed { rest, .. } => Ok(*rest),
            Self::Free { held } => free_tcp(held),
        }
    }

    fn quic(&self) -> Result<u16, Failure> {
        match self {
            Self::Fixed { quic, .. } => Ok(*quic),
            Self::Free { .. } => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|socket| socket.local_addr())
                .map(|address| address.port())
                .map_err(Failure::io("looking for a free UDP port")),
        }
    }

    fn next_host(&mut self) -> Result<u16, Failure> {
        match self {
            Self::Fixed { hosts, .. } => hosts.next().ok_or_else(|| Failure::unfit("no port left for a host")),
            Self::Free { held } => free_tcp(held),
        }
    }
}

fn free_tcp(held: &mut Vec<TcpListener>) -> Result<u16, Failure> {
    let bind = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok((listener.local_addr()?.port(), listener))
    };
    let (port, listener) = bind().map_err(Failure::io("looking for a free port"))?;
    held.push(listener);
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(sites: Option<u16>, hosts: &[u16], port_base: Option<u16>) -> Args {
        Args { dir: "d".into(), sites, hosts: hosts.to_vec(), port_base, config: None, unseal: false }
    }

    fn hosts_of(plan: &Plan) -> Vec<(String, u16)> {
        plan.sites.iter().flat_map(|site| &site.hosts).map(|host| (host.name.clone(), host.rest)).collect()
    }

    #[test]
    fn the_default_is_two_sites_with_a_host_each() {
        let plan = Plan::new(&args(None, &[], None), None).unwrap();
        assert_eq!((plan.rest, plan.quic), (7373, 7443));
        assert_eq!(hosts_of(&plan), [("udc1-001".to_owned(), 4646), ("udc2-001".to_owned(), 4647)]);
    }

    #[test]
    fn hosts_are_counted_over_all_sites() {
        let plan = Plan::new(&args(Some(2), &[2, 1], Some(20000)), None).unwrap();
        assert_eq!((plan.rest, plan.quic), (20000, 20001));
        let expected = [("udc1-001", 20010), ("udc1-002", 20012), ("udc2-001", 20014)];
        assert_eq!(hosts_of(&plan), expected.map(|(name, port)| (name.to_owned(), port)));
    }

    #[test]
    fn no_site_at_all_is_allowed() {
        assert_eq!(Plan::new(&args(Some(0), &[], None), None).unwrap().sites, []);
        assert_eq!(Plan::new(&args(Some(0), &[3], None), None).unwrap().sites, []);
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        assert!(Plan::new(&args(Some(3), &[1, 2], None), None).is_err());
        assert!(Plan::new(&args(Some(1), &[0], None), None).is_err());
        assert!(Plan::new(&args(Some(1), &[501], None), None).is_err());
        assert!(Plan::new(&args(Some(1), &[3], Some(65520)), None).is_err());
    }

    #[test]
    fn one_number_of_hosts_is_for_every_site() {
        assert_eq!(counts(Some(3), &[2], &[]).unwrap(), [2, 2, 2]);
        assert_eq!(counts(None, &[2, 1, 1], &[]).unwrap(), [2, 1, 1]);
    }

    #[test]
    fn a_folder_keeps_what_it_holds() {
        assert_eq!(counts(None, &[], &[2, 1]).unwrap(), [2, 1]);
        assert_eq!(counts(Some(3), &[], &[2, 1]).unwrap(), [2, 1, 1]);
    }

    #[test]
    fn ports_that_are_taken_are_named() {
        let plan = Plan::new(&args(Some(1), &[1], Some(0)), None).unwrap();
        assert_eq!(plan.taken_ports(), Vec::<String>::new());
        let _rest = TcpListener::bind((Ipv4Addr::LOCALHOST, plan.rest)).unwrap();
        let _quic = UdpSocket::bind((Ipv4Addr::LOCALHOST, plan.quic)).unwrap();
        assert_eq!(plan.taken_ports(), [format!("127.0.0.1:{}", plan.rest), format!("127.0.0.1:{} (udp)", plan.quic)]);
    }

    #[test]
    fn free_ports_differ() {
        let plan = Plan::new(&args(Some(2), &[2], Some(0)), None).unwrap();
        let mut ports: Vec<u16> = hosts_of(&plan).into_iter().map(|(_, port)| port).chain([plan.rest]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 5);
    }
}
