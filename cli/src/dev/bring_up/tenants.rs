//! Steps: tenants with their administrator.

use serde_json::json;

use super::{Bringing, SEAL, SYSTEM, exists, step};
use crate::client::Client;
use crate::failure::Failure;

/// The administrator's name, in every tenant of a dev deployment.
const ADMIN: &str = "admin";

impl Bringing<'_> {
    pub(super) async fn set_up_tenants(&self) -> Result<(), Failure> {
        let known = self.file.existing()?.central.username.is_some();
        self.set_up(SYSTEM, !known).await?;
        self.file.update(|doc| {
            doc.central.tenant = Some(SYSTEM.to_owned());
            doc.central.username = Some(ADMIN.to_owned());
        })?;
        for tenant in self.tenants.iter().filter(|tenant| *tenant != SYSTEM) {
            let created = self.root()?.post("/v1/config/tenants", &json!({"name": tenant})).await;
            self.set_up(tenant, !exists(created)?).await?;
        }
        Ok(())
    }

    async fn set_up(&self, tenant: &str, new: bool) -> Result<(), Failure> {
        if !new && self.login(tenant).await.is_ok() {
            return Ok(());
        }
        let password = self.file.existing()?.central.password;
        let body = json!({"name": tenant, "admin-username": ADMIN, "admin-password": password});
        if let Err(error) = self.root()?.post(&format!("{SEAL}/setup-tenant"), &body).await {
            // An earlier run may have got this far and died before it wrote it down.
            self.login(tenant).await.map_err(|_| error)?;
        }
        step("tenant", format_args!("{tenant} set up, administrator {ADMIN}"));
        Ok(())
    }

    /// A client with the token of the administrator of `tenant`.
    pub(super) async fn login(&self, tenant: &str) -> Result<Client, Failure> {
        let password = self.file.existing()?.central.password;
        let client = self.client()?;
        let body = json!({"username": ADMIN, "password": password, "tenant": tenant});
        let token = client.post("/v1/login", &body).await?.text("token")?;
        Ok(client.with_token(token))
    }
}
