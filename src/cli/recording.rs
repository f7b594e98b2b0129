//! The record of a run: begun before its first session, closed behind its last.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Config;
use crate::error::Exit;
use crate::ledger::RunStart;
use crate::model::run::ClosedReason;
use crate::model::signature::SigningKey;
use crate::run::record::{Draft, Ending, RecordError, Recorder};
use crate::run::summary::RunRecordSummary;
use crate::run::{Parts, Recording, Worked};
use crate::source::Source;
use crate::stop::Stop;
use crate::stop::Stopped;

/// How long closing may take at the end of a run; what is left then is done by a later one.
const CLOSING_PATIENCE: Duration = Duration::from_mins(2);

/// The same once the run was stopped: with what abandoning and releasing may take, less than the ten seconds of grace
/// that the chart adds to the drain.
const STOPPED_PATIENCE: Duration = Duration::from_secs(3);

/// Closes the records of runs that died, and writes down that this one begins.
///
/// # Errors
/// As the ledger's.
pub(super) async fn begin(
    parts: &Parts,
    source: &dyn Source,
    config: &Config,
    signer: Option<SigningKey>,
    started_at: Timestamp,
) -> anyhow::Result<Recording> {
    let run_id = parts.archiver.run.id();
    let principal = parts.archiver.writer.store().principal().await;
    let shown = serde_json::to_value(config.show())?;
    let start = RunStart {
        run_id: run_id.clone(),
        started_at,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        source_kind: source.tally().kind.to_owned(),
        store_url: config.require_store()?.url().to_string(),
        draft: Some(Draft::of(config.signing.group.clone(), config.actor.clone(), principal, shown).to_text()),
    };
    let recorder = Arc::new(Recorder {
        archiver: Arc::clone(&parts.archiver),
        ledger: Arc::clone(&parts.ledger),
        clock: Arc::clone(&parts.clock),
        signer,
        lease: config.limits.lease,
    });
    close_lapsed(&recorder, &parts.stop).await;
    parts.ledger.start_run(&start).await?;
    Ok(Recording::of(recorder, start))
}

/// Closes what dead runs left open; this run has its own work, and does not fail over theirs.
async fn close_lapsed(recorder: &Recorder, stop: &Stop) {
    let by = recorder.archiver.run.id();
    let closed = tokio::select! {
        closed = recorder.close_lapsed(&by) => closed,
        _ = stop.requested() => return,
    };
    if let Err(error) = closed {
        tracing::warn!(error.code = %error.code(), "could not search for runs that died: {error}");
    }
}

/// Closes the record of a run that ended; nothing if there is none, or a later run has to close it.
pub(super) async fn end(worked: &mut Worked, exit: Exit) -> Option<RunRecordSummary> {
    let mut recording = worked.recording.take()?;
    let is_told = matches!(worked.stopped, Some(Stopped::Interrupted | Stopped::Terminated));
    let is_cut = worked.stopped.is_some() || !worked.stopped_integrations.is_empty();
    let ending = Ending {
        exit_code: exit.code(),
        reason: if is_cut { ClosedReason::Stopped } else { ClosedReason::Finished },
        counts: worked.tally.counts,
        source_sha256: worked.source.sha256,
        records: worked.records,
    };
    let patience = if is_told { STOPPED_PATIENCE } else { CLOSING_PATIENCE };
    let closed = match tokio::time::timeout(patience, recording.close(&ending)).await {
        Ok(Ok(closed)) => closed?,
        Ok(Err(error)) => {
            tell_of(&error);
            return None;
        }
        Err(_) => {
            tracing::warn!("the run record could not be closed in time; a later run will close it");
            return None;
        }
    };
    let record = closed.record;
    if !closed.is_signed {
        tracing::info!(object.key = %record.key, "the run record is unsigned, because signing.private_key is not set");
    }
    Some(RunRecordSummary {
        key: record.key,
        sha256: record.sha256,
        group: record.group,
        chain_key: closed.entry_key,
        chain_number: record.number,
        chain_sha256: record.entry_sha256,
        signed: closed.is_signed,
    })
}

fn tell_of(error: &RecordError) {
    tracing::warn!(error.code = %error.code(), "the run record is not closed yet; a later run will close it: {error}");
}
