//! Signatures: Ed25519 (RFC 8032) over the exact bytes of a document, kept beside it in base64.
//!
//! Keys are PEM as `openssl` reads and writes it: PKCS #8 for the private one, `SubjectPublicKeyInfo` for the public
//! one (RFC 8410). Nothing here knows where a key is kept.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes,
};
use ed25519_dalek::{Signature, Signer as _};
use secrecy::SecretString;

use super::digest::Sha256Digest;
use crate::chance;

/// A key that signs. Prints only which one it is.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// A key that checks.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

/// Why a text is not a key. It does not repeat any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a private key.
    #[error(
        "not an Ed25519 private key in PKCS #8 PEM (-----BEGIN PRIVATE KEY-----); `veriff-archive keygen` makes one"
    )]
    Private,
    /// Not a public key.
    #[error("not an Ed25519 public key in PEM (-----BEGIN PUBLIC KEY-----)")]
    Public,
}

impl SigningKey {
    /// Makes a new key from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&chance::secret()))
    }

    /// Reads a private key.
    ///
    /// # Errors
    /// Fatal (configuration): the text is not one.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem.trim()).map(Self).map_err(|_| KeyError::Private)
    }

    /// Writes the private key, in the first version of PKCS #8: the second, which has the public key in it too, is not read
    /// by openssl 3.0.
    ///
    /// # Errors
    /// Never in practice: the encoding of 32 bytes cannot fail.
    pub fn to_pem(&self) -> Result<SecretString, KeyError> {
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let pem = pair.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::Private)?;
        Ok(SecretString::from(pem.as_str().to_owned()))
    }

    /// Returns the key that checks what this one signs.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs bytes; the same bytes always give the same text.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> String {
        BASE64.encode(self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public().id().short(8)).finish()
    }
}

impl PublicKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// Fatal (configuration): the text is not one.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        ed25519_dalek::VerifyingKey::from_public_key_pem(pem.trim()).map(Self).map_err(|_| KeyError::Public)
    }

    /// Writes the key.
    ///
    /// # Errors
    /// Never in practice: the encoding of 32 bytes cannot fail.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|_| KeyError::Public)
    }

    /// Returns what run records call the key: the SHA-256 of its DER form, as
    /// `openssl pkey -pubin -outform DER | sha256sum` gives it.
    #[must_use]
    pub fn id(&self) -> Sha256Digest {
        // RFC 8410: the DER form of every Ed25519 key is these twelve bytes and the key.
        const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        Sha256Digest::of(&[PREFIX.as_slice(), self.0.as_bytes()].concat())
    }

    /// Returns whether a signature in base64, white space around it aside, is this key's over exactly these bytes.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &str) -> bool {
        let signature = BASE64.decode(signature.trim()).ok().and_then(|raw| Signature::from_slice(&raw).ok());
        // Strict: refuses keys and signatures that could fit several messages.
        signature.is_some_and(|signature| self.0.verify_strict(bytes, &signature).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.id().short(8)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    /// RFC 8032, section 7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    #[test]
    fn the_vector_of_the_rfc_is_signed_and_verified() {
        let seed: [u8; 32] = hex::decode(SEED).unwrap().try_into().unwrap();
        let key = SigningKey(ed25519_dalek::SigningKey::from_bytes(&seed));
        let signature = key.sign(&[0x72]);
        assert_eq!(signature, BASE64.encode(hex::decode(SIGNATURE).unwrap()));
        assert!(key.public().verifies(&[0x72], &format!("{signature}\n")));
        assert!(!key.public().verifies(&[0x73], &signature));
        assert!(!key.public().verifies(&[0x72], &signature[1..]));
        assert!(!SigningKey::generate().public().verifies(&[0x72], &signature));
    }

    #[test]
    fn keys_read_back_and_print_nothing_of_themselves() {
        let key = SigningKey::generate();
        let pem = key.to_pem().unwrap();
        assert!(pem.expose_secret().starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(SigningKey::from_pem(pem.expose_secret()).unwrap().public(), key.public());
        let public = key.public();
        assert_eq!(PublicKey::from_pem(&public.to_pem().unwrap()).unwrap(), public);
        assert!(!format!("{key:?}").contains(&hex::encode(key.0.as_bytes())));
        for text in ["", "hunter2", &public.to_pem().unwrap()] {
            let error = SigningKey::from_pem(text).unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }
}
