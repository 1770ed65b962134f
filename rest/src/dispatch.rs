//! The one table from path to dialect. It routes nothing: axum does, and [`crate::routes`]. It says in whose words an
//! answer is given when no handler spoke (unknown path, wrong method, sealed, overloaded), and what answers while the node
//! is sealed.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Whose API a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Vaults, tenants, sites, seal operations; YAML or JSON.
    Strongbox,
    /// Safe deposit boxes.
    Cerberus,
    /// Keys.
    Kes,
    /// Manifests.
    MarbleRun,
    /// Attestation; has listeners of its own.
    Keylime,
    /// The node itself: health, version, metrics.
    Node,
}

const _: () = assert!(Dialect::Node as usize + 1 == Dialect::ALL.len(), "the last of them has the last place");

impl Dialect {
    /// All, each at the place of its number.
    pub(crate) const ALL: [Self; 6] =
        [Self::Strongbox, Self::Cerberus, Self::Kes, Self::MarbleRun, Self::Keylime, Self::Node];

    /// Name for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strongbox => "strongbox",
            Self::Cerberus => "cerberus",
            Self::Kes => "kes",
            Self::MarbleRun => "marblerun",
            Self::Keylime => "keylime",
            Self::Node => "node",
        }
    }

    /// The dialect of a path as it stands in the request line, without the query. Unknown paths are the node's.
    pub fn of(path: &str) -> Self {
        static TABLE: LazyLock<HashMap<&str, Dialect>> = LazyLock::new(|| PREFIXES.iter().copied().collect());
        // None of them has more segments than two.
        let of_first = |segments| {
            let ends = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
            TABLE.get(&path[..ends])
        };
        of_first(2).or_else(|| of_first(1)).copied().unwrap_or(Self::Node)
    }
}

/// Whether `path` is `prefix` or lies below it; `/` has everything below it.
pub fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path answers on a sealed node: seal status, unseal, health, version, metrics, and nothing else.
pub fn is_open_while_sealed(path: &str) -> bool {
    OPEN_WHILE_SEALED.contains(&path)
}

const OPEN_WHILE_SEALED: &[&str] = &[
    "/api/v2/recover",
    "/api/v2/recover/public-key",
    "/api/v2/status",
    "/healthcheck",
    "/status",
    "/v1/health",
    "/v1/metrics",
    "/v1/state/strongbox/system/debug-dump",
    "/v1/state/strongbox/system/reveal-sealkey",
    "/v1/state/strongbox/system/seal-status",
    "/v1/state/strongbox/system/unseal",
    "/v1/state/strongbox/system/unseal-challenge",
    "/v1/state/strongbox/system/unseal-remote",
    "/version",
];

const PREFIXES: &[(&str, Dialect)] = &[
    ("/api/v2", Dialect::MarbleRun),
    ("/dashboard", Dialect::Cerberus),
    ("/healthcheck", Dialect::Cerberus),
    ("/info", Dialect::Cerberus),
    ("/manifest", Dialect::MarbleRun),
    ("/monotonic-counter", Dialect::MarbleRun),
    ("/quote", Dialect::MarbleRun),
    ("/recover", Dialect::MarbleRun),
    ("/secrets", Dialect::MarbleRun),
    ("/sign-quote", Dialect::MarbleRun),
    ("/status", Dialect::MarbleRun),
    ("/update", Dialect::MarbleRun),
    ("/update-cancel", Dialect::MarbleRun),
    ("/update-manifest", Dialect::MarbleRun),
    ("/v1/admin", Dialect::Cerberus),
    ("/v1/api", Dialect::Kes),
    ("/v1/approle-login", Dialect::Strongbox),
    ("/v1/auth", Dialect::Cerberus),
    ("/v1/category", Dialect::Cerberus),
    ("/v1/cleanup", Dialect::Cerberus),
    ("/v1/config", Dialect::Strongbox),
    ("/v1/enclave", Dialect::Kes),
    ("/v1/feature-flag", Dialect::Cerberus),
    ("/v1/health", Dialect::Node),
    ("/v1/identity", Dialect::Kes),
    ("/v1/key", Dialect::Kes),
    ("/v1/kubernetes-login", Dialect::Strongbox),
    ("/v1/log", Dialect::Kes),
    ("/v1/login", Dialect::Strongbox),
    ("/v1/metadata", Dialect::Cerberus),
    ("/v1/metrics", Dialect::Node),
    ("/v1/policy", Dialect::Kes),
    ("/v1/ready", Dialect::Kes),
    ("/v1/restore-sdb", Dialect::Cerberus),
    ("/v1/role", Dialect::Cerberus),
    ("/v1/safe-deposit-box", Dialect::Cerberus),
    ("/v1/sdb-secret-version-paths", Dialect::Cerberus),
    ("/v1/secret", Dialect::Cerberus),
    ("/v1/secret-versions", Dialect::Cerberus),
    ("/v1/secure-file", Dialect::Cerberus),
    ("/v1/secure-files", Dialect::Cerberus),
    ("/v1/state", Dialect::Strongbox),
    ("/v1/status", Dialect::Kes),
    ("/v1/sys", Dialect::Kes),
    ("/v2", Dialect::Cerberus),
    ("/version", Dialect::Node),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_longest_prefix_of_whole_segments() {
        let cases = [
            ("/v1/state/strongbox/system/seal", Dialect::Strongbox),
            ("/v1/state/system/sites/udc1/quarantine-site", Dialect::Strongbox),
            ("/v1/config/strongbox/vaults", Dialect::Strongbox),
            ("/v1/login", Dialect::Strongbox),
            ("/v2/safe-deposit-box", Dialect::Cerberus),
            ("/v1/secret/app/box/x", Dialect::Cerberus),
            ("/v1/secret-versions/app/box/x", Dialect::Cerberus),
            ("/v1/key/create/a", Dialect::Kes),
            ("/v1/keyring", Dialect::Node),
            ("/v1/status", Dialect::Kes),
            ("/status", Dialect::MarbleRun),
            ("/api/v2/manifest", Dialect::MarbleRun),
            ("/v1/metrics", Dialect::Node),
            ("/nothing", Dialect::Node),
            ("nothing", Dialect::Node),
            ("/v1/key/", Dialect::Kes),
            ("/v1//key", Dialect::Node),
            ("/", Dialect::Node),
        ];
        for (path, dialect) in cases {
            assert_eq!(Dialect::of(path), dialect, "{path}");
        }
    }

    #[test]
    fn each_prefix_is_found_by_its_first_segments() {
        for (prefix, dialect) in PREFIXES {
            assert!(prefix.starts_with('/') && !prefix.ends_with('/') && prefix.matches('/').count() <= 2, "{prefix}");
            assert_eq!(Dialect::of(&format!("{prefix}/and/more")), *dialect, "{prefix}");
        }
    }

    #[test]
    fn only_exact_paths_are_open_while_sealed() {
        assert!(is_open_while_sealed("/v1/state/strongbox/system/unseal"));
        assert!(!is_open_while_sealed("/v1/state/strongbox/system/unseal/x"));
        assert!(!is_open_while_sealed("/v1/state/strongbox/system/seal"));
        assert!(!is_open_while_sealed("/v1/state/strongbox"));
    }
}
