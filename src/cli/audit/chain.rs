//! `audit chain`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Kind;
use super::desk::{AuditDesk, StateArgs};
use crate::audit::AuditKind;
use crate::audit::chain::{ChainAudit, ChainProgress};
use crate::audit::runner::{AuditEnd, Question, Runner};
use crate::cli::prove::{read_file, read_key};
use crate::cli::{GlobalArgs, StoreArgs};
use crate::config::{Config, ConfigError};
use crate::model::digest::Sha256Digest;
use crate::model::signature::PublicKey;

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
    #[command(flatten)]
    state: StateArgs,
}

/// The arguments with the keys and heads that they name.
#[derive(Debug)]
pub(super) struct AskedChain<'a> {
    args: &'a ChainArgs,
    keys: Vec<PublicKey>,
    heads: Vec<Sha256Digest>,
}

impl ChainArgs {
    /// Reads the keys and heads; nothing, with a word about it, if one of them is none.
    pub(super) fn read(&self) -> Option<AskedChain<'_>> {
        let keys: Result<Vec<PublicKey>, String> = self.public_key.iter().map(|path| read_key(path)).collect();
        let heads: Result<Vec<Sha256Digest>, String> = self.expect_head.iter().map(|text| read_head(text)).collect();
        match (keys, heads) {
            (Ok(keys), Ok(heads)) => Some(AskedChain { args: self, keys, heads }),
            (Err(reason), _) | (_, Err(reason)) => {
                eprintln!("error: {reason}");
                None
            }
        }
    }
}

impl Kind for AskedChain<'_> {
    type Progress = ChainProgress;

    fn store(&self) -> &StoreArgs {
        &self.args.store
    }

    fn config(&self, global: &GlobalArgs) -> Result<Config, ConfigError> {
        global.load_config_to_read(self.args.store.store.as_deref())
    }

    fn question(&self, config: &Config) -> Result<Question, ConfigError> {
        let mut text = vec![format!("store={}", config.require_store()?.url())];
        text.extend(self.args.group.iter().map(|group| format!("group={group}")));
        text.extend(self.keys.iter().map(|key| format!("key={}", key.id().short(16))));
        text.extend(self.args.manifests.then(|| "manifests".to_owned()));
        let groups: BTreeSet<&str> = self.args.group.iter().map(String::as_str).collect();
        Ok(Question {
            kind: AuditKind::Chain,
            mode: self.args.manifests.then(|| "manifests".to_owned()),
            share: (!groups.is_empty()).then(|| groups.into_iter().collect::<Vec<_>>().join(",")),
            text: text.join(" "),
            state: self.args.state.state.clone(),
            seed: None,
        })
    }

    async fn go(&self, desk: &AuditDesk, runner: &mut Runner<ChainProgress>) -> anyhow::Result<AuditEnd> {
        let audit = ChainAudit {
            store: &*desk.store,
            keys: self.keys.clone(),
            groups: self.args.group.iter().cloned().collect(),
            heads: self.heads.clone(),
            manifests: self.args.manifests,
            known: desk.ledger.as_deref().map(|ledger| (ledger, desk.config.signing.group.clone())),
        };
        Ok(audit.run(runner).await?)
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
