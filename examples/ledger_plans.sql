-- The plans of docs/ledger.md: the statements of src/ledger/postgres with values in them, over what
-- examples/ledger_ten_million.sql makes. Changes nothing. `psql "$URL" -f examples/ledger_plans.sql`
\timing on
\echo == overview
EXPLAIN (ANALYZE, BUFFERS) SELECT state, code, count(*) AS sessions,
        count(*) FILTER (WHERE complete) AS complete, count(*) FILTER (WHERE settled) AS settled,
        sum(media)::bigint AS media, sum(bytes)::bigint AS bytes, min(deadline_at) AS nearest_deadline_at,
        count(*) FILTER (WHERE deadline_at IS NULL) AS unknown_deadlines,
        count(*) FILTER (WHERE deadline_at <= 1780000000000) AS past_horizon,
        count(*) FILTER (WHERE deadline_at > 1780000000000 AND deadline_at <= 1780600000000) AS within_alarm
    FROM sessions GROUP BY state, code ORDER BY state, code;
\echo == left
EXPLAIN (ANALYZE, BUFFERS) SELECT session_id, asked_integration, decided_at, retention_class, reference
    FROM sessions
    WHERE run_id = 'run-188' AND session_id > '4' AND state IN ('failed', 'pending')
        AND code IS NOT NULL AND code = ANY('{veriff.unavailable,veriff.throttled}')
    ORDER BY session_id LIMIT 1000;
\echo == oldest
EXPLAIN (ANALYZE, BUFFERS) SELECT min(first_visited_at) FROM sessions WHERE state = 'pending';
\echo == claim
BEGIN; 
EXPLAIN (ANALYZE, BUFFERS) WITH next AS MATERIALIZED (
        SELECT one.session_id, one.deadline
        FROM unnest('{default}'::text[], '{1780000500000}'::bigint[], '{4}'::text[]) AS asked (integration, deadline, session_id)
        CROSS JOIN LATERAL (
            SELECT backlog.session_id, coalesce(backlog.deadline_at, -1) AS deadline FROM backlog
            WHERE turn = 'ready' AND backlog.integration = asked.integration
                AND (coalesce(backlog.deadline_at, -1), backlog.session_id) >= (asked.deadline, asked.session_id)
            ORDER BY coalesce(backlog.deadline_at, -1), backlog.session_id LIMIT 8 FOR UPDATE SKIP LOCKED) AS one),
    chosen AS (SELECT session_id FROM next ORDER BY deadline, session_id LIMIT 8)
 UPDATE backlog SET turn = 'leased', leased_by = 'run', due_at = 1790000000000
        FROM chosen JOIN sessions USING (session_id)
        WHERE backlog.session_id = chosen.session_id
        RETURNING sessions.session_id, sessions.asked_integration, sessions.decided_at, sessions.retention_class,
            sessions.reference, backlog.integration, backlog.tries, backlog.deadline_at;
\echo == wake
EXPLAIN (ANALYZE, BUFFERS) 
    WITH over_now AS MATERIALIZED (
        SELECT session_id FROM backlog WHERE turn <> 'ready' AND due_at <= 1795000000000
        ORDER BY due_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
    UPDATE backlog SET turn = 'ready', tries = tries + (turn = 'leased')::integer, leased_by = NULL
    FROM over_now WHERE backlog.session_id = over_now.session_id;
ROLLBACK;
\echo == commit
BEGIN;
EXPLAIN (ANALYZE, BUFFERS) SELECT state, manifest_sequence FROM sessions WHERE session_id = md5('4711') FOR UPDATE;
EXPLAIN (ANALYZE, BUFFERS) INSERT INTO media (session_id, media_id, attempt_id, kind, key, version_id, size_bytes, sha256)
    SELECT item.*
    FROM unnest(array_fill(md5('4711'), '{3}'), '{item-1,item-2,item-3}'::text[], '{a,a,a}'::text[], '{image,image,image}'::text[], '{k1,k2,k3}'::text[], '{v,v,v}'::text[], '{1,2,3}'::bigint[], array[sha256('1'),sha256('2'),sha256('3')]) AS item
    ON CONFLICT (session_id, media_id) DO UPDATE SET
        attempt_id = excluded.attempt_id, kind = excluded.kind, key = excluded.key,
        version_id = excluded.version_id, size_bytes = excluded.size_bytes, sha256 = excluded.sha256
    WHERE (media.attempt_id, media.kind, media.key, media.version_id, media.size_bytes, media.sha256)
        IS DISTINCT FROM (excluded.attempt_id, excluded.kind, excluded.key, excluded.version_id, excluded.size_bytes,
            excluded.sha256);
EXPLAIN (ANALYZE, BUFFERS) UPDATE sessions SET state = 'archived', (media, bytes) = (
            SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM media WHERE media.session_id = md5('4711')),
        visits = visits + 1, last_visited_at = 1790000000000
    WHERE session_id = md5('4711');
ROLLBACK;
\echo == list
EXPLAIN (ANALYZE, BUFFERS) SELECT sessions.session_id FROM backlog JOIN sessions USING (session_id)
    WHERE (coalesce(backlog.deadline_at, 0), backlog.session_id) > (1780000500000, '4')
    ORDER BY coalesce(backlog.deadline_at, 0), backlog.session_id LIMIT 1000;
