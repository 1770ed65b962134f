//! `distribute` in bodies: `{"to": "none" | "all"}` or `{"sites": [..]}`, with `offline`: `"unlimited"` (as without
//! it), a duration such as `"1h30m"`, or whole seconds.

use std::collections::BTreeSet;

use holdfast_actors::distribute::{Distribute, Placement};
use holdfast_protocol::ids::SiteName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::{format_duration, parse_duration};

/// As it is written.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistributeBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sites: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offline: Option<Offline>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Offline {
    Seconds(u64),
    Text(String),
}

impl DistributeBody {
    /// What it means.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(&self) -> Result<Distribute, &'static str> {
        let to = match (self.to.as_deref(), &self.sites) {
            (None | Some("none"), None) => Placement::None,
            (Some("all"), None) => Placement::All,
            (None, Some(names)) => Placement::Sites(parse_sites(names)?),
            (Some(_), None) => return Err("distribute: to is none or all"),
            (Some(_), Some(_)) => return Err("distribute: give either to or sites"),
        };
        let offline_s = match &self.offline {
            None => None,
            Some(Offline::Seconds(seconds)) => Some(*seconds),
            Some(Offline::Text(text)) if text == UNLIMITED => None,
            Some(Offline::Text(text)) => Some(
                parse_duration(text).ok_or("distribute: offline is unlimited or a duration such as 1h30m")?.as_secs(),
            ),
        };
        Ok(Distribute { to, offline_s })
    }

    /// What it makes of an older one: what it does not name stays, and sites are added to those there are.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn over(&self, old: &Distribute) -> Result<Distribute, &'static str> {
        let new = self.parse()?;
        let to = match (new.to, &old.to) {
            (Placement::Sites(more), Placement::Sites(sites)) => {
                Placement::Sites(sites.union(&more).cloned().collect())
            }
            (_, same) if self.to.is_none() && self.sites.is_none() => same.clone(),
            (to, _) => to,
        };
        Ok(Distribute { to, offline_s: if self.offline.is_none() { old.offline_s } else { new.offline_s } })
    }
}

fn parse_sites(names: &[String]) -> Result<BTreeSet<SiteName>, &'static str> {
    names.iter().map(|name| name.parse().map_err(|_| "distribute: sites has a name that no site can have")).collect()
}

impl From<&Distribute> for DistributeBody {
    fn from(distribute: &Distribute) -> Self {
        let (to, sites) = match &distribute.to {
            Placement::None => (Some("none".to_owned()), None),
            Placement::All => (Some("all".to_owned()), None),
            Placement::Sites(sites) => (None, Some(sites.iter().map(|site| site.to_string()).collect())),
        };
        let offline = match distribute.offline_s {
            None => UNLIMITED.to_owned(),
            Some(seconds) => format_duration(std::time::Duration::from_secs(seconds)),
        };
        Self { to, sites, offline: Some(Offline::Text(offline)) }
    }
}

const UNLIMITED: &str = "unlimited";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (written, read_back) in [
            (json!({}), json!({ "to": "none", "offline": "unlimited" })),
            (json!({ "to": "all", "offline": 90 }), json!({ "to": "all", "offline": "1m30s" })),
            (json!({ "sites": ["b", "a", "b"] }), json!({ "sites": ["a", "b"], "offline": "unlimited" })),
            (json!({ "sites": [], "offline": "unlimited" }), json!({ "sites": [], "offline": "unlimited" })),
        ] {
            let body: DistributeBody = serde_json::from_value(written).unwrap();
            let again = DistributeBody::from(&body.parse().unwrap());
            assert_eq!(serde_json::to_value(&again).unwrap(), read_back);
            assert_eq!(again.parse().unwrap(), body.parse().unwrap());
        }
    }

    #[test]
    fn a_patch_adds_sites_and_leaves_what_it_does_not_name() {
        for (old, patch, expected) in [
            (
                json!({ "sites": ["a"], "offline": "1h" }),
                json!({ "sites": ["b"] }),
                json!({ "sites": ["a", "b"], "offline": "1h" }),
            ),
            (
                json!({ "to": "all" }),
                json!({ "sites": ["b"], "offline": 60 }),
                json!({ "sites": ["b"], "offline": "1m" }),
            ),
            (
                json!({ "sites": ["a"], "offline": "1h" }),
                json!({ "to": "none" }),
                json!({ "to": "none", "offline": "1h" }),
            ),
            (json!({ "sites": ["a"] }), json!({ "offline": "5s" }), json!({ "sites": ["a"], "offline": "5s" })),
        ] {
            let parse = |json| serde_json::from_value::<DistributeBody>(json).unwrap();
            let patched = parse(patch).over(&parse(old).parse().unwrap()).unwrap();
            assert_eq!(serde_json::to_value(DistributeBody::from(&patched)).unwrap(), expected);
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for bad in [
            json!({ "to": "some" }),
            json!({ "to": "all", "sites": ["a"] }),
            json!({ "sites": ["../a"] }),
            json!({ "to": "all", "offline": "soon" }),
        ] {
            assert!(serde_json::from_value::<DistributeBody>(bad.clone()).unwrap().parse().is_err(), "{bad}");
        }
        assert!(serde_json::from_value::<DistributeBody>(json!({ "site": ["a"] })).is_err());
        assert!(serde_json::from_value::<DistributeBody>(json!({ "to": "all", "offline": -1 })).is_err());
    }
}
