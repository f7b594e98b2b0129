//! Bodies: the bytes of a media item, made from its id, its size and its mimetype.
//!
//! A short head that fits the type, then filler in blocks of 64 KiB. Each block is a slice of one random pool, at a
//! place and under a stamp that follow from the id and the block's number: no two blocks are alike, and making one
//! costs no more than a copy, so that hundreds of megabytes stream from constant memory.

use std::sync::LazyLock;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::auth::Signer;
use crate::ids::{Rng, hash, mix};
use crate::media::{Kind, Media};

/// The most bytes a chunk has.
pub(crate) const BLOCK: usize = 64 * 1024;
const POOL: usize = 4 * BLOCK;
/// Bytes at the start of each block that no other block has.
const STAMP: usize = 24;

static BINARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng::new(0x5eed);
    (0..POOL / 8).flat_map(|_| rng.next().to_le_bytes()).collect()
});
static BASE64: LazyLock<Vec<u8>> = LazyLock::new(|| BINARY.iter().map(|b| letter(*b)).collect());

fn letter(byte: u8) -> u8 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    ALPHABET[usize::from(byte & 63)]
}

/// Gives the whole body of a media item.
#[must_use]
pub fn media_bytes(item: &Media) -> Vec<u8> {
    let mut all = Vec::with_capacity(usize::try_from(item.size_bytes).unwrap_or(0));
    for chunk in Chunks::new(item) {
        all.extend_from_slice(&chunk);
    }
    all
}

/// Gives the SHA-256 of the body of a media item as lower-case hex, without holding the body.
#[must_use]
pub fn media_sha256(item: &Media) -> String {
    let mut digest = Sha256::new();
    for chunk in Chunks::new(item) {
        digest.update(&chunk);
    }
    hex::encode(digest.finalize())
}

/// Signs the body of a media item, without holding it.
pub(crate) fn media_signature(item: &Media, secret: &str) -> String {
    let mut signer = Signer::new(secret);
    for chunk in Chunks::new(item) {
        signer.update(&chunk);
    }
    signer.finish()
}

/// The body of a media item in order, in chunks of at most 64 KiB.
#[derive(Debug)]
pub(crate) struct Chunks {
    head: Bytes,
    tail: Bytes,
    filler: u64,
    seed: u64,
    block: u64,
    text: bool,
}

impl Chunks {
    pub(crate) fn new(item: &Media) -> Self {
        let (head, tail) = frame(item);
        let head = head.slice(..head.len().min(to_usize(item.size_bytes)));
        let tail_room = item.size_bytes - head.len() as u64;
        let tail = tail.slice(..tail.len().min(to_usize(tail_room)));
        Self {
            filler: tail_room - tail.len() as u64,
            seed: hash(item.id.as_bytes()),
            text: item.kind == Kind::Nfc,
            head,
            tail,
            block: 0,
        }
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head));
        }
        if self.filler > 0 {
            let len = BLOCK.min(to_usize(self.filler));
            self.filler -= len as u64;
            self.block += 1;
            return Some(block(self.seed, self.block, len, self.text));
        }
        Some(std::mem::take(&mut self.tail)).filter(|t| !t.is_empty())
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn block(seed: u64, number: u64, len: usize, text: bool) -> Bytes {
    let at = mix(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let start = to_usize(at) % (POOL - BLOCK);
    let pool = if text { &BASE64 } else { &BINARY };
    let mut bytes = pool[start..start + len].to_vec();
    let mut rng = Rng::new(at);
    for part in bytes[..len.min(STAMP)].chunks_mut(8) {
        let random = rng.next().to_le_bytes();
        for (b, r) in part.iter_mut().zip(random) {
            *b = if text { letter(r) } else { r };
        }
    }
    Bytes::from(bytes)
}

/// Gives what a body begins and ends with.
fn frame(item: &Media) -> (Bytes, Bytes) {
    if item.kind == Kind::Nfc {
        return nfc_frame(item.size_bytes);
    }
    let kind = item.mimetype.rsplit(['/', '.']).next().unwrap_or("");
    let head: &[u8] = match kind {
        "jpeg" | "jpg" => &[0xff, 0xd8, 0xff, 0xe0],
        "png" => b"\x89PNG\r\n\x1a\n",
        "heic" | "heif" => b"\x00\x00\x00\x18ftypheic",
        "pdf" => b"%PDF-1.7\n",
        "webm" => &[0x1a, 0x45, 0xdf, 0xa3],
        "mp4" => b"\x00\x00\x00\x18ftypisom",
        "webp" => {
            let riff = u32::try_from(item.size_bytes.saturating_sub(8)).unwrap_or(u32::MAX);
            let head = [&b"RIFF"[..], &riff.to_le_bytes(), b"WEBP"].concat();
            return (Bytes::from(head), Bytes::new());
        }
        _ => &[],
    };
    (Bytes::copy_from_slice(head), Bytes::new())
}

/// Gives the JSON around the filler of an NFC document; any length comes out as valid JSON, except none at all.
fn nfc_frame(size: u64) -> (Bytes, Bytes) {
    const HEAD: &[u8] = br#"{"com":"YBhfAQQwMTA3XzYGMDQwMDAwXAJhdQ==","sod":"d4IBAA==","dg1":"YVtfH1g=","dg2":""#;
    const TAIL: &[u8] = b"\"}";
    let frame = (HEAD.len() + TAIL.len()) as u64;
    match size {
        0 => (Bytes::new(), Bytes::new()),
        1 => (Bytes::from_static(b"0"), Bytes::new()),
        _ if size < frame => {
            let blank = vec![b' '; to_usize(size) - 2];
            let head = [&b"{"[..], &blank, b"}"].concat();
            (Bytes::from(head), Bytes::new())
        }
        _ => {
            // Base64 comes in fours; what is left over is blank space after the document.
            let blank = vec![b' '; to_usize((size - frame) % 4)];
            let tail = [TAIL, &blank].concat();
            (Bytes::from_static(HEAD), Bytes::from(tail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::id;

    #[test]
    fn bodies_have_the_length_asked_for_and_a_fitting_head() {
        for size in [0, 1, 3, 11, 1000, 65_536, 65_541, 300_000] {
            for (mimetype, head) in [
                ("image/jpeg", &b"\xff\xd8\xff"[..]),
                ("jpg", b"\xff\xd8\xff"),
                ("image/png", b"\x89PNG"),
                ("image/webp", b"RIFF"),
                ("image/heic", b"\0\0\0\x18ftypheic"),
                ("application/pdf", b"%PDF-"),
                ("video/webm", b"\x1a\x45\xdf\xa3"),
                ("video/mp4", b"\0\0\0\x18ftypisom"),
            ] {
                let item = Media::image(id("x"), "face", size).mimetype(mimetype);
                let bytes = media_bytes(&item);
                assert_eq!(bytes.len() as u64, size);
                let n = head.len().min(bytes.len());
                assert_eq!(bytes[..n], head[..n]);
                assert_eq!(media_sha256(&item), hex::encode(Sha256::digest(&bytes)));
            }
        }
    }

    #[test]
    fn nfc_documents_are_json_of_the_length_asked_for() -> serde_json::Result<()> {
        for size in [1, 2, 50, 90, 91, 92, 93, 94, 4000, 200_001] {
            let bytes = media_bytes(&Media::nfc(id("x"), size));
            assert_eq!(bytes.len() as u64, size);
            let document: serde_json::Value = serde_json::from_slice(&bytes)?;
            if size > 90 {
                assert_eq!(document["dg2"].as_str().map_or(1, str::len) % 4, 0);
            }
        }
        Ok(())
    }

    #[test]
    fn bodies_differ_between_items_and_between_blocks() {
        let a = media_bytes(&Media::image(id("a"), "face", 400_000));
        let b = media_bytes(&Media::image(id("b"), "face", 400_000));
        assert_ne!(a, b);
        assert_ne!(a[4..4 + BLOCK], a[4 + BLOCK..4 + 2 * BLOCK]);
        assert_eq!(a, media_bytes(&Media::image(id("a"), "face", 400_000)));
    }
}
