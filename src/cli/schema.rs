//! `schema`: the JSON Schemas of every document this program writes or answers with.

use std::io::{self, Write};

use clap::Args;
use schemars::{Schema, schema_for};
use serde::Serialize;

use super::GlobalArgs;
use super::backlog::{BacklogAccept, BacklogAdd, BacklogList, BacklogRetry};
use super::config::{ConfigCheck, ConfigShow};
use super::doctor::Doctor;
use super::keygen::Keygen;
use super::ledger::{LedgerMigrate, LedgerRebuild};
use super::output::{Answer, print, print_with};
use super::plan::Plan;
use super::prove::ProveCheck;
use super::status::Status;
use crate::audit::{AuditSummary, Finding};
use crate::config::config_schema;
use crate::error::Exit;
use crate::export::Exported;
use crate::model::event::Event;
use crate::model::manifest::{ArchiveDocument, Manifest};
use crate::model::run::{ChainEntry, RunLine, RunRecord};
use crate::model::sidecar::Sidecar;
use crate::prove::Proof;
use crate::report::Report;
use crate::run::results::ResultLine;
use crate::run::summary::Summary;

/// A published schema: its name, what it describes, the schema itself.
type Published = (&'static str, &'static str, fn() -> Schema);

/// Every published schema. New documents are added here.
const SCHEMAS: &[Published] = &[
    ("archive", "archive.json, which names the archive", || schema_for!(ArchiveDocument)),
    ("sidecar", "the document beside each media object", || schema_for!(Sidecar)),
    ("manifest", "the document that closes a session", || schema_for!(Manifest)),
    ("run", "the record of a run, run.json", || schema_for!(RunRecord)),
    ("run-line", "a line of a run record's chunks", || schema_for!(RunLine)),
    ("chain", "an entry of a chain of run records", || schema_for!(ChainEntry)),
    ("event", "what people did with the archive, such as an export", || schema_for!(Event)),
    ("finding", "a line of an audit", || schema_for!(Finding)),
    ("audit", "the last line of an audit", || schema_for!(AuditSummary)),
    ("keygen", "the answer of keygen", || schema_for!(Keygen)),
    ("prove", "the answer of prove, a proof", || schema_for!(Proof)),
    ("prove-check", "the answer of prove --check", || schema_for!(ProveCheck)),
    ("report", "the answer of report", || schema_for!(Report)),
    ("result", "a line of --results", || schema_for!(ResultLine)),
    ("summary", "the answer of run", || schema_for!(Summary)),
    ("plan", "the answer of plan", || schema_for!(Plan)),
    ("status", "the answer of status", || schema_for!(Status)),
    ("backlog-add", "the answer of backlog add", || schema_for!(BacklogAdd)),
    ("backlog-list", "the answer of backlog list", || schema_for!(BacklogList)),
    ("backlog-retry", "the answer of backlog retry", || schema_for!(BacklogRetry)),
    ("backlog-accept", "the answer of backlog accept", || schema_for!(BacklogAccept)),
    ("doctor", "the answer of doctor", || schema_for!(Doctor)),
    ("ledger-migrate", "the answer of ledger migrate", || schema_for!(LedgerMigrate)),
    ("ledger-rebuild", "the answer of ledger rebuild", || schema_for!(LedgerRebuild)),
    ("export", "the answer of export", || schema_for!(Exported)),
    ("config", "the configuration file", config_schema),
    ("config-check", "the answer of config check", || schema_for!(ConfigCheck)),
    ("config-show", "the answer of config show", || schema_for!(ConfigShow)),
    ("schemas", "the answer of schema without a name", || schema_for!(SchemaList)),
];

/// The value of `schema` in the list of schemas.
const LIST_SCHEMA: &str = "veriff-archive/schemas/v1";

/// Print the JSON Schema of a document, or list all of them
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Name of the document; without one, the names are listed
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
