"""Tables of leads' own database (SQLite).

`workflow_states` and `job_steps` are a read model: durable steps write them, and people read them. What has happened, and
what happens next, is decided by the engine's journal alone; nothing reads a step's number to find out where to go on.
"""

SCHEMA = """
CREATE TABLE IF NOT EXISTS workflow_states (
    job_id       TEXT NOT NULL PRIMARY KEY,
    tenant_id    TEXT NOT NULL,
    workflow_id  TEXT NOT NULL,
    status       TEXT NOT NULL
                 CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'timed_out')),
    current_step INTEGER NOT NULL DEFAULT 0,
    step_results TEXT NOT NULL DEFAULT '{}' CHECK (json_type(step_results) = 'object'),
    error        TEXT,
    created_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;

CREATE TRIGGER IF NOT EXISTS workflow_states_touched AFTER UPDATE ON workflow_states
BEGIN
    UPDATE workflow_states SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE job_id = NEW.job_id;
END;

CREATE TABLE IF NOT EXISTS jobs (
    job_id        TEXT NOT NULL PRIMARY KEY REFERENCES workflow_states (job_id),
    user_id       TEXT NOT NULL,
    request       TEXT NOT NULL,
    request_hash  TEXT NOT NULL,
    engine        TEXT NOT NULL,
    run           INTEGER NOT NULL DEFAULT 1,
    invocation_id TEXT,
    price_cents   INTEGER,
    result        TEXT,
    error         TEXT,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    finished_at_ms INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_user ON jobs (user_id, created_at_ms);

CREATE TABLE IF NOT EXISTS job_steps (
    job_id         TEXT NOT NULL,
    run            INTEGER NOT NULL,
    name           TEXT NOT NULL,
    subject        TEXT NOT NULL,
    status         TEXT NOT NULL CHECK (status IN ('running', 'completed', 'failed')),
    attempt_count  INTEGER NOT NULL,
    result         TEXT,
    error          TEXT,
    started_at_ms  INTEGER NOT NULL,
    finished_at_ms INTEGER,
    UNIQUE (job_id, run, name, subject)
) STRICT;

CREATE TABLE IF NOT EXISTS job_logs (
    job_id  TEXT NOT NULL,
    at_ms   INTEGER NOT NULL,
    level   TEXT NOT NULL,
    step    TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS job_logs_by_job ON job_logs (job_id);

CREATE TABLE IF NOT EXISTS cost_events (
    job_id      TEXT NOT NULL,
    run         INTEGER NOT NULL,
    step        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    type        TEXT NOT NULL,
    provider    TEXT NOT NULL,
    quantity    REAL NOT NULL,
    unit        TEXT NOT NULL,
    cost_usd    REAL NOT NULL,
    duration_ms INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (job_id, run, step, subject, type, provider)
) STRICT;

CREATE TABLE IF NOT EXISTS leads (
    job_id          TEXT NOT NULL,
    place_id        TEXT NOT NULL,
    rank            INTEGER NOT NULL,
    business        TEXT NOT NULL,
    scan            TEXT,
    discovery_score REAL,
    score           REAL,
    score_report    TEXT,
    owner           TEXT,
    audit           TEXT,
    error           TEXT,
    warnings        TEXT NOT NULL DEFAULT '[]',
    is_enriched     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, place_id)
) STRICT;

CREATE TABLE IF NOT EXISTS deliveries (
    event_id TEXT NOT NULL,
    target   TEXT NOT NULL,
    attempt  INTEGER NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('sending', 'sent', 'limited', 'refused', 'unknown')),
    detail   TEXT,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (event_id, target, attempt)
) STRICT;
"""
