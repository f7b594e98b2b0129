//! Output: one answer, printed for people or for machines.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

/// The form of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people
    Text,
    /// One JSON document
    Json,
}

impl OutputFormat {
    /// Returns the form that suits where standard output goes.
    #[must_use]
    pub fn of_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// An answer of a command, which prints in both forms.
pub(super) trait Answer: Serialize {
    /// Writes it for people.
    ///
    /// # Errors
    /// As the writer.
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Prints an answer to standard output.
///
/// # Errors
/// Retryable: standard output cannot be written. A reader that went away is no error.
pub(super) fn print(answer: &impl Answer, format: OutputFormat) -> anyhow::Result<()> {
    print_with(|out| match format {
        OutputFormat::Text => answer.write_text(out),
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, answer)?;
            out.write_all(b"\n")
        }
    })
}

/// Prints what `write` writes to standard output.
///
/// # Errors
/// As [`print()`].
pub(super) fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
