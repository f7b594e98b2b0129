-- Times are milliseconds since 1970-01-01T00:00:00Z; digests are the 32 raw bytes (hex() shows them).
-- Nothing here names a person: ids are Veriff's, and `reference` is the caller's own.

CREATE TABLE archive (
    only_row   INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    archive_id TEXT    NOT NULL
) STRICT;

CREATE TABLE runs (
    run_id      TEXT    NOT NULL PRIMARY KEY,
    started_at  INTEGER NOT NULL,
    version     TEXT    NOT NULL,
    source_kind TEXT    NOT NULL,
    store_url   TEXT    NOT NULL,
    finished_at INTEGER,
    exit_code   INTEGER,
    archived    INTEGER NOT NULL DEFAULT 0,
    unchanged   INTEGER NOT NULL DEFAULT 0,
    absent      INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    pending     INTEGER NOT NULL DEFAULT 0,
    media       INTEGER NOT NULL DEFAULT 0,
    bytes       INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_latest ON runs (started_at);

-- States are not enumerated here: which there are, and which moves between them are legal, is the program's to say.
-- What the schema itself refuses is a session called archived without a manifest.
CREATE TABLE sessions (
    session_id          TEXT    NOT NULL PRIMARY KEY,
    asked_integration   TEXT,
    decided_at          INTEGER,
    retention_class     TEXT,
    reference           TEXT,
    integration         TEXT    NOT NULL,
    state               TEXT    NOT NULL,
    code                TEXT,
    message             TEXT,
    upstream_created_at INTEGER,
    deadline_at         INTEGER,
    manifest_key        TEXT,
    manifest_version_id TEXT,
    manifest_sequence   INTEGER,
    manifest_sha256     BLOB CHECK (length(manifest_sha256) = 32),
    complete            INTEGER NOT NULL,
    settled             INTEGER NOT NULL,
    media               INTEGER NOT NULL,
    bytes               INTEGER NOT NULL,
    visits              INTEGER NOT NULL,
    run_id              TEXT    NOT NULL,
    first_visited_at    INTEGER NOT NULL,
    last_visited_at     INTEGER NOT NULL,
    CHECK ((manifest_key IS NULL) = (manifest_sequence IS NULL)),
    CHECK ((manifest_key IS NULL) = (manifest_sha256 IS NULL)),
    CHECK (state <> 'archived' OR manifest_key IS NOT NULL)
) STRICT;

-- Covers the overview, which then never reads the table.
CREATE INDEX sessions_overview ON sessions (state, code, deadline_at, complete, settled, media, bytes);

-- The session that waits longest.
CREATE INDEX sessions_oldest_pending ON sessions (first_visited_at) WHERE state = 'pending';

-- What a run left for one more try.
CREATE INDEX sessions_left_by_run ON sessions (run_id, session_id) WHERE state IN ('failed', 'pending');

-- Media come before their session within a transaction, hence deferred.
CREATE TABLE media (
    session_id TEXT    NOT NULL REFERENCES sessions (session_id) DEFERRABLE INITIALLY DEFERRED,
    media_id   TEXT    NOT NULL,
    attempt_id TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    version_id TEXT,
    size_bytes INTEGER NOT NULL,
    sha256     BLOB    NOT NULL CHECK (length(sha256) = 32),
    PRIMARY KEY (session_id, media_id)
) STRICT, WITHOUT ROWID;
