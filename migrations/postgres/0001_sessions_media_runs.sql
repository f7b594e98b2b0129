-- Times are milliseconds since 1970-01-01T00:00:00Z; digests are the 32 raw bytes.
-- Nothing here names a person: ids are Veriff's, and `reference` is the caller's own.
--
-- Ids are compared byte by byte, whatever the collation of the database: pages of ids come in the same order everywhere,
-- and an upgrade of the operating system's locales cannot damage an index of them.

CREATE TABLE archive (
    only_row   SMALLINT NOT NULL PRIMARY KEY CHECK (only_row = 1),
    archive_id TEXT     NOT NULL
);

CREATE TABLE runs (
    run_id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    started_at  BIGINT NOT NULL,
    version     TEXT   NOT NULL,
    source_kind TEXT   NOT NULL,
    store_url   TEXT   NOT NULL,
    finished_at BIGINT,
    exit_code   BIGINT,
    archived    BIGINT NOT NULL DEFAULT 0,
    unchanged   BIGINT NOT NULL DEFAULT 0,
    absent      BIGINT NOT NULL DEFAULT 0,
    failed      BIGINT NOT NULL DEFAULT 0,
    pending     BIGINT NOT NULL DEFAULT 0,
    media       BIGINT NOT NULL DEFAULT 0,
    bytes       BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX runs_latest ON runs (started_at, run_id);

-- States are not enumerated here: which there are, and which moves between them are legal, is the program's to say.
-- What the schema itself refuses is a session called archived without a manifest.
CREATE TABLE sessions (
    session_id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    asked_integration   TEXT,
    decided_at          BIGINT,
    retention_class     TEXT,
    reference           TEXT,
    integration         TEXT    NOT NULL,
    state               TEXT COLLATE "C" NOT NULL,
    code                TEXT COLLATE "C",
    message             TEXT,
    upstream_created_at BIGINT,
    deadline_at         BIGINT,
    manifest_key        TEXT,
    manifest_version_id TEXT,
    manifest_sequence   BIGINT,
    manifest_sha256     BYTEA CHECK (length(manifest_sha256) = 32),
    complete            BOOLEAN NOT NULL,
    settled             BOOLEAN NOT NULL,
    media               BIGINT  NOT NULL,
    bytes               BIGINT  NOT NULL,
    visits              BIGINT  NOT NULL,
    run_id              TEXT COLLATE "C" NOT NULL,
    first_visited_at    BIGINT  NOT NULL,
    last_visited_at     BIGINT  NOT NULL,
    CHECK ((manifest_key IS NULL) = (manifest_sequence IS NULL)),
    CHECK ((manifest_key IS NULL) = (manifest_sha256 IS NULL)),
    CHECK (state <> 'archived' OR manifest_key IS NOT NULL)
);

-- Covers the overview, which then need not read the table.
CREATE INDEX sessions_overview ON sessions (state, code) INCLUDE (deadline_at, complete, settled, media, bytes);

-- The session that waits longest.
CREATE INDEX sessions_oldest_pending ON sessions (first_visited_at) WHERE state = 'pending';

-- What a run left for one more try; whatever is left has a code.
CREATE INDEX sessions_left_by_run ON sessions (run_id, session_id)
    WHERE state IN ('failed', 'pending') AND code IS NOT NULL;

CREATE TABLE media (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (session_id),
    media_id   TEXT COLLATE "C" NOT NULL,
    attempt_id TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    version_id TEXT,
    size_bytes BIGINT NOT NULL,
    sha256     BYTEA  NOT NULL CHECK (length(sha256) = 32),
    PRIMARY KEY (session_id, media_id)
);
