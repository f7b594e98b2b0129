//! Settings of a store: its URL and how objects are to be kept there.
//!
//! Read by the configuration, used by the stores. Nothing here connects to anything; a URL that parses may still name
//! a bucket that does not exist.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a store is: `s3://bucket/prefix` or `file:///directory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A bucket and the prefix of all keys in it.
    S3 {
        /// The name of the bucket.
        bucket: String,
        /// The prefix, without a slash at either end; empty for the whole bucket.
        prefix: String,
    },
    /// A directory.
    Dir(PathBuf),
}

/// Why a text is not the URL of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Another scheme, or none.
    #[error("a store is s3://bucket/prefix or file:///directory")]
    Scheme,
    /// No bucket, or a name that no bucket has.
    #[error("a bucket has 3 to 63 characters of a-z 0-9 . and -: s3://bucket/prefix")]
    Bucket,
    /// A prefix that would not make plain keys.
    #[error("the prefix of a store has no empty part, no . or .. and none of ? # \\ or control characters")]
    Prefix,
    /// A host, a relative path, or something behind the path.
    #[error("a directory has an absolute path and three slashes: file:///var/lib/veriff-archive/store")]
    Directory,
    /// No key behind the bucket.
    #[error("an object is s3://bucket/key")]
    Object,
}

impl StoreUrl {
    /// Tells whether such a store can lock objects at all; a directory cannot, and reports say so.
    #[must_use]
    pub const fn can_lock(&self) -> bool {
        matches!(self, Self::S3 { .. })
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            check_bucket(bucket)?;
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            check_prefix(prefix)?;
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        if text.starts_with("file:") {
            return directory_of(text).map(Self::Dir).ok_or(StoreUrlError::Directory);
        }
        Err(StoreUrlError::Scheme)
    }
}

/// Where the archive is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In a bucket.
    S3(S3Settings),
    /// In a directory.
    Dir(PathBuf),
}

impl StoreSettings {
    /// Returns the address of the store.
    #[must_use]
    pub fn url(&self) -> StoreUrl {
        match self {
            Self::S3(settings) => StoreUrl::S3 { bucket: settings.bucket.clone(), prefix: settings.prefix.clone() },
            Self::Dir(directory) => StoreUrl::Dir(directory.clone()),
        }
    }

    /// Returns the key of the key service that objects are to be encrypted with, where one is configured.
    #[must_use]
    pub fn kms_key_id(&self) -> Option<&str> {
        match self {
            Self::S3(settings) => settings.kms_key_id.as_deref(),
            Self::Dir(_) => None,
        }
    }
}

/// Splits `s3://bucket/key`, the address of one object.
///
/// # Errors
/// Fatal (configuration): the text is no such address.
pub fn parse_object_url(text: &str) -> Result<(String, String), StoreUrlError> {
    let rest = text.strip_prefix("s3://").ok_or(StoreUrlError::Object)?;
    let (bucket, key) = rest.split_once('/').ok_or(StoreUrlError::Object)?;
    check_bucket(bucket)?;
    if key.is_empty() || key.ends_with('/') {
        return Err(StoreUrlError::Object);
    }
    Ok((bucket.to_owned(), key.to_owned()))
}

fn check_bucket(bucket: &str) -> Result<(), StoreUrlError> {
    let plain = bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
    if plain && (3..=63).contains(&bucket.len()) { Ok(()) } else { Err(StoreUrlError::Bucket) }
}

fn check_prefix(prefix: &str) -> Result<(), StoreUrlError> {
    let bad_part = |part: &str| {
        part.is_empty()
            || part == "."
            || part == ".."
            || part.chars().any(|c| matches!(c, '?' | '#' | '\\') || c.is_control())
    };
    if !prefix.is_empty() && prefix.split('/').any(bad_part) {
        return Err(StoreUrlError::Prefix);
    }
    Ok(())
}

fn directory_of(text: &str) -> Option<PathBuf> {
    if !text.starts_with("file:///") {
        return None;
    }
    let url = url::Url::parse(text).ok()?;
    if url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    url.to_file_path().ok().filter(|path| path.is_absolute())
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Dir(path) => match url::Url::from_file_path(path) {
                Ok(url) => f.write_str(url.as_str()),
                Err(()) => write!(f, "file://{}", path.display()),
            },
        }
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How a bucket encrypts what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Sse {
    /// As the bucket says; nothing is asked for.
    #[default]
    #[serde(rename = "bucket-default")]
    BucketDefault,
    /// With keys of the store itself.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of the key service.
    #[serde(rename = "aws:kms")]
    AwsKms,
}

/// What is needed to use a bucket. Credentials come from the default chain of the SDK and are never here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The name of the bucket.
    pub bucket: String,
    /// The prefix of all keys, with or without a slash at its ends; empty for the whole bucket.
    pub prefix: String,
    /// The address of an S3-compatible server; nothing for AWS itself.
    pub endpoint_url: Option<String>,
    /// The region; nothing takes it from the environment, and `us-east-1` where an endpoint is given.
    pub region: Option<String>,
    /// Puts the bucket into the path instead of the host name.
    pub force_path_style: bool,
    /// The account that must own the bucket; sent with every request.
    pub expected_bucket_owner: Option<String>,
    /// How objects are encrypted.
    pub sse: Sse,
    /// The key for [`Sse::AwsKms`]; nothing takes the account's own.
    pub kms_key_id: Option<String>,
    /// The storage class of media; documents are always in the standard one.
    pub storage_class: String,
}

impl S3Settings {
    /// Makes settings for a bucket that are the defaults otherwise.
    #[must_use]
    pub fn of_bucket(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint_url: None,
            region: None,
            force_path_style: false,
            expected_bucket_owner: None,
            sse: Sse::default(),
            kms_key_id: None,
            storage_class: "STANDARD".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_reads_the_same_with_and_without_a_slash_behind_it() {
        let with: StoreUrl = "s3://evidence/eu/live/".parse().unwrap();
        let without: StoreUrl = "s3://evidence/eu/live".parse().unwrap();
        assert_eq!(with, without);
        assert_eq!(with.to_string(), "s3://evidence/eu/live");
        let bare: StoreUrl = "s3://evidence/".parse().unwrap();
        assert_eq!(bare.to_string(), "s3://evidence");
    }

    #[test]
    fn a_directory_is_absolute_and_may_hold_spaces() {
        let url: StoreUrl = "file:///srv/my archive".parse().unwrap();
        assert_eq!(url, StoreUrl::Dir(PathBuf::from("/srv/my archive")));
        assert_eq!(url.to_string().parse::<StoreUrl>(), Ok(url));
    }

    #[test]
    fn what_is_no_store_is_refused_with_the_form_it_should_have() {
        let cases = [
            ("", StoreUrlError::Scheme),
            ("/srv/archive", StoreUrlError::Scheme),
            ("https://bucket", StoreUrlError::Scheme),
            ("s3://", StoreUrlError::Bucket),
            ("s3://Bucket", StoreUrlError::Bucket),
            ("s3:///prefix", StoreUrlError::Bucket),
            ("s3://bucket//a", StoreUrlError::Prefix),
            ("s3://bucket/a/../b", StoreUrlError::Prefix),
            ("s3://bucket/a?versionId=1", StoreUrlError::Prefix),
            ("file://srv/archive", StoreUrlError::Directory),
            ("file:srv", StoreUrlError::Directory),
            ("file:///srv#a", StoreUrlError::Directory),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<StoreUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_address_of_an_object_needs_a_key() {
        assert_eq!(parse_object_url("s3://lists/2026/ids.txt"), Ok(("lists".to_owned(), "2026/ids.txt".to_owned())));
        for text in ["s3://lists", "s3://lists/", "s3://lists/2026/", "ids.txt"] {
            assert_eq!(parse_object_url(text), Err(StoreUrlError::Object), "{text}");
        }
    }
}
