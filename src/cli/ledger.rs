//! `ledger`: creates and upgrades the schema of the ledger.

use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;

use super::GlobalArgs;
use super::output::{Answer, print};
use crate::error::Exit;
use crate::ledger::{self, Migrated};

/// The value of `schema` in the answer.
const SCHEMA: &str = "veriff-archive/ledger-migrate/v1";

/// Look after the ledger
#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Create the ledger, or upgrade its schema to this version
    ///
    /// A file is also created and upgraded whenever it is opened; a PostgreSQL database only by this command. Run it before
    /// the workers of a new version start. Several at once wait for one another.
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
    /// The engine: `sqlite` or `postgres`.
    engine: &'static str,
    /// The number of its last migration before; null if there was no ledger.
    from: Option<i64>,
    /// The number of its last migration now.
    to: i64,
}

impl Answer for LedgerMigrate {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { engine, to, .. } = self;
        match self.from {
            None => writeln!(out, "the ledger is made ({engine}), with the schema of this version, {to}"),
            Some(from) if from == *to => {
                writeln!(out, "the ledger is there ({engine}), with the schema of this version, {to}")
            }
            Some(from) => writeln!(out, "the ledger is upgraded ({engine}), from schema {from} to {to}"),
        }
    }
}

pub(super) async fn run(command: &LedgerCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let LedgerCommand::Migrate = command;
    let config = global.load_config(None)?;
    let Migrated { engine, from, to } = ledger::migrate(&config.ledger_url).await?;
    let answer = LedgerMigrate { schema: SCHEMA, created: from.is_none(), engine, from, to };
    print(&answer, global.format())?;
    Ok(Exit::Success)
}
