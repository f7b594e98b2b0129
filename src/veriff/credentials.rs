//! Credentials: the key and secret of one integration, and reading them again when they are refused.

use std::sync::{Arc, PoisonError, RwLock};

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;

use super::ClientError;
use super::settings::IntegrationSettings;
use crate::secret::SecretSource;

/// One pair of key and secret.
pub struct Keys {
    /// Goes into `x-auth-client`; marked sensitive, so that it never prints.
    pub api_key: HeaderValue,
    /// Signs every request.
    pub shared_secret: SecretString,
}

/// The pair in use and where it came from.
#[derive(Debug)]
pub struct Credentials {
    name: String,
    sources: [SecretSource; 2],
    current: RwLock<Arc<Keys>>,
    renewing: Mutex<()>,
}

impl Credentials {
    /// Reads key and secret from where the settings say.
    ///
    /// # Errors
    /// Fatal (configuration): one cannot be read.
    pub async fn load(settings: &IntegrationSettings) -> Result<Self, ClientError> {
        let sources = [settings.api_key.clone(), settings.shared_secret.clone()];
        let keys = read(&settings.name, &sources).await?;
        Ok(Self {
            name: settings.name.clone(),
            sources,
            current: RwLock::new(Arc::new(keys)),
            renewing: Mutex::new(()),
        })
    }

    /// Returns the pair in use.
    #[must_use]
    pub fn current(&self) -> Arc<Keys> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the pair again after `refused` was refused. True if another one is in use now, so that trying again makes
    /// sense; a secret from the environment never changes.
    pub async fn renew(&self, refused: &Arc<Keys>) -> bool {
        if !self.sources.iter().any(SecretSource::may_change) {
            return false;
        }
        let _one_at_a_time = self.renewing.lock().await;
        let current = self.current();
        if !current.equals(refused) {
            return true;
        }
        match read(&self.name, &self.sources).await {
            Ok(keys) if !keys.equals(refused) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                tracing::info!(integration = %self.name, "credentials were refused; they were read again and have changed");
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::error!(integration = %self.name, "credentials were refused, and could not be read again: {error}");
                false
            }
        }
    }
}

impl Keys {
    fn equals(&self, other: &Self) -> bool {
        self.api_key == other.api_key && self.shared_secret.expose_secret() == other.shared_secret.expose_secret()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys([redacted])")
    }
}

async fn read(name: &str, sources: &[SecretSource; 2]) -> Result<Keys, ClientError> {
    let load = async |source: &SecretSource, key| {
        source.load().await.map_err(|source| ClientError::Secret { name: name.to_owned(), key, source })
    };
    let api_key = load(&sources[0], "api_key").await?;
    let shared_secret = load(&sources[1], "shared_secret").await?;
    let mut api_key =
        HeaderValue::from_str(api_key.expose_secret()).map_err(|_| ClientError::Header { name: name.to_owned() })?;
    api_key.set_sensitive(true);
    Ok(Keys { api_key, shared_secret })
}
