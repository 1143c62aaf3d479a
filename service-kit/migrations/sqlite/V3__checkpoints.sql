-- Stands for the beginning of a chain that was removed: the last link of it, marked with the chain's key. No row of that
-- chain up to the place `through` is there any more.
CREATE TABLE audit_checkpoint (
    writer  TEXT    PRIMARY KEY,
    number  INTEGER NOT NULL,
    link    BLOB    NOT NULL,
    sealed  INTEGER NOT NULL,
    through INTEGER NOT NULL,
    damaged INTEGER NOT NULL,
    mark    BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
