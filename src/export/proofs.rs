//! Proofs: that what is in the bag is in the signed record of a run.
//!
//! Made for many sessions at once, from the runs that wrote their manifests, the newest first. The signature in a proof is
//! checked by whoever has the public key, not here; but a signed line that names another manifest than the one in the bag is
//! reported as a problem.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{ProofView, SessionView};
use super::{Export, ExportError};
use crate::audit::{Finding, FindingCode, Severity};
use crate::model::key::ObjectKey;
use crate::model::run::{RunLine, RunRecord};
use crate::model::{RunId, SessionId};
use crate::prove::{Proof, ProveError, find_in_run};

impl Export<'_> {
    /// Adds the proofs of these sessions to the bag.
    pub(super) async fn prove(&mut self, views: &mut [SessionView]) -> Result<(), ExportError> {
        for depth in 0.. {
            let mut runs: BTreeMap<RunId, BTreeSet<SessionId>> = BTreeMap::new();
            for view in views.iter().filter(|view| view.proofs.is_empty()) {
                if let Some((run, session)) = view.nth_run(depth) {
                    runs.entry(run).or_default().insert(session);
                }
            }
            if runs.is_empty() {
                return Ok(());
            }
            for (run, sessions) in runs {
                let proofs = match find_in_run(self.store, &run, &sessions).await {
                    Ok(proofs) => proofs,
                    Err(ProveError::Store(error)) => return Err(error.into()),
                    Err(ProveError::NotFound(_)) => Vec::new(),
                    Err(ProveError::Damaged { key, reason }) => {
                        self.unproved(&run, &key, &reason)?;
                        Vec::new()
                    }
                };
                for proof in proofs {
                    if let Some(view) = views.iter_mut().find(|view| view.session_id == proof.session_id.as_str()) {
                        self.add_proof(view, &proof)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn add_proof(&mut self, view: &mut SessionView, proof: &Proof) -> Result<(), ExportError> {
        let named = RunLine::parse(proof.line.as_bytes()).and_then(|line| line.manifest);
        let Some((named, record)) = named.zip(RunRecord::parse(proof.run.as_bytes())) else { return Ok(()) };
        match view.manifest_sha256(&named.key) {
            Some(sha256) if sha256 != named.sha256.to_string() => {
                let repair = "find out which of the two was changed: veriff-archive audit chain";
                let finding = Finding::of(Severity::Error, FindingCode::ManifestInvalid, repair)
                    .session(&proof.session_id)
                    .run(&proof.run_id)
                    .object(&named.key, named.version_id.as_deref())
                    .differs(format!("{}, as the run record says", named.sha256), sha256);
                return self.tell(view, &finding);
            }
            // A manifest that is not in the bag was already reported.
            None => return Ok(()),
            Some(_) => {}
        }
        let mut bytes = serde_json::to_vec(proof).map_err(|error| self.unwritable(error.into()))?;
        bytes.push(b'\n');
        let file = format!("proofs/{}.json", proof.run_id);
        self.add(&proof.session_id, &file, &bytes)?;
        self.answer.proofs += 1;
        view.proofs.push(ProofView {
            file,
            run_id: proof.run_id.to_string(),
            at: record.finished_at.to_string(),
            text: format!(
                "Entered in the run's signed record, line {} of {}, with {}; signed with key {}",
                proof.leaf_index + 1,
                proof.tree_size,
                named.key,
                proof.key_id
            ),
        });
        Ok(())
    }

    /// Reports, once, that the record of a run is damaged.
    fn unproved(&mut self, run: &RunId, key: &ObjectKey, reason: &str) -> Result<(), ExportError> {
        if !self.damaged_records.insert(key.clone()) {
            return Ok(());
        }
        let finding = Finding::of(Severity::Error, FindingCode::RecordInvalid, "veriff-archive audit chain");
        self.problem(&finding.run(run).object(key, None).differs("a run record that matches its lines", reason))
    }
}
