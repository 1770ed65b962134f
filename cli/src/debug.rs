//! `holdfast operator debug-open`: what a host says about itself, out of the dump that somebody has carried here.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use holdfast_protocol::debug::{DUMP_BYTES_MAX, DebugDump, DebugKey};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::files::secret_text;
use crate::text::say_json;

/// Its arguments.
#[derive(Args)]
pub(crate) struct DebugOpen {
    /// File with the dump: what the host's debug-dump answered, or the base64 in it.
    #[arg(value_name = "DUMP")]
    dump: PathBuf,
    /// File with the host's debug key, as central's debug-key shows it (key:BASE64); `-` is standard input.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
}

/// Prints what is in the dump.
pub(crate) fn open(asked: &DebugOpen) -> Result<(), Failure> {
    let key = DebugKey::parse(&secret_text(&asked.key_file)?).map_err(unfit)?;
    let text = fs::read_to_string(&asked.dump).map_err(Failure::file(&asked.dump))?;
    say_json(&said(&text, &key)?);
    Ok(())
}

fn said(text: &str, key: &DebugKey) -> Result<Value, Failure> {
    if 2 * DUMP_BYTES_MAX < text.len() {
        return Err(Failure::unfit("this is no debug dump: it is too long"));
    }
    let dump = DebugDump::from_text(&base64_in(text)).map_err(unfit)?;
    let plain =
        dump.open(key).map_err(|_| Failure::unfit(format!("the dump is {}'s; this key opens another", dump.host)))?;
    serde_json::from_slice(plain.expose()).map_err(|_| Failure::unfit("the dump holds no JSON"))
}

/// What the host answered.
#[derive(Deserialize)]
struct Reply {
    dump: String,
}

/// The reply may have been saved whole, in YAML or in JSON, which is YAML too, or only what is in it.
fn base64_in(text: &str) -> String {
    let saved = serde_saphyr::from_str::<Reply>(text).map_or_else(|_| text.to_owned(), |reply| reply.dump);
    saved.split_whitespace().collect()
}

fn unfit(error: impl std::fmt::Display) -> Failure {
    Failure::unfit(error.to_string())
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::ids::{DeploymentId, HostId};
    use holdfast_protocol::secret::Secret;

    use super::*;

    #[test]
    fn a_dump_is_read_however_it_was_saved_and_only_with_its_key() {
        let seed = Secret::fill_with(|into| into.fill(1));
        let host = HostId { site: "udc1".parse().unwrap(), host: "a".parse().unwrap() };
        let deployment = DeploymentId([7; 16]);
        let key = |agent| DebugKey::derive(&seed, deployment, &host, agent);
        // As long as one is: what is long is folded in YAML.
        let plain = format!("{{\"sealed\": true, \"warnings\": \"{}\"}}", "-".repeat(4000));
        let dump = DebugDump::seal(&key("a").public(), deployment, host.clone(), plain.as_bytes(), &seed).unwrap();
        let text = dump.to_text();
        for saved in [
            text.clone(),
            format!("dump: {text}\n"),
            serde_saphyr::to_string(&serde_json::json!({ "dump": text })).unwrap(),
            format!("{{\"dump\":\"{text}\"}}"),
            format!("{{\n  \"dump\": \"{text}\"\n}}\n"),
        ] {
            assert_eq!(said(&saved, &key("a")).unwrap()["sealed"], true, "{saved}");
        }
        assert!(said(&text, &key("b")).unwrap_err().chain().contains("udc1/a's"));
        assert!(said("dump: nonsense", &key("a")).is_err());
        assert!(said(&"A".repeat(3 * DUMP_BYTES_MAX), &key("a")).is_err());
    }
}
