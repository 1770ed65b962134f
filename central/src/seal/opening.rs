//! What a deployment begins with, and what follows each unsealing before the gate opens.

use std::io;
use std::sync::Arc;

use holdfast_actors::access_control::TokenId;
use holdfast_actors::access_control::tenants::{create_root_token, tenants_ever};
use holdfast_actors::access_control::tokens::{SYSTEM, mint};
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{draw, draw_secret};
use holdfast_actors::rows::Refusal;
use holdfast_actors::shell::Failed;
use holdfast_actors::site_registry::authorities::rest_leaf;
use holdfast_actors::site_registry::authority;
use holdfast_actors::site_registry::initialise::{Fresh, initialise};
use holdfast_actors::store::Fault;
use holdfast_protocol::pki::Serial;
use holdfast_rest::secret::SecretText;
use holdfast_rest::tls::{IdentityError, ServerIdentity};

use crate::configuring::{ACTOR, configure};
use crate::keys::{KeyError, RestKey, is_due};
use crate::node::Node;

/// A root token that was just made.
#[derive(Debug)]
pub struct RootToken {
    /// Its text.
    pub text: SecretText,
    /// Its name.
    pub accessor: String,
    /// When it was made, microseconds since the Unix epoch.
    pub created_us: i64,
}

/// Why a deployment could not begin or be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The store says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The REST certificate can't be kept.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The REST certificate can't be shown.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<OpeningError> for Failed {
    fn from(error: OpeningError) -> Self {
        match error {
            OpeningError::Refused(refusal) => refusal.into(),
            other => Self::because(other),
        }
    }
}

impl OpeningError {
    /// Whether it would go well if the disk were not full.
    pub(super) fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::Refused(Refusal::Fault(Fault::Full)) => true,
            Self::Key(KeyError::Io(_, error)) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// What it takes.
pub struct Opening {
    node: Node,
    key: Arc<RestKey>,
    shown: Arc<ServerIdentity>,
}

impl Opening {
    /// `shown` is what the REST listener shows; it gets certificates for `key`.
    pub fn new(node: Node, key: Arc<RestKey>, shown: Arc<ServerIdentity>) -> Self {
        Self { node, key, shown }
    }

    /// Erases whatever is stored and begins a deployment under `keyring`, with `boot` in its first transaction. Leaves
    /// the barrier open.
    pub(super) async fn begin(&self, keyring: Keyring, boot: Vec<(&str, Vec<u8>)>) -> Result<RootToken, OpeningError> {
        let Node { barrier, entropy, .. } = &self.node;
        barrier.erase_all().await.map_err(Refusal::from)?;
        let base = RealmKeys::new(draw_secret(&**entropy), draw_secret(&**entropy));
        let realm = barrier.first_realm(&keyring, base);
        let fresh = Fresh::draw(keyring.deployment(), &**entropy);
        barrier.begin(realm, boot).await.map_err(Refusal::from)?;
        barrier.unseal(keyring);
        let clock = self.node.clock.clone();
        barrier.run(move |rows| initialise(&fresh, rows, clock.now())).await?;
        self.root_token().await
    }

    async fn root_token(&self) -> Result<RootToken, OpeningError> {
        let (id, clock) = (TokenId(draw(&*self.node.entropy)), self.node.clock.clone());
        let decide =
            move |rows: &dyn holdfast_actors::rows::Rows| create_root_token(SYSTEM, id, ACTOR, rows, clock.now());
        let (claims, _) = self.node.barrier.run(decide).await?;
        let text = mint(&self.node.barrier.snapshot()?, &claims)?;
        Ok(RootToken { text: text.into(), accessor: claims.id.accessor(), created_us: claims.issued_us })
    }

    /// After an unsealing: what the configuration says, and a REST certificate that is good for a while.
    pub(super) async fn settle(&self) -> Result<(), OpeningError> {
        // First of all who may do less than before; nothing that fails beside it comes between.
        let configured = configure(&self.node).await;
        self.finish_deletions().await?;
        configured?;
        renew_certificate(&self.node, &self.key, &self.shown)
    }

    /// Erases what a deletion that was interrupted has left.
    async fn finish_deletions(&self) -> Result<(), OpeningError> {
        let known = tenants_ever(&self.node.barrier.snapshot()?)?;
        for tenant in known.into_iter().filter(|tenant| tenant.deleted_us.is_some()) {
            self.node.barrier.erase_realm(tenant.realm).await.map_err(Refusal::from)?;
        }
        Ok(())
    }
}

/// Has the API CA certify the REST key anew where that is due, keeps the chain and shows it from the next handshake on.
///
/// # Errors
/// Sealed, a name that can't be certified, or the file can't be written.
pub fn renew_certificate(node: &Node, key: &RestKey, shown: &ServerIdentity) -> Result<(), OpeningError> {
    let now = node.now();
    let snapshot = node.barrier.snapshot()?;
    let api = authority(&snapshot, &["api"])?;
    if !is_due(&shown.leaf(), &api.certificate, &node.config, now) {
        return Ok(());
    }
    let names = (node.config.names.as_slice(), node.config.addresses.as_slice());
    let chain = rest_leaf(&snapshot, key.key().public(), names, Serial(draw(&*node.entropy)), now)?;
    drop(snapshot);
    key.keep(&chain)?;
    shown.swap(chain, &key.key().to_pkcs8_der())?;
    tracing::info!("REST certificate renewed");
    Ok(())
}
