-- How audits ended, as their own last lines say (veriff-archive/audit/v1). Nothing of a person stands in them.
CREATE TABLE audits (
    audit_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    audit       TEXT COLLATE "C" NOT NULL,
    finished_at BIGINT NOT NULL,
    summary     TEXT NOT NULL
);

CREATE INDEX audits_latest ON audits (finished_at);
