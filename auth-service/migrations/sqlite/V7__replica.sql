-- Programs that share the store, one row each; see `replica.rs`.
CREATE TABLE replica (
    -- Of one start of a program.
    id      TEXT PRIMARY KEY,
    beat    INTEGER NOT NULL,
    -- For how many microseconds after a beat was sent its program may vouch.
    promise INTEGER NOT NULL,
    -- Rows of the revocation log up to this one have reached all its verifiers.
    reached INTEGER NOT NULL,
    holders INTEGER NOT NULL,
    -- What the last revocations have reached: a JSON list of lists of numbers.
    told    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
