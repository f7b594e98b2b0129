//! `audit retention`: is everything kept as strictly and as long as it must be, and no longer than it may?
//!
//! The lock of every object, by its version, against what its sidecar promised when it was written and against the policy
//! in force; of every manifest against its items; of the other documents against the default class. Also whether the keys
//! that objects are encrypted with can still be used. Tells in a calendar what can be deleted from when on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::evidence::{Evidence, ManifestFacts};
use super::fixity::ITEMS_IN_FLIGHT;
use super::lock::{Shown, hidden_locks};
use super::reach::{Reach, Told, refused};
use super::runner::AuditError;
use super::scope::Scope;
use super::sessions::{AuditStep, AuditTally, Checked, Mark, steadily};
use super::sidecar::{self, Named};
use super::walk::WalkedSession;
use super::{Finding, FindingCode, Severity, shadow};
use crate::clock::Timestamp;
use crate::ledger::{SessionRow, Survey};
use crate::model::key::{ObjectKey, StoreObject};
use crate::model::retention::{ABSENT_LOCK_PERIOD, DEFAULT_CLASS, Lock, Mode, RetentionPolicy, lock_date};
use crate::model::sidecar::Sidecar;
use crate::model::{ArchiveId, SessionId};
use crate::session::writer::promised_lock;
use crate::store::versions::{KeyVersions, KeyWalk};
use crate::store::{ListedVersion, ObjectHead, ReadStore, StoreError};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// How many keys of the key service are told apart; an archive has one, or a few after rotations.
const MAX_KEYS: usize = 64;

/// What manifests are called in the calendar.
const MANIFEST_CLASS: &str = "manifest";

/// What documents that belong to no session are called in the calendar.
const DOCUMENT_CLASS: &str = "document";

/// Where the documents are that belong to no session, in the order of keys.
const DOCUMENTS: [&str; 3] = ["archive.json", "events/", "runs/"];

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetentionTally {
    /// Sessions.
    pub sessions: u64,
    /// Objects of every kind whose lock was looked at.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects whose lock has ended.
    pub expired: u64,
    /// Objects whose lock the store would not tell.
    pub hidden_locks: u64,
    /// Objects and bytes by `month|mode|class`.
    pub calendar: BTreeMap<String, (u64, u64)>,
    /// Objects of classes that are not configured, by class.
    pub unknown_classes: BTreeMap<String, u64>,
    /// Objects by the key they are encrypted with; an empty text stands for none of the key service.
    pub keys: BTreeMap<String, u64>,
}

impl AuditTally for RetentionTally {
    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.expired += other.expired;
        self.hidden_locks += other.hidden_locks;
        for (entry, (objects, bytes)) in other.calendar {
            let sum = self.calendar.entry(entry).or_default();
            sum.0 += objects;
            sum.1 += bytes;
        }
        for (class, objects) in other.unknown_classes {
            *self.unknown_classes.entry(class).or_default() += objects;
        }
        for (key, objects) in other.keys {
            if self.keys.len() < MAX_KEYS || self.keys.contains_key(&key) {
                *self.keys.entry(key).or_default() += objects;
            }
        }
    }

    fn checked(&self) -> Vec<(&'static str, u64)> {
        vec![("sessions", self.sessions), ("objects", self.objects), ("bytes", self.bytes)]
    }
}

impl RetentionTally {
    /// Lists when what can be deleted.
    #[must_use]
    pub fn calendar(&self) -> serde_json::Value {
        let entries = self.calendar.iter().map(|(entry, (objects, bytes))| {
            let mut words = entry.splitn(3, '|');
            let until = words.next().filter(|until| !until.is_empty());
            let (mode, class) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            serde_json::json!({"until": until, "mode": mode, "class": class, "objects": objects, "bytes": bytes})
        });
        entries.collect()
    }

    fn note(&mut self, class: &str, lock: Option<Lock>, size_bytes: u64) {
        let (until, mode) = lock.map_or((String::new(), Mode::None), |lock| {
            (lock.retain_until.to_string().chars().take(7).collect(), lock.mode)
        });
        let sum = self.calendar.entry(format!("{until}|{mode}|{class}")).or_default();
        sum.0 += 1;
        sum.1 += size_bytes;
    }
}

/// Looks at one session after another, and at the documents beside them.
#[derive(Debug)]
pub struct Retention<'a> {
    /// The store.
    pub reach: Reach<'a>,
    /// What the ledger knows, where there is one.
    pub ledger: Option<&'a dyn Survey>,
    /// The archive that the store is.
    pub archive: Option<ArchiveId>,
    /// The policy in force.
    pub policy: &'a RetentionPolicy,
    /// The key that objects must be encrypted with, where one is configured.
    pub kms_key_id: Option<&'a str>,
    /// Keys that were tried, and those that failed.
    pub keys_tried: Mutex<BTreeSet<String>>,
}

/// What is due to an object.
struct Due<'d> {
    /// What it was promised, and by whom.
    promised: Option<(Lock, &'static str)>,
    /// What the current policy requires at least.
    least: Option<Lock>,
    /// What the policy in force allows at most.
    latest: Option<Timestamp>,
    /// What it is called in the calendar.
    class: &'d str,
}

/// What the items of a manifest are due.
#[derive(Debug, Default)]
struct Items {
    promised: BTreeMap<ObjectKey, Lock>,
    latest: BTreeMap<ObjectKey, Timestamp>,
}

impl Retention<'_> {
    /// Looks at one session.
    ///
    /// # Errors
    /// As the store's and the ledger's.
    pub async fn check(&self, walked: WalkedSession) -> Result<Checked<RetentionTally>, AuditError> {
        let look = async |session: &SessionId, walked: &WalkedSession, _: Option<&SessionRow>| {
            self.look(session, walked).await
        };
        steadily(&self.reach, self.ledger, walked, look).await
    }

    async fn look(&self, session: &SessionId, walked: &WalkedSession) -> Result<Checked<RetentionTally>, AuditError> {
        let evidence = Evidence::read(&self.reach, self.archive.as_ref(), session.clone(), walked, None).await?;
        let mut part = Checked::<RetentionTally>::default();
        part.tally.sessions = 1;
        // What is wrong with bytes is fixity's; here only what shadows an object, or keeps its lock from being judged.
        let hinders = |finding: &&Finding| {
            use FindingCode::{KeyUnusable, ManifestInvalid, ObjectHidden, ObjectShadowed, ObjectUnreadable};
            matches!(finding.code, ManifestInvalid | ObjectUnreadable | KeyUnusable | ObjectHidden | ObjectShadowed)
        };
        part.findings.extend(evidence.findings.iter().filter(hinders).cloned());
        let mut items = Items::default();
        if let Some(newest) = &evidence.newest {
            let media = newest.media().map(|(_, media)| Named::media(media));
            let named: Vec<Named<'_>> = media.chain(newest.conflicts.iter().map(Named::conflict)).collect();
            let checks: Vec<_> = named.iter().map(|named| self.check_item(&evidence, named)).collect();
            let checked: Vec<_> = stream::iter(checks).buffered(ITEMS_IN_FLIGHT).try_collect().await?;
            for (named, (of_item, promised, latest)) in named.iter().zip(checked) {
                part.findings.extend(of_item.findings);
                part.tally.add(of_item.tally);
                items.promised.extend(promised.map(|lock| (named.key.clone(), lock)));
                items.latest.extend(latest.map(|latest| (named.key.clone(), latest)));
            }
        }
        for manifest in &evidence.manifests {
            self.check_manifest(&evidence, manifest, &items, &mut part).await?;
        }
        part.findings.extend(evidence.expired());
        Ok(part)
    }

    /// Looks at an object and its sidecar; returns what the sidecar promises, and the latest date that is allowed.
    async fn check_item(
        &self,
        evidence: &Evidence,
        named: &Named<'_>,
    ) -> Result<(Checked<RetentionTally>, Option<Lock>, Option<Timestamp>), AuditError> {
        let mut part = Checked::default();
        let (read, _) = sidecar::read(&self.reach, evidence, named, self.archive.as_ref()).await?;
        let read = match read {
            Ok(Some(read)) => read,
            // Without it nobody knows what the object was promised.
            Ok(None) => return Ok((part, None, None)),
            Err(finding) => {
                part.findings.push(*finding);
                return Ok((part, None, None));
            }
        };
        let class = &read.document.retention.class;
        let terms = self.policy.class(class);
        if terms.is_none() {
            part.tally.unknown_classes.insert(class.clone(), 2);
        }
        let promised = promised_lock(&read.document);
        let counted_from = read.document.retention.counted_from;
        let latest = terms.and_then(|terms| terms.latest(written_at(&read.document, evidence.own(&read.key))));
        let due = |by| Due {
            promised: promised.map(|lock| (lock, by)),
            least: terms.and_then(|terms| terms.least(counted_from)),
            latest,
            class,
        };
        let begin = |severity, code, repair: &str| {
            evidence.finding(severity, code, &read.key, read.version_id.as_deref(), repair)
        };
        let size_bytes = evidence.own(&read.key).map_or(0, |own| own.size_bytes);
        let shown = self.shown(&read.key, read.version_id.as_deref(), read.lock).await?;
        self.judge(shown, size_bytes, &due("it promises itself"), begin, &mut part);
        let begin =
            |severity, code, repair: &str| evidence.finding(severity, code, named.key, named.version_id, repair);
        match evidence.item(named.key, named.version_id) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok((part, promised, latest)),
            Err(finding) => {
                part.findings.push(*finding);
                return Ok((part, promised, latest));
            }
        }
        if let Some(head) = self.head(named.key, named.version_id, &begin, &mut part).await? {
            let shown = self.shown(named.key, named.version_id, head.lock).await?;
            self.judge(shown, head.size_bytes, &due("its sidecar promises"), begin, &mut part);
        }
        Ok((part, promised, latest))
    }

    /// A manifest is kept as strictly and as long as the strictest and longest of its items; one without any, for a while.
    async fn check_manifest(
        &self,
        evidence: &Evidence,
        manifest: &ManifestFacts,
        items: &Items,
        part: &mut Checked<RetentionTally>,
    ) -> Result<(), AuditError> {
        let (key, version_id) = (&manifest.version.key, manifest.version.version_id.as_deref());
        let default = self.policy.class(DEFAULT_CLASS);
        let (promised, latest) = if manifest.media.is_empty() {
            let retain_until = lock_date(ABSENT_LOCK_PERIOD, manifest.archived_at, manifest.archived_at);
            let lock = Lock { mode: Mode::Governance, retain_until };
            let latest = default.and_then(|class| class.latest(manifest.archived_at));
            (self.policy.demands_locks().then_some((lock, "manifests without media require")), latest)
        } else {
            let of_items = manifest.media.iter().filter_map(|key| items.promised.get(key)).copied();
            let latest = manifest.media.iter().filter_map(|key| items.latest.get(key)).max().copied();
            // Those that are gone by plan may have been allowed to stand longer than those that are left.
            let latest = latest.filter(|_| !manifest.media.iter().any(|key| evidence.is_expired_item(&key.sidecar())));
            (of_items.reduce(Lock::strictest).map(|lock| (lock, "its items were promised")), latest)
        };
        let due = Due { promised, least: None, latest, class: MANIFEST_CLASS };
        let begin = |severity, code, repair: &str| evidence.finding(severity, code, key, version_id, repair);
        let shown = self.shown(key, version_id, manifest.lock).await?;
        self.judge(shown, manifest.version.size_bytes, &due, begin, part);
        Ok(())
    }

    /// Looks at a document that belongs to no session.
    ///
    /// # Errors
    /// As the store's.
    pub async fn check_document(&self, listed: KeyVersions) -> Result<Checked<RetentionTally>, AuditError> {
        let mut part = Checked::default();
        if !is_document(&listed.key) {
            return Ok(part);
        }
        // What shadows archive.json was reported when it was read.
        if listed.key.read() != StoreObject::Archive {
            part.findings.extend(shadow::findings(&listed));
        }
        let Some(version) = listed.own else { return Ok(part) };
        let version_id = version.version_id.as_deref();
        let begin = |severity, code, repair: &str| Finding::of(severity, code, repair).object(&version.key, version_id);
        let Some(head) = self.head(&version.key, version_id, &begin, &mut part).await? else { return Ok(part) };
        let class = self.policy.class(DEFAULT_CLASS);
        // Its date was counted from the moment before it was written, which the store does not keep.
        let at_the_latest = version.modified_at.unwrap_or_else(|| self.reach.store().now());
        let due = Due {
            promised: None,
            least: version.modified_at.and_then(|at| class?.least(at.plus_millis(-DAY_MS))),
            latest: class.and_then(|class| class.latest(at_the_latest)),
            class: DOCUMENT_CLASS,
        };
        let shown = self.shown(&version.key, version_id, head.lock).await?;
        self.judge(shown, head.size_bytes, &due, begin, &mut part);
        Ok(part)
    }

    /// Lists the documents that belong to no session, behind a place.
    pub fn documents<'s>(
        store: &'s dyn ReadStore,
        scope: &'s Scope,
        from: &Mark,
    ) -> impl Stream<Item = Result<AuditStep<KeyVersions>, AuditError>> + 's {
        let after = from.after.clone().filter(|_| from.past_sessions);
        let prefixes = DOCUMENTS
            .into_iter()
            .filter(move |prefix| after.as_deref().is_none_or(|after| after < *prefix || after.starts_with(prefix)));
        let after = from.after.clone().filter(|_| from.past_sessions);
        let pages = prefixes.map(move |prefix| {
            let after = after.as_deref().filter(|after| after.starts_with(prefix));
            KeyWalk::of(store, prefix).behind(after.map(ObjectKey::from_store)).into_stream()
        });
        stream::iter(pages).flatten().map(move |listed| {
            let listed = listed?;
            let mark = Mark { past_sessions: true, after: Some(listed.key.to_string()), records: 0 };
            let work = scope.takes(listed.key.as_str()).then_some(listed);
            Ok(AuditStep { mark, work })
        })
    }

    async fn head(
        &self,
        key: &ObjectKey,
        version_id: Option<&str>,
        begin: &impl Fn(Severity, FindingCode, &str) -> Finding,
        part: &mut Checked<RetentionTally>,
    ) -> Result<Option<ObjectHead>, StoreError> {
        let head = match self.reach.head(key, version_id).await? {
            Told::Is(head) => head,
            Told::Gone => {
                let finding = begin(Severity::Error, FindingCode::ObjectMissing, super::evidence::RESTORE);
                part.findings.push(finding.differs("the object", "it is listed but does not exist"));
                return Ok(None);
            }
            Told::Refused(error) => {
                part.findings.push(refused("the object", &error, begin));
                return Ok(None);
            }
        };
        *part.tally.keys.entry(head.kms_key_id.clone().unwrap_or_default()).or_default() += 1;
        if let Some(kms_key_id) = &head.kms_key_id
            && self.is_new_key(kms_key_id)
        {
            // A key is usable if something that it encrypts can be read.
            let read = self.reach.with_body(key, version_id, async |mut body| body.chunk().await.map(|_| ())).await?;
            if let Told::Refused(reason) = read {
                let repair = "check that the key exists, is enabled, and may be used by the auditor (kms:Decrypt) and \
                              the archiver";
                let finding = begin(Severity::Error, FindingCode::KeyUnusable, repair);
                part.findings.push(finding.differs(format!("key {kms_key_id}, usable"), reason));
            }
        }
        Ok(Some(head))
    }

    fn is_new_key(&self, key: &str) -> bool {
        let mut tried = self.keys_tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.len() < MAX_KEYS && tried.insert(key.to_owned())
    }

    async fn shown(&self, key: &ObjectKey, version_id: Option<&str>, lock: Option<Lock>) -> Result<Shown, StoreError> {
        if self.reach.keeps_locks() { Shown::of(&self.reach, key, version_id, lock).await } else { Ok(Shown::Unlocked) }
    }

    /// Judges one lock.
    fn judge(
        &self,
        shown: Shown,
        size_bytes: u64,
        due: &Due<'_>,
        begin: impl Fn(Severity, FindingCode, &str) -> Finding,
        part: &mut Checked<RetentionTally>,
    ) {
        part.tally.objects += 1;
        part.tally.bytes += size_bytes;
        let lock = match shown {
            Shown::Lock(lock) => Some(lock),
            Shown::Unlocked => None,
            Shown::Hidden => {
                part.tally.hidden_locks += 1;
                return;
            }
        };
        part.tally.note(due.class, lock, size_bytes);
        if !self.reach.keeps_locks() {
            return;
        }
        let now = self.reach.store().now();
        part.tally.expired += u64::from(lock.is_some_and(|lock| lock.retain_until <= now));
        let weaker = due
            .promised
            .and_then(|(promised, by)| shown.weaker_than(promised, by))
            .or_else(|| due.least.and_then(|least| shown.weaker_than(least, "the current policy requires")));
        part.findings.extend(weaker.map(|weaker| weaker.finding(&begin)));
        if let (Some(lock), Some(latest)) = (lock, due.latest)
            && lock.retain_until > latest
        {
            let repair = match lock.mode {
                Mode::Compliance => {
                    "nobody can shorten it; find out who set it, and note it as retained longer than lawful"
                }
                _ => "find out who set it; a person with s3:BypassGovernanceRetention can shorten it",
            };
            let finding = begin(Severity::Error, FindingCode::LockLong, repair);
            let expected = format!("until {latest} at most, as the current policy allows");
            part.findings.push(finding.differs(expected, format!("{} until {}", lock.mode, lock.retain_until)));
        }
    }

    /// Tells once, at the end, what concerns many objects.
    #[must_use]
    pub fn closing_findings(&self, tally: &RetentionTally) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.reach.keeps_locks() && tally.objects > 0 {
            let repair = "use a bucket with Object Lock, if the law requires locks";
            findings.push(
                Finding::of(Severity::Info, FindingCode::LockUnsupported, repair)
                    .differs("a store that can lock", "a directory: anyone who can write there can delete"),
            );
        }
        findings.extend(hidden_locks(tally.hidden_locks, Severity::Error));
        if tally.expired > 0 {
            let repair = "decide what to delete; until then anyone with the permission can delete it";
            findings.push(
                Finding::of(Severity::Info, FindingCode::LockExpired, repair)
                    .differs("locks that last", format!("the locks of {} objects have ended", tally.expired)),
            );
        }
        for (class, objects) in &tally.unknown_classes {
            let repair =
                format!("add retention.classes.{class} to the configuration, as it was when they were archived");
            findings.push(
                Finding::of(Severity::Warn, FindingCode::ClassUnknown, repair)
                    .differs("a configured class", format!("{objects} objects of class {class}")),
            );
        }
        if let Some(asked) = self.kms_key_id.filter(|asked| !asked.contains("alias/")) {
            for (key, objects) in tally.keys.iter().filter(|(key, _)| !key.ends_with(asked)) {
                let repair = "nothing, if the key was changed on purpose: then leave the old one enabled";
                let key = if key.is_empty() { "no KMS key" } else { key };
                findings.push(
                    Finding::of(Severity::Warn, FindingCode::KeyDiffers, repair)
                        .differs(format!("key {asked}, as configured"), format!("{objects} objects with {key}")),
                );
            }
        }
        findings
    }
}

/// Tells when an object's date was counted, or a little later: when its bytes came, else when its sidecar was written.
fn written_at(sidecar: &Sidecar, written: Option<&ListedVersion>) -> Timestamp {
    let fetched_at = sidecar.upstream.as_ref().map(|upstream| upstream.fetched_at);
    let written_at = written.and_then(|version| version.modified_at);
    let times = [fetched_at, written_at, Some(sidecar.retention.counted_from)];
    times.into_iter().flatten().max().unwrap_or(sidecar.retention.counted_from)
}

fn is_document(key: &ObjectKey) -> bool {
    !matches!(key.read(), StoreObject::Unknown | StoreObject::OfSession(..))
}
