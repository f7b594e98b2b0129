//! The columns that statements of both engines return, each by its name: a statement that is prepared must not change what
//! it returns when a later version adds a column.

/// Everything that [`super::rows::session_of`] reads.
macro_rules! session_columns {
    () => {
        "sessions.session_id, sessions.asked_integration, sessions.decided_at, sessions.retention_class,
        sessions.reference, sessions.integration, sessions.state, sessions.code, sessions.message,
        sessions.upstream_created_at, sessions.deadline_at, sessions.manifest_key, sessions.manifest_version_id,
        sessions.manifest_sequence, sessions.manifest_sha256, sessions.complete, sessions.settled, sessions.media,
        sessions.bytes, sessions.visits, sessions.run_id, sessions.first_visited_at, sessions.last_visited_at,
        sessions.accepted_reason"
    };
}

/// Everything that [`super::rows::media_of`] reads.
macro_rules! media_columns {
    () => {
        "session_id, media_id, attempt_id, kind, key, version_id, size_bytes, sha256"
    };
}

/// Everything that [`super::rows::run_of`] reads.
macro_rules! run_columns {
    () => {
        "run_id, started_at, version, source_kind, store_url, finished_at, exit_code, archived, unchanged, absent, failed,
        pending, media, bytes"
    };
}

/// The place of a record, for [`super::rows::surveyed_run_of`] and [`super::rows::record_row_of`].
macro_rules! closed_record_columns {
    () => {
        "record_key, record_sha256, chain_group, chain_number, chain_sha256"
    };
}

pub(super) use {closed_record_columns, media_columns, run_columns, session_columns};
