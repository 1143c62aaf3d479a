-- Instants are microseconds since the Unix epoch, UTC. Ids of sessions and jobs sort by time; texts are compared by
-- their bytes, as every other engine does.
-- Few secondary indexes: each costs every write. Those on jobs in flight are partial, and so small.
-- Locks are taken in this order: sessions, agents by id, jobs, owners (advisory, by name), heads of logs.

-- phase: 0 open, 1 closing, 2 gone (kept a while, so that a repeated close finds it).
CREATE TABLE session (
    id         TEXT COLLATE "C" PRIMARY KEY,
    owner      TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C",
    agent      TEXT COLLATE "C",
    project    TEXT COLLATE "C",
    epoch      BIGINT NOT NULL,
    phase      SMALLINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at   BIGINT,
    CHECK ((agent IS NULL) = (project IS NULL) AND (agent IS NULL) = (epoch = 0))
);
CREATE INDEX session_living ON session (owner, id) WHERE phase < 2;
CREATE UNIQUE INDEX session_name ON session (owner, name) WHERE phase < 2 AND name IS NOT NULL;
-- What sweeps look at: nearly nothing.
CREATE INDEX session_ending ON session (phase, id) WHERE phase > 0;

-- The head of each log, in a table of its own and locked last: a worker's write locks no session.
-- Empty where first > last.
CREATE TABLE log_head (
    session  TEXT COLLATE "C" PRIMARY KEY,
    first    BIGINT NOT NULL,
    last     BIGINT NOT NULL,
    bytes    BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    CHECK (first >= 1 AND first <= last + 1 AND bytes >= 0)
);

-- facts: JSON of what happened, in the shape that `format` says; data: bytes from a worker.
CREATE TABLE event (
    session  TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    project  TEXT COLLATE "C",
    epoch    BIGINT NOT NULL,
    format   BIGINT NOT NULL,
    facts    TEXT COLLATE "C" NOT NULL,
    data     BYTEA NOT NULL,
    PRIMARY KEY (session, sequence)
);

-- Of the cookie only its SHA-256. role: 0 observer, 1 operator, 2 host.
CREATE TABLE client (
    id         TEXT COLLATE "C" PRIMARY KEY,
    session    TEXT COLLATE "C" NOT NULL,
    role       SMALLINT NOT NULL,
    hash       BYTEA NOT NULL UNIQUE CHECK (length(hash) = 32),
    cursor     BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX client_of ON client (session);

-- Built-in agents have no owner.
CREATE TABLE agent (
    id          TEXT COLLATE "C" PRIMARY KEY,
    owner       TEXT COLLATE "C",
    shared      BOOLEAN NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL
);
CREATE INDEX agent_of ON agent (owner);
INSERT INTO agent (id, owner, shared, description, created_at) VALUES ('primary', NULL, FALSE, 'built in', 0);

-- state: 0 queued, 1 running, 2 succeeded, 3 failed, 4 cancelled. Busy is derived from these rows and
-- stored nowhere. ended_by: 0 the gateway, 1 the worker.
CREATE TABLE job (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    session             TEXT COLLATE "C" NOT NULL,
    owner               TEXT COLLATE "C" NOT NULL,
    client              TEXT COLLATE "C",
    agent               TEXT COLLATE "C" NOT NULL,
    project             TEXT COLLATE "C" NOT NULL,
    epoch               BIGINT NOT NULL,
    state               SMALLINT NOT NULL,
    attempt             BIGINT NOT NULL,
    lost                BIGINT NOT NULL,
    fencing             BIGINT NOT NULL,
    holder              TEXT COLLATE "C",
    worker              TEXT COLLATE "C",
    lease_until         BIGINT,
    progress            BIGINT NOT NULL,
    submitted_at        BIGINT NOT NULL,
    first_started_at    BIGINT,
    started_at          BIGINT,
    cancel_requested_at BIGINT,
    ended_at            BIGINT,
    cause               TEXT COLLATE "C" NOT NULL,
    ended_by            SMALLINT NOT NULL,
    CHECK ((state = 1) = (lease_until IS NOT NULL) AND (state >= 2) = (ended_at IS NOT NULL))
);
-- The guard: the projects that an agent's jobs in flight are in, by a seek.
CREATE INDEX job_in_flight ON job (agent, project, id) WHERE state < 2;
-- The queue of an agent, oldest first.
CREATE INDEX job_queued ON job (agent, id) WHERE state = 0;
-- Whether a session still waits for jobs, and what of a busy agent an owner is told.
CREATE INDEX job_of_owner ON job (owner, session, id) WHERE state < 2;
-- Sweeps: of the queue, oldest first; of leases; of what has run for too long, given back or not.
CREATE INDEX job_waiting ON job (id) WHERE state = 0;
CREATE INDEX job_leased ON job (lease_until, id) WHERE state = 1;
CREATE INDEX job_begun ON job (first_started_at, id) WHERE ended_at IS NULL AND first_started_at IS NOT NULL;
-- Lists.
CREATE INDEX job_of_session ON job (session, id);
-- Retention.
CREATE INDEX job_ended ON job (ended_at, id) WHERE state >= 2;

-- How many jobs each owner has in flight: counted as they come and end, so that a submit costs the same however many
-- there are. Only who holds the owner's advisory lock adds to it.
CREATE TABLE owner_load (
    owner     TEXT COLLATE "C" PRIMARY KEY,
    in_flight BIGINT NOT NULL CHECK (in_flight >= 0)
);

-- Apart from the job's row, so that a change of state does not write them again.
CREATE TABLE payload (
    job  TEXT COLLATE "C" PRIMARY KEY,
    data BYTEA NOT NULL
);
CREATE TABLE result (
    job  TEXT COLLATE "C" PRIMARY KEY,
    data BYTEA NOT NULL
);

-- First answers, for retries. kind: 0 creation (scope is the owner), 1 submit (scope is the session).
CREATE TABLE request (
    kind       SMALLINT NOT NULL,
    scope      TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    hash       BYTEA NOT NULL CHECK (length(hash) = 32),
    made       TEXT COLLATE "C" NOT NULL,
    sealed     BYTEA NOT NULL,
    kept_until BIGINT NOT NULL,
    PRIMARY KEY (kind, scope, id)
);
CREATE INDEX request_kept ON request (kept_until);
