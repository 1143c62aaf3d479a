-- Attaches that wait in line for an agent. Earlier ids came first. The gateway that parks the call keeps alive_until
-- ahead; who concerns an agent: whoever wants it, and whoever would leave it. Changed under the locks of the agents it concerns.
CREATE TABLE waiter (
    id          TEXT COLLATE "C" PRIMARY KEY,
    session     TEXT COLLATE "C" NOT NULL,
    owner       TEXT COLLATE "C" NOT NULL,
    agent       TEXT COLLATE "C" NOT NULL,
    present     TEXT COLLATE "C",
    project     TEXT COLLATE "C" NOT NULL,
    deadline    BIGINT NOT NULL,
    alive_until BIGINT NOT NULL
);
CREATE INDEX waiter_for ON waiter (agent, id);
CREATE INDEX waiter_from ON waiter (present, id) WHERE present IS NOT NULL;
CREATE INDEX waiter_of ON waiter (owner);
-- Sweeps.
CREATE INDEX waiter_alive ON waiter (alive_until, id);
