//! `audit coverage`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use clap::{ArgGroup, Args};

use super::Kind;
use super::desk::{AuditDesk, Need, StateArgs};
use crate::audit::AuditKind;
use crate::audit::coverage::{self, Coverage, CoverageTally, Expected};
use crate::audit::runner::{AuditEnd, Question};
use crate::audit::sessions::{Checked, SessionsProgress, SessionsRunner};
use crate::cli::StoreArgs;
use crate::cli::connect::open_file;
use crate::cli::source::FormatArgs;
use crate::config::{Config, ConfigError};
use crate::metrics::Meter;
use crate::veriff::VeriffClient;
use crate::veriff::settings::IntegrationSettings;

const AFTER_HELP: &str = "\
Asks Veriff for the lists of each session, at the configured rate, and compares them with the newest manifest in the \
store. Downloads no media. With --without-veriff it only reports sessions that are not archived at all.

Exit codes:
    0  nothing is missing
    4  there is a finding of severity error
    5  nothing is missing, but some sessions could not be checked; or Veriff or the store does not answer
   77  the store or Veriff refuses access
  130, 143  stopped by a signal; resume with --state

Examples:
  veriff-archive audit coverage --sessions last-month.csv
  veriff-archive audit coverage --ledger --without-veriff";

/// Check that what Veriff has, or what you expect, is archived
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, group = ArgGroup::new("expected").required(true).args(["sessions", "backlog", "ledger"]))]
pub(in crate::cli) struct CoverageArgs {
    /// Expect the sessions of a list.
    #[arg(
        long,
        value_name = "PATH",
        help = "Expect the sessions of a list: a file, - for standard input, or s3://bucket/key"
    )]
    sessions: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
    /// Expect the sessions of the backlog
    #[arg(long)]
    backlog: bool,
    /// Expect all sessions in the ledger
    #[arg(long)]
    ledger: bool,
    /// Do not ask Veriff
    #[arg(long)]
    without_veriff: bool,
    /// Integration for lines that name none
    #[arg(long, value_name = "NAME")]
    integration: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    state: StateArgs,
}

impl Kind for CoverageArgs {
    type Progress = SessionsProgress<CoverageTally>;

    fn store(&self) -> &StoreArgs {
        &self.store
    }

    fn need(&self) -> Need {
        if self.sessions.is_some() { Need::Helpful } else { Need::Needed }
    }

    fn question(&self, config: &Config) -> Result<Question, ConfigError> {
        let mut text = vec![format!("store={}", config.require_store()?.url())];
        text.extend(self.sessions.as_ref().map(|path| format!("sessions={path}")));
        let flags = [("backlog", self.backlog), ("ledger", self.ledger), ("without-veriff", self.without_veriff)];
        text.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| (*flag).to_owned()));
        text.extend(self.integration.as_ref().map(|name| format!("integration={name}")));
        Ok(Question {
            kind: AuditKind::Coverage,
            mode: self.without_veriff.then(|| "without-veriff".to_owned()),
            share: None,
            text: text.join(" "),
            state: self.state.state.clone(),
            seed: None,
        })
    }

    async fn go(&self, desk: &AuditDesk, runner: &mut SessionsRunner<CoverageTally>) -> anyhow::Result<AuditEnd> {
        let config = &desk.config;
        if let Some(name) = &self.integration {
            config.integration_of(Some(name), None)?;
        }
        let clients = if self.without_veriff { None } else { Some(connect(desk).await?) };
        let archive = desk.archive(&desk.reach(1), runner).await?;
        let integration_of = Box::new(|expected: &Expected| {
            let named = expected.record.integration.as_deref().or(expected.integration.as_deref());
            config.integration_of(named, self.integration.as_deref()).ok().map(|settings| settings.name.clone())
        });
        let coverage = Coverage {
            store: &*desk.store,
            ledger: desk.ledger.clone(),
            archive,
            clients,
            integration_of,
            now: desk.clock.now(),
            unasked_in_a_row: AtomicU32::new(0),
        };
        let check = async |expected: Option<Expected>| match expected {
            Some(expected) => coverage.check(expected).await,
            None => {
                Ok(Checked { tally: CoverageTally { bad_lines: 1, ..CoverageTally::default() }, findings: Vec::new() })
            }
        };
        let (from, in_flight) = (runner.progress.mark.clone(), config.limits.sessions_in_flight);
        if let Some(path) = &self.sessions {
            let source = open_file(path, &self.format, config, &desk.clock).await?;
            runner.run(coverage::listed(source, &from), in_flight, check).await?;
        } else {
            let ledger = desk.ledger.clone().ok_or_else(no_ledger)?;
            runner.run(coverage::known(ledger, self.backlog, &from), in_flight, check).await?;
        }
        let tally = runner.progress.tally;
        runner.conclude(Coverage::closing_findings(&tally))?;
        let (details, is_partial) = (serde_json::to_value(tally)?, tally.unasked > 0);
        Ok(AuditEnd { archive_id: coverage.archive, details, is_partial, next: None })
    }
}

/// Makes a client for each integration; one that asks for lists and nothing else.
async fn connect(desk: &AuditDesk) -> anyhow::Result<BTreeMap<String, VeriffClient>> {
    let meter = Arc::new(Meter::starting(desk.clock.instant()));
    let mut clients = BTreeMap::new();
    for (name, settings) in desk.config.require_integrations()? {
        let settings = IntegrationSettings { records: Vec::new(), ..settings.clone() };
        let tries = desk.config.limits.tries;
        let client = VeriffClient::connect(settings, tries, Arc::clone(&desk.clock), Arc::clone(&meter)).await?;
        clients.insert(name.clone(), client);
    }
    Ok(clients)
}

fn no_ledger() -> ConfigError {
    ConfigError::missing("ledger.url", "there is no ledger that could say what is expected; give --sessions")
}
