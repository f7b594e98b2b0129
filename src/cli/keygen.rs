//! `keygen`: a new key pair for signing runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::GlobalArgs;
use super::output::{Answer, print};
use crate::error::Exit;
use crate::model::digest::Sha256Digest;
use crate::model::signature::SigningKey;

/// The value of `schema` in the answer.
const SCHEMA: &str = "veriff-archive/keygen/v1";

/// Only its owner may read a private key.
const PRIVATE_MODE: u32 = 0o600;

/// Anyone may read a public key.
const PUBLIC_MODE: u32 = 0o644;

/// Create a key pair for signing run records
///
/// Writes Ed25519 keys as PEM; a key from `openssl genpkey -algorithm ed25519` works as well. Never overwrites a file. Put
/// the private key where the workers can read it, and the public key where nobody who can write to the archive can change it.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 created, 2 one of the files exists already or cannot be created.")]
pub(super) struct KeygenArgs {
    /// File to write the private key to (PKCS #8, readable only by its owner)
    #[arg(long, value_name = "FILE")]
    private_key: PathBuf,
    /// File to write the public key to
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
}

/// The pair that was made.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Keygen {
    /// Always `veriff-archive/keygen/v1`.
    schema: &'static str,
    /// What run records call the key: the SHA-256 of the public key in DER form.
    key_id: Sha256Digest,
    /// The file of the private key.
    private_key: PathBuf,
    /// The file of the public key.
    public_key: PathBuf,
    /// What to do next.
    next: String,
}

impl Answer for Keygen {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "key {}", self.key_id)?;
        writeln!(out, "  private  {}", self.private_key.display())?;
        writeln!(out, "  public   {}", self.public_key.display())?;
        writeln!(out, "  next     {}", self.next)
    }
}

pub(super) fn run(args: &KeygenArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let key = SigningKey::generate();
    let pair = [
        (&args.private_key, key.to_pem()?.expose_secret().to_owned(), PRIVATE_MODE),
        (&args.public_key, key.public().to_pem()?, PUBLIC_MODE),
    ];
    let mut made: Vec<&Path> = Vec::new();
    for (path, pem, mode) in &pair {
        if let Err(error) = make(path, pem, *mode) {
            // Half a pair would only be in the way of the next try.
            made.iter().try_for_each(fs::remove_file).context("the private key cannot be removed again")?;
            eprintln!("error: {} cannot be created: {error}", path.display());
            return Ok(Exit::Usage);
        }
        made.push(path);
    }
    let answer = Keygen {
        schema: SCHEMA,
        key_id: key.public().id(),
        private_key: args.private_key.clone(),
        public_key: args.public_key.clone(),
        next: format!(
            "signing.private_key = {{ file = \"{}\" }}; keep the public key and its id outside the archive",
            args.private_key.display()
        ),
    };
    print(&answer, global.format())?;
    Ok(Exit::Success)
}

fn make(path: &Path, pem: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}
