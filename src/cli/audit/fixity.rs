//! `audit fixity`.

use clap::Args;

use super::sessions::{Desk, Need, SessionsArgs};
use crate::audit::AuditKind;
use crate::audit::drive::{AuditError, End, SESSIONS_IN_FLIGHT};
use crate::audit::fixity::{Fixity, FixityTally, Mode, closing_findings};
use crate::cli::GlobalArgs;
use crate::error::Exit;
use crate::session::budget::Budget;

const AFTER_HELP: &str = "\
Both modes read every manifest and every sidecar and compare their digests. For the media themselves:
  head  compares what the store reports of each object: that the version exists, its size, its
        lock, and the checksum that the store computed when it was written (of its parts, for a
        long object). A directory has no checksums, so only sizes are compared
  read  also downloads and hashes each object: the only way to find bytes that changed behind
        the store's back

Exit codes:
    0  nothing is wrong
    4  there is a finding of severity error
    5  the store does not answer; resume with --state
   77  the store refuses access
  130, 143  stopped by a signal; resume with --state

Examples:
  veriff-archive audit fixity
  veriff-archive audit fixity --mode read --share 3/30 --state fixity.json
  veriff-archive audit fixity --mode read --sample 1%";

/// Check every object against its digest
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct FixityArgs {
    /// How to check media
    #[arg(long, value_name = "MODE", default_value = "head")]
    mode: ModeArg,
    #[command(flatten)]
    sessions: SessionsArgs,
}

/// How media are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ModeArg {
    /// By what the store reports of them
    Head,
    /// By downloading and hashing their bytes
    Read,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Head => Self::Head,
            ModeArg::Read => Self::Read,
        }
    }
}

pub(super) async fn run(args: &FixityArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let mode = Mode::from(args.mode);
    let desk = Desk::open(global, &args.sessions.store, Need::Helpful).await?;
    let question = args.sessions.question(AuditKind::Fixity, Some(mode.as_str()), desk.config.require_store()?);
    let (mut drive, mut findings) = desk.begin::<FixityTally>(question, global)?;
    let from = drive.progress.mark.clone();
    let reach = desk.reach(args.sessions.concurrency);
    let archive = desk.archive(&reach, drive.is_gone_on_with, &mut findings).await?;
    let budget = Budget::of_memory(desk.config.limits.memory_bytes);
    let fixity = Fixity { reach, ledger: desk.ledger.as_deref(), archive, mode, budget };
    let scope = args.sessions.scope(&drive.progress.seed);
    let share = args.sessions.part(&scope);
    let steps = args.sessions.feed(&desk, scope, &from).await?.steps(&from);
    let stopped = drive.run(steps, SESSIONS_IN_FLIGHT, |walked| fixity.check(walked), &mut findings).await?;
    let tally = drive.progress.tally;
    if stopped.is_none() {
        for finding in closing_findings(&fixity.reach, mode, &tally) {
            findings.add(&finding).map_err(AuditError::from)?;
        }
    }
    let details =
        details(&tally, drive.progress.seen, args.sessions.sample.is_some().then_some(drive.progress.seed.as_str()));
    let is_at_end = stopped.is_none();
    let end = End { is_complete: is_at_end, is_at_end, share, archive_id: fixity.archive.clone(), details };
    let summary = drive.finish(end, &findings, &*desk.clock).map_err(AuditError::from)?;
    desk.finish(&summary, stopped, global).await
}

/// What only this audit reports.
fn details(tally: &FixityTally, sessions_seen: u64, seed: Option<&str>) -> serde_json::Value {
    serde_json::json!({
        "objects": tally.objects,
        "bytes": tally.bytes,
        "reread_objects": tally.reread_objects,
        "reread_bytes": tally.reread_bytes,
        "total_sessions_seen": sessions_seen,
        "composite": tally.composite,
        "unchecked": tally.unchecked,
        "unvouched_manifests": tally.unvouched_manifests,
        "hidden_locks": tally.hidden_locks,
        "seed": seed,
    })
}
