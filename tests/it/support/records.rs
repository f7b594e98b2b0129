//! Run records made by the test, straight or crooked, beside an archive in a directory.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use veriff_archive::clock::Timestamp;
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::manifest::{ARCHIVE_SCHEMA, ArchiveDocument, Manifest};
use veriff_archive::model::merkle::{Tree, leaf};
use veriff_archive::model::run::{
    CHAIN_SCHEMA, ChainEntry, ChunkRef, ClosedReason, LineItem, LineManifest, RUN_LINE_SCHEMA, RUN_SCHEMA, RunCounts,
    RunLine, RunRecord, RunSource,
};
use veriff_archive::model::signature::SigningKey;
use veriff_archive::model::{ArchiveId, RunId, SessionId};

use super::stored;

/// Changes a record before it is signed.
pub(crate) type Bend<'b> = &'b dyn Fn(&mut RunRecord);

/// Makes runs, one after another, behind those that stand.
pub(crate) struct Records {
    root: PathBuf,
    /// The key that signs; none for unsigned runs.
    pub(crate) key: Option<SigningKey>,
    archive_id: ArchiveId,
    archive_sha256: Sha256Digest,
    heads: BTreeMap<String, (u32, Sha256Digest)>,
    at: Timestamp,
}

/// A run that was made.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) run_id: RunId,
    pub(crate) run_key: ObjectKey,
    pub(crate) entry_key: ObjectKey,
    pub(crate) entry_sha256: Sha256Digest,
}

impl Records {
    /// Begins in a directory, which becomes an archive if it is none.
    pub(crate) fn in_store(root: &Path) -> Self {
        let at: Timestamp = "2026-11-20T22:00:00.000Z".parse().unwrap();
        let path = root.join("archive.json");
        if !path.exists() {
            let document = ArchiveDocument {
                schema: ARCHIVE_SCHEMA.to_owned(),
                archive_id: ArchiveId::random(),
                created_at: at,
                version: "0.0.0".to_owned(),
            };
            put(root, &ObjectKey::archive(), &[serde_json::to_vec(&document).unwrap(), vec![b'\n']].concat());
        }
        let bytes = std::fs::read(path).unwrap();
        Self {
            root: root.to_owned(),
            key: Some(SigningKey::generate()),
            archive_id: ArchiveDocument::parse(&bytes).unwrap().archive_id,
            archive_sha256: Sha256Digest::of(&bytes),
            heads: BTreeMap::new(),
            at,
        }
    }

    /// Writes the public key to a file.
    pub(crate) fn write_public_key(&self, path: &Path) {
        std::fs::write(path, self.key.as_ref().unwrap().public().to_pem().unwrap()).unwrap();
    }

    /// Makes a run of these lines, three in a chunk.
    pub(crate) fn run(&mut self, group: &str, lines: &[RunLine]) -> Made {
        self.bent_run(group, lines, &|_| {})
    }

    /// Makes a run whose record says something else.
    pub(crate) fn bent_run(&mut self, group: &str, lines: &[RunLine], bend: Bend<'_>) -> Made {
        // Runs of a test begin hours apart, so that some share a day and some do not.
        self.at = self.at.plus_millis(5 * 3_600_000);
        let (run_id, started_at) = (RunId::new(self.at), self.at);
        let mut tree = Tree::default();
        let mut chunks = Vec::new();
        for (number, part) in (1..).zip(lines.chunks(3)) {
            let mut packer = GzEncoder::new(Vec::new(), Compression::default());
            for line in part {
                let text = serde_json::to_vec(line).unwrap();
                tree.push(leaf(&text));
                packer.write_all(&text).unwrap();
                packer.write_all(b"\n").unwrap();
            }
            let bytes = packer.finish().unwrap();
            let key = ObjectKey::run_chunk(&run_id, started_at, number);
            put(&self.root, &key, &bytes);
            chunks.push(ChunkRef {
                key,
                sha256: Sha256Digest::of(&bytes),
                sessions: part.len() as u64,
                items: items_of(part),
            });
        }
        let config = serde_json::json!({"limits.tries": 6, "veriff.max_requests_per_second": 5.0, "store.url": "ä"});
        let mut record = RunRecord {
            schema: RUN_SCHEMA.to_owned(),
            archive_id: self.archive_id.clone(),
            archive_sha256: Some(self.archive_sha256),
            run_id: run_id.clone(),
            group: group.to_owned(),
            version: "0.0.0".to_owned(),
            started_at,
            finished_at: started_at.plus_millis(60_000),
            exit_code: Some(0),
            closed_by: run_id.clone(),
            closed_reason: ClosedReason::Finished,
            actor: "test@test".to_owned(),
            store_principal: None,
            source: RunSource { kind: "file".to_owned(), sha256: None, records: Some(lines.len() as u64) },
            config_sha256: Sha256Digest::of(
                r#"{"limits.tries":6,"store.url":"ä","veriff.max_requests_per_second":5}"#.as_bytes(),
            ),
            config,
            counts: RunCounts { archived: lines.len() as u64, ..RunCounts::default() },
            chunks,
            items: items_of(lines),
            merkle_root: tree.root(),
            clock_offset_ms: None,
            key_id: self.key.as_ref().map(|key| key.public().id()),
        };
        bend(&mut record);
        let run_key = ObjectKey::run_record(&run_id, started_at);
        let bytes = serde_json::to_vec(&record).unwrap();
        self.put_signed(&run_key, &bytes);
        self.enter(group, &run_id, &run_key, Sha256Digest::of(&bytes))
    }

    /// Adds an entry to a chain.
    pub(crate) fn enter(&mut self, group: &str, run_id: &RunId, run_key: &ObjectKey, run_sha256: Sha256Digest) -> Made {
        let previous = self.heads.get(group).copied().or_else(|| newest(&self.root, group));
        let number = previous.map_or(1, |(number, _)| number + 1);
        let entry = ChainEntry {
            schema: CHAIN_SCHEMA.to_owned(),
            archive_id: self.archive_id.clone(),
            group: group.to_owned(),
            number,
            run_id: run_id.clone(),
            run_key: run_key.clone(),
            run_sha256,
            previous_sha256: previous.map(|(_, sha256)| sha256),
        };
        let bytes = serde_json::to_vec(&entry).unwrap();
        let (entry_key, entry_sha256) = (ObjectKey::chain_entry(group, number), Sha256Digest::of(&bytes));
        self.put_signed(&entry_key, &bytes);
        self.heads.insert(group.to_owned(), (number, entry_sha256));
        Made { run_id: run_id.clone(), run_key: run_key.clone(), entry_key, entry_sha256 }
    }

    fn put_signed(&self, key: &ObjectKey, bytes: &[u8]) {
        put(&self.root, key, bytes);
        if let Some(signer) = &self.key {
            put(&self.root, &key.signature(), (signer.sign(bytes) + "\n").as_bytes());
        }
    }
}

/// Finds the newest entry of a chain.
fn newest(root: &Path, group: &str) -> Option<(u32, Sha256Digest)> {
    let prefix = ObjectKey::chain_prefix(group);
    let mut chain =
        stored::everything(root).into_iter().filter(|(key, _)| key.starts_with(&prefix) && !key.contains(".sig"));
    let (_, bytes) = chain.next_back()?;
    Some((ChainEntry::parse(&bytes).unwrap().number, Sha256Digest::of(&bytes)))
}

/// Every run that stands in a chain, oldest first.
pub(crate) fn entered(root: &Path, group: &str) -> Vec<Made> {
    let prefix = ObjectKey::chain_prefix(group);
    let chain =
        stored::everything(root).into_iter().filter(|(key, _)| key.starts_with(&prefix) && !key.contains(".sig"));
    let made = chain.map(|(key, bytes)| {
        let entry = ChainEntry::parse(&bytes).unwrap();
        Made {
            run_id: entry.run_id,
            run_key: entry.run_key,
            entry_key: ObjectKey::from_store(key),
            entry_sha256: Sha256Digest::of(&bytes),
        }
    });
    made.collect()
}

/// A line that names no manifest, as of a session that failed before there was one.
pub(crate) fn plain_line(session: &str) -> RunLine {
    RunLine {
        schema: RUN_LINE_SCHEMA.to_owned(),
        session_id: SessionId::parse(session).unwrap(),
        integration: "default".to_owned(),
        outcome: "failed".to_owned(),
        code: Some("veriff.unavailable".to_owned()),
        committed_at: "2026-11-20T22:00:30.000Z".parse().unwrap(),
        decided_at: None,
        upstream_created_at: None,
        deadline_at: None,
        complete: Some(false),
        settled: Some(false),
        manifest: None,
        items: Vec::new(),
    }
}

/// The line of an archived session, by its newest manifest.
pub(crate) fn line_of(store: &Path, session: &str) -> RunLine {
    let prefix = format!("sessions/{session}/manifest/");
    let (key, bytes) = stored::objects(store).into_iter().rfind(|(key, _)| key.starts_with(&prefix)).unwrap();
    let manifest = Manifest::parse(&bytes).unwrap();
    let items = manifest.media().map(|(attempt, media)| LineItem {
        media_id: media.media_id.clone(),
        attempt_id: attempt.attempt_id.clone(),
        kind: media.kind,
        key: media.key.clone(),
        version_id: media.version_id.clone(),
        size_bytes: media.size_bytes,
        sha256: media.sha256,
    });
    RunLine {
        outcome: "archived".to_owned(),
        code: None,
        manifest: Some(LineManifest {
            key: ObjectKey::from_store(key),
            version_id: None,
            sha256: Sha256Digest::of(&bytes),
        }),
        items: items.collect(),
        ..plain_line(session)
    }
}

/// Writes an object, whatever stood there.
pub(crate) fn put(root: &Path, key: &ObjectKey, bytes: &[u8]) {
    let path = root.join(key.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::write(&path, bytes).unwrap();
    age(&path);
}

/// Makes a file an hour old: of what was written just now, something else may be on its way.
pub(crate) fn age(path: &Path) {
    #[expect(clippy::disallowed_methods, reason = "files are dated by the machine's clock")]
    let at = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

fn items_of(lines: &[RunLine]) -> u64 {
    lines.iter().map(|line| line.items.len() as u64).sum()
}
