-- One row per invocation. `head` holds the first journal frames while they are small, `output` the Output frame.
CREATE TABLE invocation (
    seq                  INTEGER PRIMARY KEY,      -- order of arrival, never used twice
    id                   TEXT NOT NULL UNIQUE,     -- inv_1…
    service              TEXT NOT NULL,
    handler              TEXT NOT NULL,
    key                  TEXT,                     -- NULL for plain services
    exclusive            INTEGER NOT NULL,         -- 1: holds the lock of its key while it is live
    status               TEXT NOT NULL,            -- scheduled, inboxed, invoked, suspended, paused, completed
    created_at_ms        INTEGER NOT NULL,
    modified_at_ms       INTEGER NOT NULL,
    start_at_ms          INTEGER,                  -- delayed sends
    completed_at_ms      INTEGER,
    idempotency_key      TEXT,
    invoked_by_id        TEXT,                     -- NULL: the ingress
    invoked_by_target    TEXT,
    sink_seq             INTEGER,                  -- the caller's invocation that waits for the result
    sink_completion_id   INTEGER NOT NULL,
    has_listeners        INTEGER NOT NULL,
    random_seed          INTEGER,                  -- NULL: derived from the id
    retention_ms         INTEGER NOT NULL,
    journal_retention_ms INTEGER NOT NULL,
    inbox_seq            INTEGER,                  -- place in the key's queue while inboxed
    deployment_id        TEXT,
    protocol_version     INTEGER,
    awaiting             TEXT,                     -- what a suspended invocation waits for, as JSON
    failure_code         INTEGER,
    head                 BLOB NOT NULL,
    output               BLOB NOT NULL
) STRICT;

-- Everything that is not over: recovery, key queues, and lists of live invocations.
CREATE INDEX invocation_live ON invocation (status, service, key, inbox_seq) WHERE status <> 'completed';

-- Journal entries after the head, as the protocol's frames; one row per commit, not per entry.
CREATE TABLE journal (
    seq           INTEGER NOT NULL,
    first_index   INTEGER NOT NULL,
    entry_count   INTEGER NOT NULL,
    stored_at_ms  INTEGER NOT NULL,
    frames        BLOB NOT NULL,
    PRIMARY KEY (seq, first_index)
) STRICT, WITHOUT ROWID;

-- Distinct failures of attempts, and pauses.
CREATE TABLE journal_event (
    seq          INTEGER NOT NULL,
    at_ms        INTEGER NOT NULL,
    after_index  INTEGER NOT NULL,
    event        TEXT NOT NULL
) STRICT;
CREATE INDEX journal_event_seq ON journal_event (seq);

CREATE TABLE state (
    service TEXT NOT NULL,
    key     TEXT NOT NULL,
    name    TEXT NOT NULL,
    value   BLOB NOT NULL,
    PRIMARY KEY (service, key, name)
) STRICT, WITHOUT ROWID;

-- State edits by operators, waiting in a key's queue.
CREATE TABLE state_mutation (
    inbox_seq INTEGER PRIMARY KEY,
    service   TEXT NOT NULL,
    key       TEXT NOT NULL,
    version   TEXT,
    new_state TEXT NOT NULL  -- JSON: name -> hex
) STRICT;

CREATE TABLE promise (
    service TEXT NOT NULL,
    key     TEXT NOT NULL,
    name    TEXT NOT NULL,
    result  BLOB NOT NULL,
    PRIMARY KEY (service, key, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE promise_listener (
    service       TEXT NOT NULL,
    key           TEXT NOT NULL,
    name          TEXT NOT NULL,
    seq           INTEGER NOT NULL,
    completion_id INTEGER NOT NULL,
    PRIMARY KEY (service, key, name, seq, completion_id)
) STRICT, WITHOUT ROWID;

-- Others who wait for an invocation's result (attach, or a second call with the same idempotency key).
CREATE TABLE listener (
    target_seq        INTEGER NOT NULL,
    seq               INTEGER NOT NULL,
    completion_id     INTEGER NOT NULL,
    notification_type INTEGER NOT NULL,
    PRIMARY KEY (target_seq, seq, completion_id)
) STRICT, WITHOUT ROWID;

-- Completion id 0 is the start of a scheduled invocation.
CREATE TABLE timer (
    due_ms        INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    completion_id INTEGER NOT NULL,
    PRIMARY KEY (due_ms, seq, completion_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployment (
    id           TEXT PRIMARY KEY,
    created_at_ms INTEGER NOT NULL,
    manifest     TEXT NOT NULL
) STRICT;

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
