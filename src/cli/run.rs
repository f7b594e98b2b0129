//! `run`: archives the sessions of one source and exits.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::source::SourceArgs;
use super::{GlobalArgs, StoreArgs};
use crate::config::{Config, parse_duration, parse_size};
use crate::error::Exit;

const AFTER_HELP: &str = "\
Exit codes:
    0  every session ended well, or there was nothing to do
    3  finished; some sessions failed for good or are absent upstream
    5  finished; all that failed may work later
    6  a pending session is past its horizon or within the alarm
   10  stopped at one of its own limits; the next run goes on
   77  credentials refused, clock off, or the bucket is not what the policy demands
   78  invalid configuration
  130, 143  told to stop; drained

Examples:
  veriff-archive run --sessions ids.txt --store file:///var/lib/veriff-archive/store
  veriff-archive run --sessions s3://exports/sessions.csv --store s3://archive/veriff --max-duration 4h
  veriff-archive run --sessions results.ndjson --only unfinished --results results.ndjson

Repeating the identical command is always safe: what is archived is recognised and not fetched again.";

/// Archive the sessions of one source and exit
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub struct RunArgs {
    /// Where the sessions come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where they go.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Write one line of NDJSON a session to this file; appended to and continued
    #[arg(long, value_name = "PATH")]
    pub results: Option<PathBuf>,
    /// Go on when the first sessions of an integration are all absent upstream
    #[arg(long)]
    pub expect_absent: bool,
    /// Check everything and say what would be done, writing nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Stop after this many sessions
    #[arg(long, value_name = "N", help_heading = "Limits", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_sessions: Option<u64>,
    /// Stop after this long, such as 4h
    #[arg(long, value_name = "DURATION", help_heading = "Limits", value_parser = parse_duration)]
    pub max_duration: Option<Duration>,
    /// Stop after this many bytes of media, such as 500GiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits", value_parser = parse_size)]
    pub max_bytes: Option<u64>,
    /// Stop after this many failed sessions
    #[arg(long, value_name = "N", help_heading = "Limits", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_failures: Option<u64>,
    /// Exit code when stopped at one of these limits; 0 for orchestrators that know only success
    #[arg(long, value_name = "CODE", default_value_t = Exit::Limit.code(), help_heading = "Limits")]
    pub limit_exit_code: u8,
    /// How long sessions in flight may take to finish after being told to stop
    #[arg(long, value_name = "DURATION", default_value = "25s", help_heading = "Limits", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// How progress is shown on standard error
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressArg,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressArg {
    /// A bar on a terminal, else log lines
    Auto,
    /// A bar
    Bar,
    /// One JSON line a minute
    Log,
    /// Not at all
    None,
}

/// Runs the command.
///
/// # Errors
/// Whatever stops the run as a whole.
#[expect(clippy::unused_async, reason = "the body awaits the worker")]
pub(super) async fn run(args: RunArgs, global: &GlobalArgs, config: Config) -> anyhow::Result<Exit> {
    let _ = (args, global, config);
    anyhow::bail!("this command is being built")
}
