//! The store's contract, run by a directory, a bucket with Object Lock and a plain bucket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use veriff_archive::clock::{Clock as _, SystemClock};
use veriff_archive::error::Code;
use veriff_archive::model::digest::{Checksum, Hasher, PART_SIZE_BYTES, Payload, Sha256Digest};
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::retention::{Lock, Mode};
use veriff_archive::retry::Backoff;
use veriff_archive::store::dir::DirStore;
use veriff_archive::store::policy::demand;
use veriff_archive::store::retrying::RetryingStore;
use veriff_archive::store::s3::{S3Store, Seen};
use veriff_archive::store::settings::S3Settings;
use veriff_archive::store::{ListedVersion, PutOutcome, Store, StoreError, Stored, Terms, list_all};

use crate::support::faulty::{Call, Fault, FaultyStore, Verb};
use crate::support::s3::{ADMIN, Bucket, Identity, READER, WRITER, open_store, s3};

const PREFIX: &str = "eu/live";

/// A store under test; a bucket is used with no more rights than the archiver needs.
struct Fixture {
    store: Arc<dyn Store>,
    bucket: Option<Bucket>,
    _directory: Option<tempfile::TempDir>,
}

impl Fixture {
    async fn dir() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = DirStore::open(directory.path(), Arc::new(SystemClock)).await.unwrap();
        Self {
            store: Arc::new(store),
            bucket: None,
            _directory: Some(directory),
        }
    }

    async fn locked() -> Self {
        Self::in_bucket("locked", true).await
    }

    async fn plain() -> Self {
        Self::in_bucket("plain", false).await
    }

    async fn in_bucket(name: &str, object_lock: bool) -> Self {
        let bucket = s3().await.create_bucket(name, object_lock).await;
        let store = bucket.store(PREFIX, WRITER).await;
        store.check().await.unwrap();
        Self {
            store: Arc::new(store),
            bucket: Some(bucket),
            _directory: None,
        }
    }

    /// The terms the store can meet: locked where it locks.
    fn terms(&self) -> Terms {
        Terms {
            content_type: "image/jpeg".to_owned(),
            lock: self.store.features().locks.then(|| lock(Mode::Compliance, 3)),
            is_document: false,
        }
    }

    async fn put(&self, name: &str, payload: &Payload) -> PutOutcome {
        self.store.put(&key(name), payload, &self.terms()).await.unwrap()
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let listed = list_all(&*self.store, prefix).await.unwrap();
        listed.into_iter().map(|version| version.key.to_string()).collect()
    }

    async fn bytes(&self, name: &str) -> Vec<u8> {
        let body = self.store.open(&key(name), None).await.unwrap().unwrap();
        body.read_to_end(u64::MAX).await.unwrap()
    }
}

fn lock(mode: Mode, days: u64) -> Lock {
    let now = SystemClock.now().unix_seconds();
    let due = Duration::from_hours(24 * days);
    Lock {
        mode,
        retain_until: veriff_archive::clock::Timestamp::from_unix_seconds(now).plus(due),
    }
}

fn key(name: &str) -> ObjectKey {
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

fn stored(outcome: PutOutcome) -> Stored {
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

    let head = fixture
        .store
        .head(&key("sessions/s/a/m.jpg"), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(head.size_bytes, 200_000);
    if let Some(bucket) = &fixture.bucket {
        assert_eq!(head.checksum, Some(stored.checksum));
        assert_eq!(bucket.bytes("eu/live/sessions/s/a/m.jpg", None).await, bytes);
    }
    let body = fixture
        .store
        .open(&key("sessions/s/a/m.jpg"), stored.version_id.as_deref())
        .await;
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
    let error = fixture
        .store
        .put(&key("k"), &damaged, &fixture.terms())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::StoreChecksum, "{error}");
    assert_eq!(fixture.keys("").await, [""; 0]);
    stored(fixture.put("k", &Payload::of(b"sent".to_vec())).await);
}

async fn one_of_sixteen_writers_wins(fixture: Fixture) {
    let payloads: Vec<_> = (0..16).map(|n| Payload::of(noise(50_000, n))).collect();
    let outcomes = join_all(payloads.iter().map(|payload| fixture.put("k", payload))).await;
    let winners: Vec<_> = outcomes
        .iter()
        .zip(&payloads)
        .filter(|(outcome, _)| matches!(outcome, PutOutcome::Created(_)))
        .collect();
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
    let mut upload = fixture
        .store
        .start_upload(&key("video.webm"), &fixture.terms())
        .await
        .unwrap();
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
    let [
        ListedVersion {
            size_bytes: 3,
            is_delete_marker: false,
            modified_at: Some(at),
            ..
        },
    ] = &listed[..]
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
    let head = fixture
        .store
        .head(&key("k"), version.as_deref())
        .await
        .unwrap()
        .unwrap();
    let shown = head.lock.unwrap();
    assert_eq!(shown.mode, Mode::Compliance);
    assert!(shown.retain_until.millis_since(due.retain_until).abs() < 10_000);

    fixture
        .store
        .extend_lock(&key("k"), version.as_deref(), longer)
        .await
        .unwrap();
    let head = fixture
        .store
        .head(&key("k"), version.as_deref())
        .await
        .unwrap()
        .unwrap();
    assert!(head.lock.unwrap().covers(longer));
    let shorter = lock(Mode::Compliance, 3);
    assert!(
        fixture
            .store
            .extend_lock(&key("k"), version.as_deref(), shorter)
            .await
            .is_err()
    );

    let bucket = fixture.bucket.unwrap();
    let (mode, until) = bucket.retention("eu/live/k", version.as_deref()).await.unwrap();
    assert_eq!((mode.as_str(), until), ("COMPLIANCE", longer.retain_until));
    assert!(!bucket.deletes("eu/live/k", &version.unwrap()).await);
}

/// Tries again at once.
fn retrying(store: Arc<dyn Store>) -> RetryingStore {
    let backoff = Backoff {
        tries: 3,
        base: Duration::ZERO,
        cap: Duration::ZERO,
    };
    RetryingStore::new(store, backoff, Arc::new(|| ()))
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
    let refused = FaultyStore::new(
        Arc::clone(&fixture.store),
        first_of_each(Fault::Before(Fault::unavailable())),
    );
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
    parts
        .iter()
        .flat_map(Payload::segments)
        .for_each(|segment| hasher.update(segment));
    let sha256 = hasher.finish();
    for (effect, fault) in [(2, Fault::KillAfter), (3, Fault::KillBefore), (3, Fault::KillAfter)] {
        let name = format!("{effect}-{fault:?}");
        let is_there = matches!((effect, &fault), (3, Fault::KillAfter));
        let dying = FaultyStore::new(Arc::clone(&fixture.store), move |number, _| {
            (number == effect).then(|| fault.clone())
        });
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

#[tokio::test]
async fn markers_and_later_versions_are_listed_newest_first_and_the_first_stays_readable() {
    let fixture = Fixture::locked().await;
    let bucket = fixture.bucket.as_ref().unwrap();
    let first = stored(fixture.put("k", &Payload::of(b"ours".to_vec())).await)
        .version_id
        .unwrap();
    let listed = async || {
        let page = fixture.store.list("", None).await.unwrap();
        let listed = page.versions.into_iter();
        listed
            .map(|version| (version.version_id.unwrap(), version.is_delete_marker))
            .collect::<Vec<_>>()
    };
    let marker = bucket.put_delete_marker("eu/live/k").await;
    assert_eq!(listed().await, [(marker.clone(), true), (first.clone(), false)]);
    assert_eq!(fixture.store.head(&key("k"), None).await.unwrap(), None);
    assert!(fixture.store.head(&key("k"), Some(&marker)).await.unwrap().is_none());

    let forged = bucket.put_over("eu/live/k", b"forged").await.unwrap();
    let expected = [(forged.clone(), false), (marker, true), (first.clone(), false)];
    assert_eq!(listed().await, expected);
    let oldest = list_all(&*fixture.store, "").await.unwrap().remove(0);
    assert_eq!(oldest.version_id.as_deref(), Some(first.as_str()));

    for (version, bytes) in [(&first, &b"ours"[..]), (&forged, b"forged")] {
        let body = fixture.store.open(&key("k"), Some(version)).await.unwrap().unwrap();
        assert_eq!(body.read_to_end(100).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_look_at_a_bucket_tells_what_it_can_do() {
    let server = s3().await;
    let locked = server.create_bucket("looked-at", true).await;
    let report = locked.store(PREFIX, ADMIN).await.check().await.unwrap();
    assert!(report.features.locks && report.features.versions);
    assert_eq!((report.clock_offset_ms, report.locks_assumed), (Some(0), None));
    demand(&report, true).unwrap();

    let plain = server.create_bucket("looked-at", false).await;
    let report = plain.store(PREFIX, ADMIN).await.check().await.unwrap();
    assert!(!report.features.locks && !report.features.versions);
    assert_eq!(demand(&report, true).unwrap_err().code(), Code::StorePolicy);
    demand(&report, false).unwrap();

    plain.turn_on_versions().await;
    let report = plain.store(PREFIX, ADMIN).await.check().await.unwrap();
    assert!(!report.features.locks && report.features.versions);
    assert_eq!(demand(&report, true).unwrap_err().code(), Code::StorePolicy);
}

#[tokio::test]
async fn a_writer_that_may_not_see_the_lock_finds_out_with_the_first_write() {
    let server = s3().await;
    let bucket = server.create_bucket("unseen", false).await;
    let store = bucket.store(PREFIX, WRITER).await;
    let report = store.check().await.unwrap();
    assert!(!report.features.locks && report.locks_assumed.is_none());

    bucket.turn_on_versions().await;
    let store = bucket.store(PREFIX, WRITER).await;
    let report = store.check().await.unwrap();
    assert!(report.features.locks && report.features.versions);
    assert_eq!(report.locks_assumed, Some("s3:GetBucketObjectLockConfiguration"));
    demand(&report, true).unwrap();
    let terms = Terms {
        content_type: "image/jpeg".to_owned(),
        lock: Some(lock(Mode::Compliance, 3)),
        is_document: false,
    };
    let refused = store.put(&key("k"), &Payload::of(b"x".to_vec()), &terms).await;
    assert_eq!(refused.unwrap_err().code(), Code::StorePolicy);
    assert_eq!(bucket.versions().await, []);
}

#[tokio::test]
async fn a_lock_that_a_plain_bucket_cannot_keep_is_refused_for_good() {
    let fixture = Fixture::plain().await;
    let terms = Terms {
        lock: Some(lock(Mode::Compliance, 3)),
        ..fixture.terms()
    };
    let error = fixture
        .store
        .put(&key("k"), &Payload::of(b"x".to_vec()), &terms)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::StorePolicy, "{error}");
    assert_eq!(fixture.keys("").await, [""; 0]);
}

#[tokio::test]
async fn whoever_may_not_write_is_denied() {
    let bucket = s3().await.create_bucket("denied", true).await;
    let wrong_secret = Identity {
        secret_access_key: "wrong",
        ..WRITER
    };
    let unknown = Identity {
        access_key_id: "UNKNOWN",
        ..WRITER
    };
    for identity in [READER, wrong_secret, unknown] {
        let store = bucket.store(PREFIX, identity).await;
        let terms = Terms {
            content_type: "image/jpeg".to_owned(),
            lock: None,
            is_document: false,
        };
        let error = store
            .put(&key("k"), &Payload::of(b"x".to_vec()), &terms)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::StoreDenied, "{identity:?}: {error}");
        assert!(!error.to_string().contains(identity.secret_access_key), "{error}");
    }
    assert_eq!(bucket.versions().await, []);
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_unfit() {
    let settings = S3Settings {
        endpoint_url: Some(s3().await.endpoint.clone()),
        region: Some("us-east-1".to_owned()),
        force_path_style: true,
        ..S3Settings::of_bucket("no-such-bucket", "")
    };
    let store = open_store(&settings, ADMIN).await;
    let error = store.check().await.unwrap_err();
    assert_eq!(error.code(), Code::StorePolicy, "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let settings = S3Settings {
        endpoint_url: Some(format!("http://{free}")),
        region: Some("us-east-1".to_owned()),
        force_path_style: true,
        ..S3Settings::of_bucket("bucket", "")
    };
    let error = open_store(&settings, WRITER).await.check().await.unwrap_err();
    assert!(
        matches!(error, StoreError::Unavailable { slow_down: true, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn the_same_key_below_another_prefix_is_another_object() {
    let bucket = s3().await.create_bucket("prefixes", false).await;
    let terms = Terms {
        content_type: "image/jpeg".to_owned(),
        lock: None,
        is_document: true,
    };
    for prefix in ["eu", "us", ""] {
        let store = bucket.store(prefix, WRITER).await;
        let outcome = store.put(&key("k"), &Payload::of(prefix.into()), &terms).await.unwrap();
        stored(outcome);
    }
    let keys: Vec<_> = bucket.versions().await.into_iter().map(|version| version.key).collect();
    assert_eq!(keys, ["eu/k", "k", "us/k"]);
    let eu = bucket.store("eu/", WRITER).await;
    assert_eq!(list_all(&eu, "").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_closer_look_tells_what_it_cannot_see() {
    let bucket = s3().await.create_bucket("inspected", true).await;
    let report = bucket.store(PREFIX, ADMIN).await.inspect().await.unwrap();
    assert_eq!(report.unfinished_uploads_removed_days, Seen::Absent);
    let report = bucket
        .store(
            PREFIX,
            Identity {
                secret_access_key: "wrong",
                ..ADMIN
            },
        )
        .await
        .inspect()
        .await
        .unwrap();
    assert!(matches!(report.default_encryption, Seen::Unknown(_)), "{report:?}");
}

#[tokio::test]
async fn a_list_of_sessions_is_opened_in_any_bucket() {
    let lists = s3().await.create_bucket("lists", false).await;
    lists.put_over("2026/ids.txt", b"one\ntwo\n").await;
    let settings = S3Settings {
        prefix: "not/looked/at".to_owned(),
        ..lists.settings("")
    };
    let secret = secrecy::SecretString::from(READER.secret_access_key);
    let store = S3Store::connect_as(&settings, READER.access_key_id, &secret, Arc::new(SystemClock))
        .await
        .unwrap();
    let url = format!("s3://{}/2026/ids.txt", lists.name);
    let body = store.open_other(&url).await.unwrap().unwrap();
    assert_eq!(body.read_to_end(100).await.unwrap(), b"one\ntwo\n");
    let absent = format!("s3://{}/2026/none.txt", lists.name);
    assert!(store.open_other(&absent).await.unwrap().is_none());
}
