//! `audit reconcile`: do ledger and store tell the same story?
//!
//! Both sides pass in one order, once, in constant memory, and beside them what run records report of it.
//! The newest manifest of each session is read and everything that the ledger says of it compared with both; asked to look
//! at the listing only, or given an inventory report, what the ledger says is held against keys, versions and sizes alone.
//! Claims: that nothing is missing, hidden, covered or left over, and that no row of the ledger differs from what was
//! archived and reported. Two objects of one size that were swapped are for fixity to find.

mod compare;
mod elsewhere;
mod flow;
pub mod inventory;
mod lines;
pub mod merge;
mod order;
mod row;
mod runs;
mod signed;
mod spool;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use elsewhere::{Other, elsewhere};
pub use lines::{ReportedRuns, RunLines, SessionLines};
pub use runs::ListedRuns;

use self::compare::{behind, compare};
use self::lines::RunStanding;
use self::merge::Pair;
use self::signed::{RowContext, Word};
use self::words::{CHAIN, FIXITY, LOOK, REBUILD, UNREADABLE};
use super::evidence::{Evidence, FIND_OUT};
use super::reach::Reach;
use super::runner::AuditError;
use super::sessions::{AuditTally, Checked, listed};
use super::walk::WalkedSession;
use super::{Finding, FindingCode, Severity};
use crate::ledger::{DamagedRow, LedgerError, State, Survey, SurveyedSession};
use crate::model::key::{ObjectKey, SessionObject};
use crate::model::{ArchiveId, SessionId};
use crate::store::versions::KeyVersions;

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconcileMode {
    /// Lists the store and reads the manifests.
    Manifests,
    /// Lists the store.
    Listing,
    /// Reads an inventory report in place of listing the store.
    Inventory,
}

impl ReconcileMode {
    /// Returns the name that stands in the summary.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifests => "manifests",
            Self::Listing => "listing",
            Self::Inventory => "inventory",
        }
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReconcileTally {
    /// Sessions of either side.
    pub sessions: u64,
    /// Versions and delete markers that the store lists.
    pub versions: u64,
    /// Items that the ledger names.
    pub items: u64,
    /// Manifests that were read.
    pub manifests: u64,
    /// Run records that were compared.
    pub runs: u64,
    /// Lines of run records that were compared.
    #[serde(default)]
    pub lines: u64,
    /// Sessions of whose last visit no closed run record tells.
    #[serde(default)]
    pub untold: u64,
}

impl AuditTally for ReconcileTally {
    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.versions += other.versions;
        self.items += other.items;
        self.manifests += other.manifests;
        self.runs += other.runs;
        self.lines += other.lines;
        self.untold += other.untold;
    }

    fn checked(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sessions", self.sessions),
            ("versions", self.versions),
            ("items", self.items),
            ("manifests", self.manifests),
            ("runs", self.runs),
            ("lines", self.lines),
        ]
    }
}

/// Holds one session after another against the ledger.
#[derive(Debug)]
pub struct Reconcile<'a> {
    /// The store; nothing is asked of it with an inventory.
    pub reach: Reach<'a>,
    /// The ledger.
    pub ledger: &'a dyn Survey,
    /// The archive that the store is.
    pub archive: Option<ArchiveId>,
    /// How it looks.
    pub mode: ReconcileMode,
    /// How long Veriff keeps media, by integration, as far as that is configured.
    pub horizons: BTreeMap<String, Duration>,
    /// The runs whose lines were read.
    pub runs: ReportedRuns,
}

impl Reconcile<'_> {
    /// Looks at one session; once more if something is wrong and has changed since, because a run may be at work.
    ///
    /// # Errors
    /// As the store's and the ledger's.
    pub async fn check(&self, pair: Pair) -> Result<Checked<ReconcileTally>, AuditError> {
        let Some(session) = pair.walked.session_id() else {
            let mut findings = super::sessions::foreign_folder(&pair.walked);
            findings.extend(pair.damaged.as_ref().map(|damaged| damaged_row(damaged, None)));
            return Ok(Checked { findings, tally: tally_of(&pair) });
        };
        let part = self.look(&session, &pair).await?;
        if part.findings.is_empty() || self.mode == ReconcileMode::Inventory {
            return Ok(part);
        }
        // First the ledger, which is written last: so it cannot know more than the listing.
        let surveyed = self.ledger.survey_session(&session).await?;
        let walked = listed(self.reach.store(), &session).await?;
        let again = Pair::of(walked, surveyed, pair.lines.clone());
        if (&again.walked, &again.surveyed, &again.damaged) == (&pair.walked, &pair.surveyed, &pair.damaged) {
            return Ok(part);
        }
        self.look(&session, &again).await
    }

    async fn look(&self, session: &SessionId, pair: &Pair) -> Result<Checked<ReconcileTally>, AuditError> {
        let mut part = Checked { findings: Vec::new(), tally: tally_of(pair) };
        let surveyed = pair.surveyed.as_ref();
        if self.mode == ReconcileMode::Manifests {
            let row = surveyed.map(|surveyed| &surveyed.row);
            let mut evidence =
                Evidence::read(&self.reach, self.archive.as_ref(), session.clone(), &pair.walked, row).await?;
            part.findings.append(&mut evidence.findings);
            part.tally.manifests = evidence.manifests.len() as u64;
            part.findings.extend(evidence.unknown());
            let word = self.word(pair, &evidence).await?;
            part.tally.untold = u64::from(surveyed.is_some() && !word.is_reported);
            if let Some(newest) = &evidence.newest {
                for (_, media) in newest.media() {
                    let object = NamedObject::of(&media.key, media.version_id.as_deref(), Some(media.size_bytes));
                    part.findings.extend(stands(&evidence, &object));
                    let sidecar = media.key.sidecar();
                    let sidecar = NamedObject::of(&sidecar, media.sidecar_version_id.as_deref(), None);
                    part.findings.extend(stands(&evidence, &sidecar));
                }
                for conflict in &newest.conflicts {
                    let object = NamedObject::of(&conflict.key, conflict.version_id.as_deref(), None);
                    part.findings.extend(stands(&evidence, &object));
                    let sidecar = conflict.key.sidecar();
                    // Manifests of earlier versions do not name it.
                    let named = conflict.sidecar_sha256.map(|_| conflict.sidecar_version_id.as_deref());
                    let standing = evidence.own(&sidecar).and_then(|own| own.version_id.as_deref());
                    let sidecar = NamedObject::of(&sidecar, named.unwrap_or(standing), None);
                    part.findings.extend(stands(&evidence, &sidecar));
                }
                if let Some(surveyed) = surveyed {
                    part.findings.extend(compare(surveyed, &evidence, newest, &self.horizons, &word));
                }
            }
            if pair.damaged.is_none() {
                part.findings.extend(one_sided(session, surveyed, &evidence).or_else(|| dropped(session, pair)));
            }
            part.findings.extend(evidence.expired());
            part.findings.extend(word.differences.into_iter().map(|(severity, expected, found)| {
                let repair = if severity == Severity::Error { CHAIN } else { LOOK };
                let finding = Finding::of(severity, FindingCode::LedgerContradicts, repair);
                finding.session(session).differs(expected, found)
            }));
        } else {
            let mut evidence = Evidence::of_listing(session.clone(), &pair.walked);
            part.findings.append(&mut evidence.findings);
            // What a row names that cannot be read is not known.
            if pair.damaged.is_none() {
                part.findings.extend(by_listing(session, surveyed, &evidence, &pair.walked));
                part.findings.extend(one_sided(session, surveyed, &evidence));
            }
            part.findings.extend(evidence.expired());
        }
        part.findings.extend(pair.damaged.as_ref().map(|damaged| damaged_row(damaged, Some(session))));
        Ok(with_row(part, surveyed))
    }

    /// Asks what run records say of the last visit.
    async fn word(&self, pair: &Pair, evidence: &Evidence) -> Result<Word, AuditError> {
        let Some(surveyed) = &pair.surveyed else { return Ok(Word::default()) };
        let run = &surveyed.row.run_id;
        let run = match self.runs.standing(run) {
            Some(standing) => standing,
            None if surveyed.row.visits == 0 => RunStanding::Open,
            None => match self.ledger.record(run).await {
                // What is wrong with a run is found where runs are looked at.
                Ok(Some(_)) | Err(LedgerError::Damaged(_)) => RunStanding::Open,
                Ok(None) => RunStanding::Unknown,
                Err(error) => return Err(error.into()),
            },
        };
        let written: Vec<_> = evidence.manifests.iter().map(|facts| (facts.sequence, facts.archived_at)).collect();
        let known = RowContext {
            lines: &pair.lines.0,
            run,
            newest: evidence.newest.as_ref(),
            written: &written,
            horizon: self.horizons.get(&surveyed.row.integration).copied(),
        };
        Ok(signed::compare(surveyed, known))
    }
}

/// Adds what is wrong with a row by itself.
fn with_row(mut part: Checked<ReconcileTally>, surveyed: Option<&SurveyedSession>) -> Checked<ReconcileTally> {
    if let Some(surveyed) = surveyed {
        part.findings.extend(row::contradictions(surveyed).into_iter().map(|(expected, found)| {
            let finding = Finding::of(Severity::Error, FindingCode::LedgerContradicts, FIXITY);
            finding.session(&surveyed.row.record.session_id).differs(expected, found)
        }));
    }
    part
}

/// Tells of a row that cannot be read. An id that is none is not repeated.
fn damaged_row(damaged: &DamagedRow, session: Option<&SessionId>) -> Finding {
    let finding = Finding::of(Severity::Error, FindingCode::LedgerContradicts, UNREADABLE);
    let finding = finding.differs(format!("a {} that this program writes", damaged.column), "another value");
    match session {
        Some(session) => finding.session(session),
        None => finding,
    }
}

/// Finds a session that the ledger's own runs report and it does not know; none of its objects need be there.
fn dropped(session: &SessionId, pair: &Pair) -> Option<Finding> {
    let line = pair.lines.0.iter().rfind(|line| !line.is_adopted).filter(|_| pair.surveyed.is_none())?;
    let repair = "restore the ledger from a copy, or run the session again";
    let finding = Finding::of(Severity::Error, FindingCode::LedgerMissing, repair).session(session);
    Some(finding.differs(format!("a row of the ledger, as the record of run {} says", line.run_id), "none"))
}

fn tally_of(pair: &Pair) -> ReconcileTally {
    ReconcileTally {
        sessions: 1,
        versions: pair.walked.keys.iter().flat_map(KeyVersions::all).count() as u64,
        lines: pair.lines.0.len() as u64,
        items: pair.surveyed.as_ref().map_or(0, |surveyed| surveyed.media.len() as u64),
        ..ReconcileTally::default()
    }
}

/// An object as a document or the ledger names it.
struct NamedObject<'a> {
    key: &'a ObjectKey,
    version_id: Option<&'a str>,
    size_bytes: Option<u64>,
}

impl<'a> NamedObject<'a> {
    const fn of(key: &'a ObjectKey, version_id: Option<&'a str>, size_bytes: Option<u64>) -> Self {
        Self { key, version_id, size_bytes }
    }
}

/// Tells what is wrong with an object that is named. What is gone may have been expired by plan.
fn stands(evidence: &Evidence, named: &NamedObject<'_>) -> Option<Finding> {
    let listed = match evidence.item(named.key, named.version_id) {
        Ok(listed) => listed?,
        Err(finding) => return Some(*finding),
    };
    let size_bytes = named.size_bytes.filter(|size_bytes| *size_bytes != listed.size_bytes)?;
    let finding = evidence.finding(Severity::Error, FindingCode::ObjectSize, named.key, named.version_id, FIND_OUT);
    Some(finding.differs(format!("{size_bytes} bytes"), format!("{} bytes", listed.size_bytes)))
}

/// Tells of a session that only one side has.
fn one_sided(session: &SessionId, surveyed: Option<&SurveyedSession>, evidence: &Evidence) -> Option<Finding> {
    let has_manifest = evidence.has_manifest();
    match surveyed {
        None if has_manifest => Some(
            Finding::of(Severity::Error, FindingCode::LedgerMissing, REBUILD)
                .session(session)
                .differs("a row of the ledger", "none; the store has a manifest"),
        ),
        _ => None,
    }
}

/// Holds what the ledger names against the listing alone.
fn by_listing(
    session: &SessionId,
    surveyed: Option<&SurveyedSession>,
    evidence: &Evidence,
    walked: &WalkedSession,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut named = HashSet::new();
    let mut is_finished = false;
    if let Some(surveyed) = surveyed {
        let row = &surveyed.row;
        is_finished = row.state == State::Archived && row.settled;
        if let Some(manifest) = &row.manifest {
            let missing = evidence.named(&manifest.key, manifest.version_id.as_deref());
            found.extend(missing.err().map(|finding| *finding));
        }
        for media in &surveyed.media {
            let object = NamedObject::of(&media.key, media.version_id.as_deref(), Some(media.size_bytes));
            found.extend(stands(evidence, &object));
            let sidecar = media.key.sidecar();
            if evidence.own(&sidecar).is_none() && !evidence.is_expired() {
                let finding = evidence.finding(Severity::Error, FindingCode::SidecarInvalid, &sidecar, None, FIND_OUT);
                found.push(finding.differs("a sidecar", "nothing"));
            }
            named.insert(sidecar);
            named.insert(media.key.clone());
        }
        // Which conflicts there are, only manifests tell.
        named.extend(walked.keys.iter().map(|listed| &listed.key).filter(|key| is_conflict(session, key)).cloned());
        let known = row.manifest.as_ref().map_or(0, |known| known.sequence);
        if let Some((_, newest)) = evidence.newest_listed().filter(|(sequence, _)| *sequence > known) {
            let known = row.manifest.as_ref().map_or("no manifest", |known| known.key.as_str());
            found.push(behind(surveyed, evidence, newest, known));
        }
    }
    found.extend(evidence.strangers(&named, is_finished));
    found
}

fn is_conflict(session: &SessionId, key: &ObjectKey) -> bool {
    match key.read_as(session) {
        SessionObject::Conflict => true,
        SessionObject::Sidecar { of } => of.read_as(session) == SessionObject::Conflict,
        _ => false,
    }
}
