//! How a refusal of the domain reads to a client, in every dialect: status, words and Cerberus' code. Faults become
//! plain words here and nowhere else; what really happened goes to the log.

use axum::http::StatusCode;
use holdfast_actors::rows::Refusal;
use holdfast_actors::seal_keeper::SealRefusal;
use holdfast_actors::store::Fault;
use serde_json::json;

use crate::problem::Problem;

/// What to do about it belongs to the answer: whoever gets it is often the first to notice.
const FULL: &str = "the disk of this node is full: this is refused until there is room on it again (free some, or move \
                    old files of the read journal away); nothing has to be restarted";

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Sealed => Self::sealed(),
            Refusal::Invalid(why) => Self::bad_request(why),
            Refusal::Unauthenticated => Self::unauthorized("not authenticated"),
            Refusal::Denied => Self::forbidden("permission denied"),
            Refusal::NotFound(what) => Self::not_found(format!("{what} not found")),
            Refusal::Exists(what) => Self::conflict(format!("{what} exists already")),
            Refusal::Conflict(why) => Self::conflict(why),
            Refusal::Changed => Self::new(StatusCode::PRECONDITION_FAILED, refusal.to_string()),
            Refusal::TooManyAttempts { retry_after_s } => too_many_attempts(retry_after_s),
            Refusal::Unavailable(what) => unavailable(format!("{what} is not available")),
            // Nothing that the client does differently would help; hearing from central does.
            Refusal::LeaseExpired => unavailable(refusal.to_string()),
            Refusal::Restored => unavailable(refusal.to_string()),
            Refusal::Corrupt => {
                tracing::error!("a stored record is damaged");
                Self::internal()
            }
            Refusal::Fault(fault) => fault.into(),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full => unavailable(FULL),
            Fault::TooLarge => Self::bad_request("the request changes too much at once"),
            Fault::Overloaded => Self::overloaded(),
            Fault::Stopped => unavailable("the node is stopping"),
            Fault::Io(error) => {
                tracing::error!(error, "the store failed");
                Self::internal()
            }
        }
    }
}

impl From<SealRefusal> for Problem {
    fn from(refusal: SealRefusal) -> Self {
        match refusal {
            SealRefusal::Uninitialised => unavailable("not initialised: reveal-sealkey comes first"),
            SealRefusal::Sealed => Self::sealed(),
            SealRefusal::Invalid(why) => Self::bad_request(why),
            SealRefusal::WrongSealKey => Self::forbidden("wrong seal key"),
            SealRefusal::WrongShare { wrong } => {
                let listed: Vec<String> = wrong.iter().map(u8::to_string).collect();
                Self::forbidden(format!("wrong share: {}", listed.join(", "))).info(json!({ "wrong-shares": wrong }))
            }
            SealRefusal::TooManyAttempts { retry_after_s } => too_many_attempts(retry_after_s),
            SealRefusal::AlreadyRevealed => Self::forbidden("already revealed"),
            SealRefusal::NotAllowed => Self::forbidden("only from this machine itself or with the bootstrap secret"),
            SealRefusal::Damaged => {
                tracing::error!("the wrapped root key is damaged");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the wrapped root key is damaged")
            }
        }
    }
}

/// 403, as Strongbox has no 429, with the time in words and in `Retry-After`.
fn too_many_attempts(retry_after_s: u64) -> Problem {
    Problem::forbidden(format!("too many failed attempts within an hour; try again in {retry_after_s} s"))
        .retry_after(u32::try_from(retry_after_s).unwrap_or(u32::MAX))
}

fn unavailable(message: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_status() {
        let cases = [
            (Refusal::Sealed, 503),
            (Refusal::Invalid("x".to_owned()), 400),
            (Refusal::Unauthenticated, 401),
            (Refusal::Denied, 403),
            (Refusal::NotFound("site"), 404),
            (Refusal::Exists("site"), 409),
            (Refusal::Conflict("x".to_owned()), 409),
            (Refusal::Changed, 412),
            (Refusal::TooManyAttempts { retry_after_s: 9 }, 403),
            (Refusal::Unavailable("central"), 503),
            (Refusal::LeaseExpired, 503),
            (Refusal::Restored, 503),
            (Refusal::Corrupt, 500),
            (Refusal::Fault(Fault::Full), 503),
            (Refusal::Fault(Fault::TooLarge), 400),
            (Refusal::Fault(Fault::Overloaded), 503),
            (Refusal::Fault(Fault::Stopped), 503),
            (Refusal::Fault(Fault::Io("x".to_owned())), 500),
        ];
        for (refusal, status) in cases {
            let said = refusal.to_string();
            assert_eq!(Problem::from(refusal).status.as_u16(), status, "{said}");
        }
    }

    #[test]
    fn a_fault_tells_the_client_nothing_of_the_inside() {
        let problem = Problem::from(Refusal::Fault(Fault::Io("/var/lib/x: bad sector".to_owned())));
        assert_eq!(problem.message, "internal error");
    }

    #[test]
    fn too_many_attempts_say_when_to_come_back() {
        let problem = Problem::from(SealRefusal::TooManyAttempts { retry_after_s: 1234 });
        assert_eq!((problem.status.as_u16(), problem.retry_after_s), (403, Some(1234)));
        assert!(problem.message.contains("1234 s"), "{}", problem.message);
    }
}
