//! `holdfast policy`: what clients of KES may call.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::client::segment;
use crate::failure::Failure;
use crate::files::secret_bytes;
use crate::kes::Asked;
use crate::text::{bare, cell, members, time};

/// A policy by name.
#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    asked: Asked,
    /// The policy.
    policy: String,
}

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a policy, in place of the one of that name.
    Create {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        rules: Rules,
    },
    /// List policies. At site hosts too.
    List {
        #[command(flatten)]
        asked: Asked,
        /// Only names that begin so.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Show what a policy allows and denies. At site hosts too.
    Show(Named),
    /// Show when a policy was written, and by whom. At site hosts too.
    Info(Named),
    /// Give an identity a policy, in place of the one it has.
    Assign {
        #[command(flatten)]
        named: Named,
        /// The identity, 64 hex digits, as `holdfast identity of` says it.
        identity: String,
    },
    /// Delete a policy: who had it may do nothing from here on.
    Delete(Named),
}

/// What a policy is to say.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Rules {
    /// A path that may be called, or a beginning of paths before a `*`. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    allow: Vec<String>,
    /// One that may not, whatever is allowed. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    deny: Vec<String>,
    /// File with the policy in one of the forms of KES (JSON); `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["allow", "deny"])]
    file: Option<PathBuf>,
}

impl Rules {
    fn body(&self) -> Result<Value, Failure> {
        if let Some(file) = &self.file {
            let bytes = secret_bytes(file)?;
            return serde_json::from_slice(&bytes)
                .map_err(|error| Failure::unfit(format!("{}: {error}", file.display())));
        }
        let set =
            |patterns: &[String]| patterns.iter().map(|pattern| (pattern.clone(), json!({}))).collect::<Map<_, _>>();
        Ok(json!({ "allow": set(&self.allow), "deny": set(&self.deny) }))
    }
}

/// Runs one of them.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { named, rules } => {
            let (keys, body) = (named.asked.keys()?, rules.body()?);
            let answer = keys.put(&named.path("write"), &body).await?;
            keys.session.done(&answer, format!("wrote policy {}", named.policy));
        }
        Command::List { asked, prefix } => {
            let keys = asked.keys()?;
            keys.show(keys.list("policy", &prefix, "names").await?, "POLICY", "no policies");
        }
        Command::Show(named) => {
            let keys = named.asked.keys()?;
            keys.session.show(&keys.get(&named.path("read")).await?.body, rules);
        }
        Command::Info(named) => {
            let keys = named.asked.keys()?;
            keys.session.show(&keys.get(&named.path("describe")).await?.body, info);
        }
        Command::Assign { named, identity } => {
            let keys = named.asked.keys()?;
            let answer = keys.put(&named.path("assign"), &json!({ "identity": identity })).await?;
            keys.session.done(&answer, format!("identity {identity} has policy {}", named.policy));
        }
        Command::Delete(named) => {
            let keys = named.asked.keys()?;
            let answer = keys.delete(&named.path("delete")).await?;
            keys.session.done(&answer, format!("deleted policy {}", named.policy));
        }
    }
    Ok(())
}

impl Named {
    fn path(&self, what: &str) -> String {
        format!("/v1/policy/{what}/{}", segment(&self.policy))
    }
}

/// What is allowed and what is denied, a pattern a line. Patterns in lists are of the older meaning.
pub(crate) fn rules(policy: &Value) -> String {
    let mut lines = Vec::new();
    let mut meaning = "a * at the end stands for whatever follows";
    for (verb, member) in [("allow", "paths"), ("allow", "allow"), ("deny", "deny")] {
        match &policy[member] {
            Value::Object(patterns) => lines.extend(patterns.keys().map(|pattern| (verb, pattern.clone()))),
            Value::Array(patterns) => {
                meaning = "a * ends at a slash";
                lines.extend(patterns.iter().map(|pattern| (verb, bare(pattern))));
            }
            _ => {}
        }
    }
    if lines.is_empty() {
        return "nothing is allowed".to_owned();
    }
    let lines: Vec<String> =
        lines.iter().map(|(verb, pattern)| format!("{verb:<5}  {}", crate::text::harmless(pattern))).collect();
    format!("{}\n({meaning})", lines.join("\n"))
}

fn info(policy: &Value) -> String {
    members(&[
        ("name", cell(policy, "name")),
        ("written", time(policy, "created_at")),
        ("written by", cell(policy, "created_by")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_shown_in_the_meaning_it_has() {
        let newer = json!({ "allow": { "/v1/key/*": {} }, "deny": { "/v1/key/delete/*": {} } });
        let shown = "allow  /v1/key/*\ndeny   /v1/key/delete/*\n(a * at the end stands for whatever follows)";
        assert_eq!(rules(&newer), shown);
        let older = "allow  /v1/key/*/a\n(a * ends at a slash)";
        assert_eq!(rules(&json!({ "paths": ["/v1/key/*/a"] })), older);
        assert_eq!(rules(&json!({ "name": "p", "allow": ["/v1/key/*/a"] })), older);
        assert_eq!(rules(&json!({ "name": "p" })), "nothing is allowed");
    }
}
