//! Knobs: how the simulated service as a whole behaves, where Veriff's own behaviour is unknown or varies.

use serde::{Deserialize, Serialize};

/// Which signature headers an answer carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signatures {
    /// The `x-` and the `vrf-` pair, and the integration id.
    #[default]
    All,
    /// Only the `x-` pair.
    XOnly,
    /// Only the `vrf-` pair and the integration id.
    VrfOnly,
    /// No signature headers.
    None,
    /// All headers, with a signature that does not match the body.
    Corrupt,
}

/// When JSON answers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gzip {
    /// Never.
    #[default]
    Never,
    /// When the request's `accept-encoding` names gzip.
    WhenAsked,
    /// Always, asked or not.
    Always,
}

/// The form of a `retry-after` header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds(u64),
    /// An HTTP date that many seconds from now.
    Date(i64),
    /// Any text.
    Text(String),
}

/// A token bucket over all requests of the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Requests a second that are let through.
    pub per_second: f64,
    /// Requests let through at once after a rest.
    #[serde(default = "one")]
    pub burst: u32,
    /// The header of the refusals.
    #[serde(default)]
    pub retry_after: Option<RetryAfter>,
}

fn one() -> u32 {
    1
}

/// The behaviour of the whole service; see each field's default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each named")]
pub struct Knobs {
    /// Wait before every answer, in milliseconds (0).
    pub latency_ms: u64,
    /// Refuses requests above a rate with 429 (none).
    pub rate_limit: Option<RateLimit>,
    /// Signature headers of answers (all).
    pub signatures: Signatures,
    /// Signs error answers too (no).
    pub sign_errors: bool,
    /// Gives the arrays of every list in another order on each call (no).
    pub shuffle: bool,
    /// Lists NFC documents in attempt lists, not only in the session's own (yes).
    pub nfc_per_attempt: bool,
    /// Drops videos of test integrations (yes).
    pub test_drops_videos: bool,
    /// Accepts signatures in upper-case hex (yes).
    pub accept_uppercase_hex: bool,
    /// Answers 400 with code 1002 when an id is not a UUID (yes; otherwise it is merely unknown).
    pub check_uuid: bool,
    /// Status for what another integration owns (404).
    pub foreign_status: u16,
    /// Status for what was deleted or archived (404).
    pub gone_status: u16,
    /// Compression of JSON answers (never).
    pub gzip: Gzip,
    /// Start of the `url` of list items, instead of the simulator's own address (none).
    pub url_base: Option<String>,
    /// Deletions allowed in an hour and in a day (5 and 10).
    pub delete_limits: (u32, u32),
    /// Keeps a record of every request, not only counts (yes).
    pub keep_requests: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            rate_limit: None,
            signatures: Signatures::All,
            sign_errors: false,
            shuffle: false,
            nfc_per_attempt: true,
            test_drops_videos: true,
            accept_uppercase_hex: true,
            check_uuid: true,
            foreign_status: 404,
            gone_status: 404,
            gzip: Gzip::Never,
            url_base: None,
            delete_limits: (5, 10),
            keep_requests: true,
        }
    }
}
