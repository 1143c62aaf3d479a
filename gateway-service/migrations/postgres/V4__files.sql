-- Files of sessions: phase 0 coming, 1 kept, 2 going. Their contents are elsewhere, under the id. The row comes before
-- the contents and goes after them. due_at says from when on a sweep has something to do; none while kept. Changed under
-- the lock of the session.
CREATE TABLE file (
    id      TEXT COLLATE "C" PRIMARY KEY,
    session TEXT COLLATE "C" NOT NULL,
    project TEXT COLLATE "C",
    epoch   BIGINT NOT NULL,
    name    TEXT COLLATE "C" NOT NULL,
    phase   SMALLINT NOT NULL,
    due_at  BIGINT,
    size    BIGINT NOT NULL,
    hash    BYTEA NOT NULL,
    at      BIGINT NOT NULL
);
CREATE INDEX file_of ON file (session, id);
-- Sweeps.
CREATE INDEX file_due ON file (due_at, id) WHERE due_at IS NOT NULL;
