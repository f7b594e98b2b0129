//! Settings of the store, already checked.

use std::path::PathBuf;
use std::str::FromStr;

/// Where the archive is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// An S3 bucket.
    S3(S3Settings),
    /// A directory.
    Dir(PathBuf),
}

/// A bucket and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The address of an S3-compatible store.
    pub endpoint_url: Option<String>,
    /// The region, where the environment does not tell it.
    pub region: Option<String>,
    /// The bucket goes into the path instead of the host name.
    pub force_path_style: bool,
    /// The account that must own the bucket.
    pub expected_bucket_owner: Option<String>,
    /// How objects are encrypted.
    pub sse: Sse,
    /// The key, with [`Sse::AwsKms`].
    pub kms_key_id: Option<String>,
    /// The storage class of media.
    pub storage_class: String,
}

/// How objects are encrypted by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub enum Sse {
    /// As the bucket's default says.
    #[default]
    #[serde(rename = "bucket-default")]
    BucketDefault,
    /// With keys of S3 itself.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of the key service.
    #[serde(rename = "aws:kms")]
    AwsKms,
}

/// The address of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with, without slashes at its ends; may be empty.
        prefix: String,
    },
    /// `file:///directory`.
    Dir(PathBuf),
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "a store is s3://bucket/prefix or file:///directory";
        if let Some(path) = text.strip_prefix("file://") {
            return match path {
                _ if !path.starts_with('/') => Err(format!("{FORMS}; the directory begins with a slash")),
                "/" => Err(format!("{FORMS}; the root directory is none")),
                _ => Ok(Self::Dir(PathBuf::from(path))),
            };
        }
        let rest = text.strip_prefix("s3://").ok_or_else(|| FORMS.to_owned())?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['?', '#', '@', ':']) {
            return Err(format!("{FORMS}; this has no bucket name"));
        }
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        })
    }
}
