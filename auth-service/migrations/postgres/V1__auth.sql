-- Times are microseconds since the Unix epoch, UTC. Credentials stand here as SHA-256 only. Texts are compared by
-- their bytes, as every other engine does.

-- The numbers given out last. One row, updated on condition of what was read: so neither sequence has
-- gaps or doubles.
CREATE TABLE counter (
    one        SMALLINT PRIMARY KEY CHECK (one = 1),
    issuance   BIGINT NOT NULL,
    revocation BIGINT NOT NULL,
    -- Rows of the revocation log up to this one are gone.
    pruned     BIGINT NOT NULL
);
INSERT INTO counter (one, issuance, revocation, pruned) VALUES (1, 0, 0, 0);

CREATE TABLE role_token (
    hash        BYTEA PRIMARY KEY CHECK (length(hash) = 32),
    id          TEXT COLLATE "C" NOT NULL,
    role        TEXT COLLATE "C" NOT NULL CHECK (role IN ('admin', 'user')),
    generation  BIGINT NOT NULL,
    issuance    BIGINT NOT NULL,
    masked      TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    -- Until when a replaced one is admitted.
    valid_until BIGINT,
    UNIQUE (role, generation)
);
-- One present token for each role, whatever the code does.
CREATE UNIQUE INDEX role_token_present ON role_token (role) WHERE valid_until IS NULL;

-- Sealed answers to rotations, given again for ten minutes.
CREATE TABLE rotation_answer (
    owner      TEXT COLLATE "C" NOT NULL,
    request    TEXT COLLATE "C" NOT NULL,
    credential TEXT COLLATE "C" NOT NULL,
    role       TEXT COLLATE "C" NOT NULL,
    grace      BIGINT NOT NULL,
    sealed     BYTEA NOT NULL,
    generation BIGINT NOT NULL,
    revocation BIGINT NOT NULL,
    ends_at    BIGINT NOT NULL,
    PRIMARY KEY (owner, request)
);

CREATE TABLE owner (
    id            TEXT COLLATE "C" PRIMARY KEY,
    display_name  TEXT COLLATE "C" NOT NULL,
    -- A JSON list of texts.
    roles         TEXT COLLATE "C" NOT NULL,
    active        BOOLEAN NOT NULL,
    -- A hash, never a password: 'argon2id' in PHC form, or an imported one until the first good sign-in.
    password      TEXT COLLATE "C" NOT NULL CHECK (password LIKE '$%' OR password LIKE 'pbkdf2\_sha256$%' ESCAPE '\'),
    version       BIGINT NOT NULL,
    -- Sessions with a smaller issuance number have ended: "all of this owner's" is one number.
    sessions_from BIGINT NOT NULL,
    changed_at    BIGINT NOT NULL
);

-- What each source said when it was last applied. Outlives the owner, so that a restart revives nobody.
CREATE TABLE applied (
    source       TEXT COLLATE "C" NOT NULL,
    owner        TEXT COLLATE "C" NOT NULL,
    display_name TEXT COLLATE "C" NOT NULL,
    roles        TEXT COLLATE "C" NOT NULL,
    active       BOOLEAN NOT NULL,
    password     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (source, owner)
);

CREATE TABLE owner_session (
    id         TEXT COLLATE "C" PRIMARY KEY,
    owner      TEXT COLLATE "C" NOT NULL REFERENCES owner (id),
    issuance   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at   BIGINT,
    refreshes  BIGINT NOT NULL
);
-- For the bound on living sessions of one owner.
CREATE INDEX owner_session_owner ON owner_session (owner, issuance);
-- For sweeps: what has ended is found without a walk over what lives.
CREATE INDEX owner_session_ended ON owner_session (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX owner_session_expires ON owner_session (expires_at);

-- References are checked at the commit: a verb plans a session and its tokens in any order.
CREATE TABLE access_token (
    hash       BYTEA PRIMARY KEY CHECK (length(hash) = 32),
    id         TEXT COLLATE "C" NOT NULL,
    session    TEXT COLLATE "C" NOT NULL REFERENCES owner_session (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    issuance   BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX access_token_session ON access_token (session);
-- For sweeps.
CREATE INDEX access_token_expires ON access_token (expires_at);

CREATE TABLE refresh_token (
    hash              BYTEA PRIMARY KEY CHECK (length(hash) = 32),
    id                TEXT COLLATE "C" NOT NULL,
    session           TEXT COLLATE "C" NOT NULL REFERENCES owner_session (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    issuance          BIGINT NOT NULL,
    -- Unique: a refresh token has at most one successor, whatever the code does.
    predecessor       BYTEA UNIQUE,
    state             TEXT COLLATE "C" NOT NULL CHECK (state IN ('fresh', 'used', 'spent')),
    -- Of the first presentation; the sealed answer is gone when the token is spent.
    used_at           BIGINT,
    sealed            BYTEA,
    access_expires_at BIGINT,
    CHECK ((state = 'used') = (sealed IS NOT NULL))
);
CREATE INDEX refresh_token_session ON refresh_token (session);
-- For sweeps: the sealed answers, of all refresh tokens the few that have one.
CREATE INDEX refresh_token_used ON refresh_token (used_at) WHERE state = 'used';

CREATE TABLE project (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    created_by TEXT COLLATE "C" NOT NULL,
    -- The caller's id of the request: a repeated one finds this row.
    request    TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    UNIQUE (created_by, request)
);
INSERT INTO project (id, name, created_by, request, created_at) VALUES ('system', 'system', 'system', NULL, 0);

CREATE TABLE member (
    owner   TEXT COLLATE "C" NOT NULL,
    project TEXT COLLATE "C" NOT NULL REFERENCES project (id),
    at      BIGINT NOT NULL,
    PRIMARY KEY (owner, project)
);

-- The revocation log. `kind` says what `subject` is; `project` is for memberships.
CREATE TABLE revocation (
    sequence      BIGINT PRIMARY KEY,
    issued_before BIGINT NOT NULL,
    kind          TEXT COLLATE "C" NOT NULL CHECK (kind IN ('credential', 'owner_session', 'owner', 'role', 'membership')),
    subject       TEXT COLLATE "C" NOT NULL,
    project       TEXT COLLATE "C" NOT NULL,
    at            BIGINT NOT NULL
);
