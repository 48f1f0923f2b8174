"""The SurrealDB schema. Every table is strict: a field or a value that is not listed here is refused by the database."""

from __future__ import annotations

from apps.recon.model import PROTOCOLS, TRANSITIONS, JobState

NAMESPACE = "spectra"
DATABASE = "intel_mesh"
SCHEMA_VERSION = 1

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
DEFINE FIELD OVERWRITE created_at ON job TYPE datetime DEFAULT time::now() READONLY;
DEFINE FIELD OVERWRITE updated_at ON job TYPE datetime VALUE time::now();
DEFINE FIELD OVERWRITE completed_at ON job TYPE option<datetime>;
DEFINE FIELD OVERWRITE host_count ON job TYPE int DEFAULT 0 ASSERT $value >= 0;
DEFINE FIELD OVERWRITE port_count ON job TYPE int DEFAULT 0 ASSERT $value >= 0;
DEFINE INDEX OVERWRITE job_state ON job FIELDS state;
DEFINE INDEX OVERWRITE job_scanner_key ON job FIELDS scanner_key;
DEFINE INDEX OVERWRITE job_created_at ON job FIELDS created_at;
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
DEFINE FIELD OVERWRITE last_scanned_at ON host TYPE datetime VALUE time::now();
DEFINE INDEX OVERWRITE host_ip ON host FIELDS ip UNIQUE;
DEFINE INDEX OVERWRITE host_asn ON host FIELDS asn;
DEFINE INDEX OVERWRITE host_country ON host FIELDS country;
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

DEFINE TABLE OVERWRITE HAS TYPE RELATION IN host OUT port ENFORCED SCHEMAFULL;
DEFINE FIELD OVERWRITE first_seen ON HAS TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON HAS TYPE datetime;
"""

# `scan_batch` holds parsed hosts between the parse step and the persist steps, so that they do not fill the journal.
# `step_ledger` gets a line each time a step's work is committed: with the engine's journal it shows what ran twice.
_STEPS = """
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

SCHEMA = f"BEGIN;{_JOB}{_GRAPH}{_STEPS}{_META}UPSERT meta:store SET schema_version = {SCHEMA_VERSION};\nCOMMIT;"
"""All of it in one transaction; applying it twice changes nothing."""
