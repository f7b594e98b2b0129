//! `prove`: makes the proof that a session or an item is in a signed run, and checks one.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::connect::open_store_to_read;
use super::output::{Answer, print};
use super::{GlobalArgs, StoreArgs};
use crate::audit::Finding;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::Exit;
use crate::model::digest::{Hasher, Sha256Digest};
use crate::model::run::{LineItem, LineManifest};
use crate::model::signature::PublicKey;
use crate::model::{ArchiveId, IdError, MediaId, RunId, SessionId};
use crate::prove::{FileDigest, Proof, ProveError, Shown, find};
use crate::session::identity::archive_of;

/// The value of `schema` in the answer of a check.
const CHECK_SCHEMA: &str = "veriff-archive/prove-check/v1";

/// A proof is a line, a record, and a few digests; one of a session with a thousand items has about two megabytes.
const MAX_PROOF_BYTES: u64 = 128 * 1024 * 1024;

/// Longer than any key file.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// Prove that a session or an item is in a signed run
///
/// Prints one small JSON document, the proof. With --check it checks such a document, and needs only the public key: no
/// archive, no ledger, no network.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 proven, 3 no signed run names it, 4 the proof is invalid or the archive contradicts it, \
                  5 the store does not answer, 77 the store refuses access."
)]
pub(super) struct ProveArgs {
    /// Session to prove
    #[arg(required_unless_present = "check", value_parser = SessionId::parse)]
    session: Option<SessionId>,
    /// One media item of it; without one, the proof covers the session and all its items
    #[arg(value_parser = MediaId::parse)]
    media: Option<MediaId>,
    #[command(flatten)]
    store: StoreArgs,
    /// Prove it by this run [default: the one that wrote its newest manifest, else the newest that names it]
    #[arg(long, value_name = "RUN_ID", value_parser = parse_run)]
    run: Option<RunId>,
    /// Check a proof (- for standard input)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["session", "run", "store"], requires = "public_key")]
    check: Option<PathBuf>,
    /// Public key (PEM) of the signer, from outside the archive; may be repeated
    #[arg(long, value_name = "FILE", requires = "check")]
    public_key: Vec<PathBuf>,
    /// Also check that this file is the media item
    #[arg(long, value_name = "FILE", requires = "check")]
    object: Option<PathBuf>,
}

/// What came of checking a proof.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct ProveCheck {
    /// Always `veriff-archive/prove-check/v1`.
    schema: &'static str,
    /// Everything is as it says.
    valid: bool,
    /// The archive.
    archive_id: ArchiveId,
    /// The session.
    session_id: SessionId,
    /// The run that archived it or found it archived.
    run_id: RunId,
    /// How it ended for the session.
    outcome: Option<String>,
    /// When.
    committed_at: Option<Timestamp>,
    /// The manifest of the session.
    manifest: Option<LineManifest>,
    /// The media item, if the proof or the file is of one.
    item: Option<LineItem>,
    /// All items of the session.
    items: usize,
    /// The given key that signed.
    signed_by: Option<Sha256Digest>,
    /// The chain and the number of the entry.
    chain: Option<CheckedEntry>,
    /// The digest of the file, if one was given.
    object_sha256: Option<Sha256Digest>,
    /// What is wrong, or worth a look.
    findings: Vec<Finding>,
}

/// The entry of the chain that names the run.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct CheckedEntry {
    /// The chain.
    group: String,
    /// The number.
    number: u32,
    /// The digest of its bytes, which `audit chain --expect-head` finds.
    sha256: Sha256Digest,
}

impl Answer for ProveCheck {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "the proof {}", if self.valid { "is valid" } else { "is NOT valid" })?;
        writeln!(out, "  archive  {}", self.archive_id)?;
        writeln!(out, "  session  {} ({} items)", self.session_id, self.items)?;
        if let Some(item) = &self.item {
            writeln!(out, "  item     {}, {} bytes, {}", item.media_id, item.size_bytes, item.sha256)?;
        }
        if let (Some(outcome), Some(at)) = (&self.outcome, self.committed_at) {
            writeln!(out, "  outcome  {outcome} at {at}")?;
        }
        writeln!(out, "  run      {}", self.run_id)?;
        if let Some(key) = self.signed_by {
            writeln!(out, "  key      {key}")?;
        }
        if let Some(chain) = &self.chain {
            writeln!(out, "  chain    {}, entry {}, {}", chain.group, chain.number, chain.sha256)?;
        }
        if self.object_sha256.is_some() {
            let is_it = if self.item.is_some() { "is" } else { "is NOT" };
            writeln!(out, "  file     {is_it} the item")?;
        }
        for finding in &self.findings {
            let expected = finding.expected.as_deref().unwrap_or_default();
            let found = finding.found.as_deref().unwrap_or_default();
            writeln!(out, "  {}: expected {expected}, found {found}", finding.code)?;
        }
        Ok(())
    }
}

/// The proof itself is a document for machines; people read what `--check` says of it.
impl Answer for Proof {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

fn parse_run(text: &str) -> Result<RunId, IdError> {
    RunId::parse(text)
}

pub(super) async fn run(args: &ProveArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    if let Some(proof) = &args.check {
        return check(proof, args, global);
    }
    let Some(session) = &args.session else { return Ok(Exit::Usage) };
    let config = global.load_config_to_read(args.store.store.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = open_store_to_read(&config, &clock).await?;
    // What proves something is of an archive, and nobody can say of which one if that is shadowed.
    archive_of(&*store).await?;
    let exit = match find(&*store, session, args.media.as_ref(), args.run.as_ref()).await {
        Ok(proof) => {
            print(&proof, global.format())?;
            return Ok(Exit::Success);
        }
        Err(error @ ProveError::Store(_)) => return Err(error.into()),
        Err(error) => {
            eprintln!("error: {error}");
            if matches!(error, ProveError::Damaged { .. }) { Exit::Findings } else { Exit::Failures }
        }
    };
    Ok(exit)
}

fn check(path: &Path, args: &ProveArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let read = || -> Result<(Proof, Vec<PublicKey>, Option<FileDigest>), String> {
        let bytes = if path == Path::new("-") {
            bounded(io::stdin().lock(), MAX_PROOF_BYTES).map_err(|error| format!("standard input: {error}"))?
        } else {
            read_file(path, MAX_PROOF_BYTES)?
        };
        let proof = Proof::parse(&bytes).ok_or_else(|| format!("{} is not a proof", path.display()))?;
        let keys: Result<Vec<PublicKey>, String> = args.public_key.iter().map(|path| read_key(path)).collect();
        Ok((proof, keys?, args.object.as_deref().map(digest_of).transpose()?))
    };
    let (proof, keys, file) = match read() {
        Ok(read) => read,
        Err(reason) => {
            eprintln!("error: {reason}");
            return Ok(Exit::Usage);
        }
    };
    let shown = proof.check(&keys, file);
    let valid = shown.is_valid();
    print(&answer(proof, shown, file), global.format())?;
    Ok(if valid { Exit::Success } else { Exit::Findings })
}

fn answer(proof: Proof, shown: Shown, file: Option<FileDigest>) -> ProveCheck {
    let valid = shown.is_valid();
    let chain = shown.entry.map(|(entry, sha256)| CheckedEntry { group: entry.group, number: entry.number, sha256 });
    let (outcome, committed_at, manifest, items) = match shown.line {
        Some(line) => (Some(line.outcome), Some(line.committed_at), line.manifest, line.items.len()),
        None => (None, None, None, 0),
    };
    ProveCheck {
        schema: CHECK_SCHEMA,
        valid,
        archive_id: proof.archive_id,
        session_id: proof.session_id,
        run_id: proof.run_id,
        outcome,
        committed_at,
        manifest,
        item: shown.item,
        items,
        signed_by: shown.signed_by,
        chain,
        object_sha256: file.map(|file| file.sha256),
        findings: shown.findings,
    }
}

/// Reads a public key from a file; else says what is wrong.
pub(super) fn read_key(path: &Path) -> Result<PublicKey, String> {
    let bytes = read_file(path, MAX_KEY_BYTES)?;
    let pem = String::from_utf8(bytes).map_err(|_| format!("{} is not text", path.display()))?;
    PublicKey::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads a file whole; else says what is wrong.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let read = File::open(path).and_then(|file| bounded(file, limit));
    read.map_err(|error| format!("{}: {error}", path.display()))
}

fn bounded(reader: impl io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long"));
    }
    Ok(bytes)
}

fn digest_of(path: &Path) -> Result<FileDigest, String> {
    let digest = || -> io::Result<FileDigest> {
        let mut file = File::open(path)?;
        let (mut hasher, mut size_bytes) = (Hasher::default(), 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok(FileDigest { sha256: hasher.finish(), size_bytes });
            }
            hasher.update(&buffer[..length]);
            size_bytes += length as u64;
        }
    };
    digest().map_err(|error| format!("{}: {error}", path.display()))
}
