-- Fills an empty ledger with ten million sessions, 18 million media items and a backlog of a million: what
-- docs/ledger.md was measured with. `psql "$URL" -v ON_ERROR_STOP=1 -f examples/ledger_ten_million.sql`, after
-- `veriff-archive ledger migrate`. Takes five minutes and 9 GB. Indexes are made once all rows are there.
\timing on
SET maintenance_work_mem = '1GB';
ALTER TABLE media DROP CONSTRAINT media_session_id_fkey, DROP CONSTRAINT media_pkey;
DROP INDEX sessions_overview, sessions_oldest_pending, sessions_left_by_run;
ALTER TABLE sessions DROP CONSTRAINT sessions_pkey;
INSERT INTO sessions (session_id, integration, state, code, upstream_created_at, deadline_at, manifest_key,
    manifest_sequence, manifest_sha256, complete, settled, media, bytes, visits, run_id, first_visited_at, last_visited_at)
SELECT md5(n::text), 'default', state, CASE WHEN state = 'failed' THEN 'veriff.unavailable' END,
    1780000000000 + n, 1780000000000 + n * 777,
    CASE WHEN state <> 'pending' THEN 'sessions/' || md5(n::text) || '/manifest/0001.json' END,
    CASE WHEN state <> 'pending' THEN 1 END, CASE WHEN state <> 'pending' THEN sha256(n::text::bytea) END,
    state = 'archived', state = 'archived', 2, 400000, 1, 'run-' || n % 200, 1780000000000 + n, 1780000000000 + n
FROM (SELECT n, CASE WHEN n % 100 < 88 THEN 'archived' WHEN n % 100 < 89 THEN 'failed' WHEN n % 100 < 90 THEN 'absent'
    ELSE 'pending' END AS state FROM generate_series(1::bigint, 10000000) AS n) AS made;
ALTER TABLE sessions ADD PRIMARY KEY (session_id);
INSERT INTO media SELECT md5(n::text), 'item-' || item, 'attempt', 'image',
    'sessions/' || md5(n::text) || '/attempt/item-' || item || '.jpg', 'version-' || n, 200000, sha256(n::text::bytea)
FROM generate_series(1::bigint, 10000000) AS n CROSS JOIN generate_series(1, 2) AS item WHERE n % 100 < 90;
ALTER TABLE media ADD PRIMARY KEY (session_id, media_id);
ALTER TABLE media ADD FOREIGN KEY (session_id) REFERENCES sessions;
CREATE INDEX sessions_overview ON sessions (state, code) INCLUDE (deadline_at, complete, settled, media, bytes);
CREATE INDEX sessions_oldest_pending ON sessions (first_visited_at) WHERE state = 'pending';
CREATE INDEX sessions_left_by_run ON sessions (run_id, session_id)
    WHERE state IN ('failed', 'pending') AND code IS NOT NULL;
INSERT INTO backlog (session_id, integration, deadline_at, turn, due_at)
SELECT session_id, integration, deadline_at, 'ready', first_visited_at FROM sessions WHERE state = 'pending';
VACUUM ANALYZE;
