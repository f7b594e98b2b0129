//! Runs: every run that the ledger calls closed against the record that stands in the store.

use std::collections::HashSet;

use futures_util::{Stream, stream};

use super::words::{RECORD, RESTORE, UNREADABLE};
use super::{Other, Reconcile, ReconcileTally};
use crate::audit::runner::AuditError;
use crate::audit::sessions::{AuditStep, Checked, Mark};
use crate::audit::{Finding, FindingCode, Severity};
use crate::ledger::{ClosedRun, DamagedRow, Survey, Surveyed};
use crate::model::RunId;
use crate::model::key::{ObjectKey, StoreObject};
use crate::model::run::{RunCounts, RunRecord};

/// How many runs are read from the ledger at once.
pub(super) const PAGE: u32 = 256;

/// The documents of runs that an inventory report lists. Runs are few beside sessions, so their keys are kept.
#[derive(Debug, Default)]
pub struct ListedRuns(HashSet<ObjectKey>);

impl ListedRuns {
    /// Notes what closes a run, if this is it.
    pub fn note(&mut self, other: &Other) {
        let Other(listed) = other;
        if matches!(listed.key.read(), StoreObject::RunRecord(_) | StoreObject::ChainEntry(..)) && listed.own.is_some()
        {
            self.0.insert(listed.key.clone());
        }
    }

    /// Holds a run of the ledger against what is listed: its record and its entry are there.
    #[must_use]
    pub fn check(&self, run: &Surveyed<ClosedRun>) -> Checked<ReconcileTally> {
        let run = match run {
            Ok(run) => run,
            Err(damaged) => return damaged_run(damaged),
        };
        let mut part = Checked { findings: Vec::new(), tally: ReconcileTally { runs: 1, ..ReconcileTally::default() } };
        let entry = ObjectKey::chain_entry(&run.record.group, run.record.number);
        for (key, what) in [(&run.record.key, "the run record"), (&entry, "the entry of its chain")] {
            if !self.0.contains(key) {
                let finding = Finding::of(Severity::Error, FindingCode::ObjectMissing, RESTORE).run(&run.run_id);
                part.findings.push(finding.object(key, None).differs(what, "nothing"));
            }
        }
        part
    }
}

impl Reconcile<'_> {
    /// Lists the closed runs of the ledger. They are few, and looked at again from the first when the audit is gone on with.
    pub fn runs<'s>(
        ledger: &'s dyn Survey,
        mark: &'s Mark,
    ) -> impl Stream<Item = Result<AuditStep<Surveyed<ClosedRun>>, AuditError>> + 's {
        let begin = (Vec::<Surveyed<ClosedRun>>::new().into_iter(), None, false);
        stream::unfold(begin, move |(mut page, mut after, is_at_end)| async move {
            if page.len() == 0 && !is_at_end {
                page = match ledger.closed_runs(after.as_deref(), PAGE).await {
                    Ok(runs) => runs.into_iter(),
                    Err(error) => return Some((Err(error.into()), (Vec::new().into_iter(), None, true))),
                };
            }
            let run = page.next()?;
            after = Some(run_id_of(&run).to_owned());
            Some((Ok(AuditStep { mark: mark.clone(), work: Some(run) }), (page, after, false)))
        })
    }

    /// Holds a run of the ledger against its record.
    ///
    /// # Errors
    /// As the store's.
    pub async fn check_run(&self, run: Surveyed<ClosedRun>) -> Result<Checked<ReconcileTally>, AuditError> {
        let run = match run {
            Ok(run) => run,
            Err(damaged) => return Ok(damaged_run(&damaged)),
        };
        let mut part = Checked { findings: Vec::new(), tally: ReconcileTally { runs: 1, ..ReconcileTally::default() } };
        let finding = |code, repair: &str| {
            Finding::of(Severity::Error, code, repair).run(&run.run_id).object(&run.record.key, None)
        };
        let Some(document) = self.reach.read_own(&run.record.key).await?.found() else {
            part.findings.push(finding(FindingCode::ObjectMissing, RESTORE).differs("the run record", "nothing"));
            return Ok(part);
        };
        let mut differs = |what: &str, store: String, ledger: String| {
            if store != ledger {
                let finding = finding(FindingCode::LedgerContradicts, RECORD);
                part.findings.push(finding.differs(format!("{what} {store}, as the run record says"), ledger));
            }
        };
        differs("record_sha256", document.sha256.to_string(), run.record.sha256.to_string());
        if let Some(record) = RunRecord::parse(&document.bytes) {
            differs("run_id", record.run_id.to_string(), run.run_id.to_string());
            differs("started_at", record.started_at.to_string(), run.started_at.to_string());
            differs("version", record.version.clone(), run.version.clone());
            differs("source_kind", record.source.kind.clone(), run.source_kind.clone());
            differs("chain_group", record.group.clone(), run.record.group.clone());
            // The ledger knows how a run ended only from the run itself.
            if record.closed_by == record.run_id {
                let code = |code: Option<u8>| code.map_or_else(|| "none".to_owned(), |code| code.to_string());
                differs("exit_code", code(record.exit_code), code(run.exit_code));
                for ((what, store), (_, ledger)) in counts_of(&record.counts).into_iter().zip(counts_of(&run.counts)) {
                    differs(what, store.to_string(), ledger.to_string());
                }
            }
        }
        let entry = ObjectKey::chain_entry(&run.record.group, run.record.number);
        match self.reach.read_own(&entry).await?.found() {
            Some(found) => {
                differs("chain_sha256", found.sha256.to_string(), run.record.entry_sha256.to_string());
            }
            None => part.findings.push(
                Finding::of(Severity::Error, FindingCode::ObjectMissing, RESTORE)
                    .run(&run.run_id)
                    .object(&entry, None)
                    .differs("the entry of its chain", "nothing"),
            ),
        }
        Ok(part)
    }
}

/// Lists what a run counted, by column.
const fn counts_of(counts: &RunCounts) -> [(&'static str, u64); 7] {
    let RunCounts { archived, unchanged, absent, failed, pending, media, bytes } = *counts;
    [
        ("archived", archived),
        ("unchanged", unchanged),
        ("absent", absent),
        ("failed", failed),
        ("pending", pending),
        ("media", media),
        ("bytes", bytes),
    ]
}

/// Returns the id of a run, as it stands.
pub(super) fn run_id_of(run: &Surveyed<ClosedRun>) -> &str {
    match run {
        Ok(run) => run.run_id.as_str(),
        Err(damaged) => &damaged.id,
    }
}

/// Tells of a row that cannot be read. An id that is none is not repeated.
fn damaged_run(damaged: &DamagedRow) -> Checked<ReconcileTally> {
    let finding = Finding::of(Severity::Error, FindingCode::LedgerContradicts, UNREADABLE);
    let finding = finding.differs(format!("a {} that this program writes", damaged.column), "another value");
    let finding = match RunId::parse(&damaged.id) {
        Ok(run) => finding.run(&run),
        Err(_) => finding,
    };
    Checked { findings: vec![finding], tally: ReconcileTally { runs: 1, ..ReconcileTally::default() } }
}
