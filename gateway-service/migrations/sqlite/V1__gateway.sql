-- Instants are microseconds since the Unix epoch, UTC. Ids of sessions and jobs sort by time.
-- Few secondary indexes: each costs every write. Those on jobs in flight are partial, and so small.

-- phase: 0 open, 1 closing, 2 gone (kept a while, so that a repeated close finds it).
CREATE TABLE session (
    id         TEXT    PRIMARY KEY,
    owner      TEXT    NOT NULL,
    name       TEXT,
    agent      TEXT,
    project    TEXT,
    epoch      INTEGER NOT NULL,
    phase      INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at   INTEGER,
    CHECK ((agent IS NULL) = (project IS NULL) AND (agent IS NULL) = (epoch = 0))
) STRICT, WITHOUT ROWID;
CREATE INDEX session_living ON session (owner, id) WHERE phase < 2;
CREATE UNIQUE INDEX session_name ON session (owner, name) WHERE phase < 2 AND name IS NOT NULL;
-- What sweeps look at: nearly nothing.
CREATE INDEX session_ending ON session (phase, id) WHERE phase > 0;

-- The head of each log, in a table of its own and locked last: a worker's write locks no session.
-- Empty where first > last.
CREATE TABLE log_head (
    session  TEXT    PRIMARY KEY,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    CHECK (first >= 1 AND first <= last + 1 AND bytes >= 0)
) STRICT, WITHOUT ROWID;

-- facts: JSON of what happened, in the shape that `format` says; data: bytes from a worker.
CREATE TABLE event (
    session  TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    project  TEXT,
    epoch    INTEGER NOT NULL,
    format   INTEGER NOT NULL,
    facts    TEXT    NOT NULL,
    data     BLOB    NOT NULL,
    PRIMARY KEY (session, sequence)
) STRICT, WITHOUT ROWID;

-- Of the cookie only its SHA-256. role: 0 observer, 1 operator, 2 host.
CREATE TABLE client (
    id         TEXT    PRIMARY KEY,
    session    TEXT    NOT NULL,
    role       INTEGER NOT NULL,
    hash       BLOB    NOT NULL UNIQUE,
    cursor     INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX client_of ON client (session);

-- Built-in agents have no owner.
CREATE TABLE agent (
    id          TEXT    PRIMARY KEY,
    owner       TEXT,
    shared      INTEGER NOT NULL,
    description TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_of ON agent (owner);
INSERT INTO agent (id, owner, shared, description, created_at) VALUES ('primary', NULL, 0, 'built in', 0);

-- state: 0 queued, 1 running, 2 succeeded, 3 failed, 4 cancelled. Busy is derived from these rows and
-- stored nowhere. ended_by: 0 the gateway, 1 the worker.
CREATE TABLE job (
    id                  TEXT    PRIMARY KEY,
    session             TEXT    NOT NULL,
    owner               TEXT    NOT NULL,
    client              TEXT,
    agent               TEXT    NOT NULL,
    project             TEXT    NOT NULL,
    epoch               INTEGER NOT NULL,
    state               INTEGER NOT NULL,
    attempt             INTEGER NOT NULL,
    lost                INTEGER NOT NULL,
    fencing             INTEGER NOT NULL,
    holder              TEXT,
    worker              TEXT,
    lease_until         INTEGER,
    progress            INTEGER NOT NULL,
    submitted_at        INTEGER NOT NULL,
    first_started_at    INTEGER,
    started_at          INTEGER,
    cancel_requested_at INTEGER,
    ended_at            INTEGER,
    cause               TEXT    NOT NULL,
    ended_by            INTEGER NOT NULL,
    CHECK ((state = 1) = (lease_until IS NOT NULL) AND (state >= 2) = (ended_at IS NOT NULL))
) STRICT, WITHOUT ROWID;
-- The guard, and the queue of an agent: oldest first within its one project. One index for each state:
-- SQLite uses a partial index only where the statement has the index's own condition, so these seek and never
-- walk. The state stands in them so that counts read the index alone. Statements name the index they rest on
-- (INDEXED BY), and fail to prepare where it cannot serve.
CREATE INDEX job_queued ON job (agent, project, id, state) WHERE state = 0;
CREATE INDEX job_running ON job (agent, project, id, state) WHERE state = 1;
-- Quotas, and whether a session still waits for jobs.
CREATE INDEX job_of_owner ON job (owner, session, id, state) WHERE state < 2;
-- Sweeps: of the queue, oldest first; of leases; of what has run for too long, given back or not.
CREATE INDEX job_waiting ON job (id) WHERE state = 0;
CREATE INDEX job_leased ON job (lease_until, id) WHERE state = 1;
CREATE INDEX job_begun ON job (first_started_at, id) WHERE ended_at IS NULL AND first_started_at IS NOT NULL;
-- Lists.
CREATE INDEX job_of_session ON job (session, id);
-- Retention.
CREATE INDEX job_ended ON job (ended_at) WHERE state >= 2;

-- Apart from the job's row, so that a change of state does not write them again.
CREATE TABLE payload (
    job  TEXT PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE result (
    job  TEXT PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;

-- First answers, for retries. kind: 0 creation (scope is the owner), 1 submit (scope is the session).
CREATE TABLE request (
    kind       INTEGER NOT NULL,
    scope      TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    hash       BLOB    NOT NULL,
    made       TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,
    kept_until INTEGER NOT NULL,
    PRIMARY KEY (kind, scope, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_kept ON request (kept_until);
