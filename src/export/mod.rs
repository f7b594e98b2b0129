//! Export: the evidence of given sessions as a BagIt bag, for people who have neither this program nor the archive.
//!
//! Reads the archive by what its manifests name, version by version, and never writes into it but for one document: the
//! event that says who takes what, and why. It is put under its lock before the first byte is read; without it there is no
//! export. Bytes that are not those of the manifest stay out of the bag, and the bag and the answer say so.

mod asked;
mod bag;
mod event;
mod names;
mod page;
mod proofs;
mod session;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use asked::Asked;
pub use bag::Form;
pub use event::export;

use self::bag::{Bag, Lines};
use self::page::{IndexView, Page, RowView};
use crate::audit::{Finding, Severity, SeverityCounts};
use crate::clock::Timestamp;
use crate::error::{Code, Exit};
use crate::ledger::LedgerError;
use crate::model::event::Event;
use crate::model::key::ObjectKey;
use crate::model::{ArchiveId, EventId, IdError};
use crate::session::identity::IdentityError;
use crate::session::writer::WriteError;
use crate::source::SourceError;
use crate::store::{ReadStore, StoreError};

/// The value of `schema` in the answer.
pub const EXPORT_SCHEMA: &str = "veriff-archive/export/v1";

/// More sessions than these go into a directory only: a zip holds its table of contents in memory.
pub const MAX_ZIP_SESSIONS: u64 = 10_000;

/// Up to this many sessions are in one page; of more, each has a page of its own.
const MAX_SESSIONS_OF_ONE_PAGE: u64 = 50;

/// How many problems the answer and the page report one by one; the bag has them all.
const MAX_TOLD_PROBLEMS: usize = 100;

/// What is exported, by whom, why and whereto.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the bag goes; nothing exists there.
    pub place: PathBuf,
    /// Its form.
    pub form: Form,
    /// Who runs the export.
    pub actor: String,
    /// Whom the store takes the actor for, where that is known.
    pub store_principal: Option<String>,
    /// Who asked for it.
    pub requested_by: Option<String>,
    /// Why.
    pub reason: String,
    /// What the bag calls its sender.
    pub organization: Option<String>,
}

/// Why there is no bag.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A word on the command line is no id.
    #[error("--session number {number}: {source}")]
    BadId {
        /// Which one.
        number: u64,
        /// What is wrong with it.
        source: IdError,
    },
    /// Nothing is to be exported.
    #[error("the input names no session")]
    Nothing,
    /// Something exists where the bag should go.
    #[error("{place} exists already; an export never overwrites")]
    Taken {
        /// The place.
        place: PathBuf,
    },
    /// Too many sessions for a zip.
    #[error("{sessions} sessions are too many for a zip, which holds at most {MAX_ZIP_SESSIONS}; export a directory")]
    TooManyForZip {
        /// How many.
        sessions: u64,
    },
    /// The store is no archive.
    #[error("there is no archive.json in the store; check store.url")]
    NoArchive,
    /// The event could not be written, and so nothing was read.
    #[error("the event of this export cannot be written, so nothing is exported")]
    Event(#[source] WriteError),
    /// The store did not do what it was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not known which archive the store is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The list of sessions cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The list of sessions cannot be set aside.
    #[error(transparent)]
    SetAside(#[from] LedgerError),
    /// The bag cannot be written.
    #[error("cannot write the bag {place}")]
    Unwritable {
        /// Its place.
        place: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A page cannot be made: a defect of this program.
    #[error("cannot write a page of the bag")]
    Page(#[from] minijinja::Error),
}

impl ExportError {
    /// Returns how the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::BadId { .. } | Self::Taken { .. } | Self::TooManyForZip { .. } => Exit::Usage,
            Self::Source(SourceError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Exit::Usage,
            Self::Nothing => Exit::Failures,
            Self::NoArchive => Exit::Refused,
            Self::Event(error) => Exit::of_fatal(error.code()),
            Self::Store(error) => Exit::of_fatal(error.code()),
            Self::Identity(error) => Exit::of_fatal(error.code()),
            Self::Source(error) => Exit::of_fatal(error.code()),
            Self::SetAside(error) => Exit::of_fatal(error.code()),
            Self::Unwritable { .. } => Exit::of_fatal(Code::OutputUnwritable),
            Self::Page(_) => Exit::Internal,
        }
    }
}

/// What was exported.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Exported {
    /// Always `veriff-archive/export/v1`.
    pub schema: &'static str,
    /// Where the bag is.
    pub bag: PathBuf,
    /// Its form.
    pub form: Form,
    /// The archive.
    pub archive_id: ArchiveId,
    /// The event that was written first.
    pub event_id: EventId,
    /// Where it is in the store.
    pub event_key: ObjectKey,
    /// When the export began, by the store's clock.
    pub started_at: Timestamp,
    /// When the bag was whole.
    pub finished_at: Timestamp,
    /// The sessions.
    pub sessions: SessionCounts,
    /// Media objects in the bag.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Inclusion proofs in the bag.
    pub proofs: u64,
    /// Problems by severity.
    pub problems: SeverityCounts,
    /// Problems by code.
    pub codes: BTreeMap<String, u64>,
    /// The first hundred problems; the bag's `data/problems.txt` has all.
    pub first_problems: Vec<Finding>,
    /// What to do next, or `nothing`.
    pub next: String,
}

/// What became of the sessions that were asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SessionCounts {
    /// How many were asked for, each counted once.
    pub asked: u64,
    /// In the bag with all that their newest manifest names.
    pub whole: u64,
    /// In the bag, and something that their newest manifest names is not.
    pub damaged: u64,
    /// In the bag but for what was expired by plan.
    pub expired: u64,
    /// In the bag with the manifest that says that Veriff does not have them.
    pub absent: u64,
    /// Not in the archive, or with a manifest that cannot be read.
    pub unarchived: u64,
    /// Input records that named a session again.
    pub repeated: u64,
    /// Input records that name no session.
    pub invalid: u64,
}

impl Exported {
    /// Returns how the process ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        let counts = &self.sessions;
        if self.problems.error > 0 {
            Exit::Findings
        } else if self.problems.warn + counts.absent + counts.unarchived + counts.invalid > 0 {
            Exit::Failures
        } else {
            Exit::Success
        }
    }

    fn advice(&self) -> &'static str {
        if self.problems.error > 0 {
            "read data/problems.txt in the bag, and find out more with veriff-archive audit fixity --mode read"
        } else if self.sessions.unarchived > 0 {
            "archive the sessions that data/problems.txt in the bag names with veriff-archive run, if Veriff still has them"
        } else if self.sessions.invalid > 0 {
            "correct the input: some of its lines name no session"
        } else {
            "nothing"
        }
    }
}

/// An export under way.
struct Export<'a> {
    store: &'a dyn ReadStore,
    event: Event,
    place: PathBuf,
    page: Page,
    bag: Bag,
    /// The sessions of the index page, where they are in it.
    sections: Lines,
    /// Their lines in its table.
    rows: Lines,
    /// Every problem, for people.
    problems: Lines,
    /// Objects of run records that were reported as damaged.
    damaged_records: BTreeSet<ObjectKey>,
    answer: Exported,
}

/// Makes the bag of what is asked for. `event` says in the archive that this is done.
async fn fill(
    store: &dyn ReadStore,
    event: Event,
    mut asked: Asked,
    request: &Request,
) -> Result<Exported, ExportError> {
    let mut export = Export::begin(store, event, request, &asked).map_err(unwritable(&request.place))?;
    let mut last = String::new();
    loop {
        let ids = asked.after(&last).await?;
        let Some(end) = ids.last() else { break };
        end.as_str().clone_into(&mut last);
        let mut views = Vec::with_capacity(ids.len());
        for id in &ids {
            views.push(export.session(id).await?);
        }
        export.prove(&mut views).await?;
        for view in &views {
            export.show(view)?;
        }
    }
    export.finish(request, &asked)
}

fn unwritable(place: &Path) -> impl Fn(io::Error) -> ExportError {
    move |source| match source.kind() {
        io::ErrorKind::AlreadyExists => ExportError::Taken { place: place.to_owned() },
        _ => ExportError::Unwritable { place: place.to_owned(), source },
    }
}

impl<'a> Export<'a> {
    fn begin(store: &'a dyn ReadStore, event: Event, request: &Request, asked: &Asked) -> io::Result<Self> {
        let place = &request.place;
        let mut bag = Bag::create(place, request.form, event.at)?;
        bag.add("data/event.json", &event.to_payload().segments().concat())?;
        let answer = Exported {
            schema: EXPORT_SCHEMA,
            bag: place.clone(),
            form: request.form,
            archive_id: event.archive_id.clone(),
            event_id: event.event_id.clone(),
            event_key: event.key(),
            started_at: event.at,
            finished_at: event.at,
            sessions: SessionCounts {
                asked: event.sessions.count,
                repeated: asked.repeated,
                invalid: asked.invalid,
                ..SessionCounts::default()
            },
            objects: 0,
            bytes: 0,
            proofs: 0,
            problems: SeverityCounts::default(),
            codes: BTreeMap::new(),
            first_problems: Vec::new(),
            next: String::new(),
        };
        let mut problems = Lines::new(place)?;
        for told in &asked.told {
            problems.add(&format!("warn  input.invalid  {told}\n\n"))?;
        }
        if let Some(untold) = asked.invalid.checked_sub(asked.told.len() as u64).filter(|untold| *untold > 0) {
            problems.add(&format!("warn  input.invalid  and {untold} more\n\n"))?;
        }
        let (sections, rows) = (Lines::new(place)?, Lines::new(place)?);
        Ok(Self {
            store,
            event,
            place: place.clone(),
            page: Page::new().map_err(io::Error::other)?,
            bag,
            sections,
            rows,
            problems,
            damaged_records: BTreeSet::new(),
            answer,
        })
    }

    /// Returns whether all sessions are in one page.
    const fn is_one_page(&self) -> bool {
        self.event.sessions.count <= MAX_SESSIONS_OF_ONE_PAGE
    }

    fn unwritable(&self, source: io::Error) -> ExportError {
        unwritable(&self.place)(source)
    }

    /// Takes a problem: into the bag, the answer and the count.
    fn problem(&mut self, finding: &Finding) -> Result<(), ExportError> {
        let count = match finding.severity {
            Severity::Error => &mut self.answer.problems.error,
            Severity::Warn => &mut self.answer.problems.warn,
            Severity::Info => &mut self.answer.problems.info,
        };
        *count += 1;
        *self.answer.codes.entry(finding.code.as_str().to_owned()).or_default() += 1;
        if self.answer.first_problems.len() < MAX_TOLD_PROBLEMS {
            self.answer.first_problems.push(finding.clone());
        }
        let text = view::problem_text(finding);
        self.problems.add(&text).map_err(|source| self.unwritable(source))
    }

    /// Adds a session to the table of the index page.
    fn row(&mut self, row: &RowView<'_>) -> Result<(), ExportError> {
        let html = self.page.row(row)?;
        self.rows.add(&html).map_err(|source| self.unwritable(source))
    }

    /// Writes the problems and the index page, and closes the bag.
    fn finish(mut self, request: &Request, asked: &Asked) -> Result<Exported, ExportError> {
        let place = self.place.clone();
        let failed = unwritable(&place);
        let has_problems = !self.answer.codes.is_empty() || asked.invalid > 0;
        let finished_at = self.store.now();
        self.answer.finished_at = finished_at;
        self.answer.advice().clone_into(&mut self.answer.next);
        let is_one_page = self.is_one_page();
        let Self { event, page, mut bag, sections, rows, problems, answer, .. } = self;
        if has_problems {
            bag.begin("data/problems.txt", u64::MAX).map_err(&failed)?;
            problems.copy_to(&mut bag).and_then(|()| bag.keep()).map_err(&failed)?;
        }
        let view = IndexView::of(&event, &answer, has_problems, is_one_page);
        let parts = page.index(&view)?;
        bag.begin("data/index.html", u64::MAX).map_err(&failed)?;
        let written = bag
            .write(parts.before_rows.as_bytes())
            .and_then(|()| rows.copy_to(&mut bag))
            .and_then(|()| bag.write(parts.before_sections.as_bytes()))
            .and_then(|()| sections.copy_to(&mut bag))
            .and_then(|()| bag.write(parts.end.as_bytes()))
            .and_then(|()| bag.keep());
        written.map_err(&failed)?;
        let info = bag_info(&event, request, &bag, finished_at);
        bag.finish(&info).map_err(&failed)?;
        Ok(answer)
    }
}

/// Says what bag-info.txt says.
fn bag_info(event: &Event, request: &Request, bag: &Bag, at: Timestamp) -> Vec<(&'static str, String)> {
    let date = at.to_string();
    let (date, _) = date.split_once('T').unwrap_or((&date, ""));
    let totals = bag.totals;
    let mut info = Vec::new();
    info.extend(request.organization.clone().map(|organization| ("Source-Organization", organization)));
    let noun = if event.sessions.count == 1 { "session" } else { "sessions" };
    info.extend([
        ("Bagging-Date", date.to_owned()),
        ("Bag-Software-Agent", format!("veriff-archive {}", event.version)),
        ("External-Identifier", event.event_id.to_string()),
        (
            "External-Description",
            format!("Evidence of {} Veriff {noun} from archive {}", event.sessions.count, event.archive_id),
        ),
        ("Bag-Size", view::size(totals.bytes)),
        ("Payload-Oxum", format!("{}.{}", totals.bytes, totals.files)),
    ]);
    info
}
