//! The store's contract, run by a directory, a bucket with Object Lock and a plain bucket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use veriff_archive::audit::walk::Walk;
use veriff_archive::clock::{Clock as _, SystemClock};
use veriff_archive::error::Code;
use veriff_archive::model::digest::{Checksum, Hasher, PART_SIZE_BYTES, Payload, Sha256Digest};
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::retention::{Lock, Mode};
use veriff_archive::retry::Backoff;
use veriff_archive::store::dir::DirStore;
use veriff_archive::store::retrying::RetryingStore;
use veriff_archive::store::versions::list_all;
use veriff_archive::store::{ListedVersion, PageToken, PutOutcome, ReadStore as _, Store, Stored, Terms};

use crate::support::faulty::{Call, Fault, FaultyStore, Verb};
use crate::support::s3::{Bucket, WRITER, s3};

pub(super) const PREFIX: &str = "eu/live";

/// A store under test; a bucket is used with no more rights than the archiver needs.
pub(super) struct Fixture {
    pub(super) store: Arc<dyn Store>,
    pub(super) bucket: Option<Bucket>,
    _directory: Option<tempfile::TempDir>,
}

impl Fixture {
    async fn dir() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = DirStore::open(directory.path(), Arc::new(SystemClock)).await.unwrap();
        Self { store: Arc::new(store), bucket: None, _directory: Some(directory) }
    }

    pub(super) async fn locked() -> Self {
        Self::in_bucket("locked", true).await
    }

    pub(super) async fn plain() -> Self {
        Self::in_bucket("plain", false).await
    }

    async fn in_bucket(name: &str, object_lock: bool) -> Self {
        let bucket = s3().await.create_bucket(name, object_lock).await;
        let store = bucket.store(PREFIX, WRITER).await;
        store.check().await.unwrap();
        Self { store: Arc::new(store), bucket: Some(bucket), _directory: None }
    }

    /// The terms the store can meet: locked where it locks.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            content_type: "image/jpeg".to_owned(),
            lock: self.store.features().locks.then(|| lock(Mode::Compliance, 3)),
            is_document: false,
        }
    }

    pub(super) async fn put(&self, name: &str, payload: &Payload) -> PutOutcome {
        self.store.put(&key(name), payload, &self.terms()).await.unwrap()
    }

    pub(super) async fn keys(&self, prefix: &str) -> Vec<String> {
        let listed = list_all(&*self.store, prefix).await.unwrap();
        listed.into_iter().map(|version| version.key.to_string()).collect()
    }

    async fn bytes(&self, name: &str) -> Vec<u8> {
        let body = self.store.open(&key(name), None).await.unwrap().unwrap();
        body.read_to_end(u64::MAX).await.unwrap()
    }
}

pub(super) fn lock(mode: Mode, days: u64) -> Lock {
    let now = SystemClock.now().unix_seconds();
    let due = Duration::from_hours(24 * days);
    Lock { mode, retain_until: veriff_archive::clock::Timestamp::from_unix_seconds(now).plus(due) }
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::from_store(name)
}

fn in_segments(bytes: &[u8], size: usize) -> Payload {
    let segments = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
    Payload::hashed(segments, Sha256Digest::of(bytes))
}

/// Bytes that do not compress and differ from part to part.
fn noise(length: u64, seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block = Sha256Digest::of(&[seed]);
    while (bytes.len() as u64) < length {
        bytes.extend_from_slice(block.as_bytes());
        block = Sha256Digest::of(block.as_bytes());
    }
    bytes.truncate(usize::try_from(length).unwrap());
    bytes
}

pub(super) fn stored(outcome: PutOutcome) -> Stored {
    match outcome {
        PutOutcome::Created(stored) => stored,
        PutOutcome::Taken => panic!("something stands already"),
    }
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod dir { $(#[tokio::test] async fn $test() { super::$test(super::Fixture::dir().await).await; })+ }
        mod locked { $(#[tokio::test] async fn $test() { super::$test(super::Fixture::locked().await).await; })+ }
        mod plain { $(#[tokio::test] async fn $test() { super::$test(super::Fixture::plain().await).await; })+ }
    };
}

contract! {
    what_is_put_is_read_back_byte_for_byte,
    an_empty_object_is_an_object,
    a_taken_key_keeps_what_stands,
    a_wrong_digest_is_refused_and_nothing_is_stored,
    one_of_sixteen_writers_wins,
    what_is_not_there_is_none,
    a_long_object_goes_in_parts,
    parts_with_a_wrong_digest_never_become_an_object,
    an_upload_that_is_given_up_leaves_nothing,
    an_upload_onto_a_taken_key_changes_nothing,
    completing_again_after_a_lost_answer_makes_no_second_version,
    a_listing_is_in_the_order_of_keys_and_below_its_prefix,
    a_listing_of_many_pages_shows_every_key_once,
    a_listing_begins_behind_any_key,
    a_walk_shows_one_session_after_another,
    a_lock_shows_and_grows_where_the_store_locks,
    refusals_and_lost_answers_are_ridden_out_without_a_second_version,
    a_writer_that_dies_leaves_an_object_whole_or_not_at_all,
}

async fn what_is_put_is_read_back_byte_for_byte(fixture: Fixture) {
    let bytes = noise(200_000, 1);
    let payload = in_segments(&bytes, 7_777);
    let stored = stored(fixture.put("sessions/s/a/m.jpg", &payload).await);
    assert_eq!(stored.checksum, Checksum::full(payload.sha256()));
    assert_eq!(stored.version_id.is_some(), fixture.store.features().versions);
    assert_eq!(fixture.bytes("sessions/s/a/m.jpg").await, bytes);

    let head = fixture.store.head(&key("sessions/s/a/m.jpg"), None).await.unwrap().unwrap();
    assert_eq!(head.size_bytes, 200_000);
    if let Some(bucket) = &fixture.bucket {
        assert_eq!(head.checksum, Some(stored.checksum));
        assert_eq!(bucket.bytes("eu/live/sessions/s/a/m.jpg", None).await, bytes);
    }
    let body = fixture.store.open(&key("sessions/s/a/m.jpg"), stored.version_id.as_deref()).await;
    assert_eq!(body.unwrap().unwrap().digest().await.unwrap(), payload.sha256());
}

async fn an_empty_object_is_an_object(fixture: Fixture) {
    stored(fixture.put("empty", &Payload::of(Vec::new())).await);
    assert_eq!(fixture.bytes("empty").await, b"");
    assert_eq!(fixture.put("empty", &Payload::of(Vec::new())).await, PutOutcome::Taken);
}

async fn a_taken_key_keeps_what_stands(fixture: Fixture) {
    stored(fixture.put("k", &Payload::of(b"first".to_vec())).await);
    for bytes in [&b"second"[..], b"first"] {
        assert_eq!(fixture.put("k", &Payload::of(bytes.to_vec())).await, PutOutcome::Taken);
    }
    assert_eq!(fixture.bytes("k").await, b"first");
    assert_eq!(fixture.keys("").await, ["k"]);
}

async fn a_wrong_digest_is_refused_and_nothing_is_stored(fixture: Fixture) {
    let damaged = Payload::hashed(vec![Bytes::from_static(b"damaged")], Sha256Digest::of(b"sent"));
    let error = fixture.store.put(&key("k"), &damaged, &fixture.terms()).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreChecksum, "{error}");
    assert_eq!(fixture.keys("").await, [""; 0]);
    stored(fixture.put("k", &Payload::of(b"sent".to_vec())).await);
}

async fn one_of_sixteen_writers_wins(fixture: Fixture) {
    let payloads: Vec<_> = (0..16).map(|n| Payload::of(noise(50_000, n))).collect();
    let outcomes = join_all(payloads.iter().map(|payload| fixture.put("k", payload))).await;
    let winners: Vec<_> =
        outcomes.iter().zip(&payloads).filter(|(outcome, _)| matches!(outcome, PutOutcome::Created(_))).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(Sha256Digest::of(&fixture.bytes("k").await), winners[0].1.sha256());
    assert_eq!(fixture.keys("").await, ["k"]);
}

async fn what_is_not_there_is_none(fixture: Fixture) {
    assert_eq!(fixture.store.head(&key("a/b"), None).await.unwrap(), None);
    assert!(fixture.store.open(&key("a/b"), None).await.unwrap().is_none());
    assert_eq!(fixture.keys("a/").await, [""; 0]);
}

/// Two and a half parts.
fn long() -> (Vec<u8>, Vec<Payload>) {
    let bytes = noise(PART_SIZE_BYTES * 2 + PART_SIZE_BYTES / 2, 9);
    let part_size = usize::try_from(PART_SIZE_BYTES).unwrap();
    let parts = bytes.chunks(part_size).map(|part| in_segments(part, 1 << 20)).collect();
    (bytes, parts)
}

async fn a_long_object_goes_in_parts(fixture: Fixture) {
    let (bytes, parts) = long();
    let mut upload = fixture.store.start_upload(&key("video.webm"), &fixture.terms()).await.unwrap();
    let mut hasher = Hasher::default();
    for part in &parts {
        part.segments().iter().for_each(|segment| hasher.update(segment));
        upload.put_part(part).await.unwrap();
    }
    let sha256 = hasher.finish();
    let stored = stored(upload.complete(sha256).await.unwrap());
    let head = fixture.store.head(&key("video.webm"), None).await.unwrap().unwrap();
    assert_eq!(head.size_bytes, bytes.len() as u64);
    if fixture.bucket.is_some() {
        let digests: Vec<_> = parts.iter().map(Payload::sha256).collect();
        assert_eq!(stored.checksum, Checksum::composite(&digests));
        assert_eq!(head.checksum.as_ref(), Some(&stored.checksum));
        assert_eq!(head.lock, fixture.terms().lock.map(|_| head.lock.unwrap()));
    } else {
        assert_eq!(stored.checksum, Checksum::full(sha256));
    }
    assert_eq!(Sha256Digest::of(&fixture.bytes("video.webm").await), sha256);
    assert_eq!(sha256, Sha256Digest::of(&bytes));
}

async fn parts_with_a_wrong_digest_never_become_an_object(fixture: Fixture) {
    let mut upload = fixture.store.start_upload(&key("k"), &fixture.terms()).await.unwrap();
    let damaged = Payload::hashed(vec![Bytes::from_static(b"damaged")], Sha256Digest::of(b"sent"));
    // A bucket verifies each part, a directory the whole.
    let error = match upload.put_part(&damaged).await {
        Err(error) => error,
        Ok(()) => upload.complete(damaged.sha256()).await.unwrap_err(),
    };
    assert_eq!(error.code(), Code::StoreChecksum, "{error}");
    upload.abort().await.unwrap();
    assert_eq!(fixture.keys("").await, [""; 0]);
}

async fn an_upload_that_is_given_up_leaves_nothing(fixture: Fixture) {
    let mut upload = fixture.store.start_upload(&key("a/k"), &fixture.terms()).await.unwrap();
    upload.put_part(&Payload::of(noise(PART_SIZE_BYTES, 1))).await.unwrap();
    upload.abort().await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(fixture.keys("").await, [""; 0]);
    if let Some(bucket) = &fixture.bucket {
        assert_eq!(bucket.unfinished_uploads().await, 0);
    }
    stored(fixture.put("a/k", &Payload::of(b"later".to_vec())).await);
}

async fn an_upload_onto_a_taken_key_changes_nothing(fixture: Fixture) {
    let mut upload = fixture.store.start_upload(&key("k"), &fixture.terms()).await.unwrap();
    let part = Payload::of(b"slow".to_vec());
    upload.put_part(&part).await.unwrap();
    stored(fixture.put("k", &Payload::of(b"fast".to_vec())).await);
    assert_eq!(upload.complete(part.sha256()).await.unwrap(), PutOutcome::Taken);
    upload.abort().await.unwrap();
    assert_eq!(fixture.bytes("k").await, b"fast");
    assert_eq!(fixture.keys("").await, ["k"]);
}

async fn completing_again_after_a_lost_answer_makes_no_second_version(fixture: Fixture) {
    let mut upload = fixture.store.start_upload(&key("k"), &fixture.terms()).await.unwrap();
    let part = Payload::of(noise(PART_SIZE_BYTES, 1));
    upload.put_part(&part).await.unwrap();
    let first = upload.complete(part.sha256()).await.unwrap();
    let again = upload.complete(part.sha256()).await.unwrap();
    if fixture.bucket.is_some() {
        assert_eq!(stored(again).checksum, stored(first).checksum);
    } else {
        assert_eq!(again, PutOutcome::Taken);
    }
    assert_eq!(fixture.keys("").await, ["k"]);
}

async fn a_listing_is_in_the_order_of_keys_and_below_its_prefix(fixture: Fixture) {
    let names = ["a-b", "a.b", "a/b", "a/c/d", "a/c.d", "a0", "b/a"];
    for name in names {
        stored(fixture.put(name, &Payload::of(name.into())).await);
    }
    let sorted: BTreeSet<_> = names.into_iter().map(str::to_owned).collect();
    assert_eq!(fixture.keys("").await, Vec::from_iter(sorted));
    assert_eq!(fixture.keys("a/").await, ["a/b", "a/c.d", "a/c/d"]);
    assert_eq!(fixture.keys("a/c").await, ["a/c.d", "a/c/d"]);
    let listed = list_all(&*fixture.store, "b/").await.unwrap();
    assert!(listed.len() == 1 && !listed[0].is_shadowed(), "{listed:?}");
    let Some(ListedVersion { size_bytes: 3, is_delete_marker: false, modified_at: Some(at), .. }) = &listed[0].own
    else {
        panic!("one object of three bytes: {listed:?}");
    };
    assert!(fixture.store.now().millis_since(*at).abs() < 60_000);
}

async fn a_listing_of_many_pages_shows_every_key_once(fixture: Fixture) {
    let names: Vec<_> = (0..1_005).map(|n| format!("sessions/s/{n:04}/x.jpg")).collect();
    let payload = Payload::of(b"x".to_vec());
    stream::iter(&names)
        .for_each_concurrent(16, |name| async {
            stored(fixture.put(name, &payload).await);
        })
        .await;
    let first = fixture.store.list("sessions/s/", None).await.unwrap();
    assert!(first.versions.len() <= 1_000);
    assert!(first.next.is_some());
    assert_eq!(fixture.keys("sessions/s/").await, names);
}

async fn a_listing_begins_behind_any_key(fixture: Fixture) {
    for name in ["a/1", "a/2", "b/1"] {
        fixture.put(name, &Payload::of(b"x".to_vec())).await;
    }
    for (after, left) in [("a/1", vec!["a/2", "b/1"]), ("a0", vec!["b/1"]), ("", vec!["a/1", "a/2", "b/1"])] {
        let after = (!after.is_empty()).then(|| PageToken::AfterKey(ObjectKey::from_store(after)));
        let page = fixture.store.list("", after).await.unwrap();
        let keys: Vec<_> = page.versions.iter().map(|version| version.key.as_str()).collect();
        assert_eq!(keys, left);
    }
}

async fn a_walk_shows_one_session_after_another(fixture: Fixture) {
    let names = ["sessions/a/1/m.jpg", "sessions/a/1/n.jpg", "sessions/b/1/m.jpg", "archive.json"];
    for name in names {
        fixture.put(name, &Payload::of(b"x".to_vec())).await;
    }
    for (after, left) in [(None, vec![("a", 2), ("b", 1)]), (Some("a"), vec![("b", 1)]), (Some("b"), vec![])] {
        let mut walk = Walk::of(&*fixture.store, after);
        let mut found = Vec::new();
        while let Some(session) = walk.next().await.unwrap() {
            found.push((session.folder, session.keys.len()));
        }
        assert_eq!(found, left.into_iter().map(|(folder, count)| (folder.to_owned(), count)).collect::<Vec<_>>());
    }
}

async fn a_lock_shows_and_grows_where_the_store_locks(fixture: Fixture) {
    let terms = fixture.terms();
    let payload = Payload::of(b"locked".to_vec());
    let version = stored(fixture.put("k", &payload).await).version_id;
    let longer = lock(Mode::Compliance, 30);
    let Some(due) = terms.lock else {
        let error = fixture.store.extend_lock(&key("k"), None, longer).await.unwrap_err();
        assert_eq!(error.code(), Code::StorePolicy, "{error}");
        return;
    };
    let head = fixture.store.head(&key("k"), version.as_deref()).await.unwrap().unwrap();
    let shown = head.lock.unwrap();
    assert_eq!(shown.mode, Mode::Compliance);
    assert!(shown.retain_until.millis_since(due.retain_until).abs() < 10_000);

    fixture.store.extend_lock(&key("k"), version.as_deref(), longer).await.unwrap();
    let head = fixture.store.head(&key("k"), version.as_deref()).await.unwrap().unwrap();
    assert!(head.lock.unwrap().covers(longer));
    let shorter = lock(Mode::Compliance, 3);
    assert!(fixture.store.extend_lock(&key("k"), version.as_deref(), shorter).await.is_err());

    let bucket = fixture.bucket.unwrap();
    let (mode, until) = bucket.retention("eu/live/k", version.as_deref()).await.unwrap();
    assert_eq!((mode.as_str(), until), ("COMPLIANCE", longer.retain_until));
    assert!(!bucket.deletes("eu/live/k", &version.unwrap()).await);
}

/// Tries again at once.
fn retrying(store: Arc<dyn Store>) -> RetryingStore<dyn Store> {
    let backoff = Backoff { tries: 3, base: Duration::ZERO, cap: Duration::ZERO };
    RetryingStore::new(store, backoff, Arc::new(|_| ()))
}

/// Fails the first call of each verb.
fn first_of_each(fault: Fault) -> impl FnMut(usize, &Call) -> Option<Fault> + Send {
    let mut failed = Vec::new();
    move |_, call| {
        if failed.contains(&call.verb) {
            return None;
        }
        failed.push(call.verb);
        Some(fault.clone())
    }
}

async fn refusals_and_lost_answers_are_ridden_out_without_a_second_version(fixture: Fixture) {
    let mut first = first_of_each(Fault::Before(Fault::unavailable()));
    // A store with versions is asked between two tries whether the first one came through after all.
    let rule = move |number, call: &Call| if call.is_effect() { first(number, call) } else { None };
    let refused = FaultyStore::new(Arc::clone(&fixture.store), rule);
    let store = retrying(Arc::clone(&refused) as Arc<dyn Store>);
    let payload = Payload::of(noise(1_000, 1));
    stored(store.put(&key("put"), &payload, &fixture.terms()).await.unwrap());
    let mut upload = store.start_upload(&key("uploaded"), &fixture.terms()).await.unwrap();
    upload.put_part(&payload).await.unwrap();
    stored(upload.complete(payload.sha256()).await.unwrap());
    assert_eq!(store.retries(), 4);
    assert_eq!(refused.calls().iter().filter(|call| call.is_effect()).count(), 8);

    let mut first = first_of_each(Fault::After(Fault::unavailable()));
    let faulty = FaultyStore::new(Arc::clone(&fixture.store), move |number, call| match call.verb {
        Verb::Put | Verb::Complete => first(number, call),
        _ => None,
    });
    let store = retrying(faulty);
    let outcome = store.put(&key("lost-put"), &payload, &fixture.terms()).await.unwrap();
    assert_eq!(outcome, PutOutcome::Taken);
    let mut upload = store.start_upload(&key("lost-upload"), &fixture.terms()).await.unwrap();
    upload.put_part(&payload).await.unwrap();
    upload.complete(payload.sha256()).await.unwrap();
    assert_eq!(store.retries(), 2);

    let keys = ["lost-put", "lost-upload", "put", "uploaded"];
    assert_eq!(fixture.keys("").await, keys);
    for name in keys {
        assert_eq!(Sha256Digest::of(&fixture.bytes(name).await), payload.sha256(), "{name}");
    }
}

async fn a_writer_that_dies_leaves_an_object_whole_or_not_at_all(fixture: Fixture) {
    let parts = [Payload::of(noise(PART_SIZE_BYTES, 1)), Payload::of(b"end".to_vec())];
    let mut hasher = Hasher::default();
    parts.iter().flat_map(Payload::segments).for_each(|segment| hasher.update(segment));
    let sha256 = hasher.finish();
    for (effect, fault) in [(2, Fault::KillAfter), (3, Fault::KillBefore), (3, Fault::KillAfter)] {
        let name = format!("{effect}-{fault:?}");
        let is_there = matches!((effect, &fault), (3, Fault::KillAfter));
        let dying =
            FaultyStore::new(Arc::clone(&fixture.store), move |number, _| (number == effect).then(|| fault.clone()));
        let work = async {
            let mut upload = dying.start_upload(&key(&name), &fixture.terms()).await.unwrap();
            for part in &parts {
                upload.put_part(part).await.unwrap();
            }
            upload.complete(sha256).await.unwrap();
        };
        tokio::select! {
            () = work => panic!("it should have died"),
            () = dying.killed() => {}
        }
        assert_eq!(fixture.keys(&name).await.len(), usize::from(is_there), "{name}");
        if is_there {
            assert_eq!(Sha256Digest::of(&fixture.bytes(&name).await), sha256);
        }
    }
}
