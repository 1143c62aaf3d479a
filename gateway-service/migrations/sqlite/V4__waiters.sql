-- Attaches that wait in line for an agent. Earlier ids came first. The gateway that parks the call keeps alive_until
-- ahead; who concerns an agent: whoever wants it, and whoever would leave it.
CREATE TABLE waiter (
    id          TEXT PRIMARY KEY,
    session     TEXT NOT NULL,
    owner       TEXT NOT NULL,
    agent       TEXT NOT NULL,
    present     TEXT,
    project     TEXT NOT NULL,
    deadline    INTEGER NOT NULL,
    alive_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX waiter_for ON waiter (agent, id);
CREATE INDEX waiter_from ON waiter (present, id) WHERE present IS NOT NULL;
CREATE INDEX waiter_of ON waiter (owner);
-- Sweeps.
CREATE INDEX waiter_alive ON waiter (alive_until, id);
