-- Up to where the gateways on this store have seen to auth's log of revocations: the last row, and its issuance number.
-- 0: they never have.
CREATE TABLE followed (
    one SMALLINT PRIMARY KEY CHECK (one = 1),
    sequence BIGINT NOT NULL,
    issued_before BIGINT NOT NULL
);
INSERT INTO followed (one, sequence, issued_before) VALUES (1, 0, 0);
