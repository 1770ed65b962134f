//! A central on a temporary data folder, which can be stopped and started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use holdfast_central::{Config, Running, start};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, As, Operator, try_call};

pub(crate) const SEAL: &str = "/v1/state/strongbox/system";

/// The text of a configuration on free ports.
pub(crate) fn config_text(data: &Path, operator: &Operator) -> String {
    format!(
        "data_dir = {data:?}\n[listen]\nrest = \"127.0.0.1:0\"\nquic = \"127.0.0.1:0\"\n[operator]\n\
         admin_identities = [{:?}]\n[names]\ndns = [\"central.example\"]\n",
        operator.identity()
    )
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) operator: Operator,
    /// What is configured beside the usual, from the next start on.
    pub(crate) added: String,
    running: Option<Running>,
}

/// What reveal-sealkey gave out.
pub(crate) struct First {
    pub(crate) sealkey: String,
    pub(crate) shares: Vec<String>,
    pub(crate) token: String,
}

impl First {
    pub(crate) fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text);
        let shares = answer.json()["shares"].as_array().unwrap().clone();
        let shares = shares.iter().map(|share| share.as_str().unwrap().to_owned()).collect();
        Self { sealkey: answer.of("sealkey"), shares, token: answer.of("token") }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    pub(crate) async fn start_with(added: &str) -> Self {
        let (folder, operator) = (TempDir::new().unwrap(), Operator::new());
        let mut world = Self { folder, operator, added: added.to_owned(), running: None };
        world.start_again().await;
        world
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) async fn start_again(&mut self) {
        self.stop().await;
        let text = config_text(&self.data(), &self.operator) + &self.added;
        let config = Config::parse(&text).unwrap();
        self.running = Some(start(config).await.unwrap());
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.running().rest_addr()
    }

    /// A stranger on this machine.
    pub(crate) async fn post(&self, path: &str, body: Option<Value>) -> Answer {
        try_call(self.addr(), As::default(), ("POST", path), body).await.unwrap()
    }

    pub(crate) async fn post_as(&self, token: &str, path: &str, body: Option<Value>) -> Answer {
        try_call(self.addr(), As { token: Some(token), operator: None }, ("POST", path), body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        try_call(self.addr(), As::default(), ("GET", path), None).await.unwrap()
    }

    pub(crate) async fn reveal(&self) -> Answer {
        self.post(&format!("{SEAL}/reveal-sealkey"), None).await
    }

    pub(crate) async fn initialise(&self) -> First {
        First::of(&self.reveal().await)
    }

    pub(crate) async fn unseal(&self, body: Value) -> Answer {
        self.post(&format!("{SEAL}/unseal"), Some(body)).await
    }

    pub(crate) async fn unseal_as_operator(&self, body: Value) -> Answer {
        let who = As { token: None, operator: Some(&self.operator) };
        try_call(self.addr(), who, ("POST", &format!("{SEAL}/unseal")), Some(body)).await.unwrap()
    }

    pub(crate) async fn is_sealed(&self) -> bool {
        self.get(&format!("{SEAL}/seal-status")).await.json()["sealed"].as_bool().unwrap()
    }

    pub(crate) async fn create_tenant(&self, token: &str, name: &str) -> Answer {
        self.post_as(token, "/v1/config/tenants", Some(json!({ "name": name }))).await
    }
}
