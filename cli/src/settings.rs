//! What is in force: where a node is, how it is known, who is asking. Each setting comes from the command line, else
//! from the environment, else from a profile; whole pairs (certificate and key) from one of them.
//!
//! | flag | variable | member of a profile |
//! |---|---|---|
//! | `--profile` | `HOLDFAST_PROFILE` | (`default` is used if none is named) |
//! | `--addr` | `HOLDFAST_ADDR` | `addr` |
//! | `--ca-file`, `--pin` | `HOLDFAST_CA_FILE` | `ca-file`, `pin` |
//! | `--client-cert`, `--client-key` | `HOLDFAST_CLIENT_CERT`, `HOLDFAST_CLIENT_KEY` | `client-cert`, `client-key` |
//! | `--token-file`, `--token` | `HOLDFAST_TOKEN_FILE`, `HOLDFAST_TOKEN` | `token-file`, `token` |
//! | `--tenant` of logins | `HOLDFAST_TENANT` | `tenant` |
//! | `--output`, `--json` | `HOLDFAST_OUTPUT` | `output` |
//!
//! A profile's token is sent to the profile's address only. With `--dir` all but tenant and form of output is from
//! `dev.json`, no profile is read, and of the environment only a token counts.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::client::{Identity, Trust};
use crate::failure::Failure;

mod dev;
mod profile;
#[cfg(test)]
mod tests;

pub(crate) use profile::Profile;

/// Where a setting is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Environment(&'static str),
    /// The profile.
    Profile,
    /// The folder of a `holdfast dev`.
    Dev,
    /// Nothing else was said.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "command line",
            Self::Environment(name) => name,
            Self::Profile => "profile",
            Self::Dev => "dev.json",
            Self::Default => "default",
        })
    }
}

/// A setting, and where it is from.
#[derive(Clone)]
pub(crate) struct Set<T> {
    /// What it is.
    pub(crate) value: T,
    /// Where from.
    pub(crate) from: Origin,
}

/// A token, or where it lies. It has no `Debug`.
#[derive(Clone)]
pub(crate) enum Token {
    /// Itself.
    Text(Zeroizing<String>),
    /// A file with it; `-` is standard input.
    File(PathBuf),
    /// A file of a profile, which nobody else may open.
    OwnFile(PathBuf),
}

/// In which form answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// The node's answer as it came.
    Json,
}

/// What the command line says. It may hold a token, so it has no `Debug`.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) profile: Option<String>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) at: Option<String>,
    pub(crate) addr: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) pin: Option<[u8; 32]>,
    pub(crate) identity: Option<Identity>,
    pub(crate) token: Option<Token>,
    pub(crate) output: Option<Output>,
}

/// The variables of the environment.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What is in force.
#[derive(Default)]
pub(crate) struct Settings {
    /// The profile that was read.
    pub(crate) profile: Option<Set<Profile>>,
    /// The node's `https://host:port`.
    pub(crate) addr: Option<Set<String>>,
    /// How its certificate is judged.
    pub(crate) trust: Option<Set<Trust>>,
    /// The client certificate that is shown.
    pub(crate) identity: Option<Set<Identity>>,
    /// The token that is sent.
    pub(crate) token: Option<Set<Token>>,
    /// The profile has a token, which is not sent: the address is another's.
    pub(crate) withheld: bool,
    /// Where users log in.
    pub(crate) tenant: Option<Set<String>>,
    /// The form of answers.
    pub(crate) output: Option<Set<Output>>,
}

impl Settings {
    /// Works out what is in force. Reads the profile or `dev.json`, connects nothing.
    pub(crate) fn resolve(mut given: Given, environment: Environment<'_>) -> Result<Self, Failure> {
        let variable = |name: &str| environment(name).filter(|text| !text.is_empty());
        let (profile, dir, at) = (given.profile.take(), given.dir.take(), given.at.take());
        let own = Self::of_flags(given);
        let of_environment = Self::of_environment(&variable)?;
        if let Some(dir) = dir {
            let known = dev::settings(&dir, at.as_deref())?;
            return Ok(own.or(Self { addr: None, trust: None, identity: None, ..of_environment }).or(known));
        }
        let profile = Profile::named(profile, &variable)?;
        let named = own.or(of_environment);
        let Some(profile) = profile else { return Ok(named) };
        let own_addr = profile.value.addr.as_deref();
        let is_elsewhere = |set: &Set<String>| own_addr.is_some_and(|own| !is_same(own, &set.value));
        let is_elsewhere = named.addr.as_ref().is_some_and(is_elsewhere);
        let mut known = profile.value.settings();
        if is_elsewhere {
            known.withheld = known.token.take().is_some();
        }
        Ok(Self { profile: Some(profile), ..named.or(known) })
    }

    fn of_flags(given: Given) -> Self {
        Self {
            addr: set(given.addr, Origin::Flag),
            // A pin is more than an authority: who types both means the one certificate.
            trust: set(given.pin.map(Trust::Pin).or(given.ca_file.map(Trust::CaFile)), Origin::Flag),
            identity: set(given.identity, Origin::Flag),
            token: set(given.token, Origin::Flag),
            output: set(given.output, Origin::Flag),
            ..Self::default()
        }
    }

    fn of_environment(variable: Environment<'_>) -> Result<Self, Failure> {
        let of = |name: &'static str| set(variable(name), Origin::Environment(name));
        let path = |name: &'static str| of(name).map(|set| set.map(PathBuf::from));
        let identity = match (path("HOLDFAST_CLIENT_CERT"), path("HOLDFAST_CLIENT_KEY")) {
            (Some(cert), Some(key)) => {
                Some(Set { value: Identity { cert: cert.value, key: key.value }, from: cert.from })
            }
            (None, None) => None,
            _ => return Err(Failure::usage("HOLDFAST_CLIENT_CERT and HOLDFAST_CLIENT_KEY go together")),
        };
        let token = of("HOLDFAST_TOKEN").map(|set| set.map(|text| Token::Text(text.into())));
        Ok(Self {
            addr: of("HOLDFAST_ADDR"),
            trust: path("HOLDFAST_CA_FILE").map(|set| set.map(Trust::CaFile)),
            identity,
            token: token.or_else(|| path("HOLDFAST_TOKEN_FILE").map(|set| set.map(Token::File))),
            tenant: of("HOLDFAST_TENANT"),
            output: of("HOLDFAST_OUTPUT").map(|set| set.try_map(|text| output(&text))).transpose()?,
            ..Self::default()
        })
    }

    /// These, and for what they leave open the others.
    fn or(self, others: Self) -> Self {
        Self {
            profile: self.profile.or(others.profile),
            addr: self.addr.or(others.addr),
            trust: self.trust.or(others.trust),
            identity: self.identity.or(others.identity),
            token: self.token.or(others.token),
            withheld: self.withheld || others.withheld,
            tenant: self.tenant.or(others.tenant),
            output: self.output.or(others.output),
        }
    }
}

impl<T> Set<T> {
    fn map<U>(self, into: impl FnOnce(T) -> U) -> Set<U> {
        Set { value: into(self.value), from: self.from }
    }

    fn try_map<U>(self, into: impl FnOnce(T) -> Result<U, Failure>) -> Result<Set<U>, Failure> {
        Ok(Set { value: into(self.value)?, from: self.from })
    }
}

fn set<T>(value: Option<T>, from: Origin) -> Option<Set<T>> {
    value.map(|value| Set { value, from })
}

fn output(text: &str) -> Result<Output, Failure> {
    match text {
        "table" => Ok(Output::Table),
        "json" => Ok(Output::Json),
        other => Err(Failure::usage(format!("the form of output is table or json, not {other}"))),
    }
}

fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}
