//! The document `report/v1`: every figure of the report, once. The page shows these and no others.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::audit::AuditKind;
use crate::clock::Timestamp;
use crate::ledger::State;
use crate::model::digest::Sha256Digest;
use crate::model::retention::{Mode, Period};
use crate::model::{ArchiveId, MediaKind, RunId};

/// The value of `schema` in a report.
pub const REPORT_SCHEMA: &str = "veriff-archive/report/v1";

/// What the archive holds, how it is kept and when that was last checked. Names no session, no item and nobody.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Report {
    /// Always `veriff-archive/report/v1`.
    pub schema: &'static str,
    /// When it was made; everything in it is as of this time.
    pub generated_at: Timestamp,
    /// The version of the program that made it.
    pub version: &'static str,
    /// The archive it is about, as far as that is known.
    pub archive_id: Option<ArchiveId>,
    /// There is a ledger. Without one all numbers of sessions are zero.
    pub ledger_exists: bool,
    /// What someone should do or look at, the most urgent first.
    pub attention: Vec<Attention>,
    /// Sessions by state, over time.
    pub sessions: Sessions,
    /// How long sessions still to be done have.
    pub horizon: Horizon,
    /// Sessions that are not archived, by code.
    pub failures: Vec<Failure>,
    /// Archived media, over time.
    pub volume: MediaVolume,
    /// Where the archive is kept, and whether that place can lock.
    pub store: StoreFacts,
    /// The retention policy in force when the report was made.
    pub policy: Vec<PolicyClass>,
    /// When locks end, as the last audit of them found.
    pub retention: RetentionCalendar,
    /// What was re-read in the last twelve months.
    pub fixity: FixityCoverage,
    /// The last result of every audit.
    pub audits: Audits,
    /// The chains of run records, as the last audit of them found.
    pub chain: ChainStatus,
    /// The latest runs, newest first.
    pub runs: Vec<RunSummary>,
}

/// Something that someone should do or look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Attention {
    /// How urgent.
    pub level: Level,
    /// What.
    pub text: String,
    /// The command to type, where there is one.
    pub command: Option<String>,
}

/// How urgent something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something is lost, or will be.
    Act,
    /// Something is not as it should be, or is not known.
    Look,
}

/// Sessions by state.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Sessions {
    /// All of them.
    pub total: u64,
    /// Those archived completely, in percent of all, rounded down; nothing without sessions.
    pub archived_percent: Option<f64>,
    /// All, by state.
    pub standing: StandingCounts,
    /// By the month in which they were first visited or added (UTC), without gaps, oldest first.
    pub months: Vec<MonthOfSessions>,
}

/// How many sessions are in each state; each session is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct StandingCounts {
    /// Archived, complete, and nothing more is expected.
    pub settled: u64,
    /// Archived and complete; Veriff may still add to it.
    pub unsettled: u64,
    /// Archived, and something is missing.
    pub incomplete: u64,
    /// Veriff does not have it; its answer is kept.
    pub absent: u64,
    /// The last visit failed; the code says why.
    pub failed: u64,
    /// Still to be done.
    pub pending: u64,
    /// Cannot be saved, and a person said so.
    pub accepted: u64,
}

/// The sessions of one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MonthOfSessions {
    /// The month, `YYYY-MM`.
    pub month: String,
    /// All of them.
    pub sessions: u64,
    /// Their current states.
    #[serde(flatten)]
    pub standing: StandingCounts,
}

/// How long sessions still to be done have until Veriff may delete their media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Horizon {
    /// `limits.horizon_alarm`.
    pub alarm: String,
    /// Sessions still to be done: pending, or failed in a way that may work later.
    pub open: u64,
    /// Those whose deadline has passed.
    pub past: u64,
    /// Those whose deadline comes within the alarm.
    pub within_alarm: u64,
    /// Those whose deadline is not known.
    pub unknown: u64,
    /// The nearest deadline.
    pub nearest_deadline_at: Option<Timestamp>,
    /// Whole days until then; negative once it has passed.
    pub days_left: Option<i64>,
    /// The same sessions by the whole days they have left.
    pub bins: Vec<HorizonBin>,
}

/// Sessions still to be done that have about the same time left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct HorizonBin {
    /// What is written below the bar: `past`, a range of days, or `unknown`.
    pub label: String,
    /// The least whole days left; nothing where the deadline has passed or is not known.
    pub from_days: Option<u64>,
    /// The most; nothing where there is no limit.
    pub to_days: Option<u64>,
    /// How many.
    pub sessions: u64,
}

/// Sessions that are in a state for a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Failure {
    /// The state.
    pub state: State,
    /// The code.
    pub code: String,
    /// How many.
    pub sessions: u64,
    /// A later run may succeed without anyone doing anything; nothing if this version does not know the code.
    pub retryable: Option<bool>,
    /// What it means, from the runbook.
    pub meaning: Option<String>,
    /// What repairs it, from the runbook.
    pub repair: Option<String>,
}

/// Archived media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MediaVolume {
    /// All items.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By kind.
    pub kinds: Vec<KindVolume>,
    /// By the month in which their session was first visited (UTC), without gaps, oldest first.
    pub months: Vec<MonthOfMedia>,
}

/// The media of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct KindVolume {
    /// The kind.
    pub kind: MediaKind,
    /// How many items.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The media of one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MonthOfMedia {
    /// The month, `YYYY-MM`.
    pub month: String,
    /// All items.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By kind; every kind that occurs at all has an entry.
    pub kinds: Vec<KindVolume>,
}

/// Where the archive is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct StoreFacts {
    /// The address, where one is configured.
    pub url: Option<String>,
    /// Such a store can lock objects at all; a directory cannot.
    pub can_lock: Option<bool>,
    /// What that means for the evidence.
    pub statement: String,
    /// What a look at the store found; nothing if the report was not asked to inspect it, or could not.
    pub check: Option<StoreCheck>,
    /// Why the store could not be inspected.
    pub check_failed: Option<String>,
}

/// What a look at the store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct StoreCheck {
    /// Keys have versions.
    pub versions: bool,
    /// Object Lock is on.
    pub locks: bool,
    /// The right that is missing to see whether Object Lock is on; it is taken to be.
    pub locks_assumed: Option<String>,
    /// The default retention of the bucket.
    pub default_lock: Option<String>,
    /// The store's clock minus ours, in milliseconds.
    pub clock_offset_ms: Option<i64>,
}

/// A retention class of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct PolicyClass {
    /// Its name.
    pub class: String,
    /// How strictly objects of this class are locked.
    pub mode: Mode,
    /// How long, counted from the decision where it is known, else from archiving.
    pub period: Option<Period>,
    /// The most, counted from archiving.
    pub max_period: Option<Period>,
    /// The legal ground.
    pub basis: String,
}

/// When locks end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct RetentionCalendar {
    /// When the audit that saw these locks ended; nothing if there was none.
    pub audited_at: Option<Timestamp>,
    /// That audit looked at everything it was to look at.
    pub complete: Option<bool>,
    /// The part of the archive it was to look at; nothing for all of it.
    pub share: Option<String>,
    /// Objects that are locked.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that are not.
    pub unlocked_objects: u64,
    /// Their bytes.
    pub unlocked_bytes: u64,
    /// By year, oldest first, without gaps.
    pub years: Vec<YearOfLocks>,
    /// By month, mode and class.
    pub months: Vec<MonthOfLocks>,
    /// The command that brings this up to date.
    pub command: &'static str,
}

/// Locks that end in one year.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct YearOfLocks {
    /// The year.
    pub year: u16,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects by month, January first.
    pub months: [u64; 12],
}

/// Locks of one mode and class that end in one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MonthOfLocks {
    /// The month in which they end, `YYYY-MM`.
    pub until: String,
    /// The mode, as the store keeps it.
    pub mode: String,
    /// The class, as their sidecars say.
    pub class: Option<String>,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was re-read.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct FixityCoverage {
    /// Audits that ended before this time do not count.
    pub since: Timestamp,
    /// The share of the archive that was read and hashed again since then, in percent: a lower bound, because parts of
    /// different sizes may overlap. Nothing if nothing was read.
    pub read_percent: Option<f64>,
    /// The same for audits that compared what the store keeps of objects, without reading them.
    pub head_percent: Option<f64>,
    /// Objects that were read since then, each as often as it was.
    pub objects_read: u64,
    /// Bytes that were read since then.
    pub bytes_read: u64,
    /// These audits, newest first.
    pub audits: Vec<AuditLine>,
    /// The command that re-reads everything within a year.
    pub command: &'static str,
}

/// The last result of every audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Audits {
    /// Results of audits that this report knows.
    pub known: u64,
    /// There are older ones in the ledger than were read.
    pub older_left_out: bool,
    /// Results that this version cannot read.
    pub unreadable: u64,
    /// Results that belong to another archive; they were left out.
    pub of_another_archive: u64,
    /// One entry a kind of audit.
    pub last: Vec<LastAudit>,
}

/// The last result of one kind of audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct LastAudit {
    /// Which audit.
    pub audit: AuditKind,
    /// What it compares.
    pub compares: &'static str,
    /// The command that does it.
    pub command: &'static str,
    /// How it ended last; nothing if no result is known.
    pub last: Option<AuditLine>,
}

/// How an audit ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct AuditLine {
    /// When.
    pub finished_at: Timestamp,
    /// It looked at all it was to look at.
    pub complete: bool,
    /// How it looked.
    pub mode: Option<String>,
    /// The part of the archive it was to look at; nothing for all of it.
    pub share: Option<String>,
    /// What it looked at, by what.
    pub checked: BTreeMap<String, u64>,
    /// Findings that say the archive is not what it must be.
    pub errors: u64,
    /// Findings worth a look.
    pub warnings: u64,
    /// Findings good to know.
    pub notes: u64,
    /// Findings by code.
    pub codes: BTreeMap<String, u64>,
}

/// The chains of run records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ChainStatus {
    /// When the audit that saw these chains ended; nothing if there was none.
    pub audited_at: Option<Timestamp>,
    /// That audit looked at everything it was to look at.
    pub complete: Option<bool>,
    /// It found errors.
    pub errors: Option<u64>,
    /// One entry a chain.
    pub groups: Vec<ChainGroup>,
    /// What a chain signed by the operator shows.
    pub shows: &'static [&'static str],
    /// What it does not show.
    pub does_not_show: &'static [&'static str],
    /// The command that brings this up to date.
    pub command: &'static str,
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ChainGroup {
    /// The group of workers that adds to it.
    pub group: String,
    /// How many entries it has.
    pub entries: u64,
    /// The digest of the newest entry, to be kept elsewhere.
    pub head_sha256: Option<Sha256Digest>,
    /// Entries with a signature that holds.
    pub signed: u64,
    /// Entries without one.
    pub unsigned: u64,
    /// When the newest run in it ended.
    pub last_finished_at: Option<Timestamp>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; nothing if it still runs or died.
    pub finished_at: Option<Timestamp>,
    /// How it exited.
    pub exit_code: Option<u8>,
    /// What that means.
    pub ended: &'static str,
    /// The version of the program.
    pub version: String,
    /// The kind of its source.
    pub source_kind: String,
    /// Sessions with new evidence.
    pub archived: u64,
    /// Sessions of which all was there.
    pub unchanged: u64,
    /// Sessions that Veriff does not have.
    pub absent: u64,
    /// Sessions that failed.
    pub failed: u64,
    /// Sessions released.
    pub pending: u64,
    /// Media items written.
    pub media: u64,
    /// Bytes of media written.
    pub bytes: u64,
}
