-- Why a person closed a session that cannot be saved, and when.
ALTER TABLE sessions ADD COLUMN accepted_reason TEXT;
ALTER TABLE sessions ADD COLUMN accepted_at BIGINT;

-- Sessions still to do: ready to be handed out, waiting until due_at, or leased until due_at. A session that is done has no
-- row, so the table stays as long as the work that is left, however many sessions are archived.
--
-- Every hand-out leaves a dead row and dead index entries at the head of the queue. Workers go on where they last found
-- something, so none of them walks over all of these; vacuuming early, and without pauses, keeps the rest short.
--
-- No foreign key: whatever puts a row in here reads it from sessions in the same statement or has just written it there,
-- and sessions are never removed. The check would lock and log each session's row once more, a sixth of an addition's cost.
CREATE TABLE backlog (
    session_id  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    integration TEXT COLLATE "C" NOT NULL,
    deadline_at BIGINT,
    turn        TEXT COLLATE "C" NOT NULL CHECK (turn IN ('ready', 'waiting', 'leased')),
    due_at      BIGINT NOT NULL,
    leased_by   TEXT COLLATE "C",
    tries       BIGINT NOT NULL DEFAULT 0,
    CHECK ((turn = 'leased') = (leased_by IS NOT NULL))
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

-- What is handed out next; unknown deadlines sort first. A place is compared as one value, which a null would spoil.
CREATE INDEX backlog_next ON backlog (integration, coalesce(deadline_at, -1), session_id) WHERE turn = 'ready';

-- What becomes ready next: waits that are over and leases that have lapsed.
CREATE INDEX backlog_due ON backlog (due_at) WHERE turn <> 'ready';

-- What `backlog list` shows. Not the expression of backlog_next, on purpose: a claim must never be planned over this index,
-- which holds whatever is leased or waiting, and all integrations.
CREATE INDEX backlog_by_deadline ON backlog (coalesce(deadline_at, 0), session_id);
