//! The hot path: what is done for every item, alone and end to end.
//!
//! `cargo bench -p veriff-archive-benches` takes about a minute once it is built, with the optimisation of `dist`. The
//! end-to-end figure is the time of one session with one image of 200 KiB: the look into the store, the three lists, the
//! download, the object, its sidecar and the manifest, over HTTP from the simulator to a local sink through the real S3
//! client. Simulator and sink have a thread each and their cost is in it.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

mod sink;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use tokio_util::sync::CancellationToken;
use veriff_archive::clock::{Clock, SystemClock, Timestamp};
use veriff_archive::ledger;
use veriff_archive::metrics::{Meter, SessionMeter};
use veriff_archive::model::digest::{Checksum, Sha256Digest};
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::manifest::{Listing, MANIFEST_SCHEMA, Manifest, ManifestAttempt, ManifestMedia};
use veriff_archive::model::request::SessionRequest;
use veriff_archive::model::retention::{Mode, RetentionPolicy};
use veriff_archive::model::sidecar::{
    ArchivedBy, CountedFrom, SIDECAR_SCHEMA, Sidecar, SidecarObject, SidecarRetention, SignatureCheck, Upstream,
};
use veriff_archive::model::{ArchiveId, AttemptId, MediaId, MediaKind, RunId, SessionId};
use veriff_archive::secret::SecretSource;
use veriff_archive::session::body::Habits;
use veriff_archive::session::budget::Budget;
use veriff_archive::session::identity::Identity;
use veriff_archive::session::visit::Outcome;
use veriff_archive::session::writer::ArchiveWriter;
use veriff_archive::session::{Archiver, CurrentRun, Integration};
use veriff_archive::store::ReadStore as _;
use veriff_archive::store::s3::S3Store;
use veriff_archive::store::settings::S3Settings;
use veriff_archive::veriff::VeriffClient;
use veriff_archive::veriff::settings::{IntegrationKind, IntegrationSettings, SignaturePolicy};
use veriff_archive::veriff::signing::{Signer, sign_id};
use veriff_archive::veriff::wire::MediaList;
use veriff_sim::{Attempt, Session, Simulator, World};

/// A usual photo.
const IMAGE_BYTES: usize = 200 * 1024;

/// A usual video, and a part of a longer one.
const VIDEO_BYTES: usize = 8 * 1024 * 1024;

/// The items of a session with many attempts.
const ITEMS: usize = 30;

/// A secret of the usual length.
const SECRET: &str = "abcdef12-abcd-abcd-abcd-abcdef012345";

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    sign(&mut criterion);
    hash(&mut criterion);
    documents(&mut criterion);
    archive(&mut criterion);
    criterion.final_summary();
}

/// Signs a request, and checks the signature of an image.
fn sign(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sign");
    let id = veriff_sim::id("session");
    group.bench_function("id", |bencher| bencher.iter(|| sign_id(SECRET, black_box(&id))));
    let image = vec![0x5a; IMAGE_BYTES];
    group.throughput(Throughput::Bytes(image.len() as u64));
    group.bench_function("image", |bencher| {
        bencher.iter(|| {
            let mut signer = Signer::new(SECRET);
            signer.update(black_box(&image));
            signer.hex()
        });
    });
    group.finish();
}

/// Hashes an image and a video.
fn hash(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    for (name, size_bytes) in [("image", IMAGE_BYTES), ("video", VIDEO_BYTES)] {
        let bytes = vec![0x5a; size_bytes];
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| Sha256Digest::of(black_box(&bytes))));
    }
    group.finish();
}

/// Reads a list, renders a sidecar and a manifest.
fn documents(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("documents");
    let list = media_list();
    group.bench_function("read a list of 30", |bencher| {
        bencher.iter(|| serde_json::from_slice::<MediaList>(black_box(list.as_bytes())).map(|list| list.images.len()));
    });
    let sidecar = sidecar();
    group.bench_function("render a sidecar", |bencher| bencher.iter(|| black_box(&sidecar).to_payload()));
    let manifest = manifest(&list);
    group.bench_function("render a manifest of 30", |bencher| {
        bencher.iter(|| black_box(&manifest).to_payload());
    });
    group.finish();
}

/// Archives a session with one image.
fn archive(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let session = veriff_sim::id("session");
    let attempt = Attempt::approved(veriff_sim::id("attempt")).image("face", IMAGE_BYTES as u64);
    let world = World::new().session(Session::new(&session).attempt(attempt));
    let simulator = Simulator::start_on_thread(world).expect("the simulator can be started");
    let sink = sink::start().expect("a sink can be started");
    let (archiver, integration) = runtime.block_on(connect(&simulator, sink));
    let record = SessionRequest::of(SessionId::parse(&session).expect("the simulator makes ids"));
    let visit = async || {
        let meter = SessionMeter::default();
        let visit = archiver.archive_session(&integration, &record, None, &meter).await;
        let visit = visit.expect("the session can be archived");
        assert_eq!(visit.outcome, Outcome::Archived);
        assert_eq!(visit.new, (1, IMAGE_BYTES as u64));
    };
    // The first visit also makes the archive and opens the connections.
    runtime.block_on(visit());
    let mut group = criterion.benchmark_group("archive");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a session with one image", |bencher| bencher.to_async(&runtime).iter(visit));
    group.finish();
    simulator.stop();
}

async fn connect(simulator: &Simulator, sink: String) -> (Archiver, Integration) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let meter = Arc::new(Meter::starting(clock.instant()));
    let client = VeriffClient::connect(integration_settings(simulator), 1, Arc::clone(&clock), Arc::clone(&meter))
        .await
        .expect("the client can be made");
    let settings =
        S3Settings { endpoint_url: Some(sink), force_path_style: true, ..S3Settings::of_bucket("archive", "bench") };
    let store =
        S3Store::connect_as(&settings, "key", &SECRET.into(), Arc::clone(&clock)).await.expect("the store can be made");
    store.check().await.expect("the sink answers like a bucket");
    let ledger = ledger::open("sqlite::memory:").await.expect("a ledger can be opened");
    let identity = Identity::find(&store, ledger).await.expect("the bucket is empty");
    let archiver = Archiver {
        writer: ArchiveWriter::new(Arc::new(store), RetentionPolicy::unlocked(), None),
        identity,
        budget: Budget::of_memory(256 * 1024 * 1024),
        max_media_size_bytes: 2 * 1024 * 1024 * 1024,
        meter,
        run: CurrentRun::new(RunId::new(clock.now())),
        abandon: CancellationToken::new(),
    };
    let habits = Habits::default();
    (archiver, Integration { client, habits })
}

fn integration_settings(simulator: &Simulator) -> IntegrationSettings {
    IntegrationSettings {
        name: "default".to_owned(),
        base_url: simulator.base_url().parse().expect("the simulator has an address"),
        allow_http: true,
        api_key: SecretSource::Value(simulator.api_key().into()),
        shared_secret: SecretSource::Value(simulator.secret().into()),
        kind: IntegrationKind::Live,
        horizon: Duration::from_hours(90 * 24),
        max_requests_per_second: 1_000_000.0,
        max_concurrency: 8,
        response_signature: SignaturePolicy::Record,
        records: Vec::new(),
        settle_after: Duration::from_hours(24),
        retention_class: "default".to_owned(),
    }
}

/// A list as Veriff sends it.
fn media_list() -> String {
    let images: Vec<_> = (0..ITEMS)
        .map(|number| {
            let id = veriff_sim::id(&format!("media {number}"));
            serde_json::json!({
                "context": "document-front", "id": id, "name": "document-front", "timestamp": null, "size": IMAGE_BYTES,
                "mimetype": "image/jpeg", "url": format!("https://host.example/v1/media/{id}"),
                "sessionId": veriff_sim::id("session"),
            })
        })
        .collect();
    serde_json::json!({ "status": "success", "videos": [], "images": images }).to_string()
}

fn sidecar() -> Sidecar {
    let media_id = media_id(0);
    let digest = Sha256Digest::of(SECRET.as_bytes());
    let now = Timestamp::from_unix_seconds(1_770_000_000);
    Sidecar {
        schema: SIDECAR_SCHEMA.to_owned(),
        archive_id: ArchiveId::random(),
        session_id: session_id(),
        attempt_id: attempt_id(),
        kind: MediaKind::Image,
        integration: "default".to_owned(),
        context: Some("document-front".to_owned()),
        name: Some("document-front".to_owned()),
        duration_seconds: None,
        object: SidecarObject {
            key: ObjectKey::media(&session_id(), &attempt_id(), &media_id, "jpg"),
            size_bytes: IMAGE_BYTES as u64,
            sha256: digest,
            content_type: "image/jpeg".to_owned(),
            checksum: Checksum::full(digest),
        },
        upstream: Some(Upstream {
            host: "host.example".to_owned(),
            path: format!("/v1/media/{media_id}"),
            listed_size_bytes: Some(IMAGE_BYTES as u64),
            listed_mimetype: Some("image/jpeg".to_owned()),
            http_status: 200,
            content_type: Some("image/jpeg".to_owned()),
            date: Some("Mon, 02 Feb 2026 02:40:00 GMT".to_owned()),
            fetched_at: now,
            signature: SignatureCheck::Match,
            signature_value: Some(digest.to_string()),
        }),
        retention: SidecarRetention {
            class: "default".to_owned(),
            mode: Mode::None,
            period: None,
            basis: "AMLR Art. 77, minimum".to_owned(),
            counted_from: now,
            counted_from_source: CountedFrom::ArchivedAt,
            initial_retain_until: None,
        },
        archived_by: ArchivedBy { run_id: RunId::new(now), version: env!("CARGO_PKG_VERSION").to_owned() },
        anomalies: Vec::new(),
        media_id,
    }
}

fn manifest(list: &str) -> Manifest {
    let now = Timestamp::from_unix_seconds(1_770_000_000);
    let attempts = vec![ManifestAttempt {
        attempt_id: attempt_id(),
        status: Some("approved".to_owned()),
        created_at: Some(now),
        media: (0..ITEMS).map(manifest_media).collect(),
    }];
    let path = format!("/v1/sessions/{}/media", session_id());
    Manifest {
        schema: MANIFEST_SCHEMA.to_owned(),
        archive_id: ArchiveId::random(),
        session_id: session_id(),
        integration: "default".to_owned(),
        sequence: 1,
        previous: None,
        archived_at: now,
        run_id: RunId::new(now),
        decided_at: None,
        complete: true,
        settled: true,
        absent: None,
        totals: Manifest::sum(&attempts),
        attempts,
        missing: Vec::new(),
        conflicts: Vec::new(),
        listings: vec![Listing::of(path, now, 200, list.as_bytes())],
    }
}

fn manifest_media(number: usize) -> ManifestMedia {
    let media_id = media_id(number);
    let digest = Sha256Digest::of(media_id.as_str().as_bytes());
    ManifestMedia {
        kind: MediaKind::Image,
        context: Some("document-front".to_owned()),
        key: ObjectKey::media(&session_id(), &attempt_id(), &media_id, "jpg"),
        version_id: None,
        size_bytes: IMAGE_BYTES as u64,
        sha256: digest,
        checksum: Checksum::full(digest),
        sidecar_sha256: digest,
        sidecar_version_id: None,
        media_id,
    }
}

fn session_id() -> SessionId {
    SessionId::parse(&veriff_sim::id("session")).expect("the simulator makes ids")
}

fn attempt_id() -> AttemptId {
    AttemptId::parse(&veriff_sim::id("attempt")).expect("the simulator makes ids")
}

fn media_id(number: usize) -> MediaId {
    MediaId::parse(&veriff_sim::id(&format!("media {number}"))).expect("the simulator makes ids")
}
