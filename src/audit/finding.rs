//! Findings: one thing that an audit found wrong, with what was expected, what was found, and what repairs it.

use std::fmt;

use serde::Serialize;

use crate::model::key::ObjectKey;
use crate::model::{RunId, SessionId};

/// The value of `schema` in a finding.
pub const FINDING_SCHEMA: &str = "veriff-archive/finding/v1";

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The archive is not what it must be; the audit exits 4.
    Error,
    /// Not wrong in itself, and worth a look.
    Warn,
    /// Good to know.
    Info,
}

macro_rules! finding_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)+) => {
        /// What was found: a stable code, `module.reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FindingCode { $($(#[$doc])* $variant,)+ }

        impl FindingCode {
            /// Every code of a finding, in the order of the runbook.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the text that stands in findings.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

finding_codes! {
    /// An object that a manifest, the ledger or a record names is not there.
    ObjectMissing = "object.missing";
    /// An object differs in size from what is written of it.
    ObjectSize = "object.size";
    /// The bytes of an object, or the checksum the store keeps of it, differ from what is written of it.
    ObjectDigest = "object.digest";
    /// The store keeps no checksum of an object that can be compared.
    ObjectUnchecked = "object.unchecked";
    /// A delete marker hides an object.
    ObjectHidden = "object.hidden";
    /// A later version shadows an object.
    ObjectShadowed = "object.shadowed";
    /// An object under a key that nothing of the archive names.
    ObjectUnknown = "object.unknown";
    /// The store refuses to hand an object out.
    ObjectUnreadable = "object.unreadable";
    /// A sidecar is missing, cannot be read, or tells of something else.
    SidecarInvalid = "sidecar.invalid";
    /// A manifest is missing, cannot be read, or contradicts the one before it.
    ManifestInvalid = "manifest.invalid";
    /// A session that was asked for has no manifest in the archive.
    SessionUnarchived = "session.unarchived";
    /// Something of a session that was asked for was expired by plan.
    SessionExpired = "session.expired";
    /// `archive.json` is missing, cannot be read, or another than the documents name.
    ArchiveInvalid = "archive.invalid";
    /// An object that must be locked is not.
    LockMissing = "lock.missing";
    /// A lock ends earlier than its sidecar promises or the policy demands.
    LockShort = "lock.short";
    /// A lock has a weaker mode than its sidecar promises or the policy demands.
    LockWeak = "lock.weak";
    /// A lock ends later than the policy's maximum allows.
    LockLong = "lock.long";
    /// The store does not tell whether objects are locked.
    LockUnreadable = "lock.unreadable";
    /// Locks have ended: their objects can be deleted.
    LockExpired = "lock.expired";
    /// The store cannot lock at all.
    LockUnsupported = "lock.unsupported";
    /// A sidecar names a retention class that is not configured.
    ClassUnknown = "class.unknown";
    /// Objects encrypted with a key cannot be read.
    KeyUnusable = "key.unusable";
    /// Objects are encrypted with another key than the configured one, or with none of the key service.
    KeyDiffers = "key.differs";
    /// A session that is expected, or that Veriff has, is not archived.
    CoverageSession = "coverage.session";
    /// An attempt that Veriff has is in no manifest.
    CoverageAttempt = "coverage.attempt";
    /// A media item that Veriff has is not archived.
    CoverageMedia = "coverage.media";
    /// The status of an attempt went on since it was archived.
    CoverageStatus = "coverage.status";
    /// A session could not be asked for, or one of its lists could not be read.
    CoverageUnasked = "coverage.unasked";
    /// Sessions that are archived are absent at Veriff now.
    CoverageAbsent = "coverage.absent";
    /// Sessions are older than Veriff keeps media: its lists may leave out what it had.
    CoverageHorizon = "coverage.horizon";
    /// The ledger has no row of a session or run of which the store has the documents.
    LedgerMissing = "ledger.missing";
    /// The ledger says something else than the manifest, or than the run record.
    LedgerContradicts = "ledger.contradicts";
    /// The store has a later manifest, or a record, than the ledger knows.
    LedgerBehind = "ledger.behind";
    /// An entry of a chain is missing.
    ChainGap = "chain.gap";
    /// An entry of a chain does not follow the one before, or tells of something else than its key.
    ChainBroken = "chain.broken";
    /// A signature is not that of its document, or by a key that was not given.
    ChainSignature = "chain.signature";
    /// A run, a chain or the whole archive is not signed.
    ChainUnsigned = "chain.unsigned";
    /// No key was given, so no signature was checked.
    ChainUnchecked = "chain.unchecked";
    /// An entry that was noted earlier is not there.
    ChainHead = "chain.head";
    /// A chain names a run that was entered already.
    ChainTwice = "chain.twice";
    /// A run record or a chunk cannot be read, or contradicts its key, its chunks or its chain.
    RecordInvalid = "record.invalid";
    /// A run record that no chain names.
    RecordUnchained = "record.unchained";
    /// A chunk or a signature that no record names.
    RecordOrphan = "record.orphan";
    /// Chunks of a run that has no record yet.
    RecordOpen = "record.open";
    /// A proof does not show what it says.
    ProofInvalid = "proof.invalid";
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FindingCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl schemars::JsonSchema for FindingCode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FindingCode".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "a stable code, see docs/runbook.md" })
    }
}

/// One thing that an audit found. Holds no personal data: ids, keys, digests and dates only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// Always `veriff-archive/finding/v1`.
    pub schema: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub code: FindingCode,
    /// The session it concerns.
    pub session_id: Option<SessionId>,
    /// The run it concerns.
    pub run_id: Option<RunId>,
    /// The object it concerns.
    pub key: Option<ObjectKey>,
    /// That object's version, on a versioned store.
    pub version_id: Option<String>,
    /// What should be.
    pub expected: Option<String>,
    /// What is.
    pub found: Option<String>,
    /// The command that repairs it, or what a person has to do.
    pub repair: String,
}

impl Finding {
    /// Makes a finding that concerns nothing in particular yet; the builders below add to it.
    #[must_use]
    pub fn of(severity: Severity, code: FindingCode, repair: impl Into<String>) -> Self {
        Self {
            schema: FINDING_SCHEMA,
            severity,
            code,
            session_id: None,
            run_id: None,
            key: None,
            version_id: None,
            expected: None,
            found: None,
            repair: repair.into(),
        }
    }

    /// Names the session.
    #[must_use]
    pub fn session(mut self, id: &SessionId) -> Self {
        self.session_id = Some(id.clone());
        self
    }

    /// Names the run.
    #[must_use]
    pub fn run(mut self, id: &RunId) -> Self {
        self.run_id = Some(id.clone());
        self
    }

    /// Names the object.
    #[must_use]
    pub fn object(mut self, key: &ObjectKey, version_id: Option<&str>) -> Self {
        self.key = Some(key.clone());
        self.version_id = version_id.map(str::to_owned);
        self
    }

    /// Says what should be and what is.
    #[must_use]
    pub fn differs(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.expected = Some(expected.to_string());
        self.found = Some(found.to_string());
        self
    }
}
