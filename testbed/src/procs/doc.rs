//! `dev.json`, as anybody may read it.

use std::fs;
use std::io::{self, Error};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where everything is.
#[derive(Deserialize)]
pub struct Doc {
    /// `starting`, `sealed` or `ready`.
    pub state: String,
    /// Process of `holdfast dev`.
    pub pid: u32,
    /// Central.
    pub central: Central,
    /// The sites.
    pub sites: Vec<Site>,
}

/// Central, with the operator's credentials.
#[derive(Deserialize)]
pub struct Central {
    /// `https://host:port`.
    pub api: String,
    /// `host:port` (UDP).
    pub quic: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Its data.
    pub data_dir: PathBuf,
    /// The deployment's root.
    pub ca_file: PathBuf,
    /// The administrator's certificate.
    pub admin_cert: PathBuf,
    /// Its key.
    pub admin_key: PathBuf,
    /// From reveal-sealkey.
    pub root_token: String,
    /// Likewise.
    pub sealkey: String,
    /// Likewise.
    pub shares: Vec<String>,
    /// The tenant of the user below.
    pub tenant: String,
    /// The administrator.
    pub username: String,
    /// The administrator's password.
    pub password: String,
}

/// A site.
#[derive(Deserialize)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its hosts.
    pub hosts: Vec<Host>,
}

/// A host.
#[derive(Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// `https://host:port`.
    pub api: String,
    /// The authority of its certificate.
    pub ca_file: PathBuf,
    /// Process of its agent.
    pub pid: Option<u32>,
    /// Its data.
    pub data_dir: PathBuf,
    /// How to reach its TPM.
    pub tcti: Option<String>,
}

impl Doc {
    /// Reads it.
    ///
    /// # Errors
    /// It is missing, or a member is.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join("dev.json");
        serde_json::from_slice(&fs::read(&path)?).map_err(|error| Error::other(format!("{}: {error}", path.display())))
    }
}
