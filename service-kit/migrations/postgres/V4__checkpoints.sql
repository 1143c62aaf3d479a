-- Stands for the beginning of a chain that was removed: the last link of it, marked with the chain's key. No row of that
-- chain up to the place `through` is there any more.
CREATE TABLE audit_checkpoint (
    writer  TEXT COLLATE "C" PRIMARY KEY,
    number  BIGINT  NOT NULL,
    link    BYTEA   NOT NULL,
    sealed  BOOLEAN NOT NULL,
    through BIGINT  NOT NULL,
    damaged BIGINT  NOT NULL,
    mark    BYTEA   NOT NULL
);
