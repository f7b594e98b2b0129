-- Why a person closed a session that cannot be saved, and when.
ALTER TABLE sessions ADD COLUMN accepted_reason TEXT;
ALTER TABLE sessions ADD COLUMN accepted_at INTEGER;

-- Only sessions that failed are left for another try. Without a code there is nothing to try again, so what is merely added
-- to the backlog costs no entry.
DROP INDEX sessions_left_by_run;
CREATE INDEX sessions_left_by_run ON sessions (run_id, session_id)
    WHERE state IN ('failed', 'pending') AND code IS NOT NULL;

-- Sessions still to do: ready to be handed out, waiting until due_at, or leased until due_at. A session that is done has no
-- row, so the table stays as long as the work that is left, however many sessions are archived. No foreign key: sessions
-- are never removed, and the check would be a quarter of what adding costs.
CREATE TABLE backlog (
    session_id  TEXT    NOT NULL PRIMARY KEY,
    integration TEXT    NOT NULL,
    deadline_at INTEGER,
    turn        TEXT    NOT NULL CHECK (turn IN ('ready', 'waiting', 'leased')),
    due_at      INTEGER NOT NULL,
    leased_by   TEXT,
    tries       INTEGER NOT NULL DEFAULT 0,
    CHECK ((turn = 'leased') = (leased_by IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- What is handed out next; unknown deadlines sort first.
CREATE INDEX backlog_next ON backlog (integration, deadline_at, session_id) WHERE turn = 'ready';

-- What becomes ready next: waits that are over and leases that have lapsed.
CREATE INDEX backlog_due ON backlog (due_at) WHERE turn <> 'ready';
