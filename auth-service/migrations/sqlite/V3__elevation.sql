-- That root is unlocked for an owner session: until when, on which root secret (a fingerprint), and for which client
-- certificate, if the unlock showed one. In the session's own row, so that it ends with it.
ALTER TABLE owner_session ADD COLUMN elevated_until INTEGER;
ALTER TABLE owner_session ADD COLUMN elevated_by BLOB CHECK ((elevated_by IS NULL) = (elevated_until IS NULL));
ALTER TABLE owner_session ADD COLUMN elevated_for BLOB CHECK (elevated_for IS NULL OR elevated_until IS NOT NULL);
-- For sweeps: of all owner sessions the few that are elevated.
CREATE INDEX owner_session_elevated ON owner_session (elevated_until) WHERE elevated_until IS NOT NULL;

-- What the root password is hashed with by programs that share this store. One row.
CREATE TABLE root_salt (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    salt BLOB NOT NULL CHECK (length(salt) = 16)
) STRICT;
INSERT INTO root_salt (only, salt) VALUES (1, randomblob(16));
