//! `audit chain`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::sessions::{Need, open_ledger};
use super::{finish, printer};
use crate::audit::AuditKind;
use crate::audit::chain::ChainAudit;
use crate::audit::state::StateFile;
use crate::cli::connect::open_store_to_read;
use crate::cli::prove::{read_file, read_key};
use crate::cli::{GlobalArgs, StoreArgs, signals};
use crate::clock::{Clock, SystemClock};
use crate::error::Exit;
use crate::model::digest::Sha256Digest;
use crate::model::signature::PublicKey;
use crate::stop::Stop;
use crate::stop::Stopped;

/// A document that is longer than this is no head.
const MAX_HEAD_BYTES: u64 = 1024 * 1024;

/// Check every run record, its chunks, signatures and chain
///
/// Needs the store and the public key, which must come from outside the archive, but neither Veriff nor the ledger. If there
/// is a ledger, the newest entries it knows must be in the chain too.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong, 4 there is a finding of severity error, 5 the store does not answer, \
                  77 the store refuses access."
)]
pub(in crate::cli) struct ChainArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Public key (PEM) that signed runs; repeat it for every key ever used
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// Check only this chain and its runs; may be repeated
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// Entry noted earlier that must still exist: its digest, a file with the digest, or a copy of the entry
    #[arg(long, value_name = "SHA256|FILE")]
    expect_head: Vec<String>,
    /// Also read each manifest that a run record names, so that the signatures cover every item
    #[arg(long)]
    manifests: bool,
    /// Save progress in this file, and resume from it
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

pub(super) async fn run(args: &ChainArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let Some((keys, heads)) = given(args) else { return Ok(Exit::Usage) };
    let config = global.load_config_to_read(args.store.store.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = open_store_to_read(&config, &clock).await?;
    let ledger = open_ledger(&config, Need::Helpful).await?;
    let stop = Stop::default();
    signals::listen(stop.clone())?;
    let mut question = vec![format!("store={}", config.require_store()?.url())];
    question.extend(args.group.iter().map(|group| format!("group={group}")));
    question.extend(keys.iter().map(|key| format!("key={}", key.id().short(16))));
    question.extend(args.manifests.then(|| "manifests".to_owned()));
    let state = StateFile::of(args.state.clone(), AuditKind::Chain, question.join(" "));
    let audit = ChainAudit {
        store: &*store,
        clock: clock.as_ref(),
        stop: stop.clone(),
        keys,
        groups: args.group.iter().cloned().collect(),
        heads,
        manifests: args.manifests,
        known: ledger.as_deref().map(|ledger| (ledger, config.signing.group.clone())),
    };
    let summary = audit.run(&state, printer(global.format(), &config)).await?;
    if let Some(ledger) = &ledger {
        ledger.close().await;
    }
    let exit = finish(&summary, &config, global).await?;
    if summary.complete {
        return Ok(exit);
    }
    Ok(exit.min(match stop.requested().await {
        Stopped::Terminated => Exit::Terminated,
        _ => Exit::Interrupted,
    }))
}

/// Reads the keys and heads; nothing, with a word about it, if one of them is none.
fn given(args: &ChainArgs) -> Option<(Vec<PublicKey>, Vec<Sha256Digest>)> {
    let keys: Result<Vec<PublicKey>, String> = args.public_key.iter().map(|path| read_key(path)).collect();
    let heads: Result<Vec<Sha256Digest>, String> = args.expect_head.iter().map(|text| read_head(text)).collect();
    match (keys, heads) {
        (Ok(keys), Ok(heads)) => Some((keys, heads)),
        (Err(reason), _) | (_, Err(reason)) => {
            eprintln!("error: {reason}");
            None
        }
    }
}

/// Reads the digest of a head: as it is typed, from a file, or of a copy of the entry.
fn read_head(text: &str) -> Result<Sha256Digest, String> {
    if let Some(digest) = Sha256Digest::from_hex(text) {
        return Ok(digest);
    }
    let bytes = read_file(Path::new(text), MAX_HEAD_BYTES)?;
    let noted = std::str::from_utf8(&bytes).ok().and_then(|text| Sha256Digest::from_hex(text.trim()));
    Ok(noted.unwrap_or_else(|| Sha256Digest::of(&bytes)))
}
