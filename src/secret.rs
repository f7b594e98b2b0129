//! Secrets: where one is kept, and reading it again.
//!
//! The environment is read once, by the configuration; a file or a command is read again when credentials are refused,
//! because a rotated secret shows up there without a restart. Values live in a type that prints as `[REDACTED]`.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// How long a command may take to print a secret.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a secret is kept.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// The value itself, as the environment gave it.
    Value(SecretString),
    /// A file that holds nothing else; white space around it is cut.
    File(PathBuf),
    /// A program and its arguments; it prints the secret.
    Command(Vec<String>),
    /// Nowhere: this variable should hold it and is not set. Commands that ask Veriff refuse to start with one.
    Missing(String),
}

/// Why a secret could not be read; the text never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The command cannot be run, fails or takes too long.
    #[error("the secret command {program} {reason}")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What went wrong.
        reason: String,
    },
    /// The variable that should hold it is not set.
    #[error("the environment variable {0} is not set")]
    Missing(String),
    /// There is nothing in it.
    #[error("the secret is empty")]
    Empty,
}

impl SecretSource {
    /// Returns whether reading it again may give another value.
    #[must_use]
    pub const fn may_change(&self) -> bool {
        matches!(self, Self::File(_) | Self::Command(_))
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// Fatal (configuration): it cannot be read or is empty.
    pub async fn load(&self) -> Result<SecretString, SecretError> {
        let text = match self {
            Self::Value(secret) => return Ok(secret.clone()),
            Self::File(path) => tokio::fs::read_to_string(path)
                .await
                .map_err(|source| SecretError::File { path: path.clone(), source })?,
            Self::Command(command) => run(command).await?,
            Self::Missing(variable) => return Err(SecretError::Missing(variable.clone())),
        };
        match text.trim() {
            "" => Err(SecretError::Empty),
            secret => Ok(SecretString::from(secret)),
        }
    }
}

async fn run(command: &[String]) -> Result<String, SecretError> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| SecretError::Command { program: String::new(), reason: "is empty".into() })?;
    let failed = |reason: String| SecretError::Command { program: program.clone(), reason };
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(COMMAND_TIMEOUT, output)
        .await
        .map_err(|_| failed(format!("took longer than {} s", COMMAND_TIMEOUT.as_secs())))?
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("failed: {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| failed("printed something that is not UTF-8".into()))
}
