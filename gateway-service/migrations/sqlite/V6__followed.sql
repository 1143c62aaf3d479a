-- Up to where the gateways on this store have seen to auth's log of revocations: the last row, and its issuance number.
-- 0: they never have.
CREATE TABLE followed (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    sequence INTEGER NOT NULL,
    issued_before INTEGER NOT NULL
) STRICT;
INSERT INTO followed (only, sequence, issued_before) VALUES (1, 0, 0);
