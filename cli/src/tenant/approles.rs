//! `holdfast tenant approle`: by which programs log in, at central and at site hosts.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::client::{Erased, segment};
use crate::connect::Connect;
use crate::distribute::{Distribute, shown};
use crate::failure::Failure;
use crate::files::{replace, secret_text};
use crate::operator::keep;
use crate::text::{cell, listing, members, say, time};

const CONFIG: &str = "/v1/config/strongbox/authentication/approles";
const STATE: &str = "/v1/state/strongbox/authentication/approles";

/// An approle by name.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    connect: Connect,
    /// The approle.
    approle: String,
}

/// What an approle is to be.
#[derive(Args)]
pub(crate) struct Terms {
    /// A role-id of one's own choice, which several tenants may use; else one is drawn.
    #[arg(long, value_name = "TEXT")]
    fixed_role_id: Option<String>,
    /// Whether a program must show a secret-id too (true unless said otherwise).
    #[arg(long, value_name = "BOOL")]
    bind_secret_id: Option<bool>,
    /// Whether a secret-id alone is enough.
    #[arg(long, value_name = "BOOL")]
    weak_secret_id: Option<bool>,
    /// Life of a secret-id, such as 12h; 0s: no end.
    #[arg(long, value_name = "DURATION")]
    secret_id_ttl: Option<String>,
    /// Logins with one secret-id; 0: no bound.
    #[arg(long, value_name = "N")]
    secret_id_num_uses: Option<u32>,
    /// Life of a token (1h unless said otherwise).
    #[arg(long, value_name = "DURATION")]
    token_ttl: Option<String>,
    /// A group that a program counts as a member of. May be repeated; a change adds to those there are.
    #[arg(long = "token-policy", value_name = "GROUP")]
    token_policies: Vec<String>,
    /// A group whose members may have secret-ids made, beside admins. May be repeated; a change adds to those there are.
    #[arg(long = "secret-id-minter", value_name = "GROUP")]
    secret_id_minters: Vec<String>,
    #[command(flatten)]
    distribute: Distribute,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the approles.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show how one is set up.
    Show(Named),
    /// Create one.
    Create {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        terms: Terms,
    },
    /// Change what is named; the rest stays. A change of what proves a program ends all its tokens and secret-ids.
    Update {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        terms: Terms,
    },
    /// Delete one; its tokens and secret-ids end.
    Delete(Named),
    /// Print the role-id, which a program says it is. At site hosts too.
    RoleId(Named),
    /// Have a secret-id made, good at the node that is asked only, and shown this once. At site hosts too.
    SecretId {
        #[command(flatten)]
        named: Named,
        /// A shorter life than the approle gives.
        #[arg(long, value_name = "DURATION")]
        ttl: Option<String>,
        /// Fewer logins than the approle gives.
        #[arg(long, value_name = "N")]
        num_uses: Option<u32>,
        /// Write the secret-id to this file (mode 0600) instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// End all tokens and secret-ids of an approle, wherever they were issued.
    Revoke(Named),
    /// Log in as a program does, and print the token. At site hosts too.
    Login {
        #[command(flatten)]
        connect: Connect,
        /// File with the role-id; `-` is standard input.
        #[arg(long, value_name = "FILE", required_unless_present = "secret_id_file")]
        role_id_file: Option<PathBuf>,
        /// File with the secret-id; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        secret_id_file: Option<PathBuf>,
        /// Write the token to this file (mode 0600) instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Runs one of them.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { connect } => {
            let session = connect.session()?;
            session.show(&session.client.get(CONFIG).await?.body, all);
        }
        Command::Show(named) => {
            let session = named.connect.session()?;
            session.show(&session.client.get(&named.below(CONFIG)).await?.body, one);
        }
        Command::Create { named, terms } => {
            let session = named.connect.session()?;
            let mut body = terms.body();
            body.insert("name".to_owned(), json!(named.approle));
            let answer = session.client.post(CONFIG, &Value::Object(body)).await?;
            session.done(&answer, format!("created approle {}", named.approle));
        }
        Command::Update { named, terms } => {
            let session = named.connect.session()?;
            let answer = session.client.patch(&named.below(CONFIG), &Value::Object(terms.body())).await?;
            session.done(&answer, format!("changed approle {}", named.approle));
        }
        Command::Delete(named) => {
            let session = named.connect.session()?;
            let answer = session.client.delete(&named.below(CONFIG), None).await?;
            session.done(&answer, format!("deleted approle {}", named.approle));
        }
        Command::RoleId(named) => {
            let session = named.connect.session()?;
            let answer = session.client.get(&named.below(STATE)).await?;
            let role_id = answer.text("role-id")?;
            session.show(&answer.body, |_| role_id);
        }
        Command::SecretId { named, ttl, num_uses, out } => secret_id(&named, ttl, num_uses, out).await?,
        Command::Revoke(named) => {
            let session = named.connect.session()?;
            let answer = session.client.order(&format!("{}/revoke", named.below(STATE))).await?;
            session.done(&answer, format!("all tokens and secret-ids of {} have ended", named.approle));
        }
        Command::Login { connect, role_id_file, secret_id_file, out } => {
            log_in(&connect, role_id_file, secret_id_file, out).await?;
        }
    }
    Ok(())
}

async fn secret_id(
    named: &Named,
    ttl: Option<String>,
    num_uses: Option<u32>,
    out: Option<PathBuf>,
) -> Result<(), Failure> {
    let session = named.connect.session()?;
    let mut body = json!({});
    if let Some(ttl) = ttl {
        body["ttl"] = json!(ttl);
    }
    if let Some(num_uses) = num_uses {
        body["num-uses"] = json!(num_uses);
    }
    let answer = session.client.post(&format!("{}/generate-secret-id", named.below(STATE)), &body).await?;
    let Some(out) = out else {
        session.show(&answer.body, minted);
        return Ok(());
    };
    let written = replace(&out, format!("{}\n", answer.text("secret-id")?).as_bytes(), 0o600);
    if written.is_err() {
        // It is shown nowhere again.
        session.show(&answer.body, minted);
    }
    written?;
    say(format!("secret-id {} written to {}", cell(&answer.body, "accessor"), out.display()));
    Ok(())
}

async fn log_in(
    connect: &Connect,
    role_id: Option<PathBuf>,
    secret_id: Option<PathBuf>,
    out: Option<PathBuf>,
) -> Result<(), Failure> {
    let session = connect.session()?;
    let mut body = Erased(json!({}));
    for (member, file) in [("role-id", role_id), ("secret-id", secret_id)] {
        if let Some(file) = file {
            body[member] = json!(secret_text(&file)?.as_str());
        }
    }
    let answer = session.client.post("/v1/approle-login", &body).await?;
    match out {
        Some(place) => keep(&answer, &place),
        None => {
            let token = answer.text("token")?;
            session.show(&answer.body, |_| token);
            Ok(())
        }
    }
}

impl Named {
    fn below(&self, what: &str) -> String {
        format!("{what}/{}", segment(&self.approle))
    }
}

impl Terms {
    /// What of it was said.
    fn body(&self) -> Map<String, Value> {
        let groups = |groups: &[String]| (!groups.is_empty()).then(|| json!(groups));
        let said = [
            ("fixed-role-id", self.fixed_role_id.as_ref().map(|text| json!(text))),
            ("bind-secret-id", self.bind_secret_id.map(|flag| json!(flag))),
            ("weak-secret-id", self.weak_secret_id.map(|flag| json!(flag))),
            ("secret-id-ttl", self.secret_id_ttl.as_ref().map(|text| json!(text))),
            ("secret-id-num-uses", self.secret_id_num_uses.map(|count| json!(count))),
            ("token-ttl", self.token_ttl.as_ref().map(|text| json!(text))),
            ("token-policies", groups(&self.token_policies)),
            ("secret-id-minters", groups(&self.secret_id_minters)),
            ("distribute", self.distribute.body()),
        ];
        said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

fn minted(answer: &Value) -> String {
    members(&[
        ("secret-id", cell(answer, "secret-id")),
        ("accessor", cell(answer, "accessor")),
        ("expires", time(answer, "expires")),
        ("logins", cell(answer, "num-uses")),
    ])
}

fn one(approle: &Value) -> String {
    members(&[
        ("name", cell(approle, "name")),
        ("fixed role-id", cell(approle, "fixed-role-id")),
        ("bind secret-id", cell(approle, "bind-secret-id")),
        ("weak secret-id", cell(approle, "weak-secret-id")),
        ("secret-id ttl", cell(approle, "secret-id-ttl")),
        ("secret-id uses", cell(approle, "secret-id-num-uses")),
        ("token ttl", cell(approle, "token-ttl")),
        ("token policies", cell(approle, "token-policies")),
        ("minters", cell(approle, "secret-id-minters")),
        ("distributed", shown(&approle["distribute"])),
    ])
}

fn all(approles: &Value) -> String {
    listing(
        approles,
        "no approles",
        &[
            ("APPROLE", |approle| cell(approle, "name")),
            ("TOKEN-TTL", |approle| cell(approle, "token-ttl")),
            ("POLICIES", |approle| cell(approle, "token-policies")),
            ("MINTERS", |approle| cell(approle, "secret-id-minters")),
            ("DISTRIBUTED", |approle| shown(&approle["distribute"])),
        ],
    )
}
