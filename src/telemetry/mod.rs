//! Telemetry: what a process reports about itself: log lines, and numbers for whoever watches many runs.
//!
//! Numbers go two ways, each only if it is configured: pushed over OTLP, and served as text to Prometheus beside
//! `/healthz`. Both read the same samples, so that they cannot differ. Nothing here may hold up, slow or fail a run: only
//! an address that cannot be listened on is refused, before the run begins.

mod endpoint;
pub mod logs;
mod otlp;
mod readings;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::logs::{LogFormat, LogLevel, init};
use self::readings::Readings;
pub use self::readings::Watched;
use crate::error::Code;
use crate::ledger::{Overview, Survey};

/// How often the ledger is asked for its sums, which costs it more the more sessions it has.
const LEDGER_INTERVAL: Duration = Duration::from_mins(5);

/// Where numbers go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// The OpenTelemetry collector, without `/v1/metrics`; nothing is pushed without one.
    pub otlp_endpoint: Option<Url>,
    /// How often numbers are pushed.
    pub otlp_interval: Duration,
    /// Where Prometheus finds them; nothing is served without it.
    pub prometheus_listen: Option<SocketAddr>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { otlp_endpoint: None, otlp_interval: Duration::from_secs(30), prometheus_listen: None }
    }
}

/// Why numbers cannot be served as configured. Fatal, always.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.prometheus_listen: cannot listen on {address}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl ListenError {
    /// Returns the stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::ConfigInvalid
    }
}

/// Metrics being reported.
#[derive(Debug)]
pub struct Telemetry {
    readings: Arc<Readings>,
    done: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Telemetry {
    /// Starts reporting what is watched.
    ///
    /// # Errors
    /// Fatal (configuration): the address for Prometheus cannot be listened on.
    pub async fn start(settings: &TelemetrySettings, watched: Watched) -> Result<Self, ListenError> {
        let readings = Arc::new(Readings::of(watched));
        let done = CancellationToken::new();
        let mut tasks = Vec::new();
        if let Some(address) = settings.prometheus_listen {
            let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
            // Port 0 means any, so the chosen one has to be logged.
            if let Ok(address) = listener.local_addr() {
                tracing::info!("metrics are served on http://{address}/metrics");
            }
            tasks.push(tokio::spawn(endpoint::serve(listener, Arc::clone(&readings), done.clone())));
        }
        if let Some(endpoint) = &settings.otlp_endpoint {
            let push = otlp::push(endpoint.clone(), settings.otlp_interval, Arc::clone(&readings), done.clone());
            tasks.push(tokio::spawn(push));
        }
        Ok(Self { readings, done, tasks })
    }

    /// Starts asking a ledger for its sums now and then, if anyone receives them.
    #[must_use]
    pub fn watch_ledger(&self, ledger: Arc<dyn Survey>, horizon_alarm: Duration) -> LedgerWatch {
        let done = CancellationToken::new();
        let watch = watch_ledger(Arc::clone(&self.readings), ledger, horizon_alarm, done.clone());
        let task = (!self.tasks.is_empty()).then(|| tokio::spawn(watch));
        LedgerWatch { readings: Arc::clone(&self.readings), done, task }
    }

    /// Notes how the run exits, pushes that and stops. Takes a few seconds at most, whether anyone listens or not.
    pub async fn finish(self, exit_code: u8) {
        self.readings.note_end(exit_code);
        self.done.cancel();
        for task in self.tasks {
            ended(task).await;
        }
    }
}

/// A ledger being asked for its sums. Ends before the ledger is closed.
#[derive(Debug)]
pub struct LedgerWatch {
    readings: Arc<Readings>,
    done: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl LedgerWatch {
    /// Stops asking, and notes the sums as they are at the end, if they are known.
    pub async fn finish(self, last: Option<&Overview>) {
        self.done.cancel();
        if let Some(task) = self.task {
            ended(task).await;
            if let Some(overview) = last {
                self.readings.note_ledger(overview.clone());
            }
        }
    }
}

async fn watch_ledger(
    readings: Arc<Readings>,
    ledger: Arc<dyn Survey>,
    horizon_alarm: Duration,
    done: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = done.cancelled() => return,
            overview = ledger.overview(readings.now(), horizon_alarm) => match overview {
                Ok(overview) => readings.note_ledger(overview),
                // A ledger that is out of reach ends the run by itself; the worker reports it.
                Err(error) => tracing::debug!(error.code = %error.code(), "the ledger's metrics are unknown: {error}"),
            },
        }
        if tokio::time::timeout(LEDGER_INTERVAL, done.cancelled()).await.is_ok() {
            return;
        }
    }
}

async fn ended(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::debug!("telemetry failed: {error}");
    }
}
