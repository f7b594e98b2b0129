//! Fetch: the bytes of one media item, checked as they pass.
//!
//! Between catalog and store. Promises: never more than the size limit, a digest that is known with the last byte, and
//! nothing that is not media taken for it. What is merely odd (another length or type than listed, other first bytes, a
//! wrong signature) is reported as anomalies; whether to fetch again is decided by `item`. Keeps no bytes itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use crate::metrics::SessionMeter;
use crate::model::digest::{Hasher, Sha256Digest};
use crate::model::key::extension_for;
use crate::model::sidecar::{Anomaly, SignatureCheck, Upstream, anomaly};
use crate::session::catalog::MediaItem;
use crate::veriff::wire::ErrorBody;
use crate::veriff::{CONFIRMATIONS, MediaAnswer, VeriffClient, VeriffError};

/// How many first bytes are looked at to say what a body is.
const START_BYTES: usize = 64;

/// The longest body that can be an error document.
const MAX_ERROR_DOCUMENT_BYTES: u64 = 64 * 1024;

/// The bytes of one media item on their way.
#[derive(Debug)]
pub struct MediaStream<'a> {
    client: &'a VeriffClient,
    item: &'a MediaItem,
    answer: MediaAnswer,
    limit_bytes: u64,
    hasher: Hasher,
    size_bytes: u64,
    start: Vec<u8>,
}

/// What is known of a media item once its last byte has passed.
#[derive(Debug)]
pub struct Fetched {
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
    /// Their number.
    pub size_bytes: u64,
    /// What Veriff said and sent.
    pub upstream: Upstream,
    /// What was odd.
    pub anomalies: Vec<Anomaly>,
}

/// Opens one media item. One try.
///
/// # Errors
/// As [`VeriffClient::open_media`]; permanent if more bytes are announced than the limit allows.
pub async fn open<'a>(
    client: &'a VeriffClient,
    item: &'a MediaItem,
    limit_bytes: u64,
    meter: &SessionMeter,
) -> Result<MediaStream<'a>, VeriffError> {
    let answer = client.open_media(&item.media_id, meter).await?;
    if answer.content_length.is_some_and(|length| length > limit_bytes) {
        return Err(VeriffError::TooLarge { limit_bytes });
    }
    Ok(MediaStream {
        client,
        item,
        answer,
        limit_bytes,
        hasher: Hasher::default(),
        size_bytes: 0,
        start: Vec::with_capacity(START_BYTES),
    })
}

impl MediaStream<'_> {
    /// Returns how many bytes were announced.
    #[must_use]
    pub const fn content_length(&self) -> Option<u64> {
        self.answer.content_length
    }

    /// Returns how many bytes have passed.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the next bytes, or `None` when all have come.
    ///
    /// # Errors
    /// Retryable: the body broke. Permanent: it is longer than the limit.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, VeriffError> {
        let Some(chunk) = self.answer.chunk().await? else {
            return Ok(None);
        };
        self.hasher.update(&chunk);
        self.size_bytes += chunk.len() as u64;
        if self.size_bytes > self.limit_bytes {
            return Err(VeriffError::TooLarge { limit_bytes: self.limit_bytes });
        }
        let wanted = START_BYTES.saturating_sub(self.start.len()).min(chunk.len());
        self.start.extend_from_slice(&chunk[..wanted]);
        Ok(Some(chunk))
    }

    /// Judges the body after its last byte. `whole` is the body itself, where the caller still has all of it.
    ///
    /// # Errors
    /// Retryable within the budget of tries: it ended early, is empty, is no media, or is not signed as required.
    pub fn finish(mut self, whole: Option<&[Bytes]>) -> Result<Fetched, VeriffError> {
        if self.answer.content_length.is_some_and(|length| length != self.size_bytes) {
            return Err(VeriffError::Truncated);
        }
        if self.size_bytes == 0 && self.item.size_bytes.is_some_and(|size| size > 0) {
            return Err(VeriffError::Empty);
        }
        if self.is_page() || whole.is_some_and(|segments| self.is_error_document(segments)) {
            return Err(VeriffError::NotMedia);
        }
        let signature = self.answer.signature();
        if !self.client.accepts(signature) && signature != SignatureCheck::Mismatch
            || signature == SignatureCheck::Mismatch && !self.client.records_mismatches()
        {
            return Err(VeriffError::Signature { again: true });
        }
        let anomalies = self.anomalies(signature);
        Ok(Fetched {
            sha256: self.hasher.finish(),
            size_bytes: self.size_bytes,
            anomalies,
            upstream: Upstream {
                host: self.client.host().to_owned(),
                path: self.answer.path,
                listed_size_bytes: self.item.size_bytes,
                listed_mimetype: self.item.mimetype.clone(),
                http_status: self.answer.http_status,
                content_type: self.answer.content_type,
                date: self.answer.date,
                fetched_at: self.answer.fetched_at,
                signature,
                signature_value: self.answer.signature_value,
            },
        })
    }

    /// Returns whether the body is a page, by what it says it is or by how it begins; first bytes of the listed type
    /// prove the opposite.
    fn is_page(&self) -> bool {
        let listed = extension_for(self.item.mimetype.as_deref());
        let is_called_page = self.answer.content_type.as_deref().is_some_and(is_page_type);
        (is_called_page || looks_like_html(&self.start)) && !has_magic(listed, &self.start).unwrap_or(false)
    }

    fn is_error_document(&self, segments: &[Bytes]) -> bool {
        if self.size_bytes > MAX_ERROR_DOCUMENT_BYTES || first_visible(&self.start) != Some(b'{') {
            return false;
        }
        ErrorBody::is_error(&segments.concat())
    }

    fn anomalies(&self, signature: SignatureCheck) -> Vec<Anomaly> {
        let mut anomalies = Vec::new();
        let mut note = |code: &str, detail: String| anomalies.push(Anomaly { code: code.to_owned(), detail });
        if let Some(listed) = self.item.size_bytes.filter(|listed| *listed != self.size_bytes) {
            note(anomaly::SIZE, format!("listed {listed} bytes, received {}", self.size_bytes));
        }
        if let (Some(listed), Some(sent)) = (&self.item.mimetype, &self.answer.content_type)
            && !same_type(listed, sent)
        {
            note(anomaly::TYPE, format!("listed {}, received {}", short(listed), short(sent)));
        }
        let listed = extension_for(self.item.mimetype.as_deref());
        if self.size_bytes > 0 && has_magic(listed, &self.start) == Some(false) {
            note(anomaly::MAGIC, format!("the first bytes are not those of {listed}"));
        }
        if signature == SignatureCheck::Mismatch {
            note(anomaly::SIGNATURE, "the response signature does not match the bytes".to_owned());
        }
        anomalies
    }
}

/// What an integration is known to do to every item: sending another type than it lists, for example.
///
/// An odd item is fetched again to see whether the oddness was an accident. Where fetching again has shown the same
/// oddness several times and never anything else, it is a habit of the integration; fetching everything twice would then
/// prove nothing and could cost the horizon. A length that differs is never a habit.
#[derive(Debug, Default)]
pub struct Habits {
    known: Mutex<HashMap<String, Habit>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What fetching again has shown of one oddness.
#[derive(Debug, Default, Clone, Copy)]
struct Habit {
    /// How often it was confirmed since it was last refuted.
    confirmed: u32,
    /// It was an accident at least once, so that another item's answer says nothing about this one's.
    refuted: bool,
}

/// The right to fetch an odd item again; others that are odd in the same way may wait for what comes of it.
#[derive(Debug)]
pub struct Turn(Option<OwnedMutexGuard<()>>);

impl Turn {
    /// Lets the next one have it.
    pub fn end(&mut self) {
        self.0 = None;
    }
}

impl Habits {
    /// Returns the turn to fetch an item with these anomalies again; nothing if they are a habit.
    ///
    /// While it is open whether an oddness is a habit, one item at a time is fetched again and the others wait for what
    /// it shows. Whoever holds the turn must not wait for room, because those who wait for the turn hold some.
    pub async fn turn(&self, anomalies: &[Anomaly]) -> Option<Turn> {
        let is_open = |odd: &Anomaly| odd.code != anomaly::SIZE && !self.habit(odd).refuted;
        if !anomalies.iter().all(is_open) {
            return (!self.explain(anomalies)).then_some(Turn(None));
        }
        if self.explain(anomalies) {
            return None;
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        (!self.explain(anomalies)).then_some(Turn(Some(turn)))
    }

    /// Returns whether all anomalies of an item are habits.
    fn explain(&self, anomalies: &[Anomaly]) -> bool {
        anomalies.iter().all(|odd| odd.code != anomaly::SIZE && self.habit(odd).confirmed >= CONFIRMATIONS)
    }

    /// Notes that fetching again gave the same bytes, as odd as before.
    pub fn confirm(&self, anomalies: &[Anomaly]) {
        let mut known = self.known();
        for odd in anomalies {
            known.entry(Self::name(odd)).or_default().confirmed += 1;
        }
    }

    /// Notes that fetching again gave something better.
    pub fn refute(&self, anomalies: &[Anomaly]) {
        let mut known = self.known();
        for odd in anomalies {
            known.insert(Self::name(odd), Habit { confirmed: 0, refuted: true });
        }
    }

    fn habit(&self, odd: &Anomaly) -> Habit {
        self.known().get(&Self::name(odd)).copied().unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Habit>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(odd: &Anomaly) -> String {
        format!("{} {}", odd.code, odd.detail)
    }
}

/// Returns whether a content type is that of a page. No media item has it, so what is sent under it is a proxy's own.
fn is_page_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "text/html" | "application/xhtml+xml")
}

fn looks_like_html(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text: Vec<u8> = start.iter().copied().skip_while(u8::is_ascii_whitespace).take(14).collect();
    let text = text.to_ascii_lowercase();
    let tags = [b"<!doctype html".as_slice(), b"<!--", b"<html", b"<head", b"<body", b"<?xml"];
    tags.iter().any(|tag| text.starts_with(tag))
}

fn first_visible(start: &[u8]) -> Option<u8> {
    start.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// Returns whether the first bytes are those of a type; `None` for a type that has none to look for.
fn has_magic(extension: &str, start: &[u8]) -> Option<bool> {
    let at = |offset: usize, magic: &[u8]| start.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    Some(match extension {
        "jpg" => at(0, &[0xff, 0xd8, 0xff]),
        "png" => at(0, &[0x89, b'P', b'N', b'G']),
        "webp" => at(0, b"RIFF") && at(8, b"WEBP"),
        "heic" | "heif" | "mp4" => at(4, b"ftyp"),
        "pdf" => at(0, b"%PDF-"),
        "webm" => at(0, &[0x1a, 0x45, 0xdf, 0xa3]),
        "json" => matches!(first_visible(start), Some(b'{' | b'[')),
        _ => return None,
    })
}

fn same_type(listed: &str, sent: &str) -> bool {
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let family = |extension: &'static str| if extension == "heif" { "heic" } else { extension };
    let (a, b) = (family(extension_for(Some(listed))), family(extension_for(Some(sent))));
    if a == "bin" && b == "bin" { essence(listed) == essence(sent) } else { a == b }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn pages_are_told_from_media() {
        assert!(looks_like_html(b"\n  <!DOCTYPE HTML><title>x"));
        assert!(looks_like_html(b"<html lang=en>"));
        assert!(looks_like_html(b"\xef\xbb\xbf<html>"));
        assert!(looks_like_html(b"<!-- a proxy -->\n<html>"));
        assert!(is_page_type("Text/HTML; charset=utf-8"));
        assert!(!is_page_type("image/jpeg") && !is_page_type("text/plain"));
        assert!(!looks_like_html(&[0xff, 0xd8, 0xff]));
        assert!(!looks_like_html(b""));
    }

    #[test]
    fn first_bytes_are_known_per_type() {
        assert_eq!(has_magic("jpg", &[0xff, 0xd8, 0xff, 0xe0]), Some(true));
        assert_eq!(has_magic("jpg", b"\x89PNG"), Some(false));
        assert_eq!(has_magic("webp", b"RIFF\0\0\0\0WEBPVP8 "), Some(true));
        assert_eq!(has_magic("heic", b"\0\0\0\x18ftypheic"), Some(true));
        assert_eq!(has_magic("json", b"  {"), Some(true));
        assert_eq!(has_magic("bin", b"anything"), None);
        assert_eq!(has_magic("png", b""), Some(false));
    }

    #[test]
    fn types_are_compared_by_what_they_mean() {
        assert!(same_type("image/jpeg", "image/jpg; charset=binary"));
        assert!(same_type("jpg", "image/jpeg"));
        assert!(same_type("image/heic", "image/heif"));
        assert!(same_type("application/x-a", "application/X-A"));
        assert!(!same_type("application/x-a", "application/x-b"));
        assert!(!same_type("image/jpeg", "application/octet-stream"));
    }

    #[test]
    fn a_habit_needs_confirmations_and_one_better_answer_ends_it() {
        let habits = Habits::default();
        let odd = [Anomaly { code: anomaly::TYPE.into(), detail: "listed a, received b".into() }];
        let long = [Anomaly { code: anomaly::SIZE.into(), detail: "listed 1 bytes, received 2".into() }];
        for _ in 0..CONFIRMATIONS {
            assert!(!habits.explain(&odd));
            habits.confirm(&odd);
            habits.confirm(&long);
        }
        assert!(habits.explain(&odd));
        assert!(!habits.explain(&long));
        habits.refute(&odd);
        assert!(!habits.explain(&odd));
    }

    #[tokio::test]
    async fn one_item_at_a_time_is_fetched_again_until_a_habit_is_known_or_refuted() {
        let habits = Habits::default();
        let odd = [Anomaly { code: anomaly::TYPE.into(), detail: "listed a, received b".into() }];
        for _ in 0..CONFIRMATIONS {
            let turn = habits.turn(&odd).await.unwrap();
            assert!(habits.turn(&odd).now_or_never().is_none(), "another one waits");
            habits.confirm(&odd);
            drop(turn);
        }
        assert!(habits.turn(&odd).await.is_none());
        habits.refute(&odd);
        let _turn = habits.turn(&odd).await.unwrap();
        assert!(habits.turn(&odd).now_or_never().unwrap().is_some(), "nobody waits for an accident");
    }
}
