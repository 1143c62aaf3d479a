-- Times are microseconds since the Unix epoch, UTC. Credentials stand here as SHA-256 only.

-- The numbers given out last. One row, updated on condition of what was read: so neither sequence has
-- gaps or doubles.
CREATE TABLE counter (
    only       INTEGER PRIMARY KEY CHECK (only = 1),
    issuance   INTEGER NOT NULL,
    revocation INTEGER NOT NULL,
    -- Rows of the revocation log up to this one are gone.
    pruned     INTEGER NOT NULL
) STRICT;
INSERT INTO counter (only, issuance, revocation, pruned) VALUES (1, 0, 0, 0);

CREATE TABLE role_token (
    hash        BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    id          TEXT    NOT NULL,
    role        TEXT    NOT NULL CHECK (role IN ('admin', 'user')),
    generation  INTEGER NOT NULL,
    issuance    INTEGER NOT NULL,
    masked      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    -- Until when a replaced one is admitted.
    valid_until INTEGER,
    UNIQUE (role, generation)
) STRICT, WITHOUT ROWID;
-- One present token for each role, whatever the code does.
CREATE UNIQUE INDEX role_token_present ON role_token (role) WHERE valid_until IS NULL;

-- Sealed answers to rotations, given again for ten minutes.
CREATE TABLE rotation_answer (
    owner      TEXT    NOT NULL,
    request    TEXT    NOT NULL,
    credential TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    grace      INTEGER NOT NULL,
    sealed     BLOB    NOT NULL,
    generation INTEGER NOT NULL,
    revocation INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL,
    PRIMARY KEY (owner, request)
) STRICT, WITHOUT ROWID;

CREATE TABLE owner (
    id            TEXT    PRIMARY KEY,
    display_name  TEXT    NOT NULL,
    -- A JSON list of texts.
    roles         TEXT    NOT NULL,
    active        INTEGER NOT NULL,
    -- A hash, never a password: 'argon2id' in PHC form, or an imported one until the first good sign-in.
    password      TEXT    NOT NULL CHECK (password LIKE '$%' OR password LIKE 'pbkdf2\_sha256$%' ESCAPE '\'),
    version       INTEGER NOT NULL,
    -- Sessions with a smaller issuance number have ended: "all of this owner's" is one number.
    sessions_from INTEGER NOT NULL,
    changed_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What each source said when it was last applied. Outlives the owner, so that a restart revives nobody.
CREATE TABLE applied (
    source       TEXT    NOT NULL,
    owner        TEXT    NOT NULL,
    display_name TEXT    NOT NULL,
    roles        TEXT    NOT NULL,
    active       INTEGER NOT NULL,
    password     TEXT    NOT NULL,
    PRIMARY KEY (source, owner)
) STRICT, WITHOUT ROWID;

CREATE TABLE owner_session (
    id         TEXT    PRIMARY KEY,
    owner      TEXT    NOT NULL REFERENCES owner (id),
    issuance   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ended_at   INTEGER,
    refreshes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- For the bound on living sessions of one owner.
CREATE INDEX owner_session_owner ON owner_session (owner, issuance);
-- For sweeps: what has ended is found without a walk over what lives.
CREATE INDEX owner_session_ended ON owner_session (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX owner_session_expires ON owner_session (expires_at);

-- References are checked at the commit: a verb plans a session and its tokens in any order.
CREATE TABLE access_token (
    hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    id         TEXT    NOT NULL,
    session    TEXT    NOT NULL REFERENCES owner_session (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    issuance   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX access_token_session ON access_token (session);
-- For sweeps.
CREATE INDEX access_token_expires ON access_token (expires_at);

CREATE TABLE refresh_token (
    hash              BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    id                TEXT    NOT NULL,
    session           TEXT    NOT NULL REFERENCES owner_session (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    issuance          INTEGER NOT NULL,
    -- Unique: a refresh token has at most one successor, whatever the code does.
    predecessor       BLOB    UNIQUE,
    state             TEXT    NOT NULL CHECK (state IN ('fresh', 'used', 'spent')),
    -- Of the first presentation; the sealed answer is gone when the token is spent.
    used_at           INTEGER,
    sealed            BLOB,
    access_expires_at INTEGER,
    CHECK ((state = 'used') = (sealed IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_token_session ON refresh_token (session);
-- For sweeps: the sealed answers, of all refresh tokens the few that have one.
CREATE INDEX refresh_token_used ON refresh_token (used_at) WHERE state = 'used';

CREATE TABLE project (
    id         TEXT    PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    created_by TEXT    NOT NULL,
    -- The caller's id of the request: a repeated one finds this row.
    request    TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (created_by, request)
) STRICT, WITHOUT ROWID;
INSERT INTO project (id, name, created_by, request, created_at) VALUES ('system', 'system', 'system', NULL, 0);

CREATE TABLE member (
    owner   TEXT    NOT NULL,
    project TEXT    NOT NULL REFERENCES project (id),
    at      INTEGER NOT NULL,
    PRIMARY KEY (owner, project)
) STRICT, WITHOUT ROWID;

-- The revocation log. `kind` says what `subject` is; `project` is for memberships.
CREATE TABLE revocation (
    sequence      INTEGER PRIMARY KEY,
    issued_before INTEGER NOT NULL,
    kind          TEXT    NOT NULL CHECK (kind IN ('credential', 'owner_session', 'owner', 'role', 'membership')),
    subject       TEXT    NOT NULL,
    project       TEXT    NOT NULL,
    at            INTEGER NOT NULL
) STRICT;
