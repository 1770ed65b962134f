//! Where something goes beside central, as vaults and approles say it.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// Everywhere or nowhere.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum To {
    /// It stays at central.
    None,
    /// To all sites, those to come too.
    All,
}

/// Where it goes, and how long it lasts there.
#[derive(Args)]
pub(crate) struct Distribute {
    /// To no site or to all.
    #[arg(long, value_enum, conflicts_with = "to_site")]
    to: Option<To>,
    /// To this site. May be repeated; an update adds sites to those there are.
    #[arg(long, value_name = "SITE")]
    to_site: Vec<String>,
    /// How long a host serves it without hearing from central, such as 12h; or unlimited.
    #[arg(long, value_name = "DURATION")]
    offline: Option<String>,
}

impl Distribute {
    /// What of it was said, for the member `distribute`.
    pub(crate) fn body(&self) -> Option<Value> {
        let mut body = json!({});
        match self.to {
            Some(To::None) => body["to"] = json!("none"),
            Some(To::All) => body["to"] = json!("all"),
            None if !self.to_site.is_empty() => body["sites"] = json!(self.to_site),
            None => {}
        }
        if let Some(offline) = &self.offline {
            body["offline"] = json!(offline);
        }
        body.as_object().is_some_and(|members| !members.is_empty()).then_some(body)
    }
}

/// `all, offline 12h`, or the sites.
pub(crate) fn shown(distribute: &Value) -> String {
    let to = match (distribute["to"].as_str(), distribute["sites"].as_array()) {
        (Some(to), _) => to.to_owned(),
        (None, Some(sites)) => sites.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        (None, None) => return "-".to_owned(),
    };
    match distribute["offline"].as_str() {
        None | Some("unlimited") => to,
        Some(offline) => format!("{to}; offline {offline}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_is_sent() {
        let of = |to, sites: &[&str], offline: Option<&str>| Distribute {
            to,
            to_site: sites.iter().map(|site| (*site).to_owned()).collect(),
            offline: offline.map(str::to_owned),
        };
        assert_eq!(of(None, &[], None).body(), None);
        assert_eq!(of(Some(To::All), &[], Some("1h")).body(), Some(json!({"to": "all", "offline": "1h"})));
        assert_eq!(of(None, &["a", "b"], None).body(), Some(json!({"sites": ["a", "b"]})));
    }

    #[test]
    fn a_placement_is_a_phrase() {
        assert_eq!(shown(&json!({"to": "all", "offline": "unlimited"})), "all");
        assert_eq!(shown(&json!({"sites": ["a", "b"], "offline": "1h"})), "a, b; offline 1h");
        assert_eq!(shown(&Value::Null), "-");
    }
}
