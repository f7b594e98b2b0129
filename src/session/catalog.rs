//! Catalog: what one session holds, according to every list that Veriff has of it.
//!
//! Between source and fetch. A session's own list covers its latest attempt only, and chip data may be in either
//! list, so all attempts are walked and everything is united by media id, in an order that does not depend on the order
//! of the answers. Keeps the answers byte for byte; decides nothing about what is archived already.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::clock::Timestamp;
use crate::error::Code;
use crate::metrics::SessionMeter;
use crate::model::digest::Sha256Digest;
use crate::model::manifest::Listing;
use crate::model::sidecar::SignatureCheck;
use crate::model::{AttemptId, MediaId, MediaKind, SessionId};
use crate::veriff::settings::RecordKind;
use crate::veriff::wire::{AttemptList, Item, MediaList};
use crate::veriff::{Answer, Call, VeriffClient, VeriffError};

/// How many lists of one session are asked for at once; the pace of the integration limits further.
const LISTS_IN_FLIGHT: usize = 4;

/// What one session holds.
#[derive(Debug, Default)]
pub struct Catalog {
    /// 404 or 410, if Veriff does not have the session.
    pub absent: Option<u16>,
    /// Its attempts, oldest first.
    pub attempts: Vec<CatalogAttempt>,
    /// Its media items, in the order of their attempts; each media id once.
    pub items: Vec<MediaItem>,
    /// Its JSON records, as far as configured and not empty.
    pub records: Vec<RecordItem>,
    /// What Veriff answered.
    pub listings: Vec<Listing>,
    /// Why this catalog may lack something that Veriff has.
    pub gaps: Vec<Code>,
    /// Veriff refused a record.
    pub refusal: Option<VeriffError>,
    /// Lists whose response signature was wrong twice.
    pub wrong_signatures: u32,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogAttempt {
    /// Its id.
    pub attempt_id: AttemptId,
    /// Its status, as listed.
    pub status: Option<String>,
    /// When it was made, as listed.
    pub created_at: Option<Timestamp>,
}

/// One media item, as listed.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaItem {
    /// Its id, which is its identity.
    pub media_id: MediaId,
    /// The oldest attempt that names it, or `session`.
    pub attempt_id: AttemptId,
    /// What it is.
    pub kind: MediaKind,
    /// What it shows.
    pub context: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its listed size.
    pub size_bytes: Option<u64>,
    /// Its listed type.
    pub mimetype: Option<String>,
    /// Its listed length.
    pub duration_seconds: Option<f64>,
}

/// One JSON record; its bytes came with the answer.
#[derive(Debug, Clone)]
pub struct RecordItem {
    /// It as a media item of kind `record`.
    pub item: MediaItem,
    /// The answer.
    pub answer: Answer,
}

impl Catalog {
    /// Returns the earliest time that any list gives for the session.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.attempts.iter().filter_map(|attempt| attempt.created_at).min()
    }

    /// Returns the status of the newest attempt.
    #[must_use]
    pub fn latest_status(&self) -> Option<&str> {
        self.attempts.last().and_then(|attempt| attempt.status.as_deref())
    }

    /// Returns the status of an item's attempt; an item of the session's own list has that of the newest.
    #[must_use]
    pub fn status_of(&self, item: &MediaItem) -> Option<&str> {
        match self.attempts.iter().find(|attempt| attempt.attempt_id == item.attempt_id) {
            Some(attempt) => attempt.status.as_deref(),
            None => self.latest_status(),
        }
    }

    fn note(&mut self, answer: &Answer) {
        if answer.signature == SignatureCheck::Mismatch {
            self.wrong_signatures += 1;
        }
        self.listings.push(answer.listing());
    }

    fn gap(&mut self, code: Code) {
        if !self.gaps.contains(&code) {
            self.gaps.push(code);
        }
    }
}

/// Reads all lists of a session.
///
/// A list that is refused for good leaves a gap and the rest is read all the same; what may work later fails the whole,
/// because a catalog is only worth writing down if every list was heard.
///
/// # Errors
/// Retryable: a list cannot be had now. Permanent: Veriff does not take the id, refuses it, or its list of attempts
/// cannot be read.
pub async fn read(client: &VeriffClient, session: &SessionId, meter: &SessionMeter) -> Result<Catalog, VeriffError> {
    let mut catalog = Catalog::default();
    let (attempts, own) = futures_util::future::try_join(
        client.ask(Call::Attempts(session), meter, read_attempts),
        list_or_gap(client, Call::SessionMedia(session), meter),
    )
    .await?;
    catalog.note(&attempts.0);
    if let (None, Heard::Absent(answer)) = (&attempts.1, &own) {
        catalog.note(answer);
        catalog.absent = Some(attempts.0.http_status);
        return Ok(catalog);
    }
    match attempts.1 {
        Some(list) => take_attempts(&mut catalog, list),
        None => catalog.gap(Code::VeriffAbsent),
    }
    let ids: Vec<AttemptId> = catalog.attempts.iter().map(|attempt| attempt.attempt_id.clone()).collect();
    let lists: Vec<_> = ids.iter().map(|id| list_or_gap(client, Call::AttemptMedia(id), meter)).collect();
    let lists: Vec<Heard> = stream::iter(lists).buffered(LISTS_IN_FLIGHT).try_collect().await?;
    for (id, heard) in ids.iter().zip(lists) {
        take_list(&mut catalog, id, heard);
    }
    take_list(&mut catalog, &AttemptId::session(), own);
    for kind in &client.settings().records {
        take_record(&mut catalog, client, session, *kind, meter).await;
    }
    Ok(catalog)
}

/// What came of asking for one list.
enum Heard {
    List(Answer, MediaList),
    Absent(Answer),
    Refused(Code),
}

async fn list_or_gap(client: &VeriffClient, call: Call<'_>, meter: &SessionMeter) -> Result<Heard, VeriffError> {
    match client.ask(call, meter, read_media).await {
        Ok((answer, Some(list))) => Ok(Heard::List(answer, list)),
        Ok((answer, None)) => Ok(Heard::Absent(answer)),
        Err(error) if error.code().is_retryable() || matches!(error, VeriffError::Unauthorized { .. }) => Err(error),
        Err(error) => Ok(Heard::Refused(error.code())),
    }
}

fn read_attempts(body: &[u8]) -> Result<AttemptList, &'static str> {
    let list: AttemptList =
        serde_json::from_slice(body).map_err(|_| "the list of attempts is not the expected JSON")?;
    checked(list.status.as_deref()).map(|()| list)
}

fn read_media(body: &[u8]) -> Result<MediaList, &'static str> {
    let list: MediaList = serde_json::from_slice(body).map_err(|_| "the list of media is not the expected JSON")?;
    checked(list.status.as_deref()).map(|()| list)
}

fn read_record(body: &[u8]) -> Result<serde_json::Value, &'static str> {
    let record: serde_json::Value = serde_json::from_slice(body).map_err(|_| "the record is not JSON")?;
    checked(record.get("status").and_then(serde_json::Value::as_str)).map(|()| record)
}

fn checked(status: Option<&str>) -> Result<(), &'static str> {
    match status {
        Some("success") => Ok(()),
        _ => Err("the answer has status 200 but does not report success"),
    }
}

fn take_attempts(catalog: &mut Catalog, list: AttemptList) {
    for attempt in list.verifications {
        let Some(Ok(attempt_id)) = attempt.id.as_deref().map(AttemptId::parse) else {
            catalog.gap(Code::VeriffUnexpected);
            continue;
        };
        match catalog.attempts.iter_mut().find(|known| known.attempt_id == attempt_id) {
            Some(known) => {
                known.created_at = known.created_at.or(attempt.created_time);
                if known.status.is_none() {
                    known.status = attempt.status;
                }
            }
            None => catalog.attempts.push(CatalogAttempt {
                attempt_id,
                status: attempt.status,
                created_at: attempt.created_time,
            }),
        }
    }
    // Veriff may change the order of any array, so the order is ours. Entries without a time were the oldest wherever
    // one was seen.
    catalog.attempts.sort_by(|a, b| (a.created_at, &a.attempt_id).cmp(&(b.created_at, &b.attempt_id)));
}

fn take_list(catalog: &mut Catalog, attempt_id: &AttemptId, heard: Heard) {
    let (answer, list) = match heard {
        Heard::List(answer, list) => (answer, list),
        Heard::Absent(answer) => {
            catalog.note(&answer);
            return catalog.gap(Code::VeriffAbsent);
        }
        Heard::Refused(code) => return catalog.gap(code),
    };
    catalog.note(&answer);
    let kinds =
        [(MediaKind::Image, list.images), (MediaKind::Video, list.videos), (MediaKind::Nfc, list.nfc_documents)];
    let mut items: Vec<MediaItem> = Vec::new();
    for (kind, listed) in kinds {
        for item in listed {
            match media_item(item, kind, attempt_id) {
                Some(item) => items.push(item),
                None => catalog.gap(Code::VeriffUnexpected),
            }
        }
    }
    items.sort_by(|a, b| (a.kind, &a.media_id).cmp(&(b.kind, &b.media_id)));
    for item in items {
        if !catalog.items.iter().any(|known| known.media_id == item.media_id) {
            catalog.items.push(item);
        }
    }
}

fn media_item(item: Item, kind: MediaKind, attempt_id: &AttemptId) -> Option<MediaItem> {
    Some(MediaItem {
        media_id: MediaId::parse(item.id.as_deref()?).ok()?,
        attempt_id: attempt_id.clone(),
        kind,
        context: item.context,
        name: item.name,
        size_bytes: item.size,
        mimetype: item.mimetype,
        duration_seconds: item.duration,
    })
}

/// Asks for one JSON record. Its identity is the digest of its canonical form (RFC 8785), so that a mere change of
/// order is not new evidence. An answer without content (no decision yet, product not bought) is noted and no record.
/// One that cannot be had is a gap: media, which Veriff deletes, never wait for a record.
async fn take_record(
    catalog: &mut Catalog,
    client: &VeriffClient,
    session: &SessionId,
    kind: RecordKind,
    meter: &SessionMeter,
) {
    let (answer, record) = match client.ask(Call::Record(session, kind), meter, read_record).await {
        Ok((answer, Some(record))) => (answer, record),
        Ok((answer, None)) => return catalog.note(&answer),
        Err(error) => {
            catalog.gap(error.code());
            if matches!(error, VeriffError::Unauthorized { .. }) {
                catalog.refusal = Some(error);
            }
            return;
        }
    };
    let content = ["verification", "person", "data"].iter().find_map(|key| record.get(*key));
    if content.is_some_and(serde_json::Value::is_null) {
        return catalog.note(&answer);
    }
    let Ok(canonical) = serde_json_canonicalizer::to_vec(&record) else {
        return catalog.gap(Code::VeriffUnexpected);
    };
    let id = format!("{}-{}", kind.as_str(), Sha256Digest::of(&canonical).short(12));
    let Ok(media_id) = MediaId::parse(&id) else { unreachable!("a record's name and hex digits are an id") };
    let item = MediaItem {
        media_id,
        attempt_id: AttemptId::session(),
        kind: MediaKind::Record,
        context: Some(kind.as_str().to_owned()),
        name: Some(kind.as_str().to_owned()),
        size_bytes: None,
        mimetype: Some("application/json".to_owned()),
        duration_seconds: None,
    };
    catalog.records.push(RecordItem { item, answer });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(json: &str) -> Catalog {
        let mut catalog = Catalog::default();
        take_attempts(&mut catalog, serde_json::from_str(json).unwrap());
        catalog
    }

    fn answer() -> Answer {
        Answer {
            path: "/v1/x".into(),
            http_status: 200,
            fetched_at: Timestamp::from_unix_seconds(0),
            content_type: None,
            date: None,
            body: bytes::Bytes::from_static(b"{}"),
            signature: SignatureCheck::Absent,
            signature_value: None,
        }
    }

    fn heard(json: &str) -> Heard {
        Heard::List(answer(), serde_json::from_str(json).unwrap())
    }

    #[test]
    fn attempts_are_in_the_same_order_however_they_are_listed() {
        let a = r#"{"id":"a","createdTime":"2026-03-02T09:00:00Z","status":"approved"}"#;
        let b = r#"{"id":"b","createdTime":"2026-03-01T09:00:00Z"}"#;
        let c = r#"{"id":"c"}"#;
        for order in [[a, b, c], [c, a, b], [b, c, a]] {
            let catalog = attempts(&format!(r#"{{"verifications":[{},{},{},{a}]}}"#, order[0], order[1], order[2]));
            let ids: Vec<&str> = catalog.attempts.iter().map(|attempt| attempt.attempt_id.as_str()).collect();
            assert_eq!(ids, ["c", "b", "a"]);
            assert_eq!(catalog.latest_status(), Some("approved"));
        }
    }

    #[test]
    fn an_item_of_several_lists_belongs_to_the_oldest_attempt() {
        let mut catalog =
            attempts(r#"{"verifications":[{"id":"old"},{"id":"young","createdTime":"2026-03-01T09:00:00Z"}]}"#);
        let (old, young) = (AttemptId::parse("old").unwrap(), AttemptId::parse("young").unwrap());
        take_list(&mut catalog, &old, heard(r#"{"images":[{"id":"m"},{"id":"k"}]}"#));
        take_list(&mut catalog, &young, heard(r#"{"images":[{"id":"m"}],"videos":[{"id":"v"}]}"#));
        take_list(&mut catalog, &AttemptId::session(), heard(r#"{"videos":[{"id":"v"}],"nfcDocuments":[{"id":"n"}]}"#));
        let found: Vec<(&str, &str)> =
            catalog.items.iter().map(|item| (item.media_id.as_str(), item.attempt_id.as_str())).collect();
        assert_eq!(found, [("k", "old"), ("m", "old"), ("v", "young"), ("n", "session")]);
        assert!(catalog.gaps.is_empty());
    }

    #[test]
    fn an_id_that_cannot_be_a_key_leaves_a_gap() {
        let mut catalog = attempts(r#"{"verifications":[{"id":"manifest"},{"id":"../x"},{}]}"#);
        take_list(&mut catalog, &AttemptId::session(), heard(r#"{"images":[{"id":"a/b"},{"name":"no id"}]}"#));
        assert!(catalog.attempts.is_empty() && catalog.items.is_empty());
        assert_eq!(catalog.gaps, [Code::VeriffUnexpected]);
    }
}
