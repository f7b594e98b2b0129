//! What the bucket store really sends, and how it takes answers that a well-behaved server never gives.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use veriff_archive::clock::Timestamp;
use veriff_archive::error::Code;
use veriff_archive::model::digest::{Checksum, Payload, Sha256Digest};
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::retention::{Lock, Mode};
use veriff_archive::store::settings::{S3Settings, Sse};
use veriff_archive::store::{PutOutcome, ReadStore as _, Store, StoreError, Terms};

use crate::support::s3::{WRITER, open_store};

/// A request as it came over the wire.
struct Request {
    line: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Reads one request whose body has a length; anything else would not end.
    async fn read(stream: &mut TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let (line, rest) = head.split_once("\r\n").unwrap();
        let headers: HashMap<_, _> = rest
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        Self { line: line.to_owned(), headers, body }
    }
}

/// Listens for as many requests as there are answers, one after another; an empty answer closes the connection.
async fn server(answers: Vec<String>) -> (S3Settings, JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            requests.push(Request::read(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    let settings = S3Settings {
        endpoint_url: Some(format!("http://{address}")),
        region: Some("eu-north-1".to_owned()),
        force_path_style: true,
        expected_bucket_owner: Some("111122223333".to_owned()),
        sse: Sse::AwsKms,
        kms_key_id: Some("key-1".to_owned()),
        storage_class: "GLACIER_IR".to_owned(),
        ..S3Settings::of_bucket("bucket", "eu/")
    };
    (settings, task)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

fn error(status: &str, code: &str) -> String {
    answer(status, "", &format!("<Error><Code>{code}</Code><Message>m</Message></Error>"))
}

fn terms(is_document: bool) -> Terms {
    Terms {
        content_type: "image/jpeg".to_owned(),
        lock: Some(Lock { mode: Mode::Compliance, retain_until: Timestamp::from_unix_seconds(1_900_022_400) }),
        is_document,
    }
}

fn payload(segments: &[&'static [u8]]) -> Payload {
    let whole = segments.concat();
    Payload::hashed(segments.iter().copied().map(Bytes::from_static).collect(), Sha256Digest::of(&whole))
}

fn key() -> ObjectKey {
    ObjectKey::from_store("k")
}

async fn put(answer: String) -> (Result<PutOutcome, StoreError>, Request) {
    let (settings, server) = server(vec![answer]).await;
    let store = open_store(&settings, WRITER).await;
    let outcome = store.put(&key(), &payload(&[b"by", b"tes"]), &terms(false)).await;
    (outcome, server.await.unwrap().remove(0))
}

fn assert_sent_plainly(request: &Request, bytes: &[u8]) {
    let digest = Sha256Digest::of(bytes);
    assert_eq!(request.body, bytes);
    assert_eq!(request.header("content-length"), Some(bytes.len().to_string().as_str()));
    assert_eq!(request.header("x-amz-content-sha256"), Some(digest.to_string().as_str()));
    assert_eq!(request.header("x-amz-checksum-sha256"), Some(digest.to_base64().as_str()));
    for absent in ["transfer-encoding", "content-encoding", "x-amz-trailer", "trailer", "x-amz-decoded-content-length"]
    {
        assert_eq!(request.header(absent), None, "{absent}");
    }
    assert!(request.header("authorization").unwrap().contains("x-amz-content-sha256"));
}

#[tokio::test]
async fn a_write_is_conditional_plain_and_signed_with_the_known_digest() {
    let (outcome, request) = put(answer("200 OK", "x-amz-version-id: v1\r\n", "")).await;
    let PutOutcome::Created(stored) = outcome.unwrap() else {
        panic!("created");
    };
    assert_eq!(stored.version_id.as_deref(), Some("v1"));
    assert_eq!(stored.checksum, Checksum::full(Sha256Digest::of(b"bytes")));
    assert!(request.line.starts_with("PUT /bucket/eu/k"), "{}", request.line);
    assert_sent_plainly(&request, b"bytes");
    let expected = [
        ("if-none-match", "*"),
        ("content-type", "image/jpeg"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-object-lock-retain-until-date", "2030-03-18T00:00:00Z"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
        ("x-amz-storage-class", "GLACIER_IR"),
        ("x-amz-expected-bucket-owner", "111122223333"),
        ("x-amz-sdk-checksum-algorithm", "SHA256"),
    ];
    for (name, value) in expected {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn the_digest_that_is_signed_is_the_known_one_and_not_computed_again() {
    let claimed = Sha256Digest::of(b"claimed");
    for segments in [vec![&b"bytes"[..]], vec![b"by", b"tes"]] {
        let (settings, server) = server(vec![error("400 Bad Request", "XAmzContentSHA256Mismatch")]).await;
        let store = open_store(&settings, WRITER).await;
        let payload = Payload::hashed(segments.into_iter().map(Bytes::from_static).collect(), claimed);
        let refused = store.put(&key(), &payload, &terms(false)).await.unwrap_err();
        assert_eq!(refused.code(), Code::StoreChecksum);
        let request = server.await.unwrap().remove(0);
        assert_eq!(request.body, b"bytes");
        assert_eq!(request.header("x-amz-content-sha256"), Some(claimed.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_document_is_in_the_standard_class() {
    let (settings, server) = server(vec![answer("200 OK", "", "")]).await;
    let store = open_store(&settings, WRITER).await;
    store.put(&key(), &payload(&[b"{}"]), &terms(true)).await.unwrap();
    let request = server.await.unwrap().remove(0);
    assert_eq!(request.header("x-amz-storage-class"), None);
    assert_sent_plainly(&request, b"{}");
}

#[tokio::test]
async fn answers_have_their_meaning() {
    let other = format!("x-amz-checksum-sha256: {}\r\n", Sha256Digest::of(b"other").to_base64());
    let (outcome, _) = put(answer("200 OK", &other, "")).await;
    assert_eq!(outcome.unwrap_err().code(), Code::StoreChecksum);

    let (outcome, _) = put(error("412 Precondition Failed", "PreconditionFailed")).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Taken);

    let retryable = [
        error("409 Conflict", "ConditionalRequestConflict"),
        error("503 Slow Down", "SlowDown"),
        error("500 Internal Server Error", "InternalError"),
        error("400 Bad Request", "ExpiredToken"),
        answer("502 Bad Gateway", "", "<html>no</html>"),
        String::new(),
    ];
    for answer in retryable {
        let (outcome, _) = put(answer.clone()).await;
        assert_eq!(outcome.unwrap_err().code(), Code::StoreUnavailable, "{answer}");
    }
    let (outcome, _) = put(String::new()).await;
    let broken_off = outcome.unwrap_err();
    assert!(matches!(broken_off, StoreError::Unavailable { slow_down: false, .. }), "{broken_off}");

    let (outcome, _) = put(error("403 Forbidden", "RequestTimeTooSkewed")).await;
    assert_eq!(outcome.unwrap_err().code(), Code::ClockSkew);
    let (outcome, _) = put(error("404 Not Found", "NoSuchBucket")).await;
    assert_eq!(outcome.unwrap_err().code(), Code::StorePolicy);
}

fn begun() -> String {
    let body = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    answer("200 OK", "", body)
}

fn looked(checksum: &Checksum, lock: &str) -> String {
    let value = &checksum.value;
    // The answer to HEAD has the length of the object and no body.
    format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\nx-amz-checksum-sha256: {value}\r\n\
         x-amz-version-id: v9\r\n{lock}\r\n"
    )
}

const LOCK: &str =
    "x-amz-object-lock-mode: COMPLIANCE\r\nx-amz-object-lock-retain-until-date: 2030-03-18T00:00:00Z\r\n";

/// Uploads one part and completes as often as asked; what is answered follows the beginning and the part.
async fn upload(answers: Vec<String>, completions: usize) -> (Vec<Result<PutOutcome, StoreError>>, Vec<Request>) {
    let mut all = vec![begun(), answer("200 OK", "etag: \"e1\"\r\n", "")];
    all.extend(answers);
    let (settings, server) = server(all).await;
    let store = open_store(&settings, WRITER).await;
    let mut upload = store.start_upload(&key(), &terms(false)).await.unwrap();
    let part = payload(&[b"by", b"tes"]);
    upload.put_part(&part).await.unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..completions {
        outcomes.push(upload.complete(part.sha256()).await);
    }
    (outcomes, server.await.unwrap())
}

#[tokio::test]
async fn an_upload_asks_for_lock_and_class_when_it_begins_and_for_the_condition_when_it_ends() {
    let composite = Checksum::composite(&[Sha256Digest::of(b"bytes")]);
    let body = format!(
        "<CompleteMultipartUploadResult><ChecksumSHA256>{}</ChecksumSHA256></CompleteMultipartUploadResult>",
        composite.value
    );
    let (outcomes, requests) = upload(vec![answer("200 OK", "x-amz-version-id: v1\r\n", &body)], 1).await;
    let Ok(PutOutcome::Created(stored)) = &outcomes[0] else {
        panic!("created: {outcomes:?}");
    };
    assert_eq!((stored.version_id.as_deref(), &stored.checksum), (Some("v1"), &composite));
    let [begin, part, complete] = &requests[..] else {
        panic!("three requests");
    };
    for (name, value) in [
        ("x-amz-checksum-algorithm", "SHA256"),
        ("x-amz-checksum-type", "COMPOSITE"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-object-lock-retain-until-date", "2030-03-18T00:00:00Z"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-storage-class", "GLACIER_IR"),
    ] {
        assert_eq!(begin.header(name), Some(value), "{name}");
    }
    assert_sent_plainly(part, b"bytes");
    assert!(part.line.contains("partNumber=1") && part.line.contains("uploadId=u1"), "{}", part.line);
    assert_eq!(complete.header("if-none-match"), Some("*"));
    let sent = String::from_utf8(complete.body.clone()).unwrap();
    assert!(sent.contains(&Sha256Digest::of(b"bytes").to_base64()), "{sent}");
}

#[tokio::test]
async fn a_completion_with_another_composite_is_refused() {
    let other = Checksum::composite(&[Sha256Digest::of(b"other")]);
    let body = format!(
        "<CompleteMultipartUploadResult><ChecksumSHA256>{}</ChecksumSHA256></CompleteMultipartUploadResult>",
        other.value
    );
    let (outcomes, _) = upload(vec![answer("200 OK", "", &body)], 1).await;
    assert_eq!(outcomes[0].as_ref().unwrap_err().code(), Code::StoreChecksum);
}

#[tokio::test]
async fn after_a_lost_answer_the_object_is_ours_if_checksum_and_lock_are() {
    let ours = Checksum::composite(&[Sha256Digest::of(b"bytes")]);
    let other = Checksum::composite(&[Sha256Digest::of(b"other")]);
    for refusal in [error("404 Not Found", "NoSuchUpload"), error("412 Precondition Failed", "PreconditionFailed")] {
        let (outcomes, _) = upload(vec![String::new(), refusal.clone(), looked(&ours, LOCK)], 2).await;
        assert_eq!(outcomes[0].as_ref().unwrap_err().code(), Code::StoreUnavailable);
        let Ok(PutOutcome::Created(stored)) = &outcomes[1] else {
            panic!("created: {outcomes:?}");
        };
        assert_eq!(stored.version_id.as_deref(), Some("v9"));
        for look in [looked(&other, LOCK), looked(&ours, "")] {
            let (outcomes, _) = upload(vec![String::new(), refusal.clone(), look], 2).await;
            assert_eq!(outcomes[1].as_ref().unwrap(), &PutOutcome::Taken);
        }
    }
}

#[tokio::test]
async fn an_upload_that_a_conflict_ended_is_not_completed_again() {
    let absent = answer("404 Not Found", "", "");
    let conflict = error("409 Conflict", "ConditionalRequestConflict");
    let other = Checksum::full(Sha256Digest::of(b"other"));
    let (outcomes, requests) = upload(vec![conflict, absent, looked(&other, LOCK)], 2).await;
    assert_eq!(outcomes[0].as_ref().unwrap_err().code(), Code::StoreUnavailable);
    assert_eq!(outcomes[1].as_ref().unwrap(), &PutOutcome::Taken);
    let methods: Vec<_> = requests[2..].iter().map(|r| r.line.split(' ').next().unwrap()).collect();
    assert_eq!(methods, ["POST", "HEAD", "HEAD"]);
}

#[tokio::test]
async fn a_clock_that_is_off_stops_the_look_at_the_bucket() {
    let date = "date: Mon, 23 Nov 2015 06:00:00 GMT\r\n";
    let answers = vec![
        answer("200 OK", date, ""),
        answer("200 OK", date, "<VersioningConfiguration></VersioningConfiguration>"),
        answer("404 Not Found", date, "<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>"),
    ];
    let (settings, server) = server(answers).await;
    let store = Arc::new(open_store(&settings, WRITER).await);
    let error = store.check().await.unwrap_err();
    assert_eq!(error.code(), Code::ClockSkew, "{error}");
    server.await.unwrap();
    let (least, greatest) = store.clock_offsets().unwrap();
    assert!(least <= greatest && greatest < -60_000, "{least} {greatest}");
    assert!(store.now() < Timestamp::from_unix_seconds(1_500_000_000));
}
