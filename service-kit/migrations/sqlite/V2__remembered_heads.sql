-- Ends of the audit chains of other services: they show there that a log was cut, or replaced by an older copy.
-- `at` is when this service stored it.
CREATE TABLE remembered_head (
    peer   TEXT    NOT NULL,
    writer TEXT    NOT NULL,
    number INTEGER NOT NULL,
    link   BLOB    NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (peer, writer)
) STRICT, WITHOUT ROWID;
