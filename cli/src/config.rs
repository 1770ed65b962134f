//! `holdfast config`: what is in force, and where from.

use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::client::Trust;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::settings::{Output, Set, Settings, Token};
use crate::text::{say, say_json, table};

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show which settings a command given the same options would use, and where each is from. Asks nobody.
    Show {
        #[command(flatten)]
        connect: Connect,
    },
}

/// A row: setting, value, origin.
type Row = (&'static str, Option<(String, String)>);

/// Runs it.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let Command::Show { connect } = command;
    let settings = connect.settings()?;
    let rows = rows(&settings);
    if settings.output.as_ref().is_some_and(|set| set.value == Output::Json) {
        say_json(&as_json(&rows));
    } else {
        let dash = || ("-".to_owned(), "-".to_owned());
        let row = |(name, set): &Row| {
            let (value, from) = set.clone().unwrap_or_else(dash);
            vec![(*name).to_owned(), value, from]
        };
        say(table(&["SETTING", "VALUE", "FROM"], &rows.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(())
}

/// No token stands in any of them.
fn rows(settings: &Settings) -> Vec<Row> {
    fn of<T>(set: &Option<Set<T>>, shown: impl Fn(&T) -> String) -> Option<(String, String)> {
        set.as_ref().map(|set| (shown(&set.value), set.from.to_string()))
    }
    let trust = |is_pin: bool| settings.trust.clone().filter(|set| matches!(set.value, Trust::Pin(_)) == is_pin);
    let profile = settings.profile.as_ref();
    let token = of(&settings.token, token_shown);
    let withheld = || ("(not sent: this is not the profile's address)".to_owned(), "profile".to_owned());
    vec![
        ("profile", of(&settings.profile, |profile| profile.name.clone())),
        ("file", profile.map(|set| (set.value.file.display().to_string(), "profile".to_owned()))),
        ("addr", of(&settings.addr, String::clone)),
        ("ca-file", of(&trust(false), trust_shown)),
        ("pin", of(&trust(true), trust_shown)),
        ("client-cert", of(&settings.identity, |identity| identity.cert.display().to_string())),
        ("client-key", of(&settings.identity, |identity| identity.key.display().to_string())),
        ("token", token.or_else(|| settings.withheld.then(withheld))),
        ("tenant", of(&settings.tenant, String::clone)),
        ("output", Some(output(settings))),
    ]
}

fn output(settings: &Settings) -> (String, String) {
    match &settings.output {
        Some(Set { value: Output::Json, from }) => ("json".to_owned(), from.to_string()),
        Some(Set { value: Output::Table, from }) => ("table".to_owned(), from.to_string()),
        None => ("table".to_owned(), "default".to_owned()),
    }
}

fn trust_shown(trust: &Trust) -> String {
    match trust {
        Trust::CaFile(path) => path.display().to_string(),
        Trust::Pin(pin) => hex::encode(pin),
    }
}

fn token_shown(token: &Token) -> String {
    match token {
        Token::Text(_) => "(hidden)".to_owned(),
        Token::File(path) | Token::OwnFile(path) => format!("(hidden) in {}", path.display()),
    }
}

fn as_json(rows: &[Row]) -> Value {
    let one = |(name, set): &Row| {
        let set = set.as_ref().map(|(value, from)| json!({"value": value, "from": from}));
        ((*name).to_owned(), set.unwrap_or(Value::Null))
    };
    Value::Object(rows.iter().map(one).collect::<Map<_, _>>())
}
