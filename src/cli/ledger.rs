//! `ledger`: creates and upgrades the schema of the ledger, and makes its content again from the store.

use std::io::{self, Write};
use std::sync::Arc;

use clap::Subcommand;
use serde::Serialize;

use super::connect::open_store_to_read;
use super::output::{Answer, print};
use super::{GlobalArgs, StoreArgs, signals};
use crate::audit::Findings;
use crate::audit::reach::Reach;
use crate::clock::{Clock, SystemClock};
use crate::error::Exit;
use crate::ledger::{self, Migrated};
use crate::model::ArchiveId;
use crate::rebuild::{IN_FLIGHT, Rebuild, Rebuilt};
use crate::session::identity::Identity;
use crate::stop::Stop;
use crate::stop::Stopped;
use crate::store::StoreError;
use crate::store::settings::StoreSettings;

/// The value of `schema` in the answer.
const SCHEMA: &str = "veriff-archive/ledger-migrate/v1";

/// The value of `schema` in the answer of `rebuild`.
const REBUILD_SCHEMA: &str = "veriff-archive/ledger-rebuild/v1";

/// Create, upgrade or rebuild the ledger
#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Create the ledger, or upgrade its schema to this version
    ///
    /// A SQLite file is also created and upgraded whenever it is opened; a PostgreSQL database only by this command. Run it
    /// before the workers of a new version start. Several at once wait for one another.
    #[command(
        after_help = "Exit codes: 0 done, 5 the ledger does not answer, 78 the schema is newer than this program."
    )]
    Migrate,
    /// Rebuild the ledger from the store alone
    ///
    /// Reads the manifests of every session and the records of all runs. It fills an empty ledger, or adds what is missing to
    /// an existing one, and never removes anything. What only the ledger holds (the backlog, references, acceptances) cannot
    /// be rebuilt: docs/ledger.md, Rebuilding.
    #[command(after_help = REBUILD_HELP)]
    Rebuild(RebuildArgs),
}

const REBUILD_HELP: &str = "\
Exit codes: 0 done, 4 some documents cannot be read (the rest is done), 5 the store or the ledger does not answer, 77 \
the store refuses access or is another archive, 130 or 143 stopped by a signal: repeat it.";

/// From which store.
#[derive(Debug, clap::Args)]
pub(super) struct RebuildArgs {
    #[command(flatten)]
    store: StoreArgs,
}

/// What was made.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct LedgerRebuild {
    /// Always `veriff-archive/ledger-rebuild/v1`.
    schema: &'static str,
    /// The archive.
    archive_id: ArchiveId,
    /// False if it was stopped; repeat it.
    complete: bool,
    /// What was done.
    #[serde(flatten)]
    rebuilt: Rebuilt,
    /// Documents that could not be read; each is reported on standard error.
    problems: u64,
    /// What to do next, or `nothing`.
    next: &'static str,
}

impl Answer for LedgerRebuild {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Rebuilt { new, updated, unchanged, manifests, items, runs, runs_closed, expired } = self.rebuilt;
        writeln!(out, "{}", if self.complete { "the ledger is rebuilt" } else { "stopped before the end" })?;
        writeln!(out, "  sessions   {new} new, {updated} updated, {unchanged} unchanged")?;
        writeln!(out, "  manifests  {manifests}, with {items} items in the newest")?;
        writeln!(out, "  runs       {runs} new, {runs_closed} closed that were open in the ledger")?;
        if expired > 0 {
            writeln!(out, "  expired    {expired} sessions with something expired by plan")?;
        }
        writeln!(out, "  problems   {}", self.problems)?;
        writeln!(out, "  next       {}", self.next)
    }
}

/// What was done.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct LedgerMigrate {
    /// Always `veriff-archive/ledger-migrate/v1`.
    schema: &'static str,
    /// There was no ledger before.
    created: bool,
    /// The engine: `sqlite` or `postgres`.
    engine: &'static str,
    /// The number of its last migration before; null if there was no ledger.
    from: Option<i64>,
    /// The number of its last migration now.
    to: i64,
}

impl Answer for LedgerMigrate {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { engine, to, .. } = self;
        match self.from {
            None => writeln!(out, "the ledger was created ({engine}), with the schema of this version, {to}"),
            Some(from) if from == *to => {
                writeln!(out, "the ledger exists ({engine}), with the schema of this version, {to}")
            }
            Some(from) => writeln!(out, "the ledger was upgraded ({engine}), from schema {from} to {to}"),
        }
    }
}

pub(super) async fn run(command: &LedgerCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        LedgerCommand::Migrate => migrate(global).await,
        LedgerCommand::Rebuild(args) => Box::pin(rebuild(args, global)).await,
    }
}

async fn migrate(global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = global.load_config(None)?;
    let Migrated { engine, from, to } = ledger::migrate(&config.ledger_url).await?;
    let answer = LedgerMigrate { schema: SCHEMA, created: from.is_none(), engine, from, to };
    print(&answer, global.format())?;
    Ok(Exit::Success)
}

async fn rebuild(args: &RebuildArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = global.load_config(args.store.store.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let stop = Stop::default();
    signals::listen(stop.clone())?;
    let settings = config.require_store()?;
    let store = open_store_to_read(&config, &clock).await?;
    let ledger = ledger::open(&config.ledger_url).await?;
    let identity = Identity::find(&*store, Arc::clone(&ledger)).await?;
    let Some(archive) = identity.known().cloned() else {
        return Err(StoreError::Unfit(format!("{} has no archive.json; check store.url", settings.url())).into());
    };
    ledger.adopt_archive(&archive).await?;
    let horizons = config.integrations.iter().map(|(name, settings)| (name.clone(), settings.horizon)).collect();
    let is_bucket = matches!(settings, StoreSettings::S3(_));
    let task = Rebuild {
        reach: Reach::of(&*store, IN_FLIGHT, is_bucket),
        is_bucket,
        ledger: &*ledger,
        archive: archive.clone(),
        horizons,
        store_url: settings.url().to_string(),
        stop,
    };
    let mut problems = Findings::to(Box::new(|finding| {
        let key = finding.key.as_ref().map(tracing::field::display);
        tracing::error!(object.key = key, error.code = %finding.code, "cannot be used; {}", finding.repair);
        Ok(())
    }));
    let (rebuilt, stopped) = task.run(&mut problems).await?;
    ledger.close().await;
    let answer = LedgerRebuild {
        schema: REBUILD_SCHEMA,
        archive_id: archive,
        complete: stopped.is_none(),
        rebuilt,
        problems: problems.counts.error,
        next: if stopped.is_some() { "repeat this command" } else { "veriff-archive audit reconcile" },
    };
    print(&answer, global.format())?;
    let exit = if problems.counts.error > 0 { Exit::Findings } else { Exit::Success };
    Ok(match stopped {
        Some(Stopped::Terminated) => exit.min(Exit::Terminated),
        Some(_) => exit.min(Exit::Interrupted),
        None => exit,
    })
}
