//! Search: the signed run that has a line for a session.
//!
//! The run that wrote the session's newest manifest is looked at first; its folder follows from the time in its id. If that
//! run is not signed or was made by a version without records, all runs are searched, newest first, and then the keys of all
//! records are in memory, about a hundred bytes each. Lines are read twice: to find the one, and to make its path.

use super::path::PathBuilder;
use super::{PROOF_SCHEMA, Proof, ProofEntry};
use crate::audit::chain::lines::ChunkLines;
use crate::audit::chain::seal::text_of;
use crate::clock::Timestamp;
use crate::model::digest::Sha256Digest;
use crate::model::key::{ObjectKey, StoreObject};
use crate::model::merkle::{leaf, root_from};
use crate::model::run::{ChainEntry, RunLine, RunRecord};
use crate::model::{MediaId, RunId, SessionId};
use crate::session::standing::{InspectError, inspect};
use crate::store::document::read_document;
use crate::store::versions::{KeyVersions, KeyWalk, list_all, versions_of};
use crate::store::{ReadStore, StoreError};

/// The prefix of all run records and chains.
const RUNS: &str = "runs/";

/// The prefix of all chains, behind the folders of all runs.
const CHAINS: &str = "runs/chain/";

/// A day, by which the clock of a store may put a run into the folder of a neighbouring one.
const DAY_MS: i64 = 86_400_000;

/// An entry is written right behind its record; clocks of stores have a resolution of seconds.
const SLACK_MS: i64 = 2_000;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The store did not do what it was asked.
    #[error("the archive cannot be read")]
    Store(#[from] StoreError),
    /// No signed run has such a line.
    #[error("{0}")]
    NotFound(String),
    /// The archive is not what it must be.
    #[error("{key} {reason}; run `veriff-archive audit chain`")]
    Damaged {
        /// The object.
        key: ObjectKey,
        /// What is wrong with it.
        reason: String,
    },
}

/// A record that can prove something.
pub(super) struct Signed {
    pub(super) key: ObjectKey,
    pub(super) record: RunRecord,
    text: String,
    signature: String,
    listed: Vec<KeyVersions>,
}

/// A line in a record.
pub(super) struct Place {
    pub(super) text: String,
    pub(super) line: RunLine,
    pub(super) index: u64,
}

/// Makes the proof of a session, or of one media item of it.
///
/// # Errors
/// As the store's; permanent: no signed run names it, or the archive is damaged.
pub async fn find(
    store: &dyn ReadStore,
    session: &SessionId,
    media: Option<&MediaId>,
    run: Option<&RunId>,
) -> Result<Proof, ProveError> {
    let Some((signed, place)) = search(store, session, media, run).await? else {
        let what =
            media.map_or_else(|| format!("session {session}"), |media| format!("item {media} of session {session}"));
        let run =
            run.map_or_else(|| "no signed run has".to_owned(), |run| format!("run {run} has no signed record with"));
        return Err(ProveError::NotFound(format!(
            "{run} a line for {what}; a run with signing.private_key writes one"
        )));
    };
    let leaves = signed.record.chunks.iter().map(|chunk| chunk.sessions).sum();
    let mut path = PathBuilder::of(place.index, leaves);
    for_each_line(store, &signed, |_, line| path.push(leaf(line))).await?;
    let path = path.finish();
    if root_from(leaf(place.text.as_bytes()), place.index, leaves, &path) != Some(signed.record.merkle_root) {
        return Err(ProveError::Damaged { key: signed.key, reason: "does not fit its lines".to_owned() });
    }
    let chain = entry_of(store, &signed).await?;
    Ok(proof_of(&signed, place, media, path, chain))
}

/// Puts a proof together.
pub(super) fn proof_of(
    signed: &Signed,
    place: Place,
    media: Option<&MediaId>,
    path: Vec<Sha256Digest>,
    chain: Option<ProofEntry>,
) -> Proof {
    Proof {
        schema: PROOF_SCHEMA.to_owned(),
        archive_id: signed.record.archive_id.clone(),
        session_id: place.line.session_id,
        media_id: media.cloned(),
        run_id: signed.record.run_id.clone(),
        line: place.text,
        leaf_index: place.index,
        tree_size: signed.record.chunks.iter().map(|chunk| chunk.sessions).sum(),
        path,
        merkle_root: signed.record.merkle_root,
        run_key: signed.key.clone(),
        run: signed.text.clone(),
        run_signature: signed.signature.clone(),
        key_id: signed.record.key_id.unwrap_or_else(|| Sha256Digest::of(b"")),
        chain,
    }
}

async fn search(
    store: &dyn ReadStore,
    session: &SessionId,
    media: Option<&MediaId>,
    run: Option<&RunId>,
) -> Result<Option<(Signed, Place)>, ProveError> {
    if let Some(run) = run {
        let Some(key) = locate(store, run).await? else { return Ok(None) };
        return try_run(store, key, session, media).await;
    }
    let standing = match inspect(store, None, session).await {
        Ok(standing) => standing,
        Err(InspectError::Store(error)) => return Err(error.into()),
        Err(InspectError::Damaged { key, reason }) => {
            return Err(ProveError::Damaged { key, reason: reason.to_owned() });
        }
        Err(InspectError::Foreign { key }) => {
            return Err(ProveError::Damaged { key, reason: "belongs to another archive".to_owned() });
        }
    };
    let mut tried = None;
    if let Some(manifest) = &standing.manifest
        && let Some(key) = by_time(store, &manifest.document.run_id).await?
    {
        tried = Some(key.clone());
        if let Some(found) = try_run(store, key, session, media).await? {
            return Ok(Some(found));
        }
    }
    let mut all = Vec::new();
    let mut keys = KeyWalk::of(store, RUNS);
    while let Some(listed) = keys.next().await?.filter(|listed| !listed.key.as_str().starts_with(CHAINS)) {
        if matches!(listed.key.read(), StoreObject::RunRecord(_)) && Some(&listed.key) != tried.as_ref() {
            all.push(listed.key);
        }
    }
    for key in all.into_iter().rev() {
        if let Some(found) = try_run(store, key, session, media).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Finds the record of a run: by the time in its id, else by walking all of them.
async fn locate(store: &dyn ReadStore, run: &RunId) -> Result<Option<ObjectKey>, StoreError> {
    if let Some(key) = by_time(store, run).await? {
        return Ok(Some(key));
    }
    let mut keys = KeyWalk::of(store, RUNS);
    while let Some(listed) = keys.next().await?.filter(|listed| !listed.key.as_str().starts_with(CHAINS)) {
        if listed.key.read() == StoreObject::RunRecord(run.clone()) {
            return Ok(Some(listed.key));
        }
    }
    Ok(None)
}

/// Finds the record of a run by the time that a UUID of version 7 begins with (RFC 9562, section 5.7).
pub(super) async fn by_time(store: &dyn ReadStore, run: &RunId) -> Result<Option<ObjectKey>, StoreError> {
    let digits: String = run.as_str().chars().filter(|c| *c != '-').take(12).collect();
    let Ok(millis) = i64::from_str_radix(&digits, 16) else { return Ok(None) };
    let began_at = Timestamp::from_unix_millis(millis);
    for days in [0, -1, 1] {
        let key = ObjectKey::run_record(run, began_at.plus_millis(days * DAY_MS));
        if versions_of(store, &key).await?.own.is_some() {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Looks for the line in one run; nothing if the run is not signed or has none.
async fn try_run(
    store: &dyn ReadStore,
    key: ObjectKey,
    session: &SessionId,
    media: Option<&MediaId>,
) -> Result<Option<(Signed, Place)>, ProveError> {
    let Some(signed) = open(store, key).await? else { return Ok(None) };
    let mut found = None;
    for_each_line(store, &signed, |index, text| {
        // Cheaper than reading every line: most are of another session.
        let id = session.as_str().as_bytes();
        if !text.windows(id.len()).any(|window| window == id) {
            return;
        }
        let Some(line) = RunLine::parse(text).filter(|line| line.session_id == *session) else { return };
        let has_item = media.is_none_or(|media| line.items.iter().any(|item| item.media_id == *media));
        if let Ok(text) = std::str::from_utf8(text)
            && has_item
            && line.manifest.is_some()
        {
            found = Some(Place { text: text.to_owned(), line, index });
        }
    })
    .await?;
    Ok(found.map(|place| (signed, place)))
}

pub(super) async fn open(store: &dyn ReadStore, key: ObjectKey) -> Result<Option<Signed>, ProveError> {
    let folder = key.as_str().trim_end_matches("run.json").to_owned();
    let listed = list_all(store, &folder).await?;
    let Some(bytes) = own(store, &listed, &key).await? else { return Ok(None) };
    let damaged = |reason: &str| ProveError::Damaged { key: key.clone(), reason: reason.to_owned() };
    let record = RunRecord::parse(&bytes).ok_or_else(|| damaged("is not a run record"))?;
    let Ok(text) = String::from_utf8(bytes) else { return Err(damaged("is not text")) };
    let signature = own(store, &listed, &key.signature()).await?;
    let signature = signature.as_deref().and_then(text_of).map(str::to_owned);
    Ok(match signature {
        Some(signature) if record.key_id.is_some() => Some(Signed { key, record, text, signature, listed }),
        _ => None,
    })
}

/// Reads the archive's own version of an object that was listed; nothing if there is none.
async fn own(store: &dyn ReadStore, listed: &[KeyVersions], key: &ObjectKey) -> Result<Option<Vec<u8>>, StoreError> {
    let version = listed.iter().find(|listed| listed.key == *key).and_then(|listed| listed.own.as_ref());
    let Some(version) = version else { return Ok(None) };
    Ok(read_document(store, key, version.version_id.as_deref()).await?.map(|document| document.bytes))
}

pub(super) async fn for_each_line(
    store: &dyn ReadStore,
    signed: &Signed,
    mut take: impl FnMut(u64, &[u8]),
) -> Result<(), ProveError> {
    let mut index = 0;
    for chunk in &signed.record.chunks {
        let damaged = |reason: String| ProveError::Damaged { key: chunk.key.clone(), reason };
        let bytes = own(store, &signed.listed, &chunk.key).await?.ok_or_else(|| damaged("is missing".to_owned()))?;
        if Sha256Digest::of(&bytes) != chunk.sha256 {
            return Err(damaged("differs from what its run record says".to_owned()));
        }
        let mut lines = ChunkLines::of(&bytes);
        while let Some(line) = lines.next().map_err(|error| damaged(format!("cannot be unpacked: {error}")))? {
            take(index, line);
            index += 1;
        }
    }
    Ok(())
}

/// Finds the entry that names a record: first among those written after it, then among all others, newest first.
pub(super) async fn entry_of(store: &dyn ReadStore, signed: &Signed) -> Result<Option<ProofEntry>, ProveError> {
    let written_at = signed.listed.iter().find(|listed| listed.key == signed.key);
    let written_at = written_at.and_then(|listed| listed.own.as_ref()?.modified_at).map(|at| at.plus_millis(-SLACK_MS));
    let listed = list_all(store, &ObjectKey::chain_prefix(&signed.record.group)).await?;
    let entries = listed.iter().filter(|listed| matches!(listed.key.read(), StoreObject::ChainEntry(..)));
    let (mut likely, mut others) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = entry.own.as_ref().and_then(|own| own.modified_at);
        if at >= written_at { likely.push(&entry.key) } else { others.push(&entry.key) }
    }
    for key in likely.into_iter().chain(others.into_iter().rev()) {
        let Some(bytes) = own(store, &listed, key).await? else { continue };
        let names_it = ChainEntry::parse(&bytes).is_some_and(|entry| entry.run_key == signed.key);
        let Some(entry) = String::from_utf8(bytes).ok().filter(|_| names_it) else { continue };
        let signature = own(store, &listed, &key.signature()).await?;
        let signature = signature.as_deref().and_then(text_of).map(str::to_owned);
        return Ok(Some(ProofEntry { key: key.clone(), entry, signature }));
    }
    Ok(None)
}
