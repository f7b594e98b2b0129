//! Build: raw values checked one by one and against one another, and filled into settings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use url::Url;

use super::actor::actor;
use super::env::Environment;
use super::file::{
    RawFile, RawIntegration, RawLimits, RawQueue, RawRetention, RawSigning, RawStore, RawTelemetry, RawWhen, Reader,
    SecretText, Section as _, is_name,
};
use super::origin::{Layers, Origin};
use super::units::{CgroupFiles, DurationText, SizeText};
use super::{
    API_KEY_VARIABLE, BASE_URL_VARIABLE, Config, ConfigError, DEFAULT_INTEGRATION, Limits, SHARED_SECRET_VARIABLE,
    ShownValue,
};
use crate::ledger::LedgerUrl;
use crate::model::retention::{Class, DEFAULT_CLASS, Mode, RetentionPolicy, Rule, When};
use crate::model::units::{format_duration, format_size};
use crate::run::record::{DEFAULT_GROUP, SigningSettings};
use crate::secret::SecretSource;
use crate::source::QueueSettings;
use crate::store::settings::{S3Settings, Sse, StoreSettings, StoreUrl};
use crate::telemetry::TelemetrySettings;
use crate::veriff::settings::{IntegrationKind, IntegrationSettings, SignaturePolicy};

const DEFAULT_LEDGER_URL: &str = "sqlite:ledger.db";
const DEFAULT_STORAGE_CLASS: &str = "STANDARD";
const DEFAULT_HORIZON: Duration = Duration::from_hours(90 * 24);
const DEFAULT_SETTLE_AFTER: Duration = Duration::from_hours(24);
const DEFAULT_REQUESTS_PER_SECOND: f64 = 5.0;
const DEFAULT_CONCURRENCY: usize = 8;
const DEFAULT_IDLE_EXIT: Duration = Duration::from_mins(1);
const SHORTEST_LEASE: Duration = Duration::from_secs(3);
const LONGEST_LEASE: Duration = Duration::from_hours(11);
/// What takes the place of a secret wherever it is shown.
const REDACTED: &str = "[redacted]";

pub(super) fn build(layers: &Layers, environment: &Environment) -> Result<Config, ConfigError> {
    let mut reader = Reader::new(layers);
    let raw = RawFile::read(&mut reader, &layers.table, "");
    let mut builder = Builder { layers, environment, reader, warnings: Vec::new(), shown: Vec::new() };
    let integrations = builder.integrations(raw.integrations);
    let store = builder.store(raw.store.unwrap_or_default());
    let retention = builder.retention(raw.retention, store.as_ref());
    builder.check_classes(&integrations, &retention);
    let ledger_url = builder.ledger_url(raw.ledger.and_then(|ledger| ledger.url));
    let queue = builder.queue(raw.queue.unwrap_or_default());
    let limits = builder.limits(&raw.limits.unwrap_or_default());
    let telemetry = builder.telemetry(raw.telemetry.unwrap_or_default());
    let signing = builder.signing(raw.signing.unwrap_or_default());
    if !builder.reader.problems.is_empty() {
        return Err(ConfigError::Invalid(builder.reader.problems));
    }
    let (warnings, shown) = (builder.warnings, builder.shown);
    let actor = actor(environment.get("USER").or_else(|| environment.get("LOGNAME")));
    Ok(Config { integrations, store, retention, ledger_url, queue, limits, telemetry, signing, actor, warnings, shown })
}

struct Builder<'a> {
    layers: &'a Layers,
    environment: &'a Environment,
    reader: Reader<'a>,
    warnings: Vec<String>,
    shown: Vec<ShownValue>,
}

impl Builder<'_> {
    fn report(&mut self, key: &str, text: impl Into<String>) {
        self.reader.report(key, text);
    }

    fn show(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let key = key.into();
        let origin = self.layers.origin(&key);
        self.show_from(key, value, &origin);
    }

    fn show_from(&mut self, key: impl Into<String>, value: impl Into<Value>, origin: &Origin) {
        self.shown.push(ShownValue { key: key.into(), value: value.into(), origin: origin.to_string() });
    }

    fn integrations(&mut self, raw: Option<BTreeMap<String, RawIntegration>>) -> BTreeMap<String, IntegrationSettings> {
        let raw = raw.unwrap_or_else(|| {
            let implied = self.environment.get(BASE_URL_VARIABLE);
            implied.map(|_| (DEFAULT_INTEGRATION.to_owned(), RawIntegration::default())).into_iter().collect()
        });
        raw.into_iter().filter_map(|(name, raw)| Some((name.clone(), self.integration(&name, raw)?))).collect()
    }

    fn integration(&mut self, name: &str, raw: RawIntegration) -> Option<IntegrationSettings> {
        let place = format!("integrations.{name}");
        let key = |key: &str| format!("{place}.{key}");
        let allow_http = raw.allow_http.unwrap_or(false);
        let base_url = self.base_url(name, raw.base_url, allow_http);
        self.show(key("allow_http"), allow_http);
        let api_key = self.secret(name, "api_key", raw.api_key, API_KEY_VARIABLE);
        let shared_secret = self.secret(name, "shared_secret", raw.shared_secret, SHARED_SECRET_VARIABLE);
        let kind = raw.kind.unwrap_or(IntegrationKind::Live);
        self.show(key("kind"), json!(kind));
        let horizon = self.duration(&key("horizon"), raw.horizon, DEFAULT_HORIZON);
        let max_requests_per_second = raw.max_requests_per_second.unwrap_or(DEFAULT_REQUESTS_PER_SECOND);
        if !(max_requests_per_second.is_finite() && max_requests_per_second > 0.0) {
            self.report(&key("max_requests_per_second"), "must be more than 0");
        }
        self.show(key("max_requests_per_second"), max_requests_per_second);
        let max_concurrency = self.count(&key("max_concurrency"), raw.max_concurrency, DEFAULT_CONCURRENCY);
        let response_signature = raw.response_signature.unwrap_or(SignaturePolicy::Record);
        self.show(key("response_signature"), json!(response_signature));
        let mut records = raw.records.unwrap_or_default();
        records.sort_unstable_by_key(|record| record.as_str());
        records.dedup();
        self.show(key("records"), json!(records));
        let settle_after = raw.settle_after.map_or(DEFAULT_SETTLE_AFTER, |text| text.0);
        self.show(key("settle_after"), format_duration(settle_after));
        let retention_class = raw.retention_class.unwrap_or_else(|| DEFAULT_CLASS.to_owned());
        self.show(key("retention_class"), retention_class.as_str());
        Some(IntegrationSettings {
            name: name.to_owned(),
            base_url: base_url?,
            allow_http,
            api_key: api_key?,
            shared_secret: shared_secret?,
            kind,
            horizon,
            max_requests_per_second,
            max_concurrency,
            response_signature,
            records,
            settle_after,
            retention_class,
        })
    }

    fn base_url(&mut self, name: &str, stated: Option<String>, allow_http: bool) -> Option<Url> {
        let key = format!("integrations.{name}.base_url");
        let mut origin = self.layers.origin(&key);
        let mut text = stated;
        if text.is_none() && origin == Origin::Default && name == DEFAULT_INTEGRATION {
            text = self.environment.get(BASE_URL_VARIABLE).map(str::to_owned);
            origin = Origin::Environment(BASE_URL_VARIABLE.to_owned());
        }
        let Some(text) = text else {
            if self.layers.origin(&key) == Origin::Default {
                let advice = match name {
                    DEFAULT_INTEGRATION => format!("missing; set it or {BASE_URL_VARIABLE}"),
                    _ => "missing; the URL of this integration, as Veriff shows it".to_owned(),
                };
                self.report(&key, advice);
            }
            return None;
        };
        match parse_base_url(&text, allow_http) {
            Ok(url) => {
                self.show_from(key, url.as_str(), &origin);
                Some(url)
            }
            Err(problem) => {
                let problem = match &origin {
                    Origin::Environment(variable) if variable == BASE_URL_VARIABLE => {
                        format!("{problem} (environment {variable})")
                    }
                    _ => problem,
                };
                self.report(&key, problem);
                None
            }
        }
    }

    fn secret(
        &mut self,
        name: &str,
        secret: &str,
        stated: Option<SecretText>,
        default_variable: &str,
    ) -> Option<SecretSource> {
        let key = format!("integrations.{name}.{secret}");
        let origin = self.layers.origin(&key);
        let (text, origin) = match stated {
            Some(text) => (text, origin),
            // It is stated and was refused already.
            None if origin != Origin::Default => return None,
            None if name == DEFAULT_INTEGRATION => {
                (SecretText::Env(default_variable.to_owned()), Origin::Environment(default_variable.to_owned()))
            }
            None => {
                self.report(&key, r#"missing; say where to read it, such as { env = "VARIABLE" }"#);
                return None;
            }
        };
        Some(self.secret_source(key, text, &origin))
    }

    fn secret_source(&mut self, key: String, text: SecretText, origin: &Origin) -> SecretSource {
        let source = match text {
            SecretText::File(path) => SecretSource::File(path),
            SecretText::Command(command) => SecretSource::Command(command),
            SecretText::Env(variable) => match self.environment.get(&variable).map(str::trim) {
                Some(value) if !value.is_empty() => SecretSource::Value(SecretString::from(value)),
                _ => SecretSource::Missing(variable),
            },
        };
        let is_missing = matches!(source, SecretSource::Missing(_));
        self.show_from(key, (!is_missing).then_some(REDACTED), origin);
        source
    }

    fn signing(&mut self, raw: RawSigning) -> SigningSettings {
        const KEY: &str = "signing.private_key";
        const GROUP: &str = "signing.group";
        let private_key = if let Some(text) = raw.private_key {
            let origin = self.layers.origin(KEY);
            Some(self.secret_source(KEY.to_owned(), text, &origin))
        } else {
            self.show(KEY, Value::Null);
            None
        };
        let group = raw.group.unwrap_or_else(|| DEFAULT_GROUP.to_owned());
        if !is_name(&group) {
            self.report(GROUP, "a group has 1 to 64 characters of A-Z a-z 0-9 _ -");
        }
        self.show(GROUP, group.as_str());
        SigningSettings { private_key, group }
    }

    fn store(&mut self, raw: RawStore) -> Option<StoreSettings> {
        let url = raw.url.filter(|url| !url.is_empty());
        self.show("store.url", url.clone());
        let endpoint_url = self.endpoint_url("store.endpoint_url", raw.endpoint_url, "the media");
        let region = self.optional("store.region", raw.region);
        let force_path_style = raw.force_path_style.unwrap_or(false);
        self.show("store.force_path_style", force_path_style);
        let expected_bucket_owner = self.optional("store.expected_bucket_owner", raw.expected_bucket_owner);
        let sse = raw.sse.unwrap_or_default();
        self.show("store.sse", json!(sse));
        let kms_key_id = self.optional("store.kms_key_id", raw.kms_key_id);
        if kms_key_id.is_some() && sse != Sse::AwsKms {
            self.report("store.kms_key_id", r#"needs sse = "aws:kms""#);
        }
        let storage_class = raw.storage_class.unwrap_or_else(|| DEFAULT_STORAGE_CLASS.to_owned());
        if storage_class.is_empty() || !storage_class.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
            self.report("store.storage_class", "a storage class is a name in capitals, such as STANDARD");
        }
        self.show("store.storage_class", storage_class.as_str());
        match url?.parse() {
            Ok(StoreUrl::Dir(directory)) => Some(StoreSettings::Dir(directory)),
            Ok(StoreUrl::S3 { bucket, prefix }) => Some(StoreSettings::S3(S3Settings {
                bucket,
                prefix,
                endpoint_url,
                region,
                force_path_style,
                expected_bucket_owner,
                sse,
                kms_key_id,
                storage_class,
            })),
            Err(problem) => {
                self.report("store.url", problem.to_string());
                None
            }
        }
    }

    fn optional(&mut self, key: &str, text: Option<String>) -> Option<String> {
        let text = text.filter(|text| !text.is_empty());
        self.show(key, text.clone());
        text
    }

    fn endpoint_url(&mut self, key: &str, text: Option<String>, readable: &str) -> Option<String> {
        self.address(key, text, readable).map(|(text, _)| text)
    }

    /// Reads an address of another service. Plain HTTP is taken with a warning of what anyone between can read.
    fn address(&mut self, key: &str, text: Option<String>, readable: &str) -> Option<(String, Url)> {
        let text = text.filter(|text| !text.is_empty());
        let Some(text) = text else {
            self.show(key, Value::Null);
            return None;
        };
        let url = Url::parse(&text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && !has_userinfo(url));
        let Some(url) = url else {
            self.report(key, "an address is http(s)://host or http(s)://host:port, without user or password");
            return None;
        };
        if url.scheme() == "http" && !is_loopback(&url) {
            self.warnings.push(format!("{key}: plain HTTP to another machine: anyone between can read {readable}"));
        }
        self.show(key, text.as_str());
        Some((text, url))
    }

    fn retention(&mut self, raw: Option<RawRetention>, store: Option<&StoreSettings>) -> RetentionPolicy {
        let stated = raw.is_some();
        let raw = raw.unwrap_or_default();
        if !stated && matches!(store, Some(StoreSettings::S3(_))) {
            self.report(
                "retention",
                r#"missing; an s3:// store needs a policy: mode, period, max_period, or mode = "none" to lock nothing"#,
            );
        }
        let default_mode = if stated { None } else { Some(Mode::None) };
        let default = self.class("retention", raw.mode.or(default_mode), raw.period, raw.max_period, raw.basis);
        let classes = raw.classes.unwrap_or_default().into_iter();
        let classes: BTreeMap<String, Class> = classes
            .map(|(name, raw)| {
                let place = format!("retention.classes.{name}");
                let class = self.class(&place, raw.mode, raw.period, raw.max_period, raw.basis);
                (name, class)
            })
            .collect();
        let rules = raw.rules.unwrap_or_default().into_iter().enumerate();
        let rules: Vec<Rule> = rules
            .map(|(index, raw)| {
                if raw.class.is_none() {
                    self.report(&format!("retention.rules[{index}].class"), "missing; the class that the rule sets");
                }
                let rule = Rule {
                    when: when_of(raw.when.unwrap_or_default()),
                    class: raw.class.unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
                };
                let origin = self.layers.origin("retention.rules");
                self.show_from(format!("retention.rules[{index}]"), json!(rule), &origin);
                rule
            })
            .collect();
        if !self.reader.problems.is_empty() {
            return RetentionPolicy::unlocked();
        }
        RetentionPolicy::new(default, classes, &rules).unwrap_or_else(|problem| {
            let (key, text) = problem.split_once(": ").unwrap_or(("retention", &problem));
            self.report(key, text);
            RetentionPolicy::unlocked()
        })
    }

    fn class(
        &mut self,
        place: &str,
        mode: Option<Mode>,
        period: Option<crate::model::retention::Period>,
        max_period: Option<crate::model::retention::Period>,
        basis: Option<String>,
    ) -> Class {
        let mode_key = format!("{place}.mode");
        if mode.is_none() && self.layers.origin(&mode_key) == Origin::Default {
            self.report(&mode_key, "missing; COMPLIANCE, GOVERNANCE or none");
        }
        let class = Class { mode: mode.unwrap_or(Mode::None), period, max_period, basis: basis.unwrap_or_default() };
        self.show(mode_key, json!(class.mode));
        self.show(format!("{place}.period"), json!(class.period));
        self.show(format!("{place}.max_period"), json!(class.max_period));
        self.show(format!("{place}.basis"), class.basis.as_str());
        class
    }

    /// Checks what integrations and classes say of one another.
    fn check_classes(&mut self, integrations: &BTreeMap<String, IntegrationSettings>, policy: &RetentionPolicy) {
        for integration in integrations.values() {
            let key = |key: &str| format!("integrations.{}.{key}", integration.name);
            let class = &integration.retention_class;
            // A policy that is wrong itself has been replaced by an empty one; its classes would be missed in vain.
            if policy.class(class).is_none() && self.reader.problems.is_empty() {
                let known: Vec<_> = policy.classes().keys().map(String::as_str).collect();
                let text = format!("no class of this name; known: {}", known.join(", "));
                self.report(&key("retention_class"), text);
            }
            if integration.kind == IntegrationKind::Test {
                let locked = policy.reachable(&integration.name, class).into_iter();
                let locked = locked.filter(|name| policy.class(name).is_some_and(|it| it.mode == Mode::Compliance));
                for name in locked.collect::<Vec<_>>() {
                    let text = format!(
                        "a test integration may not use the class `{name}`, which is COMPLIANCE: nobody could remove \
                         test data; give it its own class"
                    );
                    self.report(&key("kind"), text);
                }
            }
        }
    }

    fn ledger_url(&mut self, stated: Option<String>) -> LedgerUrl {
        let url = LedgerUrl::of(stated.unwrap_or_else(|| DEFAULT_LEDGER_URL.to_owned()));
        if let Err(error) = crate::ledger::check_url(&url) {
            let text = error.to_string();
            self.report("ledger.url", text.strip_prefix("ledger.url ").unwrap_or(&text));
        }
        self.show("ledger.url", url.shown());
        url
    }

    fn queue(&mut self, raw: RawQueue) -> QueueSettings {
        let endpoint_url = self.endpoint_url("queue.endpoint_url", raw.endpoint_url, "session ids");
        let idle_exit = raw.idle_exit.map_or(DEFAULT_IDLE_EXIT, |text| text.0);
        self.show("queue.idle_exit", format_duration(idle_exit));
        QueueSettings { endpoint_url, idle_exit }
    }

    /// A lease that is renewed while its third has passed must outlast a short trouble with the ledger.
    fn lease(&mut self, stated: Option<DurationText>, default: Duration) -> Duration {
        let lease = self.duration("limits.lease", stated, default);
        if !lease.is_zero() && !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease) {
            self.report("limits.lease", "must be between 3s and 11h, the longest that a queue allows");
        }
        lease
    }

    fn limits(&mut self, raw: &RawLimits) -> Limits {
        let default = Limits::default();
        let memory_bytes = match raw.memory {
            Some(SizeText::Bytes(0)) => {
                self.report("limits.memory", "must be more than 0");
                0
            }
            Some(SizeText::Bytes(bytes)) => bytes,
            Some(SizeText::Auto) | None => CgroupFiles::of_process().limit_bytes().unwrap_or(default.memory_bytes),
        };
        self.show("limits.memory", format_size(memory_bytes));
        let sessions_in_flight =
            self.count("limits.sessions_in_flight", raw.sessions_in_flight, default.sessions_in_flight);
        let max_media_size_bytes = match raw.max_media_size {
            None => default.max_media_size_bytes,
            Some(SizeText::Bytes(bytes)) if bytes > 0 => bytes,
            Some(_) => {
                self.report("limits.max_media_size", "must be a size of more than 0");
                0
            }
        };
        self.show("limits.max_media_size", format_size(max_media_size_bytes));
        let tries = raw.tries.unwrap_or(default.tries);
        if tries == 0 {
            self.report("limits.tries", "must be at least 1: the first try counts");
        }
        self.show("limits.tries", tries);
        Limits {
            memory_bytes,
            sessions_in_flight,
            max_media_size_bytes,
            tries,
            no_progress: self.duration("limits.no_progress", raw.no_progress, default.no_progress),
            lease: self.lease(raw.lease, default.lease),
            horizon_alarm: self.duration("limits.horizon_alarm", raw.horizon_alarm, default.horizon_alarm),
        }
    }

    fn telemetry(&mut self, raw: RawTelemetry) -> TelemetrySettings {
        const ENDPOINT: &str = "telemetry.otlp_endpoint";
        let default = TelemetrySettings::default();
        let otlp_endpoint = self.address(ENDPOINT, raw.otlp_endpoint, "the metrics").map(|(_, url)| url);
        if otlp_endpoint.as_ref().is_some_and(|url| url.query().is_some() || url.fragment().is_some()) {
            self.report(ENDPOINT, "must not contain a query or a fragment");
        }
        TelemetrySettings {
            otlp_endpoint,
            otlp_interval: self.duration("telemetry.otlp_interval", raw.otlp_interval, default.otlp_interval),
            prometheus_listen: self.listen_address("telemetry.prometheus_listen", raw.prometheus_listen),
        }
    }

    fn listen_address(&mut self, key: &str, text: Option<String>) -> Option<SocketAddr> {
        let text = self.optional(key, text)?;
        let address = text.parse().ok();
        if address.is_none() {
            self.report(key, "an address to listen on is an IP address and a port, such as 0.0.0.0:9464 or [::]:9464");
        }
        address
    }

    fn count(&mut self, key: &str, stated: Option<usize>, default: usize) -> usize {
        let count = stated.unwrap_or(default);
        if count == 0 {
            self.report(key, "must be at least 1");
        }
        self.show(key, count);
        count
    }

    fn duration(&mut self, key: &str, stated: Option<DurationText>, default: Duration) -> Duration {
        let duration = stated.map_or(default, |text| text.0);
        if duration.is_zero() {
            self.report(key, "must be more than 0");
        }
        self.show(key, format_duration(duration));
        duration
    }
}

/// Reads an address as people paste it: `/v1` and slashes at the end are cut.
fn parse_base_url(text: &str, allow_http: bool) -> Result<Url, String> {
    let mut url = Url::parse(text.trim()).map_err(|error| format!("not an address: {error}"))?;
    if !url.has_host() || !matches!(url.scheme(), "https" | "http") {
        return Err("not an address: it begins with https:// and a host".to_owned());
    }
    if url.scheme() == "http" && !allow_http {
        return Err("must begin with https://; for a simulator set allow_http = true".to_owned());
    }
    if has_userinfo(&url) {
        return Err("must not contain a user or a password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not contain a query or a fragment".to_owned());
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn when_of(raw: RawWhen) -> When {
    When { integration: raw.integration, kind: raw.kind, context: raw.context, status: raw.status }
}
