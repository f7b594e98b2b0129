//! OTLP: the numbers of a run, pushed to an OpenTelemetry collector over HTTP.
//!
//! The samples are written as OTLP's own messages and sent by the HTTP client that the program has. The OpenTelemetry SDK
//! would sit between the two without doing anything here: it keeps reporting gauges that are absent by now, reads
//! settings from the environment, and blocks the thread it tries again on. A push that fails is made up for by the
//! next, because every push has all; only the last cannot be, and nobody waits longer than a few seconds for it.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use reqwest::header;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::readings::{Readings, Sample, Value};
use crate::clock::Timestamp;
use crate::metrics::Kind;

/// How long a push may take.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last push may take: the process waits for it, and its grace period is short.
const LAST_PUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The name under which numbers arrive.
const SERVICE: &str = "veriff-archive";

/// Pushes now, then every `interval`, and once more when stopped.
pub(super) async fn push(endpoint: Url, interval: Duration, readings: Arc<Readings>, done: CancellationToken) {
    let mut pusher = match Pusher::to(&endpoint, readings) {
        Ok(pusher) => pusher,
        Err(error) => {
            return tracing::warn!("metrics are not pushed: the HTTP client cannot start: {}", error.without_url());
        }
    };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = done.cancelled() => break,
            _ = ticks.tick() => {}
        }
        // A push under way is given up for the last one, which has more.
        tokio::select! {
            biased;
            () = done.cancelled() => break,
            () = pusher.push(PUSH_TIMEOUT) => {}
        }
    }
    pusher.push(LAST_PUSH_TIMEOUT).await;
}

struct Pusher {
    http: reqwest::Client,
    url: String,
    readings: Arc<Readings>,
    has_failed: bool,
}

impl Pusher {
    fn to(endpoint: &Url, readings: Arc<Readings>) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("veriff-archive/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .build()?;
        let url = format!("{}/v1/metrics", endpoint.as_str().trim_end_matches('/'));
        Ok(Self { http, url, readings, has_failed: false })
    }

    /// Pushes once, and reports the first failure where people see it.
    async fn push(&mut self, timeout: Duration) {
        match self.send(timeout).await {
            Ok(()) => {}
            Err(reason) if self.has_failed => tracing::debug!("metrics could not be pushed: {reason}"),
            Err(reason) => {
                self.has_failed = true;
                tracing::warn!(
                    "metrics could not be pushed to telemetry.otlp_endpoint: {reason}; the run continues, further \
                     failures are logged at debug"
                );
            }
        }
    }

    async fn send(&self, timeout: Duration) -> Result<(), String> {
        let request = self
            .http
            .post(&self.url)
            .timeout(timeout)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(request_of(&self.readings).encode_to_vec());
        let response = request.send().await.map_err(|error| reason_of(&error).to_owned())?;
        let status = response.status();
        // What the collector says beside its status is not read: nothing would follow from it.
        if status.is_success() { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
    }
}

/// Says why nothing was answered, without the address.
fn reason_of(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "it does not answer in time"
    } else if error.is_connect() {
        "it cannot be reached"
    } else {
        "the connection broke"
    }
}

/// Writes everything that is known of the run.
fn request_of(readings: &Readings) -> ExportMetricsServiceRequest {
    let samples = readings.samples();
    let span = Span { started_at: readings.watched().started_at, at: readings.now() };
    let metrics = samples.chunk_by(|one, other| one.metric == other.metric);
    let scope_metrics = ScopeMetrics {
        scope: Some(InstrumentationScope {
            name: SERVICE.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }),
        metrics: metrics.filter_map(|samples| metric_of(samples, span)).collect(),
        ..ScopeMetrics::default()
    };
    let attributes = vec![
        attribute("service.name", SERVICE),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", readings.watched().run_id.as_str()),
    ];
    let resource = Resource { attributes, ..Resource::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        }],
    }
}

/// From when to when values count.
#[derive(Debug, Clone, Copy)]
struct Span {
    started_at: Timestamp,
    at: Timestamp,
}

fn metric_of(samples: &[Sample], span: Span) -> Option<Metric> {
    let listed = samples.first()?.metric;
    let data_points = samples.iter().map(|sample| point_of(sample, span)).collect();
    let data = match listed.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge { data_points }),
    };
    Some(Metric {
        name: listed.otlp.to_owned(),
        description: listed.meaning.to_owned(),
        unit: listed.unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

fn point_of(sample: &Sample, span: Span) -> NumberDataPoint {
    let value = match sample.value {
        Value::Count(count) => i64::try_from(count).unwrap_or(i64::MAX),
        Value::Level(level) => level,
    };
    NumberDataPoint {
        attributes: sample.labels.iter().map(|(name, value)| attribute(name, value)).collect(),
        start_time_unix_nano: nanos(span.started_at),
        time_unix_nano: nanos(span.at),
        value: Some(number_data_point::Value::AsInt(value)),
        ..NumberDataPoint::default()
    }
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.unix_millis()).unwrap_or(0).saturating_mul(1_000_000)
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::super::readings::tests::{fill, readings};
    use super::*;
    use crate::metrics::ALL;

    #[test]
    fn every_metric_is_pushed_under_its_name_with_its_unit_and_kind() {
        let (readings, clock) = readings();
        fill(&readings);
        clock.advance(Duration::from_secs(5));
        let request = request_of(&readings);
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let told: Vec<(&str, &str)> = metrics.iter().map(|it| (it.name.as_str(), it.unit.as_str())).collect();
        let listed: Vec<(&str, &str)> = ALL.iter().map(|it| (it.otlp, it.unit)).collect();
        assert_eq!(told, listed);
        for (metric, listed) in metrics.iter().zip(ALL) {
            let points = match (metric.data.as_ref().unwrap(), listed.kind) {
                (metric::Data::Sum(sum), Kind::Counter) => {
                    assert!(sum.is_monotonic);
                    assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
                    &sum.data_points
                }
                (metric::Data::Gauge(gauge), Kind::Gauge) => &gauge.data_points,
                (data, kind) => panic!("{kind}: {data:?}"),
            };
            // A series that begins anew with each push would be counted anew by whoever adds it up.
            assert_eq!(points[0].start_time_unix_nano, 1_000_000_000_000_000);
            assert_eq!(points[0].time_unix_nano, 1_000_005_000_000_000);
        }
    }

    #[test]
    fn a_push_says_which_run_it_is_of() {
        let (readings, _) = readings();
        let request = request_of(&readings);
        let resource = request.resource_metrics[0].resource.as_ref().unwrap();
        let run_id = readings.watched().run_id.as_str().to_owned();
        let expected = vec![
            attribute("service.name", "veriff-archive"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", &run_id),
        ];
        assert_eq!(resource.attributes, expected);
    }
}
