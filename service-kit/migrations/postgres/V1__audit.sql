-- Texts are compared by their bytes, as every other engine does: COLLATE "C".

-- One row for each committed batch that has audit entries: the chain's link.
CREATE TABLE audit_batch (
    writer  TEXT COLLATE "C" NOT NULL,
    number  BIGINT  NOT NULL,
    at      BIGINT  NOT NULL,
    entries BIGINT  NOT NULL,
    sealed  BOOLEAN NOT NULL,
    link    BYTEA   NOT NULL,
    PRIMARY KEY (writer, number)
);

-- Rows of a batch follow each other; no further index: inserts are the hot path, and reads go by id.
CREATE TABLE audit (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    writer        TEXT COLLATE "C" NOT NULL,
    number        BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    principal     TEXT   NOT NULL,
    role          TEXT   NOT NULL,
    credential_id TEXT   NOT NULL,
    peer          TEXT   NOT NULL,
    request_id    TEXT   NOT NULL,
    rpc           TEXT   NOT NULL,
    action        TEXT   NOT NULL,
    outcome       TEXT   NOT NULL,
    reason        TEXT   NOT NULL,
    subject       TEXT   NOT NULL,
    scope         TEXT   NOT NULL,
    detail        TEXT   NOT NULL,
    count         BIGINT NOT NULL
);

-- The witness of each writer: the number and the instant of the last batch that it has committed. Updated by
-- every batch, so that who holds its lock knows how an earlier commit ended. The next instant is never before
-- any of these, whatever the clock says.
CREATE TABLE moment (
    writer TEXT COLLATE "C" PRIMARY KEY,
    batch  BIGINT NOT NULL,
    at     BIGINT NOT NULL
);
