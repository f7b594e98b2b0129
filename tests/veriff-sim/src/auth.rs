//! Signatures: checks those of requests, makes those of answers.
//!
//! The secret is the text shown in the portal, not decoded; what is signed is the id that stands in the path, or the
//! body of an answer.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::world::Integration;

/// The text of every authentication failure; only the code tells them apart.
pub const AUTH_FAILURE_MESSAGE: &str = "the request could not be authenticated";

/// How the authentication of a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthOutcome {
    /// Key and signature are right.
    Good,
    /// No `x-auth-client` header (1801).
    KeyMissing,
    /// The key is not a UUID (1802).
    KeyNotUuid,
    /// No integration has this key (1803).
    KeyUnknown,
    /// The integration is not active (1804).
    Inactive,
    /// The signature is not 64 hex digits (1812).
    SignatureMalformed,
    /// No `x-hmac-signature` header (1815).
    SignatureMissing,
    /// The signature belongs to other bytes or another secret (1818).
    SignatureMismatch,
    /// Not checked: the simulator answered before, or the path is its own.
    Unchecked,
}

impl AuthOutcome {
    /// Gives Veriff's code of this failure.
    #[must_use]
    pub fn code(self) -> Option<&'static str> {
        match self {
            Self::Good | Self::Unchecked => None,
            Self::KeyMissing => Some("1801"),
            Self::KeyNotUuid => Some("1802"),
            Self::KeyUnknown => Some("1803"),
            Self::Inactive => Some("1804"),
            Self::SignatureMalformed => Some("1812"),
            Self::SignatureMissing => Some("1815"),
            Self::SignatureMismatch => Some("1818"),
        }
    }
}

/// Signs bytes the way Veriff does: HMAC-SHA256 under the secret's text, as lower-case hex.
#[must_use]
pub fn sign(secret: &str, bytes: &[u8]) -> String {
    let mut mac = Signer::new(secret);
    mac.update(bytes);
    mac.finish()
}

/// A signature in the making, for bodies that come in chunks.
pub(crate) struct Signer(Hmac<Sha256>);

impl Signer {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    pub(crate) fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("a key of any length"))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> String {
        hex::encode(self.0.finalize().into_bytes())
    }
}

/// The integration and the secret a request proved to know.
pub(crate) struct Caller<'w> {
    pub(crate) integration: &'w Integration,
    pub(crate) secret: &'w str,
}

/// Checks the two headers of a request against the id in its path.
pub(crate) fn check<'w>(
    integrations: &'w [Integration],
    accept_uppercase: bool,
    key: Option<&str>,
    signature: Option<&str>,
    signed: &str,
) -> Result<Caller<'w>, AuthOutcome> {
    let key = key.filter(|k| !k.is_empty()).ok_or(AuthOutcome::KeyMissing)?;
    if uuid::Uuid::try_parse(key).is_err() {
        return Err(AuthOutcome::KeyNotUuid);
    }
    let integration = integrations.iter().find(|i| i.api_key == key).ok_or(AuthOutcome::KeyUnknown)?;
    if !integration.active {
        return Err(AuthOutcome::Inactive);
    }
    let signature = signature.filter(|s| !s.is_empty()).ok_or(AuthOutcome::SignatureMissing)?;
    if signature.len() != 64 || !signature.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(AuthOutcome::SignatureMalformed);
    }
    let lowered = signature.to_ascii_lowercase();
    if lowered != signature && !accept_uppercase {
        return Err(AuthOutcome::SignatureMismatch);
    }
    let secret = integration
        .secrets
        .iter()
        .find(|s| sign(s, signed.as_bytes()) == lowered)
        .ok_or(AuthOutcome::SignatureMismatch)?;
    Ok(Caller { integration, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "11111111-2222-4333-8444-555555555555";

    #[test]
    fn the_published_vectors_come_out() {
        assert_eq!(
            sign("abcdef12-abcd-abcd-abcd-abcdef012345", b"aea9ba6d-1b47-47fc-a4fc-f72b6d3584a7"),
            "895cb3fd31139d89aeb7b263682e15479ab57651e70591256ad2c14fde4950dd"
        );
        for (bytes, hex) in [
            (
                &b"0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"[..],
                "73020a04746e0a138b6aecd993c501057ca7f4923a903f6eea6738142ef114ed",
            ),
            (
                b"0A1B2C3D-4E5F-4A6B-8C7D-9E0F1A2B3C4D",
                "de1154f1341082c9d9d30df88e49ff862dbd388e1abac8ce80aca86e79726bcb",
            ),
            (
                br#"{"status":"success","images":[],"videos":[]}"#,
                "8974eba5d667715811ae12596afa2ca95211b45f0286bb77aa81a4fed3be4495",
            ),
            (
                // As OpenSSL computes it.
                &[0x00, 0xff, 0x10, 0x80],
                "95841d07897527426c8c85065e7bd0a84acb7500dc13db81564b87e0418bb443",
            ),
            (b"", "91ec30ecf43bc3102a3b0be789363cdaf987fe11a4d49bfeff16d3894439a30a"),
        ] {
            assert_eq!(sign(SECRET, bytes), hex);
        }
    }

    #[test]
    fn each_way_to_fail_has_its_code() {
        let id = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
        let live = Integration::new("live");
        let idle = Integration { active: false, ..Integration::new("idle") };
        let all = [live.clone(), idle.clone()];
        let good = sign(&live.secrets[0], id.as_bytes());
        let code = |key: Option<&str>, sig: Option<&str>| {
            check(&all, true, key, sig, id).map_or_else(AuthOutcome::code, |_| None).unwrap_or("ok")
        };
        assert_eq!(code(None, Some(&good)), "1801");
        assert_eq!(code(Some("me"), Some(&good)), "1802");
        assert_eq!(code(Some(id), Some(&good)), "1803");
        assert_eq!(code(Some(&idle.api_key), Some(&good)), "1804");
        assert_eq!(code(Some(&live.api_key), Some("abc")), "1812");
        assert_eq!(code(Some(&live.api_key), None), "1815");
        assert_eq!(code(Some(&live.api_key), Some(&"0".repeat(64))), "1818");
        assert_eq!(code(Some(&live.api_key), Some(&good)), "ok");
        let upper = good.to_ascii_uppercase();
        assert_eq!(code(Some(&live.api_key), Some(&upper)), "ok");
        assert!(check(&all, false, Some(&live.api_key), Some(&upper), id).is_err());
    }
}
