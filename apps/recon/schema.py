"""The SurrealDB schema of the frame. Every table is strict: a field or a value not listed here is refused.

Tables of the parts are in their own `schema` modules (see `parts.py`); how changes reach a database: `migrations.py`.
"""

from __future__ import annotations

from apps.recon.migrations import Migration
from apps.recon.model import PROTOCOLS, TRANSITIONS, JobState

_STATES = [state.value for state in JobState]
_ALLOWED = [[before.value, after.value] for before, afters in TRANSITIONS.items() for after in sorted(afters)]

# `$before` is the stored value of the field, so the check and the write are one: no reader can slip between them.
_STATE_RULE = f"""
    $value IN {_STATES} AND (
        IF $before = NONE THEN $value = '{JobState.PENDING}' ELSE $value = $before OR [$before, $value] IN {_ALLOWED} END
    )"""

_JOB = f"""
DEFINE TABLE OVERWRITE job SCHEMAFULL;
DEFINE FIELD OVERWRITE state ON job TYPE string ASSERT {_STATE_RULE};
DEFINE FIELD OVERWRITE scanner_key ON job TYPE string ASSERT string::len($value) > 0;
DEFINE FIELD OVERWRITE error_message ON job TYPE option<string>;
DEFINE FIELD OVERWRITE cancel_reason ON job TYPE option<string>;
DEFINE FIELD OVERWRITE invocation_id ON job TYPE option<string>;
DEFINE FIELD OVERWRITE created_at ON job TYPE datetime DEFAULT time::now() READONLY;
DEFINE FIELD OVERWRITE updated_at ON job TYPE datetime VALUE time::now();
DEFINE FIELD OVERWRITE completed_at ON job TYPE option<datetime>;
DEFINE FIELD OVERWRITE host_count ON job TYPE int DEFAULT 0 ASSERT $value >= 0;
DEFINE FIELD OVERWRITE port_count ON job TYPE int DEFAULT 0 ASSERT $value >= 0;
DEFINE INDEX OVERWRITE job_state ON job FIELDS state;
DEFINE INDEX OVERWRITE job_scanner_key ON job FIELDS scanner_key;
DEFINE INDEX OVERWRITE job_created_at ON job FIELDS created_at;
DEFINE INDEX OVERWRITE job_updated_at ON job FIELDS updated_at;
"""

# A port belongs to one host (its id is host, protocol, number). One shared record per number would show a service
# found on 22/tcp of one host on every other host with that port.
_GRAPH = f"""
DEFINE TABLE OVERWRITE host SCHEMAFULL;
DEFINE FIELD OVERWRITE address ON host TYPE string ASSERT string::len($value) > 0;
DEFINE FIELD OVERWRITE ip ON host TYPE option<string> ASSERT $value = NONE OR string::is::ip($value);
DEFINE FIELD OVERWRITE name ON host TYPE option<string>;
DEFINE FIELD OVERWRITE asn ON host TYPE option<int>;
DEFINE FIELD OVERWRITE city ON host TYPE option<string>;
DEFINE FIELD OVERWRITE region ON host TYPE option<string>;
DEFINE FIELD OVERWRITE country ON host TYPE option<string>;
DEFINE FIELD OVERWRITE cloud_region ON host TYPE option<string>;
DEFINE FIELD OVERWRITE first_seen ON host TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON host TYPE datetime;
DEFINE FIELD OVERWRITE last_scanned_at ON host TYPE datetime DEFAULT time::now();
DEFINE INDEX OVERWRITE host_ip ON host FIELDS ip UNIQUE;
DEFINE INDEX OVERWRITE host_asn ON host FIELDS asn;
DEFINE INDEX OVERWRITE host_country ON host FIELDS country;
DEFINE INDEX OVERWRITE host_first_seen ON host FIELDS first_seen;
DEFINE INDEX OVERWRITE host_last_scanned_at ON host FIELDS last_scanned_at;

DEFINE TABLE OVERWRITE port SCHEMAFULL;
DEFINE FIELD OVERWRITE host ON port TYPE record<host>;
DEFINE FIELD OVERWRITE number ON port TYPE int ASSERT $value >= 1 AND $value <= 65535;
DEFINE FIELD OVERWRITE protocol ON port TYPE string ASSERT $value IN {list(PROTOCOLS)};
DEFINE FIELD OVERWRITE service ON port TYPE option<string>;
DEFINE FIELD OVERWRITE product ON port TYPE option<string>;
DEFINE FIELD OVERWRITE version ON port TYPE option<string>;
DEFINE FIELD OVERWRITE first_seen ON port TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON port TYPE datetime;
DEFINE INDEX OVERWRITE port_number ON port FIELDS number;
DEFINE INDEX OVERWRITE port_protocol ON port FIELDS protocol;
DEFINE INDEX OVERWRITE port_host ON port FIELDS host;
DEFINE INDEX OVERWRITE port_first_seen ON port FIELDS first_seen;

DEFINE TABLE OVERWRITE HAS TYPE RELATION IN host OUT port ENFORCED SCHEMAFULL;
DEFINE FIELD OVERWRITE first_seen ON HAS TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON HAS TYPE datetime;
"""

# A service is what runs (name, product, version), shared by every port that runs it; RUNS says which port does, and
# belongs to that port alone: its id is the port's.
_SERVICES = """
DEFINE TABLE OVERWRITE service SCHEMAFULL;
DEFINE FIELD OVERWRITE name ON service TYPE string ASSERT string::len($value) > 0;
DEFINE FIELD OVERWRITE product ON service TYPE option<string>;
DEFINE FIELD OVERWRITE version ON service TYPE option<string>;
DEFINE FIELD OVERWRITE cpe ON service TYPE array<string> DEFAULT [];
DEFINE FIELD OVERWRITE scanner_cpe ON service TYPE array<string> DEFAULT [];
DEFINE FIELD OVERWRITE fingerprint ON service TYPE string ASSERT string::len($value) = 64;
DEFINE FIELD OVERWRITE first_seen ON service TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON service TYPE datetime;
DEFINE INDEX OVERWRITE service_fingerprint ON service FIELDS fingerprint UNIQUE;
DEFINE INDEX OVERWRITE service_name ON service FIELDS name;
DEFINE INDEX OVERWRITE service_product ON service FIELDS product;

DEFINE TABLE OVERWRITE RUNS TYPE RELATION IN port OUT service ENFORCED SCHEMAFULL;
DEFINE FIELD OVERWRITE confidence ON RUNS TYPE float DEFAULT 1.0 ASSERT $value >= 0 AND $value <= 1;
DEFINE FIELD OVERWRITE first_seen ON RUNS TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON RUNS TYPE datetime;

DEFINE TABLE OVERWRITE banner SCHEMAFULL;
DEFINE FIELD OVERWRITE hash ON banner TYPE string ASSERT string::len($value) = 64;
DEFINE FIELD OVERWRITE sample ON banner TYPE string ASSERT string::len($value) <= 2048;
DEFINE FIELD OVERWRITE first_seen ON banner TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON banner TYPE datetime;
DEFINE INDEX OVERWRITE banner_hash ON banner FIELDS hash UNIQUE;

DEFINE TABLE OVERWRITE tls_cert SCHEMAFULL;
DEFINE FIELD OVERWRITE sha256 ON tls_cert TYPE string ASSERT string::len($value) = 64;
DEFINE FIELD OVERWRITE cn ON tls_cert TYPE option<string>;
DEFINE FIELD OVERWRITE sans ON tls_cert TYPE array<string> DEFAULT [];
DEFINE FIELD OVERWRITE not_before ON tls_cert TYPE option<datetime>;
DEFINE FIELD OVERWRITE not_after ON tls_cert TYPE option<datetime>;
DEFINE FIELD OVERWRITE first_seen ON tls_cert TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON tls_cert TYPE datetime;
DEFINE INDEX OVERWRITE tls_cert_sha256 ON tls_cert FIELDS sha256 UNIQUE;
DEFINE INDEX OVERWRITE tls_cert_cn ON tls_cert FIELDS cn;
DEFINE INDEX OVERWRITE tls_cert_not_after ON tls_cert FIELDS not_after;

DEFINE TABLE OVERWRITE EVIDENCED_BY TYPE RELATION IN service OUT banner | tls_cert ENFORCED SCHEMAFULL;
DEFINE FIELD OVERWRITE evidence_type ON EVIDENCED_BY TYPE string ASSERT $value IN ['banner', 'tls_cert'];
DEFINE FIELD OVERWRITE port ON EVIDENCED_BY TYPE record<port>;
DEFINE FIELD OVERWRITE first_seen ON EVIDENCED_BY TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON EVIDENCED_BY TYPE datetime;

DEFINE TABLE OVERWRITE SEEN_IN TYPE RELATION IN host OUT job ENFORCED SCHEMAFULL;
DEFINE FIELD OVERWRITE at ON SEEN_IN TYPE datetime;
DEFINE INDEX OVERWRITE seen_in_job ON SEEN_IN FIELDS out;
"""

# `submission` holds the scan from its acceptance to the end of its job: neither the engine's input nor its journal has it.
# `scan_batch` holds parsed hosts between the parse step and the persist steps, so that they do not fill the journal.
# `step_ledger` gets a line each time a step's work is committed: with the engine's journal it shows what ran twice.
_STEPS = """
DEFINE TABLE OVERWRITE submission SCHEMAFULL;
DEFINE FIELD OVERWRITE scan ON submission TYPE string;
DEFINE FIELD OVERWRITE observed_at_s ON submission TYPE int ASSERT $value > 0;
DEFINE FIELD OVERWRITE created_at ON submission TYPE datetime DEFAULT time::now() READONLY;

DEFINE TABLE OVERWRITE scan_batch SCHEMAFULL;
DEFINE FIELD OVERWRITE body ON scan_batch TYPE string;

DEFINE TABLE OVERWRITE step_ledger SCHEMAFULL;
DEFINE FIELD OVERWRITE job ON step_ledger TYPE record<job>;
DEFINE FIELD OVERWRITE step ON step_ledger TYPE string;
DEFINE FIELD OVERWRITE attempt ON step_ledger TYPE int ASSERT $value >= 1;
DEFINE FIELD OVERWRITE process ON step_ledger TYPE int ASSERT $value >= 1;
DEFINE FIELD OVERWRITE began_at ON step_ledger TYPE datetime;
"""

_META = """
DEFINE TABLE OVERWRITE meta SCHEMAFULL;
DEFINE FIELD OVERWRITE schema_version ON meta TYPE option<int>;
DEFINE FIELD OVERWRITE open_count ON meta TYPE option<int>;
"""

_KEYS = """
DEFINE TABLE OVERWRITE scanner_key SCHEMAFULL;
DEFINE FIELD OVERWRITE public_key ON scanner_key TYPE string ASSERT string::len($value) = 44;
DEFINE FIELD OVERWRITE name ON scanner_key TYPE option<string> ASSERT $value = NONE OR string::len($value) <= 128;
DEFINE FIELD OVERWRITE registered_at ON scanner_key TYPE datetime DEFAULT time::now() READONLY;
DEFINE FIELD OVERWRITE revoked_at ON scanner_key TYPE option<datetime>;
DEFINE INDEX OVERWRITE scanner_key_public_key ON scanner_key FIELDS public_key UNIQUE;
"""

# SurrealKV keeps every key in memory, about 0.5 KB each: what no query uses is not worth having. `added_ns` (200) has
# taken the place of `first_seen`, an index of number and protocol (201) that of both; ports of a host have its edges.
# SEEN_IN was a relation, with six keys for each host of a job; `sighting` has two.
_LESS_TO_KEEP = """
REMOVE INDEX IF EXISTS host_first_seen ON host;
REMOVE INDEX IF EXISTS port_first_seen ON port;
REMOVE INDEX IF EXISTS port_number ON port;
REMOVE INDEX IF EXISTS port_protocol ON port;
REMOVE INDEX IF EXISTS port_host ON port;

DEFINE TABLE OVERWRITE sighting SCHEMAFULL;
DEFINE FIELD OVERWRITE host ON sighting TYPE record<host>;
DEFINE FIELD OVERWRITE job ON sighting TYPE record<job>;
DEFINE FIELD OVERWRITE at ON sighting TYPE datetime;
DEFINE INDEX OVERWRITE sighting_host ON sighting FIELDS host;
INSERT INTO sighting (
    SELECT [record::id(out), record::id(in)] AS id, in AS host, out AS job, at FROM SEEN_IN
) ON DUPLICATE KEY UPDATE at = $input.at RETURN NONE;
DELETE SEEN_IN RETURN NONE;
"""

# On its own: SurrealDB 2.3 dies of removing a table in the transaction that has deleted many of its rows.
_NO_SEEN_IN = "REMOVE TABLE IF EXISTS SEEN_IN"

# A scan waits packed: a tenth of the bytes to write, to read and to drop.
# The numbers are for the indices: SurrealDB 2.3 keeps times in an index as text, where "30.5Z" comes before "30Z".
_ACCEPTING = """
DEFINE FIELD OVERWRITE scan ON submission TYPE option<string>;
DEFINE FIELD OVERWRITE packed_scan ON submission TYPE option<bytes>;

REMOVE INDEX IF EXISTS job_created_at ON job;
REMOVE INDEX IF EXISTS job_updated_at ON job;
DEFINE FIELD OVERWRITE created_ns ON job TYPE int DEFAULT ALWAYS time::nano(created_at ?? time::now());
DEFINE FIELD OVERWRITE updated_ns ON job TYPE int DEFAULT ALWAYS time::nano(time::now());
DEFINE FIELD OVERWRITE updated_at ON job TYPE datetime;
"""

# Each on its own, because a transaction goes on with the fields that it has begun with. While `updated_at` has no VALUE:
# it would become now, by the UPDATE and by the building of an index as well.
_TIMES_OF_OLD_JOBS = """
UPDATE job SET created_ns = time::nano(created_at), updated_ns = time::nano(updated_at) RETURN NONE;
DEFINE INDEX OVERWRITE job_created_ns ON job FIELDS created_ns;
DEFINE INDEX OVERWRITE job_updated_ns ON job FIELDS updated_ns;
"""

_TIMES_OF_JOBS = """
DEFINE FIELD OVERWRITE updated_at ON job TYPE datetime VALUE time::now();
DEFINE FIELD OVERWRITE updated_ns ON job TYPE int VALUE time::nano(time::now());
"""

MIGRATIONS = [
    Migration(1, "jobs, hosts, ports and steps", _JOB + _GRAPH + _STEPS + _META),
    Migration(2, "services, banners, certificates and what a job saw", _SERVICES),
    Migration(3, "scanner keys", _KEYS),
    Migration(4, "fewer keys for each host and port", _LESS_TO_KEEP),
    Migration(5, "no SEEN_IN", _NO_SEEN_IN),
    Migration(6, "packed scans, and room for times of jobs as numbers", _ACCEPTING),
    Migration(7, "times of jobs from before as numbers", _TIMES_OF_OLD_JOBS),
    Migration(8, "times of jobs as numbers", _TIMES_OF_JOBS),
]
"""Numbers 1 to 99. The first also takes over databases from before migrations were recorded."""
