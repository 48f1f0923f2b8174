-- When an invocation began to wait for its key, and when it could begin to run.
ALTER TABLE invocation ADD COLUMN inboxed_at_ms INTEGER;
ALTER TABLE invocation ADD COLUMN running_at_ms INTEGER;
UPDATE invocation SET inboxed_at_ms = modified_at_ms WHERE status = 'inboxed';
-- Of an exclusive handler it was not recorded how long it had waited.
UPDATE invocation SET running_at_ms = max(created_at_ms, coalesce(start_at_ms, 0))
WHERE exclusive = 0 AND status NOT IN ('scheduled', 'inboxed');
