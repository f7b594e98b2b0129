//! The command line: what may be typed, what is printed, and how the process ends.
//!
//! One small file a command: parse, call, print, choose the exit code. Data goes to standard output, logs and people's
//! messages to standard error. Errors of every layer meet here and become an exit code, and nowhere else.

mod audit;
mod backlog;
mod completions;
mod config;
mod connect;
mod doctor;
mod export;
mod keygen;
mod ledger;
mod man;
mod output;
mod plan;
mod progress;
mod prove;
mod recording;
mod report;
mod run;
mod schema;
mod signals;
mod source;
mod status;
mod summary;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

pub use output::OutputFormat;
pub use progress::ProgressArg;
pub use run::RunArgs;
pub use source::{FormatArg, FormatArgs, OnlyArg, SourceArgs};

use crate::audit::reconcile::inventory::InventoryError;
use crate::audit::runner::AuditError;
use crate::audit::state::StateError;
use crate::config::{Config, ConfigError, Environment, Sources};
use crate::error::{Code, Exit};
use crate::export::ExportError;
use crate::ledger::LedgerError;
use crate::report::{AuditFileError, PageError};
use crate::run::record::SigningError;
use crate::run::results::ResultsError;
use crate::session::identity::IdentityError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::telemetry::{self, ListenError, LogFormat, LogLevel};
use crate::veriff::{ClientError, VeriffError};

const AFTER_HELP: &str = "\
Without a configuration file: export VERIFF_BASE_URL, VERIFF_API_KEY, VERIFF_SHARED_SECRET, then
  veriff-archive run --sessions ids.txt --store file:///var/lib/veriff-archive/store

Exit codes:
    0  every session ended well, or there was nothing to do
    1  unexpected internal error
    2  wrong usage, or an input that does not exist
    3  finished; some sessions failed for good or are absent upstream
    4  an audit found something wrong with the archive
    5  finished or cut short; all that failed may work later
    6  a pending session is past its horizon or within the alarm
   10  stopped at one of its own limits; work is left
   77  credentials refused, clock off, or the store is not what the policy demands
   78  invalid configuration, or an older or newer ledger schema
  130  stopped by SIGINT; drained
  143  stopped by SIGTERM; drained

Repeating the identical command is always safe, and always the first repair to try.";

/// Archives Veriff verification sessions in bulk into your own write-once storage.
#[derive(Debug, Parser)]
#[command(name = "veriff-archive", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "VERIFF_ARCHIVE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Format of the log lines on standard error
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormatArg,
    /// Log level: off, error, warn, info, debug, trace, or filter directives for this program's modules
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info", value_parser = LogLevel::parse)]
    pub log_level: LogLevel,
    /// Format of the data on standard output [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// See [`LogFormat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormatArg {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// The location of the archive, for commands that accept one.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// The address, which overrides the configured one.
    #[arg(
        long,
        value_name = "URL",
        help = "Location of the archive: s3://bucket/prefix or file:///directory; overrides store.url"
    )]
    pub store: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArgs),
    Plan(plan::PlanArgs),
    Status(status::StatusArgs),
    #[command(subcommand)]
    Backlog(backlog::BacklogCommand),
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    Prove(prove::ProveArgs),
    Keygen(keygen::KeygenArgs),
    Report(report::ReportArgs),
    Export(export::ExportArgs),
    Doctor(doctor::DoctorArgs),
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

impl GlobalArgs {
    /// Returns the form of answers.
    #[must_use]
    pub fn format(&self) -> OutputFormat {
        self.output.unwrap_or_else(OutputFormat::of_stdout)
    }

    /// Loads the configuration and warns on standard error about anything doubtful in it.
    ///
    /// # Errors
    /// Fatal (configuration): everything that is wrong with it.
    pub fn load_config(&self, store_url: Option<&str>) -> Result<Config, ConfigError> {
        self.load_by(Config::load, store_url)
    }

    /// The same for a command that only reads the archive, and has no use for a policy of retention.
    ///
    /// # Errors
    /// As [`GlobalArgs::load_config`].
    pub fn load_config_to_read(&self, store_url: Option<&str>) -> Result<Config, ConfigError> {
        self.load_by(Config::load_to_read, store_url)
    }

    fn load_by(
        &self,
        load: impl FnOnce(Sources<'_>) -> Result<Config, ConfigError>,
        store_url: Option<&str>,
    ) -> Result<Config, ConfigError> {
        let environment = Environment::of_process();
        let config = load(Sources {
            // An orchestrator may set the variable to nothing.
            file: self.config.as_deref().filter(|path| !path.as_os_str().is_empty()),
            environment: &environment,
            store_url,
        })?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
}

/// Parses the command line of the process, runs the command and returns how the process ends.
#[must_use]
pub fn main() -> Exit {
    main_with(&std::env::args_os().collect::<Vec<_>>())
}

/// Runs the command of a command line, whose first word is the name of the program, and returns how the process ends.
#[must_use]
pub fn main_with(typed: &[OsString]) -> Exit {
    let cli = match Cli::try_parse_from(typed) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A reader that went away is no error.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success };
        }
    };
    let format = match cli.global.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    telemetry::init(format, &cli.global.log_level);
    let outcome = runtime(&cli.command).and_then(|runtime| {
        let outcome = runtime.block_on(dispatch(cli, typed));
        // Standard input is read on a thread of its own, which ends only with the input: nobody waits for it.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| {
        match format {
            LogFormat::Text => eprintln!("error: {error:#}"),
            LogFormat::Json => tracing::error!("{error:#}"),
        }
        exit_of(&error)
    })
}

/// Makes the runtime, with one thread for the work: a run waits for the network far more than it computes. Everything else
/// that a run does is on that thread too; commands that read the archive have a second one for what they compute. What that
/// costs and saves is in docs/decisions/0011-one-working-thread.md.
fn runtime(command: &Command) -> anyhow::Result<Runtime> {
    let mut builder = match command {
        Command::Run(_) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    Ok(builder.worker_threads(1).enable_all().build()?)
}

async fn dispatch(cli: Cli, typed: &[OsString]) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match cli.command {
        Command::Run(args) => {
            let config = global.load_config(args.store.store.as_deref())?;
            Box::pin(run::run(args, global, config, typed)).await
        }
        Command::Plan(args) => plan::run(&args, global).await,
        Command::Status(args) => status::run(&args, global).await,
        Command::Backlog(command) => backlog::run(&command, global).await,
        Command::Audit(command) => audit::run(&command, global).await,
        Command::Prove(args) => prove::run(&args, global).await,
        Command::Keygen(args) => keygen::run(&args, global),
        Command::Report(args) => report::run(&args, global).await,
        Command::Export(args) => export::run(&args, global).await,
        Command::Doctor(args) => doctor::run(&args, global).await,
        Command::Ledger(command) => ledger::run(&command, global).await,
        Command::Config(command) => config::run(&command, global),
        Command::Schema(args) => schema::run(&args, global),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    }
}

/// Returns how the process ends when a command fails as a whole.
fn exit_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(exit_of_cause).unwrap_or(Exit::Internal)
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<ConfigError>() {
        return Some(Exit::of_fatal(error.code()));
    }
    if let Some(error) = cause.downcast_ref::<AuditError>() {
        return Some(match error {
            // Another file than was meant.
            AuditError::State(StateError::Foreign { .. }) | AuditError::Inventory(InventoryError::Form { .. }) => {
                Exit::Usage
            }
            AuditError::Veriff(error) if error.code().is_retryable() => Exit::TryLater,
            error => Exit::of_fatal(error.code()),
        });
    }
    if let Some(error) = cause.downcast_ref::<ListenError>() {
        return Some(Exit::of_fatal(error.code()));
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(Exit::of_fatal(error.code()));
    }
    if let Some(error) = cause.downcast_ref::<LedgerError>() {
        return Some(Exit::of_fatal(error.code()));
    }
    if let Some(error) = cause.downcast_ref::<IdentityError>() {
        return Some(Exit::of_fatal(error.code()));
    }
    if let Some(error) = cause.downcast_ref::<ExportError>() {
        return Some(error.exit());
    }
    if cause.is::<SigningError>() {
        return Some(Exit::Config);
    }
    if let Some(error) = cause.downcast_ref::<AuditFileError>() {
        // A path that names nothing, or something else, is a slip of the hand.
        return Some(match error {
            AuditFileError::Unreadable { source, .. } if source.kind() != std::io::ErrorKind::NotFound => {
                Exit::of_fatal(error.code())
            }
            _ => Exit::Usage,
        });
    }
    if let Some(error) = cause.downcast_ref::<PageError>() {
        return Some(Exit::of_fatal(error.code()));
    }
    if cause.is::<ResultsError>() || cause.is::<report::WriteError>() {
        return Some(Exit::TryLater);
    }
    if cause.is::<ClientError>() {
        return Some(Exit::Config);
    }
    if let Some(SourceError::Open { source, .. }) = cause.downcast_ref::<SourceError>()
        && source.kind() == std::io::ErrorKind::NotFound
    {
        // A path that names nothing is a slip of the hand; trying again would not help.
        return Some(Exit::Usage);
    }
    if let Some(error) = cause.downcast_ref::<SourceError>() {
        return Some(Exit::of_fatal(error.code()));
    }
    // These fail one record each where there are more; here they stopped the whole.
    Some(match cause.downcast_ref::<VeriffError>()?.code() {
        Code::VeriffUnauthorized => Exit::Refused,
        code if code.is_retryable() => Exit::TryLater,
        _ => Exit::Failures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn causes_decide_the_exit_code_however_deep_they_lie() {
        let cause = anyhow::Error::from(StoreError::Denied { action: "list", reason: "AccessDenied".to_owned() });
        assert_eq!(exit_of(&cause.context("the look into the store")), Exit::Refused);
        assert_eq!(exit_of(&anyhow::anyhow!("something else")), Exit::Internal);
        let of_queue = |code| SourceError::Queue { action: "take messages", code, reason: "403".to_owned() };
        assert_eq!(exit_of(&of_queue(Code::QueueDenied).into()), Exit::Refused);
        assert_eq!(exit_of(&of_queue(Code::QueueUnavailable).into()), Exit::TryLater);
        assert_eq!(exit_of(&of_queue(Code::ConfigInvalid).into()), Exit::Config);
    }
}
