//! Where central is and who is asking: from a dev folder, or from flags.

use std::path::PathBuf;

use clap::Args;

use crate::client::{Client, Identity, Trust, fingerprint};
use crate::dev::file::DevFile;
use crate::failure::Failure;
use crate::files::secret_text;

/// What to say to a command that can't know which central is meant.
const WHERE: &str = "where is central? Give --dir DIR of a `holdfast dev`, or --central URL with --ca FILE";

/// How a client command finds central.
#[derive(Args, Debug, Default)]
pub(crate) struct Connect {
    /// Folder of a `holdfast dev`: address, certificates and credentials are taken from its dev.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Central's address.
    #[arg(long, value_name = "URL", env = "HOLDFAST_CENTRAL")]
    central: Option<String>,
    /// PEM file with the authority that central's certificate comes from.
    #[arg(long, value_name = "FILE", env = "HOLDFAST_CA")]
    ca: Option<PathBuf>,
    /// Instead of --ca, for a central that is not initialised: the fingerprint (SHA-256, hex) it printed.
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pin: Option<[u8; 32]>,
    /// Client certificate to show (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Token; better given by --token-file or HOLDFAST_TOKEN, since arguments are visible to others.
    #[arg(long, value_name = "TOKEN", env = "HOLDFAST_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the token; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Connect {
    /// The client these flags describe. Connects nothing yet.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let client = match &self.dir {
            Some(dir) => self.client_of_dev(dir)?,
            None => self.client_of_flags()?,
        };
        Ok(match self.own_token()? {
            Some(token) => client.with_token(token),
            None => client,
        })
    }

    fn client_of_dev(&self, dir: &std::path::Path) -> Result<Client, Failure> {
        let central = DevFile::at(dir).existing()?.central;
        if !central.ca_file.exists() {
            return Err(Failure::unfit(format!(
                "central in {} is not initialised yet: {} is missing",
                dir.display(),
                central.ca_file.display()
            )));
        }
        let identity = self.identity().or(Some(Identity { cert: central.admin_cert, key: central.admin_key }));
        let client = Client::new(&central.api, &Trust::CaFile(central.ca_file), identity.as_ref())?;
        Ok(match central.root_token {
            Some(token) => client.with_token(token),
            None => client,
        })
    }

    fn client_of_flags(&self) -> Result<Client, Failure> {
        let url = self.central.as_deref().ok_or_else(|| Failure::unfit(WHERE))?;
        // A pin is always typed, an authority may come from the environment.
        let trust = match (&self.ca, self.pin) {
            (_, Some(pin)) => Trust::Pin(pin),
            (Some(path), None) => Trust::CaFile(path.clone()),
            (None, None) => return Err(Failure::unfit("--ca is needed (or --pin, for a central not initialised yet)")),
        };
        Ok(Client::new(url, &trust, self.identity().as_ref())?)
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity { cert: self.cert.clone()?, key: self.key.clone()? })
    }

    fn own_token(&self) -> Result<Option<String>, Failure> {
        match (&self.token, &self.token_file) {
            (_, Some(path)) => secret_text(path).map(Some),
            (Some(token), None) => Ok(Some(token.clone())),
            (None, None) => Ok(None),
        }
    }
}
