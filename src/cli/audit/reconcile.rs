//! `audit reconcile`.

use clap::Args;

use super::desk::{AuditDesk, Need, StateArgs};
use super::{Kind, inventory};
use crate::audit::AuditKind;
use crate::audit::reconcile::{Reconcile, ReconcileMode, ReconcileTally, ReportedRuns};
use crate::audit::runner::{AuditEnd, Question};
use crate::audit::sessions::{SessionsProgress, SessionsRunner};
use crate::cli::StoreArgs;
use crate::config::{Config, ConfigError};
use crate::ledger::LedgerError;

const AFTER_HELP: &str = "\
Reads the manifests of each session and the lines of all closed run records, and compares them with everything \
that the ledger says. With --listing-only or --inventory it compares only keys, versions and sizes. It does not check \
bytes (`audit fixity`) or signatures of run records (`audit chain`). Ledger and store are each read once, in constant \
memory.

For --inventory, give the manifest.json of an S3 Inventory report (CSV), on S3 or downloaded with its files next to it, or \
the files themselves. A report is as old as its date: what was archived since is reported as missing.

Exit codes:
    0  nothing is wrong
    2  the inventory report is invalid, is of another bucket, or lists no versions although the ledger names them
    4  there is a finding of severity error
    5  the store or the ledger does not answer; resume with --state
   77  the store refuses access
   78  there is no ledger to compare with, or no configuration
  130, 143  stopped by a signal; resume with --state

Examples:
  veriff-archive audit reconcile --state reconcile.json
  veriff-archive audit reconcile --inventory s3://inventory/archive/weekly/2026-11-22T01-00Z/manifest.json";

/// Compare the ledger with the store, in both directions
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct ReconcileArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// An inventory report.
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "listing_only",
        help = "Read an S3 Inventory report instead of listing the store: manifest.json or CSV files, local or s3://bucket/key"
    )]
    inventory: Vec<String>,
    /// Do not read manifests
    #[arg(long)]
    listing_only: bool,
    #[command(flatten)]
    state: StateArgs,
    /// Maximum concurrent requests to the store
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
}

impl ReconcileArgs {
    const fn mode(&self) -> ReconcileMode {
        if !self.inventory.is_empty() {
            ReconcileMode::Inventory
        } else if self.listing_only {
            ReconcileMode::Listing
        } else {
            ReconcileMode::Manifests
        }
    }
}

impl Kind for ReconcileArgs {
    type Progress = SessionsProgress<ReconcileTally>;

    fn store(&self) -> &StoreArgs {
        &self.store
    }

    fn need(&self) -> Need {
        Need::Needed
    }

    fn question(&self, config: &Config) -> Result<Question, ConfigError> {
        let (mode, store) = (self.mode().as_str(), config.require_store()?.url());
        let inventory = self.inventory.join(" ");
        Ok(Question {
            kind: AuditKind::Reconcile,
            mode: Some(mode.to_owned()),
            share: None,
            text: format!("store={store} mode={mode} inventory={inventory}"),
            state: self.state.state.clone(),
            seed: None,
        })
    }

    async fn go(&self, desk: &AuditDesk, runner: &mut SessionsRunner<ReconcileTally>) -> anyhow::Result<AuditEnd> {
        let Some(ledger) = desk.ledger.as_deref() else {
            return Err(LedgerError::Schema(
                "there is no ledger to compare with: set ledger.url, or create one with `veriff-archive ledger rebuild`"
                    .to_owned(),
            )
            .into());
        };
        let reach = desk.reach(self.concurrency);
        let archive = desk.archive(&reach, runner).await?;
        let horizons = desk.config.integrations.iter().map(|(name, it)| (name.clone(), it.horizon)).collect();
        let (mode, runs) = (self.mode(), ReportedRuns::default());
        let mut reconcile = Reconcile { reach, ledger, archive, mode, horizons, runs };
        let mut passed_over = 0;
        if self.inventory.is_empty() {
            reconcile.run(runner).await?;
        } else {
            let url = desk.config.require_store()?.url();
            let mut inventory = inventory::read(&self.inventory, &url, &desk.config).await?;
            passed_over = inventory.passed_over;
            reconcile.run_on_report(&mut inventory, runner).await?;
        }
        let ReconcileTally { lines, untold, .. } = runner.progress.tally;
        let details = serde_json::json!({ "passed_over": passed_over, "lines": lines, "untold": untold });
        Ok(AuditEnd { archive_id: reconcile.archive, details, ..AuditEnd::default() })
    }
}
