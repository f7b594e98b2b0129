//! Page: what a bag shows to people, as HTML that needs no server, no script and nothing from elsewhere.
//!
//! Views hold what the templates beside this file show. Every text is escaped by the templates; the pages' own policy
//! forbids scripts, and anything that is not in the bag.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use serde::Serialize;

use super::Exported;
use crate::audit::{Finding, Severity};
use crate::model::digest::Sha256Digest;
use crate::model::event::Event;
use crate::model::key::ObjectKey;
use crate::model::manifest::{ConflictItem, Manifest, ManifestAttempt, ManifestMedia};
use crate::model::retention::Lock;
use crate::model::sidecar::{CountedFrom, Sidecar, SignatureCheck};
use crate::model::{RunId, SessionId};

const STYLE: &str = include_str!("style.css");

const TEMPLATES: [(&str, &str); 8] = [
    ("open.html", include_str!("open.html")),
    ("index.html", include_str!("index.html")),
    ("row.html", include_str!("row.html")),
    ("problem.html", include_str!("problem.html")),
    ("item.html", include_str!("item.html")),
    ("section.html", include_str!("section.html")),
    ("session.html", include_str!("session.html")),
    ("close.html", include_str!("close.html")),
];

/// Where the part of the index page above the table's lines ends, and the part below begins.
const ROWS: &str = "<!--rows-->";

/// Where the sessions stand.
const SECTIONS: &str = "<!--sections-->";

/// Makes pages.
pub(super) struct Page(Environment<'static>);

/// The index page, apart from the lines of its table and the sessions, which may be many.
pub(super) struct IndexParts {
    pub(super) before_rows: String,
    pub(super) before_sections: String,
    pub(super) end: String,
}

impl Page {
    pub(super) fn new() -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        for (name, source) in TEMPLATES {
            environment.add_template(name, source)?;
        }
        environment.add_global("style", Value::from_safe_string(STYLE.to_owned()));
        environment.add_global("style_sha256", Sha256Digest::of(STYLE.as_bytes()).to_base64());
        Ok(Self(environment))
    }

    /// Makes the index page.
    pub(super) fn index(&self, view: &IndexView<'_>) -> Result<IndexParts, minijinja::Error> {
        let whole = self.0.get_template("index.html")?.render(Serde(view))?;
        let missing = || minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, "a mark is missing");
        let (before_rows, rest) = whole.split_once(ROWS).ok_or_else(missing)?;
        let (before_sections, end) = rest.split_once(SECTIONS).ok_or_else(missing)?;
        Ok(IndexParts {
            before_rows: before_rows.to_owned(),
            before_sections: before_sections.to_owned(),
            end: end.to_owned(),
        })
    }

    /// Makes a line of the index page's table.
    pub(super) fn row(&self, row: &RowView<'_>) -> Result<String, minijinja::Error> {
        self.0.get_template("row.html")?.render(Serde(row))
    }

    /// Makes a session's part of a page; `base` leads from the page to the session's folder.
    pub(super) fn section(&self, view: &SessionView, event: &Event, base: &str) -> Result<String, minijinja::Error> {
        self.0.get_template("section.html")?.render(context(view, event, base))
    }

    /// Makes a page of one session.
    pub(super) fn session(&self, view: &SessionView, event: &Event) -> Result<String, minijinja::Error> {
        self.0.get_template("session.html")?.render(context(view, event, ""))
    }
}

fn context(view: &SessionView, event: &Event, base: &str) -> Value {
    context! { session => Serde(view), event => Serde(event), base }
}

/// The index page.
#[derive(Serialize)]
pub(super) struct IndexView<'a> {
    event: &'a Event,
    event_key: String,
    answer: &'a Exported,
    size: String,
    problems: Vec<ProblemView>,
    has_problems: bool,
    untold: u64,
    is_one_page: bool,
}

impl<'a> IndexView<'a> {
    pub(super) fn of(event: &'a Event, answer: &'a Exported, has_problems: bool, is_one_page: bool) -> Self {
        let problems: Vec<ProblemView> = answer.first_problems.iter().map(ProblemView::of).collect();
        let counts = answer.problems;
        let untold = (counts.error + counts.warn + counts.info).saturating_sub(problems.len() as u64);
        let (event_key, size) = (event.key().to_string(), size(answer.bytes));
        Self { event, event_key, answer, size, problems, has_problems, untold, is_one_page }
    }
}

/// A line of the index page's table.
#[derive(Serialize)]
pub(super) struct RowView<'a> {
    session_id: &'a str,
    href: String,
    attempts: usize,
    items: u64,
    size: String,
    archived_at: &'a str,
    state: &'static str,
    is_good: bool,
}

impl<'a> RowView<'a> {
    pub(super) fn of(view: &'a SessionView, is_one_page: bool) -> Self {
        let id = view.session_id.as_str();
        let is_complete = view.facts.as_ref().is_some_and(|facts| facts.complete);
        let (state, is_good) = match view.outcome() {
            Outcome::Unarchived => ("not in the archive", false),
            Outcome::Damaged => ("problems, see there", false),
            Outcome::Expired => ("expired in part", false),
            Outcome::Absent => ("Veriff did not have it", false),
            Outcome::Whole if !is_complete => ("whole; archived incomplete", false),
            Outcome::Whole => ("whole", true),
        };
        Self {
            session_id: id,
            href: if is_one_page { format!("#session-{id}") } else { format!("{id}/index.html") },
            attempts: view.attempts.len(),
            items: view.items,
            size: size(view.bytes),
            archived_at: view.manifests.last().map_or("", |manifest| manifest.archived_at.as_str()),
            state,
            is_good,
        }
    }
}

/// How a session stands in the bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With all that its newest manifest names.
    Whole,
    /// Something that its newest manifest names is not there, or is something else.
    Damaged,
    /// Something of it was expired by plan.
    Expired,
    /// With the manifest that says that Veriff does not have it.
    Absent,
    /// There is no manifest that can be read.
    Unarchived,
}

/// A session.
#[derive(Serialize)]
pub(super) struct SessionView {
    pub(super) session_id: String,
    facts: Option<Facts>,
    pub(super) manifests: Vec<ManifestView>,
    pub(super) attempts: Vec<AttemptView>,
    missing: Vec<MissingView>,
    pub(super) conflicts: Vec<MediaView>,
    pub(super) proofs: Vec<ProofView>,
    pub(super) problems: Vec<ProblemView>,
    pub(super) items: u64,
    pub(super) bytes: u64,
    /// Items that were expired by plan.
    pub(super) expired: u64,
}

/// What the newest manifest says of the session as a whole.
#[derive(Serialize)]
struct Facts {
    integration: String,
    decided_at: Option<String>,
    complete: bool,
    settled: bool,
    absent: Option<u16>,
    media: u64,
    size: String,
}

#[derive(Serialize)]
struct MissingView {
    media_id: String,
    attempt_id: String,
    code: String,
    http_status: Option<u16>,
}

impl SessionView {
    pub(super) fn of(id: &SessionId) -> Self {
        Self {
            session_id: id.to_string(),
            facts: None,
            manifests: Vec::new(),
            attempts: Vec::new(),
            missing: Vec::new(),
            conflicts: Vec::new(),
            proofs: Vec::new(),
            problems: Vec::new(),
            items: 0,
            bytes: 0,
            expired: 0,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match &self.facts {
            None => Outcome::Unarchived,
            Some(_) if self.problems.iter().any(|problem| problem.is_error) => Outcome::Damaged,
            Some(_) if self.expired > 0 => Outcome::Expired,
            Some(facts) if facts.absent.is_some() => Outcome::Absent,
            Some(_) => Outcome::Whole,
        }
    }

    /// Returns the run that wrote the newest manifest but so many, and the session.
    pub(super) fn nth_run(&self, depth: usize) -> Option<(RunId, SessionId)> {
        let manifest = self.manifests.iter().rev().nth(depth)?;
        Some((RunId::parse(&manifest.run_id).ok()?, SessionId::parse(&self.session_id).ok()?))
    }

    /// Returns the digest of a manifest that is in the bag.
    pub(super) fn manifest_sha256(&self, key: &ObjectKey) -> Option<String> {
        let manifest = self.manifests.iter().find(|manifest| manifest.key == key.as_str());
        manifest.map(|manifest| manifest.sha256.clone())
    }

    pub(super) fn describe(&mut self, manifest: &Manifest) {
        self.facts = Some(Facts {
            integration: manifest.integration.clone(),
            decided_at: manifest.decided_at.map(|at| at.to_string()),
            complete: manifest.complete,
            settled: manifest.settled,
            absent: manifest.absent.map(|absent| absent.http_status),
            media: manifest.totals.media,
            size: size(manifest.totals.bytes),
        });
        let missing = manifest.missing.iter().map(|item| MissingView {
            media_id: item.media_id.to_string(),
            attempt_id: item.attempt_id.to_string(),
            code: item.code.clone(),
            http_status: item.http_status,
        });
        self.missing = missing.collect();
    }
}

/// A manifest in the bag.
#[derive(Serialize)]
pub(super) struct ManifestView {
    sequence: u32,
    file: String,
    archived_at: String,
    run_id: String,
    key: String,
    version_id: Option<String>,
    sha256: String,
    lock: Option<String>,
}

impl ManifestView {
    pub(super) fn of(
        document: &Manifest,
        key: &ObjectKey,
        version_id: Option<&str>,
        sha256: Sha256Digest,
        lock: Option<Lock>,
        file: String,
    ) -> Self {
        Self {
            sequence: document.sequence,
            file,
            archived_at: document.archived_at.to_string(),
            run_id: document.run_id.to_string(),
            key: key.to_string(),
            version_id: version_id.map(str::to_owned),
            sha256: sha256.to_string(),
            lock: lock.map(lock_text),
        }
    }
}

/// An attempt.
#[derive(Serialize)]
pub(super) struct AttemptView {
    number: usize,
    attempt_id: String,
    is_session: bool,
    status: Option<String>,
    created_at: Option<String>,
    pub(super) media: Vec<MediaView>,
}

impl AttemptView {
    pub(super) fn of(number: usize, attempt: &ManifestAttempt) -> Self {
        Self {
            number,
            attempt_id: attempt.attempt_id.to_string(),
            is_session: attempt.attempt_id.is_session(),
            status: attempt.status.clone(),
            created_at: attempt.created_at.map(|at| at.to_string()),
            media: Vec::with_capacity(attempt.media.len()),
        }
    }
}

/// How an item stands in the bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Shown {
    /// It is there.
    Whole,
    /// It was expired by plan.
    Expired,
    /// It is not there, or is something else.
    Damaged,
}

/// A media item.
#[derive(Serialize)]
pub(super) struct MediaView {
    media_id: String,
    kind: &'static str,
    context: Option<String>,
    pub(super) state: Shown,
    file: String,
    /// How the page shows it: `image`, `video` or `link`.
    form: &'static str,
    size: String,
    size_bytes: u64,
    key: String,
    version_id: Option<String>,
    sha256: String,
    lock: Option<String>,
    told: Option<ToldView>,
}

/// What the sidecar of an item tells.
#[derive(Serialize)]
struct ToldView {
    file: String,
    fetched_at: Option<String>,
    host: Option<String>,
    path: Option<String>,
    signature: Option<&'static str>,
    run_id: String,
    version: String,
    class: String,
    basis: String,
    period: Option<String>,
    counted_from: String,
    counted_from_source: &'static str,
    anomalies: Vec<String>,
}

impl MediaView {
    pub(super) fn of(media: &ManifestMedia) -> Self {
        Self {
            media_id: media.media_id.to_string(),
            kind: media.kind.as_str(),
            context: media.context.clone(),
            state: Shown::Damaged,
            file: String::new(),
            form: "link",
            size: size(media.size_bytes),
            size_bytes: media.size_bytes,
            key: media.key.to_string(),
            version_id: media.version_id.clone(),
            sha256: media.sha256.to_string(),
            lock: None,
            told: None,
        }
    }

    pub(super) fn of_conflict(conflict: &ConflictItem) -> Self {
        Self {
            media_id: conflict.media_id.to_string(),
            kind: "conflict",
            context: None,
            state: Shown::Damaged,
            file: String::new(),
            form: "link",
            size: String::new(),
            size_bytes: 0,
            key: conflict.key.to_string(),
            version_id: conflict.version_id.clone(),
            sha256: conflict.sha256.to_string(),
            lock: None,
            told: None,
        }
    }

    /// It is in the bag, under this file of the session's folder.
    pub(super) fn stands(&mut self, file: String, size_bytes: u64, lock: Option<Lock>) {
        self.state = Shown::Whole;
        self.form = match file.rsplit('.').next() {
            Some("jpg" | "png" | "webp") => "image",
            Some("webm" | "mp4") => "video",
            _ => "link",
        };
        self.file = file;
        self.size = size(size_bytes);
        self.size_bytes = size_bytes;
        self.lock = lock.map(lock_text);
    }

    /// Its sidecar is in the bag.
    pub(super) fn tells(&mut self, sidecar: &Sidecar, file: String) {
        let upstream = sidecar.upstream.as_ref();
        self.told = Some(ToldView {
            file,
            fetched_at: upstream.map(|upstream| upstream.fetched_at.to_string()),
            host: upstream.map(|upstream| upstream.host.clone()),
            path: upstream.map(|upstream| upstream.path.clone()),
            signature: upstream.map(|upstream| signature_text(upstream.signature)),
            run_id: sidecar.archived_by.run_id.to_string(),
            version: sidecar.archived_by.version.clone(),
            class: sidecar.retention.class.clone(),
            basis: sidecar.retention.basis.clone(),
            period: sidecar.retention.period.map(|period| period.to_string()),
            counted_from: sidecar.retention.counted_from.to_string(),
            counted_from_source: match sidecar.retention.counted_from_source {
                CountedFrom::DecidedAt => "the decision",
                CountedFrom::ArchivedAt => "archiving",
            },
            anomalies: sidecar.anomalies.iter().map(|it| format!("{}: {}", it.code, it.detail)).collect(),
        });
    }
}

/// A proof in the bag.
#[derive(Serialize)]
pub(super) struct ProofView {
    pub(super) file: String,
    pub(super) run_id: String,
    pub(super) at: String,
    pub(super) text: String,
}

/// A problem.
#[derive(Serialize)]
pub(super) struct ProblemView {
    pub(super) is_error: bool,
    code: String,
    about: String,
    expected: Option<String>,
    found: Option<String>,
    repair: String,
}

impl ProblemView {
    pub(super) fn of(finding: &Finding) -> Self {
        let session = finding.session_id.as_ref().filter(|_| finding.key.is_none()).map(|id| format!("session {id}"));
        let key = finding.key.as_ref().map(ToString::to_string);
        let version = finding.version_id.as_ref().map(|version| format!("version {version}"));
        Self {
            is_error: finding.severity == Severity::Error,
            code: finding.code.to_string(),
            about: [session, key, version].into_iter().flatten().collect::<Vec<_>>().join(", "),
            expected: finding.expected.clone(),
            found: finding.found.clone(),
            repair: finding.repair.clone(),
        }
    }
}

/// Writes a problem as the text file of the bag has it.
pub(super) fn problem_text(finding: &Finding) -> String {
    let ProblemView { is_error, code, about, expected, found, repair } = ProblemView::of(finding);
    let severity = if is_error { "error" } else { "warn " };
    let head = format!("{severity}  {code}  {about}\n");
    let parts = [("expected", expected), ("found", found), ("repair", Some(repair))];
    let lines = parts.into_iter().filter_map(|(label, value)| Some(format!("       {label:<9} {}\n", value?)));
    [head].into_iter().chain(lines).chain(["\n".to_owned()]).collect()
}

/// Writes a length for people.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut rest = 0;
    for unit in ["bytes", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024 || unit == "TiB" {
            return if unit == "bytes" {
                format!("{value} {unit}")
            } else {
                format!("{value}.{} {unit}", rest * 10 / 1024)
            };
        }
        (value, rest) = (value / 1024, value % 1024);
    }
    format!("{bytes} bytes")
}

fn lock_text(lock: Lock) -> String {
    format!("{} until {}", lock.mode, lock.retain_until)
}

const fn signature_text(check: SignatureCheck) -> &'static str {
    match check {
        SignatureCheck::Match => "right",
        SignatureCheck::Absent => "there was none",
        SignatureCheck::Mismatch => "wrong",
        SignatureCheck::Unchecked => "not checked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_for_people() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(20 * 1024 * 1024 - 1), "19.9 MiB");
        assert_eq!(size(3 << 40), "3.0 TiB");
    }

    #[test]
    fn whatever_a_manifest_says_is_shown_as_text() {
        let page = Page::new().unwrap();
        let odd = "<script>alert(1)</script>\"'&";
        let mut view = SessionView::of(&SessionId::parse("s").unwrap());
        view.problems.push(ProblemView {
            is_error: true,
            code: odd.to_owned(),
            about: odd.to_owned(),
            expected: Some(odd.to_owned()),
            found: Some(odd.to_owned()),
            repair: odd.to_owned(),
        });
        view.proofs.push(ProofView {
            file: odd.to_owned(),
            run_id: odd.to_owned(),
            at: odd.to_owned(),
            text: odd.to_owned(),
        });
        let event = crate::model::event::Event::parse(include_bytes!("../../tests/fixtures/formats/event-v1.json"));
        let event = Event { reason: odd.to_owned(), actor: odd.to_owned(), ..event.unwrap() };
        let html = page.session(&view, &event).unwrap();
        assert!(!html.contains("<script") && !html.contains("alert(1)<"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
    }
}
