//! Stop: how a run is stopped before its source ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::error::Code;

/// Set once by a signal; read by the worker.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    terminated: Arc<AtomicBool>,
}

impl Stop {
    /// Stops the run because of SIGINT.
    pub fn interrupt(&self) {
        self.token.cancel();
    }

    /// Stops the run because of SIGTERM.
    pub fn terminate(&self) {
        self.terminated.store(true, Ordering::SeqCst);
        self.token.cancel();
    }

    /// Returns whether the run was stopped.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the run is stopped, and says by what.
    pub async fn requested(&self) -> Stopped {
        self.token.cancelled().await;
        if self.terminated.load(Ordering::SeqCst) { Stopped::Terminated } else { Stopped::Interrupted }
    }
}

/// Why a run stopped before its source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// One of its own limits.
    Limit(&'static str),
    /// No integration is left.
    Integrations,
    /// Nothing succeeded for `limits.no_progress`.
    NoProgress,
    /// A fatal error.
    Fatal(Code),
}

impl Stopped {
    /// Returns the text for people.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Interrupted => "stopped by SIGINT".to_owned(),
            Self::Terminated => "stopped by SIGTERM".to_owned(),
            Self::Limit(limit) => format!("reached {limit}"),
            Self::Integrations => "no integration is left to ask".to_owned(),
            Self::NoProgress => "nothing succeeded for limits.no_progress".to_owned(),
            Self::Fatal(code) => format!("a fatal error, {code}"),
        }
    }
}
