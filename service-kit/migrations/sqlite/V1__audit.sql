-- One row for each committed batch that has audit entries: chain link and witness in one.
CREATE TABLE audit_batch (
    writer  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    sealed  INTEGER NOT NULL,
    link    BLOB    NOT NULL,
    PRIMARY KEY (writer, number)
) STRICT, WITHOUT ROWID;

-- Rows of a batch follow each other; no further index: inserts are the hot path, and reads go by id.
CREATE TABLE audit (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    writer        TEXT    NOT NULL,
    number        INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    principal     TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    credential_id TEXT    NOT NULL,
    peer          TEXT    NOT NULL,
    request_id    TEXT    NOT NULL,
    rpc           TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    outcome       TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    subject       TEXT    NOT NULL,
    scope         TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    count         INTEGER NOT NULL
) STRICT;

-- The last instant that a batch was given: the next one is never before it, whatever the clock says.
CREATE TABLE moment (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    at   INTEGER NOT NULL
) STRICT;
INSERT INTO moment (only, at) VALUES (1, 0);
