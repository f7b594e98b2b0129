//! Codes, error classes and exit codes: what happens next when something goes wrong.
//!
//! Every error type of the crate answers `code()` with one of the [`Code`]s below; a code fixes its [`ErrorClass`] and
//! its paragraph in `docs/runbook.md`. The names are part of the outside contract: they are in manifests, in the
//! ledger and in result lines, so a code is never renamed or given another meaning.

use std::fmt;

/// What the worker does next with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// May work later: back off within the budget, then give the session back.
    Retryable,
    /// Will not work however often it is tried: record the code and go on.
    Permanent,
    /// Nothing else can work either: stop receiving, settle what is in flight, exit.
    Fatal,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $class:ident;)+) => {
        /// A stable error code, `module.reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $variant,)+ }

        impl Code {
            /// Every code there is, in the order of the runbook.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the text that is written in documents, the ledger and result lines.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Returns what the worker does next with an error of this code.
            #[must_use]
            pub const fn class(self) -> ErrorClass {
                match self { $(Self::$variant => ErrorClass::$class,)+ }
            }
        }
    };
}

codes! {
    /// A malformed id, line or message, or an id that Veriff answers with 400.
    InputInvalid = "input.invalid", Permanent;
    /// The source of the records could not be read to its end.
    InputUnreadable = "input.unreadable", Retryable;
    /// The results file could not be written.
    OutputUnwritable = "output.unwritable", Retryable;
    /// Veriff refused the credentials, or this one session.
    VeriffUnauthorized = "veriff.unauthorized", Permanent;
    /// Veriff answers 404 or 410 for the session, or for one of its attempts.
    VeriffAbsent = "veriff.absent", Permanent;
    /// A decided session without any media listed.
    VeriffEmpty = "veriff.empty", Permanent;
    /// Veriff kept answering 429.
    VeriffThrottled = "veriff.throttled", Retryable;
    /// Veriff kept answering 5xx, resetting, stalling or timing out.
    VeriffUnavailable = "veriff.unavailable", Retryable;
    /// An answer that fits no rule: a redirect, a list that is not JSON, an id that cannot be a key.
    VeriffUnexpected = "veriff.unexpected", Permanent;
    /// A media item over `limits.max_media_size`.
    MediaTooLarge = "media.too_large", Permanent;
    /// Fewer bytes than announced, every time.
    MediaTruncated = "media.truncated", Retryable;
    /// No bytes where a size was listed, every time.
    MediaEmpty = "media.empty", Permanent;
    /// HTML or a Veriff error document in place of the media, every time.
    MediaNotMedia = "media.not_media", Permanent;
    /// The response signature is wrong or absent and the policy requires it.
    MediaSignatureMismatch = "media.signature_mismatch", Permanent;
    /// 404 on one media id.
    MediaMissing = "media.missing", Permanent;
    /// The store refuses the credentials or the right.
    StoreDenied = "store.denied", Fatal;
    /// The store kept answering 5xx, resetting or timing out.
    StoreUnavailable = "store.unavailable", Retryable;
    /// The store has no space left.
    StoreFull = "store.full", Retryable;
    /// The store is not what the policy demands.
    StorePolicy = "store.policy", Fatal;
    /// The store's archive is not the one the ledger knows.
    StoreMismatch = "store.mismatch", Fatal;
    /// Other bytes are stored under a key; ours are next to them.
    StoreConflict = "store.conflict", Permanent;
    /// The store computed another checksum than was sent.
    StoreChecksum = "store.checksum", Retryable;
    /// A delete marker or a later version shadows an object of the archive.
    StoreShadowed = "store.shadowed", Permanent;
    /// An object that should be there is gone or differs in size.
    StoreDamaged = "store.damaged", Permanent;
    /// An object's lock is weaker than due and could not be extended.
    StoreUnlocked = "store.unlocked", Permanent;
    /// A later request asks for another retention than the existing one.
    RetentionDiffers = "retention.differs", Permanent;
    /// A lock would last longer than the class's `max_period` allows.
    RetentionTooLong = "retention.too_long", Permanent;
    /// The ledger cannot be reached or written.
    LedgerUnavailable = "ledger.unavailable", Retryable;
    /// The ledger's schema is older or newer than this program.
    LedgerSchema = "ledger.schema", Fatal;
    /// The queue kept throttling, answering 5xx, resetting or timing out.
    QueueUnavailable = "queue.unavailable", Retryable;
    /// The queue refuses the credentials or the right, or does not exist.
    QueueDenied = "queue.denied", Fatal;
    /// The store's clock and ours differ by more than a minute.
    ClockSkew = "clock.skew", Fatal;
    /// Another worker took the session over, because this one did not renew its lease in time.
    LeaseLost = "lease.lost", Retryable;
    /// The configuration is not valid.
    ConfigInvalid = "config.invalid", Fatal;
    /// The run was stopped before the session was done.
    RunStopped = "run.stopped", Retryable;
    /// Another run took this one for dead and closed its record.
    RunClosed = "run.closed", Retryable;
    /// A defect of this program.
    InternalError = "internal.error", Retryable;
}

impl Code {
    /// Returns whether a later run may succeed without anyone doing anything.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self.class(), ErrorClass::Retryable)
    }

    /// Finds the code a document or the ledger names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How the process ends; the numbers are part of the outside contract.
///
/// Ordered by precedence: when several apply, the least wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Unexpected internal error.
    Internal,
    /// Wrong usage.
    Usage,
    /// Credentials refused, clock off, or the bucket is not what the policy demands.
    Refused,
    /// Invalid configuration, or a ledger schema older or newer than the program.
    Config,
    /// Stopped by SIGINT.
    Interrupted,
    /// Stopped by SIGTERM.
    Terminated,
    /// An audit found something wrong with the archive.
    Findings,
    /// A pending session is past its horizon or within the alarm.
    Horizon,
    /// Finished; some sessions failed for good or are absent upstream.
    Failures,
    /// Finished; all that failed may work later.
    TryLater,
    /// Stopped at one of its own limits; work is left. The code is the caller's to choose, [`Exit::LIMIT_CODE`] by
    /// default.
    Limit(u8),
    /// Every session ended well.
    Success,
}

impl Exit {
    /// How a run that stopped at one of its own limits exits.
    pub const LIMIT_CODE: u8 = 10;

    /// Returns the process exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Refused => 77,
            Self::Config => 78,
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::Findings => 4,
            Self::Horizon => 6,
            Self::Failures => 3,
            Self::TryLater => 5,
            Self::Limit(code) => code,
            Self::Success => 0,
        }
    }

    /// Every exit, in the order of precedence.
    pub const ALL: [Self; 12] = [
        Self::Internal,
        Self::Usage,
        Self::Refused,
        Self::Config,
        Self::Interrupted,
        Self::Terminated,
        Self::Findings,
        Self::Horizon,
        Self::Failures,
        Self::TryLater,
        Self::Limit(Self::LIMIT_CODE),
        Self::Success,
    ];

    /// Returns what the exit means. README, runbook, operations and help repeat it word for word; a test compares them.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Internal => "unexpected internal error",
            Self::Usage => "wrong usage, or an input that does not exist",
            Self::Refused => "credentials refused, clock off, or the store is not what the policy demands",
            Self::Config => "invalid configuration, or an older or newer ledger schema",
            Self::Interrupted => "stopped by SIGINT; drained",
            Self::Terminated => "stopped by SIGTERM; drained",
            Self::Findings => "an audit found something wrong with the archive",
            Self::Horizon => "a pending session is past its horizon or within the alarm",
            Self::Failures => "finished; some sessions failed for good or are absent upstream",
            Self::TryLater => "finished or cut short; all that failed may work later",
            Self::Limit(_) => "stopped at one of its own limits; work is left",
            Self::Success => "every session ended well, or there was nothing to do",
        }
    }

    /// Returns how the process ends when a fatal error of this code stops it.
    #[must_use]
    pub const fn of_fatal(code: Code) -> Self {
        match code {
            Code::ConfigInvalid | Code::LedgerSchema => Self::Config,
            Code::LedgerUnavailable
            | Code::QueueUnavailable
            | Code::StoreUnavailable
            | Code::StoreFull
            | Code::InputUnreadable
            | Code::OutputUnwritable => Self::TryLater,
            Code::InternalError => Self::Internal,
            Code::InputInvalid => Self::Failures,
            _ => Self::Refused,
        }
    }
}

/// Writes an error with all its causes on one line, for people.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_module_dot_reason_and_parse_back() {
        for code in Code::ALL {
            let (module, reason) = code.as_str().split_once('.').unwrap();
            assert!(module.chars().all(|c| c.is_ascii_lowercase()), "{code}");
            assert!(reason.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{code}");
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn an_input_that_is_none_is_no_refused_credential() {
        assert_eq!(Exit::of_fatal(Code::InputInvalid), Exit::Failures);
        assert_eq!(Exit::of_fatal(Code::StoreDenied), Exit::Refused);
        assert_eq!(Exit::of_fatal(Code::QueueDenied), Exit::Refused);
        assert_eq!(Exit::of_fatal(Code::QueueUnavailable), Exit::TryLater);
    }

    #[test]
    fn exit_codes_take_precedence_in_the_order_of_the_contract() {
        let order = [1, 77, 78, 130, 143, 4, 6, 3, 5, 10, 0];
        let exits = [
            Exit::Success,
            Exit::Limit(Exit::LIMIT_CODE),
            Exit::TryLater,
            Exit::Failures,
            Exit::Horizon,
            Exit::Findings,
            Exit::Terminated,
            Exit::Interrupted,
            Exit::Config,
            Exit::Refused,
            Exit::Internal,
        ];
        let mut sorted = exits;
        sorted.sort();
        assert_eq!(sorted.map(Exit::code), order);
    }
}
