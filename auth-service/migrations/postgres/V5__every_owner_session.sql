-- A row of the log may concern all owner sessions of everybody.
ALTER TABLE revocation DROP CONSTRAINT revocation_kind_check;
ALTER TABLE revocation ADD CONSTRAINT revocation_kind_check
    CHECK (kind IN ('credential', 'owner_session', 'owner', 'role', 'membership', 'every_owner_session'));
-- "Issued before an instant" is one seek: the first session that began at it or later.
CREATE INDEX owner_session_created ON owner_session (created_at, issuance);
