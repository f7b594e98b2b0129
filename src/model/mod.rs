//! Model: the words of the program, without any I/O.
//!
//! Ids parse once at the edge; inside, an invalid id cannot exist. Key layout, digests, retention and the documents
//! that are in the store have a file each. Nothing here knows where bytes come from or go to.

pub mod digest;
pub mod event;
pub mod key;
pub mod manifest;
pub mod merkle;
pub mod request;
pub mod retention;
pub mod run;
pub mod sidecar;
pub mod signature;
pub mod units;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::chance;
use crate::clock::Timestamp;

/// The longest id that is accepted, in characters.
pub const MAX_ID_LENGTH: usize = 128;

/// Names of the key layout that no attempt may carry.
pub const RESERVED_ATTEMPT_IDS: [&str; 3] = ["manifest", "session", "expired"];

/// Statuses after which nothing more happens to a session.
const FINAL_STATUSES: [&str; 4] = ["approved", "declined", "expired", "abandoned"];

/// Returns whether a status is one after which nothing more happens to a session.
#[must_use]
pub fn is_final_status(status: &str) -> bool {
    FINAL_STATUSES.contains(&status)
}

/// Statuses with which a session was decided on its media.
const DECIDED_STATUSES: [&str; 2] = ["approved", "declined"];

/// Returns whether a status is one with which a session was decided on its media.
#[must_use]
pub fn is_decided_status(status: &str) -> bool {
    DECIDED_STATUSES.contains(&status)
}

/// Why a text is not an id. It does not repeat the text, which may be anything a person typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No characters at all.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// More than [`MAX_ID_LENGTH`] characters.
    #[error("the {0} is longer than 128 characters")]
    TooLong(&'static str),
    /// A character that could change a path, a URL or a key.
    #[error("the {0} has a character outside A-Z a-z 0-9 _ -")]
    Character(&'static str),
    /// A name that the key layout uses itself.
    #[error("the {0} is a reserved name")]
    Reserved(&'static str),
}

fn check_id(text: &str, what: &'static str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty(what));
    }
    if text.len() > MAX_ID_LENGTH {
        return Err(IdError::TooLong(what));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(IdError::Character(what));
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Parses an id: 1 to 128 characters of `A-Z a-z 0-9 _ -`.
            ///
            /// # Errors
            /// Permanent: the text is not such an id; the error does not repeat it.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check_id(text, $what)?;
                ($check)(text)?;
                Ok(Self(text.to_owned()))
            }

            /// Returns the id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                if text == "session" && stringify!($name) == "AttemptId" {
                    return Ok(Self(text.into_owned()));
                }
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$" })
            }
        }
    };
}

id!(
    /// The id of one verification session at Veriff.
    SessionId, "session id", |_: &str| Ok::<(), IdError>(())
);
id!(
    /// The id of one attempt of the person inside a session.
    AttemptId, "attempt id", |text: &str| {
        if RESERVED_ATTEMPT_IDS.contains(&text) { Err(IdError::Reserved("attempt id")) } else { Ok(()) }
    }
);
id!(
    /// The id of one media item.
    MediaId, "media id", |_: &str| Ok::<(), IdError>(())
);
id!(
    /// The id of one run of this program, a UUID v7: it sorts by time.
    RunId, "run id", |_: &str| Ok::<(), IdError>(())
);
id!(
    /// The id of an event, a UUID v7: it sorts by time.
    EventId, "event id", |_: &str| Ok::<(), IdError>(())
);
id!(
    /// The id of an archive, made once and written into `archive.json`.
    ArchiveId, "archive id", |_: &str| Ok::<(), IdError>(())
);

impl AttemptId {
    /// Returns the entry that represents the session's own list.
    #[must_use]
    pub fn session() -> Self {
        Self("session".to_owned())
    }

    /// Returns whether this is the entry of the session's own list.
    #[must_use]
    pub fn is_session(&self) -> bool {
        self.0 == "session"
    }
}

impl RunId {
    /// Makes a new id that sorts by the given time.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(sorted_by(now).to_string())
    }
}

impl EventId {
    /// Makes a new id that sorts by the given time.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(sorted_by(now).to_string())
    }
}

/// Makes a UUID v7.
fn sorted_by(now: Timestamp) -> uuid::Uuid {
    let millis = u64::try_from(now.unix_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &chance::bytes()).into_uuid()
}

impl ArchiveId {
    /// Makes a new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(chance::uuid().to_string())
    }
}

/// What a media item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// A photo.
    Image,
    /// A video.
    Video,
    /// The data of a document's chip.
    Nfc,
    /// A JSON answer of Veriff archived as evidence of its own.
    Record,
}

impl MediaKind {
    /// Returns the text that is written in documents and rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Nfc => "nfc",
            Self::Record => "record",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_key_layout_are_no_attempt_ids() {
        for name in RESERVED_ATTEMPT_IDS {
            assert_eq!(AttemptId::parse(name), Err(IdError::Reserved("attempt id")));
            assert!(SessionId::parse(name).is_ok());
        }
    }

    #[test]
    fn errors_do_not_repeat_the_text() {
        let error = SessionId::parse("Ada Lovelace").unwrap_err().to_string();
        assert!(!error.contains("Ada"), "{error}");
    }

    proptest! {
        #[test]
        fn an_id_never_carries_a_separator(text in ".{0,200}") {
            if let Ok(id) = MediaId::parse(&text) {
                prop_assert!(!id.as_str().contains(['/', '.', '%', '?', '#', '\\', ' ']));
                prop_assert!((1..=MAX_ID_LENGTH).contains(&id.as_str().len()));
            }
        }
    }
}
