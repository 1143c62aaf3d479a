-- A row of the log may concern all owner sessions of everybody. What a column allows is changed by making its table anew.
CREATE TABLE revocation_anew (
    sequence      INTEGER PRIMARY KEY,
    issued_before INTEGER NOT NULL,
    kind          TEXT    NOT NULL CHECK (kind IN ('credential', 'owner_session', 'owner', 'role', 'membership', 'every_owner_session')),
    subject       TEXT    NOT NULL,
    project       TEXT    NOT NULL,
    at            INTEGER NOT NULL
) STRICT;
INSERT INTO revocation_anew SELECT sequence, issued_before, kind, subject, project, at FROM revocation;
DROP TABLE revocation;
ALTER TABLE revocation_anew RENAME TO revocation;
CREATE INDEX revocation_at ON revocation (at, sequence);
-- "Issued before an instant" is one seek: the first session that began at it or later.
CREATE INDEX owner_session_created ON owner_session (created_at, issuance);
