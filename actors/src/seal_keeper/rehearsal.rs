//! The rules of the rehearsal: would a host come back after a power cut while the WAN is down, and if not, why. Pure, and
//! the same for central, which knows how the others stand, and for a host, which knows what it holds.

use serde::Serialize;

/// How something would come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Without anybody.
    ByItself,
    /// Once an operator carries a remote seal key.
    WithAnOperator,
    /// Not before central is reached.
    Stays,
}

/// What one host would do if it alone lost power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct HostRehearsal {
    /// How it would come back.
    pub outcome: Outcome,
    /// A sibling hands over the seal key.
    pub sibling: RungRehearsal,
    /// An operator carries it.
    pub remote_sealkey: RungRehearsal,
    /// Enough hosts bring their shares of it together.
    pub local_shares: RungRehearsal,
    /// Until when siblings may help it, RFC 3339; absent if it was never given a permit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permit_until: Option<String>,
    /// What is not served after a restart before central is heard from.
    pub leases: &'static str,
}

/// Whether a way to the seal key would lead there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct RungRehearsal {
    /// It would.
    pub works: bool,
    /// In plain words, why or why not.
    pub reason: String,
}

/// In plain words why something works, or why not.
pub type Way = Result<String, String>;

/// Another host, and whether it would do its part, or why not.
pub type Other = (String, Result<(), String>);

/// A restart ends every finite lease (the reset counter grows), whoever opens the host.
const LEASES: &str = "content with a finite `offline` is not served until central has been heard from";

impl From<Way> for RungRehearsal {
    fn from(way: Way) -> Self {
        let works = way.is_ok();
        Self { works, reason: way.unwrap_or_else(|why| why) }
    }
}

impl HostRehearsal {
    /// Of a host with these ways back, after [`super::ladder::Rung::Central`].
    pub fn of(sibling: Way, remote_sealkey: Way, local_shares: Way, permit_until: Option<String>) -> Self {
        let outcome = outcome(sibling.is_ok() || local_shares.is_ok(), remote_sealkey.is_ok());
        let (sibling, remote_sealkey, local_shares) = (sibling.into(), remote_sealkey.into(), local_shares.into());
        Self { outcome, sibling, remote_sealkey, local_shares, permit_until, leases: LEASES }
    }
}

/// By itself, else with what an operator carries, else not.
pub fn outcome(by_itself: bool, carried: bool) -> Outcome {
    match (by_itself, carried) {
        (true, _) => Outcome::ByItself,
        (false, true) => Outcome::WithAnOperator,
        (false, false) => Outcome::Stays,
    }
}

/// Whether central's leave to be helped holds, microseconds since the Unix epoch; 0: it was never given.
///
/// # Errors
/// Why not.
pub fn has_leave(until_us: i64, now_us: i64) -> Result<(), String> {
    match until_us {
        0 => Err("it was never given an unseal permit".to_owned()),
        until_us if until_us <= now_us => Err("its unseal permit has ended".to_owned()),
        _ => Ok(()),
    }
}

/// The way by a sibling: any that would help does, `told` says how of those.
pub fn by_sibling(others: &[Other], told: impl FnOnce(&[&str]) -> String) -> Way {
    let helpers: Vec<&str> = others.iter().filter(|(_, helps)| helps.is_ok()).map(|(name, _)| name.as_str()).collect();
    if !helpers.is_empty() {
        return Ok(told(&helpers));
    }
    match others {
        [] => Err("this site has no other host".to_owned()),
        others => Err(lacking(others)),
    }
}

/// The way by shares: the host's own, and as many of others' as make up `needed`.
pub fn by_shares(own: Result<(), String>, needed: usize, others: &[Other]) -> Way {
    own?;
    let bring: Vec<&str> = others.iter().filter(|(_, brings)| brings.is_ok()).map(|(name, _)| name.as_str()).collect();
    let has = bring.len() + 1;
    match (needed <= has, bring.as_slice()) {
        (true, []) => Ok("its own share is all that it takes: this host alone opens itself".to_owned()),
        (true, others) => Ok(format!("{needed} shares are needed: its own and those of {}", others.join(", "))),
        (false, _) => Err(format!("{needed} shares are needed and {has} would come together; {}", lacking(others))),
    }
}

fn lacking(others: &[Other]) -> String {
    let why = others.iter().filter_map(|(name, does)| Some(format!("{name}: {}", does.as_ref().err()?)));
    why.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(of: &[(&str, Option<&str>)]) -> Vec<Other> {
        of.iter().map(|(name, why)| ((*name).to_owned(), why.map_or(Ok(()), |why| Err(why.to_owned())))).collect()
    }

    #[test]
    fn a_host_comes_back_by_whichever_way_leads_there() {
        let (yes, no) = (|| Ok("yes".to_owned()), || Err("no".to_owned()));
        for (sibling, carried, shares, expected) in [
            (yes(), no(), no(), Outcome::ByItself),
            (no(), no(), yes(), Outcome::ByItself),
            (no(), yes(), yes(), Outcome::ByItself),
            (no(), yes(), no(), Outcome::WithAnOperator),
            (no(), no(), no(), Outcome::Stays),
        ] {
            let said = HostRehearsal::of(sibling, carried, shares, None);
            assert_eq!(said.outcome, expected, "{said:?}");
        }
    }

    #[test]
    fn a_sibling_that_helps_is_enough_and_else_each_says_why_not() {
        let told = |helpers: &[&str]| format!("{} would", helpers.join(", "));
        let of = |others: &[(&str, Option<&str>)]| by_sibling(&super::tests::others(others), told);
        assert_eq!(of(&[]), Err("this site has no other host".to_owned()));
        assert_eq!(of(&[("b", Some("is away")), ("c", None)]), Ok("c would".to_owned()));
        assert_eq!(of(&[("b", Some("is away")), ("c", Some("is sealed"))]), Err("b: is away; c: is sealed".to_owned()));
    }

    #[test]
    fn so_many_shares_come_together_as_hosts_bring_theirs() {
        let of = |own: Option<&str>, needed, all: &[(&str, Option<&str>)]| {
            by_shares(own.map_or(Ok(()), |why| Err(why.to_owned())), needed, &others(all))
        };
        assert!(of(None, 1, &[]).unwrap().contains("this host alone"));
        assert_eq!(of(Some("none"), 1, &[]), Err("none".to_owned()));
        assert_eq!(
            of(None, 2, &[("b", None), ("c", Some("x"))]).unwrap(),
            "2 shares are needed: its own and those of b"
        );
        let few = "2 shares are needed and 1 would come together; b: is away".to_owned();
        assert_eq!(of(None, 2, &[("b", Some("is away"))]), Err(few));
    }

    #[test]
    fn leave_is_given_once_and_ends() {
        assert!(has_leave(0, 5).unwrap_err().contains("never"));
        assert!(has_leave(5, 5).unwrap_err().contains("ended"));
        assert_eq!(has_leave(6, 5), Ok(()));
    }
}
