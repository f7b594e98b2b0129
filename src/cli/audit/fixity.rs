//! `audit fixity`.

use clap::Args;

use super::Kind;
use super::desk::AuditDesk;
use super::sessions::SessionsArgs;
use crate::audit::AuditKind;
use crate::audit::fixity::{Fixity, FixityMode, FixityTally, closing_findings};
use crate::audit::runner::{AuditEnd, Question};
use crate::audit::sessions::{SESSIONS_IN_FLIGHT, SessionsProgress, SessionsRunner};
use crate::cli::StoreArgs;
use crate::config::{Config, ConfigError};
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

impl From<ModeArg> for FixityMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Head => Self::Head,
            ModeArg::Read => Self::Read,
        }
    }
}

impl Kind for FixityArgs {
    type Progress = SessionsProgress<FixityTally>;

    fn store(&self) -> &StoreArgs {
        &self.sessions.store
    }

    fn question(&self, config: &Config) -> Result<Question, ConfigError> {
        self.sessions.question(AuditKind::Fixity, Some(FixityMode::from(self.mode).as_str()), config)
    }

    async fn go(&self, desk: &AuditDesk, runner: &mut SessionsRunner<FixityTally>) -> anyhow::Result<AuditEnd> {
        let reach = desk.reach(self.sessions.concurrency);
        let archive = desk.archive(&reach, runner).await?;
        let budget = Budget::of_memory(desk.config.limits.memory_bytes);
        let fixity = Fixity { reach, ledger: desk.ledger.as_deref(), archive, mode: self.mode.into(), budget };
        let steps = self.sessions.feed(desk, &runner.progress).await?.steps(runner.progress.mark.records);
        runner.run(steps, SESSIONS_IN_FLIGHT, |walked| fixity.check(walked)).await?;
        runner.conclude(closing_findings(&fixity.reach, fixity.mode, &runner.progress.tally))?;
        let details = details(&runner.progress, self.sessions.seed(&runner.progress));
        Ok(AuditEnd { archive_id: fixity.archive, details, ..AuditEnd::default() })
    }
}

/// What only this audit reports.
fn details(progress: &SessionsProgress<FixityTally>, seed: Option<&str>) -> serde_json::Value {
    let tally = &progress.tally;
    serde_json::json!({
        "objects": tally.objects,
        "bytes": tally.bytes,
        "reread_objects": tally.reread_objects,
        "reread_bytes": tally.reread_bytes,
        "total_sessions_seen": progress.seen,
        "composite": tally.composite,
        "unchecked": tally.unchecked,
        "unvouched_manifests": tally.unvouched_manifests,
        "hidden_locks": tally.hidden_locks,
        "seed": seed,
    })
}
