//! Configuration: what is accepted, what is refused and how, and what is in force.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;
use veriff_archive::config::{Config, ConfigError, Environment, Sources, config_schema};
use veriff_archive::model::retention::Mode;
use veriff_archive::secret::SecretSource;
use veriff_archive::store::settings::StoreSettings;
use veriff_archive::telemetry::TelemetrySettings;

use crate::program::run;

const ZERO: [(&str, &str); 3] = [
    ("VERIFF_BASE_URL", "https://stationapi.veriff.com/v1/"),
    ("VERIFF_API_KEY", "key-of-the-test"),
    ("VERIFF_SHARED_SECRET", "secret-of-the-test"),
];

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

fn load(text: &str, variables: &[(&str, &str)], store_url: Option<&str>) -> Result<Config, ConfigError> {
    let (_directory, path) = file(text);
    Config::load(Sources { file: Some(&path), environment: &Environment::of(variables), store_url })
}

fn refusal(text: &str) -> String {
    load(text, &ZERO, None).unwrap_err().to_string()
}

fn shown(config: &Config, key: &str) -> (Value, String) {
    let found = config.show().iter().find(|shown| shown.key == key).unwrap();
    let origin = found.origin.split_once(' ').map_or(found.origin.as_str(), |(kind, _)| kind);
    (found.value.clone(), origin.to_owned())
}

fn shipped() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|it| it == "toml")).collect()
}

#[test]
fn a_typo_in_a_key_exits_78_and_names_the_right_key() {
    let (directory, path) = file("[store]\nurll = \"file:///srv/archive\"\n");
    let path = path.to_str().unwrap();
    let outcome = run(directory.path(), &["--config", path, "config", "check"], &ZERO);
    assert_eq!(outcome.code, 78);
    assert!(outcome.stderr.contains("store.urll: unknown key; did you mean `url`?"), "{outcome:?}");
    assert!(outcome.stderr.contains(path), "{outcome:?}");
    let by_variable = run(directory.path(), &["config", "check"], &[("VERIFF_ARCHIVE__LIMITS__TRYS", "3")]);
    assert_eq!(by_variable.code, 78);
    assert!(by_variable.stderr.contains("did you mean `tries`?"), "{by_variable:?}");
    assert!(by_variable.stderr.contains("VERIFF_ARCHIVE__LIMITS__TRYS"), "{by_variable:?}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = refusal(
        r#"
        [integrations.us]
        base_ur = "https://example.com"
        shared_secret = { env = "A", file = "b" }
        kind = "prod"
        max_requests_per_second = 0
        max_concurrency = 0
        horizon = "90 days"
        [limits]
        tries = 0
        lease = "5d"
        [queue]
        idle_exit = "soon"
        [signing]
        group = "a/b"
        private_key = "hunter2"
        [sining]
        group = "default"
        [ledger]
        url = "postgres://user:hunter2@db/ledger?sslmode=never"
        "#,
    );
    for problem in [
        "integrations.us.base_ur: unknown key; did you mean `base_url`?",
        "integrations.us.base_url: missing",
        "integrations.us.api_key: missing",
        "integrations.us.shared_secret: a secret has exactly one place",
        "integrations.us.kind: ",
        "integrations.us.max_requests_per_second: must be more than 0",
        "integrations.us.max_concurrency: must be at least 1",
        "integrations.us.horizon: a duration is",
        "limits.tries: must be at least 1",
        "limits.lease: must be between 3s and 11h",
        "queue.idle_exit: a duration is",
        "signing.group: a group has 1 to 64 characters",
        "signing.private_key: a secret is never written into the configuration itself",
        "sining: unknown key; did you mean `signing`?",
        "ledger.url: ",
    ] {
        assert!(text.contains(problem), "{problem} is not in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_by_line_without_being_quoted() {
    let text = refusal("[integrations.default]\nkind = \"live\"\napi_key = sk-live-secret\n");
    assert!(text.contains("line 3"), "{text}");
    assert!(!text.contains("sk-live-secret"), "{text}");
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let text = "[limits]\ntries = 3\nsessions_in_flight = 3\n[store]\nurl = \"file:///from-file\"\n";
    let variables =
        [("VERIFF_ARCHIVE__LIMITS__TRIES", "4"), ("VERIFF_ARCHIVE__STORE__URL", "file:///from-environment")];
    let config = load(text, &variables, Some("file:///from-flag")).unwrap();
    assert_eq!(config.store, Some(StoreSettings::Dir("/from-flag".into())));
    assert_eq!(shown(&config, "store.url"), ("file:///from-flag".into(), "flag".to_owned()));
    assert_eq!(shown(&config, "limits.tries"), (4.into(), "environment".to_owned()));
    assert_eq!(shown(&config, "limits.sessions_in_flight"), (3.into(), "file".to_owned()));
    assert_eq!(shown(&config, "limits.no_progress"), ("15m".into(), "default".to_owned()));
    let without_flag = load(text, &variables, None).unwrap();
    assert_eq!(without_flag.store, Some(StoreSettings::Dir("/from-environment".into())));
}

#[test]
fn variables_hold_lists_and_inline_tables_as_toml_and_texts_as_they_are() {
    let variables = [
        ("VERIFF_ARCHIVE__INTEGRATIONS__EU__BASE_URL", "https://eu.example.com"),
        ("VERIFF_ARCHIVE__INTEGRATIONS__EU__API_KEY", r#"{ env = "EU_KEY" }"#),
        ("VERIFF_ARCHIVE__INTEGRATIONS__EU__SHARED_SECRET__FILE", "/run/secrets/eu"),
        ("VERIFF_ARCHIVE__INTEGRATIONS__EU__RECORDS", r#"["decision", "watchlist-screening"]"#),
        ("VERIFF_ARCHIVE__INTEGRATIONS__EU__MAX_REQUESTS_PER_SECOND", "2.5"),
        ("VERIFF_ARCHIVE__STORE__FORCE_PATH_STYLE", "true"),
        ("VERIFF_ARCHIVE__STORE__REGION", "5"),
        ("EU_KEY", "k"),
    ];
    let config = load("", &variables, None).unwrap();
    let eu = &config.integrations["eu"];
    assert_eq!(eu.records.len(), 2);
    assert!((eu.max_requests_per_second - 2.5).abs() < f64::EPSILON);
    assert!(matches!(&eu.shared_secret, SecretSource::File(path) if path == Path::new("/run/secrets/eu")));
    assert_eq!(shown(&config, "store.region").0, Value::from("5"));
    assert_eq!(shown(&config, "store.force_path_style").0, Value::from(true));
}

#[test]
fn three_variables_are_a_whole_configuration() {
    let config = load("", &ZERO, Some("file:///srv/archive")).unwrap();
    let integration = &config.require_integrations().unwrap()["default"];
    assert_eq!(integration.base_url.as_str(), "https://stationapi.veriff.com/");
    let SecretSource::Value(secret) = &integration.shared_secret else {
        panic!("the variable is not the secret");
    };
    assert_eq!(secret.expose_secret(), "secret-of-the-test");
    assert_eq!(integration.horizon, Duration::from_hours(90 * 24));
    assert!(config.require_store().is_ok());
    assert!(!config.retention.demands_locks());
}

#[test]
fn a_missing_credential_is_told_by_name_when_veriff_is_to_be_asked() {
    let none = load("", &[], None).unwrap();
    assert!(none.require_integrations().unwrap_err().to_string().contains("VERIFF_BASE_URL"));
    let partly = load("", &ZERO[..2], None).unwrap();
    let text = partly.require_integrations().unwrap_err().to_string();
    assert!(text.contains("VERIFF_SHARED_SECRET is not set"), "{text}");
}

#[test]
fn an_address_may_end_in_a_slash_or_v1_and_hold_nothing_else() {
    let with =
        |url: &str, rest: &str| load(&format!("[integrations.default]\nbase_url = \"{url}\"\n{rest}"), &ZERO, None);
    for (text, address) in [
        ("https://h.example", "https://h.example/"),
        ("https://h.example/v1", "https://h.example/"),
        ("https://h.example/v1/", "https://h.example/"),
        ("https://h.example/proxy/v1/", "https://h.example/proxy"),
    ] {
        assert_eq!(with(text, "").unwrap().integrations["default"].base_url.as_str(), address);
    }
    for (text, reason) in [
        ("http://h.example", "allow_http"),
        ("https://user:hunter2@h.example", "user or a password"),
        ("https://h.example?x=1", "query"),
        ("ftp://h.example", "https://"),
        ("h.example", "not an address"),
    ] {
        let refused = with(text, "").unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
    assert!(with("http://127.0.0.1:1", "allow_http = true").is_ok());
}

#[test]
fn an_inline_secret_is_refused_with_what_to_write_and_never_repeated() {
    for place in ["api_key = \"sk-live-1\"", "shared_secret = \"sk-live-1\"", "api_key = { value = \"sk-live-1\" }"] {
        let (directory, path) = file(&format!("[integrations.default]\n{place}\n"));
        let arguments = ["--config", path.to_str().unwrap(), "--log-level", "trace", "config", "check"];
        let outcome = run(directory.path(), &arguments, &ZERO);
        assert_eq!(outcome.code, 78);
        assert!(outcome.stderr.contains("{ env = \"VARIABLE\" }"), "{outcome:?}");
        assert!(!outcome.mentions("sk-live-1"), "{outcome:?}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [["config", "show"], ["config", "check"], ["--output=text", "config show"], ["status", "--check"]]
    {
        let arguments: Vec<&str> = arguments.iter().flat_map(|it| it.split(' ')).collect();
        let outcome = run(directory.path(), &[&["--log-level", "trace"], &arguments[..]].concat(), &ZERO);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(!outcome.mentions("key-of-the-test") && !outcome.mentions("secret-of-the-test"), "{outcome:?}");
    }
    let shown = run(directory.path(), &["config", "show"], &ZERO);
    let values = shown.json()["values"].as_array().unwrap().clone();
    let redacted: Vec<_> = values.iter().filter(|value| value["value"] == "[redacted]").collect();
    assert_eq!(redacted.len(), 2);
    assert!(redacted.iter().any(|value| value["origin"] == "environment VERIFF_API_KEY"));
    let config = load("", &ZERO, None).unwrap();
    assert!(!format!("{config:?} {:?}", Environment::of(&ZERO)).contains("secret-of-the-test"));
}

#[test]
fn a_bucket_without_a_policy_is_refused_unless_none_is_written_down() {
    let bucket = "[store]\nurl = \"s3://bucket/prefix\"\n";
    assert!(refusal(bucket).contains("mode = \"none\""));
    let unlocked = load(&format!("{bucket}[retention]\nmode = \"none\"\n"), &ZERO, None).unwrap();
    assert!(!unlocked.retention.demands_locks());
    let locked = format!("{bucket}[retention]\nmode = \"COMPLIANCE\"\nperiod = \"5y\"\nmax_period = \"10y\"\n");
    let locked = load(&locked, &ZERO, None).unwrap();
    assert_eq!(locked.retention.class("default").unwrap().mode, Mode::Compliance);
    assert!(refusal("[retention]\nperiod = \"5y\"\n").contains("retention.mode: missing"));
    assert!(refusal("[retention]\nmode = \"GOVERNANCE\"\n").contains("retention.period: missing"));
    let flag = load("", &ZERO, Some("s3://bucket")).unwrap_err().to_string();
    assert!(flag.contains("retention: missing"), "{flag}");
}

#[test]
fn a_test_integration_never_gets_a_compliance_class() {
    let policy = "[retention]\nmode = \"COMPLIANCE\"\nperiod = \"5y\"\nmax_period = \"10y\"\n\
                  [retention.classes.short]\nmode = \"GOVERNANCE\"\nperiod = \"30d\"\nmax_period = \"30d\"\n";
    let test = "[integrations.default]\nkind = \"test\"\n";
    assert!(refusal(&format!("{test}{policy}")).contains("integrations.default.kind: "));
    let short = format!("{test}retention_class = \"short\"\n{policy}");
    assert!(load(&short, &ZERO, None).is_ok());
    let rule = "[[retention.rules]]\nwhen = { kind = [\"nfc\"] }\nclass = \"default\"\n";
    assert!(refusal(&format!("{short}{rule}")).contains("`default`, which is COMPLIANCE"));
    let elsewhere = "[[retention.rules]]\nwhen = { integration = [\"eu*\"] }\nclass = \"default\"\n";
    assert!(load(&format!("{short}{elsewhere}"), &ZERO, None).is_ok());
}

#[test]
fn what_refers_to_something_else_must_find_it() {
    assert!(refusal("[integrations.default]\nretention_class = \"long\"\n").contains("retention_class: no class"));
    let rule = "[retention]\nmode = \"none\"\n[[retention.rules]]\nwhen = { kind = [\"nfc\"] }\nclass = \"chip\"\n";
    assert!(refusal(rule).contains("retention.rules[0].class: no class of this name"));
    let typo = "[retention]\nmode = \"none\"\n[[retention.rules]]\nwhen = { contxt = [\"*\"] }\nclass = \"default\"\n";
    assert!(refusal(typo).contains("retention.rules[0].when.contxt: unknown key; did you mean `context`?"));
    assert!(refusal("[store]\nkms_key_id = \"k\"\n").contains("store.kms_key_id: needs sse"));
    assert!(load("[store]\nkms_key_id = \"k\"\nsse = \"aws:kms\"\n", &ZERO, None).is_ok());
    assert!(refusal("[integrations.default]\nrecords = [\"selfie\"]\n").contains("integrations.default.records: "));
}

#[test]
fn plain_http_to_another_machine_is_allowed_with_a_warning() {
    let with = |url: &str| load(&format!("[store]\nendpoint_url = \"{url}\"\n"), &ZERO, None).unwrap().warnings;
    assert_eq!(with("http://127.0.0.1:9000"), Vec::<String>::new());
    assert_eq!(with("https://s3.example.com"), Vec::<String>::new());
    assert!(with("http://s3.example.com")[0].contains("plain HTTP"));
    let metrics = "[telemetry]\notlp_endpoint = \"http://collector:4318\"\n";
    let warnings = load(metrics, &ZERO, None).unwrap().warnings;
    assert!(warnings[0].contains("telemetry.otlp_endpoint: plain HTTP"), "{warnings:?}");
}

#[test]
fn numbers_go_nowhere_until_told_where() {
    let config = load("", &ZERO, None).unwrap();
    assert_eq!(config.telemetry, TelemetrySettings::default());
    assert_eq!(shown(&config, "telemetry.otlp_interval"), ("30s".into(), "default".to_owned()));
    let with = |line: &str| load(&format!("[telemetry]\n{line}\n"), &ZERO, None);
    let config = with("prometheus_listen = \"0.0.0.0:9464\"\notlp_endpoint = \"https://collector.example:4318/otlp/\"");
    let telemetry = config.unwrap().telemetry;
    assert_eq!(telemetry.prometheus_listen.unwrap().port(), 9464);
    assert_eq!(telemetry.otlp_endpoint.unwrap().as_str(), "https://collector.example:4318/otlp/");
    for (line, reason) in [
        ("prometheus_listen = \"9464\"", "telemetry.prometheus_listen: an address to listen on"),
        ("prometheus_listen = \"localhost\"", "telemetry.prometheus_listen: an address to listen on"),
        ("otlp_endpoint = \"collector:4318\"", "telemetry.otlp_endpoint: an address is http(s)://host"),
        ("otlp_endpoint = \"https://user:hunter2@collector\"", "without user or password"),
        ("otlp_endpoint = \"https://collector?token=hunter2\"", "must not contain a query"),
        ("otlp_interval = \"0s\"", "telemetry.otlp_interval: must be more than 0"),
        ("otlp_intervall = \"1s\"", "did you mean `otlp_interval`?"),
    ] {
        let refused = with(line).unwrap_err().to_string();
        assert!(refused.contains(reason) && !refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn every_shipped_file_is_valid() {
    let files = shipped();
    assert!(files.len() >= 2, "{files:?}");
    for path in files {
        let config = Config::load(Sources { file: Some(&path), environment: &Environment::default(), store_url: None });
        assert!(config.is_ok(), "{}: {config:?}", path.display());
    }
}

#[test]
fn the_reference_states_every_key_and_the_true_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let reference = load(&text, &[], None).unwrap();
    let defaults = load("", &ZERO, None).unwrap();
    // These have no default, or the reference shows an example in its place.
    let examples = ["base_url", "api_key", "shared_secret", "store.url", "retention."];
    for value in defaults.show() {
        if examples.iter().any(|it| value.key.contains(it)) && !value.key.ends_with("retention_class") {
            continue;
        }
        assert_eq!(shown(&reference, &value.key).0, value.value, "{}", value.key);
    }
    let stated: toml_keys::Keys = toml_keys::of(&text);
    let known = schema_keys(&config_schema().to_value());
    let missing: Vec<_> = known.difference(&stated).collect();
    assert!(missing.is_empty(), "config/reference.toml does not mention {missing:?}");
}

/// Collects the names of all properties in a schema.
fn schema_keys(schema: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            keys.extend(properties.keys().cloned());
        }
        match value {
            Value::Object(object) => open.extend(object.values()),
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    keys
}

mod toml_keys {
    //! The words of a TOML text that may be keys: in front of `=`, between brackets, or in an example's comment.

    use std::collections::BTreeSet;

    pub(super) type Keys = BTreeSet<String>;

    pub(super) fn of(text: &str) -> Keys {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }
}
