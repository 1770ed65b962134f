//! Reading a node's configuration: one TOML file, every mistake reported at once with its key.
//!
//! A [`Checker`] is asked for each key in turn and hands back a checked value or, after noting the mistake, a
//! placeholder; keys that were never asked for are unknown. [`Checker::finish`] lets nothing pass unless all was well.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub mod node;
mod setting;

pub use setting::{ByteCount, Name, Setting};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted path of the key; empty for the file as a whole.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

/// All mistakes of a file, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigError { key, problem }) in self.0.iter().enumerate() {
            let (line_break, colon) = (if index > 0 { "\n" } else { "" }, if key.is_empty() { "" } else { ": " });
            write!(f, "{line_break}{key}{colon}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A configuration file being read.
#[derive(Debug)]
pub struct Checker {
    table: Table,
    asked: RefCell<BTreeSet<String>>,
    errors: RefCell<Vec<ConfigError>>,
}

impl Checker {
    /// Takes the text of a file. Only broken TOML fails here.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        let table = text.parse::<Table>().map_err(|error| whole(located(text, &error)))?;
        Ok(Self { table, asked: RefCell::default(), errors: RefCell::default() })
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let text =
            std::fs::read_to_string(path).map_err(|error| whole(format!("can't read {}: {error}", path.display())))?;
        Self::parse(&text)
    }

    /// The value at a dotted key; `None` if absent or, noted, of the wrong kind.
    pub fn optional<T: Setting>(&self, key: &str) -> Option<T> {
        self.asked.borrow_mut().insert(key.to_owned());
        match T::read(self.find(key)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.note(key, problem);
                None
            }
        }
    }

    /// The value, or `default` if absent.
    pub fn or<T: Setting>(&self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value; its absence is a mistake, and `placeholder` only lets the reading go on.
    pub fn required<T: Setting>(&self, key: &str, placeholder: T) -> T {
        if self.find(key).is_none() {
            self.note(key, format!("is missing, expected {}", T::EXPECTED));
        }
        self.or(key, placeholder)
    }

    /// An address with port.
    pub fn addr(&self, key: &str, default: SocketAddr) -> SocketAddr {
        self.or(key, default)
    }

    /// A duration like `"1h30m"`.
    pub fn duration(&self, key: &str, default: Duration) -> Duration {
        self.or(key, default)
    }

    /// A number of bytes: a number, or a text like `"64 MiB"`.
    pub fn bytes(&self, key: &str, default: u64) -> u64 {
        self.or(key, ByteCount(default)).0
    }

    /// A path.
    pub fn path(&self, key: &str, default: impl Into<PathBuf>) -> PathBuf {
        self.or(key, default.into())
    }

    /// The name of a tenant, site or host.
    pub fn name(&self, key: &str) -> Option<String> {
        self.optional::<Name>(key).map(|name| name.0)
    }

    /// A part with a type of its own (a dialect's section). It takes the whole subtree; unknown keys are the type's to
    /// refuse. A missing part is `None`.
    pub fn part<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.asked.borrow_mut().insert(key.to_owned());
        match self.find(key)?.clone().try_into() {
            Ok(part) => Some(part),
            Err(error) => {
                self.note(key, error.to_string().lines().next().unwrap_or_default().to_owned());
                None
            }
        }
    }

    /// The keys of the table at `key`, for tables whose keys are names; each is then asked for by itself.
    pub fn keys(&self, key: &str) -> Vec<String> {
        match self.find(key) {
            Some(Value::Table(table)) => table.keys().cloned().collect(),
            Some(_) => {
                self.asked.borrow_mut().insert(key.to_owned());
                self.note(key, "expected a table".to_owned());
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// How many tables the list at `key` has; what is in one of them is asked for by the key, its number from 0 on and the
    /// member's name.
    pub fn tables(&self, key: &str) -> usize {
        match self.find(key) {
            Some(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_table) => list.len(),
            Some(Value::Array(list)) if list.is_empty() => {
                self.asked.borrow_mut().insert(key.to_owned());
                0
            }
            Some(_) => {
                self.asked.borrow_mut().insert(key.to_owned());
                self.note(key, "expected a list of tables".to_owned());
                0
            }
            None => 0,
        }
    }

    /// Whether there is anything at `key`.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Notes `problem` with `key` unless `holds`: for what one value alone doesn't tell.
    pub fn check(&self, key: &str, holds: bool, problem: &str) {
        if !holds {
            self.note(key, problem.to_owned());
        }
    }

    /// Gives out what was built from the values if there was no mistake and no unknown key.
    pub fn finish<T>(self, built: T) -> Result<T, ConfigErrors> {
        let mut errors = self.errors.into_inner();
        unknown_keys(&self.table, "", &self.asked.into_inner(), &mut errors);
        errors.sort_by(|a, b| a.key.cmp(&b.key));
        if errors.is_empty() { Ok(built) } else { Err(ConfigErrors(errors)) }
    }

    fn find(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.table.get(parts.next()?)?;
        parts.try_fold(first, |value, part| match value {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            value => value.as_table()?.get(part),
        })
    }

    fn note(&self, key: &str, problem: String) {
        self.errors.borrow_mut().push(ConfigError { key: key.to_owned(), problem });
    }
}

/// What the decoder objects to and where, without the line itself: whatever stands there may be a secret.
fn located(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
    let what = error.message().lines().next().unwrap_or_default();
    format!("line {}, column {column}: {what}", before.matches('\n').count() + 1)
}

fn whole(problem: String) -> ConfigErrors {
    ConfigErrors(vec![ConfigError { key: String::new(), problem }])
}

/// A key is known if it was asked for, or if it is a table, or a list of tables, and keys below it were; those are then
/// looked at in turn.
fn unknown_keys(table: &Table, above: &str, asked: &BTreeSet<String>, errors: &mut Vec<ConfigError>) {
    for (name, value) in table {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        if asked.contains(&key) {
            continue;
        }
        let below = format!("{key}.");
        let is_asked_into = asked.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below));
        match value {
            Value::Table(inner) if is_asked_into => unknown_keys(inner, &key, asked, errors),
            Value::Array(list) if is_asked_into && list.iter().all(Value::is_table) && !list.is_empty() => {
                for (index, inner) in list.iter().filter_map(Value::as_table).enumerate() {
                    unknown_keys(inner, &format!("{key}.{index}"), asked, errors);
                }
            }
            _ if is_asked_into => errors.push(ConfigError { key, problem: "expected a table".to_owned() }),
            _ => errors.push(ConfigError { key, problem: "unknown key".to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests;
