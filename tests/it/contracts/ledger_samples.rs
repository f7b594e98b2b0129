//! What the suites of the ledger give to it: ids, times, the ends of visits, runs.

use std::time::Duration;

use veriff_archive::clock::Timestamp;
use veriff_archive::error::Code;
use veriff_archive::ledger::{ClosedRecord, Ledger, ManifestRef, MediaRow, RunStart, SessionEntry, State};
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::request::SessionRequest;
use veriff_archive::model::{AttemptId, MediaId, MediaKind, RunId, SessionId};

pub(super) const ALARM: Duration = Duration::from_hours(7 * 24);

pub(super) fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

pub(super) fn run(text: &str) -> RunId {
    RunId::parse(text).unwrap()
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_700_000_000 + seconds)
}

pub(super) fn pending(session: &str) -> SessionEntry {
    SessionEntry {
        record: SessionRequest::of(id(session)),
        integration: "default".into(),
        state: State::Pending,
        code: None,
        message: None,
        upstream_created_at: None,
        deadline_at: None,
        manifest: None,
        complete: false,
        settled: false,
        media: Vec::new(),
        run_id: run("run-1"),
        at: at(0),
        look_again_at: None,
        holder: None,
        line: None,
    }
}

pub(super) fn failed(session: &str, code: Code) -> SessionEntry {
    SessionEntry { state: State::Failed, code: Some(code), message: Some(format!("it was {code}")), ..pending(session) }
}

pub(super) fn manifest(session: &str, sequence: u32) -> ManifestRef {
    ManifestRef {
        key: ObjectKey::manifest(&id(session), sequence),
        version_id: Some(format!("v{sequence}")),
        sequence,
        sha256: Sha256Digest::of(&sequence.to_be_bytes()),
    }
}

/// An archived session whose manifest holds items 0 to `items`, of 10 bytes each.
pub(super) fn archived(session: &str, sequence: u32, items: u32) -> SessionEntry {
    let attempt_id = AttemptId::parse("a").unwrap();
    let media = (0..items).map(|item| {
        let media_id = MediaId::parse(&format!("m{item}")).unwrap();
        MediaRow {
            key: ObjectKey::media(&id(session), &attempt_id, &media_id, "jpg"),
            media_id,
            attempt_id: attempt_id.clone(),
            kind: MediaKind::Image,
            version_id: None,
            size_bytes: 10,
            sha256: Sha256Digest::of(&item.to_be_bytes()),
        }
    });
    SessionEntry {
        state: State::Archived,
        manifest: Some(manifest(session, sequence)),
        complete: true,
        settled: true,
        media: media.collect(),
        ..pending(session)
    }
}

/// Begins a run, which keeps a record if there is a draft of it.
pub(super) async fn begin(ledger: &dyn Ledger, name: &str, draft: Option<&str>) {
    let start = RunStart {
        run_id: run(name),
        started_at: at(0),
        version: "0.1.0".into(),
        source_kind: "file".into(),
        store_url: "s3://bucket".into(),
        draft: draft.map(str::to_owned),
    };
    ledger.start_run(&start).await.unwrap();
}

/// Where the record of a run stands.
pub(super) fn closed_record(name: &str, number: u32) -> ClosedRecord {
    ClosedRecord {
        key: ObjectKey::run_record(&run(name), at(0)),
        sha256: Sha256Digest::of(name.as_bytes()),
        group: "default".into(),
        number,
        entry_sha256: Sha256Digest::of(&number.to_be_bytes()),
    }
}
