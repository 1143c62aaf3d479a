-- When a client was last seen: some minutes coarse, so that a call costs no write. Those of before were seen now.
ALTER TABLE client ADD COLUMN seen_at BIGINT NOT NULL DEFAULT 0;
UPDATE client SET seen_at = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT;
-- Sweeps.
CREATE INDEX client_seen ON client (seen_at, id);

-- What further clients join a session with: argon2id in PHC form. joiners: 0 observer, 1 operator. version grows with
-- each change. kind of `request`: 2 joining, 3 message (scope is the session). Locked after its session.
CREATE TABLE password (
    session TEXT COLLATE "C" PRIMARY KEY,
    hash    TEXT COLLATE "C" NOT NULL,
    joiners SMALLINT NOT NULL,
    version BIGINT NOT NULL
);
