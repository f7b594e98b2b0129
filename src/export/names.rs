//! Names: what files in a bag are called, for people.
//!
//! A name is a number and a word or two from the manifest: `attempt-01-approved/02-document-back.jpg`. The number makes
//! it unique, the words only help; they come from outside, so that of each only `a-z 0-9 -` is left and not much of it.
//! Two names never differ by case alone, and none is one that some file system keeps for itself.

use crate::model::key::{ObjectKey, extension_for};
use crate::model::manifest::{ManifestAttempt, ManifestMedia};

/// The longest that a word of a name may get.
const MAX_WORD_LENGTH: usize = 40;

/// Returns the folder of an attempt, or of what belongs to the session as a whole, `number` counting from 1 in the order of the manifest.
#[must_use]
pub(super) fn attempt(number: usize, attempt: &ManifestAttempt) -> String {
    if attempt.attempt_id.is_session() {
        return format!("session-{number:02}");
    }
    with(format!("attempt-{number:02}"), attempt.status.as_deref().unwrap_or_default())
}

/// Returns the name of a media item, `number` counting from 1 within its attempt.
#[must_use]
pub(super) fn media(number: usize, media: &ManifestMedia) -> String {
    let shown = media.context.as_deref().map(word).filter(|word| !word.is_empty());
    let shown = shown.unwrap_or_else(|| media.kind.as_str().to_owned());
    format!("{}.{}", with(format!("{number:02}"), &shown), extension(&media.key))
}

/// Returns the name of bytes that are stored next to a key that others had taken, `number` counting from 1 within the
/// session.
#[must_use]
pub(super) fn conflict(number: usize, key: &ObjectKey) -> String {
    let taken = key.as_str().split(".conflict-").next().unwrap_or_default();
    format!("{number:02}-ours.{}", extension(&ObjectKey::from_store(taken)))
}

/// Returns the name of the sidecar beside a file.
#[must_use]
pub(super) fn sidecar(name: &str) -> String {
    format!("{name}.meta.json")
}

fn with(number: String, text: &str) -> String {
    match word(text) {
        word if word.is_empty() => number,
        word => format!("{number}-{word}"),
    }
}

/// Leaves of a text what is safe in a file name anywhere.
fn word(text: &str) -> String {
    let mut word = String::new();
    for c in text.chars() {
        if word.len() >= MAX_WORD_LENGTH {
            break;
        }
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => word.push(c),
            _ if word.is_empty() || word.ends_with('-') => {}
            _ => word.push('-'),
        }
    }
    word.trim_end_matches('-').to_owned()
}

/// Returns the extension of an object; of one that this program never gives, `bin`.
fn extension(key: &ObjectKey) -> &'static str {
    let given = key.as_str().rsplit('/').next().and_then(|name| name.split_once('.'));
    extension_for(given.map(|(_, extension)| extension))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use crate::model::digest::{Checksum, Sha256Digest};
    use crate::model::{AttemptId, MediaId, MediaKind};

    fn item(context: Option<&str>, key: &str) -> ManifestMedia {
        let sha256 = Sha256Digest::of(b"");
        ManifestMedia {
            media_id: MediaId::parse("m").unwrap(),
            kind: MediaKind::Image,
            context: context.map(str::to_owned),
            key: ObjectKey::from_store(key),
            version_id: None,
            size_bytes: 0,
            sha256,
            checksum: Checksum::full(sha256),
            sidecar_sha256: sha256,
            sidecar_version_id: None,
        }
    }

    fn of_status(id: AttemptId, status: Option<&str>) -> ManifestAttempt {
        ManifestAttempt { attempt_id: id, status: status.map(str::to_owned), created_at: None, media: Vec::new() }
    }

    #[test]
    fn a_name_tells_what_a_file_shows() {
        let key = "sessions/s/a/m.jpg";
        assert_eq!(media(1, &item(Some("document-front"), key)), "01-document-front.jpg");
        assert_eq!(media(12, &item(Some("selfid_video"), "sessions/s/a/m.webm")), "12-selfid-video.webm");
        assert_eq!(media(103, &item(None, key)), "103-image.jpg");
        assert_eq!(media(1, &item(Some("../.."), "sessions/s/a/m.exe")), "01-image.bin");
        let id = AttemptId::parse("a").unwrap();
        assert_eq!(
            attempt(1, &of_status(id.clone(), Some("resubmission_requested"))),
            "attempt-01-resubmission-requested"
        );
        assert_eq!(attempt(2, &of_status(id, None)), "attempt-02");
        assert_eq!(attempt(3, &of_status(AttemptId::session(), None)), "session-03");
        assert_eq!(conflict(1, &ObjectKey::from_store("sessions/s/a/m.png.conflict-01234567")), "01-ours.png");
        assert_eq!(sidecar("01-face.jpg"), "01-face.jpg.meta.json");
    }

    proptest! {
        #[test]
        fn names_are_unique_and_safe_whatever_the_contexts_are(
            contexts in proptest::collection::vec(proptest::option::of(any::<String>()), 0..200),
            keys in proptest::collection::vec(".{0,40}", 200),
            statuses in proptest::collection::vec(proptest::option::of(any::<String>()), 0..200),
        ) {
            let items = contexts.iter().zip(&keys).enumerate();
            let mut names: Vec<String> = items
                .map(|(at, (context, key))| media(at + 1, &item(context.as_deref(), key)))
                .collect();
            names.extend(keys.iter().enumerate().map(|(at, key)| format!("conflicts/{}", conflict(at + 1, &ObjectKey::from_store(key.as_str())))));
            names.extend(statuses.iter().enumerate().map(|(at, status)| {
                attempt(at + 1, &of_status(AttemptId::parse("a").unwrap(), status.as_deref()))
            }));
            for name in &names {
                let last = name.rsplit('/').next().unwrap();
                prop_assert!(last.len() <= 64 && last.split('.').all(|part| !part.is_empty()), "{}", name);
                prop_assert!(last.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'), "{}", name);
                prop_assert!(last.as_bytes()[0].is_ascii_digit() || last.starts_with("attempt-"), "{}", name);
            }
            let unique: BTreeSet<&String> = names.iter().collect();
            prop_assert_eq!(unique.len(), names.len());
        }
    }
}
