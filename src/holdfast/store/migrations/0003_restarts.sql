-- The invocation whose input, and perhaps journal, a restarted one took over.
ALTER TABLE invocation ADD COLUMN restarted_from TEXT;
