//! What only a bucket can show: versions, locks it may or may not have, identities, other buckets.

use std::sync::Arc;

use veriff_archive::clock::SystemClock;
use veriff_archive::error::Code;
use veriff_archive::model::digest::Payload;
use veriff_archive::model::retention::Mode;
use veriff_archive::store::policy::demand;
use veriff_archive::store::s3::{S3Store, Seen};
use veriff_archive::store::settings::S3Settings;
use veriff_archive::store::versions::list_all;
use veriff_archive::store::{ReadStore as _, Store as _, StoreError, Terms};

use super::store::{Fixture, PREFIX, key, lock, stored};
use crate::support::s3::{ADMIN, Identity, READER, WRITER, open_store, s3};

#[tokio::test]
async fn markers_and_later_versions_are_listed_newest_first_and_the_first_stays_readable() {
    let fixture = Fixture::locked().await;
    let bucket = fixture.bucket.as_ref().unwrap();
    let first = stored(fixture.put("k", &Payload::of(b"ours".to_vec())).await).version_id.unwrap();
    let listed = async || {
        let page = fixture.store.list("", None).await.unwrap();
        let listed = page.versions.into_iter();
        listed.map(|version| (version.version_id.unwrap(), version.is_delete_marker)).collect::<Vec<_>>()
    };
    let marker = bucket.put_delete_marker("eu/live/k").await;
    assert_eq!(listed().await, [(marker.clone(), true), (first.clone(), false)]);
    assert_eq!(fixture.store.head(&key("k"), None).await.unwrap(), None);
    assert!(fixture.store.head(&key("k"), Some(&marker)).await.unwrap().is_none());

    let forged = bucket.put_over("eu/live/k", b"forged").await.unwrap();
    let expected = [(forged.clone(), false), (marker, true), (first.clone(), false)];
    assert_eq!(listed().await, expected);
    let key_of_ours = list_all(&*fixture.store, "").await.unwrap().remove(0);
    assert_eq!((key_of_ours.own_id(), key_of_ours.shadows.len()), (Some(first.as_str()), 2));

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
    let terms =
        Terms { content_type: "image/jpeg".to_owned(), lock: Some(lock(Mode::Compliance, 3)), is_document: false };
    let refused = store.put(&key("k"), &Payload::of(b"x".to_vec()), &terms).await;
    assert_eq!(refused.unwrap_err().code(), Code::StorePolicy);
    assert_eq!(bucket.versions().await, []);
}

#[tokio::test]
async fn a_lock_that_a_plain_bucket_cannot_keep_is_refused_for_good() {
    let fixture = Fixture::plain().await;
    let terms = Terms { lock: Some(lock(Mode::Compliance, 3)), ..fixture.terms() };
    let error = fixture.store.put(&key("k"), &Payload::of(b"x".to_vec()), &terms).await.unwrap_err();
    assert_eq!(error.code(), Code::StorePolicy, "{error}");
    assert_eq!(fixture.keys("").await, [""; 0]);
}

#[tokio::test]
async fn whoever_may_not_write_is_denied() {
    let bucket = s3().await.create_bucket("denied", true).await;
    let wrong_secret = Identity { secret_access_key: "wrong", ..WRITER };
    let unknown = Identity { access_key_id: "UNKNOWN", ..WRITER };
    for identity in [READER, wrong_secret, unknown] {
        let store = bucket.store(PREFIX, identity).await;
        let terms = Terms { content_type: "image/jpeg".to_owned(), lock: None, is_document: false };
        let error = store.put(&key("k"), &Payload::of(b"x".to_vec()), &terms).await.unwrap_err();
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
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = S3Settings {
        endpoint_url: Some(format!("http://{free}")),
        region: Some("us-east-1".to_owned()),
        force_path_style: true,
        ..S3Settings::of_bucket("bucket", "")
    };
    let error = open_store(&settings, WRITER).await.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { slow_down: true, .. }), "{error}");
}

#[tokio::test]
async fn the_same_key_below_another_prefix_is_another_object() {
    let bucket = s3().await.create_bucket("prefixes", false).await;
    let terms = Terms { content_type: "image/jpeg".to_owned(), lock: None, is_document: true };
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
    let report = bucket.store(PREFIX, Identity { secret_access_key: "wrong", ..ADMIN }).await.inspect().await.unwrap();
    assert!(matches!(report.default_encryption, Seen::Unknown(_)), "{report:?}");
}

#[tokio::test]
async fn a_list_of_sessions_is_opened_in_any_bucket() {
    let lists = s3().await.create_bucket("lists", false).await;
    lists.put_over("2026/ids.txt", b"one\ntwo\n").await;
    let settings = S3Settings { prefix: "not/looked/at".to_owned(), ..lists.settings("") };
    let secret = secrecy::SecretString::from(READER.secret_access_key);
    let store = S3Store::connect_as(&settings, READER.access_key_id, &secret, Arc::new(SystemClock)).await.unwrap();
    let url = format!("s3://{}/2026/ids.txt", lists.name);
    let body = store.open_other(&url).await.unwrap().unwrap();
    assert_eq!(body.read_to_end(100).await.unwrap(), b"one\ntwo\n");
    let absent = format!("s3://{}/2026/none.txt", lists.name);
    assert!(store.open_other(&absent).await.unwrap().is_none());
}
