# ruff: noqa: S608 - put together from our own words; values are always bound
"""The longer SurrealQL of `store.py`, each a step's work within one transaction."""

from __future__ import annotations

LEDGER = """
LET $attempt = count((SELECT VALUE id FROM step_ledger:[$job, $step, 0]..[$job, $step, 1000000])) + 1;
CREATE step_ledger CONTENT {
    id: [$job, $step, $attempt], job: type::thing('job', $job), step: $step, attempt: $attempt,
    process: $process, began_at: $began_at
} RETURN NONE;
"""

LEDGER_COUNT = 2
"""Statements in it that have a result of their own."""

# Whoever comes second finds the row: IGNORE keeps its state. A final job gets no scan again.
CREATE_JOBS = """
BEGIN;
LET $now = time::now();
INSERT IGNORE INTO job (
    SELECT id, 'pending' AS state, scanner_key, $now AS created_at, time::nano($now) AS created_ns FROM $rows
) RETURN NONE;
INSERT IGNORE INTO submission (
    SELECT id, packed_scan, observed_at_s FROM $rows WHERE type::thing('job', id).state = 'pending'
) RETURN NONE;
COMMIT;
SELECT * FROM (SELECT VALUE type::thing('job', id) FROM $rows);
"""

SET_STATE = """
LET $changed = (UPDATE type::thing('job', $job) SET
    state = $state,
    error_message = error_message ?? IF $error_message = 'cancelled' AND cancel_reason != NONE
        THEN 'cancelled: ' + cancel_reason ELSE $error_message END,
    invocation_id = $invocation_id ?? invocation_id,
    host_count = $host_count ?? host_count,
    port_count = $port_count ?? port_count,
    completed_at = IF $state IN ['completed', 'failed'] THEN completed_at ?? time::now() END);
IF array::len($changed) = 0 { THROW 'no such job' };
"""

# A cancelled run goes on to `mark-failed` while the step that it interrupted may still be under way in this process.
UNLESS_FINAL = """
IF type::thing('job', $job).state IN ['completed', 'failed'] { THROW 'the job is final' };
"""

DROP_BATCHES = "DELETE scan_batch:[$job, 0]..[$job, 1000000] RETURN NONE;"

DROP_WORK = f"{DROP_BATCHES} DELETE type::thing('submission', $job) RETURN NONE;"
"""What a final job needs no more."""

_SEEN = "last_seen = IF $at > last_seen THEN $at ELSE last_seen END"
"""To be the last of an UPDATE: the others compare with the `last_seen` of before."""


def _newer(name: str) -> str:
    """What was observed later counts, but nothing never replaces something."""
    return f"{name} = IF $at >= last_seen THEN $input.{name} ?? {name} ELSE {name} ?? $input.{name} END"


# A product that changed takes its version along: nginx 1.18 followed by Apache is not Apache 1.18.
# Flat, because SurrealDB 2.3 makes NONE of an IF inside the block of another one.
_VERSION = """version = IF $input.product != product AND $input.product != NONE AND product != NONE AND $at >= last_seen
    THEN $input.version
    ELSE IF $input.product != product AND $input.product != NONE AND product != NONE THEN version
    ELSE IF $at >= last_seen THEN $input.version ?? version
    ELSE version ?? $input.version END"""

PERSIST = f"""
INSERT INTO host (
    SELECT id, id AS address, ip, name, $at AS first_seen, $at AS last_seen FROM $hosts
) ON DUPLICATE KEY UPDATE last_scanned_at = time::now(), {_newer("name")}, {_SEEN} RETURN NONE;
INSERT INTO sighting (
    SELECT [$job, id] AS id, type::thing('host', id) AS host, type::thing('job', $job) AS job, $at AS at FROM $hosts
) ON DUPLICATE KEY UPDATE at = $at RETURN NONE;
INSERT INTO port (
    SELECT id, type::thing('host', id[0]) AS host, id[1] AS protocol, id[2] AS number, service, product, version,
        $at AS first_seen, $at AS last_seen FROM $ports
) ON DUPLICATE KEY UPDATE {_VERSION}, {_newer("service")}, {_newer("product")}, {_SEEN} RETURN NONE;
INSERT RELATION INTO HAS (
    SELECT id, type::thing('host', id[0]) AS in, type::thing('port', id) AS out,
        $at AS first_seen, $at AS last_seen FROM $ports
) ON DUPLICATE KEY UPDATE {_SEEN} RETURN NONE;
"""

# Not `id.out`: of a record whose id is an array that is a member of the array, and always NONE.
# Which service runs is read back from the port after the merge above, so that it is the same whichever scan came first.
PERSIST_SERVICES = f"""
LET $told = (SELECT VALUE type::thing('port', id) FROM $ports
    WHERE service != NONE OR product != NONE OR banner != NONE OR certificate != NONE);
LET $running = (SELECT id AS port, service ?? 'unknown' AS name, product, version,
    crypto::sha256(string::lowercase(string::join('|', service ?? 'unknown', product ?? '', version ?? '')))
        AS fingerprint
    FROM $told);
INSERT INTO service (
    SELECT fingerprint AS id, fingerprint, name, product, version, $at AS first_seen, $at AS last_seen FROM $running
) ON DUPLICATE KEY UPDATE {_SEEN} RETURN NONE;
LET $edges = (SELECT type::thing('RUNS', record::id(port)) AS edge, port AS in, type::thing('service', fingerprint) AS out
    FROM $running);
DELETE (SELECT VALUE edge FROM $edges WHERE edge.out != NONE AND edge.out != out) RETURN NONE;
INSERT RELATION INTO RUNS (
    SELECT edge AS id, in, out, 1.0 AS confidence, $at AS first_seen, $at AS last_seen FROM $edges
) ON DUPLICATE KEY UPDATE {_SEEN} RETURN NONE;
FOR $named IN (SELECT type::thing('RUNS', id).out AS service, product, version, cpes FROM $ports WHERE cpes != NONE) {{
    UPDATE $named.service SET scanner_cpe = array::union(scanner_cpe, $named.cpes)
        WHERE product = $named.product AND version = $named.version AND scanner_cpe CONTAINSNOT $named.cpes[0] RETURN NONE
}};
INSERT INTO banner (
    SELECT hash AS id, hash, sample, $at AS first_seen, $at AS last_seen FROM $banners
) ON DUPLICATE KEY UPDATE {_SEEN} RETURN NONE;
INSERT INTO tls_cert (
    SELECT sha256 AS id, sha256, cn, sans, not_before, not_after, $at AS first_seen, $at AS last_seen
    FROM $certificates
) ON DUPLICATE KEY UPDATE {_SEEN} RETURN NONE;
INSERT RELATION INTO EVIDENCED_BY (
    SELECT array::concat(id, [banner, record::id(type::thing('RUNS', id).out)]) AS id, type::thing('RUNS', id).out AS in,
        type::thing('banner', banner) AS out, 'banner' AS evidence_type, type::thing('port', id) AS port,
        $at AS first_seen, $at AS last_seen FROM $ports WHERE banner != NONE
) ON DUPLICATE KEY UPDATE {_SEEN} RETURN NONE;
INSERT RELATION INTO EVIDENCED_BY (
    SELECT array::concat(id, [certificate, record::id(type::thing('RUNS', id).out)]) AS id, type::thing('RUNS', id).out AS in,
        type::thing('tls_cert', certificate) AS out, 'tls_cert' AS evidence_type, type::thing('port', id) AS port,
        $at AS first_seen, $at AS last_seen FROM $ports WHERE certificate != NONE
) ON DUPLICATE KEY UPDATE {_SEEN} RETURN NONE;
"""
