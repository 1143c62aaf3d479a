-- When a client was last seen: some minutes coarse, so that a call costs no write. Those of before were seen now.
ALTER TABLE client ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;
UPDATE client SET seen_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER);
-- Sweeps.
CREATE INDEX client_seen ON client (seen_at, id);

-- What further clients join a session with: argon2id in PHC form. joiners: 0 observer, 1 operator. version grows with
-- each change. kind of `request`: 2 joining, 3 message (scope is the session).
CREATE TABLE password (
    session TEXT    PRIMARY KEY,
    hash    TEXT    NOT NULL,
    joiners INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
