//! The way out: bodies as frames, with the accidents that befall them, and the connection they travel on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::body::Chunks;
use crate::faults::Effect;
use crate::record::InFlight;

/// What becomes of one body; positions are clamped to its length.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accidents {
    truncate_at: Option<u64>,
    reset_at: Option<u64>,
    stall: Option<(u64, Duration)>,
    slow: Option<(u64, Duration)>,
    flip_at: Option<u64>,
}

impl Accidents {
    pub(crate) fn new(twists: &[Effect], len: u64) -> Self {
        let within = |after: u64| if after < len { after } else { len / 2 };
        let mut all = Self::default();
        for twist in twists {
            match *twist {
                Effect::Truncate { after } => all.truncate_at = Some(within(after)),
                Effect::Reset { after } => all.reset_at = Some(within(after)),
                Effect::Stall { after, for_ms } => {
                    all.stall = Some((within(after), Duration::from_millis(for_ms)));
                }
                Effect::Slow { bytes, every_ms } => {
                    all.slow = Some((bytes.max(1), Duration::from_millis(every_ms)));
                }
                Effect::WrongBytes => all.flip_at = len.checked_sub(1),
                _ => {}
            }
        }
        all
    }

    /// Tells whether the body breaks off.
    pub(crate) fn break_off(&self) -> bool {
        self.truncate_at.is_some() || self.reset_at.is_some()
    }
}

/// Where the bytes come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A body held in memory.
    Held(Bytes),
    /// A body made on the way.
    Made(Chunks),
}

impl Source {
    fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Held(bytes) => Some(std::mem::take(bytes)).filter(|b| !b.is_empty()),
            Self::Made(chunks) => chunks.next(),
        }
    }
}

/// A body on its way to the client.
///
/// It never states its length; the head does, or leaves it out.
#[derive(Debug)]
pub(crate) struct SimBody {
    source: Source,
    chunk: Bytes,
    sent: u64,
    accidents: Accidents,
    piece_left: u64,
    sleep: Option<Pin<Box<Sleep>>>,
    flushed: bool,
    line: Arc<Line>,
    in_flight: Option<InFlight>,
}

impl SimBody {
    pub(crate) fn new(source: Source, line: &Arc<Line>) -> Self {
        Self {
            source,
            chunk: Bytes::new(),
            sent: 0,
            accidents: Accidents::default(),
            piece_left: u64::MAX,
            sleep: None,
            flushed: false,
            line: Arc::clone(line),
            in_flight: None,
        }
    }

    pub(crate) fn with(mut self, accidents: Accidents, in_flight: InFlight) -> Self {
        self.piece_left = accidents.slow.map_or(u64::MAX, |(bytes, _)| bytes);
        self.accidents = accidents;
        self.in_flight = Some(in_flight);
        self
    }

    /// Ends the body early; what was sent before is flushed first.
    fn break_off(&mut self, cx: &Context<'_>, reset: bool) -> Poll<io::Error> {
        if !self.flushed {
            self.flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.line.reset.store(reset, Ordering::Relaxed);
        Poll::Ready(io::Error::other("a fault breaks the body off"))
    }

    /// Bytes that may go before the next accident.
    fn room(&self) -> u64 {
        let accidents = &self.accidents;
        let stall = accidents.stall.map(|(at, _)| at);
        [accidents.truncate_at, accidents.reset_at, stall]
            .into_iter()
            .flatten()
            .map(|at| at - self.sent)
            .fold(self.piece_left, u64::min)
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.chunk.is_empty() {
            self.chunk = self.source.next()?;
        }
        let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
        let mut piece = self.chunk.split_to(room.min(self.chunk.len()));
        let len = piece.len() as u64;
        if let Some(at) = self.accidents.flip_at
            && (self.sent..self.sent + len).contains(&at)
        {
            let mut altered = piece.to_vec();
            altered[usize::try_from(at - self.sent).unwrap_or(0)] ^= 1;
            piece = Bytes::from(altered);
        }
        self.sent += len;
        if self.accidents.slow.is_some() {
            self.piece_left -= len;
        }
        Some(piece)
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let body = &mut *self;
        loop {
            if let Some(sleep) = &mut body.sleep {
                ready!(sleep.as_mut().poll(cx));
                body.sleep = None;
            }
            if body.accidents.reset_at == Some(body.sent) {
                return body.break_off(cx, true).map(|e| Some(Err(e)));
            }
            if body.accidents.truncate_at == Some(body.sent) {
                return body.break_off(cx, false).map(|e| Some(Err(e)));
            }
            match body.accidents.stall {
                Some((at, pause)) if at == body.sent => {
                    body.accidents.stall = None;
                    body.sleep = Some(Box::pin(tokio::time::sleep(pause)));
                    continue;
                }
                _ => {}
            }
            match body.accidents.slow {
                Some((bytes, pause)) if body.piece_left == 0 => {
                    body.piece_left = bytes;
                    body.sleep = Some(Box::pin(tokio::time::sleep(pause)));
                    continue;
                }
                _ => {}
            }
            let piece = body.take();
            if let (Some(piece), Some(in_flight)) = (&piece, &body.in_flight) {
                in_flight.record().sent(piece.len() as u64);
            }
            return Poll::Ready(piece.map(|p| Ok(Frame::data(p))));
        }
    }
}

/// What a body can ask of its connection.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Close with a reset instead of an orderly end.
    reset: AtomicBool,
}

/// A connection that can end in a reset.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    line: Arc<Line>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> (Self, Arc<Line>) {
        let line = Arc::new(Line::default());
        let connection = Self { stream, line: Arc::clone(&line) };
        (connection, line)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.line.reset.load(Ordering::Relaxed) {
            // Without lingering, closing sends RST. Should it fail, the client still sees the body end early.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
