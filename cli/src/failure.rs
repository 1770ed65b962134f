//! What a command fails with, and the code it exits with then:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | refused, or it failed on this machine |
//! | 2 | the arguments, the environment or the profile don't fit; nothing was asked for |
//! | 3 | not reached, sealed or not available at the moment: worth another try |

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::client::ClientError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Central could not be reached or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anything else the system refused.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The arguments or files do not fit together.
    #[error("{0}")]
    Unfit(String),
    /// The command line, the environment or a profile do not fit together.
    #[error("{0}")]
    Usage(String),
    /// A program that this one started went wrong.
    #[error("{what}; the end of {}:\n{tail}", log.display())]
    Program {
        /// Which program, and how it ended.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
}

impl Failure {
    /// The arguments or files do not fit together.
    pub(crate) fn unfit(what: impl Into<String>) -> Self {
        Self::Unfit(what.into())
    }

    /// The command line, the environment or a profile do not fit together.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Usage(what.into())
    }

    /// What the program exits with.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Client(error) if error.is_unavailable() => 3,
            Self::Client(ClientError::Url { .. } | ClientError::Credentials { .. }) | Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// For `map_err` on file operations.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// For `map_err` on anything else the system may refuse.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// The whole chain of causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_every_cause_once() {
        let failure = Failure::file("a/b")(io::Error::other("disk on fire"));
        assert_eq!(failure.chain(), "a/b: disk on fire");
    }
    #[test]
    fn codes_tell_what_is_worth_another_try() {
        let refused = |status: u16| {
            let status = hyper::StatusCode::from_u16(status).unwrap();
            Failure::Client(ClientError::Refused {
                request: "GET /".to_owned(),
                status,
                message: "no".to_owned(),
                retry_after_s: None,
            })
        };
        let unreachable = ClientError::Unreachable { url: "u".to_owned(), reason: "r".to_owned() };
        let codes = [refused(403), refused(503), unreachable.into(), Failure::usage("x"), Failure::unfit("x")];
        assert_eq!(codes.map(|failure| failure.code()), [1, 3, 3, 2, 1]);
    }
}
