//! The arguments that name a source of sessions; `run` and `plan` share them.

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
