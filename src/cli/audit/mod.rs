//! `audit`: read-only checks that end in findings.
//!
//! Findings go to standard output as they are found, one line of JSON each (or a paragraph for people), the summary is the
//! last line. An audit that was stopped resumes by `--state`; its summary is also kept in the ledger where that can be
//! written, for the report. All kinds take one path; what differs is a small [`Kind`].

mod chain;
mod coverage;
mod desk;
mod fixity;
mod inventory;
mod reconcile;
mod retention;
mod sessions;
mod undo;

use std::io::{self, Write as _};

use clap::Subcommand;

use self::desk::{AuditDesk, Need};
use self::undo::Undo;
use super::output::OutputFormat;
use super::{GlobalArgs, StoreArgs};
use crate::audit::runner::{AuditEnd, AuditError, AuditProgress, Question, Runner};
use crate::audit::{AuditSummary, Finding, Severity, Sink};
use crate::config::{Config, ConfigError};
use crate::error::Exit;
use crate::ledger::{self, AuditRow};

/// Check that the archive is complete, unchanged and locked as its policy requires; only reads
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    Coverage(coverage::CoverageArgs),
    Reconcile(reconcile::ReconcileArgs),
    Fixity(fixity::FixityArgs),
    Retention(retention::RetentionArgs),
    Chain(chain::ChainArgs),
}

pub(super) async fn run(command: &AuditCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        AuditCommand::Coverage(args) => Box::pin(conduct(args, global)).await,
        AuditCommand::Reconcile(args) => Box::pin(conduct(args, global)).await,
        AuditCommand::Fixity(args) => Box::pin(conduct(args, global)).await,
        AuditCommand::Retention(args) => Box::pin(conduct(args, global)).await,
        AuditCommand::Chain(args) => match args.read() {
            Some(asked) => Box::pin(conduct(&asked, global)).await,
            None => Ok(Exit::Usage),
        },
    }
}

/// What is an audit's own.
trait Kind {
    /// How far it is.
    type Progress: AuditProgress;

    /// Returns the store that is named.
    fn store(&self) -> &StoreArgs;

    /// Reads the configuration.
    ///
    /// # Errors
    /// As [`GlobalArgs::load_config`].
    fn config(&self, global: &GlobalArgs) -> Result<Config, ConfigError> {
        global.load_config(self.store().store.as_deref())
    }

    /// Returns what the ledger is to it.
    fn need(&self) -> Need {
        Need::Helpful
    }

    /// Says all that it is asked.
    ///
    /// # Errors
    /// Fatal: configuration.
    fn question(&self, config: &Config) -> Result<Question, ConfigError>;

    /// Goes through all that is left.
    ///
    /// # Errors
    /// As the store's, the ledger's and the runner's.
    async fn go(&self, desk: &AuditDesk, runner: &mut Runner<Self::Progress>) -> anyhow::Result<AuditEnd>;
}

/// Takes an audit from its arguments to its last line.
async fn conduct<K: Kind>(kind: &K, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let desk = AuditDesk::open(kind.config(global)?, kind.need()).await?;
    let (question, sink) = (kind.question(&desk.config)?, printer(global.format(), &desk.config));
    let mut runner = Runner::begin(question, sink, desk.clock.clone(), desk.stop.clone()).map_err(AuditError::from)?;
    let end = match kind.go(&desk, &mut runner).await {
        Ok(end) => end,
        Err(error) => {
            runner.save(false).map_err(AuditError::from)?;
            return Err(error);
        }
    };
    let (summary, exit) = runner.finish(end).map_err(AuditError::from)?;
    if let Some(ledger) = &desk.ledger {
        ledger.close().await;
    }
    note(&summary, &desk.config).await;
    let mut out = io::stdout().lock();
    match global.format() {
        OutputFormat::Json => {
            serde_json::to_writer(&mut out, &summary)?;
            out.write_all(b"\n")?;
        }
        OutputFormat::Text => write_summary(&mut out, &summary)?,
    }
    Ok(exit)
}

/// Returns what prints findings as they come.
fn printer(format: OutputFormat, config: &Config) -> Sink {
    let undo = Undo::of(config);
    Box::new(move |finding| {
        let finding = &undo.named(finding);
        let mut out = io::stdout().lock();
        match format {
            OutputFormat::Json => {
                serde_json::to_writer(&mut out, finding)?;
                out.write_all(b"\n")
            }
            OutputFormat::Text => write_text(&mut out, finding),
        }
    })
}

fn write_text(out: &mut impl io::Write, finding: &Finding) -> io::Result<()> {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warn => "warn ",
        Severity::Info => "info ",
    };
    let about = [
        finding.key.as_ref().map(ToString::to_string),
        finding.session_id.as_ref().filter(|_| finding.key.is_none()).map(|id| format!("session {id}")),
        finding.run_id.as_ref().filter(|_| finding.key.is_none()).map(|id| format!("run {id}")),
        finding.version_id.as_ref().map(|version| format!("version {version}")),
    ];
    let about: Vec<String> = about.into_iter().flatten().collect();
    writeln!(out, "{severity} {:<20} {}", finding.code, about.join(", "))?;
    if let Some(expected) = &finding.expected {
        writeln!(out, "      expected {expected}")?;
    }
    if let Some(found) = &finding.found {
        writeln!(out, "      found    {found}")?;
    }
    writeln!(out, "      repair   {}", finding.repair)
}

fn write_summary(out: &mut impl io::Write, summary: &AuditSummary) -> io::Result<()> {
    let kind = summary.audit.as_str();
    let share = summary.share.as_ref().map(|share| format!(", share {share}")).unwrap_or_default();
    let mode = summary.mode.as_ref().map(|mode| format!(" --mode {mode}")).unwrap_or_default();
    let ended = if summary.complete { "complete" } else { "stopped before the end" };
    writeln!(out, "audit {kind}{mode}{share}: {ended}")?;
    let checked: Vec<String> = summary.checked.iter().map(|(what, count)| format!("{count} {what}")).collect();
    writeln!(out, "  checked    {}", if checked.is_empty() { "nothing".to_owned() } else { checked.join(", ") })?;
    let counts = &summary.findings;
    writeln!(out, "  findings   {} errors, {} warnings, {} notes", counts.error, counts.warn, counts.info)?;
    for (code, count) in &summary.codes {
        writeln!(out, "    {code:<20} {count}")?;
    }
    writeln!(out, "  next       {}", summary.next)
}

/// Keeps the summary in the ledger. An auditor may have no right to write there, and then the printed line is all there is.
async fn note(summary: &AuditSummary, config: &Config) {
    let noted = async {
        if !ledger::exists(&config.ledger_url).await? {
            return Ok(());
        }
        let ledger = ledger::open(&config.ledger_url).await?;
        let row = AuditRow {
            audit_id: summary.audit_id.clone(),
            audit: summary.audit.as_str().to_owned(),
            finished_at: summary.finished_at,
            summary: serde_json::to_string(summary)?,
        };
        ledger.note_audit(&row).await?;
        ledger.close().await;
        anyhow::Ok(())
    };
    if let Err(error) = noted.await {
        tracing::warn!("the result is not recorded in the ledger, only printed: {error:#}");
    }
}
