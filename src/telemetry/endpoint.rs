//! Endpoint: the numbers of a run as text, for Prometheus, and whether the run is well, for an orchestrator.
//!
//! Answers GET on two paths and nothing else. Connections, the time a request may take to come and the time of the whole
//! exchange are bounded, because anyone who reaches the port may ask.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::readings::{Readings, Sample, Value};
use crate::metrics::Kind;

/// How many connections are open at once; further ones wait. A few scrapers and probes need no more.
const MAX_CONNECTIONS: usize = 16;

/// How long the head of a request may take to come.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last in all; it is closed after one answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The most that is read of a request before it ends.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// How long nothing is accepted after that failed, for example because all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves until stopped; connections that are still open are cut.
pub(super) async fn serve(listener: TcpListener, readings: Arc<Readings>, done: CancellationToken) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(Arc::clone(&readings))));
    let shared = Arc::new((registry, readings));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let exchange = exchange(stream, Arc::clone(&shared));
                    connections.spawn(tokio::time::timeout(CONNECTION_TIMEOUT, exchange));
                }
                Err(error) => {
                    tracing::debug!("telemetry.prometheus_listen: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Answers one request. One that breaks off is the asker's business.
async fn exchange(stream: TcpStream, shared: Arc<(Registry, Arc<Readings>)>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (registry, readings) = &*shared;
        let response = respond(request.method(), request.uri().path(), registry, readings);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::trace!("telemetry.prometheus_listen: {error}");
    }
}

fn respond(method: &Method, path: &str, registry: &Registry, readings: &Readings) -> Response<Full<Bytes>> {
    if method != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match path {
        "/metrics" => {
            let mut text = String::new();
            match prometheus_text::encode(&mut text, registry) {
                Ok(()) => answer(StatusCode::OK, prometheus_text::CONTENT_TYPE, text),
                Err(fmt::Error) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
            }
        }
        "/healthz" if readings.is_well() => plain(StatusCode::OK, "ok\n"),
        "/healthz" => plain(StatusCode::SERVICE_UNAVAILABLE, "nothing succeeded for limits.no_progress\n"),
        _ => plain(StatusCode::NOT_FOUND, "only /metrics and /healthz exist\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Reads the samples when Prometheus asks.
#[derive(Debug)]
struct Scrape(Arc<Readings>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = self.0.samples();
        for samples in samples.chunk_by(|one, other| one.metric == other.metric) {
            encode_metric(&mut encoder, samples)?;
        }
        Ok(())
    }
}

/// Writes the samples of one metric.
fn encode_metric(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample]) -> Result<(), fmt::Error> {
    let Some(Sample { metric, .. }) = samples.first() else { return Ok(()) };
    // The encoder appends the `_total` of counters itself.
    let (name, kind) = match metric.kind {
        Kind::Counter => (metric.name.trim_end_matches("_total"), MetricType::Counter),
        Kind::Gauge => (metric.name, MetricType::Gauge),
    };
    let mut encoder = encoder.encode_descriptor(name, metric.meaning, None, kind)?;
    for sample in samples {
        let labels: Vec<(&str, &str)> = sample.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut encoder = encoder.encode_family(&labels)?;
        match sample.value {
            Value::Count(count) => encoder.encode_counter::<NoLabelSet, _, u64>(&count, None)?,
            Value::Level(level) => encoder.encode_gauge(&level)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::super::readings::tests::{fill, readings};
    use super::*;
    use crate::metrics::ALL;

    async fn asked(readings: &Arc<Readings>, method: &Method, path: &str) -> (StatusCode, String) {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(Arc::clone(readings))));
        let response = respond(method, path, &registry, readings);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_text_has_every_metric_under_its_name() {
        let (readings, _) = readings();
        fill(&readings);
        let (status, text) = asked(&readings, &Method::GET, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        for metric in ALL {
            assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind)), "{}\n{text}", metric.name);
            assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.meaning)), "{}\n{text}", metric.name);
        }
        for line in [
            "veriff_archive_sessions_total{integration=\"eu\",outcome=\"failed\"} 1",
            "veriff_archive_session_codes_total{integration=\"eu\",code=\"veriff.throttled\"} 1",
            "veriff_archive_media_archived_total 3",
            "veriff_archive_media_received_bytes_total 7",
            "veriff_archive_horizon_nearest_seconds 90",
            "veriff_archive_horizon_sessions{risk=\"within_alarm\"} 1",
            "veriff_archive_run_exit_code 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn only_get_on_two_paths_is_answered() {
        let (readings, clock) = readings();
        assert_eq!(asked(&readings, &Method::GET, "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(asked(&readings, &Method::POST, "/metrics").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(asked(&readings, &Method::HEAD, "/healthz").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(asked(&readings, &Method::GET, "/").await.0, StatusCode::NOT_FOUND);
        readings.watched().board.in_flight.store(1, std::sync::atomic::Ordering::Relaxed);
        clock.advance(Duration::from_hours(1));
        assert_eq!(asked(&readings, &Method::GET, "/healthz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
