-- That root is unlocked for an owner session: until when, on which root secret (a fingerprint), and for which client
-- certificate, if the unlock showed one. In the session's own row, so that it ends with it.
ALTER TABLE owner_session ADD COLUMN elevated_until BIGINT;
ALTER TABLE owner_session ADD COLUMN elevated_by BYTEA CHECK ((elevated_by IS NULL) = (elevated_until IS NULL));
ALTER TABLE owner_session ADD COLUMN elevated_for BYTEA CHECK (elevated_for IS NULL OR elevated_until IS NOT NULL);
-- For sweeps: of all owner sessions the few that are elevated.
CREATE INDEX owner_session_elevated ON owner_session (elevated_until) WHERE elevated_until IS NOT NULL;

-- What the root password is hashed with by programs that share this store. One row; 122 of its bits are random.
CREATE TABLE root_salt (
    one  SMALLINT PRIMARY KEY CHECK (one = 1),
    salt BYTEA NOT NULL CHECK (length(salt) = 16)
);
INSERT INTO root_salt (one, salt) VALUES (1, uuid_send(gen_random_uuid()));
