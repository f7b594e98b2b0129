//! Merge: store and ledger side by side, session after session in the order of keys.
//!
//! Sorted streams, of which never more than a page each is in memory. A side that is not in order would make false
//! findings by the thousand, so it ends the audit.

use std::collections::VecDeque;

use futures_util::Stream;

use super::inventory::{Inventory, InventoryError};
use super::lines::{RunLines, SessionLines};
use super::order::{KeyOrder, begin_behind};
use crate::audit::runner::AuditError;
use crate::audit::sessions::{AuditStep, Mark};
use crate::audit::walk::{Walk, WalkedSession, place_of};
use crate::ledger::{DamagedRow, LedgerError, Survey, Surveyed, SurveyedSession};
use crate::model::SessionId;
use crate::store::StoreError;

/// How many sessions are read from the ledger at once.
const PAGE: u32 = 256;

/// One session as both sides have it; at least one has.
#[derive(Debug)]
pub struct Pair {
    /// What the store lists.
    pub walked: WalkedSession,
    /// What the ledger says.
    pub surveyed: Option<SurveyedSession>,
    /// Or that what it says cannot be read.
    pub damaged: Option<DamagedRow>,
    /// What run records report of it.
    pub lines: SessionLines,
}

impl Pair {
    /// Puts together what there is of one session.
    #[must_use]
    pub fn of(walked: WalkedSession, surveyed: Option<Surveyed<SurveyedSession>>, lines: SessionLines) -> Self {
        let (surveyed, damaged) = match surveyed {
            Some(Ok(surveyed)) => (Some(surveyed), None),
            Some(Err(damaged)) => (None, Some(damaged)),
            None => (None, None),
        };
        Self { walked, surveyed, damaged, lines }
    }
}

/// Where the listing comes from.
#[derive(Debug)]
pub enum StoreListing<'a> {
    /// The store itself.
    Walk(Walk<'a>),
    /// An inventory report.
    Inventory(&'a mut Inventory),
}

/// Both sides.
#[derive(Debug)]
pub struct Merge<'a> {
    listing: StoreListing<'a>,
    survey: SurveyWalk<'a>,
    walked: Option<WalkedSession>,
    surveyed: Option<Surveyed<SurveyedSession>>,
    lines: Option<&'a mut RunLines>,
    last_walked: Option<String>,
    begun: bool,
}

/// The ledger, in the order of keys.
#[derive(Debug)]
struct SurveyWalk<'a> {
    ledger: &'a dyn Survey,
    page: VecDeque<Surveyed<SurveyedSession>>,
    after: Option<String>,
    order: KeyOrder<Surveyed<SurveyedSession>>,
    is_at_end: bool,
    /// Only what comes behind this place is handed on.
    behind: Option<String>,
}

/// Returns the id of a row, as it stands.
fn id_of(surveyed: &Surveyed<SurveyedSession>) -> &str {
    match surveyed {
        Ok(surveyed) => surveyed.row.record.session_id.as_str(),
        Err(damaged) => &damaged.id,
    }
}

impl<'a> SurveyWalk<'a> {
    fn of(ledger: &'a dyn Survey, after: Option<&str>) -> Self {
        Self {
            ledger,
            page: VecDeque::new(),
            after: after.and_then(begin_behind).map(str::to_owned),
            order: KeyOrder::default(),
            is_at_end: false,
            behind: after.map(|folder| format!("{folder}/")),
        }
    }

    async fn next(&mut self) -> Result<Option<Surveyed<SurveyedSession>>, LedgerError> {
        loop {
            if let Some(next) = self.order.next() {
                let place = place_of(id_of(&next));
                if self.behind.as_ref().is_none_or(|behind| place > *behind) {
                    return Ok(Some(next));
                }
                continue;
            }
            if self.is_at_end {
                return Ok(None);
            }
            if self.page.is_empty() {
                self.page = self.ledger.survey(self.after.as_deref(), PAGE).await?.into();
                self.after = self.page.back().map(|last| id_of(last).to_owned()).or(self.after.take());
            }
            if let Some(next) = self.page.pop_front() {
                self.order.push(id_of(&next).to_owned(), next);
            } else {
                self.order.end();
                self.is_at_end = true;
            }
        }
    }
}

impl<'a> Merge<'a> {
    /// Begins at the first session, or behind the folder of the one that was done last.
    pub fn of(listing: StoreListing<'a>, ledger: &'a dyn Survey, after: Option<&str>) -> Self {
        let survey = SurveyWalk::of(ledger, after);
        Self { listing, survey, walked: None, surveyed: None, lines: None, last_walked: None, begun: false }
    }

    /// Hands on, beside both sides, what run records say.
    #[must_use]
    pub fn with(self, lines: Option<&'a mut RunLines>) -> Self {
        Self { lines, ..self }
    }

    /// Turns it into steps.
    pub fn steps(self) -> impl Stream<Item = Result<AuditStep<Pair>, AuditError>> + 'a {
        futures_util::stream::unfold(Some(self), |merge| async move {
            let mut merge = merge?;
            match merge.next().await {
                Ok(Some(pair)) => {
                    let mark = Mark { after: Some(pair.walked.folder.clone()), ..Mark::default() };
                    Some((Ok(AuditStep { mark, work: Some(pair) }), Some(merge)))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Pair>, AuditError> {
        if !self.begun {
            self.begun = true;
            self.walked = self.next_walked().await?;
            self.surveyed = self.survey.next().await?;
        }
        self.check_versions()?;
        let walked = self.walked.as_ref().map(|walked| format!("{}/", walked.folder));
        let surveyed = self.surveyed.as_ref().map(|surveyed| place_of(id_of(surveyed)));
        let reported = self.lines_place()?;
        let Some(place) = [&walked, &surveyed, &reported].into_iter().flatten().min().cloned() else { return Ok(None) };
        let is_next = |it: Option<String>| it.is_some_and(|it| it == place);
        let folder = place.trim_end_matches('/').to_owned();
        let mut listed = WalkedSession { folder, keys: Vec::new() };
        let (mut row, mut lines) = (None, SessionLines::default());
        if is_next(walked)
            && let Some(walked) = self.walked.take()
        {
            listed = walked;
            self.walked = self.next_walked().await?;
        }
        if is_next(surveyed) {
            row = self.surveyed.take();
            self.surveyed = self.survey.next().await?;
        }
        if is_next(reported)
            && let Some((_, next)) = self.next_lines()?
        {
            lines = next;
        }
        Ok(Some(Pair::of(listed, row, lines)))
    }

    /// Returns the place of the next session that run records tell of, behind where this begins.
    fn lines_place(&mut self) -> Result<Option<String>, InventoryError> {
        loop {
            let Some(place) = self.lines.as_ref().and_then(|lines| lines.ahead()).map(|id| place_of(id.as_str()))
            else {
                return Ok(None);
            };
            if self.survey.behind.as_ref().is_none_or(|behind| place > *behind) {
                return Ok(Some(place));
            }
            self.next_lines()?;
        }
    }

    fn next_lines(&mut self) -> Result<Option<(SessionId, SessionLines)>, InventoryError> {
        Ok(match &mut self.lines {
            Some(lines) => lines.next_session()?,
            None => None,
        })
    }

    /// Refuses a report of current versions only where the ledger names versions: what it lists may be what somebody put over
    /// the archive's own, and shadows do not show.
    fn check_versions(&self) -> Result<(), InventoryError> {
        let StoreListing::Inventory(inventory) = &self.listing else { return Ok(()) };
        let names_version = |surveyed: &SurveyedSession| {
            let manifest = surveyed.row.manifest.as_ref();
            manifest.is_some_and(|manifest| manifest.version_id.is_some())
                || surveyed.media.iter().any(|media| media.version_id.is_some())
        };
        if inventory.has_versions || !matches!(&self.surveyed, Some(Ok(surveyed)) if names_version(surveyed)) {
            return Ok(());
        }
        Err(InventoryError::Form {
            place: "with its columns".to_owned(),
            reason:
                "it has no column VersionId, and the ledger names versions; configure the inventory to include all \
                     versions, or list the store (--listing-only)"
                    .to_owned(),
        })
    }

    async fn next_walked(&mut self) -> Result<Option<WalkedSession>, AuditError> {
        let next = match &mut self.listing {
            StoreListing::Walk(walk) => walk.next().await?,
            StoreListing::Inventory(inventory) => inventory.next_session()?,
        };
        if let Some(next) = &next {
            let place = format!("{}/", next.folder);
            if self.last_walked.as_ref().is_some_and(|last| *last >= place) {
                return Err(StoreError::Unfit(
                    "the store does not list keys in order, so its listing cannot be compared with the ledger: use an \
                     inventory report (--inventory), which is sorted here"
                        .to_owned(),
                )
                .into());
            }
            self.last_walked = Some(place);
        }
        Ok(next)
    }
}
