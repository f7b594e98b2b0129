//! Digests and payloads: bytes that know their SHA-256.
//!
//! A body is hashed once, while it is read. The digest then serves as the sidecar's `sha256`, as the checksum that the
//! store verifies, and as the payload hash of the signed request, so no byte is hashed a second time on its way.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The size of every part but the last of a multipart object. A constant of the format: a composite checksum can only
/// be recomputed by someone who knows it.
pub const PART_SIZE_BYTES: u64 = 8 * 1024 * 1024;

/// The longest body that is written with one PUT; longer ones are multipart. A constant of the format.
pub const SINGLE_PUT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A SHA-256 digest; prints as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// Hashes bytes that are in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hex characters.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok()?;
        Some(Self(digest))
    }

    /// Reads the base64 form that S3 uses in headers.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        Some(Self(BASE64.decode(text).ok()?.try_into().ok()?))
    }

    /// Returns the base64 form that S3 uses in headers.
    #[must_use]
    pub fn to_base64(self) -> String {
        BASE64.encode(self.0)
    }

    /// Returns the first `length` hex characters.
    #[must_use]
    pub fn short(self, length: usize) -> String {
        let mut text = self.to_string();
        text.truncate(length);
        text
    }

    /// Returns the raw 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("not a hex SHA-256 digest"))
    }
}

impl schemars::JsonSchema for Sha256Digest {
    fn schema_name() -> Cow<'static, str> {
        "Sha256Digest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "SHA-256, lower-case hex" })
    }
}

/// Computes a digest as bytes pass.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Sha256Digest {
        Sha256Digest(self.0.finalize().into())
    }
}

/// Bytes ready to be stored, in the segments they arrived in, with their digest.
#[derive(Debug, Clone)]
pub struct Payload {
    segments: Vec<Bytes>,
    size_bytes: u64,
    sha256: Sha256Digest,
}

impl Payload {
    /// Takes a document that is whole in memory and hashes it.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        let sha256 = Sha256Digest::of(&bytes);
        Self { size_bytes: bytes.len() as u64, segments: vec![Bytes::from(bytes)], sha256 }
    }

    /// Takes segments whose digest was computed as they arrived.
    #[must_use]
    pub fn hashed(segments: Vec<Bytes>, sha256: Sha256Digest) -> Self {
        let size_bytes = segments.iter().map(|segment| segment.len() as u64).sum();
        Self { segments, size_bytes, sha256 }
    }

    /// Returns the segments in order; cloning one copies no bytes.
    #[must_use]
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// Returns the length of all segments together.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the digest of all segments together.
    #[must_use]
    pub const fn sha256(&self) -> Sha256Digest {
        self.sha256
    }
}

/// How the store's checksum of an object is formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumType {
    /// SHA-256 of the whole object.
    Full,
    /// SHA-256 of the SHA-256 digests of the parts, and how many there are.
    Composite,
}

/// The checksum that the store itself verified, in the store's own text form (base64, `-N` behind a composite).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Checksum {
    /// Whether the value covers the object or the digests of its parts.
    #[serde(rename = "type")]
    pub kind: ChecksumType,
    /// The size of every part but the last; null for a full checksum.
    pub part_size_bytes: Option<u64>,
    /// Base64 as S3 shows it; a composite has `-N` behind it, N being the number of parts.
    pub value: String,
}

impl Checksum {
    /// Returns the checksum of an object written with one PUT.
    #[must_use]
    pub fn full(sha256: Sha256Digest) -> Self {
        Self { kind: ChecksumType::Full, part_size_bytes: None, value: sha256.to_base64() }
    }

    /// Returns the checksum of an object whose parts have these digests.
    #[must_use]
    pub fn composite(parts: &[Sha256Digest]) -> Self {
        let mut hasher = Hasher::default();
        for part in parts {
            hasher.update(part.as_bytes());
        }
        Self {
            kind: ChecksumType::Composite,
            part_size_bytes: Some(PART_SIZE_BYTES),
            value: format!("{}-{}", hasher.finish().to_base64(), parts.len()),
        }
    }

    /// Reads the text form of a store; a composite is taken to have our part size.
    #[must_use]
    pub fn from_store(value: &str) -> Self {
        let composite = value.contains('-');
        Self {
            kind: if composite { ChecksumType::Composite } else { ChecksumType::Full },
            part_size_bytes: composite.then_some(PART_SIZE_BYTES),
            value: value.to_owned(),
        }
    }

    /// Returns the digest of the object, which only a full checksum contains.
    #[must_use]
    pub fn full_digest(&self) -> Option<Sha256Digest> {
        match self.kind {
            ChecksumType::Full => Sha256Digest::from_base64(&self.value),
            ChecksumType::Composite => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hashing_in_pieces_is_hashing_at_once(bytes in proptest::collection::vec(any::<u8>(), 0..4096), cut in 0usize..4096) {
            let cut = cut.min(bytes.len());
            let mut hasher = Hasher::default();
            hasher.update(&bytes[..cut]);
            hasher.update(&bytes[cut..]);
            prop_assert_eq!(hasher.finish(), Sha256Digest::of(&bytes));
        }

        #[test]
        fn text_forms_read_back(bytes in any::<[u8; 32]>()) {
            let digest = Sha256Digest(bytes);
            prop_assert_eq!(Sha256Digest::from_hex(&digest.to_string()), Some(digest));
            prop_assert_eq!(Sha256Digest::from_base64(&digest.to_base64()), Some(digest));
        }
    }

    #[test]
    fn a_composite_names_its_number_of_parts() {
        let part = Sha256Digest::of(b"part");
        let checksum = Checksum::composite(&[part, part]);
        assert!(checksum.value.ends_with("-2"));
        assert_eq!(Checksum::from_store(&checksum.value), checksum);
        assert_eq!(checksum.full_digest(), None);
        assert_eq!(Checksum::full(part).full_digest(), Some(part));
    }
}
