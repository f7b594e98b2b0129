//! `audit retention`.

use std::sync::Mutex;

use clap::Args;

use super::sessions::{Desk, Need, SessionsArgs};
use crate::audit::AuditKind;
use crate::audit::drive::{AuditError, End, SESSIONS_IN_FLIGHT};
use crate::audit::retention::{Retention, RetentionTally};
use crate::cli::GlobalArgs;
use crate::error::Exit;

const AFTER_HELP: &str = "\
Compares the lock of every object version with what its sidecar promised and with the retention policy in the \
configuration: missing, weaker, shorter, or longer than max_period. Also reads one object for each encryption key.

Exit codes:
    0  nothing is wrong
    4  there is a finding of severity error
    5  the store does not answer; resume with --state
   77  the store refuses access
  130, 143  stopped by a signal; resume with --state

Examples:
  veriff-archive audit retention
  veriff-archive audit retention --share 1/7 --state retention.json";

/// Check every lock against its sidecar and the policy
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct RetentionArgs {
    #[command(flatten)]
    sessions: SessionsArgs,
}

pub(super) async fn run(args: &RetentionArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let desk = Desk::open(global, &args.sessions.store, Need::Helpful).await?;
    let settings = desk.config.require_store()?;
    let question = args.sessions.question(AuditKind::Retention, None, settings);
    let (mut drive, mut findings) = desk.begin::<RetentionTally>(question, global)?;
    let from = drive.progress.mark.clone();
    let reach = desk.reach(args.sessions.concurrency);
    let archive = desk.archive(&reach, drive.is_gone_on_with, &mut findings).await?;
    let kms_key_id = settings.kms_key_id();
    let policy = &desk.config.retention;
    let retention =
        Retention { reach, ledger: desk.ledger.as_deref(), archive, policy, kms_key_id, keys_tried: Mutex::default() };
    let scope = args.sessions.scope(&drive.progress.seed);
    let share = args.sessions.part(&scope);
    let mut stopped = None;
    if !from.past_sessions {
        let steps = args.sessions.feed(&desk, scope.clone(), &from).await?.steps(&from);
        stopped = drive.run(steps, SESSIONS_IN_FLIGHT, |walked| retention.check(walked), &mut findings).await?;
    }
    if stopped.is_none() && !args.sessions.is_list() {
        let steps = Retention::documents(&*desk.store, &scope, &from);
        let in_flight = usize::from(args.sessions.concurrency);
        stopped = drive.run(steps, in_flight, |version| retention.check_document(version), &mut findings).await?;
    }
    let tally = drive.progress.tally.clone();
    if stopped.is_none() {
        for finding in retention.closing_findings(&tally) {
            findings.add(&finding).map_err(AuditError::from)?;
        }
    }
    let details = details(&tally, args.sessions.sample.is_some().then_some(drive.progress.seed.as_str()));
    let is_at_end = stopped.is_none();
    let end = End { is_complete: is_at_end, is_at_end, share, archive_id: retention.archive.clone(), details };
    let summary = drive.finish(end, &findings, &*desk.clock).map_err(AuditError::from)?;
    desk.finish(&summary, stopped, global).await
}

/// What only this audit reports.
fn details(tally: &RetentionTally, seed: Option<&str>) -> serde_json::Value {
    serde_json::json!({
        "calendar": tally.calendar(),
        "expired": tally.expired,
        "hidden_locks": tally.hidden_locks,
        "keys": tally.keys,
        "seed": seed,
    })
}
