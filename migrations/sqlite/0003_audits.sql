-- How audits ended, as their own last lines say (veriff-archive/audit/v1). Nothing of a person stands in them.
CREATE TABLE audits (
    audit_id    TEXT NOT NULL PRIMARY KEY,
    audit       TEXT NOT NULL,
    finished_at INTEGER NOT NULL,
    summary     TEXT NOT NULL
) STRICT;

CREATE INDEX audits_latest ON audits (finished_at);
