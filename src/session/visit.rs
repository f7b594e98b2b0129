//! Visit: how one look after a session went, in the words of ledger, result line and summary.
//!
//! What a session returns: pure functions from what existed, what Veriff listed and what this visit did to an outcome,
//! its code, and what a person should know all the same.

use crate::session::catalog::Catalog;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::Code;
use crate::ledger::{ManifestRef, MediaRow};
use crate::model::AttemptId;
use crate::model::manifest::{Listing, Manifest, ManifestMedia, MissingItem};
use crate::model::request::SessionRequest;
use crate::session::draft::{self, Draft, Failure};
use crate::session::identity::IdentityError;
use crate::session::standing::{InspectError, Standing, StandingManifest};
use crate::session::transfer::ItemError;
use crate::session::writer::WriteError;
use crate::veriff::VeriffError;

/// How a visit to a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// New evidence was written.
    Archived,
    /// All was there already: present by version, size and lock; bytes were not read again.
    Unchanged,
    /// Veriff answers 404 or 410.
    Absent,
    /// It ended with a code.
    Failed,
    /// It was given back, for a later run.
    Pending,
}

impl Outcome {
    /// Every outcome there is.
    pub const ALL: [Self; 5] = [Self::Archived, Self::Unchanged, Self::Absent, Self::Failed, Self::Pending];

    /// Returns the text that stands in result lines and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Unchanged => "unchanged",
            Self::Absent => "absent",
            Self::Failed => "failed",
            Self::Pending => "pending",
        }
    }
}

/// How a visit to a session went.
#[derive(Debug)]
pub struct Visit {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed; on a visit that did not, what a person should know all the same.
    pub code: Option<Code>,
    /// The same for people.
    pub message: Option<String>,
    /// The newest manifest.
    pub manifest: Option<ManifestRef>,
    /// Nothing is missing from it.
    pub complete: bool,
    /// Nothing more is expected of the session.
    pub settled: bool,
    /// Its items.
    pub media: Vec<MediaRow>,
    /// When Veriff made the session, where its lists tell, those of earlier visits included.
    pub upstream_created_at: Option<Timestamp>,
    /// When the session was first visited, where its manifests tell.
    pub first_visit_at: Option<Timestamp>,
    /// When Veriff decided, where a record or an earlier manifest tells.
    pub decided_at: Option<Timestamp>,
    /// The answer that Veriff does not have the session, still to be written down.
    pub absence: Option<Absence>,
    /// The code of something that failed and may work later, if anything did.
    pub passing: Option<Code>,
    /// Veriff refused part of it.
    pub refusal: Option<VeriffError>,
    /// Veriff answered for this session.
    pub was_heard: bool,
    /// Codes of what was odd about newly archived items.
    pub anomalies: Vec<String>,
    /// How many items and bytes are new.
    pub new: (u64, u64),
}

/// The answer that Veriff does not have a session.
#[derive(Debug)]
pub struct Absence {
    pub(crate) integration: String,
    pub(crate) http_status: u16,
    pub(crate) listings: Vec<Listing>,
    pub(crate) sequence: u32,
    pub(crate) before: Option<StandingManifest>,
}

/// Why a visit came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// The store could not be looked into.
    #[error(transparent)]
    Look(#[from] InspectError),
    /// Veriff's lists could not be had.
    #[error(transparent)]
    Veriff(#[from] VeriffError),
    /// The store did not keep what it must.
    #[error(transparent)]
    Keep(#[from] WriteError),
    /// It is not known which archive this is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A fatal error of one item.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// Other workers kept writing manifests of the session.
    #[error("other workers kept writing manifests of this session")]
    Busy,
}

impl VisitError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Look(error) => error.code(),
            Self::Veriff(error) => error.code(),
            Self::Keep(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Item(error) => error.code(),
            Self::Busy => Code::StoreUnavailable,
        }
    }
}

impl Visit {
    /// Begins telling of a visit.
    #[must_use]
    pub const fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            code: None,
            message: None,
            manifest: None,
            complete: false,
            settled: false,
            media: Vec::new(),
            upstream_created_at: None,
            first_visit_at: None,
            decided_at: None,
            absence: None,
            passing: None,
            refusal: None,
            was_heard: false,
            anomalies: Vec::new(),
            new: (0, 0),
        }
    }
}

/// Tells of a session that Veriff does not have.
pub(crate) fn absent(
    integration: &str,
    record: &SessionRequest,
    standing: Standing,
    catalog: Catalog,
    http_status: u16,
    failures: &[Failure],
) -> Visit {
    let failure = failures.first().map(|failure| (failure.code, failure.message.clone()));
    let trouble = shadow(&standing).or(failure);
    let decided_at = decided_at(record, &standing);
    let newest = standing.manifest.as_ref().map(|newest| &newest.document);
    let mut visit = match newest {
        Some(manifest) if manifest.totals.media > 0 => visit_of(Outcome::Unchanged, manifest, reference(&standing)),
        Some(manifest) if manifest.absent.is_some() => visit_of(Outcome::Absent, manifest, reference(&standing)),
        _ => {
            let absence = Absence {
                integration: integration.to_owned(),
                http_status,
                listings: catalog.listings,
                sequence: standing.next_sequence,
                before: standing.manifest,
            };
            Visit { absence: Some(absence), ..Visit::of(Outcome::Absent) }
        }
    };
    if visit.outcome == Outcome::Absent {
        visit.code = Some(Code::VeriffAbsent);
        visit.message = Some(format!("veriff answers {http_status}"));
    }
    if let Some((code, message)) = trouble {
        visit.outcome = Outcome::Failed;
        (visit.code, visit.message, visit.absence) = (Some(code), Some(message), None);
    }
    visit.decided_at = decided_at;
    visit
}

/// Recognises a session of which nothing more is to be asked.
pub(crate) fn recognise(standing: &Standing, record: &SessionRequest, skip_settled: Option<bool>) -> Option<Visit> {
    let newest = standing.manifest.as_ref()?;
    let manifest = &newest.document;
    let is_settled = skip_settled.is_some_and(|known| known || manifest.settled);
    let is_done = is_settled && manifest.complete && manifest.absent.is_none() && standing.shadowed().next().is_none();
    if !is_done && standing.expired.is_none() {
        return None;
    }
    let mut visit = visit_of(Outcome::Unchanged, manifest, Some(reference(standing)?));
    visit.decided_at = record.decided_at.or(manifest.decided_at);
    Some(visit)
}

pub(crate) fn visit_of(outcome: Outcome, manifest: &Manifest, place: Option<ManifestRef>) -> Visit {
    let media = MediaRow::all_of(manifest);
    Visit {
        manifest: place,
        complete: manifest.complete,
        settled: manifest.settled,
        media: media.collect(),
        upstream_created_at: manifest.created_at(),
        decided_at: manifest.decided_at,
        ..Visit::of(outcome)
    }
}

pub(crate) fn reference(standing: &Standing) -> Option<ManifestRef> {
    let newest = standing.manifest.as_ref()?;
    Some(ManifestRef {
        key: newest.place.key.clone(),
        version_id: newest.place.version_id.clone(),
        sequence: newest.document.sequence,
        sha256: newest.place.sha256,
    })
}

pub(crate) fn decided_at(record: &SessionRequest, standing: &Standing) -> Option<Timestamp> {
    record.decided_at.or_else(|| standing.manifest.as_ref().and_then(|newest| newest.document.decided_at))
}

/// Says what a person should know of a visit, and whether it makes the session a failed one.
pub(crate) fn judge(
    standing: &Standing,
    catalog: &Catalog,
    draft: &Draft,
    failures: &[Failure],
    differs: bool,
    conflicts: bool,
) -> Option<(Code, String, bool)> {
    let failed = |(code, message): (Code, String)| (code, message, true);
    let item = || failures.first().map(|failure| (failure.code, failure.message.clone()));
    let gap = || {
        catalog
            .gaps
            .first()
            .map(|code| (*code, "a list or record of the session could not be read completely".to_owned()))
    };
    let empty = || {
        draft::is_empty_though_decided(catalog, draft)
            .then(|| (Code::VeriffEmpty, "the session is decided, but no list has any media".to_owned()))
    };
    shadow(standing).or_else(item).or_else(gap).or_else(empty).map(failed).or_else(|| {
        if conflicts {
            let message = "other bytes were stored under a key; ours are next to them, see conflicts in the manifest";
            return Some((Code::StoreConflict, message.to_owned(), false));
        }
        let message =
            "the request asks for a stricter or longer retention than the existing locks, which are not changed";
        differs.then(|| (Code::RetentionDiffers, message.to_owned(), false))
    })
}

pub(crate) fn shadow(standing: &Standing) -> Option<(Code, String)> {
    let key = &standing.shadowed().next()?.key;
    Some((Code::StoreShadowed, WriteError::Shadowed { key: key.clone() }.to_string()))
}

pub(crate) fn standing_failure(media: &ManifestMedia, code: Code, message: String) -> Failure {
    let missing = MissingItem {
        media_id: media.media_id.clone(),
        attempt_id: AttemptId::session(),
        code: code.as_str().to_owned(),
        http_status: None,
    };
    Failure { missing, code, message }
}
