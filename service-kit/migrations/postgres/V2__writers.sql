-- Several programs may use the store at once. A writer that has ended adds nothing any more: its chain is sealed.
-- Its row stays for a while, so that one that was only cut off finds what became of its last commit.
ALTER TABLE moment ADD COLUMN ended BOOLEAN NOT NULL DEFAULT FALSE;

-- What shows that a program has the key that the chains of this store are made with.
CREATE TABLE chain_key (
    one  SMALLINT PRIMARY KEY CHECK (one = 1),
    mark BYTEA NOT NULL
);
