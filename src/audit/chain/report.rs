//! Report: what the audit of the chain says and counts while it goes over the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::{Deserialize, Serialize};

use crate::audit::Finding;
use crate::audit::runner::{AuditProgress, Runner};
use crate::model::RunId;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;

/// What to do about an object that is gone or has other bytes.
pub(super) const RESTORE: &str = "restore the object from a copy of the bucket; find out who changed it";

/// Stands for a run or its folder in memory, of which there may be very many: 16 bytes of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct RunMark([u8; 16]);

/// How far an audit of the chain is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChainProgress {
    /// The last entry that was checked with its run.
    pub(super) after: Option<ObjectKey>,
    checked: BTreeMap<String, u64>,
    /// Runs that wrote manifests.
    pub(super) writers: BTreeSet<RunMark>,
}

impl AuditProgress for ChainProgress {
    fn begin(_: String) -> Self {
        Self::default()
    }

    fn checked(&self) -> BTreeMap<String, u64> {
        self.checked.clone()
    }

    fn place(&self) -> &str {
        self.after.as_ref().map_or("", ObjectKey::as_str)
    }
}

/// Says and counts, or keeps still where an earlier part of the same audit has said it.
#[derive(Debug)]
pub(super) struct ChainReport<'a> {
    runner: &'a mut Runner<ChainProgress>,
    is_muted: bool,
}

impl<'a> ChainReport<'a> {
    pub(super) const fn to(runner: &'a mut Runner<ChainProgress>, is_muted: bool) -> Self {
        Self { runner, is_muted }
    }

    /// Tells whether an earlier part of this audit was here.
    pub(super) const fn is_muted(&self) -> bool {
        self.is_muted
    }

    /// Passes a finding on.
    ///
    /// # Errors
    /// As [`Findings::add`](crate::audit::Findings::add).
    #[expect(clippy::needless_pass_by_value, reason = "findings are created where they are reported")]
    pub(super) fn add(&mut self, finding: Finding) -> io::Result<()> {
        if self.is_muted { Ok(()) } else { self.runner.findings.add(&finding) }
    }

    /// Counts what was looked at.
    pub(super) fn count(&mut self, what: &str, number: u64) {
        if !self.is_muted && number > 0 {
            *self.runner.progress.checked.entry(what.to_owned()).or_default() += number;
        }
    }

    /// Takes note of a run that wrote a manifest.
    pub(super) fn note_writer(&mut self, run: &RunId) {
        self.runner.progress.writers.insert(RunMark::of(run.as_str()));
    }
}

impl RunMark {
    /// Returns what stands for a text.
    pub(super) fn of(text: &str) -> Self {
        let mut mark = [0; 16];
        mark.copy_from_slice(&Sha256Digest::of(text.as_bytes()).as_bytes()[..16]);
        Self(mark)
    }
}

impl From<RunMark> for String {
    fn from(mark: RunMark) -> Self {
        hex::encode(mark.0)
    }
}

impl TryFrom<String> for RunMark {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut mark = [0; 16];
        hex::decode_to_slice(text, &mut mark)?;
        Ok(Self(mark))
    }
}
