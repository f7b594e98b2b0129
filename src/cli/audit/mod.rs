//! `audit`: read-only checks that end in findings.
//!
//! Findings go to standard output as they are found, one line of JSON each (or a paragraph for people), the summary is the
//! last line. An audit can be stopped and resumed by `--state`; its summary is also kept in the ledger where that can
//! be written, for the report.

mod chain;
mod coverage;
mod fixity;
mod reconcile;
mod retention;
mod sessions;
mod undo;

use std::io::{self, Write as _};

use clap::Subcommand;

use self::undo::Undo;
use super::GlobalArgs;
use super::output::OutputFormat;
use crate::audit::{AuditSummary, Finding, Severity, Sink};
use crate::config::Config;
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
        AuditCommand::Coverage(args) => Box::pin(coverage::run(args, global)).await,
        AuditCommand::Reconcile(args) => Box::pin(reconcile::run(args, global)).await,
        AuditCommand::Fixity(args) => Box::pin(fixity::run(args, global)).await,
        AuditCommand::Retention(args) => Box::pin(retention::run(args, global)).await,
        AuditCommand::Chain(args) => Box::pin(chain::run(args, global)).await,
    }
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

/// Prints how the audit ended and keeps it in the ledger, where there is one that can be written; says how the process ends.
async fn finish(summary: &AuditSummary, config: &Config, global: &GlobalArgs) -> anyhow::Result<Exit> {
    note(summary, config).await;
    let mut out = io::stdout().lock();
    match global.format() {
        OutputFormat::Json => {
            serde_json::to_writer(&mut out, summary)?;
            out.write_all(b"\n")?;
        }
        OutputFormat::Text => write_summary(&mut out, summary)?,
    }
    Ok(if summary.findings.error > 0 { Exit::Findings } else { Exit::Success })
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
