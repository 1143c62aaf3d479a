-- How far the log has grown old is one seek, however long it is.
CREATE INDEX revocation_at ON revocation (at, sequence);
