//! The debug key of a host: it opens what that host hands out about itself, and nothing else.

use holdfast_protocol::debug::DebugKey;
use holdfast_protocol::ids::{HostId, Realm};
use holdfast_protocol::pki::Authority;

use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Refusal, Rows};
use crate::site_registry::authorities::path;
use crate::site_registry::{Host, authority, deployment, host, site};

/// The key. Like the key that approves register values it comes from the root's, which is not rotated: the public half
/// lies at the host for as long as that is away.
///
/// # Errors
/// [`Refusal::NotFound`] before initialisation, or the store's fault.
pub(super) fn debug_key_of(id: &HostId, entry: &Host, rows: &dyn Rows) -> Result<DebugKey, Refusal> {
    let root = authority(rows, &path(&Authority::Root))?;
    Ok(DebugKey::derive(&root.seed, deployment(rows)?.id, id, &entry.agent_id))
}

/// Shows it to `by`, with a line that says so.
///
/// # Errors
/// [`Refusal::NotFound`]: no such site or host; or the store's fault.
pub fn debug_key(id: &HostId, by: &str, rows: &dyn Rows, now: Now) -> Result<(Batch, DebugKey), Refusal> {
    site(rows, &id.site)?;
    let key = debug_key_of(id, &host(rows, id)?.value, rows)?;
    Ok((Batch::new(Realm::NODE, Line::done(now.wall_us, by, "host.debug-key", id.to_string())), key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site_registry::EkTrust;
    use crate::site_registry::fixtures::{NOW, Store, id, new_site};
    use crate::site_registry::sites::create_site;

    fn key(store: &Store, whom: &'static str) -> Result<String, Refusal> {
        let shown = store.run(move |rows| debug_key(&id(whom), "alice", rows, NOW))?;
        Ok(shown.expose_text().to_string())
    }

    #[test]
    fn each_host_has_a_debug_key_that_stays_and_each_time_it_is_shown_has_its_line() {
        let store = Store::initialised();
        let cmd = new_site("udc1", EkTrust::Token, &[("a", None), ("b", None)]);
        store.run(move |rows| create_site(&cmd, rows, NOW)).unwrap();
        let (a, b) = (key(&store, "udc1/a").unwrap(), key(&store, "udc1/b").unwrap());
        assert_eq!(key(&store, "udc1/a").unwrap(), a);
        assert!(a != b && a.starts_with("key:"));
        assert_eq!(store.actions().iter().filter(|action| *action == "host.debug-key").count(), 3);
        for nobody in ["udc1/c", "udc2/a"] {
            assert!(matches!(key(&store, nobody), Err(Refusal::NotFound(_))));
        }
        assert_eq!(store.actions().iter().filter(|action| *action == "host.debug-key").count(), 3);
    }
}
