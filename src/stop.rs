//! Stop: how a run is told to end before its source does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::summary::Stopped;

/// Told once by a signal; asked by the worker.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    terminated: Arc<AtomicBool>,
}

impl Stop {
    /// Tells the run to stop because of SIGINT.
    pub fn interrupt(&self) {
        self.token.cancel();
    }

    /// Tells the run to stop because of SIGTERM.
    pub fn terminate(&self) {
        self.terminated.store(true, Ordering::SeqCst);
        self.token.cancel();
    }

    /// Tells whether the run was told to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the run is told to stop, and says by what.
    pub async fn requested(&self) -> Stopped {
        self.token.cancelled().await;
        if self.terminated.load(Ordering::SeqCst) { Stopped::Terminated } else { Stopped::Interrupted }
    }
}
