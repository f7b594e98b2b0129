//! `schema`: the JSON Schemas of every document this program writes or answers with.

use std::io::{self, Write};

use clap::Args;
use schemars::{Schema, schema_for};
use serde::Serialize;

use super::GlobalArgs;
use super::backlog::{BacklogAccept, BacklogAdd, BacklogList, BacklogRetry};
use super::config::{ConfigCheck, ConfigShow};
use super::keygen::Keygen;
use super::ledger::{LedgerMigrate, LedgerRebuild};
use super::output::{Answer, print, print_with};
use super::prove::ProveCheck;
use super::status::Status;
use crate::audit::{AuditSummary, Finding};
use crate::config::config_schema;
use crate::doctor::Doctor;
use crate::error::Exit;
use crate::export::Exported;
use crate::model::event::Event;
use crate::model::manifest::{ArchiveDocument, Manifest};
use crate::model::run::{ChainEntry, RunLine, RunRecord};
use crate::model::sidecar::Sidecar;
use crate::plan::Plan;
use crate::prove::Proof;
use crate::report::Report;
use crate::run::results::ResultLine;
use crate::run::summary::Summary;

/// A published schema: its name, what it describes, the schema itself.
type Published = (&'static str, &'static str, fn() -> Schema);

/// Every published schema. New documents are added here.
const SCHEMAS: &[Published] = &[
    ("archive", "archive.json, which names the archive", || schema_for!(ArchiveDocument)),
    ("sidecar", "the document next to each media object", || schema_for!(Sidecar)),
    ("manifest", "the document that lists the objects of a session", || schema_for!(Manifest)),
    ("run", "run.json, the record of a run", || schema_for!(RunRecord)),
    ("run-line", "a line in the chunks of a run record", || schema_for!(RunLine)),
    ("chain", "an entry in a chain of run records", || schema_for!(ChainEntry)),
    ("event", "something a person did with the archive, such as an export", || schema_for!(Event)),
    ("finding", "a finding, one line of an audit's output", || schema_for!(Finding)),
    ("audit", "the summary, the last line of an audit's output", || schema_for!(AuditSummary)),
    ("keygen", "the output of keygen", || schema_for!(Keygen)),
    ("prove", "the output of prove, a proof", || schema_for!(Proof)),
    ("prove-check", "the output of prove --check", || schema_for!(ProveCheck)),
    ("report", "the output of report", || schema_for!(Report)),
    ("result", "a line of --results", || schema_for!(ResultLine)),
    ("summary", "the output of run", || schema_for!(Summary)),
    ("plan", "the output of plan", || schema_for!(Plan)),
    ("status", "the output of status", || schema_for!(Status)),
    ("backlog-add", "the output of backlog add", || schema_for!(BacklogAdd)),
    ("backlog-list", "the output of backlog list", || schema_for!(BacklogList)),
    ("backlog-retry", "the output of backlog retry", || schema_for!(BacklogRetry)),
    ("backlog-accept", "the output of backlog accept", || schema_for!(BacklogAccept)),
    ("doctor", "the output of doctor", || schema_for!(Doctor)),
    ("ledger-migrate", "the output of ledger migrate", || schema_for!(LedgerMigrate)),
    ("ledger-rebuild", "the output of ledger rebuild", || schema_for!(LedgerRebuild)),
    ("export", "the output of export", || schema_for!(Exported)),
    ("config", "the configuration file", config_schema),
    ("config-check", "the output of config check", || schema_for!(ConfigCheck)),
    ("config-show", "the output of config show", || schema_for!(ConfigShow)),
    ("schemas", "the output of schema without a name", || schema_for!(SchemaList)),
];

/// The value of `schema` in the list of schemas.
const LIST_SCHEMA: &str = "veriff-archive/schemas/v1";

/// Print the JSON Schema of a document, or list all of them
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Name of the document; without one, all names are listed
    #[arg(value_parser = SCHEMAS.iter().map(|(name, _, _)| *name).collect::<Vec<_>>())]
    name: Option<String>,
}

/// The published schemas.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct SchemaList {
    /// Always `veriff-archive/schemas/v1`.
    schema: &'static str,
    /// One entry a document.
    documents: Vec<SchemaEntry>,
}

/// One published schema.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct SchemaEntry {
    /// What `schema NAME` takes.
    name: &'static str,
    /// What it describes.
    describes: &'static str,
}

impl Answer for SchemaList {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for entry in &self.documents {
            writeln!(out, "{:<16}{}", entry.name, entry.describes)?;
        }
        Ok(())
    }
}

pub(super) fn run(args: &SchemaArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let named = args.name.as_deref();
    if let Some((_, _, schema)) = SCHEMAS.iter().find(|(name, _, _)| Some(*name) == named) {
        print_with(|out| {
            serde_json::to_writer_pretty(&mut *out, &schema())?;
            out.write_all(b"\n")
        })?;
    } else {
        let documents = SCHEMAS.iter().map(|(name, describes, _)| SchemaEntry { name, describes });
        let answer = SchemaList { schema: LIST_SCHEMA, documents: documents.collect() };
        print(&answer, global.format())?;
    }
    Ok(Exit::Success)
}
