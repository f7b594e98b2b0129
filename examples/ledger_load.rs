//! How quick a ledger is, measured: `cargo run --example ledger_load -- URL add|claim|commit COUNT`.
//!
//! - `add 1000000` puts sessions into the backlog, as `backlog add` does.
//! - `claim 4` lets so many workers take everything that is due, eight at a time, and end each lease; it tells how long
//!   claims took, from the first tenth of the backlog to the last.
//! - `commit 2000` commits so many new sessions with ten media items each, then each of them once more.
//!
//! The figures of `docs/ledger.md` come from here. The ledger must be there: `veriff-archive ledger migrate` makes it.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use veriff_archive::clock::{Clock, SystemClock, Timestamp};
use veriff_archive::ledger::{self, BacklogEntry, Claim, Ledger, ManifestRef, MediaRow, SessionEntry, State, Which};
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::request::SessionRequest;
use veriff_archive::model::{AttemptId, MediaId, MediaKind, RunId, SessionId};

/// How many sessions one addition has, as in `backlog add`.
const BATCH: usize = 16_384;

/// How many sessions one claim takes, as a worker does.
const CLAIM_LIMIT: u32 = 8;

/// How many media items a session has.
const ITEMS: u32 = 10;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, what, count] = words.as_slice() else {
        eprintln!("usage: ledger_load URL add|claim|commit COUNT");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(Failed::from).and_then(|runtime| runtime.block_on(load(url, what, count.parse()?)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("it failed: {error} ({:?})", error.source().map(ToString::to_string));
            ExitCode::FAILURE
        }
    }
}

async fn load(url: &str, what: &str, count: usize) -> Result<(), Failed> {
    let started = SystemClock.instant();
    match what {
        "add" => add(url, count).await?,
        "claim" => claim(url, count).await?,
        "commit" => commit(url, count).await?,
        _ => return Err("add, claim or commit".into()),
    }
    println!("all in {:.1} s", SystemClock.instant().duration_since(started).as_secs_f64());
    Ok(())
}

async fn add(url: &str, count: usize) -> Result<(), Failed> {
    let ledger = ledger::open(url).await?;
    let (run_id, now) = (RunId::new(SystemClock.now()), SystemClock.now());
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..count {
        // Ids as random as Veriff's, and deadlines in no order.
        let name = Sha256Digest::of(&number.to_be_bytes()).short(32);
        let deadline_at = now.plus(Duration::from_secs(number as u64 * 7919 % 7_776_000));
        batch.push(BacklogEntry {
            record: SessionRequest::of(SessionId::parse(&name)?),
            integration: "default".to_owned(),
            deadline_at: Some(deadline_at),
        });
        if batch.len() == BATCH || number + 1 == count {
            ledger.add(&batch, &run_id, now).await?;
            batch.clear();
        }
    }
    Ok(())
}

async fn claim(url: &str, workers: usize) -> Result<(), Failed> {
    let first = ledger::open(url).await?;
    let ready = first.overview(SystemClock.now(), Duration::ZERO).await?.backlog.ready;
    let (ready, taken) = (usize::try_from(ready)?.max(1), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        tasks.spawn(take_all(ledger::open(url).await?, Arc::clone(&taken)));
    }
    let mut tenths = vec![Vec::new(); 10];
    for times in tasks.join_all().await {
        for (at, took) in times? {
            tenths[(at * 10 / ready).min(9)].push(took);
        }
    }
    println!("{} sessions taken; claims of {CLAIM_LIMIT}:", taken.load(Ordering::Relaxed));
    for (tenth, times) in tenths.iter_mut().enumerate() {
        print!("tenth {:>2}: ", tenth + 1);
        tell(times);
    }
    Ok(())
}

async fn take_all(ledger: Arc<dyn Ledger>, taken: Arc<AtomicUsize>) -> Result<Vec<(usize, Duration)>, Failed> {
    let holder = RunId::new(SystemClock.now());
    let mut times = Vec::new();
    loop {
        let claim = Claim {
            holder: holder.clone(),
            integrations: vec!["default".to_owned()],
            now: SystemClock.now(),
            lease: Duration::from_mins(5),
            limit: CLAIM_LIMIT,
            which: Which::Due,
        };
        let started = SystemClock.instant();
        let claimed = ledger.claim(&claim).await?;
        let took = SystemClock.instant().duration_since(started);
        if claimed.is_empty() {
            return Ok(times);
        }
        times.push((taken.fetch_add(claimed.len(), Ordering::Relaxed), took));
        for one in claimed {
            ledger.end_lease(&holder, &one.record.session_id, None).await?;
        }
    }
}

async fn commit(url: &str, count: usize) -> Result<(), Failed> {
    let ledger = ledger::open(url).await?;
    let now = SystemClock.now();
    let run_id = RunId::new(now);
    for (what, sequence) in [("new", 1), ("once more", 2)] {
        let mut times = Vec::with_capacity(count);
        for number in 0..count {
            let name = Sha256Digest::of(format!("{run_id}-{number}").as_bytes()).short(32);
            let entry = entry(SessionId::parse(&name)?, sequence, &run_id, now)?;
            let started = SystemClock.instant();
            ledger.commit(&entry).await?;
            times.push(SystemClock.instant().duration_since(started));
        }
        print!("commit, {what}: ");
        tell(&mut times);
    }
    Ok(())
}

fn entry(session: SessionId, sequence: u32, run_id: &RunId, at: Timestamp) -> Result<SessionEntry, Failed> {
    let attempt_id = AttemptId::parse("attempt")?;
    let mut media = Vec::new();
    for item in 0..ITEMS {
        let media_id = MediaId::parse(&format!("item-{item}"))?;
        media.push(MediaRow {
            key: ObjectKey::media(&session, &attempt_id, &media_id, "jpg"),
            media_id,
            attempt_id: attempt_id.clone(),
            kind: MediaKind::Image,
            version_id: Some("3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY".to_owned()),
            size_bytes: 200_000,
            sha256: Sha256Digest::of(&item.to_be_bytes()),
        });
    }
    Ok(SessionEntry {
        integration: "default".to_owned(),
        state: State::Archived,
        code: None,
        message: None,
        upstream_created_at: Some(at),
        deadline_at: Some(at.plus(Duration::from_hours(90 * 24))),
        manifest: Some(ManifestRef {
            key: ObjectKey::manifest(&session, sequence),
            version_id: None,
            sequence,
            sha256: Sha256Digest::of(session.as_str().as_bytes()),
        }),
        complete: true,
        settled: true,
        media,
        run_id: run_id.clone(),
        at,
        look_again_at: None,
        holder: None,
        line: None,
        record: SessionRequest::of(session),
    })
}

fn tell(times: &mut [Duration]) {
    times.sort_unstable();
    let millis = |per_mille: usize| {
        let at = (times.len() * per_mille / 1000).min(times.len().saturating_sub(1));
        times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    };
    let mean = times.iter().sum::<Duration>() / u32::try_from(times.len().max(1)).unwrap_or(u32::MAX);
    println!(
        "{:>7} calls, ms: mean {:.2}, median {:.2}, p99 {:.2}, most {:.2}",
        times.len(),
        mean.as_secs_f64() * 1000.0,
        millis(500),
        millis(990),
        millis(1000)
    );
}
