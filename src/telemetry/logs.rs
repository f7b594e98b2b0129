//! Logs: lines on standard error, for people or for machines.
//!
//! Other crates never speak below `warn`, whatever level is asked for: the AWS SDK and the HTTP client print signatures,
//! credentials and whole addresses at `debug` and `trace`, and none of these may ever appear in a log.

use std::fmt;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use crate::clock::{Clock as _, SystemClock};

/// What the targets of our own log lines begin with.
const OWN: &str = "veriff_archive";

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// Reads a level (`off`, `error`, `warn`, `info`, `debug`, `trace`) or filter directives such as
    /// `veriff_archive::session::body=debug`.
    ///
    /// # Errors
    /// Wrong usage: it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let directives = match text {
            "off" | "error" | "warn" => text.to_owned(),
            "info" | "debug" | "trace" => format!("warn,{OWN}={text}"),
            _ if text.contains('=') => text.to_owned(),
            _ => return Err("a level is off, error, warn, info, debug or trace".to_owned()),
        };
        EnvFilter::try_new(&directives).map(|_| Self(directives)).map_err(|error| error.to_string())
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self(format!("warn,{OWN}=info"))
    }
}

/// Starts writing log lines. A second call changes nothing.
pub fn init(format: LogFormat, level: &LogLevel) {
    let filter = EnvFilter::new(&level.0).and(filter_fn(is_safe));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_timer(Millis);
    let layer = match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            layer.with_ansi(ansi).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    // Only a test that starts two programs in one process gets an error here.
    let _ = Registry::default().with(layer.with_filter(filter)).try_init();
}

/// Returns whether a line may be written at all: ours, or a warning of another crate.
fn is_safe(metadata: &Metadata<'_>) -> bool {
    is_safe_at(metadata.target(), *metadata.level())
}

fn is_safe_at(target: &str, level: Level) -> bool {
    let own = target.strip_prefix(OWN).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    own || level <= Level::WARN
}

/// Times as in every document: UTC with milliseconds.
struct Millis;

impl FormatTime for Millis {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", SystemClock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_never_speak_below_warn() {
        for target in ["aws_smithy_runtime", "hyper_util::client", "reqwest", "veriff_archive_like"] {
            assert!(!is_safe_at(target, Level::DEBUG), "{target}");
            assert!(!is_safe_at(target, Level::INFO), "{target}");
            assert!(is_safe_at(target, Level::WARN), "{target}");
        }
        assert!(is_safe_at("veriff_archive::session::body", Level::TRACE));
        assert!(is_safe_at("veriff_archive", Level::TRACE));
    }

    #[test]
    fn a_level_is_a_word_or_a_directive() {
        assert!(LogLevel::parse("debug").is_ok());
        assert!(LogLevel::parse("veriff_archive::session::body=trace").is_ok());
        assert!(LogLevel::parse("loud").is_err());
        assert!(LogLevel::parse("veriff_archive=loud").is_err());
    }
}
