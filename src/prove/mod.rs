//! Prove: that a session, or one media item of it, is in a signed run.
//!
//! A proof is one small document: the line of the run record, the path from it to the Merkle root, the record with that root
//! and its signature, and the entry of the chain. Whoever has it and the public key needs neither the archive nor this
//! program. What it says of itself counts for nothing: checking computes everything from the signed bytes.

mod many;
mod path;
mod search;

use serde::{Deserialize, Serialize};

pub use many::find_in_run;
pub use search::{ProveError, find};

use crate::audit::chain::seal::is_signature;
use crate::audit::{Finding, FindingCode, Severity};
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::merkle::{leaf, root_from};
use crate::model::run::{ChainEntry, LineItem, RunLine, RunRecord};
use crate::model::signature::PublicKey;
use crate::model::{ArchiveId, MediaId, RunId, SessionId};

/// The value of `schema` in a proof.
pub const PROOF_SCHEMA: &str = "veriff-archive/prove/v1";

/// That a line is in a signed run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Proof {
    /// Always `veriff-archive/prove/v1`.
    pub schema: String,
    /// The archive.
    pub archive_id: ArchiveId,
    /// The session.
    pub session_id: SessionId,
    /// The media item, if one was asked for.
    pub media_id: Option<MediaId>,
    /// The run.
    pub run_id: RunId,
    /// The line of the run record, byte for byte, without its newline.
    pub line: String,
    /// Which line it is; the first is 0.
    pub leaf_index: u64,
    /// How many lines the run record has.
    pub tree_size: u64,
    /// The path of RFC 6962 from the line to the root, nearest sibling first.
    pub path: Vec<Sha256Digest>,
    /// The root.
    pub merkle_root: Sha256Digest,
    /// The key of the run record.
    pub run_key: ObjectKey,
    /// The run record, byte for byte.
    pub run: String,
    /// Its signature, base64.
    pub run_signature: String,
    /// The key that signed it, as the record says.
    pub key_id: Sha256Digest,
    /// The entry of the chain, if the record was entered.
    pub chain: Option<ProofEntry>,
}

/// The entry of a chain that names the run record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProofEntry {
    /// Its key.
    pub key: ObjectKey,
    /// The entry, byte for byte.
    pub entry: String,
    /// Its signature, base64; nothing if it is not signed.
    pub signature: Option<String>,
}

/// The digest and length of a file that somebody has of the media item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigest {
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
    /// Its length.
    pub size_bytes: u64,
}

/// What a proof shows, once nothing in it was found wrong.
#[derive(Debug)]
pub struct Shown {
    /// The line.
    pub line: Option<RunLine>,
    /// The item that was asked for, or that the file is.
    pub item: Option<LineItem>,
    /// The record.
    pub record: Option<RunRecord>,
    /// The given key that signed it.
    pub signed_by: Option<Sha256Digest>,
    /// The entry, and the digest of its bytes.
    pub entry: Option<(ChainEntry, Sha256Digest)>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Proof {
    /// Reads a proof; nothing if it is not one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|proof: &Self| proof.schema == PROOF_SCHEMA)
    }

    /// Checks everything against the public keys, and a file against the item.
    #[must_use]
    pub fn check(&self, keys: &[PublicKey], file: Option<FileDigest>) -> Shown {
        let mut shown =
            Shown { line: None, item: None, record: None, signed_by: None, entry: None, findings: Vec::new() };
        self.check_record(keys, &mut shown);
        self.check_line(&mut shown);
        self.check_chain(keys, &mut shown);
        self.check_item(file, &mut shown);
        shown
    }

    /// Is the record signed, and does it say what the proof says?
    fn check_record(&self, keys: &[PublicKey], shown: &mut Shown) {
        let signer = keys.iter().find(|key| is_signed(key, self.run.as_bytes(), &self.run_signature));
        match signer {
            Some(key) => shown.signed_by = Some(key.id()),
            None => self.wrong(shown, "a run record signed by the given key", "another signature"),
        }
        let Some(record) = RunRecord::parse(self.run.as_bytes()) else {
            return self.wrong(shown, "a run record", "something else");
        };
        let same = [
            (record.key_id == Some(self.key_id) && shown.signed_by.is_none_or(|id| id == self.key_id), "key"),
            (record.archive_id == self.archive_id, "archive"),
            (record.run_id == self.run_id, "run"),
            (record.merkle_root == self.merkle_root, "Merkle root"),
            (record.chunks.iter().map(|chunk| chunk.sessions).sum::<u64>() == self.tree_size, "number of lines"),
            (ObjectKey::run_record(&record.run_id, record.started_at) == self.run_key, "key of the record"),
        ];
        for (_, what) in same.iter().filter(|(is_same, _)| !is_same) {
            self.wrong(shown, &format!("the {what} of the run record"), "another");
        }
        shown.record = Some(record);
    }

    /// Is the line in the record?
    fn check_line(&self, shown: &mut Shown) {
        let root = root_from(leaf(self.line.as_bytes()), self.leaf_index, self.tree_size, &self.path);
        let expected = shown.record.as_ref().map(|record| record.merkle_root);
        if root.is_none() || root != expected {
            let found = root.map_or("a path that does not fit".to_owned(), |root| root.to_string());
            self.wrong(shown, &format!("a path to the signed root {}", self.merkle_root), &found);
        }
        match RunLine::parse(self.line.as_bytes()) {
            None => self.wrong(shown, "a run line", "something else"),
            Some(line) if line.session_id != self.session_id => {
                self.wrong(shown, &format!("a line of session {}", self.session_id), line.session_id.as_str());
            }
            Some(line) => shown.line = Some(line),
        }
    }

    /// Is the record in the chain?
    fn check_chain(&self, keys: &[PublicKey], shown: &mut Shown) {
        let Some(chain) = &self.chain else {
            let repair = "create the proof again once the run is entered in its chain";
            let finding = self.finding(Severity::Warn, repair);
            return shown.findings.push(finding.differs("an entry of a chain", "none: the run was not entered"));
        };
        let Some(entry) = ChainEntry::parse(chain.entry.as_bytes()) else {
            return self.wrong(shown, "an entry of a chain", "something else");
        };
        let group = shown.record.as_ref().map(|record| record.group.clone());
        let same = [
            (entry.run_sha256 == Sha256Digest::of(self.run.as_bytes()), "digest of the record"),
            (entry.run_id == self.run_id && entry.run_key == self.run_key, "run"),
            (entry.archive_id == self.archive_id, "archive"),
            (group.is_none_or(|group| group == entry.group), "group"),
            (ObjectKey::chain_entry(&entry.group, entry.number) == chain.key, "key of the entry"),
        ];
        for (_, what) in same.iter().filter(|(is_same, _)| !is_same) {
            self.wrong(shown, &format!("an entry with the {what}"), "another");
        }
        match &chain.signature {
            Some(signature) if keys.iter().any(|key| is_signed(key, chain.entry.as_bytes(), signature)) => {}
            Some(_) => self.wrong(shown, "an entry signed by the given key", "another signature"),
            None => {
                let finding = self.finding(Severity::Warn, "nothing: the record itself is signed");
                shown.findings.push(finding.differs("a signed entry", "an unsigned one"));
            }
        }
        shown.entry = Some((entry, Sha256Digest::of(chain.entry.as_bytes())));
    }

    /// Is the item in the line, and is the file the item?
    fn check_item(&self, file: Option<FileDigest>, shown: &mut Shown) {
        let Some(line) = &shown.line else { return };
        let is_file =
            |item: &&LineItem| file.is_none_or(|file| (file.sha256, file.size_bytes) == (item.sha256, item.size_bytes));
        let asked = line.items.iter().filter(|item| self.media_id.as_ref().is_none_or(|id| *id == item.media_id));
        let asked: Vec<&LineItem> = asked.collect();
        let found = asked.iter().copied().find(is_file).cloned();
        let expected: Vec<String> =
            asked.iter().map(|item| format!("{} ({} bytes)", item.sha256, item.size_bytes)).collect();
        if let Some(media_id) = self.media_id.as_ref().filter(|_| asked.is_empty()) {
            self.wrong(shown, &format!("media item {media_id} in the line"), "no such item");
        } else if let Some(file) = file.filter(|_| found.is_none()) {
            let found = format!("{} ({} bytes)", file.sha256, file.size_bytes);
            self.wrong(shown, &format!("a file with {}", expected.join(" or ")), &found);
        }
        shown.item = found.filter(|_| self.media_id.is_some() || file.is_some());
    }

    fn wrong(&self, shown: &mut Shown, expected: &str, found: &str) {
        let repair = "create the proof again with prove; find out who changed it";
        shown.findings.push(self.finding(Severity::Error, repair).differs(expected, found));
    }

    fn finding(&self, severity: Severity, repair: &str) -> Finding {
        Finding::of(severity, FindingCode::ProofInvalid, repair).session(&self.session_id).run(&self.run_id)
    }
}

impl Shown {
    /// Returns whether nothing in it is wrong.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

fn is_signed(key: &PublicKey, bytes: &[u8], signature: &str) -> bool {
    is_signature(signature) && key.verifies(bytes, signature)
}
