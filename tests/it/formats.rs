//! Formats: frozen samples of every document, which all later versions must read.
//!
//! A sample is what stands in somebody's locked bucket: once released it is never edited. A new version of a document
//! gets a sample of its own beside it.

use std::path::Path;

use schemars::schema_for;
use serde::Serialize;
use serde_json::{Map, Value};
use veriff_archive::model::digest::{Checksum, PART_SIZE_BYTES, Payload, SINGLE_PUT_MAX_BYTES, Sha256Digest};
use veriff_archive::model::event::{Event, SessionList};
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::manifest::{ArchiveDocument, Manifest};
use veriff_archive::model::merkle;
use veriff_archive::model::request::SessionRequest;
use veriff_archive::model::run::{ChainEntry, RunLine, RunRecord};
use veriff_archive::model::sidecar::Sidecar;
use veriff_archive::run::results::ResultLine;
use veriff_archive::session::visit::Outcome;

fn sample(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    std::fs::read(path.join(format!("{name}.json"))).unwrap()
}

fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn stored(payload: &Payload) -> Vec<u8> {
    payload.segments().concat()
}

fn json(document: impl Serialize) -> Value {
    serde_json::to_value(document).unwrap()
}

/// Adds a field that this version does not know to every object of a document.
fn with_more(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(with_more);
            fields.insert("added_by_a_later_version".to_owned(), Value::from(1));
        }
        Value::Array(items) => items.iter_mut().for_each(with_more),
        _ => {}
    }
}

fn more(bytes: &[u8]) -> Vec<u8> {
    let mut document = value(bytes);
    with_more(&mut document);
    serde_json::to_vec(&document).unwrap()
}

#[test]
fn a_sidecar_of_version_1_is_read_for_ever() {
    let bytes = sample("sidecar-v1");
    let sidecar = Sidecar::parse(&bytes).unwrap();
    assert_eq!(json(&sidecar), value(&bytes));
    assert_eq!(Sidecar::parse(&stored(&sidecar.to_payload())), Some(sidecar.clone()));
    assert_eq!(Sidecar::parse(&more(&bytes)), Some(sidecar), "a field that was added later");
}

#[test]
fn a_manifest_of_version_1_is_read_for_ever() {
    let bytes = sample("manifest-v1");
    let manifest = Manifest::parse(&bytes).unwrap();
    assert_eq!(json(&manifest), value(&bytes));
    assert_eq!(Manifest::parse(&stored(&manifest.to_payload())), Some(manifest.clone()));
    assert_eq!(Manifest::parse(&more(&bytes)), Some(manifest), "a field that was added later");
}

#[test]
fn an_archive_document_of_version_1_is_read_for_ever() {
    let bytes = sample("archive-v1");
    let archive = ArchiveDocument::parse(&bytes).unwrap();
    assert_eq!(json(&archive), value(&bytes));
    assert_eq!(ArchiveDocument::parse(&more(&bytes)), Some(archive));
}

#[test]
fn an_event_of_version_1_is_read_for_ever() {
    let bytes = sample("event-v1");
    let event = Event::parse(&bytes).unwrap();
    assert_eq!(json(&event), value(&bytes));
    assert_eq!(Event::parse(&stored(&event.to_payload())), Some(event.clone()));
    assert_eq!(Event::parse(&more(&bytes)), Some(event.clone()), "a field that was added later");
    let mut list = SessionList::default();
    for id in event.sessions.ids.clone().unwrap() {
        list.add(id);
    }
    assert_eq!(list.finish(), event.sessions);
    assert_eq!(event.key().as_str(), format!("events/2026/11/25/{}.json", event.event_id));
}

#[test]
fn a_run_record_of_version_1_its_lines_and_its_entry_are_read_for_ever_and_fit_one_another() {
    let [run_bytes, line_bytes, entry_bytes] = ["run-v1", "run-line-v1", "chain-v1"].map(sample);
    let run = RunRecord::parse(&run_bytes).unwrap();
    let line = RunLine::parse(&line_bytes).unwrap();
    let entry = ChainEntry::parse(&entry_bytes).unwrap();
    assert_eq!(json(&run), value(&run_bytes));
    assert_eq!(json(&line), value(&line_bytes));
    assert_eq!(json(&entry), value(&entry_bytes));
    assert_eq!(RunRecord::parse(&serde_json::to_vec(&run).unwrap()), Some(run.clone()));
    assert_eq!(RunLine::parse(&more(&line_bytes)), Some(line.clone()), "a field that was added later");
    assert_eq!(ChainEntry::parse(&more(&entry_bytes)), Some(entry.clone()));
    assert!(RunRecord::parse(&more(&run_bytes)).is_some());
    assert_eq!(entry.run_sha256, Sha256Digest::of(&run_bytes));
    assert_eq!(run.archive_sha256, Some(Sha256Digest::of(&sample("archive-v1"))));
    assert_eq!(line.manifest.unwrap().sha256, Sha256Digest::of(&sample("manifest-v1")));
    // A tree of one leaf is that leaf: the line without its newline.
    assert_eq!(run.merkle_root, merkle::leaf(line_bytes.strip_suffix(b"\n").unwrap()));
    let config = serde_json_canonicalizer::to_vec(&run.config).unwrap();
    assert_eq!(run.config_sha256, Sha256Digest::of(&config));
    assert_eq!(entry.run_key, ObjectKey::run_record(&run.run_id, run.started_at));
    assert_eq!(run.chunks[0].key, ObjectKey::run_chunk(&run.run_id, run.started_at, 1));
}

#[test]
fn a_result_line_of_version_1_is_written_as_the_sample_and_is_an_input() {
    let bytes = sample("result-v1");
    let record: SessionRequest = serde_json::from_slice(&bytes).unwrap();
    let sample = value(&bytes);
    let mut line = ResultLine::of(record, Outcome::Failed);
    line.code = sample["code"].as_str().and_then(veriff_archive::error::Code::parse);
    line.message = sample["message"].as_str().map(str::to_owned);
    (line.complete, line.settled) = (false, true);
    (line.media, line.bytes) = (3, 20_285_060);
    line.manifest_key = Some(serde_json::from_value(sample["manifest_key"].clone()).unwrap());
    line.manifest_sha256 = Some(serde_json::from_value(sample["manifest_sha256"].clone()).unwrap());
    (line.requests, line.retries, line.duration_ms) = (5, 1, 1480);
    assert_eq!(json(&line), sample);
    assert!(serde_json::from_slice::<SessionRequest>(&more(&bytes)).is_ok());
}

#[test]
fn a_document_of_another_version_is_not_taken_for_one_of_this() {
    for (name, is_read) in [
        ("sidecar", (|bytes| Sidecar::parse(bytes).is_some()) as fn(&[u8]) -> bool),
        ("manifest", |bytes| Manifest::parse(bytes).is_some()),
        ("archive", |bytes| ArchiveDocument::parse(bytes).is_some()),
        ("event", |bytes| Event::parse(bytes).is_some()),
        ("run", |bytes| RunRecord::parse(bytes).is_some()),
        ("run-line", |bytes| RunLine::parse(bytes).is_some()),
        ("chain", |bytes| ChainEntry::parse(bytes).is_some()),
    ] {
        let mut document = value(&sample(&format!("{name}-v1")));
        assert!(is_read(&serde_json::to_vec(&document).unwrap()), "{name}");
        document["schema"] = format!("veriff-archive/{name}/v2").into();
        assert!(!is_read(&serde_json::to_vec(&document).unwrap()), "{name}");
    }
}

#[test]
fn the_samples_show_every_field_of_the_published_schemas_and_no_other() {
    for (name, schema) in [
        ("sidecar", json(schema_for!(Sidecar))),
        ("manifest", json(schema_for!(Manifest))),
        ("archive", json(schema_for!(ArchiveDocument))),
        ("event", json(schema_for!(Event))),
        ("run", json(schema_for!(RunRecord))),
        ("run-line", json(schema_for!(RunLine))),
        ("chain", json(schema_for!(ChainEntry))),
        ("result", json(schema_for!(ResultLine))),
    ] {
        let sample = value(&sample(&format!("{name}-v1")));
        assert_eq!(wrong(&schema, &schema, &sample), None, "{name}");
        let mut shown = Vec::new();
        paths(&sample, name, &mut shown);
        let mut described = Vec::new();
        described_paths(&schema, &schema, name, &mut described);
        // The configuration is as its own version says.
        shown.retain(|path| !path.starts_with("run.config."));
        // Null in a sample of a session that is there.
        described.retain(|path| path != "manifest.absent.http_status");
        for list in [&mut shown, &mut described] {
            list.sort();
            list.dedup();
        }
        assert_eq!(shown, described);
    }
}

#[test]
fn a_sample_that_breaks_its_schema_is_noticed() {
    let schema = json(schema_for!(Manifest));
    let good = value(&sample("manifest-v1"));
    let broken = |edit: fn(&mut Value)| {
        let mut document = good.clone();
        edit(&mut document);
        wrong(&schema, &schema, &document)
    };
    assert!(broken(|_| {}).is_none());
    assert!(broken(|it| drop(it.as_object_mut().unwrap().remove("attempts"))).is_some());
    assert!(broken(|it| it["totals"]["media"] = "three".into()).is_some());
    assert!(broken(|it| it["attempts"][0]["media"][0]["kind"] = "sound".into()).is_some());
}

#[test]
fn the_constants_of_the_format_stay() {
    assert_eq!(PART_SIZE_BYTES, 8 * 1024 * 1024);
    assert_eq!(SINGLE_PUT_MAX_BYTES, 16 * 1024 * 1024);
    let parts = ["part one", "part two", "part three"].map(|part| Sha256Digest::of(part.as_bytes()));
    let sidecar = Sidecar::parse(&sample("sidecar-v1")).unwrap();
    assert_eq!(sidecar.object.checksum, Checksum::composite(&parts));
    let manifest = Manifest::parse(&sample("manifest-v1")).unwrap();
    assert_eq!(Manifest::sum(&manifest.attempts), manifest.totals);
    for listing in &manifest.listings {
        let text = listing.body.clone().map(String::into_bytes);
        let body = text.unwrap_or_else(|| b"{\"status\":\"success\",\"note\":\"\xff\"}".to_vec());
        assert_eq!(Sha256Digest::of(&body), listing.sha256, "{}", listing.path);
    }
}

/// Follows a reference to a definition of the schema.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolved(root, root.pointer(reference.trim_start_matches('#')).unwrap()),
        None => schema,
    }
}

fn fields(schema: &Value) -> Map<String, Value> {
    schema["properties"].as_object().cloned().unwrap_or_default()
}

/// Says what in a document is not as the schema says: types, required fields, allowed values.
pub(crate) fn wrong(root: &Value, schema: &Value, document: &Value) -> Option<String> {
    let schema = resolved(root, schema);
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let fits = choices.iter().any(|choice| wrong(root, choice, document).is_none());
            return (!fits).then(|| format!("{document} fits no choice of {schema}"));
        }
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let kind = match document {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_number = kind == "integer" && types.contains(&"number");
    if !types.is_empty() && !types.contains(&kind) && !is_number {
        return Some(format!("{document} is {kind}, not {types:?}"));
    }
    let allowed = schema["enum"].as_array();
    if allowed.is_some_and(|allowed| !allowed.contains(document))
        || schema.get("const").is_some_and(|it| it != document)
    {
        return Some(format!("{document} is not allowed"));
    }
    let required = schema["required"].as_array().into_iter().flatten();
    for field in required.filter_map(Value::as_str) {
        if document.get(field).is_none() {
            return Some(format!("{field} is missing"));
        }
    }
    let inside = fields(schema);
    let mut parts = inside
        .iter()
        .filter_map(|(name, schema)| Some((schema, document.get(name)?)))
        .chain(document.as_array().into_iter().flatten().map(|item| (&schema["items"], item)));
    parts.find_map(|(schema, part)| wrong(root, schema, part))
}

/// Names every field that a document has.
fn paths(document: &Value, at: &str, found: &mut Vec<String>) {
    match document {
        Value::Object(fields) => {
            for (name, part) in fields {
                let path = format!("{at}.{name}");
                paths(part, &path, found);
                found.push(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, at, found)),
        _ => {}
    }
}

/// Names every field that a schema describes.
fn described_paths(root: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolved(root, schema);
    for choice in ["anyOf", "oneOf"] {
        for choice in schema[choice].as_array().into_iter().flatten() {
            described_paths(root, choice, at, found);
        }
    }
    if schema.get("items").is_some() {
        described_paths(root, &schema["items"], at, found);
    }
    for (name, part) in fields(schema) {
        let path = format!("{at}.{name}");
        described_paths(root, &part, &path, found);
        found.push(path);
    }
}
