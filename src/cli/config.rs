//! `config`: checks, shows and describes the configuration without connecting to anything.

use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;

use super::GlobalArgs;
use super::output::{Answer, print, print_with};
use crate::config::{ShownValue, config_schema};
use crate::error::Exit;

/// The value of `schema` in the answer of `config check`.
const CHECK_SCHEMA: &str = "veriff-archive/config-check/v1";

/// The value of `schema` in the answer of `config show`.
const SHOW_SCHEMA: &str = "veriff-archive/config-show/v1";

const CHECK_HELP: &str = "\
Connects to nothing. Environment variables that hold secrets may be missing here; this is reported as a warning.

Exit codes: 0 valid, 78 not valid.";

/// Check, show or describe the configuration
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Parse and check everything without connecting
    #[command(after_help = CHECK_HELP)]
    Check,
    /// Show the effective values and where each comes from; secrets are redacted
    Show,
    /// Print the JSON Schema of the configuration file
    Schema,
}

/// What `config check` found in a valid configuration.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct ConfigCheck {
    /// Always `veriff-archive/config-check/v1`.
    schema: &'static str,
    /// Always true: an invalid configuration is reported on standard error, with exit code 78.
    valid: bool,
    /// What is allowed but doubtful.
    warnings: Vec<String>,
}

impl Answer for ConfigCheck {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for warning in &self.warnings {
            writeln!(out, "warning: {warning}")?;
        }
        writeln!(out, "the configuration is valid")
    }
}

/// The values in force.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct ConfigShow {
    /// Always `veriff-archive/config-show/v1`.
    schema: &'static str,
    /// One entry a key.
    values: Vec<ShownValue>,
}

impl Answer for ConfigShow {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for ShownValue { key, value, origin } in &self.values {
            if value.is_null() {
                writeln!(out, "{key} is not set  # {origin}")?;
            } else {
                writeln!(out, "{key} = {value}  # {origin}")?;
            }
        }
        Ok(())
    }
}

pub(super) fn run(command: &ConfigCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Check => {
            let config = global.load_config(None)?;
            let missing = config.missing_credentials().into_iter().chain(config.missing_signing_key());
            let missing = missing.map(|problem| format!("{}: {}", problem.key, problem.text));
            let answer = ConfigCheck {
                schema: CHECK_SCHEMA,
                valid: true,
                warnings: config.warnings.iter().cloned().chain(missing).collect(),
            };
            print(&answer, global.format())?;
        }
        ConfigCommand::Show => {
            let answer = ConfigShow { schema: SHOW_SCHEMA, values: global.load_config(None)?.show().to_vec() };
            print(&answer, global.format())?;
        }
        ConfigCommand::Schema => print_with(|out| {
            serde_json::to_writer_pretty(&mut *out, &config_schema())?;
            out.write_all(b"\n")
        })?,
    }
    Ok(Exit::Success)
}
