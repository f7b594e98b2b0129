//! The summary of a run, put together and printed.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, Write};

use indicatif::BinaryBytes;

use super::output::Answer;
use crate::clock::Timestamp;
use crate::error::Exit;
use crate::metrics::Meter;
use crate::model::RunId;
use crate::run::Worked;
use crate::run::summary::{HorizonSummary, RequestSummary, SUMMARY_SCHEMA, SourceSummary, Summary};
use crate::stop::Stopped;

/// Which run is summed up.
pub(super) struct RunFacts {
    pub(super) run_id: RunId,
    pub(super) dry_run: bool,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
}

/// Sums up a run.
pub(super) fn summarise(
    run: RunFacts,
    worked: &Worked,
    meter: &Meter,
    horizon: HorizonSummary,
    exit: Exit,
    next: String,
) -> Summary {
    let RunFacts { run_id, dry_run, started_at, finished_at } = run;
    let stopped = worked.stopped_integrations.iter();
    let source = &worked.source;
    Summary {
        schema: SUMMARY_SCHEMA,
        run_id,
        dry_run,
        started_at,
        finished_at,
        exit_code: exit.code(),
        stopped: worked.stopped.map(Stopped::describe),
        source: SourceSummary { kind: source.kind.to_owned(), records: worked.records, sha256: source.sha256 },
        counts: worked.tally.counts,
        repeated: worked.tally.repeated,
        codes: worked.tally.code_summaries(),
        warnings: worked.tally.warnings.clone(),
        stopped_integrations: stopped.map(|(name, reason)| (name.clone(), reason.as_str().to_owned())).collect(),
        requests: RequestSummary {
            sent: meter.requests.get(),
            throttled: meter.throttled.get(),
            retries: meter.retries.get(),
            downloads: meter.downloads.get(),
            bytes_received: meter.bytes_received.get(),
        },
        horizon,
        run_record: None,
        next,
    }
}

/// Says what to type next: the same again where that helps, else what shows more.
pub(super) fn next(exit: Exit, typed: &[OsString]) -> String {
    let typed: Vec<_> = typed.iter().map(|word| word.to_string_lossy()).collect();
    let config = typed.iter().position(|word| word == "--config").and_then(|at| typed.get(at + 1));
    let other = |command: &str| match config {
        Some(config) => format!("veriff-archive --config {} {command}", quoted(config)),
        None => format!("veriff-archive {command}"),
    };
    match exit {
        Exit::Success if typed.iter().any(|word| word == "--dry-run") => again(&typed, "--dry-run"),
        Exit::Success => "nothing".to_owned(),
        Exit::Refused | Exit::Config => other("doctor"),
        Exit::Failures => other("status"),
        _ => again(&typed, ""),
    }
}

/// The same command again, but for one word.
fn again(typed: &[Cow<'_, str>], but: &str) -> String {
    typed.iter().filter(|word| *word != but).map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

impl Answer for Summary {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let counts = &self.counts;
        let dry = if self.dry_run { " (dry run: nothing was written)" } else { "" };
        writeln!(out, "run {}{dry}", self.run_id)?;
        writeln!(
            out,
            "  {} requests: {} archived, {} unchanged, {} absent, {} failed, {} pending, {} repeated",
            self.source.records,
            counts.archived,
            counts.unchanged,
            counts.absent,
            counts.failed,
            counts.pending,
            self.repeated
        )?;
        writeln!(out, "  {} new media items, {}", counts.media, BinaryBytes(counts.bytes))?;
        writeln!(
            out,
            "  {} requests to Veriff, {} answered 429, {} tried again, {} received",
            self.requests.sent,
            self.requests.throttled,
            self.requests.retries,
            BinaryBytes(self.requests.bytes_received)
        )?;
        for code in &self.codes {
            let again = if code.retryable { "may work later" } else { "see docs/runbook.md" };
            writeln!(out, "  {} × {} ({again})", code.sessions, code.code)?;
        }
        for (code, number) in &self.warnings {
            writeln!(out, "  warning: {number} × {code}")?;
        }
        for (name, reason) in &self.stopped_integrations {
            writeln!(out, "  integration {name} was stopped: {reason}")?;
        }
        if let Some(days) = self.horizon.nearest_days_left {
            writeln!(
                out,
                "  nearest deadline in {days} days; {} within the alarm, {} past, {} unknown",
                self.horizon.within_alarm, self.horizon.past, self.horizon.unknown
            )?;
        }
        if let Some(stopped) = &self.stopped {
            writeln!(out, "  stopped early: {stopped}")?;
        }
        if let Some(record) = &self.run_record {
            let signed = if record.signed { "signed" } else { "unsigned" };
            writeln!(
                out,
                "  run record {}, {signed}, entry {} of chain {}",
                record.key, record.chain_number, record.group
            )?;
        }
        writeln!(out, "  exit code {}", self.exit_code)?;
        writeln!(out, "next: {}", self.next)
    }
}
