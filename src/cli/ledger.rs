//! `ledger`: creates and upgrades the schema of the ledger.

use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;

use super::GlobalArgs;
use super::output::{Answer, print};
use crate::error::Exit;
use crate::ledger;

/// The value of `schema` in the answer.
const SCHEMA: &str = "veriff-archive/ledger-migrate/v1";

/// Look after the ledger
#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Create the ledger, or upgrade its schema to this version
    #[command(after_help = "Exit codes: 0 done, 5 out of reach, 78 newer than this program.")]
    Migrate,
}

/// What was done.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct LedgerMigrate {
    /// Always `veriff-archive/ledger-migrate/v1`.
    schema: &'static str,
    /// There was no ledger before.
    created: bool,
}

impl Answer for LedgerMigrate {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let before = if self.created { "made" } else { "there" };
        writeln!(out, "the ledger is {before}, with the schema of this version")
    }
}

pub(super) async fn run(command: &LedgerCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let LedgerCommand::Migrate = command;
    let config = global.load_config(None)?;
    let existed = ledger::exists(&config.ledger_url).await?;
    // Opening migrates where that is safe unasked, which holds for every engine there is.
    ledger::open(&config.ledger_url).await?;
    let answer = LedgerMigrate { schema: SCHEMA, created: !existed };
    print(&answer, global.format())?;
    Ok(Exit::Success)
}
