//! Signals: the first one asks the run to stop, the second one ends it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::Exit;
use crate::stop::Stop;

/// Listens for SIGINT and SIGTERM. The first drains the run; a second ends the process on the spot, which is as safe as
/// killing it: nothing is claimed before it is there.
///
/// # Errors
/// Retryable: the system does not let us listen.
pub(super) fn listen(stop: Stop) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut was_told = false;
        loop {
            let exit = tokio::select! {
                _ = interrupt.recv() => Exit::Interrupted,
                _ = terminate.recv() => Exit::Terminated,
            };
            if was_told {
                std::process::exit(exit.code().into());
            }
            was_told = true;
            tracing::warn!("stopping: finishing sessions in flight; send the signal again to stop at once");
            if exit == Exit::Interrupted {
                stop.interrupt();
            } else {
                stop.terminate();
            }
        }
    });
    Ok(())
}
