-- Tokens of one project, and since when an owner is a member: what it issued in an earlier membership has ended.
-- `since` is the last issuance number of that moment.
ALTER TABLE member ADD COLUMN since BIGINT NOT NULL DEFAULT 0;

CREATE TABLE project_token (
    hash       BYTEA PRIMARY KEY CHECK (length(hash) = 32),
    id         TEXT COLLATE "C" NOT NULL UNIQUE,
    project    TEXT COLLATE "C" NOT NULL REFERENCES project (id),
    -- Whom it acts for. No reference: built-in owners have no row, and a token ends with the owner's row.
    issuer     TEXT COLLATE "C" NOT NULL,
    label      TEXT COLLATE "C" NOT NULL,
    -- JSON lists of texts.
    scopes     TEXT COLLATE "C" NOT NULL,
    agents     TEXT COLLATE "C" NOT NULL,
    issuance   BIGINT NOT NULL,
    masked     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    -- Of a replaced one: the end of its grace.
    expires_at BIGINT,
    replaced   BOOLEAN NOT NULL,
    -- Of a revoked one, with its row of the log.
    ended_at   BIGINT,
    revocation BIGINT,
    -- Of one whose issuer was an administrator and no member: the version of the issuer's account then.
    by_role    BIGINT,
    CHECK ((ended_at IS NULL) = (revocation IS NULL))
);
-- For pages, oldest first.
CREATE UNIQUE INDEX project_token_project ON project_token (project, issuance);
-- For the bound on one issuer's.
CREATE INDEX project_token_issuer ON project_token (issuer);
-- For sweeps: those that end, and those that were ended.
CREATE INDEX project_token_expires ON project_token (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX project_token_ended ON project_token (ended_at) WHERE ended_at IS NOT NULL;

-- Sealed answers to requests that made a token, given again for ten minutes.
CREATE TABLE token_answer (
    owner      TEXT COLLATE "C" NOT NULL,
    request    TEXT COLLATE "C" NOT NULL,
    credential TEXT COLLATE "C" NOT NULL,
    asked      TEXT COLLATE "C" NOT NULL,
    sealed     BYTEA NOT NULL,
    token      TEXT COLLATE "C" NOT NULL,
    revocation BIGINT NOT NULL,
    ends_at    BIGINT NOT NULL,
    PRIMARY KEY (owner, request)
);
