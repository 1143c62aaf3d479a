-- Tokens of one project, and since when an owner is a member: what it issued in an earlier membership has ended.
-- `since` is the last issuance number of that moment.
ALTER TABLE member ADD COLUMN since INTEGER NOT NULL DEFAULT 0;

CREATE TABLE project_token (
    hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    id         TEXT    NOT NULL UNIQUE,
    project    TEXT    NOT NULL REFERENCES project (id),
    -- Whom it acts for. No reference: built-in owners have no row, and a token ends with the owner's row.
    issuer     TEXT    NOT NULL,
    label      TEXT    NOT NULL,
    -- JSON lists of texts.
    scopes     TEXT    NOT NULL,
    agents     TEXT    NOT NULL,
    issuance   INTEGER NOT NULL,
    masked     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    -- Of a replaced one: the end of its grace.
    expires_at INTEGER,
    replaced   INTEGER NOT NULL CHECK (replaced IN (0, 1)),
    -- Of a revoked one, with its row of the log.
    ended_at   INTEGER,
    revocation INTEGER,
    -- Of one whose issuer was an administrator and no member: the version of the issuer's account then.
    by_role    INTEGER,
    CHECK ((ended_at IS NULL) = (revocation IS NULL))
) STRICT, WITHOUT ROWID;
-- For pages, oldest first.
CREATE UNIQUE INDEX project_token_project ON project_token (project, issuance);
-- For the bound on one issuer's.
CREATE INDEX project_token_issuer ON project_token (issuer);
-- For sweeps: those that end, and those that were ended.
CREATE INDEX project_token_expires ON project_token (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX project_token_ended ON project_token (ended_at) WHERE ended_at IS NOT NULL;

-- Sealed answers to requests that made a token, given again for ten minutes.
CREATE TABLE token_answer (
    owner      TEXT    NOT NULL,
    request    TEXT    NOT NULL,
    credential TEXT    NOT NULL,
    asked      TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,
    token      TEXT    NOT NULL,
    revocation INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL,
    PRIMARY KEY (owner, request)
) STRICT, WITHOUT ROWID;
