//! `export`: the evidence of sessions as a BagIt bag.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{ArgGroup, Args};

use super::connect::{open_existing_store, open_file};
use super::output::{Answer, print};
use super::source::{FormatArg, FormatArgs};
use super::{GlobalArgs, StoreArgs, signals};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::error::Exit;
use crate::export::{Asked, Exported, Form, Request, export};
use crate::session::writer::ArchiveWriter;
use crate::stop::Stop;
use crate::stop::Stopped;
use crate::store::policy::demand;

/// The longest reason, in characters.
const MAX_TEXT_LENGTH: usize = 2000;

const AFTER_HELP: &str = "\
Before anything is read, an event that records who exports what and why is written into the archive, locked as the \
policy requires. Without permission to write below events/ there is no export. Needs neither Veriff nor the ledger.

Exit codes:
    0  the bag holds everything that was requested
    3  the bag was written; some sessions are not archived, or Veriff did not have them
    4  the bag was written; something that a manifest names is missing, changed or shadowed
    5  no bag: the store does not answer, or there is no space
   77  no bag: the store refuses access, or refuses the event

Examples:
  veriff-archive export --session 0d2f4c1e-6b7a-4f3c-9d8e-1a2b3c4d5e6f --reason \"docket 12/2026\" --to docket-12.zip
  veriff-archive export --sessions ids.txt --reason \"audit of 2026\" --to /media/auditor/bag";

/// Export the evidence of sessions as a BagIt bag
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, group = ArgGroup::new("which").required(true).args(["session", "sessions"]))]
pub(super) struct ExportArgs {
    /// Session to export; may be repeated
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    #[arg(
        long,
        value_name = "PATH",
        help = "Session ids or requests: a file, - for standard input, or s3://bucket/key; of a request only the id counts"
    )]
    sessions: Option<String>,
    /// Format of the input [default: detected]
    #[arg(long, value_name = "FORMAT", requires = "sessions")]
    format: Option<FormatArg>,
    /// Why it is exported; written into the event and the bag, never logged
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who requested it; written next to the reason
    #[arg(long, value_name = "TEXT")]
    requested_by: Option<String>,
    /// The bag's Source-Organization
    #[arg(long, value_name = "TEXT")]
    organization: Option<String>,
    /// Path of the new bag, which must not exist yet; a name ending in .zip makes a zip file
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// Make a zip file, whatever the name
    #[arg(long)]
    zip: bool,
    #[command(flatten)]
    store: StoreArgs,
}

impl Answer for Exported {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let counts = &self.sessions;
        writeln!(out, "bag        {} ({})", self.bag.display(), self.form.as_str())?;
        writeln!(out, "event      {}", self.event_key)?;
        writeln!(
            out,
            "sessions   {} requested: {} complete, {} damaged, {} expired, {} absent upstream, {} not archived",
            counts.asked, counts.whole, counts.damaged, counts.expired, counts.absent, counts.unarchived
        )?;
        if counts.invalid + counts.repeated > 0 {
            writeln!(out, "input      {} lines name no session, {} name one again", counts.invalid, counts.repeated)?;
        }
        writeln!(out, "evidence   {} objects, {} bytes, {} proofs", self.objects, self.bytes, self.proofs)?;
        writeln!(out, "problems   {} errors, {} warnings", self.problems.error, self.problems.warn)?;
        for problem in &self.first_problems {
            let key = problem.key.as_ref().map(ToString::to_string);
            let about = key.or_else(|| problem.session_id.as_ref().map(|id| format!("session {id}")));
            writeln!(out, "  {:<20} {}", problem.code, about.unwrap_or_default())?;
        }
        writeln!(out, "next       {}", self.next)
    }
}

pub(super) async fn run(args: &ExportArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    if let Some(wrong) = wrong_text(args) {
        eprintln!("error: {wrong}");
        return Ok(Exit::Usage);
    }
    let stop = Stop::default();
    signals::listen(stop.clone()).context("cannot listen for signals")?;
    let config = global.load_config(args.store.store.as_deref())?;
    let exported = tokio::select! {
        exported = Box::pin(exported(args, &config)) => exported?,
        // Dropped on the way, an export leaves no bag.
        stopped = stop.requested() => return Ok(match stopped {
            Stopped::Terminated => Exit::Terminated,
            _ => Exit::Interrupted,
        }),
    };
    print(&exported, global.format())?;
    Ok(exported.exit())
}

/// Says what is wrong with a text that is given, without repeating it.
fn wrong_text(args: &ExportArgs) -> Option<String> {
    let texts = [("--reason", Some(&args.reason)), ("--requested-by", args.requested_by.as_ref())];
    let texts = texts.into_iter().chain([("--organization", args.organization.as_ref())]);
    texts.filter_map(|(name, text)| text.map(|text| (name, text))).find_map(|(name, text)| {
        if text.trim().is_empty() {
            Some(format!("{name} is empty"))
        } else if text.chars().count() > MAX_TEXT_LENGTH {
            Some(format!("{name} is longer than {MAX_TEXT_LENGTH} characters"))
        } else {
            None
        }
    })
}

async fn exported(args: &ExportArgs, config: &Config) -> anyhow::Result<Exported> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let settings = config.require_store()?;
    let asked = match &args.sessions {
        Some(sessions) => {
            let format = FormatArgs { format: args.format, only: None };
            Asked::of_source(open_file(sessions, &format, config, &clock).await?).await?
        }
        None => Asked::of_ids(&args.session).await?,
    };
    let store = open_existing_store(config, &clock).await?;
    // The event must be kept as the policy says.
    demand(&store.check().await?, config.retention.demands_locks() && settings.url().can_lock())?;
    let kms_key_id = settings.kms_key_id().map(str::to_owned);
    let writer = ArchiveWriter::new(store, config.retention.clone(), kms_key_id);
    let is_zip = args.zip || args.to.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    let request = Request {
        place: args.to.clone(),
        form: if is_zip { Form::Zip } else { Form::Directory },
        actor: config.actor.clone(),
        store_principal: writer.store().principal().await,
        requested_by: args.requested_by.clone(),
        reason: args.reason.clone(),
        organization: args.organization.clone(),
    };
    Ok(export(&writer, asked, request).await?)
}
