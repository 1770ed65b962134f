//! Steps: central initialised and unsealed, its authority known.

use std::fs;

use serde_json::json;

use super::{Bringing, POLL, SEAL, step};
use crate::dev::file::State;
use crate::dev::{admin, set_state};
use crate::failure::Failure;
use crate::files::replace;
use crate::operator::shares_of;

impl Bringing<'_> {
    pub(super) async fn open_seal(&self) -> Result<(), Failure> {
        let path = format!("{SEAL}/seal-status");
        let status = self.client()?.get(&path).await?;
        let fresh = !status.flag("initialized")? || self.file.existing()?.central.sealkey.is_none();
        if fresh {
            self.initialise().await?;
        }
        if !self.client()?.get(&path).await?.flag("sealed")? {
            return Ok(());
        }
        if fresh || self.unseal {
            let sealkey = self.file.existing()?.central.sealkey;
            self.client()?.post(&format!("{SEAL}/unseal"), &json!({"sealkey": sealkey})).await?;
            step("unseal", "central unsealed");
            return Ok(());
        }
        self.wait_for_unseal().await
    }

    /// Until its results were used it may be repeated, so a run that died in between does no harm.
    async fn initialise(&self) -> Result<(), Failure> {
        let ca_file = self.dir.join("ca.crt");
        if ca_file.exists() {
            fs::remove_file(&ca_file).map_err(Failure::file(&ca_file))?;
        }
        let revealed = self.client()?.order(&format!("{SEAL}/reveal-sealkey")).await?;
        let (sealkey, token) = (revealed.text("sealkey")?, revealed.text("token")?);
        let password = admin::password()?;
        self.file.update(|doc| {
            doc.central.sealkey = Some(sealkey);
            doc.central.root_token = Some(token);
            doc.central.shares = shares_of(&revealed);
            doc.central.password = Some(password);
            doc.central.username = None;
        })?;
        step("init", "central initialised; seal key, shares and root token are in dev.json");
        Ok(())
    }

    pub(super) async fn wait_for_unseal(&self) -> Result<(), Failure> {
        set_state(self.file, State::Sealed)?;
        step("sealed", format_args!("central waits: holdfast operator unseal --dir {}", self.dir.display()));
        while self.sealed().await != Some(false) {
            tokio::time::sleep(POLL).await;
        }
        step("unseal", "central unsealed");
        set_state(self.file, State::Starting)
    }

    /// `None` while central does not answer; if it died, its exit is seen elsewhere.
    pub(super) async fn sealed(&self) -> Option<bool> {
        self.client().ok()?.get(&format!("{SEAL}/seal-status")).await.ok()?.flag("sealed").ok()
    }

    pub(super) async fn fetch_ca(&self) -> Result<(), Failure> {
        let ca_file = self.dir.join("ca.crt");
        if ca_file.exists() {
            return Ok(());
        }
        let ca = self.client()?.get("/v1/state/system/ca").await?.text("ca")?;
        replace(&ca_file, ca.as_bytes(), 0o644)
    }
}
