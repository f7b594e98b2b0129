//! Whoever changes an archive behind its back: in the files of a directory, or past S3 in what the server keeps, with the
//! checksums and locks left as they were.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::s3::{Bucket, S3Server};

/// Someone who can change everything.
#[derive(Debug)]
pub(crate) enum Tamperer {
    /// In a directory.
    Directory(PathBuf),
    /// Behind a bucket, below the prefix that deployments use.
    Bucket { volume: u16, filer: u16, bucket: String },
}

impl Tamperer {
    pub(crate) fn of_directory(store: &Path) -> Self {
        Self::Directory(store.to_owned())
    }

    pub(crate) fn of_bucket(server: &S3Server, bucket: &Bucket) -> Self {
        let (volume, filer) = server.back_doors();
        Self::Bucket { volume, filer, bucket: bucket.name.clone() }
    }

    /// Replaces the bytes of a version; nothing else of it changes.
    pub(crate) fn write(&self, key: &str, version: Option<&str>, bytes: &[u8]) {
        match self {
            Self::Directory(store) => {
                let place = store.join(key);
                // Objects are for reading only, to everyone but the one who owns the folder.
                std::fs::remove_file(&place).unwrap();
                std::fs::write(&place, bytes).unwrap();
            }
            Self::Bucket { volume, filer, .. } => {
                let entry = self.entry(key, version);
                let (status, body) = http(*filer, "GET", &format!("{entry}?metadata=true"), &[], b"");
                assert_eq!(status, 200, "{entry}");
                let entry: Value = serde_json::from_slice(&body).unwrap();
                let mut written = 0;
                for chunk in entry["chunks"].as_array().unwrap() {
                    let from = usize::try_from(chunk["offset"].as_u64().unwrap_or(0)).unwrap();
                    let size = usize::try_from(chunk["size"].as_u64().unwrap()).unwrap();
                    write_chunk(*volume, chunk["file_id"].as_str().unwrap(), &bytes[from..from + size]);
                    written += size;
                }
                assert_eq!(written, bytes.len(), "a version keeps its length");
            }
        }
    }

    /// Moves an object to another key.
    pub(crate) fn rename(&self, key: &str, version: Option<&str>, to: &str) {
        match self {
            Self::Directory(store) => {
                let to = store.join(to);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::rename(store.join(key), to).unwrap();
            }
            Self::Bucket { .. } => self.move_entry(&self.entry(key, version), &self.entry(to, version)),
        }
    }

    /// Makes an object go away, and keeps it where it can be brought back from.
    pub(crate) fn hide(&self, key: &str, version: Option<&str>) {
        match self {
            Self::Directory(store) => std::fs::rename(store.join(key), store.with_extension("hidden")).unwrap(),
            Self::Bucket { .. } => self.move_entry(&self.entry(key, version), &self.hidden()),
        }
    }

    /// Brings it back.
    pub(crate) fn bring_back(&self, key: &str, version: Option<&str>) {
        match self {
            Self::Directory(store) => std::fs::rename(store.with_extension("hidden"), store.join(key)).unwrap(),
            Self::Bucket { .. } => self.move_entry(&self.hidden(), &self.entry(key, version)),
        }
    }

    /// Gives a version another lock, or none.
    pub(crate) fn relock(&self, key: &str, version: Option<&str>, lock: Option<(&str, i64)>) {
        let Self::Bucket { filer, .. } = self else { panic!("a directory has no locks") };
        let entry = format!("{}?tagging", self.entry(key, version));
        let (status, _) = if let Some((mode, until)) = lock {
            let headers = [
                ("Seaweed-X-Amz-Object-Lock-Mode", mode.to_owned()),
                ("Seaweed-X-Amz-Retention-Until-Date", until.to_string()),
            ];
            http(*filer, "PUT", &entry, &headers, b"")
        } else {
            let names = "X-Amz-Object-Lock-Mode,X-Amz-Retention-Until-Date";
            http(*filer, "DELETE", &format!("{entry}={names}"), &[], b"")
        };
        assert_eq!(status, 202, "{entry}");
    }

    fn entry(&self, key: &str, version: Option<&str>) -> String {
        let Self::Bucket { bucket, .. } = self else { unreachable!("only a bucket has entries") };
        format!("/buckets/{bucket}/archive/{key}.versions/v_{}", version.expect("a version"))
    }

    /// Where something is put out of sight.
    fn hidden(&self) -> String {
        let Self::Bucket { bucket, .. } = self else { unreachable!("only a bucket has entries") };
        format!("/buckets/{bucket}/hidden-object")
    }

    fn move_entry(&self, from: &str, to: &str) {
        let Self::Bucket { filer, .. } = self else { unreachable!("only a bucket has entries") };
        let (status, _) = http(*filer, "POST", &format!("{to}?mv.from={from}"), &[], b"");
        assert_eq!(status, 204, "{from} to {to}");
    }
}

/// Overwrites one chunk where it lies.
fn write_chunk(volume: u16, id: &str, bytes: &[u8]) {
    const LINE: &str = "0f83f2f8a7c14f0e";
    let mut body = format!(
        "--{LINE}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{LINE}--\r\n").as_bytes());
    let headers = [("Content-Type", format!("multipart/form-data; boundary={LINE}"))];
    let (status, _) = http(volume, "POST", &format!("/{id}"), &headers, &body);
    assert!(status == 200 || status == 201 || status == 204, "{status}");
}

/// Asks a server on this machine, plainly.
fn http(port: u16, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &[*name, ": ", value.as_str(), "\r\n"].concat();
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}
