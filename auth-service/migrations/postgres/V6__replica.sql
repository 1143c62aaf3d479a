-- Programs that share the store, one row each; see `replica.rs`.
CREATE TABLE replica (
    -- Of one start of a program.
    id      TEXT COLLATE "C" PRIMARY KEY,
    beat    BIGINT NOT NULL,
    -- For how many microseconds after a beat was sent its program may vouch.
    promise BIGINT NOT NULL,
    -- Rows of the revocation log up to this one have reached all its verifiers.
    reached BIGINT NOT NULL,
    holders BIGINT NOT NULL,
    -- What the last revocations have reached: a JSON list of lists of numbers.
    told    TEXT COLLATE "C" NOT NULL
);
