//! The file: every key there is, as raw values.
//!
//! One table of sections says what may be written where; reading, the search for misspelt keys and the published JSON
//! Schema all follow from it. Nothing is checked here beyond the form of single values.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use super::Problem;
use super::origin::{Layers, parse_toml};
use super::units::{DurationText, SizeText};
use crate::model::retention::{Mode, Period};
use crate::store::settings::Sse;
use crate::veriff::settings::{IntegrationKind, RecordKind, SignaturePolicy};

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($(#[$key_doc:meta])* $form:ident $key:ident: $type:ty,)+ })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(super) struct $name { $($(#[$key_doc])* pub(super) $key: Option<$type>,)+ }

        impl Section for $name {
            fn read(reader: &mut Reader<'_>, table: &Table, place: &str) -> Self {
                reader.check_keys(table, place, &[$(stringify!($key)),+]);
                Self { $($key: reader.$form(table, place, stringify!($key)),)+ }
            }
        }
    )+ };
}

sections! {
    /// The configuration of veriff-archive.
    RawFile {
        /// The Veriff integrations by name.
        named_sections integrations: BTreeMap<String, RawIntegration>,
        /// Where the archive is kept.
        section store: RawStore,
        /// How long and how strictly it is kept; the keys of this section state the class `default`.
        section retention: RawRetention,
        /// Our record of what was archived.
        section ledger: RawLedger,
        /// The queue of `run --queue`.
        section queue: RawQueue,
        /// The bounds of one process.
        section limits: RawLimits,
        /// Where the numbers of a run go.
        section telemetry: RawTelemetry,
        /// How run records are signed.
        section signing: RawSigning,
    }

    /// One Veriff integration.
    RawIntegration {
        /// The address, with or without a trailing slash or `/v1`.
        value base_url: String,
        /// Allows plain HTTP, for a simulator.
        value allow_http: bool,
        /// Where the API key is kept.
        value api_key: SecretText,
        /// Where the shared secret is kept.
        value shared_secret: SecretText,
        /// `live`, or `test`: lists no videos, refused with COMPLIANCE.
        value kind: IntegrationKind,
        /// How long Veriff keeps media live.
        value horizon: DurationText,
        /// The rate one process never exceeds.
        value max_requests_per_second: f64,
        /// The upper bound of the adaptive concurrency limit.
        value max_concurrency: usize,
        /// What is done with response signatures.
        value response_signature: SignaturePolicy,
        /// Answers of Veriff that are archived as evidence of their own.
        value records: Vec<RecordKind>,
        /// How long after its decision a session may still change.
        value settle_after: DurationText,
        /// The class of media that no rule and no record gives another one.
        value retention_class: String,
    }

    /// Where the archive is kept.
    RawStore {
        /// `s3://bucket/prefix` or `file:///directory`.
        value url: String,
        /// The address of an S3-compatible store.
        value endpoint_url: String,
        /// The region, if the environment does not set it.
        value region: String,
        /// Puts the bucket into the path instead of the host name.
        value force_path_style: bool,
        /// The account that must own the bucket.
        value expected_bucket_owner: String,
        /// How objects are encrypted.
        value sse: Sse,
        /// The key, with `aws:kms`.
        value kms_key_id: String,
        /// The storage class of media; documents are always STANDARD.
        value storage_class: String,
    }

    /// How long and how strictly the archive is kept.
    RawRetention {
        /// How strictly objects are locked.
        value mode: Mode,
        /// How long, counted from the decision where it is known, else from archiving.
        value period: Period,
        /// A guard, counted from archiving: a longer lock is refused.
        value max_period: Period,
        /// The legal ground, copied into sidecars.
        value basis: String,
        /// Further classes by name.
        named_sections classes: BTreeMap<String, RawClass>,
        /// Rules that give matching media a class; the first match wins.
        listed_sections rules: Vec<RawRule>,
    }

    /// A retention class: it states all of its own, nothing is inherited.
    RawClass {
        /// How strictly objects are locked.
        value mode: Mode,
        /// How long, counted from the decision where it is known, else from archiving.
        value period: Period,
        /// A guard, counted from archiving: a longer lock is refused.
        value max_period: Period,
        /// The legal ground, copied into sidecars.
        value basis: String,
    }

    /// A rule that gives matching media a class.
    RawRule {
        /// What it is about: every key given must match one of its globs.
        section when: RawWhen,
        /// The class it gives.
        value class: String,
    }

    /// Which media a rule is about.
    RawWhen {
        /// Names of integrations.
        value integration: Vec<String>,
        /// `image`, `video`, `nfc`, `record`.
        value kind: Vec<String>,
        /// Contexts as Veriff lists them.
        value context: Vec<String>,
        /// Status of the attempt.
        value status: Vec<String>,
    }

    /// Our record of what was archived.
    RawLedger {
        /// `sqlite:FILE`.
        value url: String,
    }

    /// The queue of `run --queue`.
    RawQueue {
        /// An SQS-compatible server; empty for AWS itself.
        value endpoint_url: String,
        /// An empty queue this long ends a run; `0s`: never.
        value idle_exit: DurationText,
    }

    /// The bounds of one process.
    RawLimits {
        /// Memory that may be used: a size, or `auto` for the limit of the control group, else 256 MiB.
        value memory: SizeText,
        /// How many sessions are worked on at once.
        value sessions_in_flight: usize,
        /// A media item over this fails.
        value max_media_size: SizeText,
        /// How often one request is tried in all.
        value tries: u32,
        /// A run ends after this long without a good answer.
        value no_progress: DurationText,
        /// How long a worker may hold a session of a queue or the backlog without renewing.
        value lease: DurationText,
        /// A pending session this near to its horizon raises the alarm.
        value horizon_alarm: DurationText,
    }

    /// Where the numbers of a run go.
    RawTelemetry {
        /// The OpenTelemetry collector that metrics are pushed to.
        value otlp_endpoint: String,
        /// How often they are pushed.
        value otlp_interval: DurationText,
        /// The address and port where Prometheus finds them.
        value prometheus_listen: String,
    }

    /// How run records are signed.
    RawSigning {
        /// Where the private key is kept: Ed25519, PKCS #8 PEM. Without one, runs are unsigned and say so.
        value private_key: SecretText,
        /// The chain this worker adds to.
        value group: String,
    }
}

pub(super) trait Section: Sized {
    fn read(reader: &mut Reader<'_>, table: &Table, place: &str) -> Self;
}

/// Reads sections and gathers everything that is wrong with them.
pub(super) struct Reader<'a> {
    layers: &'a Layers,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(layers: &'a Layers) -> Self {
        Self { layers, problems: Vec::new() }
    }

    pub(super) fn report(&mut self, place: &str, text: impl Into<String>) {
        self.problems.push(Problem { key: place.to_owned(), text: text.into(), origin: self.layers.origin(place) });
    }

    fn check_keys(&mut self, table: &Table, place: &str, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
            let text = match nearest(key, known) {
                Some(name) => format!("unknown key; did you mean `{name}`?"),
                None => format!("unknown key; known here: {}", known.join(", ")),
            };
            self.report(&join(place, key), text);
        }
    }

    fn value<T: DeserializeOwned>(&mut self, table: &Table, place: &str, key: &str) -> Option<T> {
        let value = table.get(key)?;
        let place = join(place, key);
        // A variable has no types: `5` may be a number or a name. The TOML reading is tried first.
        if let (true, Value::String(text)) = (self.layers.is_text(&place), value)
            && let Some(parsed) = parse_toml(text)
            && let Ok(value) = T::deserialize(parsed)
        {
            return Some(value);
        }
        match T::deserialize(value.clone()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(&place, error.message().trim());
                None
            }
        }
    }

    fn section<T: Section>(&mut self, table: &Table, place: &str, key: &str) -> Option<T> {
        let value = table.get(key)?;
        self.section_of(value, &join(place, key))
    }

    fn section_of<T: Section>(&mut self, value: &Value, place: &str) -> Option<T> {
        if let Value::Table(table) = value {
            return Some(T::read(self, table, place));
        }
        self.report(place, format!("a section is needed here, not one value: [{place}]"));
        None
    }

    fn named_sections<T: Section>(&mut self, table: &Table, place: &str, key: &str) -> Option<BTreeMap<String, T>> {
        let value = table.get(key)?;
        let place = join(place, key);
        let Value::Table(sections) = value else {
            self.report(&place, format!("named sections are needed here: [{place}.NAME]"));
            return None;
        };
        let mut found = BTreeMap::new();
        for (name, value) in sections {
            let place = join(&place, name);
            if !is_name(name) {
                self.report(&place, "a name has 1 to 64 characters of A-Z a-z 0-9 _ -");
            } else if let Some(section) = self.section_of(value, &place) {
                found.insert(name.clone(), section);
            }
        }
        Some(found)
    }

    fn listed_sections<T: Section>(&mut self, table: &Table, place: &str, key: &str) -> Option<Vec<T>> {
        let value = table.get(key)?;
        let place = join(place, key);
        let Value::Array(items) = value else {
            self.report(&place, format!("a list of sections is needed here: [[{place}]]"));
            return None;
        };
        let mut found = Vec::new();
        for (index, item) in items.iter().enumerate() {
            found.extend(self.section_of(item, &format!("{place}[{index}]")));
        }
        Some(found)
    }
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

/// Finds the known name that a misspelt one probably means.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    const SIMILAR: f64 = 0.7;
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Where a secret is kept, as the configuration writes it. Errors never repeat what was written: it may be the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretText {
    Env(String),
    File(std::path::PathBuf),
    Command(Vec<String>),
}

const SECRET_FORMS: &str =
    r#"write { env = "VARIABLE" }, { file = "/path" } or { command = ["program", "argument"] } instead"#;

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Table(table) = Value::deserialize(deserializer)? else {
            return Err(D::Error::custom(format!(
                "a secret is never written into the configuration itself; \
                                                 {SECRET_FORMS}"
            )));
        };
        let mut entries = table.into_iter();
        let (Some((form, value)), None) = (entries.next(), entries.next()) else {
            return Err(D::Error::custom(format!("a secret has exactly one place; {SECRET_FORMS}")));
        };
        match (form.as_str(), value) {
            ("env", Value::String(name)) if is_variable(&name) => Ok(Self::Env(name)),
            ("env", Value::String(_)) => Err(D::Error::custom(
                "`env` takes the name of a variable, which has letters, digits and _ only, never the secret itself",
            )),
            ("file", Value::String(path)) if !path.is_empty() => Ok(Self::File(path.into())),
            ("command", Value::Array(words)) if !words.is_empty() => words
                .into_iter()
                .map(|word| match word {
                    Value::String(word) => Ok(word),
                    _ => Err(D::Error::custom("a command is a list of texts: program, arguments")),
                })
                .collect::<Result<_, _>>()
                .map(Self::Command),
            ("env" | "file", _) => Err(D::Error::custom(format!("`{form}` takes one text; {SECRET_FORMS}"))),
            ("command", _) => Err(D::Error::custom(format!("`command` takes a list of texts; {SECRET_FORMS}"))),
            _ => Err(D::Error::custom(format!("unknown place of a secret; {SECRET_FORMS}"))),
        }
    }
}

/// Returns whether a text can be the name of a variable. Veriff's keys and secrets have dashes, so one that was written
/// in the place of the name is refused here, where it is not yet repeated in a message.
fn is_variable(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_word)
}

impl schemars::JsonSchema for SecretText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "where to read a secret; never the secret itself",
            "oneOf": [
                { "type": "object", "properties": { "env": { "type": "string", "minLength": 1 } }, "required": ["env"], "additionalProperties": false },
                { "type": "object", "properties": { "file": { "type": "string", "minLength": 1 } }, "required": ["file"], "additionalProperties": false },
                { "type": "object", "properties": { "command": { "type": "array", "items": { "type": "string" }, "minItems": 1 } }, "required": ["command"], "additionalProperties": false },
            ],
        })
    }
}
