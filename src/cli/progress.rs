//! Progress: how far a run has come, for whoever watches it.
//!
//! A bar on a terminal, one JSON line a minute elsewhere, both on standard error and both made of numbers only.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::metrics::{Board, Meter};
use crate::run::summary::days_until;

/// How often the bar is drawn.
const BAR_INTERVAL: Duration = Duration::from_millis(500);

/// How often a line is written.
const LINE_INTERVAL: Duration = Duration::from_mins(1);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressArg {
    /// A bar on a terminal, else log lines
    Auto,
    /// A bar
    Bar,
    /// One JSON line a minute
    Log,
    /// Not at all
    None,
}

/// What progress is read from.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) meter: Arc<Meter>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Arc<dyn Clock>,
    /// The argument of `--sessions`; the lines of a plain file are counted, for an estimate of the end.
    pub(super) source: Option<String>,
}

/// Progress being shown.
#[derive(Debug)]
pub(super) struct Progress {
    done: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Moment {
    at: Timestamp,
    sessions: u64,
    sessions_total: Option<u64>,
    sessions_in_flight: u32,
    failed: u64,
    deferred: u64,
    media: u64,
    bytes_received: u64,
    bytes_per_second: u64,
    requests: u64,
    requests_per_second: f64,
    throttled: u64,
    eta_seconds: Option<u64>,
    nearest_deadline_days: Option<i64>,
}

/// Starts showing progress.
pub(super) fn show(how: ProgressArg, shown: Shown) -> Progress {
    let done = CancellationToken::new();
    let is_terminal = io::stderr().is_terminal();
    let task = match how {
        ProgressArg::None => None,
        ProgressArg::Bar => Some(tokio::spawn(bar(shown, done.clone()))),
        ProgressArg::Auto if is_terminal => Some(tokio::spawn(bar(shown, done.clone()))),
        ProgressArg::Auto | ProgressArg::Log => Some(tokio::spawn(lines(shown, done.clone()))),
    };
    Progress { done, task }
}

impl Progress {
    /// Stops showing and clears what was drawn.
    pub(super) async fn finish(self) {
        self.done.cancel();
        if let Some(task) = self.task
            && let Err(error) = task.await
        {
            tracing::debug!("the progress display failed: {error}");
        }
    }
}

async fn bar(shown: Shown, done: CancellationToken) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let counting = tokio::task::spawn_blocking({
        let source = shown.source.clone();
        move || count_lines(source.as_deref()?)
    });
    let total = counting.await.ok().flatten();
    if let Some(total) = total {
        bar.set_length(total);
        bar.set_style(style("{bar:30} {pos}/{len} {wide_msg}"));
    } else {
        bar.set_style(style("{spinner} {pos} {wide_msg}"));
    }
    let mut watch = Watch::of(shown, total);
    while !ended(&done, BAR_INTERVAL).await {
        let moment = watch.look();
        bar.set_position(moment.sessions);
        bar.set_message(describe(&moment));
    }
    bar.finish_and_clear();
}

async fn lines(shown: Shown, done: CancellationToken) {
    let mut watch = Watch::of(shown, None);
    while !ended(&done, LINE_INTERVAL).await {
        #[derive(Serialize)]
        struct Line {
            progress: Moment,
        }
        if let Ok(line) = serde_json::to_string(&Line { progress: watch.look() }) {
            // Whoever read standard error may be gone; the run goes on without a watcher.
            writeln!(io::stderr(), "{line}").ok();
        }
    }
}

/// Waits; true once the run is over.
async fn ended(done: &CancellationToken, wait: Duration) -> bool {
    tokio::time::timeout(wait, done.cancelled()).await.is_ok()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn describe(moment: &Moment) -> String {
    let rates = format!(
        "{} media, {}/s, {:.1} requests/s, {} × 429, {} failed",
        moment.media,
        BinaryBytes(moment.bytes_per_second),
        moment.requests_per_second,
        moment.throttled,
        moment.failed
    );
    let left = moment
        .eta_seconds
        .map(|seconds| format!(", {}:{:02}:{:02} left", seconds / 3600, seconds / 60 % 60, seconds % 60));
    let deadline = moment.nearest_deadline_days.map(|days| format!(", nearest deadline in {days} d"));
    [Some(rates), left, deadline].into_iter().flatten().collect()
}

/// Remembers the last look, for rates.
struct Watch {
    shown: Shown,
    total: Option<u64>,
    last: (Duration, u64, u64),
}

impl Watch {
    fn of(shown: Shown, total: Option<u64>) -> Self {
        Self { shown, total, last: (Duration::ZERO, 0, 0) }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates for people"
    )]
    fn look(&mut self) -> Moment {
        let Shown { meter, board, clock, .. } = &self.shown;
        let elapsed = meter.elapsed(clock.instant());
        let (bytes, requests) = (meter.bytes_received.get(), meter.requests.get());
        let seconds = elapsed.saturating_sub(self.last.0).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        let (bytes_per_second, requests_per_second) = (rate(bytes, self.last.1), rate(requests, self.last.2));
        self.last = (elapsed, bytes, requests);
        let sessions = board.sessions.get();
        let eta_seconds = self
            .total
            .filter(|total| sessions > 0 && *total >= sessions)
            .map(|total| (elapsed.as_secs_f64() / sessions as f64 * (total - sessions) as f64) as u64);
        let now = clock.now();
        Moment {
            at: now,
            sessions,
            sessions_total: self.total,
            sessions_in_flight: board.in_flight.load(Ordering::Relaxed),
            failed: board.failed.get(),
            deferred: board.deferred.get(),
            media: board.media.get(),
            bytes_received: bytes,
            bytes_per_second: bytes_per_second as u64,
            requests,
            requests_per_second,
            throttled: meter.throttled.get(),
            eta_seconds,
            nearest_deadline_days: board
                .nearest_deadline()
                .map(|deadline| days_until(Timestamp::from_unix_seconds(deadline), now)),
        }
    }
}

/// Counts the lines of a plain file; nothing for standard input and objects.
fn count_lines(source: &str) -> Option<u64> {
    if source == "-" || source.starts_with("s3://") {
        return None;
    }
    let mut file = io::BufReader::with_capacity(1 << 20, std::fs::File::open(source).ok().filter(is_regular)?);
    let mut lines = 0u64;
    loop {
        let buffer = file.fill_buf().ok()?;
        if buffer.is_empty() {
            return Some(lines);
        }
        lines += buffer.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        let length = buffer.len();
        file.consume(length);
    }
}

fn is_regular(file: &std::fs::File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}
