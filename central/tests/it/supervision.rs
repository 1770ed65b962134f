//! The seal keeper fails before each of its effects, at each of its operations: central is open or shut, never between,
//! and goes on.

use std::cell::Cell;
use std::net::UdpSocket;
use std::time::Duration;

use holdfast_actors::seal_keeper::Event;
use holdfast_actors::shell::mailbox::Admitted;
use holdfast_actors::shell::strike::{Fault, Strike};
use holdfast_central::{Config, Running, start};
use holdfast_rest::health::SealState;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::client::{Answer, As, Operator, try_call};
use crate::world::{First, SEAL, World, config_text};

/// More than any operation has.
const EFFECTS_MAX: usize = 8;
/// For what a node does at once, on a busy machine.
const PROMPTLY: Duration = Duration::from_secs(30);

struct Central {
    running: Running,
    first: First,
    _folder: TempDir,
}

impl Central {
    async fn unsealed() -> Self {
        let folder = TempDir::new().unwrap();
        let quic = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = config_text(folder.path(), &Operator::new());
        let text = text.replace("quic = \"127.0.0.1:0\"", &format!("quic = \"{quic}\""));
        let running = start(Config::parse(&text).unwrap()).await.unwrap();
        let path = format!("{SEAL}/reveal-sealkey");
        let first = First::of(&try_call(running.rest_addr(), As::default(), ("POST", &path), None).await.unwrap());
        let central = Self { running, first, _folder: folder };
        // So that it is no later call that has to note the use.
        assert_eq!(central.post("rotate-seal", None).await.status, 200);
        let status = central.post("rotate-seal", None).await;
        Self { first: First { sealkey: status.of("sealkey"), ..central.first }, ..central }
    }

    async fn post(&self, operation: &str, body: Option<Value>) -> Answer {
        let who = As { token: Some(&self.first.token), operator: None };
        let path = format!("{SEAL}/{operation}");
        let call = try_call(self.running.rest_addr(), who, ("POST", &path), body);
        timeout(PROMPTLY, call).await.unwrap_or_else(|_| panic!("{operation} takes over {PROMPTLY:?}")).unwrap()
    }

    async fn unseal(&self) -> Answer {
        self.post("unseal", Some(json!({ "sealkey": self.first.sealkey }))).await
    }

    fn restarts(&self) -> u64 {
        self.running.children().into_iter().find(|child| child.name == "seal keeper").unwrap().restarts
    }

    fn strike(&self, strike: Strike) {
        let keeper = self.running.children().into_iter().find(|child| child.name == "seal keeper").unwrap();
        keeper.cell.unwrap().send_message(Admitted::<Event>::strike(strike)).unwrap();
    }

    /// Waits until the keeper answers again, and what it says and what is so are one.
    async fn settled(&self, open: Option<bool>) -> bool {
        let look = async {
            loop {
                let node = self.running.node();
                let is_open = self.running.state() == SealState::Unsealed && !node.barrier.is_sealed();
                let is_shut = self.running.state() == SealState::Sealed && node.barrier.is_sealed();
                let reachable = self.running.quic_addr().is_some();
                if self.is_back()
                    && (is_open && reachable || is_shut && !reachable)
                    && open.is_none_or(|o| o == is_open)
                {
                    return is_open;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PROMPTLY, look).await.unwrap_or_else(|_| {
            let (state, sealed) = (self.running.state(), self.running.node().barrier.is_sealed());
            panic!("between: {state:?}, barrier sealed {sealed}, hosts reach {:?}", self.running.quic_addr())
        })
    }

    fn is_back(&self) -> bool {
        let keeper = self.running.children().into_iter().find(|child| child.name == "seal keeper").unwrap();
        keeper.cell.is_some()
    }
}

/// Answered as it should be, or with a clear 503.
fn is_told(answer: &Answer) -> bool {
    match answer.status.as_u16() {
        200 | 204 => true,
        503 => answer.json()["errors"][0]["error-message"].is_string(),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_keeper_that_fails_within_an_operation_leaves_central_open_or_shut_and_serving() {
    let mut struck = 0;
    for fault in [Fault::Panic, Fault::Fail] {
        let central = Central::unsealed().await;
        for effects in 0..EFFECTS_MAX {
            let before = central.restarts();
            central.strike(Strike { after_effects: Some(effects), fault });
            let sealing = central.post("seal", None).await;
            assert!(is_told(&sealing), "{} {}", sealing.status, sealing.text);
            let open = central.settled(None).await;
            assert!(sealing.status != 204 || !open, "sealed, it said");
            let opening = central.unseal().await;
            assert!(is_told(&opening), "{} {}", opening.status, opening.text);
            central.settled(None).await;
            // Whoever was struck or not: from here on all is as ever, hosts included.
            let again = central.unseal().await;
            assert_eq!(again.status, 204, "{}", again.text);
            central.settled(Some(true)).await;
            struck += central.restarts() - before;
        }
        central.running.stop().await;
    }
    assert!(8 <= struck, "{struck} strikes hit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_keeper_that_is_killed_while_it_seals_or_unseals_keeps_no_address_and_opens_what_is_to_be_open() {
    let central = Central::unsealed().await;
    let mut struck = 0;
    for round in 0..8 {
        // Somewhere between the closing of the gate and the answer, and between its opening and the listener's.
        let state = if round % 2 == 0 { SealState::Sealed } else { SealState::Unsealed };
        let is_answered = Cell::new(false);
        let killing = async {
            // A refusal comes without a change of the state.
            while central.running.state() != state && !is_answered.get() {
                tokio::task::yield_now().await;
            }
            if central.running.state() != state {
                return false;
            }
            let keeper = central.running.children().into_iter().find(|child| child.name == "seal keeper").unwrap();
            keeper.cell.unwrap().kill();
            true
        };
        let asking = async {
            let answer =
                if state == SealState::Sealed { central.post("seal", None).await } else { central.unseal().await };
            is_answered.set(true);
            answer
        };
        let (answer, killed) = tokio::join!(asking, killing);
        struck += usize::from(killed);
        assert!(is_told(&answer), "{} {}", answer.status, answer.text);
        assert_eq!(central.settled(None).await, state == SealState::Unsealed, "round {round}");
    }
    assert!(4 <= struck, "{struck} of 8 were killed");
    central.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_counted_over_restarts_of_the_keeper_and_shares_in_hand_are_not_there_any_more() {
    let mut world = World::start().await;
    let first = world.initialise().await;
    world.start_again().await;
    let keeper = || world.running().children().into_iter().find(|child| child.name == "seal keeper").unwrap();
    let harm = async |fault: Option<Fault>| {
        let before = keeper();
        match fault {
            Some(fault) => {
                let strike = Strike { after_effects: None, fault };
                before.cell.unwrap().send_message(Admitted::<Event>::strike(strike)).unwrap();
            }
            None => before.cell.unwrap().kill(),
        }
        let back = async {
            while keeper().restarts == before.restarts || keeper().cell.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PROMPTLY, back).await.unwrap();
    };
    for share in [&first.shares[0], &first.shares[1]] {
        let answer = world.unseal(json!({ "shares": [share] })).await;
        assert_eq!(answer.json()["progress"].as_u64(), Some(1), "{}", answer.text);
        harm(Some(Fault::Panic)).await;
    }
    let wrong = json!({ "shares": [format!("1:{}", first.sealkey)] });
    for fault in [None, Some(Fault::Panic), Some(Fault::Fail)] {
        let answer = world.unseal(wrong.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.headers.get("retry-after")), (403, None), "{}", answer.text);
        harm(fault).await;
    }
    let locked_out = world.unseal(json!({ "sealkey": first.sealkey })).await;
    assert_eq!(locked_out.status, 403);
    assert!(locked_out.headers.contains_key("retry-after"), "{}", locked_out.text);
    assert!(world.is_sealed().await);
    assert_eq!(world.unseal_as_operator(json!({ "sealkey": first.sealkey })).await.status, 204);
    world.stop().await;
}
