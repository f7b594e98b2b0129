//! Seal: by which of the given keys a document is signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::report::{ChainReport, RESTORE};
use crate::audit::reach::{Reach, Told, refused};
use crate::audit::runner::AuditError;
use crate::audit::{Finding, FindingCode, Severity};
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::signature::PublicKey;
use crate::store::{ListedVersion, StoreError};

/// How many bytes an Ed25519 signature has.
const SIGNATURE_BYTES: usize = 64;

/// How a document is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seal {
    /// By a given key.
    By(Sha256Digest),
    /// Not at all.
    None,
    /// There is a signature, and no key was given to check it with.
    Unchecked,
    /// Not as it says; that was reported.
    Broken,
}

impl Seal {
    /// Tells whether a given key signed it.
    pub(super) const fn is_good(self) -> bool {
        matches!(self, Self::By(_))
    }
}

/// What a document says of its own signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureClaim {
    /// Nothing: it is not one that does.
    Nothing,
    /// That it has none.
    Unsigned,
    /// That it is this key's.
    By(Sha256Digest),
}

/// The keys that count.
#[derive(Debug)]
pub(super) struct Seals {
    keys: Vec<PublicKey>,
}

impl Seals {
    pub(super) const fn of(keys: Vec<PublicKey>) -> Self {
        Self { keys }
    }

    /// Tells whether there is any key.
    pub(super) const fn are_checked(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Checks the signature of a document.
    ///
    /// # Errors
    /// As the store's, and as [`ChainReport::add`].
    pub(super) async fn check(
        &self,
        reach: &Reach<'_>,
        key: &ObjectKey,
        document: &[u8],
        signature: Option<&ListedVersion>,
        claim: SignatureClaim,
        report: &mut ChainReport<'_>,
    ) -> Result<Seal, AuditError> {
        let at = key.signature();
        let finding = |code, repair: &str| Finding::of(Severity::Error, code, repair).object(&at, None);
        let Some(signature) = signature else {
            let SignatureClaim::By(claimed) = claim else { return Ok(Seal::None) };
            report.add(finding(FindingCode::ObjectMissing, RESTORE).differs(signed_by(claimed), "nothing"))?;
            return Ok(Seal::Broken);
        };
        let version = signature.version_id.as_deref();
        let bytes = match reach.read(&at, version).await? {
            Told::Is(document) => document.bytes,
            Told::Gone | Told::Refused(StoreError::TooLarge { .. }) => Vec::new(),
            Told::Refused(error) => {
                let begin = |severity, code, repair: &str| Finding::of(severity, code, repair).object(&at, version);
                report.add(refused("a signature", &error, begin))?;
                return Ok(Seal::Broken);
            }
        };
        let judged = self.judge(document, &bytes, claim);
        if let Err((expected, found)) = judged {
            let repair = "restore document and signature from a copy of the bucket; find out who changed them";
            report.add(finding(FindingCode::ChainSignature, repair).object(&at, version).differs(expected, found))?;
            return Ok(Seal::Broken);
        }
        report.count("signatures", u64::from(self.are_checked()));
        Ok(judged.unwrap_or(Seal::Broken))
    }

    /// Judges a signature, or says what should be and what is.
    fn judge(&self, document: &[u8], signature: &[u8], claim: SignatureClaim) -> Result<Seal, (String, String)> {
        let Some(text) = text_of(signature) else {
            return Err(("an Ed25519 signature in base64".to_owned(), "something else".to_owned()));
        };
        if claim == SignatureClaim::Unsigned {
            return Err(("no signature, as the record names no key".to_owned(), "a signature".to_owned()));
        }
        if !self.are_checked() {
            return Ok(Seal::Unchecked);
        }
        let claimed = if let SignatureClaim::By(key_id) = claim { Some(key_id) } else { None };
        if let Some(claimed) = claimed.filter(|claimed| self.keys.iter().all(|key| key.id() != *claimed)) {
            return Err(("a signature by a given key".to_owned(), signed_by(claimed)));
        }
        let signer = self.keys.iter().find(|key| key.verifies(document, text)).map(PublicKey::id);
        match (signer, claimed) {
            (None, _) => Err((
                "a signature over these bytes by a given key".to_owned(),
                "a signature over other bytes, or by another key".to_owned(),
            )),
            (Some(signer), Some(claimed)) if signer != claimed => Err((signed_by(claimed), signed_by(signer))),
            (Some(signer), _) => Ok(Seal::By(signer)),
        }
    }
}

fn signed_by(key_id: Sha256Digest) -> String {
    format!("a signature by key {key_id}")
}

/// Reads a stored signature: the base64 of 64 bytes, one newline behind it, and not one other character. Only so can no byte
/// of it be changed unnoticed.
pub(crate) fn text_of(stored: &[u8]) -> Option<&str> {
    std::str::from_utf8(stored).ok()?.strip_suffix('\n').filter(|text| is_signature(text))
}

/// Tells whether a text has the form of a signature, without a newline.
pub(crate) fn is_signature(text: &str) -> bool {
    BASE64.decode(text).is_ok_and(|raw| raw.len() == SIGNATURE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::signature::SigningKey;

    #[test]
    fn a_stored_signature_has_one_form() {
        let text = SigningKey::generate().sign(b"bytes");
        assert_eq!(text_of(format!("{text}\n").as_bytes()), Some(text.as_str()));
        let other = ["", "\n\n", "\r\n", "\u{b}", " \n"].map(|ending| format!("{text}{ending}"));
        for other in other.into_iter().chain([format!(" {text}\n"), format!("{}\n", &text[4..])]) {
            assert_eq!(text_of(other.as_bytes()), None, "{other:?}");
        }
    }
}
