//! What audits that go from session to session share: which sessions, how fast, where their progress is kept, and what
//! they look at it with.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args};

use super::printer;
use crate::audit::drive::{AuditError, Drive, Feed, Mark, Question, Tally};
use crate::audit::reach::Reach;
use crate::audit::scope::{Percent, Scope, Share};
use crate::audit::walk::Walk;
use crate::audit::{AuditKind, AuditSummary, Findings, archive};
use crate::cli::connect::{checks, open_file, open_store_to_read};
use crate::cli::source::FormatArgs;
use crate::cli::{GlobalArgs, StoreArgs, signals};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::error::Exit;
use crate::ledger::{self, Survey};
use crate::model::ArchiveId;
use crate::model::SessionId;
use crate::source::Source;
use crate::source::file::{FileSource, Format};
use crate::stop::Stop;
use crate::stop::Stopped;
use crate::store::ReadStore;
use crate::store::settings::StoreSettings;

/// How many requests are under way at once by default.
const CONCURRENCY: u16 = 16;

/// Which sessions are looked at, and how.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["share", "sample", "sessions", "session"]))]
pub(super) struct SessionsArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Check the n-th of m parts: m such runs check every session once
    #[arg(long, value_name = "N/M", help_heading = "Which sessions")]
    pub(super) share: Option<Share>,
    /// Check a random sample, such as 5%
    #[arg(long, value_name = "P%", help_heading = "Which sessions")]
    pub(super) sample: Option<Percent>,
    /// Check the sample of an earlier audit again; its summary contains the seed [default: a new one]
    #[arg(long, value_name = "SEED", requires = "sample", help_heading = "Which sessions")]
    pub(super) seed: Option<String>,
    /// Check the sessions of a list.
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Which sessions",
        help = "Check the sessions of a list: a file, - for standard input, or s3://bucket/key"
    )]
    pub(super) sessions: Option<String>,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    /// Check this session; may be repeated
    #[arg(long, value_name = "ID", value_parser = SessionId::parse, help_heading = "Which sessions")]
    pub(super) session: Vec<SessionId>,
    #[command(flatten)]
    pub(super) going_on: GoingOnArgs,
    /// Maximum concurrent requests to the store
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) concurrency: u16,
}

/// Where progress is kept.
#[derive(Debug, Args)]
pub(super) struct GoingOnArgs {
    /// Save progress in this file, and resume from it if the audit was stopped
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
}

impl SessionsArgs {
    /// Returns the scope, once the seed of a sample is known.
    pub(super) fn scope(&self, seed: &str) -> Scope {
        match (self.share, self.sample) {
            (Some(share), _) => Scope::Share(share),
            (None, Some(percent)) => Scope::Sample { percent, seed: seed.to_owned() },
            (None, None) => Scope::All,
        }
    }

    /// Returns whether sessions are named rather than found in the store.
    pub(super) const fn is_list(&self) -> bool {
        self.sessions.is_some() || !self.session.is_empty()
    }

    /// Returns the part of the archive as the summary reports it.
    pub(super) fn part(&self, scope: &Scope) -> Option<String> {
        if self.is_list() { Some("a list of sessions".to_owned()) } else { scope.text() }
    }

    /// Says all that is asked.
    pub(super) fn question(&self, kind: AuditKind, mode: Option<&str>, store: &StoreSettings) -> Question {
        let mut text = vec![format!("store={}", store.url())];
        text.extend(mode.map(|mode| format!("mode={mode}")));
        text.extend(self.share.map(|share| format!("share={share}")));
        text.extend(self.sample.map(|sample| format!("sample={sample}")));
        text.extend(self.seed.as_ref().map(|seed| format!("seed={seed}")));
        text.extend(self.sessions.as_ref().map(|path| format!("sessions={path}")));
        text.extend(self.session.iter().map(|session| format!("session={session}")));
        Question {
            kind,
            mode: mode.map(str::to_owned),
            text: text.join(" "),
            state: self.going_on.state.clone(),
            seed: self.seed.clone(),
        }
    }

    /// Returns where the sessions come from, behind a place.
    ///
    /// # Errors
    /// As [`open_file`].
    pub(super) async fn feed<'a>(&self, desk: &'a Desk, scope: Scope, from: &Mark) -> anyhow::Result<Feed<'a>> {
        let source: Box<dyn Source> = if let Some(path) = &self.sessions {
            open_file(path, &self.format, &desk.config, &desk.clock).await?
        } else if self.session.is_empty() {
            return Ok(Feed::Walk(Walk::of(&*desk.store, from.after.as_deref()), scope));
        } else {
            let ids: Vec<&str> = self.session.iter().map(SessionId::as_str).collect();
            let lines = std::io::Cursor::new(ids.join("\n").into_bytes());
            Box::new(FileSource::of_reader(
                "arguments",
                Box::new(lines),
                Some(Format::Plain),
                checks(&desk.config, &desk.clock),
            ))
        };
        Ok(Feed::List(&*desk.store, source))
    }
}

/// What the ledger is to an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The audit is about it.
    Needed,
    /// It is one more thing to compare with; the store is looked at all the same.
    Helpful,
}

/// What an audit looks with; opened so that nothing is changed.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) store: Arc<dyn ReadStore>,
    pub(super) is_bucket: bool,
    /// The ledger, if there is one; where the audit can do without, only if it can be read.
    pub(super) ledger: Option<Arc<dyn Survey>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stop: Stop,
}

impl Desk {
    /// Opens the store and the ledger.
    ///
    /// # Errors
    /// Fatal: configuration or rights. Retryable: out of reach.
    pub(super) async fn open(global: &GlobalArgs, store: &StoreArgs, need: Need) -> anyhow::Result<Self> {
        let config = global.load_config(store.store.as_deref())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let stop = Stop::default();
        signals::listen(stop.clone())?;
        let is_bucket = config.require_store()?.url().can_lock();
        let store = open_store_to_read(&config, &clock).await?;
        let ledger = open_ledger(&config, need).await?;
        Ok(Self { config, store, is_bucket, ledger, clock, stop })
    }

    /// Returns the store as an audit asks it.
    pub(super) fn reach(&self, concurrency: u16) -> Reach<'_> {
        Reach::of(&*self.store, usize::from(concurrency), self.is_bucket)
    }

    /// Begins an audit, or resumes one.
    ///
    /// # Errors
    /// As [`Drive::begin`].
    pub(super) fn begin<T: Tally>(
        &self,
        question: Question,
        global: &GlobalArgs,
    ) -> Result<(Drive<T>, Findings), AuditError> {
        let mut findings = Findings::to(printer(global.format(), &self.config));
        let drive = Drive::begin(question, &mut findings, &*self.clock, self.stop.clone())?;
        Ok((drive, findings))
    }

    /// Reads which archive the store is, and passes on what is wrong with that; once, also if the audit is resumed.
    ///
    /// # Errors
    /// As the store's and the ledger's.
    pub(super) async fn archive(
        &self,
        reach: &Reach<'_>,
        is_begun: bool,
        findings: &mut Findings,
    ) -> Result<Option<ArchiveId>, AuditError> {
        let known = match &self.ledger {
            Some(ledger) => ledger.archive_id().await?,
            None => None,
        };
        let (archive, found) = archive::read(reach, known.as_ref()).await?;
        if !is_begun {
            for finding in &found {
                findings.add(finding)?;
            }
        }
        Ok(archive.id)
    }

    /// Prints how the audit ended and says how the process does.
    ///
    /// # Errors
    /// As the output's.
    pub(super) async fn finish(
        &self,
        summary: &AuditSummary,
        stopped: Option<Stopped>,
        global: &GlobalArgs,
    ) -> anyhow::Result<Exit> {
        if let Some(ledger) = &self.ledger {
            ledger.close().await;
        }
        let exit = super::finish(summary, &self.config, global).await?;
        Ok(match stopped {
            Some(Stopped::Terminated) => exit.min(Exit::Terminated),
            Some(_) => exit.min(Exit::Interrupted),
            None => exit,
        })
    }
}

/// Opens the ledger to read what it knows, if there is one.
///
/// # Errors
/// Fatal: configuration or schema. Retryable, if the audit is nothing without it: out of reach.
pub(super) async fn open_ledger(config: &Config, need: Need) -> anyhow::Result<Option<Arc<dyn Survey>>> {
    let opened = async {
        if !ledger::exists(&config.ledger_url).await? {
            return Ok(None);
        }
        ledger::open_to_read(&config.ledger_url).await.map(Some)
    };
    match opened.await {
        Ok(ledger) => Ok(ledger),
        Err(error) if error.code().is_retryable() && need == Need::Helpful => {
            tracing::warn!("the ledger is not compared, because it cannot be read: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
