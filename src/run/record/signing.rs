//! Signing: where the key is kept, and the name of the chain.

use secrecy::ExposeSecret as _;

use crate::model::signature::{KeyError, SigningKey};
use crate::secret::{SecretError, SecretSource};

/// The chain of workers that name none.
pub const DEFAULT_GROUP: &str = "default";

/// How run records are signed.
#[derive(Debug, Clone)]
pub struct SigningSettings {
    /// Where the private key is kept; without one, runs are unsigned.
    pub private_key: Option<SecretSource>,
    /// The chain that this worker adds to.
    pub group: String,
}

impl Default for SigningSettings {
    fn default() -> Self {
        Self { private_key: None, group: DEFAULT_GROUP.to_owned() }
    }
}

/// Why the key cannot be used. Fatal (configuration), always.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// It cannot be read.
    #[error("signing.private_key cannot be read")]
    Secret(#[from] SecretError),
    /// It is no key.
    #[error("signing.private_key is {0}")]
    Key(#[from] KeyError),
}

impl SigningSettings {
    /// Reads the key, where one is configured.
    ///
    /// # Errors
    /// Fatal (configuration): it cannot be read or is none.
    pub async fn load(&self) -> Result<Option<SigningKey>, SigningError> {
        match &self.private_key {
            Some(source) => Ok(Some(SigningKey::from_pem(source.load().await?.expose_secret())?)),
            None => Ok(None),
        }
    }
}
