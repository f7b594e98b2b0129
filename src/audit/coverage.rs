//! `audit coverage`: is everything archived that is expected, and that Veriff has?
//!
//! Asks Veriff for its lists once more, as the archiver does, and holds them against the newest manifest in the store; the
//! ledger is only asked what is expected. Downloads no media. What Veriff has deleted by now it cannot be asked for: of
//! sessions past the horizon an agreement shows only that nothing more can be had.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};

use super::runner::AuditError;
use super::sessions::{AuditStep, AuditTally, Checked, Mark};
use super::{Finding, FindingCode, Severity, expired, shadow};
use crate::clock::Timestamp;
use crate::ledger::{Cursor, Filter, ListedSession, SessionRow, State, Survey};
use crate::metrics::SessionMeter;
use crate::model::key::ObjectKey;
use crate::model::manifest::Manifest;
use crate::model::request::SessionRequest;
use crate::model::{ArchiveId, AttemptId, MediaId, SessionId, is_final_status};
use crate::session::catalog::{self, Catalog};
use crate::session::standing::{self, InspectError, Standing, StandingManifest};
use crate::source::Source;
use crate::store::ReadStore;
use crate::veriff::VeriffClient;

/// How many sessions in a row may fail to be asked for before Veriff is taken to be away.
const UNASKED_IN_A_ROW: u32 = 20;

/// How many sessions are read of the ledger at once.
const PAGE: u32 = 1000;

/// What repairs what is missing.
const RUN_AGAIN: &str = "veriff-archive run --sessions FILE, with this session in the file, before Veriff deletes it";

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CoverageTally {
    /// Sessions that were expected.
    pub sessions: u64,
    /// Of these, those of which Veriff's lists were read.
    pub asked: u64,
    /// Attempts that Veriff listed.
    pub attempts: u64,
    /// Media items that Veriff listed.
    pub media: u64,
    /// Sessions that are archived with media and absent at Veriff now.
    pub absent_now: u64,
    /// Sessions that Veriff did not have when they were archived, nor has now.
    pub absent: u64,
    /// Sessions that a person accepted as lost.
    pub accepted: u64,
    /// Sessions older than Veriff keeps media.
    pub past_horizon: u64,
    /// Sessions that could not be asked for, wholly or in part.
    pub unasked: u64,
    /// Lines that are no session.
    pub bad_lines: u64,
}

impl AuditTally for CoverageTally {
    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.asked += other.asked;
        self.attempts += other.attempts;
        self.media += other.media;
        self.absent_now += other.absent_now;
        self.absent += other.absent;
        self.accepted += other.accepted;
        self.past_horizon += other.past_horizon;
        self.unasked += other.unasked;
        self.bad_lines += other.bad_lines;
    }

    fn checked(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sessions", self.sessions),
            ("sessions_asked", self.asked),
            ("attempts_listed", self.attempts),
            ("media_listed", self.media),
        ]
    }
}

/// A session that is expected to be archived.
#[derive(Debug, Clone)]
pub struct Expected {
    /// What the input or the ledger says of it.
    pub record: SessionRequest,
    /// The integration that the ledger looked for it in.
    pub integration: Option<String>,
    /// Where the ledger says that it stands.
    pub state: Option<State>,
}

impl Expected {
    fn of_row(row: SessionRow) -> Self {
        Self { integration: Some(row.integration), state: Some(row.state), record: row.record }
    }
}

/// Names the integration that a session is to be looked for in, if that is configured.
pub type NameOf<'a> = Box<dyn Fn(&Expected) -> Option<String> + 'a>;

/// Holds one session after another against Veriff and the store.
pub struct Coverage<'a> {
    /// The store.
    pub store: &'a dyn ReadStore,
    /// What the ledger knows, where there is one.
    pub ledger: Option<Arc<dyn Survey>>,
    /// The archive that the store is.
    pub archive: Option<ArchiveId>,
    /// Clients by the name of the integration; `None`: Veriff is not asked.
    pub clients: Option<BTreeMap<String, VeriffClient>>,
    /// Names the integration of a session, from what its record and the ledger say.
    pub integration_of: NameOf<'a>,
    /// Now.
    pub now: Timestamp,
    /// Sessions in a row that could not be asked for.
    pub unasked_in_a_row: AtomicU32,
}

impl std::fmt::Debug for Coverage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coverage").field("archive", &self.archive).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Coverage<'_> {
    /// Looks at one session.
    ///
    /// # Errors
    /// As the store's and the ledger's; fatal if Veriff refuses the key of an integration, retryable if it is away.
    pub async fn check(&self, mut expected: Expected) -> Result<Checked<CoverageTally>, AuditError> {
        let mut part = Checked::<CoverageTally>::default();
        part.tally.sessions = 1;
        if let (None, Some(ledger)) = (expected.state, &self.ledger)
            && let Some(row) = ledger.session(&expected.record.session_id).await?
        {
            expected.state = Some(row.state);
            expected.integration = Some(row.integration);
        }
        if expected.state == Some(State::Accepted) {
            part.tally.accepted = 1;
            return Ok(part);
        }
        let catalog = match &self.clients {
            None => None,
            Some(clients) => match self.ask(clients, &expected, &mut part).await? {
                Some(catalog) => Some(catalog),
                None => return Ok(part),
            },
        };
        // After Veriff: what a run beside the audit archived in the meantime is not missing.
        let session = &expected.record.session_id;
        let Some(standing) = self.standing(session, &mut part).await? else { return Ok(part) };
        let shadows = standing.shadowed().flat_map(shadow::findings);
        part.findings.extend(shadows.map(|finding| finding.session(session)));
        let newest = standing.manifest.as_ref();
        match (&standing.expired, &catalog) {
            // It is left as it stands: nothing more is archived of it.
            (Some(document), _) => part.findings.push(expired::finding(Severity::Info, session, document)),
            (None, None) => compare_alone(&expected, newest, &mut part),
            (None, Some(catalog)) => compare(&expected, catalog, newest, &mut part),
        }
        Ok(part)
    }

    /// Reads Veriff's lists of a session; nothing if they cannot be had, which is said.
    async fn ask(
        &self,
        clients: &BTreeMap<String, VeriffClient>,
        expected: &Expected,
        part: &mut Checked<CoverageTally>,
    ) -> Result<Option<Catalog>, AuditError> {
        let session = &expected.record.session_id;
        let unasked = |reason: String, repair: &str| {
            Finding::of(Severity::Warn, FindingCode::CoverageUnasked, repair)
                .session(session)
                .differs("Veriff's lists of the session", reason)
        };
        let Some(client) = (self.integration_of)(expected).and_then(|name| clients.get(&name)) else {
            part.tally.unasked = 1;
            let repair = "name its integration in the line or with --integration, and configure it";
            part.findings.push(unasked("its integration is unknown".to_owned(), repair));
            return Ok(None);
        };
        let catalog = match catalog::read(client, session, &SessionMeter::default()).await {
            Ok(catalog) => catalog,
            Err(error) if error.refuses_key() => return Err(error.into()),
            Err(error) => {
                let in_a_row = self.unasked_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
                if in_a_row >= UNASKED_IN_A_ROW && (error.code().is_retryable() || !client.was_answered()) {
                    return Err(error.into());
                }
                part.tally.unasked = 1;
                part.findings.push(unasked(format!("{}: {error}", error.code()), "repeat the audit"));
                return Ok(None);
            }
        };
        self.unasked_in_a_row.store(0, Ordering::Relaxed);
        part.tally.asked = 1;
        part.tally.attempts = catalog.attempts.len() as u64;
        part.tally.media = catalog.items.len() as u64;
        if !catalog.gaps.is_empty() {
            part.tally.unasked = 1;
            let codes: Vec<&str> = catalog.gaps.iter().map(|code| code.as_str()).collect();
            let reason = format!("some of them could not be read: {}", codes.join(", "));
            part.findings.push(unasked(reason, "repeat the audit; docs/runbook.md, Codes, explains the code"));
        }
        let began_at = catalog.created_at().into_iter().chain(expected.record.decided_at).max();
        let is_past = began_at.is_some_and(|at| at.plus(client.settings().horizon) < self.now);
        part.tally.past_horizon = u64::from(is_past);
        Ok(Some(catalog))
    }

    /// Looks at what the store has of a session; nothing if its newest manifest cannot be read, which is said.
    async fn standing(
        &self,
        session: &SessionId,
        part: &mut Checked<CoverageTally>,
    ) -> Result<Option<Standing>, AuditError> {
        let (key, reason) = match standing::inspect(self.store, self.archive.as_ref(), session).await {
            Ok(standing) => return Ok(Some(standing)),
            Err(InspectError::Store(error)) => return Err(error.into()),
            Err(InspectError::Damaged { key, reason }) => (key, reason),
            Err(InspectError::Foreign { key }) => (key, "belongs to another archive"),
        };
        let repair = "restore the version that the ledger or a run record names, from a copy";
        part.findings.push(
            Finding::of(Severity::Error, FindingCode::ManifestInvalid, repair)
                .session(session)
                .object(&key, None)
                .differs("the newest manifest of the session", reason),
        );
        Ok(None)
    }

    /// Tells once, at the end, what is good to know of many sessions.
    #[must_use]
    pub fn closing_findings(tally: &CoverageTally) -> Vec<Finding> {
        let mut findings = Vec::new();
        if tally.absent_now > 0 {
            findings.push(
                Finding::of(Severity::Info, FindingCode::CoverageAbsent, "nothing; the archive is now the only copy")
                    .differs(
                        "sessions that Veriff has",
                        format!("{} are archived, and gone at Veriff", tally.absent_now),
                    ),
            );
        }
        if tally.past_horizon > 0 {
            let repair = "nothing; for these, agreement with Veriff shows only that nothing more can be fetched there";
            let found = format!("{} are older than Veriff keeps media", tally.past_horizon);
            findings.push(
                Finding::of(Severity::Info, FindingCode::CoverageHorizon, repair)
                    .differs("sessions within the horizon", found),
            );
        }
        findings
    }
}

/// Says that nothing is archived of a session.
fn not_archived(expected: &Expected, severity: Severity, what: &str) -> Finding {
    let found = match expected.state {
        None => "no manifest".to_owned(),
        Some(state) => format!("no manifest; {state} in the ledger"),
    };
    // What waits for its turn is known to be undone.
    let severity = if expected.state == Some(State::Pending) { Severity::Warn } else { severity };
    Finding::of(severity, FindingCode::CoverageSession, RUN_AGAIN)
        .session(&expected.record.session_id)
        .differs(what, found)
}

/// Compares what is expected with the store alone.
fn compare_alone(expected: &Expected, newest: Option<&StandingManifest>, part: &mut Checked<CoverageTally>) {
    let session = &expected.record.session_id;
    let Some(newest) = newest else {
        part.findings.push(not_archived(expected, Severity::Error, "the session, archived"));
        return;
    };
    if newest.document.absent.is_some() && newest.document.totals.media == 0 {
        part.tally.absent = 1;
    }
    for item in &newest.document.missing {
        part.findings.push(
            of_manifest(Severity::Warn, FindingCode::CoverageMedia, session, &newest.place.key)
                .differs(format!("media {}", item.media_id), format!("missing, {}", item.code)),
        );
    }
}

/// Compares Veriff's lists with the newest manifest.
fn compare(
    expected: &Expected,
    catalog: &Catalog,
    newest: Option<&StandingManifest>,
    part: &mut Checked<CoverageTally>,
) {
    let session = &expected.record.session_id;
    let Some(newest) = newest else {
        part.findings.push(if catalog.absent.is_some() {
            not_archived(expected, Severity::Warn, "a manifest that says Veriff does not have the session")
        } else {
            let what = format!("{} attempts and {} media items", catalog.attempts.len(), catalog.items.len());
            not_archived(expected, Severity::Error, &what)
        });
        return;
    };
    let manifest = &newest.document;
    if catalog.absent.is_some() {
        part.tally.absent_now = u64::from(manifest.totals.media > 0);
        part.tally.absent = u64::from(manifest.totals.media == 0);
        return;
    }
    let key = &newest.place.key;
    compare_attempts(session, catalog, manifest, key, part);
    compare_media(session, catalog, manifest, key, part);
}

fn compare_attempts(
    session: &SessionId,
    catalog: &Catalog,
    manifest: &Manifest,
    key: &ObjectKey,
    part: &mut Checked<CoverageTally>,
) {
    let known: HashMap<&AttemptId, Option<&str>> =
        manifest.attempts.iter().map(|attempt| (&attempt.attempt_id, attempt.status.as_deref())).collect();
    for attempt in &catalog.attempts {
        let listed = attempt.status.as_deref();
        match known.get(&attempt.attempt_id) {
            None => {
                let finding = of_manifest(Severity::Error, FindingCode::CoverageAttempt, session, key);
                let expected = format!("attempt {}", attempt.attempt_id);
                part.findings.push(finding.differs(expected, "not in the newest manifest"));
            }
            // A status never goes back from final.
            Some(known) if known.is_some_and(is_final_status) && !listed.is_some_and(is_final_status) => {}
            Some(known) if listed.is_some() && *known != listed => {
                let finding = of_manifest(Severity::Warn, FindingCode::CoverageStatus, session, key);
                let expected = format!("attempt {}: {}", attempt.attempt_id, listed.unwrap_or_default());
                part.findings.push(finding.differs(expected, known.unwrap_or("no status")));
            }
            Some(_) => {}
        }
    }
}

fn compare_media(
    session: &SessionId,
    catalog: &Catalog,
    manifest: &Manifest,
    key: &ObjectKey,
    part: &mut Checked<CoverageTally>,
) {
    let archived: HashSet<&MediaId> = manifest.media().map(|(_, media)| &media.media_id).collect();
    for item in catalog.items.iter().filter(|item| !archived.contains(&item.media_id)) {
        let missing = manifest.missing.iter().find(|missing| missing.media_id == item.media_id);
        let found = missing.map_or_else(
            || "not in the newest manifest".to_owned(),
            |missing| format!("missing in the newest manifest, {}", missing.code),
        );
        part.findings.push(
            of_manifest(Severity::Error, FindingCode::CoverageMedia, session, key)
                .differs(format!("{} {} of attempt {}", item.kind.as_str(), item.media_id, item.attempt_id), found),
        );
    }
}

fn of_manifest(severity: Severity, code: FindingCode, session: &SessionId, key: &ObjectKey) -> Finding {
    Finding::of(severity, code, RUN_AGAIN).session(session).object(key, None)
}

/// Turns a list into steps, behind a place.
pub fn listed<'a>(
    source: Box<dyn Source>,
    from: &Mark,
) -> impl Stream<Item = Result<AuditStep<Option<Expected>>, AuditError>> + 'a {
    let skip = from.records;
    stream::try_unfold((source, 0), move |(mut source, mut seen)| async move {
        loop {
            let Some(delivery) = source.receive().await? else { return Ok(None) };
            seen += 1;
            if seen <= skip {
                continue;
            }
            let expected = match delivery.record {
                Ok(record) => Some(Expected { record, integration: None, state: None }),
                Err(bad) => {
                    tracing::warn!("{}: {}; passed over", delivery.place, bad.reason);
                    None
                }
            };
            let mark = Mark { records: seen, ..Mark::default() };
            return Ok(Some((AuditStep { mark, work: Some(expected) }, (source, seen))));
        }
    })
}

/// Lists the sessions that the ledger knows, all or those of the backlog, behind a place.
pub fn known(
    ledger: Arc<dyn Survey>,
    in_backlog: bool,
    from: &Mark,
) -> impl Stream<Item = Result<AuditStep<Option<Expected>>, AuditError>> {
    let filter = Filter { in_backlog, ..Filter::default() };
    let after = from.after.as_deref().and_then(cursor_of);
    let state = (ledger, filter, after, Vec::<ListedSession>::new().into_iter());
    stream::try_unfold(state, |(ledger, filter, mut after, mut page)| async move {
        if page.len() == 0 {
            page = ledger.list(&filter, after.as_ref(), PAGE).await?.into_iter();
        }
        let Some(listed) = page.next() else { return Ok(None) };
        let cursor = Cursor::behind(&listed.row);
        let mark = Mark { after: Some(text_of(&cursor)), ..Mark::default() };
        after = Some(cursor);
        let step = AuditStep { mark, work: Some(Some(Expected::of_row(listed.row))) };
        Ok(Some((step, (ledger, filter, after, page))))
    })
}

fn text_of(cursor: &Cursor) -> String {
    format!("{}|{}", cursor.deadline_at.map(|at| at.to_string()).unwrap_or_default(), cursor.session_id)
}

fn cursor_of(text: &str) -> Option<Cursor> {
    let (deadline, session) = text.split_once('|')?;
    Some(Cursor { deadline_at: deadline.parse().ok(), session_id: SessionId::parse(session).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_ledger_reads_back() {
        for deadline_at in [None, Some("2026-11-25T08:00:00.123Z".parse().unwrap())] {
            let cursor = Cursor { deadline_at, session_id: SessionId::parse("s-1").unwrap() };
            assert_eq!(cursor_of(&text_of(&cursor)), Some(cursor));
        }
        assert_eq!(cursor_of("nothing"), None);
    }
}
