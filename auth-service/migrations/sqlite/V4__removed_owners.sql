-- When an owner was removed: only a tombstone stays, so that none of its sessions lives again whoever has the id later.
ALTER TABLE owner ADD COLUMN removed_at INTEGER CHECK (removed_at IS NULL OR NOT active);
