//! A bare HTTP/1.1 client: one request a connection, everything read until the end, however it ends.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use veriff_sim::{Simulator, sign};

pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    CutShort,
    Reset,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }

    /// Tells whether both pairs of headers carry the signature of the body.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let signature = sign(secret, &self.body);
        ["x-hmac-signature", "vrf-hmac-signature"].iter().all(|n| self.header(n) == Some(&signature))
    }
}

/// Asks with a correct signature under the first secret of the first integration.
pub(crate) async fn get(sim: &Simulator, path: &str, id: &str) -> io::Result<Reply> {
    let (key, secret) = (sim.api_key(), sim.secret());
    let signature = sign(&secret, id.as_bytes());
    let headers = [("x-auth-client", key.as_str()), ("x-hmac-signature", &signature)];
    send(sim, "GET", &path.replace("{id}", id), &headers, "").await
}

pub(crate) async fn media(sim: &Simulator, id: &str) -> io::Result<Reply> {
    get(sim, "/v1/media/{id}", id).await
}

pub(crate) async fn send(
    sim: &Simulator,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(sim.address()).await?;
    let lines: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n{}content-length: {}\r\n\r\n{body}",
        lines.concat(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut all = Vec::new();
    let ended = stream.read_to_end(&mut all).await;
    read_reply(&all, ended.is_err())
}

fn read_reply(all: &[u8], reset: bool) -> io::Result<Reply> {
    let nothing = || io::Error::new(io::ErrorKind::UnexpectedEof, "no head");
    let at = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(nothing)?;
    let head = String::from_utf8_lossy(&all[..at]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let headers =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    let mut reply = Reply { status: status.unwrap_or(0), headers, body: all[at + 4..].to_vec(), end: End::Whole };
    let whole = match reply.header("content-length") {
        Some(stated) => stated == reply.body.len().to_string(),
        None => reply.unchunk(),
    };
    reply.end = match (whole, reset) {
        (_, true) => End::Reset,
        (true, false) => End::Whole,
        (false, false) => End::CutShort,
    };
    Ok(reply)
}

impl Reply {
    /// Undoes the chunks; tells whether the last one came.
    fn unchunk(&mut self) -> bool {
        let mut rest = self.body.as_slice();
        let mut body = Vec::new();
        let whole = loop {
            let Some(at) = rest.windows(2).position(|w| w == b"\r\n") else {
                break false;
            };
            let text = String::from_utf8_lossy(&rest[..at]);
            let Ok(len) = usize::from_str_radix(&text, 16) else {
                break false;
            };
            let chunk = &rest[at + 2..];
            if len == 0 {
                break true;
            }
            body.extend_from_slice(&chunk[..len.min(chunk.len())]);
            if chunk.len() < len + 2 {
                break false;
            }
            rest = &chunk[len + 2..];
        };
        self.body = body;
        whole
    }
}
