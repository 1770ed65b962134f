//! The two ways of KES to speak: of the years 2020 and 2021, and of its last versions.

use axum::http::Method;

use super::api::{Api, Spoken};

/// Of which years a listener's clients are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Versions 0.13 and 0.14: changes by POST, lists line by line, ciphertexts in JSON.
    #[default]
    Seed,
    /// The last versions: lists in pages, ciphertexts without any mark, other words of refusal.
    Current,
}

impl Profile {
    /// In which way a request is answered by a listener of this profile: in the newer one wherever only a client of that
    /// can have sent it.
    pub(super) fn of(self, api: &Api, method: &Method) -> Self {
        if api.spoken == Spoken::Later || method == Method::PUT { Self::Current } else { self }
    }

    /// Its name in the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Current => "current",
        }
    }

    /// A profile by its name in the configuration.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "seed" => Some(Self::Seed),
            "current" => Some(Self::Current),
            _ => None,
        }
    }
}
