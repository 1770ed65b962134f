//! What every command that asks a node takes: where the node is, who is asking, in which form the answer is wanted.

use std::path::PathBuf;

use clap::Args;
use holdfast_protocol::kes::ApiKey;
use serde_json::Value;

use crate::client::{Answer, Client, Identity, Trust, fingerprint};
use crate::failure::Failure;
use crate::files::{refuse_open_to_others, secret_text};
use crate::kes::terms;
use crate::settings::{Given, Output, Settings, Token};
use crate::text::{remark, say, say_json};

/// What to say to a command that can't know which node is meant.
const WHERE: &str = "where is central? Give --addr URL with --ca-file FILE, HOLDFAST_ADDR with HOLDFAST_CA_FILE, a \
                     --profile, or --dir DIR of a `holdfast dev`";

/// Where the help of a command shows what all of them take.
pub(crate) const SHARED: &str = "Connection and output";

/// Where a node is and who is asking. It may hold a token, so it has no `Debug`.
#[derive(Args, Default)]
pub(crate) struct Connect {
    /// A profile of the configuration file (HOLDFAST_PROFILE).
    #[arg(help_heading = SHARED, long, value_name = "NAME", conflicts_with = "dir")]
    profile: Option<String>,
    /// Folder of a `holdfast dev`: address, certificates and credentials are taken from its dev.json.
    #[arg(help_heading = SHARED, long, value_name = "DIR", conflicts_with_all = ["addr", "ca_file", "pin"])]
    pub(crate) dir: Option<PathBuf>,
    /// With --dir: ask this site host instead of central.
    #[arg(help_heading = SHARED, long, value_name = "HOST", requires = "dir")]
    at: Option<String>,
    /// Address of central or of a site host, https://HOST:PORT (HOLDFAST_ADDR).
    #[arg(help_heading = SHARED, long, value_name = "URL", alias = "central")]
    addr: Option<String>,
    /// PEM file with the authority that its certificate comes from (HOLDFAST_CA_FILE).
    #[arg(help_heading = SHARED, long, value_name = "FILE", alias = "ca")]
    ca_file: Option<PathBuf>,
    /// Instead of --ca-file, for a central that is not initialised: the fingerprint (SHA-256, hex) it printed.
    #[arg(help_heading = SHARED, long, value_name = "HEX", value_parser = fingerprint)]
    pin: Option<[u8; 32]>,
    /// Client certificate to show, PEM (HOLDFAST_CLIENT_CERT).
    #[arg(help_heading = SHARED, long, value_name = "FILE", requires = "client_key", alias = "cert")]
    client_cert: Option<PathBuf>,
    /// Its private key, PEM (HOLDFAST_CLIENT_KEY).
    #[arg(help_heading = SHARED, long, value_name = "FILE", requires = "client_cert", alias = "key")]
    client_key: Option<PathBuf>,
    /// File with the token; `-` is standard input (HOLDFAST_TOKEN_FILE, HOLDFAST_TOKEN).
    #[arg(help_heading = SHARED, long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself. Others on this machine see arguments: better by --token-file.
    #[arg(help_heading = SHARED, long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// The form of what is printed (HOLDFAST_OUTPUT).
    #[arg(help_heading = SHARED, long, short, value_enum)]
    output: Option<Output>,
    /// The same as --output json: the answer as it came.
    #[arg(help_heading = SHARED, long, conflicts_with = "output")]
    json: bool,
}

impl Connect {
    /// What is in force.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        if self.token.is_some() {
            remark("--token: others on this machine see arguments; better --token-file or HOLDFAST_TOKEN_FILE");
        }
        let typed = self.token.clone().map(|text| Token::Text(text.into()));
        let identity = self.client_cert.clone().zip(self.client_key.clone());
        let given = Given {
            profile: self.profile.clone(),
            dir: self.dir.clone(),
            at: self.at.clone(),
            addr: self.addr.clone(),
            ca_file: self.ca_file.clone(),
            pin: self.pin,
            identity: identity.map(|(cert, key)| Identity { cert, key }),
            token: typed.or_else(|| self.token_file.clone().map(Token::File)),
            output: if self.json { Some(Output::Json) } else { self.output },
        };
        Settings::resolve(given, &|name| std::env::var(name).ok())
    }

    /// Everything for a command. Connects nothing yet.
    pub(crate) fn session(&self) -> Result<Session, Failure> {
        Session::of(self.settings()?)
    }

    /// Whether a certificate was named to be shown.
    pub(crate) fn shows_certificate(&self) -> bool {
        self.client_cert.is_some()
    }

    /// Whether a host of a `holdfast dev` is meant.
    pub(crate) fn is_at_host(&self) -> bool {
        self.at.is_some()
    }

    /// Only the client.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(self.session()?.client)
    }
}

/// A node, a caller, and how answers are printed.
pub(crate) struct Session {
    /// Asks the node.
    pub(crate) client: Client,
    /// What is in force.
    pub(crate) settings: Settings,
}

fn node_of(settings: &Settings) -> Result<(&str, &Trust), Failure> {
    let addr = settings.addr.as_ref().ok_or_else(|| Failure::usage(WHERE))?;
    let missing = || Failure::usage("--ca-file is needed (or --pin, for a central not initialised yet)");
    let trust = settings.trust.as_ref().ok_or_else(missing)?;
    Ok((&addr.value, &trust.value))
}

impl Session {
    fn of(settings: Settings) -> Result<Self, Failure> {
        let (addr, trust) = node_of(&settings)?;
        let client = Client::new(addr, trust, settings.identity.as_ref().map(|set| &set.value))?;
        let token = match settings.token.as_ref().map(|set| &set.value) {
            None => None,
            Some(Token::Text(text)) => Some(text.clone()),
            Some(Token::File(path)) => Some(secret_text(path)?),
            Some(Token::OwnFile(path)) => {
                refuse_open_to_others(path)?;
                Some(secret_text(path)?)
            }
        };
        if settings.withheld {
            remark("the profile's token is not sent: this is not the profile's address");
        }
        let client = match token {
            Some(token) => client.with_token(token.as_str()),
            None => client,
        };
        Ok(Self { client, settings })
    }

    /// As a client of KES, who is known by a key alone and sends no token: by an API key, or the certificate in force.
    pub(crate) fn of_client(settings: Settings, api_key: Option<&ApiKey>) -> Result<Self, Failure> {
        let (addr, trust) = node_of(&settings)?;
        let client = match api_key {
            Some(key) => Client::with_api_key(addr, trust, key, &terms()?)?,
            None => Client::new(addr, trust, settings.identity.as_ref().map(|set| &set.value))?,
        };
        Ok(Self { client, settings })
    }

    /// Whether answers are wanted as they came.
    pub(crate) fn wants_json(&self) -> bool {
        self.settings.output.as_ref().is_some_and(|set| set.value == Output::Json)
    }

    /// Prints an answer as it came, or as `plain` shows it.
    pub(crate) fn show(&self, body: &Value, plain: impl FnOnce(&Value) -> String) {
        match self.wants_json() {
            true => say_json(body),
            false => say(plain(body)),
        }
    }

    /// Prints that something was done, and how many hosts have still to hear of it. As JSON: the answer, if it has a body.
    pub(crate) fn done(&self, answer: &Answer, what: impl AsRef<str>) {
        let pending = answer.pending.as_ref().map(|pending| format!("still pending: {pending}"));
        match (self.wants_json(), pending) {
            (false, None) => say(what),
            (false, Some(pending)) => say(format!("{}; {pending}", what.as_ref())),
            (true, pending) => {
                if !answer.body.is_null() {
                    say_json(&answer.body);
                }
                pending.iter().for_each(remark);
            }
        }
    }

    /// Deletes what is at `path` (with `query`, of its own or empty). Unless `yes` was said it is only tried: nothing is
    /// deleted, and what would be is told.
    ///
    /// # Errors
    /// Also where it was only tried.
    pub(crate) async fn destroy(&self, path: &str, query: &str, yes: bool, what: &str) -> Result<Answer, Failure> {
        if yes {
            let query = if query.is_empty() { String::new() } else { format!("?{query}") };
            return Ok(self.client.delete(&format!("{path}{query}"), None).await?);
        }
        let more = if query.is_empty() { String::new() } else { format!("&{query}") };
        self.client.delete(&format!("{path}?validate=true{more}"), None).await?;
        Err(Failure::usage(format!("nothing was done; this deletes {what}, and can't be undone: say --yes")))
    }
}
