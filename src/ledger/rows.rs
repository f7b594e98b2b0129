//! Rows of the ledger as our own types, whichever engine they come from.
//!
//! What does not parse is damage, never guessed around.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::backlog::{BacklogCounts, ListedSession, Turn, Waiting};
use super::overview::Group;
use super::runs::{ChainHead, ClosedRecord, RecordRow, RecordState, SignedText, WaitingLine};
use super::survey::{DamagedRow, Surveyed, Told};
use super::volume::{DayGroup, DeadlineGroup, MediaDayGroup};
use super::{AuditRow, ClosedRun, LedgerError, ManifestRef, MediaRow, RunCounts, RunRow, SessionRow, Standing, State};
use crate::clock::Timestamp;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::request::SessionRequest;
use crate::model::run::ChunkRef;
use crate::model::{AttemptId, MediaId, MediaKind, RunId, SessionId};

/// A row of an engine: the four kinds of values that the schema has, by the name of their column.
pub(super) trait ReadRow {
    fn text(&self, column: &'static str) -> Result<Option<&str>, sqlx::Error>;
    fn number(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error>;
    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, sqlx::Error>;
    fn flag(&self, column: &'static str) -> Result<Option<bool>, sqlx::Error>;
}

macro_rules! read_row {
    ($row:ty, $flag:expr) => {
        impl ReadRow for $row {
            fn text(&self, column: &'static str) -> Result<Option<&str>, sqlx::Error> {
                self.try_get(column)
            }

            fn number(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error> {
                self.try_get(column)
            }

            fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, sqlx::Error> {
                self.try_get(column)
            }

            fn flag(&self, column: &'static str) -> Result<Option<bool>, sqlx::Error> {
                $flag(self, column)
            }
        }
    };
}

read_row!(SqliteRow, number_as_flag);
read_row!(PgRow, PgRow::try_get);

/// SQLite has no truth values, and takes every number but 0 for true.
fn number_as_flag(row: &SqliteRow, column: &'static str) -> Result<Option<bool>, sqlx::Error> {
    match row.number(column)? {
        None => Ok(None),
        Some(0) => Ok(Some(false)),
        Some(1) => Ok(Some(true)),
        Some(_) => Err(sqlx::Error::Decode("neither 0 nor 1".into())),
    }
}

/// A value that a column may hold; nothing where it is null or does not fit.
pub(super) trait Value<'r>: Sized {
    fn read(row: &'r dyn ReadRow, column: &'static str) -> Option<Self>;
}

impl<'r> Value<'r> for Option<&'r str> {
    fn read(row: &'r dyn ReadRow, column: &'static str) -> Option<Self> {
        row.text(column).ok()
    }
}

impl<'r> Value<'r> for &'r str {
    fn read(row: &'r dyn ReadRow, column: &'static str) -> Option<Self> {
        row.text(column).ok()?
    }
}

impl Value<'_> for Option<String> {
    fn read(row: &dyn ReadRow, column: &'static str) -> Option<Self> {
        Some(row.text(column).ok()?.map(str::to_owned))
    }
}

impl Value<'_> for String {
    fn read(row: &dyn ReadRow, column: &'static str) -> Option<Self> {
        row.text(column).ok()?.map(str::to_owned)
    }
}

impl<'r> Value<'r> for &'r [u8] {
    fn read(row: &'r dyn ReadRow, column: &'static str) -> Option<Self> {
        row.bytes(column).ok()?
    }
}

impl Value<'_> for bool {
    fn read(row: &dyn ReadRow, column: &'static str) -> Option<Self> {
        row.flag(column).ok()?
    }
}

macro_rules! read_number {
    ($($number:ty),+) => {$(
        impl Value<'_> for Option<$number> {
            fn read(row: &dyn ReadRow, column: &'static str) -> Option<Self> {
                row.number(column).ok()?.map(<$number>::try_from).transpose().ok()
            }
        }

        impl Value<'_> for $number {
            fn read(row: &dyn ReadRow, column: &'static str) -> Option<Self> {
                row.number(column).ok()?.and_then(|number| <$number>::try_from(number).ok())
            }
        }
    )+};
}

read_number!(i64, u64, u32, u8);

/// Reads columns by name into our own types.
pub(super) struct Columns<'r>(pub(super) &'r dyn ReadRow);

impl<'r> Columns<'r> {
    pub(super) fn get<T: Value<'r>>(&self, column: &'static str) -> Result<T, LedgerError> {
        T::read(self.0, column).ok_or(LedgerError::Damaged(column))
    }

    pub(super) fn count(&self, column: &'static str) -> Result<u64, LedgerError> {
        self.get(column)
    }

    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, LedgerError> {
        self.get(column).map(Timestamp::from_unix_millis)
    }

    pub(super) fn time_if_known(&self, column: &'static str) -> Result<Option<Timestamp>, LedgerError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp::from_unix_millis))
    }

    fn digest(&self, column: &'static str) -> Result<Sha256Digest, LedgerError> {
        self.digest_if_known(column)?.ok_or(LedgerError::Damaged(column))
    }

    fn digest_if_known(&self, column: &'static str) -> Result<Option<Sha256Digest>, LedgerError> {
        let Some(bytes) = self.0.bytes(column).map_err(|_| LedgerError::Damaged(column))? else { return Ok(None) };
        Sha256Digest::from_hex(&hex::encode(bytes)).map(Some).ok_or(LedgerError::Damaged(column))
    }

    fn run_id(&self) -> Result<RunId, LedgerError> {
        RunId::parse(self.get("run_id")?).map_err(|_| LedgerError::Damaged("run_id"))
    }

    fn turn(&self) -> Result<Turn, LedgerError> {
        Turn::parse(self.get("turn")?).ok_or(LedgerError::Damaged("turn"))
    }

    fn kind(&self) -> Result<MediaKind, LedgerError> {
        const KINDS: [MediaKind; 4] = [MediaKind::Image, MediaKind::Video, MediaKind::Nfc, MediaKind::Record];
        let text = self.get::<&str>("kind")?;
        KINDS.into_iter().find(|kind| kind.as_str() == text).ok_or(LedgerError::Damaged("kind"))
    }

    fn state(&self) -> Result<State, LedgerError> {
        State::parse(self.get("state")?).ok_or(LedgerError::Damaged("state"))
    }
}

pub(super) fn standing_of(columns: &Columns<'_>) -> Result<Standing, LedgerError> {
    Ok(Standing { state: columns.state()?, sequence: columns.get("manifest_sequence")? })
}

pub(super) fn record_of(columns: &Columns<'_>) -> Result<SessionRequest, LedgerError> {
    Ok(SessionRequest {
        session_id: SessionId::parse(columns.get("session_id")?).map_err(|_| LedgerError::Damaged("session_id"))?,
        integration: columns.get("asked_integration")?,
        decided_at: columns.time_if_known("decided_at")?,
        retention_class: columns.get("retention_class")?,
        reference: columns.get("reference")?,
    })
}

pub(super) fn session_of(columns: &Columns<'_>) -> Result<SessionRow, LedgerError> {
    let manifest = match columns.get::<Option<String>>("manifest_key")? {
        Some(key) => Some(ManifestRef {
            key: ObjectKey::from_store(key),
            version_id: columns.get("manifest_version_id")?,
            sequence: columns.get("manifest_sequence")?,
            sha256: columns.digest("manifest_sha256")?,
        }),
        None => None,
    };
    Ok(SessionRow {
        record: record_of(columns)?,
        integration: columns.get("integration")?,
        state: columns.state()?,
        code: columns.get("code")?,
        message: columns.get("message")?,
        upstream_created_at: columns.time_if_known("upstream_created_at")?,
        deadline_at: columns.time_if_known("deadline_at")?,
        manifest,
        complete: columns.get("complete")?,
        settled: columns.get("settled")?,
        media: columns.count("media")?,
        bytes: columns.count("bytes")?,
        visits: columns.count("visits")?,
        run_id: columns.run_id()?,
        first_visited_at: columns.time("first_visited_at")?,
        last_visited_at: columns.time("last_visited_at")?,
        accepted_reason: columns.get("accepted_reason")?,
    })
}

/// Returns which column does not hold what it should, if that is all that is wrong.
fn told<T>(read: Result<T, LedgerError>) -> Result<Told<T>, LedgerError> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(LedgerError::Damaged(column)) => Ok(Err(column)),
        Err(error) => Err(error),
    }
}

/// Reads a session, and whether it is in the backlog, with its id as it is.
pub(super) fn surveyed_of(columns: &Columns<'_>) -> Result<(String, Told<(SessionRow, bool)>), LedgerError> {
    let read = session_of(columns).and_then(|row| Ok((row, columns.get("in_backlog")?)));
    Ok((columns.get("session_id")?, told(read)?))
}

pub(super) fn group_of(columns: &Columns<'_>) -> Result<Group, LedgerError> {
    Ok(Group {
        state: columns.state()?,
        code: columns.get("code")?,
        sessions: columns.count("sessions")?,
        complete: columns.count("complete")?,
        settled: columns.count("settled")?,
        media: columns.count("media")?,
        bytes: columns.count("bytes")?,
        nearest_deadline_at: columns.time_if_known("nearest_deadline_at")?,
        unknown_deadlines: columns.count("unknown_deadlines")?,
        past_horizon: columns.count("past_horizon")?,
        within_alarm: columns.count("within_alarm")?,
    })
}

/// Reads the number of the newest manifest known of a session.
pub(super) fn known_manifest_of(columns: &Columns<'_>) -> Result<(SessionId, u32), LedgerError> {
    let id = SessionId::parse(columns.get("session_id")?).map_err(|_| LedgerError::Damaged("session_id"))?;
    Ok((id, columns.get("manifest_sequence")?))
}

pub(super) fn run_of(columns: &Columns<'_>) -> Result<RunRow, LedgerError> {
    Ok(RunRow {
        run_id: columns.run_id()?,
        started_at: columns.time("started_at")?,
        finished_at: columns.time_if_known("finished_at")?,
        exit_code: columns.get("exit_code")?,
        version: columns.get("version")?,
        source_kind: columns.get("source_kind")?,
        store_url: columns.get("store_url")?,
        counts: RunCounts {
            archived: columns.count("archived")?,
            unchanged: columns.count("unchanged")?,
            absent: columns.count("absent")?,
            failed: columns.count("failed")?,
            pending: columns.count("pending")?,
            media: columns.count("media")?,
            bytes: columns.count("bytes")?,
        },
    })
}

pub(super) fn record_row_of(columns: &Columns<'_>) -> Result<RecordRow, LedgerError> {
    let document = columns.get::<Option<String>>("record_json")?;
    let signature = columns.get("record_signature")?;
    let closed = closed_record_of(columns)?;
    Ok(RecordRow {
        run_id: columns.run_id()?,
        started_at: columns.time("started_at")?,
        version: columns.get("version")?,
        source_kind: columns.get("source_kind")?,
        state: RecordState::parse(columns.get("record_state")?).ok_or(LedgerError::Damaged("record_state"))?,
        draft: columns.get("record_draft")?,
        sums: columns.get("record_sums")?,
        lines: columns.count("record_lines")?,
        chunks: columns.get("record_chunks")?,
        document: document.map(|text| SignedText { text, signature }),
        chain_from: columns.get("chain_from")?,
        closed,
    })
}

fn closed_record_of(columns: &Columns<'_>) -> Result<Option<ClosedRecord>, LedgerError> {
    Ok(match (columns.get::<Option<String>>("record_key")?, columns.get::<Option<u32>>("chain_number")?) {
        (Some(key), Some(number)) => Some(ClosedRecord {
            key: ObjectKey::from_store(key),
            sha256: columns.digest("record_sha256")?,
            group: columns.get("chain_group")?,
            number,
            entry_sha256: columns.digest("chain_sha256")?,
        }),
        _ => None,
    })
}

fn closed_run_of(columns: &Columns<'_>) -> Result<ClosedRun, LedgerError> {
    let run = run_of(columns)?;
    Ok(ClosedRun {
        run_id: run.run_id,
        started_at: run.started_at,
        finished_at: run.finished_at,
        exit_code: run.exit_code,
        version: run.version,
        source_kind: run.source_kind,
        store_url: run.store_url,
        counts: run.counts,
        record: closed_record_of(columns)?.ok_or(LedgerError::Damaged("record_key"))?,
    })
}

/// Reads a run whose record is closed, or says what it holds instead.
pub(super) fn surveyed_run_of(columns: &Columns<'_>) -> Result<Surveyed<ClosedRun>, LedgerError> {
    let id = columns.get("run_id")?;
    Ok(told(closed_run_of(columns))?.map_err(|column| DamagedRow { id, column }))
}

/// Reads an item with the id of its session.
pub(super) fn media_of(columns: &Columns<'_>) -> Result<(String, Told<MediaRow>), LedgerError> {
    Ok((columns.get("session_id")?, told(media_row_of(columns))?))
}

fn media_row_of(columns: &Columns<'_>) -> Result<MediaRow, LedgerError> {
    Ok(MediaRow {
        media_id: MediaId::parse(columns.get("media_id")?).map_err(|_| LedgerError::Damaged("media_id"))?,
        attempt_id: attempt_of(columns.get("attempt_id")?)?,
        kind: columns.kind()?,
        key: ObjectKey::from_store(columns.get::<String>("key")?),
        version_id: columns.get("version_id")?,
        size_bytes: columns.count("size_bytes")?,
        sha256: columns.digest("sha256")?,
    })
}

fn attempt_of(text: &str) -> Result<AttemptId, LedgerError> {
    if text == AttemptId::session().as_str() {
        return Ok(AttemptId::session());
    }
    AttemptId::parse(text).map_err(|_| LedgerError::Damaged("attempt_id"))
}

pub(super) fn waiting_line_of(columns: &Columns<'_>) -> Result<WaitingLine, LedgerError> {
    Ok(WaitingLine { text: columns.get("line")?, media: columns.count("media")?, bytes: columns.count("bytes")? })
}

pub(super) fn chunk_of(columns: &Columns<'_>) -> Result<ChunkRef, LedgerError> {
    Ok(ChunkRef {
        key: ObjectKey::from_store(columns.get::<String>("key")?),
        sha256: columns.digest("sha256")?,
        sessions: columns.count("sessions")?,
        items: columns.count("items")?,
    })
}

pub(super) fn chain_head_of(columns: &Columns<'_>) -> Result<ChainHead, LedgerError> {
    Ok(ChainHead { number: columns.get("chain_number")?, sha256: columns.digest("chain_sha256")? })
}

pub(super) fn run_id_of(columns: &Columns<'_>) -> Result<RunId, LedgerError> {
    columns.run_id()
}

pub(super) fn audit_of(columns: &Columns<'_>) -> Result<AuditRow, LedgerError> {
    Ok(AuditRow {
        audit_id: columns.get("audit_id")?,
        audit: columns.get("audit")?,
        finished_at: columns.time("finished_at")?,
        summary: columns.get("summary")?,
    })
}

pub(super) fn day_group_of(columns: &Columns<'_>) -> Result<DayGroup, LedgerError> {
    Ok(DayGroup {
        day: columns.get("day")?,
        state: columns.state()?,
        complete: columns.get("complete")?,
        settled: columns.get("settled")?,
        sessions: columns.count("sessions")?,
    })
}

pub(super) fn media_day_group_of(columns: &Columns<'_>) -> Result<MediaDayGroup, LedgerError> {
    Ok(MediaDayGroup {
        day: columns.get("day")?,
        kind: columns.kind()?,
        items: columns.count("items")?,
        bytes: columns.count("bytes")?,
    })
}

pub(super) fn deadline_group_of(columns: &Columns<'_>) -> Result<DeadlineGroup, LedgerError> {
    Ok(DeadlineGroup {
        state: columns.state()?,
        code: columns.get("code")?,
        days_left: columns.get("days_left")?,
        sessions: columns.count("sessions")?,
    })
}

pub(super) fn listed_of(columns: &Columns<'_>) -> Result<ListedSession, LedgerError> {
    let waiting = match columns.get::<Option<&str>>("turn")? {
        None => None,
        Some(_) => Some(Waiting {
            turn: columns.turn()?,
            due_at: columns.time("due_at")?,
            leased_by: columns
                .get::<Option<&str>>("leased_by")?
                .map(|id| RunId::parse(id).map_err(|_| LedgerError::Damaged("leased_by")))
                .transpose()?,
            tries: columns.get("tries")?,
        }),
    };
    Ok(ListedSession { row: session_of(columns)?, waiting })
}

/// Takes over how many sessions are in the turn of a row.
pub(super) fn count_turn(counts: &mut BacklogCounts, columns: &Columns<'_>) -> Result<(), LedgerError> {
    let sessions = columns.count("sessions")?;
    match columns.turn()? {
        Turn::Ready => counts.ready = sessions,
        Turn::Waiting => counts.waiting = sessions,
        Turn::Leased => counts.leased = sessions,
    }
    Ok(())
}
