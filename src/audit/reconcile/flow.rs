//! Flow: what this audit goes through, from a listing of the store or from an inventory report.

use super::inventory::Inventory;
use super::merge::{Merge, StoreListing};
use super::{ListedRuns, Other, Reconcile, ReconcileMode, ReconcileTally, RunLines, elsewhere};
use crate::audit::runner::AuditError;
use crate::audit::sessions::{Mark, SESSIONS_IN_FLIGHT, SessionsRunner};
use crate::audit::walk::Walk;
use crate::audit::{Finding, FindingCode, Severity};
use crate::store::versions::KeyVersions;

impl Reconcile<'_> {
    /// Takes the store as it lists itself, then what belongs to no session, then the runs of the ledger. What run records
    /// report is read first, where manifests are.
    ///
    /// # Errors
    /// As the store's, the ledger's and the runner's.
    pub async fn run(&mut self, runner: &mut SessionsRunner<ReconcileTally>) -> Result<(), AuditError> {
        let from = runner.progress.mark.clone();
        let mut lines = None;
        if self.mode == ReconcileMode::Manifests && !from.past_sessions {
            let read = runner.unless_stopped(RunLines::read(&self.reach, self.ledger)).await;
            let Some((read, runs, found)) = read.transpose()? else { return Ok(()) };
            tracing::info!("read {} run lines", read.count);
            (lines, self.runs) = (Some(read), runs);
            // What is wrong with run records is passed on when the audit begins, not when it resumes.
            if from.after.is_none() {
                runner.findings.add_all(found)?;
            }
        }
        if !from.past_sessions {
            let after = from.after.as_deref();
            let merge = Merge::of(StoreListing::Walk(Walk::of(self.reach.store(), after)), self.ledger, after);
            let steps = merge.with(lines.as_mut()).steps();
            runner.run(steps, SESSIONS_IN_FLIGHT, |pair| self.check(pair)).await?;
        }
        let steps = elsewhere(self.reach.store(), &from);
        runner.run(steps, SESSIONS_IN_FLIGHT, |other| self.check_other(other)).await?;
        let mark = runner.progress.mark.clone();
        runner.run(Self::runs(self.ledger, &mark), SESSIONS_IN_FLIGHT, |run| self.check_run(run)).await
    }

    /// Takes the same from a report, in which keys before and behind those of sessions come in their place.
    ///
    /// # Errors
    /// As [`Reconcile::run`]; permanent if the report does not say enough.
    pub async fn run_on_report(
        &self,
        inventory: &mut Inventory,
        runner: &mut SessionsRunner<ReconcileTally>,
    ) -> Result<(), AuditError> {
        let from = runner.progress.mark.clone();
        let (mut has_archive, mut runs) = (false, ListedRuns::default());
        while let Some(listed) = inventory.next_other()? {
            has_archive |= listed.key.as_str() == "archive.json";
            self.other(listed, &mut runs, runner).await?;
        }
        if !has_archive {
            let repair = "use a report of the bucket of store.url that is newer than the archive; else restore \
                 archive.json";
            let finding = Finding::of(Severity::Error, FindingCode::ArchiveInvalid, repair);
            runner.add_at_first([finding.differs("archive.json in the report", "nothing")])?;
        }
        if let Some(after) = &from.after {
            inventory.skip_sessions(&format!("{after}/"))?;
        }
        let steps = Merge::of(StoreListing::Inventory(inventory), self.ledger, from.after.as_deref()).steps();
        runner.run(steps, SESSIONS_IN_FLIGHT, |pair| self.check(pair)).await?;
        if runner.stopped.is_some() {
            return Ok(());
        }
        while let Some(listed) = inventory.next_other()? {
            self.other(listed, &mut runs, runner).await?;
        }
        let mark = Mark { past_sessions: true, ..runner.progress.mark.clone() };
        let check = async |run| Ok(runs.check(&run));
        runner.run(Self::runs(self.ledger, &mark), SESSIONS_IN_FLIGHT, check).await
    }

    async fn other(
        &self,
        listed: KeyVersions,
        runs: &mut ListedRuns,
        runner: &mut SessionsRunner<ReconcileTally>,
    ) -> Result<(), AuditError> {
        let other = Other(listed);
        runs.note(&other);
        let mark = runner.progress.mark.clone();
        let checked = self.check_other(other).await?;
        runner.take(Mark { past_sessions: true, ..mark.clone() }, Some(checked))?;
        runner.progress.mark = mark;
        Ok(())
    }
}
