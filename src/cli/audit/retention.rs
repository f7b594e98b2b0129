//! `audit retention`.

use std::sync::Mutex;

use clap::Args;

use super::Kind;
use super::desk::AuditDesk;
use super::sessions::SessionsArgs;
use crate::audit::AuditKind;
use crate::audit::retention::{Retention, RetentionTally};
use crate::audit::runner::{AuditEnd, Question};
use crate::audit::sessions::{SESSIONS_IN_FLIGHT, SessionsProgress, SessionsRunner};
use crate::cli::StoreArgs;
use crate::config::{Config, ConfigError};

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

impl Kind for RetentionArgs {
    type Progress = SessionsProgress<RetentionTally>;

    fn store(&self) -> &StoreArgs {
        &self.sessions.store
    }

    fn question(&self, config: &Config) -> Result<Question, ConfigError> {
        self.sessions.question(AuditKind::Retention, None, config)
    }

    async fn go(&self, desk: &AuditDesk, runner: &mut SessionsRunner<RetentionTally>) -> anyhow::Result<AuditEnd> {
        let reach = desk.reach(self.sessions.concurrency);
        let archive = desk.archive(&reach, runner).await?;
        let kms_key_id = desk.config.require_store()?.kms_key_id();
        let (ledger, policy) = (desk.ledger.as_deref(), &desk.config.retention);
        let retention = Retention { reach, ledger, archive, policy, kms_key_id, keys_tried: Mutex::default() };
        if !runner.progress.mark.past_sessions {
            let steps = self.sessions.feed(desk, &runner.progress).await?.steps(runner.progress.mark.records);
            runner.run(steps, SESSIONS_IN_FLIGHT, |walked| retention.check(walked)).await?;
        }
        if !self.sessions.is_list() {
            let (from, scope) = (runner.progress.mark.clone(), self.sessions.scope(&runner.progress.seed));
            let in_flight = usize::from(self.sessions.concurrency);
            let steps = Retention::documents(&*desk.store, &scope, &from);
            runner.run(steps, in_flight, |version| retention.check_document(version)).await?;
        }
        let tally = &runner.progress.tally;
        let details = details(tally, self.sessions.seed(&runner.progress));
        runner.conclude(retention.closing_findings(tally))?;
        Ok(AuditEnd { archive_id: retention.archive, details, ..AuditEnd::default() })
    }
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
