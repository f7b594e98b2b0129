//! Sample: the lists of some sessions, read to estimate the others by.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::clock::Clock;
use crate::metrics::{Meter, SessionMeter};
use crate::model::SessionId;
use crate::session::catalog::{self, Catalog};
use crate::veriff::settings::IntegrationSettings;
use crate::veriff::{ClientError, VeriffClient, VeriffError};

/// What the lists of some sessions said.
#[derive(Debug, Default)]
pub struct Sample {
    pub(super) sessions: u64,
    pub(super) media: u64,
    pub(super) list_requests: u64,
    pub(super) sized: u64,
    pub(super) bytes: u64,
}

impl Sample {
    fn add(&mut self, catalog: &Catalog, list_requests: u32) {
        self.sessions += 1;
        self.list_requests += u64::from(list_requests);
        self.media += catalog.items.len() as u64;
        for size in catalog.items.iter().filter_map(|item| item.size_bytes) {
            self.sized += 1;
            self.bytes += size;
        }
    }
}

/// Why a sample could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// There is no client to ask with.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Veriff refuses the credentials.
    #[error("Veriff refuses the credentials")]
    Refused(#[source] VeriffError),
    /// Veriff is out of reach or refuses for load.
    #[error(transparent)]
    Veriff(VeriffError),
}

/// Asks Veriff for lists; downloads and writes nothing.
#[derive(Debug)]
pub struct Sampler {
    tries: u32,
    clock: Arc<dyn Clock>,
    meter: Arc<Meter>,
    clients: BTreeMap<String, VeriffClient>,
    sample: Sample,
}

impl Sampler {
    /// Makes a sampler that tries each request as often as this.
    #[must_use]
    pub fn new(tries: u32, clock: Arc<dyn Clock>) -> Self {
        let meter = Arc::new(Meter::starting(clock.instant()));
        Self { tries, clock, meter, clients: BTreeMap::new(), sample: Sample::default() }
    }

    /// Reads the lists of one session. One that cannot be read for a reason of its own is left out.
    ///
    /// # Errors
    /// Fatal: the credentials are refused. Retryable: Veriff is out of reach or refuses for load.
    pub async fn ask(&mut self, settings: &IntegrationSettings, session: &SessionId) -> Result<(), SampleError> {
        let client = match self.clients.entry(settings.name.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let (clock, meter) = (Arc::clone(&self.clock), Arc::clone(&self.meter));
                entry.insert(VeriffClient::connect(settings.clone(), self.tries, clock, meter).await?)
            }
        };
        let session_meter = SessionMeter::default();
        match catalog::read(client, session, &session_meter).await {
            Ok(catalog) => self.sample.add(&catalog, session_meter.requests()),
            Err(error @ (VeriffError::Throttled { .. } | VeriffError::Unavailable { .. })) => {
                return Err(SampleError::Veriff(error));
            }
            Err(error) if error.refuses_key() => return Err(SampleError::Refused(error)),
            Err(error) => tracing::warn!("one session of the sample is left out: {error}"),
        }
        Ok(())
    }

    /// Returns what was sampled.
    #[must_use]
    pub fn finish(self) -> Sample {
        self.sample
    }
}
