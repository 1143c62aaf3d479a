-- The next token of a rotation in two phases: admitted beside the present one until that is committed or aborted.
ALTER TABLE role_token ADD COLUMN candidate INTEGER NOT NULL DEFAULT 0 CHECK (candidate IN (0, 1));
DROP INDEX role_token_present;
CREATE UNIQUE INDEX role_token_present ON role_token (role) WHERE valid_until IS NULL AND candidate = 0;
-- One open rotation for each role, whatever the code does.
CREATE UNIQUE INDEX role_token_candidate ON role_token (role) WHERE candidate = 1;

-- Which request a stored answer is of.
ALTER TABLE rotation_answer ADD COLUMN step TEXT NOT NULL DEFAULT 'rotate'
    CHECK (step IN ('rotate', 'begin', 'commit', 'abort'));

-- Who used which generation of a role token: the latest use of each service and source, a bounded number of each token.
CREATE TABLE role_token_use (
    token   BLOB NOT NULL REFERENCES role_token (hash) ON DELETE CASCADE,
    -- Who admitted it: a SPIFFE id, or 'auth'.
    service TEXT NOT NULL,
    -- Where from: an address, an IPv6 network, or nothing.
    source  TEXT NOT NULL,
    role    TEXT NOT NULL CHECK (role IN ('admin', 'user')),
    last_at INTEGER NOT NULL,
    -- How often it was noted, at most once a second.
    noted   INTEGER NOT NULL,
    PRIMARY KEY (token, service, source)
) STRICT, WITHOUT ROWID;

-- Up to when a program that shares the store has stored all uses that it and its verifiers have admitted.
ALTER TABLE replica ADD COLUMN uses_told_at INTEGER NOT NULL DEFAULT 0;
