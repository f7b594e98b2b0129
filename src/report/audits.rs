//! What audits found, from their summaries: those that the ledger keeps, and those that auditors without a right to write
//! there kept in files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::data::{
    AuditLine, Audits, ChainGroup, ChainStatus, FixityCoverage, LastAudit, MonthOfLocks, RetentionCalendar, YearOfLocks,
};
use crate::audit::{AUDIT_SCHEMA, AuditKind, AuditSummary};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::ledger::AuditRow;
use crate::model::ArchiveId;
use crate::model::digest::Sha256Digest;

/// How long a re-read counts: a year, as most policies of fixity say.
const FIXITY_WINDOW: Duration = Duration::from_hours(365 * 24);

/// Every audit, what it compares, and how one does it.
const KINDS: [(AuditKind, &str, &str); 5] = [
    (AuditKind::Coverage, "Veriff and the archive", "veriff-archive audit coverage --ledger"),
    (AuditKind::Reconcile, "ledger and store", "veriff-archive audit reconcile"),
    (AuditKind::Fixity, "bytes and digests", "veriff-archive audit fixity --mode read --share 1/12"),
    (AuditKind::Retention, "locks and policy", RETENTION_COMMAND),
    (AuditKind::Chain, "run records, chain and key", CHAIN_COMMAND),
];

const RETENTION_COMMAND: &str = "veriff-archive audit retention";
const CHAIN_COMMAND: &str = "veriff-archive audit chain --public-key FILE";

const SHOWS: &[&str] = &[
    "A change to a run record, to what it names or to their order, made by anyone who does not have the signing key.",
    "A gap: a record or an entry removed from the middle of a chain.",
];

const DOES_NOT_SHOW: &[&str] = &[
    "The removal of the newest entries, unless the digest of the head is also stored elsewhere, such as in this \
     report, and given to the audit with --expect-head.",
    "Anything that whoever has the signing key rewrites and signs. Object Lock protects against that, and a key that \
     operators of the store cannot read.",
];

/// Why the result of an audit could not be taken from a file.
#[derive(Debug, thiserror::Error)]
pub enum AuditFileError {
    /// It cannot be read.
    #[error("cannot read the result of an audit from {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Nothing in it is the summary of an audit.
    #[error("no line of {} is the summary of an audit, which is the last line of an audit's output", path.display())]
    NoSummary {
        /// The file.
        path: PathBuf,
    },
}

impl AuditFileError {
    /// Returns the stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unreadable { .. } => Code::InputUnreadable,
            Self::NoSummary { .. } => Code::InputInvalid,
        }
    }
}

/// Reads the summaries of audits out of what they printed; findings are passed over, however many there are.
///
/// # Errors
/// Retryable: the file cannot be read. Permanent: there is no summary in it.
pub fn read_summaries(path: &std::path::Path) -> Result<Vec<AuditSummary>, AuditFileError> {
    let unreadable = |source| AuditFileError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut found = Vec::new();
    for line in io::BufReader::new(file).lines() {
        found.extend(parse(&line.map_err(unreadable)?));
    }
    if found.is_empty() { Err(AuditFileError::NoSummary { path: path.to_owned() }) } else { Ok(found) }
}

fn parse(text: &str) -> Option<AuditSummary> {
    serde_json::from_str(text).ok().filter(|summary: &AuditSummary| summary.schema == AUDIT_SCHEMA)
}

/// The summaries that count for one archive, newest first, each audit once.
#[derive(Debug, Default)]
pub(super) struct Known {
    summaries: Vec<AuditSummary>,
    older_left_out: bool,
    unreadable: u64,
    of_another_archive: u64,
}

impl Known {
    /// Puts together what the ledger and the files know.
    pub(super) fn of(
        rows: &[AuditRow],
        older_left_out: bool,
        given: Vec<AuditSummary>,
        archive: Option<&ArchiveId>,
    ) -> Self {
        let mut known = Self { older_left_out, ..Self::default() };
        let mut newest: BTreeMap<String, AuditSummary> = BTreeMap::new();
        let kept: Vec<AuditSummary> = rows.iter().filter_map(|row| parse(&row.summary)).collect();
        known.unreadable = (rows.len() - kept.len()) as u64;
        for summary in kept.into_iter().chain(given) {
            if archive.is_some_and(|ours| summary.archive_id.as_ref().is_some_and(|theirs| theirs != ours)) {
                known.of_another_archive += 1;
                continue;
            }
            match newest.get(&summary.audit_id) {
                Some(known) if known.finished_at >= summary.finished_at => {}
                _ => drop(newest.insert(summary.audit_id.clone(), summary)),
            }
        }
        known.summaries = newest.into_values().collect();
        known.summaries.sort_by(|a, b| b.finished_at.cmp(&a.finished_at).then_with(|| a.audit_id.cmp(&b.audit_id)));
        known
    }

    /// Returns the archive that the audits looked at, where the ledger does not know it.
    pub(super) fn archive_id(&self) -> Option<ArchiveId> {
        self.summaries.iter().find_map(|summary| summary.archive_id.clone())
    }

    fn of_kind(&self, kind: AuditKind) -> impl Iterator<Item = &AuditSummary> {
        self.summaries.iter().filter(move |summary| summary.audit == kind)
    }

    /// Returns the newest audit that looked at everything; else the newest complete one; else the newest.
    fn widest(&self, kind: AuditKind) -> Option<&AuditSummary> {
        let whole = self.of_kind(kind).find(|summary| summary.complete && summary.share.is_none());
        whole.or_else(|| self.of_kind(kind).find(|summary| summary.complete)).or_else(|| self.of_kind(kind).next())
    }

    pub(super) fn last(&self) -> Audits {
        let last = KINDS.map(|(audit, compares, command)| LastAudit {
            audit,
            compares,
            command,
            last: self.of_kind(audit).next().map(line),
        });
        Audits {
            known: self.summaries.len() as u64,
            older_left_out: self.older_left_out,
            unreadable: self.unreadable,
            of_another_archive: self.of_another_archive,
            last: last.into(),
        }
    }

    pub(super) fn fixity(&self, now: Timestamp) -> FixityCoverage {
        let since = now.minus(FIXITY_WINDOW);
        let recent: Vec<&AuditSummary> =
            self.of_kind(AuditKind::Fixity).filter(|summary| summary.finished_at >= since).collect();
        let of_mode = |mode: &'static str| {
            recent.iter().copied().filter(move |summary| summary.mode.as_deref() == Some(mode)).collect::<Vec<_>>()
        };
        let read = of_mode("read");
        let sum = |what: &str| read.iter().filter_map(|summary| summary.checked.get(what)).sum();
        FixityCoverage {
            since,
            read_percent: covered(&read),
            // Whoever reads an object compares all the rest as well.
            head_percent: covered(&[of_mode("head"), read.clone()].concat()),
            objects_read: sum("objects"),
            bytes_read: sum("bytes"),
            audits: recent.iter().copied().map(line).collect(),
            command: "veriff-archive audit fixity --mode read --share 1/12",
        }
    }

    pub(super) fn retention(&self) -> RetentionCalendar {
        let audit = self.widest(AuditKind::Retention);
        let lines = audit.map(calendar).unwrap_or_default();
        let unlocked = || lines.iter().filter(|line| line.until.is_none());
        let (unlocked_objects, unlocked_bytes) =
            (unlocked().map(|line| line.objects).sum(), unlocked().map(|line| line.bytes).sum());
        let months = months(lines);
        RetentionCalendar {
            unlocked_objects,
            unlocked_bytes,
            audited_at: audit.map(|audit| audit.finished_at),
            complete: audit.map(|audit| audit.complete),
            share: audit.and_then(|audit| audit.share.clone()),
            objects: months.iter().map(|month| month.objects).sum(),
            bytes: months.iter().map(|month| month.bytes).sum(),
            years: years(&months),
            months,
            command: RETENTION_COMMAND,
        }
    }

    pub(super) fn chain(&self) -> ChainStatus {
        let audit = self.widest(AuditKind::Chain);
        ChainStatus {
            audited_at: audit.map(|audit| audit.finished_at),
            complete: audit.map(|audit| audit.complete),
            errors: audit.map(|audit| audit.findings.error),
            groups: audit.map(groups).unwrap_or_default(),
            shows: SHOWS,
            does_not_show: DOES_NOT_SHOW,
            command: CHAIN_COMMAND,
        }
    }
}

fn line(summary: &AuditSummary) -> AuditLine {
    AuditLine {
        finished_at: summary.finished_at,
        complete: summary.complete,
        mode: summary.mode.clone(),
        share: summary.share.clone(),
        checked: summary.checked.clone(),
        errors: summary.findings.error,
        warnings: summary.findings.warn,
        notes: summary.findings.info,
        codes: summary.codes.clone(),
    }
}

/// Returns which share of the archive complete audits looked at together, in percent and rounded down to hundredths.
///
/// Of m parts, so many different ones are that share of m. Parts of different sizes, and samples, may overlap, so the
/// widest counts and not the sum.
fn covered(audits: &[&AuditSummary]) -> Option<f64> {
    let mut parts: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut widest: u64 = 0;
    for audit in audits.iter().filter(|audit| audit.complete) {
        let Some(share) = audit.share.as_deref() else {
            widest = PERCENT_MILLIONTHS;
            continue;
        };
        let part = share.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        if let Some((part, of)) = part.filter(|(part, of)| (1..=*of).contains(part)) {
            parts.entry(of).or_default().insert(part);
        } else if let Some(percent) = share.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok()) {
            widest = widest.max(millionths(percent));
        }
    }
    for (of, parts) in parts {
        widest = widest.max(PERCENT_MILLIONTHS * parts.len() as u64 / of);
    }
    (widest > 0).then(|| percent_of(widest, PERCENT_MILLIONTHS)).flatten()
}

/// A hundred percent.
const PERCENT_MILLIONTHS: u64 = 100_000_000;

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn millionths(percent: f64) -> u64 {
    (percent.clamp(0.0, 100.0) * 1_000_000.0).round() as u64
}

/// Returns a part of a whole in percent, rounded down to hundredths, so that only all of it is 100.
pub(super) fn percent_of(part: u64, whole: u64) -> Option<f64> {
    let hundredths = (u128::from(part) * 10_000).checked_div(u128::from(whole))?;
    u32::try_from(hundredths).ok().map(|hundredths| f64::from(hundredths) / 100.0)
}

/// A line of a calendar of locks, as `audit retention` reports it.
#[derive(Debug, Deserialize)]
struct CalendarLine {
    /// Nothing for objects that are not locked.
    until: Option<String>,
    mode: String,
    #[serde(default)]
    class: Option<String>,
    objects: u64,
    bytes: u64,
}

fn calendar(audit: &AuditSummary) -> Vec<CalendarLine> {
    let lines = audit.details.get("calendar").and_then(|lines| lines.as_array());
    lines.into_iter().flatten().filter_map(|line| CalendarLine::deserialize(line).ok()).collect()
}

fn months(lines: Vec<CalendarLine>) -> Vec<MonthOfLocks> {
    let month = |CalendarLine { until, mode, class, objects, bytes }| {
        until.map(|until| MonthOfLocks { until, mode, class, objects, bytes })
    };
    let mut months: Vec<MonthOfLocks> = lines.into_iter().filter_map(month).collect();
    months.sort_by(|a, b| (&a.until, &a.mode, &a.class).cmp(&(&b.until, &b.mode, &b.class)));
    months
}

/// More years than this between the first lock and the last are not filled in: somebody wrote a wrong date.
const YEARS_WITHOUT_GAPS: u16 = 60;

fn years(months: &[MonthOfLocks]) -> Vec<YearOfLocks> {
    let mut years: BTreeMap<u16, YearOfLocks> = BTreeMap::new();
    let empty = |year| YearOfLocks { year, objects: 0, bytes: 0, months: [0; 12] };
    for line in months {
        let date = line.until.split_once('-').and_then(|(year, month)| {
            let month: usize = month.parse().ok()?;
            Some((year.parse().ok()?, month.checked_sub(1)?))
        });
        let Some((year, month)) = date else { continue };
        let of_year = years.entry(year).or_insert_with(|| empty(year));
        of_year.objects += line.objects;
        of_year.bytes += line.bytes;
        if let Some(objects) = of_year.months.get_mut(month) {
            *objects += line.objects;
        }
    }
    let ends = years.keys().next().copied().zip(years.keys().next_back().copied());
    if let Some((first, last)) = ends.filter(|(first, last)| last - first < YEARS_WITHOUT_GAPS) {
        for year in first..=last {
            years.entry(year).or_insert_with(|| empty(year));
        }
    }
    years.into_values().collect()
}

/// A chain, as `audit chain` reports it.
#[derive(Debug, Deserialize)]
struct GroupLine {
    #[serde(default)]
    group: Option<String>,
    entries: u64,
    #[serde(default)]
    head_sha256: Option<Sha256Digest>,
    #[serde(default)]
    signed: u64,
    #[serde(default)]
    unsigned: u64,
    #[serde(default)]
    last_finished_at: Option<Timestamp>,
}

/// Reads the chains, by name or as a list.
fn groups(audit: &AuditSummary) -> Vec<ChainGroup> {
    let lines: Vec<(Option<&str>, &serde_json::Value)> = match audit.details.get("groups") {
        Some(serde_json::Value::Object(named)) => {
            named.iter().map(|(name, line)| (Some(name.as_str()), line)).collect()
        }
        Some(serde_json::Value::Array(lines)) => lines.iter().map(|line| (None, line)).collect(),
        _ => Vec::new(),
    };
    lines
        .into_iter()
        .filter_map(|(name, line)| {
            let line = GroupLine::deserialize(line).ok()?;
            Some(ChainGroup {
                group: name.map(str::to_owned).or(line.group)?,
                entries: line.entries,
                head_sha256: line.head_sha256,
                signed: line.signed,
                unsigned: line.unsigned,
                last_finished_at: line.last_finished_at,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::SeverityCounts;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn summary(kind: AuditKind, mode: Option<&str>, share: Option<&str>, finished_at: &str) -> AuditSummary {
        AuditSummary {
            schema: AUDIT_SCHEMA.to_owned(),
            audit_id: format!("{}-{finished_at}", kind.as_str()),
            audit: kind,
            mode: mode.map(str::to_owned),
            share: share.map(str::to_owned),
            archive_id: None,
            started_at: at("2026-01-01T00:00:00Z"),
            finished_at: at(finished_at),
            complete: true,
            checked: BTreeMap::from([("objects".to_owned(), 10), ("bytes".to_owned(), 1000)]),
            findings: SeverityCounts::default(),
            codes: BTreeMap::new(),
            details: serde_json::Value::Null,
            next: "nothing".to_owned(),
        }
    }

    fn read(share: Option<&str>, finished_at: &str) -> AuditSummary {
        summary(AuditKind::Fixity, Some("read"), share, finished_at)
    }

    fn fixity(audits: Vec<AuditSummary>) -> FixityCoverage {
        Known::of(&[], false, audits, None).fixity(at("2026-11-25T00:00:00Z"))
    }

    #[test]
    fn different_shares_add_up_and_the_same_share_twice_does_not() {
        let three = fixity(vec![
            read(Some("1/12"), "2026-01-10T00:00:00Z"),
            read(Some("2/12"), "2026-02-10T00:00:00Z"),
            read(Some("3/12"), "2026-03-10T00:00:00Z"),
            read(Some("3/12"), "2026-04-10T00:00:00Z"),
        ]);
        assert_eq!((three.read_percent, three.objects_read, three.bytes_read), (Some(25.0), 40, 4000));
        assert_eq!(fixity(vec![read(Some("1/3"), "2026-01-10T00:00:00Z")]).read_percent, Some(33.33));
        let whole = fixity(vec![read(None, "2026-01-10T00:00:00Z"), read(Some("1/2"), "2026-01-11T00:00:00Z")]);
        assert_eq!(whole.read_percent, Some(100.0));
    }

    #[test]
    fn what_is_too_old_or_was_stopped_or_looked_at_a_few_sessions_covers_nothing() {
        let stopped = AuditSummary { complete: false, ..read(None, "2026-01-10T00:00:00Z") };
        let audits =
            vec![read(None, "2025-11-24T23:59:59Z"), stopped, read(Some("a list of sessions"), "2026-02-01T00:00:00Z")];
        let found = fixity(audits);
        assert_eq!((found.read_percent, found.audits.len()), (None, 2));
        let sample = fixity(vec![read(Some("0.25%"), "2026-02-01T00:00:00Z")]);
        assert_eq!(sample.read_percent, Some(0.25));
        let head = fixity(vec![summary(AuditKind::Fixity, Some("head"), None, "2026-02-01T00:00:00Z")]);
        assert_eq!((head.read_percent, head.head_percent), (None, Some(100.0)));
    }

    #[test]
    fn a_percentage_is_100_only_of_all() {
        assert_eq!(percent_of(99_999, 100_000), Some(99.99));
        assert_eq!(percent_of(u64::MAX, u64::MAX), Some(100.0));
        assert_eq!(percent_of(1, 0), None);
    }

    #[test]
    fn a_calendar_becomes_years_without_gaps() {
        let mut audit = summary(AuditKind::Retention, None, None, "2026-11-01T00:00:00Z");
        audit.details = json!({"calendar": [
            {"until": "2033-12", "mode": "COMPLIANCE", "class": "default", "objects": 4, "bytes": 40},
            {"until": "2031-11", "mode": "COMPLIANCE", "class": "default", "objects": 3, "bytes": 30},
            {"until": "2031-11", "mode": "GOVERNANCE", "class": null, "objects": 1, "bytes": 10},
            {"until": null, "mode": "none", "class": "default", "objects": 5, "bytes": 50},
        ]});
        let calendar = Known::of(&[], false, vec![audit], None).retention();
        assert_eq!((calendar.objects, calendar.bytes), (8, 80));
        assert_eq!((calendar.unlocked_objects, calendar.unlocked_bytes), (5, 50));
        let years: Vec<_> = calendar.years.iter().map(|year| (year.year, year.objects)).collect();
        assert_eq!(years, [(2031, 4), (2032, 0), (2033, 4)]);
        assert_eq!((calendar.years[0].months[10], calendar.years[2].months[11]), (4, 4));
        assert_eq!(calendar.months[0].until, "2031-11");
    }

    #[test]
    fn chains_are_read_by_name_or_as_a_list() {
        let head = Sha256Digest::of(b"head");
        let chain = json!({"entries": 7, "head_sha256": head, "signed": 6, "unsigned": 1,
            "last_finished_at": "2026-11-20T00:00:00.000Z"});
        let mut listed = chain.clone();
        listed["group"] = "eu".into();
        for details in [json!({"groups": {"eu": chain}}), json!({"groups": [listed]})] {
            let audit = AuditSummary { details, ..summary(AuditKind::Chain, None, None, "2026-11-21T00:00:00Z") };
            let found = Known::of(&[], false, vec![audit], None).chain();
            let group = &found.groups[0];
            assert_eq!((group.group.as_str(), group.entries, group.signed, group.unsigned), ("eu", 7, 6, 1));
            assert_eq!(group.head_sha256, Some(head));
        }
    }

    #[test]
    fn an_audit_counts_once_and_only_for_its_archive() {
        let (ours, theirs) = (ArchiveId::random(), ArchiveId::random());
        let of = |archive: &ArchiveId, finished_at| {
            let mut audit = read(None, finished_at);
            audit.audit_id = "same".to_owned();
            audit.archive_id = Some(archive.clone());
            audit
        };
        let row = AuditRow {
            audit_id: "same".to_owned(),
            audit: "fixity".to_owned(),
            finished_at: at("2026-11-01T00:00:00Z"),
            summary: serde_json::to_string(&of(&ours, "2026-11-01T00:00:00Z")).unwrap(),
        };
        let odd = AuditRow { summary: "{}".to_owned(), ..row.clone() };
        let given = vec![of(&ours, "2026-11-02T00:00:00Z"), of(&theirs, "2026-11-03T00:00:00Z")];
        let audits = Known::of(&[row, odd], true, given, Some(&ours)).last();
        assert_eq!((audits.known, audits.of_another_archive, audits.unreadable), (1, 1, 1));
        let last = audits.last.iter().find(|last| last.audit == AuditKind::Fixity).unwrap();
        assert_eq!(last.last.as_ref().unwrap().finished_at, at("2026-11-02T00:00:00Z"));
        assert!(audits.older_left_out);
    }
}
