//! Readers of a log that do not read, over real sockets: they are cut off, what they were told has no gap, and nobody else
//! waits for them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use holdfast_testbed::lines::Lines;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval, timeout};

use crate::client::{Operator, follow, follow_over, kept};
use crate::world::World;

const AUDIT: &str = "/v1/log/audit";
/// What begins the path of a request whose lines are counted; its number comes behind it.
const COUNTED: &str = "/v1/key/describe/";
/// Lines by which a reader may be behind.
const BEHIND_MAX: usize = 1024;
/// Requests that are told in more bytes than sockets and connections hold for a reader: some 4 MB.
const ASKED: usize = 6000;
/// An answer on a busy machine. A request that waited for a reader would take as long as that is waited for.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Until a reader that takes nothing is cut off, 30 s, and what a busy machine takes.
const STALLED: Duration = Duration::from_secs(60);

/// A reader that may be late.
struct Reader(Lines);

impl Reader {
    fn of(body: Incoming) -> Self {
        Self(Lines::of(body, AT_ONCE))
    }

    /// The number that the next counted line tells; `None`: it has ended, in order.
    async fn number(&mut self) -> Option<usize> {
        loop {
            let line = self.0.next().await.expect("there is a line, or it ends in order")?;
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let counted = line["request"]["path"].as_str().unwrap().strip_prefix(COUNTED);
            if let Some(number) = counted {
                return Some(number.split('-').next().unwrap().parse().unwrap());
            }
        }
    }
}

/// One whose own machine holds little for it.
async fn follow_late(addr: SocketAddr, operator: &Operator) -> Reader {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(addr).await.unwrap();
    Reader::of(follow_over(stream, operator, AUDIT).await)
}

/// A request that is told in a long line.
async fn ask(of: &mut SendRequest<Body>, number: usize) {
    let path = format!("{COUNTED}{number}-{}", "x".repeat(400));
    let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
    let answered = async {
        of.ready().await.unwrap();
        let response = of.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "a name that no key can have");
        response.into_body().collect().await.unwrap();
    };
    timeout(AT_ONCE, answered).await.expect("no request waits for a reader");
}

/// How many follow a log.
async fn readers(world: &World) -> usize {
    let metrics = world.get("/v1/metrics").await.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix("holdfast_bound_used{bound=\"kes-streams\"} "));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_kes_log_that_does_not_read_is_cut_off_and_nobody_waits_for_it() {
    let mut world = World::start().await;
    world.initialise().await;
    let (addr, operator) = (world.addr(), &world.operator);
    let mut late = follow_late(addr, operator).await;
    let never = follow_late(addr, operator).await;
    let mut beside = Reader::of(follow(addr, operator, AUDIT).await);
    let mut asking = kept(TcpStream::connect(addr).await.unwrap(), operator).await;
    for number in 0..ASKED {
        ask(&mut asking, number).await;
        assert_eq!(beside.number().await, Some(number), "who reads hears of everything at once");
    }

    let mut heard = 0;
    while let Some(number) = late.number().await {
        assert_eq!(number, heard, "there is no gap");
        heard += 1;
    }
    assert!(heard + BEHIND_MAX < ASKED, "{heard} lines were held for a reader that does not read");

    let began = Instant::now();
    let mut pace = interval(Duration::from_millis(250));
    for number in ASKED.. {
        pace.tick().await;
        ask(&mut asking, number).await;
        assert_eq!(beside.number().await, Some(number), "it goes on for who reads");
        if readers(&world).await == 1 {
            break;
        }
        assert!(began.elapsed() < STALLED, "who takes nothing is cut off");
    }
    drop(never);
    world.stop().await;
}
