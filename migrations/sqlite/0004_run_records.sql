-- What a run's record will be made of, until it is closed. Runs of earlier versions have none.
ALTER TABLE runs ADD COLUMN record_state TEXT NOT NULL DEFAULT 'none'
    CHECK (record_state IN ('none', 'open', 'closing', 'closed'));
ALTER TABLE runs ADD COLUMN heartbeat_at INTEGER;
ALTER TABLE runs ADD COLUMN closing_by TEXT;
ALTER TABLE runs ADD COLUMN closing_at INTEGER;

-- What only the run itself knows, as JSON, so that another run can close its record.
ALTER TABLE runs ADD COLUMN record_draft TEXT;

-- The sums over all lines that stand in chunks, as JSON: Merkle tree, outcomes, items.
ALTER TABLE runs ADD COLUMN record_sums TEXT;
ALTER TABLE runs ADD COLUMN record_lines INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN record_chunks INTEGER NOT NULL DEFAULT 0;

-- The record and its signature as they go into the store; dropped once they stand there.
ALTER TABLE runs ADD COLUMN record_json TEXT;
ALTER TABLE runs ADD COLUMN record_signature TEXT;

-- Where the record stands, and where it is entered. chain_from is the lowest number that may hold it already.
ALTER TABLE runs ADD COLUMN record_key TEXT;
ALTER TABLE runs ADD COLUMN record_sha256 BLOB CHECK (length(record_sha256) = 32);
ALTER TABLE runs ADD COLUMN chain_from INTEGER;
ALTER TABLE runs ADD COLUMN chain_group TEXT;
ALTER TABLE runs ADD COLUMN chain_number INTEGER;
ALTER TABLE runs ADD COLUMN chain_sha256 BLOB CHECK (length(chain_sha256) = 32);

-- Runs that may have died, and the highest entry known of a chain.
CREATE INDEX runs_unclosed ON runs (run_id) WHERE record_state IN ('open', 'closing');
CREATE INDEX runs_chained ON runs (chain_group, chain_number) WHERE chain_number IS NOT NULL;

-- Lines that wait for their chunk: one for each commit of a session. media and bytes are what that visit wrote anew.
CREATE TABLE run_lines (
    run_id TEXT    NOT NULL,
    number INTEGER NOT NULL,
    line   TEXT    NOT NULL,
    media  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (run_id, number)
) STRICT;

-- Chunks that stand in the store.
CREATE TABLE run_chunks (
    run_id   TEXT    NOT NULL,
    number   INTEGER NOT NULL,
    key      TEXT    NOT NULL,
    sha256   BLOB    NOT NULL CHECK (length(sha256) = 32),
    sessions INTEGER NOT NULL,
    items    INTEGER NOT NULL,
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;
