//! Wire: Veriff's JSON exactly as it is sent, read tolerantly.
//!
//! Veriff may add fields and values, change the order of anything, and has typed numbers as text, so a reader here takes
//! what it needs and ignores the rest. What it takes is not yet trusted: ids are texts until `catalog` parses them.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::clock::Timestamp;

/// The answer to a request for attempts.
#[derive(Debug, Deserialize)]
pub struct AttemptList {
    /// `success`; anything else is an error in disguise.
    #[serde(default, deserialize_with = "text")]
    pub status: Option<String>,
    /// The attempts, in no order to rely on.
    #[serde(default, deserialize_with = "list")]
    pub verifications: Vec<Attempt>,
}

/// One attempt.
#[derive(Debug, Deserialize)]
pub struct Attempt {
    /// Its id.
    #[serde(default, deserialize_with = "text")]
    pub id: Option<String>,
    /// Its status, an open set.
    #[serde(default, deserialize_with = "text")]
    pub status: Option<String>,
    /// When it was made.
    #[serde(default, rename = "createdTime", deserialize_with = "time")]
    pub created_time: Option<Timestamp>,
}

/// The answer to a request for the media of a session or an attempt; each array may be missing.
#[derive(Debug, Deserialize)]
pub struct MediaList {
    /// `success`; anything else is an error in disguise.
    #[serde(default, deserialize_with = "text")]
    pub status: Option<String>,
    /// Photos.
    #[serde(default, deserialize_with = "list")]
    pub images: Vec<Item>,
    /// Videos; never listed by test integrations.
    #[serde(default, deserialize_with = "list")]
    pub videos: Vec<Item>,
    /// Data of document chips.
    #[serde(default, rename = "nfcDocuments", deserialize_with = "list")]
    pub nfc_documents: Vec<Item>,
}

/// One listed media item. Its `url` is not read: downloads go to the configured host only.
#[derive(Debug, Deserialize)]
pub struct Item {
    /// Its id.
    #[serde(default, deserialize_with = "text")]
    pub id: Option<String>,
    /// Usually equal to the context.
    #[serde(default, deserialize_with = "text")]
    pub name: Option<String>,
    /// What it shows, an open set; not unique.
    #[serde(default, deserialize_with = "text")]
    pub context: Option<String>,
    /// Bytes.
    #[serde(default, deserialize_with = "whole_number")]
    pub size: Option<u64>,
    /// A MIME type, or a bare file extension.
    #[serde(default, deserialize_with = "text")]
    pub mimetype: Option<String>,
    /// Seconds.
    #[serde(default, deserialize_with = "number")]
    pub duration: Option<f64>,
}

/// An error body; Veriff may leave out any of it.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorBody {
    /// `fail`, or a number on some calls.
    #[serde(default)]
    pub status: Value,
    /// Digits as text, or a number.
    #[serde(default, deserialize_with = "whole_number")]
    pub code: Option<u64>,
}

impl ErrorBody {
    /// Reads the numeric code of an error body, if it is one.
    #[must_use]
    pub fn code_of(body: &[u8]) -> Option<u64> {
        serde_json::from_slice::<Self>(body).ok()?.code
    }

    /// Returns whether a body is an error document of Veriff rather than what was asked for.
    #[must_use]
    pub fn is_error(body: &[u8]) -> bool {
        let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(body) else {
            return false;
        };
        let failed = match fields.get("status") {
            Some(Value::String(status)) => matches!(status.as_str(), "fail" | "error" | "failed"),
            Some(Value::Number(_)) => true,
            _ => false,
        };
        let told = ["code", "message", "error"].iter().any(|key| fields.contains_key(*key));
        told && (failed || !["com", "sod", "dg1", "dg2"].iter().any(|key| fields.contains_key(*key)))
    }
}

/// Takes text, or a number as text; anything else is nothing.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Takes an array; null is an empty one.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// Takes a time; anything unreadable is nothing.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(text(deserializer)?.and_then(|text| text.parse().ok()))
}

/// Takes a whole number, also as text; anything else is nothing.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be whole and in range")]
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number)).then_some(number as u64)
}

/// Takes a finite number, also as text; anything else is nothing.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_text_and_arrays_may_be_missing() {
        let list: MediaList = serde_json::from_str(
            r#"{"status":"success","videos":[{"id":"v","size":"12","duration":"7.5","timestamp":{"url":"x"},"new":[1]}],"images":null}"#,
        )
        .unwrap();
        assert_eq!(list.videos[0].size, Some(12));
        assert_eq!(list.videos[0].duration, Some(7.5));
        assert!(list.images.is_empty() && list.nfc_documents.is_empty());
    }

    #[test]
    fn unreadable_values_are_nothing_rather_than_errors() {
        let item: Item =
            serde_json::from_str(r#"{"id":7,"size":-1,"mimetype":null,"duration":"long","context":{"a":1}}"#).unwrap();
        assert_eq!(item.id.as_deref(), Some("7"));
        assert_eq!((item.size, item.mimetype, item.duration, item.context), (None, None, None, None));
    }

    #[test]
    fn error_documents_are_told_from_chip_data() {
        assert!(ErrorBody::is_error(br#"{"status":"fail","code":"1101","message":"x"}"#));
        assert!(ErrorBody::is_error(br#"{"status":400,"code":1305}"#));
        assert!(ErrorBody::is_error(br#"{"error":"gone"}"#));
        assert!(!ErrorBody::is_error(br#"{"com":"YA==","sod":"dw==","dg1":"YQ==","dg2":"dQ=="}"#));
        assert!(!ErrorBody::is_error(br#"{"status":"success","images":[]}"#));
        assert!(!ErrorBody::is_error(b"\xff\xd8\xff"));
        assert_eq!(ErrorBody::code_of(br#"{"status":"fail","code":"1818"}"#), Some(1818));
        assert_eq!(ErrorBody::code_of(b"<html>"), None);
    }
}
