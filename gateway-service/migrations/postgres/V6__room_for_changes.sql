-- Rows that change in columns without an index. Where their page has room, the new version stays there and no index is
-- written (PostgreSQL: heap-only tuples); pages full of rows that have not changed yet have none. Pages filled from now on.
ALTER TABLE session SET (fillfactor = 80);
ALTER TABLE log_head SET (fillfactor = 80);
ALTER TABLE client SET (fillfactor = 80);
