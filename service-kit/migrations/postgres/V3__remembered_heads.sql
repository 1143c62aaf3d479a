-- Ends of the audit chains of other services: they show there that a log was cut, or replaced by an older copy.
-- `at` is when this service stored it.
CREATE TABLE remembered_head (
    peer   TEXT COLLATE "C" NOT NULL,
    writer TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    link   BYTEA  NOT NULL,
    at     BIGINT NOT NULL,
    PRIMARY KEY (peer, writer)
);
