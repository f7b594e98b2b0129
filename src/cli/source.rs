//! The arguments that name a source of sessions; `run` and `plan` share them.

use std::path::Path;

use clap::Args;

use crate::source::file::Format;

/// Where the sessions come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// The file, `-`, or the object.
    #[arg(
        long,
        value_name = "PATH",
        help = "Session ids or records: a file, - for standard input, or s3://bucket/key"
    )]
    pub sessions: String,
    /// Form of the records [default: detected]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<FormatArg>,
    /// Take only the lines of a results file that are not done
    #[arg(long, value_name = "WHICH")]
    pub only: Option<OnlyArg>,
    /// Do not look again at sessions that the ledger knows as settled
    #[arg(long)]
    pub skip_settled: bool,
    /// Integration of records that name none
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

impl SourceArgs {
    /// Writes these arguments as one would type them for another command.
    pub(super) fn as_typed(&self, command: &str, config: Option<&Path>, store: Option<&str>) -> String {
        let mut words = vec!["veriff-archive".to_owned(), command.to_owned()];
        let mut add = |flag: &str, value: Option<&str>| {
            words.extend(value.map(|value| format!("{flag} {}", quoted(value))));
        };
        add("--config", config.and_then(Path::to_str));
        add("--sessions", Some(&self.sessions));
        add("--format", self.format.map(|format| Format::from(format).as_str()));
        add("--only", self.only.map(|OnlyArg::Unfinished| "unfinished"));
        add("--integration", self.integration.as_deref());
        add("--store", store);
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
    /// One id a line
    Plain,
    /// Comma-separated with a header
    Csv,
    /// One JSON object a line
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
            sessions: "my ids.csv".to_owned(),
            format: Some(FormatArg::Csv),
            only: None,
            skip_settled: true,
            integration: Some("eu".to_owned()),
        };
        assert_eq!(
            args.as_typed("run", Some(Path::new("my.toml")), Some("s3://bucket/it's")),
            r"veriff-archive run --config my.toml --sessions 'my ids.csv' --format csv --integration eu --store 's3://bucket/it'\''s' --skip-settled"
        );
    }
}
