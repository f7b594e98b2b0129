//! One media item: what lists say of it and what its body is made from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::id;
use crate::knobs::Signatures;

/// The array of a list an item stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `images`
    #[default]
    Image,
    /// `videos`
    Video,
    /// `nfcDocuments`
    Nfc,
}

/// How a list writes `size`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeForm {
    /// As a number.
    #[default]
    Number,
    /// As a string of digits.
    Text,
    /// Not at all.
    Missing,
}

/// A media item; its bytes follow from `id`, `size_bytes` and `mimetype` alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// The media id.
    pub id: String,
    /// The array it is listed in.
    pub kind: Kind,
    /// `context` and `name` in lists; left out when none.
    pub context: Option<String>,
    /// `mimetype` in lists; left out when empty.
    pub mimetype: String,
    /// Length of the body.
    pub size_bytes: u64,
    /// `size` in lists, when it differs from the length.
    pub listed_size: Option<u64>,
    /// How `size` is written.
    pub size_form: SizeForm,
    /// `duration` in lists, in seconds.
    pub duration: Option<f64>,
    /// Sends `content-length`; chunked otherwise.
    pub content_length: bool,
    /// `content-type` of the body, when it does not follow from `mimetype`.
    pub content_type: Option<String>,
    /// Signature headers of the body, when they differ from the service's.
    pub signatures: Option<Signatures>,
    /// Further fields in lists; they win over the others.
    pub extra: Map<String, Value>,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            id: id("media"),
            kind: Kind::Image,
            context: None,
            mimetype: "image/jpeg".to_owned(),
            size_bytes: 10_000,
            listed_size: None,
            size_form: SizeForm::Number,
            duration: None,
            content_length: true,
            content_type: None,
            signatures: None,
            extra: Map::new(),
        }
    }
}

impl Media {
    /// A JPEG image.
    #[must_use]
    pub fn image(id: impl Into<String>, context: &str, size_bytes: u64) -> Self {
        Self { id: id.into(), context: Some(context.to_owned()), size_bytes, ..Self::default() }
    }

    /// A `WebM` video.
    #[must_use]
    pub fn video(id: impl Into<String>, context: &str, size_bytes: u64) -> Self {
        Self {
            kind: Kind::Video,
            mimetype: "video/webm".to_owned(),
            duration: Some(7.4),
            ..Self::image(id, context, size_bytes)
        }
    }

    /// An NFC document: JSON with the chip's data groups in base64.
    #[must_use]
    pub fn nfc(id: impl Into<String>, size_bytes: u64) -> Self {
        Self { id: id.into(), kind: Kind::Nfc, mimetype: "application/json".to_owned(), size_bytes, ..Self::default() }
    }

    /// Sets the mimetype; the body begins accordingly.
    #[must_use]
    pub fn mimetype(mut self, mimetype: &str) -> Self {
        mimetype.clone_into(&mut self.mimetype);
        self
    }

    /// Sends the body chunked, without `content-length`.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.content_length = false;
        self
    }

    /// The `content-type` its body is sent with.
    #[must_use]
    pub fn content_type(&self) -> String {
        if let Some(given) = &self.content_type {
            return given.clone();
        }
        match self.mimetype.as_str() {
            full if full.contains('/') => full.to_owned(),
            "jpg" | "jpeg" | ".jpg" => "image/jpeg".to_owned(),
            "png" | ".png" => "image/png".to_owned(),
            "webm" | "mp4" => format!("video/{}", self.mimetype),
            "json" => "application/json".to_owned(),
            _ => "application/octet-stream".to_owned(),
        }
    }
}
