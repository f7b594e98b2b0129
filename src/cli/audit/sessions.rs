//! What audits that go from session to session share as commands: which sessions, and how many at once.

use clap::{ArgGroup, Args};

use super::desk::{AuditDesk, StateArgs};
use crate::audit::AuditKind;
use crate::audit::runner::Question;
use crate::audit::scope::{Percent, Scope, Share};
use crate::audit::sessions::{Feed, SessionsProgress};
use crate::audit::walk::Walk;
use crate::cli::StoreArgs;
use crate::cli::connect::{checks, open_file};
use crate::cli::source::FormatArgs;
use crate::config::{Config, ConfigError};
use crate::model::SessionId;
use crate::source::Source;
use crate::source::file::{FileSource, Format};

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
    pub(super) state: StateArgs,
    /// Maximum concurrent requests to the store
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) concurrency: u16,
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

    /// Returns the seed, if it says anything.
    pub(super) fn seed<'p, T>(&self, progress: &'p SessionsProgress<T>) -> Option<&'p str> {
        self.sample.is_some().then_some(&*progress.seed)
    }

    /// Says all that is asked.
    ///
    /// # Errors
    /// Fatal: no store is configured.
    pub(super) fn question(
        &self,
        kind: AuditKind,
        mode: Option<&str>,
        config: &Config,
    ) -> Result<Question, ConfigError> {
        let mut text = vec![format!("store={}", config.require_store()?.url())];
        text.extend(mode.map(|mode| format!("mode={mode}")));
        text.extend(self.share.map(|share| format!("share={share}")));
        text.extend(self.sample.map(|sample| format!("sample={sample}")));
        text.extend(self.seed.as_ref().map(|seed| format!("seed={seed}")));
        text.extend(self.sessions.as_ref().map(|path| format!("sessions={path}")));
        text.extend(self.session.iter().map(|session| format!("session={session}")));
        Ok(Question {
            kind,
            mode: mode.map(str::to_owned),
            share: if self.is_list() { Some("a list of sessions".to_owned()) } else { self.scope("").text() },
            text: text.join(" "),
            state: self.state.state.clone(),
            seed: self.seed.clone(),
        })
    }

    /// Returns where the sessions come from, behind those that are done.
    ///
    /// # Errors
    /// As [`open_file`].
    pub(super) async fn feed<'a, T>(
        &self,
        desk: &'a AuditDesk,
        progress: &SessionsProgress<T>,
    ) -> anyhow::Result<Feed<'a>> {
        let source: Box<dyn Source> = if let Some(path) = &self.sessions {
            open_file(path, &self.format, &desk.config, &desk.clock).await?
        } else if self.session.is_empty() {
            let walk = Walk::of(&*desk.store, progress.mark.after.as_deref());
            return Ok(Feed::Walk(walk, self.scope(&progress.seed)));
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
