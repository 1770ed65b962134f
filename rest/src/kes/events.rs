//! What is told on the streams of the logs, and how a line of it reads.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::Identity;
use serde_json::Value;
use tokio::time::Instant;

use super::api::Api;
use super::streams::{Log, Streams};
use crate::node::Node;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::time::{log_time, rfc3339_s, rfc3339_us};

/// Longest part of a path in a line: strangers choose them.
const PATH_BYTES_MAX: usize = 512;

/// Something to be told.
#[derive(Debug)]
pub(super) struct Event {
    /// Microseconds since the Unix epoch.
    at_us: i64,
    what: What,
}

#[derive(Debug)]
enum What {
    Request { from: Option<IpAddr>, path: String, who: Option<Identity>, status: StatusCode, took: Duration },
    Failure(String),
}

/// Something went wrong here.
pub(super) fn failure(at_us: i64, text: impl Into<String>) -> Event {
    Event { at_us, what: What::Failure(text.into()) }
}

impl Event {
    /// As a line; `is_old`: as clients of the older profile read it. What a request took is in nanoseconds in both, as all
    /// clients read it; the last servers wrote milliseconds there.
    pub(super) fn line(&self, is_old: bool) -> String {
        match &self.what {
            What::Failure(text) => {
                format!("{{\"message\":{}}}\n", Value::from(format!("{} {text}", log_time(self.at_us))))
            }
            What::Request { from, path, who, status, took } => {
                let (path, who) = (Value::from(path.as_str()), who.map(|who| who.to_string()).unwrap_or_default());
                let (status, took) = (status.as_u16(), took.as_nanos());
                if is_old {
                    let time = rfc3339_s(self.at_us);
                    let request = format!("{{\"path\":{path},\"identity\":\"{who}\"}}");
                    let response = format!("{{\"code\":{status}, \"time\":{took}}}");
                    format!("{{\"time\":\"{time}\",\"request\":{request},\"response\":{response}}}\n")
                } else {
                    let (time, from) = (rfc3339_us(self.at_us), from.map(|from| from.to_string()).unwrap_or_default());
                    let request = format!("{{\"ip\":\"{from}\",\"path\":{path},\"identity\":\"{who}\"}}");
                    let response = format!("{{\"code\":{status},\"time\":{took}}}");
                    format!("{{\"time\":\"{time}\",\"request\":{request},\"response\":{response}}}\n")
                }
            }
        }
    }
}

/// Marks an answer: whose request it was, for those who listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose {
    /// Of which tenant; the node, where it is of none, or of none that knows the caller.
    pub(super) realm: Realm,
    pub(super) who: Option<Identity>,
    /// Where it began, if a proxy says.
    pub(super) from: Option<IpAddr>,
}

/// A request while somebody listens.
pub(super) struct Heard {
    node: Arc<Node>,
    action: &'static str,
    began: Instant,
    from: Option<IpAddr>,
    path: String,
    is_told: bool,
}

impl Heard {
    /// `None`: nobody listens, nor asks to.
    pub(super) fn of(node: &Arc<Node>, api: &Api, peer: &Peer, request: &Request) -> Option<Self> {
        if !node.streams().are_heard() && !api.goes_on {
            return None;
        }
        let from = Some(peer.addr.ip().to_canonical());
        let path = request.uri().path();
        let path = path[..path.floor_char_boundary(PATH_BYTES_MAX)].to_owned();
        Some(Self { node: node.clone(), action: api.action, began: Instant::now(), from, path, is_told: false })
    }

    /// Tells of it. An answer that nobody has marked is of nobody.
    pub(super) fn tell(mut self, response: &mut Response) {
        let whose = response.extensions_mut().remove::<Whose>();
        let problem = response.extensions().get::<Problem>().map(|problem| problem.message.clone());
        let why = response.status().is_server_error().then(|| problem.unwrap_or("failed".into()));
        let whose = whose.unwrap_or(Whose { realm: Realm::NODE, who: None, from: None });
        self.told(whose, response.status(), why.as_deref());
    }

    fn told(&mut self, Whose { realm, who, from }: Whose, status: StatusCode, why: Option<&str>) {
        self.is_told = true;
        let (streams, at_us): (&Streams, _) = (self.node.streams(), self.node.now().wall_us);
        let (from, path, took) = (from.or(self.from), std::mem::take(&mut self.path), self.began.elapsed());
        streams.tell(realm, Log::Audit, Event { at_us, what: What::Request { from, path, who, status, took } });
        if let Some(why) = why {
            streams.tell(realm, Log::Error, failure(at_us, format!("{}: {why} ({})", self.action, status.as_u16())));
        }
    }
}

impl Drop for Heard {
    /// The front answers where a handler panics.
    fn drop(&mut self) {
        if !self.is_told && std::thread::panicking() {
            let nobody = Whose { realm: Realm::NODE, who: None, from: None };
            self.told(nobody, StatusCode::INTERNAL_SERVER_ERROR, Some("internal error"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_clients_of_either_time_read_them() {
        let event = Event {
            at_us: 1_700_000_000_123_456,
            what: What::Request {
                from: Some([192, 0, 2, 7].into()),
                path: "/v1/key/create/\"a\"".to_owned(),
                who: Some(Identity([0xab; 32])),
                status: StatusCode::OK,
                took: Duration::from_nanos(12_056),
            },
        };
        let who = "ab".repeat(32);
        let old = format!(
            "{{\"time\":\"2023-11-14T22:13:20Z\",\"request\":{{\"path\":\"/v1/key/create/\\\"a\\\"\",\"identity\":\
             \"{who}\"}},\"response\":{{\"code\":200, \"time\":12056}}}}\n"
        );
        let new = format!(
            "{{\"time\":\"2023-11-14T22:13:20.123456Z\",\"request\":{{\"ip\":\"192.0.2.7\",\"path\":\
             \"/v1/key/create/\\\"a\\\"\",\"identity\":\"{who}\"}},\"response\":{{\"code\":200,\"time\":12056}}}}\n"
        );
        assert_eq!((event.line(true), event.line(false)), (old, new));
        let failed = failure(1_700_000_000_123_456, "key.create: no answer in time (503)");
        let line = "{\"message\":\"2023/11/14 22:13:20 key.create: no answer in time (503)\"}\n";
        assert_eq!((failed.line(true).as_str(), failed.line(false).as_str()), (line, line));
    }
}
