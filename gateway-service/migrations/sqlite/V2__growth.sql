-- How many jobs each owner has in flight, where it has any: counted as they come and end, so that a submit costs
-- the same however many there are.
CREATE TABLE owner_load (
    owner     TEXT    PRIMARY KEY,
    in_flight INTEGER NOT NULL CHECK (in_flight > 0)
) STRICT, WITHOUT ROWID;
INSERT INTO owner_load (owner, in_flight) SELECT owner, COUNT(*) FROM job WHERE state < 2 GROUP BY owner;

-- Lists of agents: those of everybody, beside the owner's own.
CREATE INDEX agent_shared ON agent (id) WHERE shared = 1;
