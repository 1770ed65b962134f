//! Profiles: `$HOLDFAST_CONFIG`, else `~/.config/holdfast/config.toml`, with a table `[profile.NAME]` each. Paths in it
//! are meant beside the file. A profile's token lies in a file of its own, `NAME.token` beside the file unless
//! `token-file` names another one; a file with a token in it may be opened by its owner only.
//!
//! Nothing of a value is repeated in a refusal: it might be a token.

use std::path::{Path, PathBuf};

use toml::{Table, Value};
use zeroize::{Zeroize, Zeroizing};

use super::{Environment, Origin, Output, Set, Settings, Token, output};
use crate::client::{Identity, Trust, fingerprint};
use crate::failure::Failure;
use crate::files::refuse_open_to_others;

/// The profile that is used if none is named.
const DEFAULT: &str = "default";
/// What may stand in a profile.
const MEMBERS: [&str; 9] =
    ["addr", "ca-file", "pin", "client-cert", "client-key", "token", "token-file", "tenant", "output"];

/// A profile. It may hold a token, so it has no `Debug`.
#[derive(Default)]
pub(crate) struct Profile {
    /// Its name.
    pub(crate) name: String,
    /// The file it stands in.
    pub(crate) file: PathBuf,
    /// The node that it is about.
    pub(crate) addr: Option<String>,
    /// Where its token lies, or will.
    pub(crate) token_file: PathBuf,
    trust: Option<Trust>,
    identity: Option<Identity>,
    token: Option<Zeroizing<String>>,
    tenant: Option<String>,
    output: Option<Output>,
}

impl Profile {
    /// The profile that is asked for, by name or as the default one if there is such.
    ///
    /// # Errors
    /// It is not there, or something in the file is not as it should be.
    pub(super) fn named(flag: Option<String>, variable: Environment<'_>) -> Result<Option<Set<Self>>, Failure> {
        let asked = match (flag, variable("HOLDFAST_PROFILE")) {
            (Some(name), _) => Some((name, Origin::Flag)),
            (None, Some(name)) => Some((name, Origin::Environment("HOLDFAST_PROFILE"))),
            (None, None) => None,
        };
        let (file, is_named) = place(variable);
        if !is_named && asked.is_none() && !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&file).map(Zeroizing::new).map_err(Failure::file(&file))?;
        let mut all = read(&file, &text)?;
        let (name, from) = asked.clone().unwrap_or((DEFAULT.to_owned(), Origin::Default));
        match (all.iter().position(|profile| profile.name == name), asked) {
            (Some(at), _) => Ok(Some(Set { value: all.swap_remove(at), from })),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                let known: Vec<&str> = all.iter().map(|profile| profile.name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Failure::usage(format!("{} has no profile {name} (it has: {known})", file.display())))
            }
        }
    }

    /// What it says, its token apart if that is not there yet.
    pub(super) fn settings(&self) -> Settings {
        fn of<T>(value: Option<T>) -> Option<Set<T>> {
            value.map(|value| Set { value, from: Origin::Profile })
        }
        let kept = || self.token_file.exists().then(|| Token::OwnFile(self.token_file.clone()));
        Settings {
            addr: of(self.addr.clone()),
            trust: of(self.trust.clone()),
            identity: of(self.identity.clone()),
            token: of(self.token.clone().map(Token::Text).or_else(kept)),
            tenant: of(self.tenant.clone()),
            output: of(self.output),
            ..Settings::default()
        }
    }

    /// Where a new token of this profile goes.
    ///
    /// # Errors
    /// It has one in itself, which would win over any in a file.
    pub(crate) fn token_place(&self) -> Result<&Path, Failure> {
        match self.token {
            None => Ok(&self.token_file),
            Some(_) => Err(Failure::usage(format!("profile {} holds a token itself: take it out first", self.name))),
        }
    }
}

/// The file, and whether somebody named it.
fn place(variable: Environment<'_>) -> (PathBuf, bool) {
    if let Some(path) = variable("HOLDFAST_CONFIG") {
        return (PathBuf::from(path), true);
    }
    let home = || PathBuf::from(variable("HOME").unwrap_or_default()).join(".config");
    (variable("XDG_CONFIG_HOME").map_or_else(home, PathBuf::from).join("holdfast/config.toml"), false)
}

/// All profiles of a file: a mistake in one of them is told whichever is used.
fn read(file: &Path, text: &str) -> Result<Vec<Profile>, Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what}", file.display()));
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        wrong(format!("line {line} is no TOML"))
    })?;
    let profiles = table.remove("profile");
    if let Some(name) = table.keys().next() {
        return Err(wrong(format!("unknown member {name}; profiles are tables [profile.NAME]")));
    }
    let Some(profiles) = profiles else { return Ok(Vec::new()) };
    let Value::Table(profiles) = profiles else { return Err(wrong("profile is no table".to_owned())) };
    let one = |(name, value)| one(file, name, value).map_err(wrong);
    let all: Vec<Profile> = profiles.into_iter().map(one).collect::<Result<_, _>>()?;
    if all.iter().any(|profile| profile.token.is_some()) {
        refuse_open_to_others(file)?;
    }
    Ok(all)
}

fn one(file: &Path, name: String, value: Value) -> Result<Profile, String> {
    let Value::Table(members) = value else { return Err(format!("profile.{name} is no table")) };
    let mut texts = Vec::new();
    for (member, value) in members {
        let Some(known) = MEMBERS.into_iter().find(|known| *known == member) else {
            return Err(format!("unknown member {member} of profile.{name} (there are: {})", MEMBERS.join(", ")));
        };
        let Value::String(text) = value else { return Err(format!("{known} of profile.{name} is no text")) };
        texts.push((known, text));
    }
    let mut take = |member| texts.iter().position(|(name, _)| *name == member).map(|at| texts.swap_remove(at).1);
    let folder = file.parent().unwrap_or(Path::new("."));
    let beside = |path: String| folder.join(path);
    let trust = match (take("ca-file"), take("pin")) {
        (Some(_), Some(_)) => return Err(format!("profile.{name}: one of ca-file and pin")),
        (ca_file, None) => ca_file.map(|path| Trust::CaFile(beside(path))),
        (None, Some(pin)) => {
            Some(Trust::Pin(fingerprint(&pin).map_err(|why| format!("pin of profile.{name}: {why}"))?))
        }
    };
    let identity = match (take("client-cert"), take("client-key")) {
        (Some(cert), Some(key)) => Some(Identity { cert: beside(cert), key: beside(key) }),
        (None, None) => None,
        _ => return Err(format!("profile.{name}: client-cert and client-key go together")),
    };
    let token = match (take("token").map(Zeroizing::new), take("token-file")) {
        (Some(mut token), Some(_)) => {
            token.zeroize();
            return Err(format!("profile.{name}: one of token and token-file"));
        }
        (token, file) => (token, file),
    };
    let own_token = |name: &str| format!("{}.token", crate::client::segment(name));
    Ok(Profile {
        addr: take("addr"),
        tenant: take("tenant"),
        output: take("output")
            .map(|text| output(&text))
            .transpose()
            .map_err(|_| format!("output of profile.{name} is table or json"))?,
        token_file: beside(token.1.unwrap_or_else(|| own_token(&name))),
        token: token.0,
        file: file.to_owned(),
        trust,
        identity,
        name,
    })
}
