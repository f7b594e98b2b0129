//! Sessions: takes an audit from session to session, some at once, in order.
//!
//! What is found in a session is passed on, counted and written down as done in the order of the sessions, so that one place
//! is all that has to be remembered.

use std::collections::BTreeMap;
use std::future::Future;

use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::reach::Reach;
use super::runner::{AuditError, AuditProgress, Runner};
use super::scope::Scope;
use super::walk::{Walk, WalkedSession};
use super::{Finding, FindingCode, Severity};
use crate::ledger::{SessionRow, Survey};
use crate::model::SessionId;
use crate::model::key::ObjectKey;
use crate::source::Source;
use crate::store::versions::{KeyVersions, list_all};
use crate::store::{ReadStore, StoreError};

/// How many sessions are looked at at once; their objects are, too, within the limit of requests.
pub const SESSIONS_IN_FLIGHT: usize = 8;

/// What an audit counts besides its findings.
pub trait AuditTally: Default + Clone + Serialize + DeserializeOwned {
    /// Adds what another part of the audit counted.
    fn add(&mut self, other: Self);
    /// Returns what was looked at, by what.
    fn checked(&self) -> Vec<(&'static str, u64)>;
}

/// How far an audit is that goes from session to session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionsProgress<T> {
    /// What a random sample is drawn with.
    pub seed: String,
    /// The place behind which it resumes.
    pub mark: Mark,
    /// How many sessions it came by, in the scope or not.
    #[serde(default)]
    pub seen: u64,
    /// What it counted.
    pub tally: T,
}

impl<T: AuditTally> AuditProgress for SessionsProgress<T> {
    fn begin(seed: String) -> Self {
        Self { seed, mark: Mark::default(), seen: 0, tally: T::default() }
    }

    fn checked(&self) -> BTreeMap<String, u64> {
        self.tally.checked().into_iter().map(|(what, count)| (what.to_owned(), count)).collect()
    }

    fn place(&self) -> &str {
        self.mark.after.as_deref().unwrap_or_default()
    }
}

/// An audit under way that goes from session to session.
pub type SessionsRunner<T> = Runner<SessionsProgress<T>>;

/// A place in what an audit looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The sessions are done; only what belongs to none is left.
    #[serde(default)]
    pub past_sessions: bool,
    /// The last folder or key that was done.
    pub after: Option<String>,
    /// How many records of a list are done.
    pub records: u64,
}

/// What one piece of work is: a place, and what is to be looked at there, if anything.
#[derive(Debug)]
pub struct AuditStep<W> {
    /// The place.
    pub mark: Mark,
    /// The work; nothing if it is not in the scope.
    pub work: Option<W>,
}

/// What came of one piece of work.
#[derive(Debug, Default)]
pub struct Checked<T> {
    /// What was found.
    pub findings: Vec<Finding>,
    /// What was counted.
    pub tally: T,
}

impl<T: AuditTally> SessionsRunner<T> {
    /// Does one step after another, so many at once, unless the audit is to stop.
    ///
    /// # Errors
    /// As the steps, and as [`Runner::note`].
    pub async fn run<W, F>(
        &mut self,
        steps: impl Stream<Item = Result<AuditStep<W>, AuditError>>,
        in_flight: usize,
        check: impl Fn(W) -> F,
    ) -> Result<(), AuditError>
    where
        F: Future<Output = Result<Checked<T>, AuditError>>,
    {
        let check = &check;
        let done = steps.map(async |step| {
            let AuditStep { mark, work } = step?;
            let checked = match work {
                Some(work) => Some(check(work).await?),
                None => None,
            };
            Ok::<_, AuditError>((mark, checked))
        });
        let mut done = Box::pin(done.buffered(in_flight));
        while let Some(Some(next)) = self.unless_stopped(done.next()).await {
            let (mark, checked) = next?;
            self.take(mark, checked)?;
        }
        Ok(())
    }

    /// Takes what came of one piece of work.
    ///
    /// # Errors
    /// Retryable: it cannot be passed on or written down.
    pub fn take(&mut self, mark: Mark, checked: Option<Checked<T>>) -> Result<(), AuditError> {
        if let Some(checked) = checked {
            self.findings.add_all(checked.findings)?;
            self.progress.tally.add(checked.tally);
        }
        self.progress.seen += u64::from(!mark.past_sessions);
        self.progress.mark = mark;
        self.note()
    }
}

/// Where the sessions come from.
pub enum Feed<'a> {
    /// Everything in the store, in the order of keys.
    Walk(Walk<'a>, Scope),
    /// A list; bad lines are passed over with a warning.
    List(&'a dyn ReadStore, Box<dyn Source>),
}

impl std::fmt::Debug for Feed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Walk(..) => "Feed::Walk",
            Self::List(..) => "Feed::List",
        })
    }
}

impl<'a> Feed<'a> {
    /// Turns it into steps, behind the records of a list that are done.
    pub fn steps(self, records: u64) -> impl Stream<Item = Result<AuditStep<WalkedSession>, AuditError>> + 'a {
        futures_util::stream::unfold(Some((self, records, 0)), |state| async move {
            let (mut feed, skip, seen) = state?;
            match feed.next(skip, seen).await {
                Ok(Some((step, seen))) => Some((Ok(step), Some((feed, skip, seen)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self, skip: u64, seen: u64) -> Result<Option<(AuditStep<WalkedSession>, u64)>, AuditError> {
        match self {
            Self::Walk(walk, scope) => Ok(walk.next().await?.map(|walked| {
                let mark = Mark { after: Some(walked.folder.clone()), ..Mark::default() };
                let work = scope.takes(&walked.folder).then_some(walked);
                (AuditStep { mark, work }, seen + 1)
            })),
            Self::List(store, source) => {
                let Some((session, seen)) = next_of(&mut **source, skip, seen).await? else { return Ok(None) };
                let mark = Mark { records: seen, ..Mark::default() };
                let work = match session {
                    Some(session) => Some(listed(*store, &session).await?),
                    None => None,
                };
                Ok(Some((AuditStep { mark, work }, seen)))
            }
        }
    }
}

/// Returns the next session of a list behind those to be passed over, and how many records were read by then; no session
/// for a line that is none.
async fn next_of(
    source: &mut dyn Source,
    skip: u64,
    mut seen: u64,
) -> Result<Option<(Option<SessionId>, u64)>, AuditError> {
    loop {
        let Some(delivery) = source.receive().await? else { return Ok(None) };
        seen += 1;
        if seen <= skip {
            continue;
        }
        return Ok(Some(match delivery.record {
            Ok(record) => (Some(record.session_id), seen),
            Err(bad) => {
                tracing::warn!("{}: {}; passed over", delivery.place, bad.reason);
                (None, seen)
            }
        }));
    }
}

/// Lists what the store has of a session.
///
/// # Errors
/// As the store's.
pub async fn listed(store: &dyn ReadStore, session: &SessionId) -> Result<WalkedSession, StoreError> {
    let keys = list_all(store, &ObjectKey::session_prefix(session)).await?;
    Ok(WalkedSession { folder: session.as_str().to_owned(), keys })
}

/// Looks at one session, and once more if it was found wanting and has changed since: a run at work beside the audit is no
/// damage.
///
/// # Errors
/// As the store's, the ledger's and the look's.
pub(super) async fn steadily<T: Default>(
    reach: &Reach<'_>,
    ledger: Option<&dyn Survey>,
    walked: WalkedSession,
    look: impl AsyncFn(&SessionId, &WalkedSession, Option<&SessionRow>) -> Result<Checked<T>, AuditError>,
) -> Result<Checked<T>, AuditError> {
    let Some(session) = walked.session_id() else {
        return Ok(Checked { findings: foreign_folder(&walked), tally: T::default() });
    };
    let row = row_of(ledger, &session).await?;
    let part = look(&session, &walked, row.as_ref()).await?;
    if part.findings.is_empty() {
        return Ok(part);
    }
    // First the ledger, which is written last: so it cannot know more than the listing.
    let row_again = row_of(ledger, &session).await?;
    let again = listed(reach.store(), &session).await?;
    if again == walked && row_again == row {
        return Ok(part);
    }
    look(&session, &again, row_again.as_ref()).await
}

/// Asks the ledger, where there is one.
async fn row_of(ledger: Option<&dyn Survey>, session: &SessionId) -> Result<Option<SessionRow>, AuditError> {
    Ok(match ledger {
        Some(ledger) => ledger.session(session).await?,
        None => None,
    })
}

/// Tells of a folder that no session's is.
pub(super) fn foreign_folder(walked: &WalkedSession) -> Vec<Finding> {
    let repair = "find out who wrote it; the archive does not name it and will not use it";
    let finding = |key, version: Option<&str>| {
        Finding::of(Severity::Error, FindingCode::ObjectUnknown, repair)
            .object(key, version)
            .differs("a folder named by a session id", "another name")
    };
    let versions = walked.keys.iter().flat_map(KeyVersions::all);
    versions.map(|version| finding(&version.key, version.version_id.as_deref())).collect()
}
