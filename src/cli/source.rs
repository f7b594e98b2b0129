//! The arguments that name a source of sessions; `run` and `plan` share them.

use std::path::Path;
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::model::units::{format_duration, parse_duration};
use crate::source::file::Format;

/// Where the sessions come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Source", group = ArgGroup::new("source").required(true).args(["sessions", "queue", "backlog"]))]
pub struct SourceArgs {
    /// The file, `-`, or the object.
    #[arg(
        long,
        value_name = "PATH",
        help = "Session ids or requests: a file, - for standard input, or s3://bucket/key"
    )]
    pub sessions: Option<String>,
    /// The address of a queue.
    #[arg(long, value_name = "URL", help = "URL of an SQS queue: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME")]
    pub queue: Option<String>,
    /// The ledger's own queue, filled by `backlog add`
    #[arg(long)]
    pub backlog: bool,
    /// How long nothing may come.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_duration,
        conflicts_with = "sessions",
        help = "Exit after being idle for this long; 0s: never [default: queue.idle_exit for a queue; at once for the backlog]"
    )]
    pub idle_exit: Option<Duration>,
    /// How a file is read.
    #[command(flatten)]
    pub format: FormatArgs,
    /// Skip sessions that the ledger records as settled (final)
    #[arg(long)]
    pub skip_settled: bool,
    /// Integration for lines that name none
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

/// How a file of sessions is read.
#[derive(Debug, Clone, Default, Args)]
pub struct FormatArgs {
    /// Format of the input [default: detected]
    #[arg(long, value_name = "FORMAT", requires = "sessions")]
    pub format: Option<FormatArg>,
    /// Of a results file, take only the sessions that are not done
    #[arg(long, value_name = "WHICH", requires = "sessions")]
    pub only: Option<OnlyArg>,
}

impl SourceArgs {
    /// Writes these arguments as one would type them for another command.
    pub(super) fn as_typed(&self, command: &str, config: Option<&Path>, store: Option<&str>) -> String {
        let mut words = vec!["veriff-archive".to_owned(), command.to_owned()];
        let mut add = |flag: &str, value: Option<&str>| {
            words.extend(value.map(|value| format!("{flag} {}", quoted(value))));
        };
        add("--config", config.and_then(Path::to_str));
        add("--sessions", self.sessions.as_deref());
        add("--queue", self.queue.as_deref());
        add("--format", self.format.format.map(|format| Format::from(format).as_str()));
        add("--only", self.format.only.map(|OnlyArg::Unfinished| "unfinished"));
        add("--integration", self.integration.as_deref());
        add("--store", store);
        if self.backlog {
            words.push("--backlog".to_owned());
        }
        if let Some(idle_exit) = self.idle_exit {
            words.push(format!("--idle-exit {}", format_duration(idle_exit)));
        }
        if self.skip_settled {
            words.push("--skip-settled".to_owned());
        }
        words.join(" ")
    }
}

/// Quotes a word for a shell where it needs it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The form of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatArg {
    /// One id per line
    Plain,
    /// Comma-separated with a header
    Csv,
    /// One JSON object per line
    Ndjson,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Plain => Self::Plain,
            FormatArg::Csv => Self::Csv,
            FormatArg::Ndjson => Self::Ndjson,
        }
    }
}

/// Which lines are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnlyArg {
    /// Those whose last outcome is not archived, unchanged, accepted or expired
    Unfinished,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_as_one_would_type_them() {
        let args = SourceArgs {
            sessions: Some("my ids.csv".to_owned()),
            queue: None,
            backlog: false,
            idle_exit: None,
            format: FormatArgs { format: Some(FormatArg::Csv), only: None },
            skip_settled: true,
            integration: Some("eu".to_owned()),
        };
        assert_eq!(
            args.as_typed("run", Some(Path::new("my.toml")), Some("s3://bucket/it's")),
            r"veriff-archive run --config my.toml --sessions 'my ids.csv' --format csv --integration eu --store 's3://bucket/it'\''s' --skip-settled"
        );
    }
}
