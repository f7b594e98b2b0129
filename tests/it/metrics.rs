//! Metrics: what a run tells of itself while it goes on and when it ends, to whoever listens or to nobody.

#![expect(clippy::disallowed_methods, reason = "a test measures by the machine's clock")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use veriff_archive::clock::{Clock as _, SystemClock};
use veriff_sim::{Effect, Endpoint, Fault, World, id};

use crate::support::program::{Deployment, Ended, ended};
use crate::support::scene::{Scene, session, world_of};

/// How often the program is asked before something never comes about. Each try is an exchange of its own, so this is
/// well over a minute.
const TRIES: u32 = 100_000;

fn world() -> World {
    let names: Vec<String> = (0..6).map(|number| format!("session {number}")).collect();
    world_of(&names.iter().map(|name| session(name)).collect::<Vec<_>>())
}

/// A program that serves its metrics.
struct Serving {
    child: Child,
    address: SocketAddr,
    stderr: std::thread::JoinHandle<String>,
}

impl Serving {
    /// Starts an archiving and waits until it says where it serves.
    async fn start(deployment: &Deployment, more: &[&str]) -> Self {
        let words = ["run", "--sessions", "sessions.txt", "--progress", "none"];
        let mut child = deployment.start(words.iter().chain(more));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (address, stderr) = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            loop {
                let before = said.len();
                assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended before it served: {said}");
                if let Some((_, rest)) = said[before..].split_once("http://") {
                    let address = rest.split('/').next().unwrap().parse().unwrap();
                    break (address, (said, stderr));
                }
            }
        })
        .await
        .unwrap();
        // Nobody else empties the pipe.
        let (mut said, mut rest) = stderr;
        let stderr = std::thread::spawn(move || {
            rest.read_to_string(&mut said).unwrap();
            said
        });
        Self { child, address, stderr }
    }

    /// Asks for a path and returns status line and body.
    async fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// Scrapes until a line is among the metrics.
    async fn until(&self, line: &str) -> String {
        let mut text = String::new();
        for _ in 0..TRIES {
            text = self.get("/metrics").await.1;
            if text.lines().any(|found| found == line) {
                return text;
            }
        }
        panic!("never came about: {line}\n{text}");
    }

    /// Tells it to stop and waits until it has ended.
    async fn stop(self) -> Ended {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut end = ended(self.child).await;
        end.stderr = self.stderr.join().unwrap();
        end
    }
}

/// A collector that keeps what is pushed to it.
struct Collector {
    address: SocketAddr,
    pushes: Arc<Mutex<Vec<Push>>>,
}

#[derive(Debug, Clone)]
struct Push {
    path: String,
    content_type: String,
    body: Bytes,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), pushes: Arc::default() };
        let pushes = Arc::clone(&collector.pushes);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let pushes = Arc::clone(&pushes);
                let service = service_fn(move |request: Request<Incoming>| keep(request, Arc::clone(&pushes)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        collector
    }

    fn pushes(&self) -> Vec<Push> {
        self.pushes.lock().unwrap().clone()
    }
}

async fn keep(request: Request<Incoming>, pushes: Arc<Mutex<Vec<Push>>>) -> hyper::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let content_type = request.headers()["content-type"].to_str().unwrap().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    pushes.lock().unwrap().push(Push { path, content_type, body });
    Ok(Response::default())
}

impl Push {
    fn request(&self) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest::decode(self.body.clone()).unwrap()
    }

    /// Its values, by name and the values of their labels.
    fn values(&self) -> BTreeMap<String, i64> {
        let request = self.request();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        metrics
            .iter()
            .flat_map(|metric| {
                let points = match metric.data.as_ref().unwrap() {
                    metric::Data::Sum(sum) => &sum.data_points,
                    metric::Data::Gauge(gauge) => &gauge.data_points,
                    other => panic!("{other:?}"),
                };
                points.iter().map(|point| {
                    let labels = point.attributes.iter().flat_map(|label| [" ".to_owned(), text_of(label)]);
                    let labels: String = labels.collect();
                    let Some(number_data_point::Value::AsInt(value)) = point.value else { panic!("{point:?}") };
                    (format!("{}{labels}", metric.name), value)
                })
            })
            .collect()
    }

    /// An attribute of the run it is of.
    fn resource(&self, key: &str) -> String {
        let request = self.request();
        let attributes = &request.resource_metrics[0].resource.as_ref().unwrap().attributes;
        text_of(attributes.iter().find(|attribute| attribute.key == key).unwrap())
    }
}

fn text_of(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// Fails if a text tells more than numbers.
#[track_caller]
fn assert_tells_nobody(text: &str, scene: &Scene) {
    let mut secrets = vec![scene.simulator.api_key(), scene.simulator.secret()];
    let world = scene.simulator.world();
    secrets.extend(world.session_ids());
    secrets.extend(world.all_media().map(|media| media.id.clone()));
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret} is in {text}");
    }
}

fn push_to(scene: &Scene, address: SocketAddr) {
    scene.deployment.configure_more(&format!("[telemetry]\notlp_endpoint = \"http://{address}\"\n"));
}

#[tokio::test]
async fn a_run_is_scraped_while_it_goes_on() {
    let scene = Scene::of(world()).await;
    scene.deployment.configure_more("[telemetry]\nprometheus_listen = \"127.0.0.1:0\"\n");
    // One list is held back for longer than anyone waits, so that the run goes on with one session.
    let held = Fault::forever(Effect::DelayHead { for_ms: 600_000 });
    scene.simulator.set_fault(held.on(Endpoint::Attempts).id(id("session 5")));

    let serving = Serving::start(&scene.deployment, &["--drain-timeout", "0s"]).await;
    serving.until("veriff_archive_sessions_total{integration=\"default\",outcome=\"archived\"} 5").await;
    let text = serving.until("veriff_archive_sessions_in_flight 1").await;
    for line in [
        "veriff_archive_sessions_total{integration=\"default\",outcome=\"failed\"} 0",
        "veriff_archive_media_archived_total 10",
        "veriff_archive_media_received_bytes_total 250000",
        "veriff_archive_media_stored_bytes_total 250000",
        "veriff_archive_veriff_throttled_total{integration=\"default\"} 0",
        "veriff_archive_integration_stopped{integration=\"default\"} 0",
        "veriff_archive_run_finished_timestamp_seconds 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("veriff_archive_run_exit_code"), "{text}");
    assert_tells_nobody(&text, &scene);
    let (status, body) = serving.get("/healthz").await;
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "ok\n"));
    assert_eq!(serving.get("/").await.0, "HTTP/1.1 404 Not Found");
    serving.stop().await.expect(143);
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused_before_anything_is_done() {
    let scene = Scene::of(world()).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    scene.deployment.configure_more(&format!("[telemetry]\nprometheus_listen = \"{address}\"\n"));
    let ended = scene.archive(&[]).await.expect(78);
    let told = format!("telemetry.prometheus_listen: cannot listen on {address}: ");
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    scene.assert_nothing_written();
    assert_eq!(scene.simulator.count(Endpoint::Attempts), 0);
}

#[tokio::test]
async fn the_last_push_has_what_the_summary_has_and_the_exit_code() {
    let scene = Scene::of(world()).await;
    let collector = Collector::start().await;
    push_to(&scene, collector.address);
    let gone = Fault::forever(Effect::status(404)).on(Endpoint::Attempts).id(id("session 1"));
    scene.simulator.set_fault(gone);
    scene.simulator.set_fault(Fault::forever(Effect::status(404)).on(Endpoint::SessionMedia).id(id("session 1")));
    scene.simulator.set_fault(Fault::forever(Effect::status(500)).on(Endpoint::Attempts).id(id("session 2")));
    scene.simulator.set_fault(Fault::once(Effect::too_many(None)).on(Endpoint::Attempts).id(id("session 3")));
    scene.deployment.write_ids(&[scene.ids(), vec!["no id".to_owned()]].concat());

    let ended = scene.archive(&[]).await.expect(3);
    let summary = ended.json();
    let pushes = collector.pushes();
    let (first, last) = (pushes.first().unwrap(), pushes.last().unwrap());
    for push in &pushes {
        assert_eq!((push.path.as_str(), push.content_type.as_str()), ("/v1/metrics", "application/x-protobuf"));
        assert_eq!(push.resource("service.name"), "veriff-archive");
        assert_eq!(push.resource("service.instance.id"), summary["run_id"].as_str().unwrap());
        assert_tells_nobody(&String::from_utf8_lossy(&push.body), &scene);
    }
    assert!(pushes.len() > 1);
    assert_eq!(first.values().get("veriff_archive.run_exit_code"), None);

    let values = last.values();
    let value = |name: &str| u64::try_from(values[&format!("veriff_archive.{name}")]).unwrap();
    assert_eq!(value("run_exit_code"), 3);
    assert!(value("run_finished_timestamp") >= value("run_started_timestamp"));
    assert!(value("last_progress_timestamp") >= value("run_started_timestamp"));
    for outcome in ["archived", "unchanged", "absent", "failed", "pending"] {
        let told: i64 = ["default", ""]
            .iter()
            .filter_map(|integration| values.get(&format!("veriff_archive.sessions {integration} {outcome}")))
            .sum();
        assert_eq!(u64::try_from(told).unwrap(), ended.count(outcome), "{outcome}");
    }
    assert_eq!(value("session_codes  input.invalid"), 1);
    assert_eq!(value("session_codes default veriff.absent"), 1);
    assert_eq!(value("session_codes default veriff.unavailable"), 1);
    assert_eq!(value("veriff_requests default"), summary["requests"]["sent"].as_u64().unwrap());
    assert_eq!(value("veriff_retries default"), summary["requests"]["retries"].as_u64().unwrap());
    assert_eq!(value("veriff_throttled default"), 1);
    assert_eq!(value("sessions_in_flight"), 0);
    assert_eq!(value("ledger_sessions archived"), ended.count("archived"));
    assert_eq!(value("ledger_sessions failed"), 1);
    assert_eq!(value("horizon_sessions past"), 0);
}

#[tokio::test]
async fn a_run_that_is_refused_pushes_why_it_ends() {
    let collector = Collector::start().await;
    let scene = Scene::of(world()).await;
    push_to(&scene, collector.address);
    scene.deployment.write("shared-secret", "0f0e0d0c-0b0a-4a0b-8c0d-0e0f0a0b0c0d");
    let ended = scene.archive(&[]).await.expect(77);
    let values = collector.pushes().last().unwrap().values();
    assert_eq!(values["veriff_archive.run_exit_code"], 77);
    assert_eq!(values["veriff_archive.integration_stopped default"], 1);
    let pending = values["veriff_archive.sessions default pending"];
    assert_eq!(u64::try_from(pending).unwrap(), ended.count("pending"));
    assert!(pending >= 3, "{values:?}");

    // Before its first session, for want of a secret.
    std::fs::remove_file(scene.deployment.path("shared-secret")).unwrap();
    scene.archive(&[]).await.expect(78);
    assert_eq!(collector.pushes().last().unwrap().values()["veriff_archive.run_exit_code"], 78);
}

#[tokio::test]
async fn a_collector_that_is_down_is_told_of_once_and_changes_nothing() {
    let scene = Scene::of(world()).await;
    // A port that nobody else gets, and on which nobody listens.
    let down = TcpSocket::new_v4().unwrap();
    down.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = down.local_addr().unwrap();
    scene
        .deployment
        .configure_more(&format!("[telemetry]\notlp_endpoint = \"http://{address}\"\notlp_interval = \"1ms\"\n"));
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("archived"), 6);
    assert_eq!(ended.stderr.matches("could not be pushed").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("it cannot be reached"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_a_run_up_for_seconds_only() {
    let scene = Scene::of(world()).await;
    // Connections are made by the system and never accepted.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    push_to(&scene, silent.local_addr().unwrap());
    let begun = SystemClock.instant();
    let ended = scene.archive(&[]).await.expect(0);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(ended.stderr.contains("it does not answer in time"), "{}", ended.stderr);
}
