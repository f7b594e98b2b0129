//! One session on its way into the bag: its manifests, its media with their sidecars, what lies beside them, its page.
//!
//! The newest manifest says what there is, by key, version and digest; nothing else is believed. What is not there, or is
//! something else, stays out and is reported as a problem; a store that does not answer ends the export.

use super::page::RowView;
use super::view::{AttemptView, ManifestView, MediaView, Outcome, ProblemView, SessionView, Shown};
use super::{Export, ExportError, names};
use crate::audit::{Finding, FindingCode, Severity, expired, shadow};
use crate::error::Code;
use crate::model::SessionId;
use crate::model::digest::Sha256Digest;
use crate::model::key::{ObjectKey, SessionObject};
use crate::model::manifest::{ConflictItem, Manifest, ManifestMedia};
use crate::model::retention::Lock;
use crate::model::sidecar::Sidecar;
use crate::session::standing::{InspectError, Standing, StandingManifest, inspect};
use crate::store::StoreError;
use crate::store::document::{Document, read_document};

/// How often a body that breaks off is read from its start again.
const BODY_TRIES: u32 = 4;

const RESTORE: &str =
    "find out who changed it and restore the named version; while Veriff has the session, archive it again";

/// An object as a manifest names it.
struct Wanted<'a> {
    session: &'a SessionId,
    key: &'a ObjectKey,
    version_id: Option<&'a str>,
    size_bytes: Option<u64>,
    sha256: Sha256Digest,
    /// Something of its session was expired by plan, so that it may be gone.
    may_be_gone: bool,
}

/// What came of copying an object.
enum Copied {
    Whole { size_bytes: u64, lock: Option<Lock> },
    Gone,
    Size(u64),
    Digest(Sha256Digest),
}

impl Export<'_> {
    /// Exports a session, apart from its proofs and its page.
    pub(super) async fn session(&mut self, id: &SessionId) -> Result<SessionView, ExportError> {
        let mut view = SessionView::of(id);
        let looked = inspect(self.store, Some(&self.event.archive_id), id).await;
        let standing = match looked {
            Ok(standing) => standing,
            Err(error) => {
                self.tell(&mut view, &unreadable(id, error)?)?;
                Standing::default()
            }
        };
        for finding in standing.shadowed().flat_map(shadow::findings) {
            self.tell(&mut view, &finding.session(id))?;
        }
        if let Some(document) = &standing.expired {
            self.tell(&mut view, &expired::finding(Severity::Warn, id, document))?;
        }
        match &standing.manifest {
            Some(manifest) => self.evidence(id, &standing, manifest, &mut view).await?,
            None if view.problems.iter().any(|problem| problem.is_error) => {}
            None => {
                let repair = "check the id and the store; archive it with veriff-archive run, if Veriff still has it";
                let finding = Finding::of(Severity::Warn, FindingCode::SessionUnarchived, repair).session(id);
                self.tell(&mut view, &finding)?;
            }
        }
        tracing::info!(session.id = %id, media = view.items, size_bytes = view.bytes, problems = view.problems.len(), "exported");
        Ok(view)
    }

    /// Counts the session and writes its page, or its part of the one page.
    pub(super) fn show(&mut self, view: &SessionView) -> Result<(), ExportError> {
        let counts = &mut self.answer.sessions;
        let count = match view.outcome() {
            Outcome::Unarchived => &mut counts.unarchived,
            Outcome::Damaged => &mut counts.damaged,
            Outcome::Expired => &mut counts.expired,
            Outcome::Absent => &mut counts.absent,
            Outcome::Whole => &mut counts.whole,
        };
        *count += 1;
        self.row(&RowView::of(view, self.is_one_page()))?;
        if self.is_one_page() {
            let html = self.page.section(view, &self.event, &format!("{}/", view.session_id))?;
            return self.sections.add(&html).map_err(|source| self.unwritable(source));
        }
        let html = self.page.session(view, &self.event)?;
        let path = format!("data/{}/index.html", view.session_id);
        self.bag.add(&path, html.as_bytes()).map_err(|source| self.unwritable(source))
    }

    /// Takes a problem of a session.
    pub(super) fn tell(&mut self, view: &mut SessionView, finding: &Finding) -> Result<(), ExportError> {
        view.problems.push(ProblemView::of(finding));
        self.problem(finding)
    }

    /// Exports what the newest manifest names.
    async fn evidence(
        &mut self,
        id: &SessionId,
        standing: &Standing,
        manifest: &StandingManifest,
        view: &mut SessionView,
    ) -> Result<(), ExportError> {
        let document = &manifest.document;
        view.describe(document);
        self.manifests(id, standing, manifest, view).await?;
        for (number, attempt) in (1..).zip(&document.attempts) {
            let folder = names::attempt(number, attempt);
            let mut shown = AttemptView::of(number, attempt);
            for (number, media) in (1..).zip(&attempt.media) {
                let path = format!("{folder}/{}", names::media(number, media));
                let shown_media = self.media(id, standing, media, path, view).await?;
                shown.media.push(shown_media);
            }
            view.attempts.push(shown);
        }
        for (number, conflict) in (1..).zip(&document.conflicts) {
            let path = format!("conflicts/{}", names::conflict(number, &conflict.key));
            let shown = self.conflict(id, standing, conflict, path, view).await?;
            view.conflicts.push(shown);
        }
        Ok(())
    }

    /// Exports all manifests of a session. Each vouches for the one before it by digest, the newest for itself.
    async fn manifests(
        &mut self,
        id: &SessionId,
        standing: &Standing,
        newest: &StandingManifest,
        view: &mut SessionView,
    ) -> Result<(), ExportError> {
        let mut place = Some(newest.place.clone());
        let mut number = newest.document.sequence;
        while number > 0 {
            let key = ObjectKey::manifest(id, number);
            number -= 1;
            let named = place.take_if(|place| place.key == key);
            let version_id = match (&named, standing.object(&key)) {
                (Some(named), _) => named.version_id.clone(),
                (None, Some(object)) => object.version_id.clone(),
                // Nothing of the archive was ever under this number; whatever covers it was reported.
                (None, None) => continue,
            };
            let read = self.read(&key, version_id.as_deref()).await?;
            let finding = || {
                let finding = Finding::of(Severity::Error, FindingCode::ManifestInvalid, RESTORE);
                finding.session(id).object(&key, version_id.as_deref())
            };
            let Document { bytes, sha256, lock } = match read {
                Ok(document) => document,
                Err(found) => {
                    self.tell(view, &finding().differs("a manifest", found))?;
                    continue;
                }
            };
            if let Some(expected) = named.as_ref().map(|named| named.sha256).filter(|expected| *expected != sha256) {
                self.tell(view, &finding().differs(expected, sha256))?;
                continue;
            }
            let Some(document) = Manifest::parse(&bytes).filter(|document| document.session_id == *id) else {
                self.tell(view, &finding().differs("a manifest of this session", "something else"))?;
                continue;
            };
            let file = format!("manifests/{:04}.json", document.sequence);
            self.add(id, &file, &bytes)?;
            view.manifests.insert(0, ManifestView::of(&document, &key, version_id.as_deref(), sha256, lock, file));
            place = document.previous;
        }
        Ok(())
    }

    /// Exports a media item and its sidecar.
    async fn media(
        &mut self,
        id: &SessionId,
        standing: &Standing,
        media: &ManifestMedia,
        path: String,
        view: &mut SessionView,
    ) -> Result<MediaView, ExportError> {
        let is_its_own =
            matches!(media.key.read_as(id), SessionObject::Media { media_id, .. } if media_id == media.media_id);
        let wanted = Wanted {
            session: id,
            key: &media.key,
            version_id: media.version_id.as_deref(),
            size_bytes: Some(media.size_bytes),
            sha256: media.sha256,
            may_be_gone: standing.expired.is_some(),
        };
        let mut shown = MediaView::of(media);
        if is_its_own {
            self.object(&wanted, &path, &mut shown, view).await?;
            let sidecar = Wanted {
                key: &media.key.sidecar(),
                version_id: media.sidecar_version_id.as_deref(),
                size_bytes: None,
                sha256: media.sidecar_sha256,
                ..wanted
            };
            self.sidecar(&sidecar, &path, &mut shown, view).await?;
        } else {
            self.tell(view, &misnamed(&wanted))?;
        }
        Ok(shown)
    }

    /// Exports what lies beside a key that other bytes had taken, and its sidecar.
    async fn conflict(
        &mut self,
        id: &SessionId,
        standing: &Standing,
        conflict: &ConflictItem,
        path: String,
        view: &mut SessionView,
    ) -> Result<MediaView, ExportError> {
        let wanted = Wanted {
            session: id,
            key: &conflict.key,
            version_id: conflict.version_id.as_deref(),
            size_bytes: None,
            sha256: conflict.sha256,
            may_be_gone: standing.expired.is_some(),
        };
        let mut shown = MediaView::of_conflict(conflict);
        if conflict.key.read_as(id) != SessionObject::Conflict {
            self.tell(view, &misnamed(&wanted))?;
            return Ok(shown);
        }
        self.object(&wanted, &path, &mut shown, view).await?;
        let key = conflict.key.sidecar();
        if let Some(sha256) = conflict.sidecar_sha256 {
            let version_id = conflict.sidecar_version_id.as_deref();
            let sidecar = Wanted { key: &key, version_id, sha256, ..wanted };
            self.sidecar(&sidecar, &path, &mut shown, view).await?;
            return Ok(shown);
        }
        // An early manifest has no digest of this sidecar: what it says of the bytes is compared with them.
        let object = standing.object(&key);
        let version_id = object.and_then(|object| object.version_id.as_deref());
        let sidecar = Wanted { key: &key, version_id, ..wanted };
        let tells =
            |document: &Sidecar| document.object.sha256 == conflict.sha256 && document.object.key == conflict.key;
        let read = if object.is_some() { self.read(&key, version_id).await? } else { Err("nothing of the archive") };
        match read {
            Ok(read) => match Sidecar::parse(&read.bytes).filter(tells) {
                Some(document) => self.add_sidecar(id, &path, &read.bytes, &document, &mut shown)?,
                None => self.tell(view, &of_sidecar(&sidecar).differs(conflict.sha256, "something else"))?,
            },
            Err(_) if standing.expired.is_some() => {}
            Err(found) => self.tell(view, &of_sidecar(&sidecar).differs("a sidecar", found))?,
        }
        Ok(shown)
    }

    /// Copies an object and says what is wrong with it.
    async fn object(
        &mut self,
        wanted: &Wanted<'_>,
        path: &str,
        shown: &mut MediaView,
        view: &mut SessionView,
    ) -> Result<(), ExportError> {
        let finding = |code| {
            Finding::of(Severity::Error, code, RESTORE).session(wanted.session).object(wanted.key, wanted.version_id)
        };
        let problem = match self.copy(wanted, &format!("data/{}/{path}", wanted.session)).await? {
            Copied::Whole { size_bytes, lock } => {
                self.answer.objects += 1;
                self.answer.bytes += size_bytes;
                view.items += 1;
                view.bytes += size_bytes;
                shown.stands(path.to_owned(), size_bytes, lock);
                return Ok(());
            }
            Copied::Gone if wanted.may_be_gone => {
                shown.state = Shown::Expired;
                view.expired += 1;
                return Ok(());
            }
            Copied::Gone => finding(FindingCode::ObjectMissing).differs(wanted.sha256, "nothing"),
            Copied::Size(found) => {
                let expected = wanted.size_bytes.unwrap_or_default();
                finding(FindingCode::ObjectSize).differs(format!("{expected} bytes"), format!("{found} bytes"))
            }
            Copied::Digest(found) => finding(FindingCode::ObjectDigest).differs(wanted.sha256, found),
        };
        shown.state = Shown::Damaged;
        self.tell(view, &problem)
    }

    /// Copies an object, from its start again where its body breaks off.
    async fn copy(&mut self, wanted: &Wanted<'_>, path: &str) -> Result<Copied, ExportError> {
        let mut tries = 1;
        loop {
            match self.copy_once(wanted, path).await {
                Err(ExportError::Store(error)) if error.code() == Code::StoreUnavailable && tries < BODY_TRIES => {
                    tracing::debug!(object.key = %wanted.key, tries, "a body broke off: {error}");
                    self.bag.discard().map_err(|source| self.unwritable(source))?;
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    async fn copy_once(&mut self, wanted: &Wanted<'_>, path: &str) -> Result<Copied, ExportError> {
        let Some(mut body) = self.store.open(wanted.key, wanted.version_id).await? else {
            return Ok(Copied::Gone);
        };
        if wanted.size_bytes.is_some_and(|expected| expected != body.size_bytes) {
            return Ok(Copied::Size(body.size_bytes));
        }
        let lock = body.lock;
        self.bag.begin(path, body.size_bytes).map_err(|source| self.unwritable(source))?;
        while let Some(chunk) = body.chunk().await? {
            self.bag.write(&chunk).map_err(|source| self.unwritable(source))?;
        }
        match self.bag.written() {
            Some((sha256, size_bytes)) if sha256 == wanted.sha256 => {
                self.bag.keep().map_err(|source| self.unwritable(source))?;
                Ok(Copied::Whole { size_bytes, lock })
            }
            written => {
                self.bag.discard().map_err(|source| self.unwritable(source))?;
                let found = written.map_or_else(|| Sha256Digest::of(b""), |(sha256, _)| sha256);
                Ok(Copied::Digest(found))
            }
        }
    }

    /// Copies the sidecar of a media item.
    async fn sidecar(
        &mut self,
        wanted: &Wanted<'_>,
        path: &str,
        shown: &mut MediaView,
        view: &mut SessionView,
    ) -> Result<(), ExportError> {
        let read = match self.read(wanted.key, wanted.version_id).await? {
            Ok(read) => read,
            Err(_) if wanted.may_be_gone => return Ok(()),
            Err(found) => return self.tell(view, &of_sidecar(wanted).differs(wanted.sha256, found)),
        };
        if read.sha256 != wanted.sha256 {
            return self.tell(view, &of_sidecar(wanted).differs(wanted.sha256, read.sha256));
        }
        match Sidecar::parse(&read.bytes) {
            Some(document) => self.add_sidecar(wanted.session, path, &read.bytes, &document, shown),
            None => self.tell(view, &of_sidecar(wanted).differs("a sidecar", "something else")),
        }
    }

    /// Reads a document whole, again where its body breaks off; says what there is if it is none.
    async fn read(
        &self,
        key: &ObjectKey,
        version_id: Option<&str>,
    ) -> Result<Result<Document, &'static str>, ExportError> {
        match read_document(self.store, key, version_id).await {
            Ok(document) => Ok(document.ok_or("nothing")),
            Err(StoreError::TooLarge { .. }) => Ok(Err("longer than any document")),
            Err(error) => Err(error.into()),
        }
    }

    fn add_sidecar(
        &mut self,
        id: &SessionId,
        path: &str,
        bytes: &[u8],
        document: &Sidecar,
        shown: &mut MediaView,
    ) -> Result<(), ExportError> {
        let file = names::sidecar(path);
        self.add(id, &file, bytes)?;
        shown.tells(document, file);
        Ok(())
    }

    /// Adds a document of a session.
    pub(super) fn add(&mut self, id: &SessionId, file: &str, bytes: &[u8]) -> Result<(), ExportError> {
        self.bag.add(&format!("data/{id}/{file}"), bytes).map_err(|source| self.unwritable(source))
    }
}

/// Makes a finding of a newest manifest that cannot be worked with; gives a store's refusal back.
fn unreadable(id: &SessionId, error: InspectError) -> Result<Finding, ExportError> {
    let finding = |key: &ObjectKey, found: &str| {
        let repair = "restore the version that the ledger or a run record names";
        Finding::of(Severity::Error, FindingCode::ManifestInvalid, repair)
            .session(id)
            .object(key, None)
            .differs("the newest manifest of the session", found)
    };
    match error {
        InspectError::Damaged { key, reason } => Ok(finding(&key, reason)),
        InspectError::Foreign { key } => Ok(finding(&key, "belongs to another archive")),
        InspectError::Store(StoreError::TooLarge { .. }) => {
            let key = ObjectKey::from_store(ObjectKey::session_prefix(id));
            Ok(finding(&key, "longer than any document of this program"))
        }
        InspectError::Store(error) => Err(error.into()),
    }
}

/// Makes a finding of a manifest that names a key which is not its item's.
fn misnamed(wanted: &Wanted<'_>) -> Finding {
    Finding::of(Severity::Error, FindingCode::ManifestInvalid, RESTORE)
        .session(wanted.session)
        .object(wanted.key, wanted.version_id)
        .differs("a key of the item it names", "another key")
}

fn of_sidecar(wanted: &Wanted<'_>) -> Finding {
    Finding::of(Severity::Error, FindingCode::SidecarInvalid, RESTORE)
        .session(wanted.session)
        .object(wanted.key, wanted.version_id)
}
