-- What a row of the log means beside "ask again": 0 nothing, 1 its subject has ended and what was made on it ends, too,
-- 2 also the work that was begun for it.
ALTER TABLE revocation ADD COLUMN effect INTEGER NOT NULL DEFAULT 0 CHECK (effect BETWEEN 0 AND 2);
