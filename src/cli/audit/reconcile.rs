//! `audit reconcile`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tokio::io::AsyncWriteExt as _;

use super::sessions::{Desk, GoingOnArgs, Need};
use crate::audit::AuditKind;
use crate::audit::drive::{AuditError, Drive, End, Mark, Question, SESSIONS_IN_FLIGHT};
use crate::audit::reach::Reach;
use crate::audit::reconcile::inventory::{Inventory, InventoryError, Sorter};
use crate::audit::reconcile::merge::{Merge, StoreListing};
use crate::audit::reconcile::{
    ListedRuns, Other, Reconcile, ReconcileMode, ReconcileTally, ReportedRuns, RunLines, elsewhere,
};
use crate::audit::walk::Walk;
use crate::audit::{FindingCode, Findings, Severity};
use crate::cli::connect::list_settings;
use crate::cli::{GlobalArgs, StoreArgs};
use crate::config::Config;
use crate::error::Exit;
use crate::ledger::Survey;
use crate::stop::Stopped;
use crate::store::s3::S3Store;
use crate::store::settings::StoreUrl;
use crate::store::versions::KeyVersions;

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
    going_on: GoingOnArgs,
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

    fn question(&self, store: &StoreUrl) -> Question {
        let mode = self.mode().as_str();
        let inventory = self.inventory.join(" ");
        Question {
            kind: AuditKind::Reconcile,
            mode: Some(mode.to_owned()),
            text: format!("store={store} mode={mode} inventory={inventory}"),
            state: self.going_on.state.clone(),
            seed: None,
        }
    }
}

pub(super) async fn run(args: &ReconcileArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let desk = Desk::open(global, &args.store, Need::Needed).await?;
    let Some(ledger) = desk.ledger.clone() else {
        return Err(crate::ledger::LedgerError::Schema(
            "there is no ledger to compare with: set ledger.url, or create one with `veriff-archive ledger rebuild`"
                .to_owned(),
        )
        .into());
    };
    let url = desk.config.require_store()?.url();
    let (mut drive, mut findings) = desk.begin::<ReconcileTally>(args.question(&url), global)?;
    let from = drive.progress.mark.clone();
    let reach = desk.reach(args.concurrency);
    let archive = desk.archive(&reach, drive.is_gone_on_with, &mut findings).await?;
    let horizons = desk.config.integrations.iter().map(|(name, it)| (name.clone(), it.horizon)).collect();
    let mut passed_over = 0;
    let reported = match args.mode() {
        ReconcileMode::Manifests if !from.past_sessions => {
            lines_of_runs(&desk, &reach, &*ledger, from.after.is_none(), &mut findings).await?
        }
        _ => Ok((None, ReportedRuns::default())),
    };
    let (stopped, archive) = match reported {
        Err(stopped) => (Some(stopped), archive),
        Ok((lines, runs)) => {
            let reconcile = Reconcile { reach, ledger: &*ledger, archive, mode: args.mode(), horizons, runs };
            let stopped = if args.inventory.is_empty() {
                store_and_ledger(&desk, &reconcile, lines, &mut drive, &from, &mut findings).await?
            } else {
                let mut inventory = read_inventory(&args.inventory, &url, &desk.config).await?;
                passed_over = inventory.passed_over;
                report_and_ledger(&mut inventory, &reconcile, &mut drive, &from, &mut findings).await?
            };
            (stopped, reconcile.archive)
        }
    };
    let ReconcileTally { lines, untold, .. } = drive.progress.tally;
    let details = serde_json::json!({ "passed_over": passed_over, "lines": lines, "untold": untold });
    let is_at_end = stopped.is_none();
    let end = End { is_complete: is_at_end, is_at_end, share: None, archive_id: archive, details };
    let summary = drive.finish(end, &findings, &*desk.clock).map_err(AuditError::from)?;
    desk.finish(&summary, stopped, global).await
}

/// Reads what run records say, unless stopped before all of it is read. What is wrong with them is reported when the audit
/// begins, not when it is resumed.
async fn lines_of_runs(
    desk: &Desk,
    reach: &Reach<'_>,
    ledger: &dyn Survey,
    is_begun: bool,
    findings: &mut Findings,
) -> Result<Result<(Option<RunLines>, ReportedRuns), Stopped>, AuditError> {
    let (lines, runs, found) = tokio::select! {
        biased;
        stopped = desk.stop.requested() => return Ok(Err(stopped)),
        read = RunLines::read(reach, ledger) => read?,
    };
    for finding in found.iter().filter(|_| is_begun) {
        findings.add(finding)?;
    }
    tracing::info!("read {} run lines", lines.count);
    Ok(Ok((Some(lines), runs)))
}

/// The store as it lists itself, then what belongs to no session, then the runs of the ledger.
async fn store_and_ledger(
    desk: &Desk,
    reconcile: &Reconcile<'_>,
    mut lines: Option<RunLines>,
    drive: &mut Drive<ReconcileTally>,
    from: &Mark,
    findings: &mut Findings,
) -> Result<Option<Stopped>, AuditError> {
    if !from.past_sessions {
        let after = from.after.as_deref();
        let merge = Merge::of(StoreListing::Walk(Walk::of(&*desk.store, after)), reconcile.ledger, after);
        let steps = merge.with(lines.as_mut()).steps();
        if let Some(stopped) = drive.run(steps, SESSIONS_IN_FLIGHT, |pair| reconcile.check(pair), findings).await? {
            return Ok(Some(stopped));
        }
    }
    let steps = elsewhere(&*desk.store, from);
    if let Some(stopped) = drive.run(steps, SESSIONS_IN_FLIGHT, |other| reconcile.check_other(other), findings).await? {
        return Ok(Some(stopped));
    }
    let mark = drive.progress.mark.clone();
    let steps = Reconcile::runs(reconcile.ledger, &mark);
    drive.run(steps, SESSIONS_IN_FLIGHT, |run| reconcile.check_run(run), findings).await
}

/// The same from a report, in which keys before and behind those of sessions come in their place.
async fn report_and_ledger(
    inventory: &mut Inventory,
    reconcile: &Reconcile<'_>,
    drive: &mut Drive<ReconcileTally>,
    from: &Mark,
    findings: &mut Findings,
) -> Result<Option<Stopped>, AuditError> {
    let (mut has_archive, mut runs) = (false, ListedRuns::default());
    while let Some(listed) = inventory.next_other()? {
        has_archive |= listed.key.as_str() == "archive.json";
        others(listed, reconcile, drive, &mut runs, findings).await?;
    }
    if !has_archive && !drive.is_gone_on_with {
        let repair = "use a report of the bucket of store.url that is newer than the archive; else restore \
                      archive.json";
        let finding = crate::audit::Finding::of(Severity::Error, FindingCode::ArchiveInvalid, repair);
        findings.add(&finding.differs("archive.json in the report", "nothing"))?;
    }
    if let Some(after) = &from.after {
        let behind = format!("{after}/");
        inventory.skip_sessions(&behind)?;
    }
    let steps = Merge::of(StoreListing::Inventory(inventory), reconcile.ledger, from.after.as_deref()).steps();
    if let Some(stopped) = drive.run(steps, SESSIONS_IN_FLIGHT, |pair| reconcile.check(pair), findings).await? {
        return Ok(Some(stopped));
    }
    while let Some(listed) = inventory.next_other()? {
        others(listed, reconcile, drive, &mut runs, findings).await?;
    }
    let mark = Mark { past_sessions: true, ..drive.progress.mark.clone() };
    let steps = Reconcile::runs(reconcile.ledger, &mark);
    drive.run(steps, SESSIONS_IN_FLIGHT, async |run| Ok(runs.check(&run)), findings).await
}

async fn others(
    listed: KeyVersions,
    reconcile: &Reconcile<'_>,
    drive: &mut Drive<ReconcileTally>,
    runs: &mut ListedRuns,
    findings: &mut Findings,
) -> Result<(), AuditError> {
    let other = Other(listed);
    runs.note(&other);
    let mark = drive.progress.mark.clone();
    let part = reconcile.check_other(other).await?;
    drive.take(Mark { past_sessions: true, ..mark.clone() }, Some(part), findings)?;
    drive.progress.mark = mark;
    Ok(())
}

/// Reads and sorts a report.
async fn read_inventory(paths: &[String], url: &StoreUrl, config: &Config) -> anyhow::Result<Inventory> {
    let (bucket, prefix) = match url {
        StoreUrl::S3 { bucket, prefix } => (bucket.as_str(), prefix.as_str()),
        StoreUrl::Dir(_) => ("", ""),
    };
    let mut sorter = Sorter::of(bucket, prefix);
    let folder = tempfile::tempdir()?;
    for path in paths {
        let local = fetched(path, folder.path(), config).await?;
        if Path::new(path).extension().is_none_or(|extension| extension != "json") {
            sorter = take_file(sorter, local, path.clone()).await?;
            continue;
        }
        let bytes = tokio::fs::read(&local).await?;
        let manifest = sorter.take_manifest(&bytes).map_err(AuditError::from)?;
        for file in manifest.files {
            let beside = Path::new(path).with_file_name(Path::new(&file.key).file_name().unwrap_or_default());
            let destination = manifest.destination_bucket.rsplit(':').next().unwrap_or_default();
            let place = if path.starts_with("s3://") {
                format!("s3://{destination}/{}", file.key)
            } else {
                beside.display().to_string()
            };
            let local = fetched(&place, folder.path(), config).await?;
            sorter = take_file(sorter, local, place).await?;
        }
    }
    Ok(tokio::task::spawn_blocking(move || sorter.finish()).await?.map_err(AuditError::from)?)
}

/// Parses and sorts a file beside the work of the runtime.
async fn take_file(mut sorter: Sorter, local: PathBuf, name: String) -> anyhow::Result<Sorter> {
    let taken = tokio::task::spawn_blocking(move || sorter.take_file(&local, &name).map(|()| sorter));
    Ok(taken.await?.map_err(AuditError::from)?)
}

/// Returns where a file is on this machine; an object is downloaded first.
async fn fetched(place: &str, folder: &Path, config: &Config) -> anyhow::Result<PathBuf> {
    if !place.starts_with("s3://") {
        return Ok(PathBuf::from(place));
    }
    let clock: std::sync::Arc<dyn crate::clock::Clock> = std::sync::Arc::new(crate::clock::SystemClock);
    let body = S3Store::open_source(place, &list_settings(config), clock).await?;
    let mut body = body.ok_or_else(|| {
        AuditError::from(InventoryError::Form { place: place.to_owned(), reason: "there is no such object".to_owned() })
    })?;
    let (file, path) = tempfile::NamedTempFile::new_in(folder)?.keep()?;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(chunk) = body.chunk().await? {
        file.write_all(&chunk).await.context("the inventory report cannot be stored")?;
    }
    file.flush().await?;
    Ok(path)
}
