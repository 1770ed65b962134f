//! The first transaction of a deployment: its id, its authorities, its operating tenant.

use holdfast_protocol::ids::{DeploymentId, Realm, StandingGeneration, Term};
use holdfast_protocol::pki::Authority;

use crate::access_control::TenantKind;
use crate::access_control::tenants::{CreateTenant, SYSTEM_NAME, create_tenant};
use crate::audit_log::Line;
use crate::ports::{Entropy, Now, draw, draw_secret};
use crate::rows::{Batch, ReadRows, Refusal, Rows};
use crate::site_registry::authorities::{FreshKey, Loaded, path, signer_path};
use crate::site_registry::{AuthorityKey, Deployment};

/// Who makes a deployment, in the audit log.
const CENTRAL: &str = "central";

/// All that is drawn for a new deployment.
#[derive(Debug)]
pub struct Fresh {
    /// The deployment's id; the keyring has the same.
    pub deployment: DeploymentId,
    /// Of the first term.
    pub incarnation: [u8; 16],
    /// The root authority.
    pub root: FreshKey,
    /// Central's api authority.
    pub api: FreshKey,
    /// Central's dist authority.
    pub dist: FreshKey,
    /// The bundle signer.
    pub signer: FreshKey,
    /// The operating tenant.
    pub tenant: CreateTenant,
}

impl Fresh {
    /// Draws all of it, for a deployment whose id the keyring already has.
    pub fn draw(deployment: DeploymentId, entropy: &dyn Entropy) -> Self {
        let tenant = CreateTenant {
            name: SYSTEM_NAME.parse().expect("the name follows the pattern"),
            kind: TenantKind::System,
            base: draw_secret(entropy),
            key: draw_secret(entropy),
            token_seed: draw_secret(entropy),
            by: CENTRAL.to_owned(),
        };
        Self {
            deployment,
            incarnation: draw(entropy),
            root: FreshKey::draw(entropy),
            api: FreshKey::draw(entropy),
            dist: FreshKey::draw(entropy),
            signer: FreshKey::draw(entropy),
            tenant,
        }
    }
}

/// Makes the deployment, in one transaction with the tenant that operates it: none is ever without. The tenant has yet
/// to be set up, and is given its root token, by whoever initialises.
///
/// # Errors
/// [`Refusal::Exists`]: there is one already.
pub fn initialise(fresh: &Fresh, rows: &dyn Rows, now: Now) -> Result<(Batch, Deployment), Refusal> {
    if rows.read::<Deployment>(Realm::NODE, &["deployment"])?.is_some() {
        return Err(Refusal::Exists("deployment"));
    }
    let deployment = Deployment {
        id: fresh.deployment,
        term: Term(1),
        incarnation: fresh.incarnation,
        created_us: now.wall_us,
        standing_generation: StandingGeneration::default(),
        standing_digest: [0; 32],
    };
    let line = Line::done(now.wall_us, CENTRAL, "deployment.initialise", deployment.id.to_string());
    let mut batch = Batch::new(Realm::NODE, line);
    batch.put(Realm::NODE, &["deployment"], &deployment);
    for (path, key) in authorities(fresh, now)? {
        batch.put(Realm::NODE, &path, &key);
    }
    let (system, _) = create_tenant(&fresh.tenant, rows, now)?;
    batch.append(system);
    Ok((batch, deployment))
}

fn authorities(fresh: &Fresh, now: Now) -> Result<Vec<(Vec<&'static str>, AuthorityKey)>, Refusal> {
    let (root, root_row) = Loaded::new_root(fresh.deployment, &fresh.root, now)?;
    Ok(vec![
        (path(&Authority::Root), root_row),
        (path(&Authority::CentralApi), root.new_authority(&Authority::CentralApi, &fresh.api, now)?),
        (path(&Authority::CentralDist), root.new_authority(&Authority::CentralDist, &fresh.dist, now)?),
        (signer_path().to_vec(), root.new_signer(&fresh.signer, now)?),
    ])
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::crypto::sign::SigningKey;
    use holdfast_protocol::pki::{Serial, read};

    use super::*;
    use crate::access_control::tenants::tenants;
    use crate::site_registry::authorities::{quic_leaf, rest_leaf, root_certificate, signer};
    use crate::site_registry::deployment;
    use crate::site_registry::fixtures::{Counting, DEPLOYMENT, NOW, Store, secret};

    #[test]
    fn a_deployment_begins_once_and_with_its_tenant() {
        let store = Store::initialised();
        let found = deployment(&store.rows()).unwrap();
        assert_eq!((found.id, found.term, found.created_us), (DEPLOYMENT, Term(1), NOW.wall_us));
        let names: Vec<String> = tenants(&store.rows()).unwrap().iter().map(|t| t.name.to_string()).collect();
        assert_eq!(names, ["system"]);
        assert_eq!(store.actions(), ["deployment.initialise", "tenant.create"]);
        let again = Fresh::draw(DEPLOYMENT, &Counting::default());
        let refused = store.run(move |rows| initialise(&again, rows, NOW));
        assert!(matches!(refused, Err(Refusal::Exists("deployment"))));
    }

    #[test]
    fn nothing_is_certified_before_there_is_a_deployment() {
        let store = Store::empty();
        let key = SigningKey::from_seed(&secret(9));
        let refused = quic_leaf(&store.rows(), key.public(), Serial([2; 16]), NOW);
        assert!(matches!(refused, Err(Refusal::NotFound(_))));
        assert!(signer(&store.rows()).is_err());
    }

    #[test]
    fn central_s_certificates_chain_to_the_root() {
        let store = Store::initialised();
        let rows = store.rows();
        let root = root_certificate(&rows).unwrap();
        let key = SigningKey::from_seed(&secret(9));
        let rest = rest_leaf(&rows, key.public(), (&["holdfast.example".into()], &[]), Serial([1; 16]), NOW).unwrap();
        let quic = quic_leaf(&rows, key.public(), Serial([2; 16]), NOW).unwrap();
        for chain in [&rest, &quic] {
            assert_eq!(read::issued_by(&chain[0], &chain[1]), Ok(()));
            assert_eq!(read::issued_by(&chain[1], &root), Ok(()));
        }
        let (signer, certificate) = signer(&rows).unwrap();
        let certified = read::bundle_signer_of(&certificate, &root, NOW.wall_s()).unwrap();
        assert_eq!(&certified, signer.public());
        let odd = rest_leaf(&rows, key.public(), (&["not a name".into()], &[]), Serial([3; 16]), NOW);
        assert!(matches!(odd, Err(Refusal::Invalid(_))));
    }
}
