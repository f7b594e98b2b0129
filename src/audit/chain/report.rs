//! Report: what the audit of the chain says and counts while it goes over the archive.

use std::collections::{BTreeMap, HashSet};
use std::io;

use crate::audit::{Finding, Findings};
use crate::model::RunId;
use crate::model::digest::Sha256Digest;

/// What to do about an object that is gone or has other bytes.
pub(super) const RESTORE: &str = "restore the object from a copy of the bucket; find out who changed it";

/// What stands for a run or its folder in memory, of which there may be very many: 16 bytes of its digest.
pub(super) type RunMark = [u8; 16];

/// Says and counts, or keeps still where an earlier part of the same audit has said it.
#[derive(Debug)]
pub(super) struct ChainReport<'a> {
    findings: &'a mut Findings,
    checked: &'a mut BTreeMap<String, u64>,
    /// Runs that wrote manifests.
    writers: &'a mut HashSet<RunMark>,
    is_muted: bool,
}

impl<'a> ChainReport<'a> {
    pub(super) fn to(
        findings: &'a mut Findings,
        checked: &'a mut BTreeMap<String, u64>,
        writers: &'a mut HashSet<RunMark>,
        is_muted: bool,
    ) -> Self {
        Self { findings, checked, writers, is_muted }
    }

    /// Tells whether an earlier part of this audit was here.
    pub(super) const fn is_muted(&self) -> bool {
        self.is_muted
    }

    /// Passes a finding on.
    ///
    /// # Errors
    /// As [`Findings::add`].
    #[expect(clippy::needless_pass_by_value, reason = "findings are created where they are reported")]
    pub(super) fn add(&mut self, finding: Finding) -> io::Result<()> {
        if self.is_muted { Ok(()) } else { self.findings.add(&finding) }
    }

    /// Counts what was looked at.
    pub(super) fn count(&mut self, what: &str, number: u64) {
        if !self.is_muted && number > 0 {
            *self.checked.entry(what.to_owned()).or_default() += number;
        }
    }

    /// Takes note of a run that wrote a manifest.
    pub(super) fn note_writer(&mut self, run: &RunId) {
        self.writers.insert(mark(run.as_str()));
    }
}

/// Returns what stands for a text.
pub(super) fn mark(text: &str) -> RunMark {
    let mut mark = RunMark::default();
    mark.copy_from_slice(&Sha256Digest::of(text.as_bytes()).as_bytes()[..16]);
    mark
}
