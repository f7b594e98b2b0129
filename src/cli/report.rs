//! `report`: what the archive holds, how it is kept and when that was last checked, for the compliance team.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::connect::{open_ledger_to_look, open_store_to_read};
use super::output::{Answer, OutputFormat, print};
use super::{GlobalArgs, StoreArgs};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Config;
use crate::error::Exit;
use crate::ledger::{self, Volume, VolumeQuery};
use crate::model::units::format_duration;
use crate::report::{self, Facts, Level, REPORT_AUDITS, REPORT_RUNS, Report};
use crate::store::{StoreError, StoreReport};

const AFTER_HELP: &str = "\
Reads the ledger and the results of audits, writes only the page, and does not create a ledger. Contains no session ids, \
media ids, references or names. With --output json it prints the document report/v1, which has the same numbers.

Exit codes: 0 whatever the report says, 2 a file given with --audits is not an audit's output, 5 the ledger cannot be read \
or the page cannot be written.

Examples:
  veriff-archive report --html report.html
  veriff-archive report --html report.html --check-store --audits fixity.ndjson --audits chain.ndjson
  veriff-archive report --output json";

/// Write the report for the compliance team
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Write the report to this file, as one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also read audit results from the JSON an audit printed, for auditors who cannot write to the ledger; may be repeated
    #[arg(long, value_name = "FILE")]
    audits: Vec<PathBuf>,
    /// Ask the store whether versioning and Object Lock are on
    #[arg(long)]
    check_store: bool,
}

/// Why the page is not where it was to be.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the page to {}", path.display())]
pub(super) struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// The report as it is printed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Printed<'a> {
    report: &'a Report,
    #[serde(skip)]
    page: Option<&'a Path>,
}

impl Answer for Printed<'_> {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Report { sessions, horizon, volume, fixity, attention, .. } = self.report;
        writeln!(out, "sessions   {}", sessions.total)?;
        if let Some(percent) = sessions.archived_percent {
            writeln!(out, "  archived completely {percent} %")?;
        }
        writeln!(out, "  still to be done {}, past the horizon {}", horizon.open, horizon.past)?;
        writeln!(out, "media      {} ({} bytes)", volume.items, volume.bytes)?;
        match fixity.read_percent {
            Some(percent) => writeln!(out, "fixity     at least {percent} % read again in the last twelve months")?,
            None => writeln!(out, "fixity     nothing read again in the last twelve months")?,
        }
        for item in attention {
            let level = match item.level {
                Level::Act => "act ",
                Level::Look => "look",
            };
            writeln!(out, "{level}       {}", item.text)?;
            if let Some(command) = &item.command {
                writeln!(out, "           {command}")?;
            }
        }
        match self.page {
            Some(path) => writeln!(out, "the page is in {}", path.display()),
            None => writeln!(out, "no page was written; --html FILE writes it"),
        }
    }
}

pub(super) async fn run(args: &ReportArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = global.load_config(args.store.store.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let now = clock.now();
    let mut given_audits = Vec::new();
    for path in &args.audits {
        given_audits.extend(report::read_summaries(path)?);
    }
    let look = if args.check_store { Some(look_at_store(&config, &clock).await?) } else { None };
    let (ledger_exists, volume) = read_ledger(&config, now).await?;
    let report = Report::of(Facts {
        now,
        ledger_exists,
        volume,
        policy: &config.retention,
        store: config.store.as_ref().map(crate::store::settings::StoreSettings::url),
        look,
        horizon_alarm: format_duration(config.limits.horizon_alarm),
        given_audits,
    });
    if let Some(path) = &args.html {
        write_beside(path, &report::page(&report)?)?;
    }
    let format = global.format();
    print(&Printed { report: &report, page: args.html.as_deref() }, format)?;
    if let (Some(path), OutputFormat::Json) = (&args.html, format) {
        tracing::info!("the page is in {}", path.display());
    }
    Ok(Exit::Success)
}

/// Sums up the ledger, if there is one.
async fn read_ledger(config: &Config, now: Timestamp) -> anyhow::Result<(bool, Volume)> {
    if !ledger::exists(&config.ledger_url).await? {
        return Ok((false, Volume::default()));
    }
    let ledger = open_ledger_to_look(&config.ledger_url).await?;
    let query =
        VolumeQuery { now, horizon_alarm: config.limits.horizon_alarm, runs: REPORT_RUNS, audits: REPORT_AUDITS };
    let volume = ledger.volume(&query).await;
    ledger.close().await;
    Ok((true, volume?))
}

/// Asks the store what it can do. That it cannot be asked is a part of the report.
async fn look_at_store(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Result<StoreReport, StoreError>> {
    let look = match open_store_to_read(config, clock).await {
        Ok(store) => store.check().await,
        Err(error) => Err(error.downcast::<StoreError>()?),
    };
    if let Err(error) = &look {
        tracing::warn!("the store could not be inspected, and the report says so: {error}");
    }
    Ok(look)
}

/// Writes a file beside where it is to be and moves it there, so that what is there is always whole.
fn write_beside(path: &Path, text: &str) -> Result<(), WriteError> {
    let written = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Readable as any new file is: a draft would be its owner's alone.
        let mut draft = tempfile::Builder::new()
            .prefix(".report-")
            .suffix(".tmp")
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        draft.write_all(text.as_bytes())?;
        draft.as_file().sync_all()?;
        draft.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    written().map_err(|source| WriteError { path: path.to_owned(), source })
}
