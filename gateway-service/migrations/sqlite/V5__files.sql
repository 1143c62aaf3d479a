-- Files of sessions: phase 0 coming, 1 kept, 2 going. Their contents are elsewhere, under the id. The row comes before
-- the contents and goes after them. due_at says from when on a sweep has something to do; none while kept.
CREATE TABLE file (
    id      TEXT PRIMARY KEY,
    session TEXT NOT NULL,
    project TEXT,
    epoch   INTEGER NOT NULL,
    name    TEXT NOT NULL,
    phase   INTEGER NOT NULL,
    due_at  INTEGER,
    size    INTEGER NOT NULL,
    hash    BLOB NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX file_of ON file (session, id);
-- Sweeps.
CREATE INDEX file_due ON file (due_at, id) WHERE due_at IS NOT NULL;
