"""What campaigns keep in SurrealDB. Results of targets are rows, never state or journal of a workflow."""

from __future__ import annotations

from apps.recon.campaigns.model import TRANSITIONS, Phase
from apps.recon.migrations import Migration

TARGET_STATES = ("ready", "rejected", "scanned", "failed")
APPROVAL_STATES = ("pending", "approved", "denied", "timeout", "cancelled")

# Of migration 300, which was applied to databases as it stands. Number 302 has the rule of today.
_FIRST_PHASES = ["initializing", "scanning_batch", "correlating", "complete", "failed", "cancelled"]
_FIRST_FINAL = ["complete", "failed", "cancelled"]
_FIRST_RULE = f"$value IN {_FIRST_PHASES} AND ($before = NONE OR $before = $value OR $before NOT IN {_FIRST_FINAL})"

_CAMPAIGNS = f"""
DEFINE TABLE OVERWRITE campaign SCHEMAFULL;
DEFINE FIELD OVERWRITE phase ON campaign TYPE string ASSERT {_FIRST_RULE};
DEFINE FIELD OVERWRITE batch ON campaign TYPE int DEFAULT 0 ASSERT $value >= 0;
DEFINE FIELD OVERWRITE digest ON campaign TYPE string;
DEFINE FIELD OVERWRITE options ON campaign TYPE string;
DEFINE FIELD OVERWRITE scanner ON campaign TYPE string;
DEFINE FIELD OVERWRITE contributor ON campaign TYPE string;
DEFINE FIELD OVERWRITE total ON campaign TYPE int ASSERT $value >= 0;
DEFINE FIELD OVERWRITE scanned ON campaign TYPE int DEFAULT 0 ASSERT $value >= 0;
DEFINE FIELD OVERWRITE failed ON campaign TYPE int DEFAULT 0 ASSERT $value >= 0;
DEFINE FIELD OVERWRITE rejected ON campaign TYPE int DEFAULT 0 ASSERT $value >= 0;
DEFINE FIELD OVERWRITE approval ON campaign TYPE option<string> ASSERT $value = NONE OR $value IN {list(APPROVAL_STATES)};
DEFINE FIELD OVERWRITE invocation ON campaign TYPE option<string>;
DEFINE FIELD OVERWRITE error ON campaign TYPE option<string>;
DEFINE FIELD OVERWRITE is_published ON campaign TYPE bool DEFAULT false;
DEFINE FIELD OVERWRITE created_at ON campaign TYPE datetime DEFAULT time::now() READONLY;
DEFINE FIELD OVERWRITE updated_at ON campaign TYPE datetime VALUE time::now();
DEFINE FIELD OVERWRITE completed_at ON campaign TYPE option<datetime>;
DEFINE INDEX OVERWRITE campaign_created_at ON campaign FIELDS created_at;

DEFINE TABLE OVERWRITE campaign_source SCHEMAFULL;
DEFINE FIELD OVERWRITE targets ON campaign_source TYPE array<string>;

DEFINE TABLE OVERWRITE campaign_target SCHEMAFULL;
DEFINE FIELD OVERWRITE campaign ON campaign_target TYPE string;
DEFINE FIELD OVERWRITE target ON campaign_target TYPE string;
DEFINE FIELD OVERWRITE state ON campaign_target TYPE string ASSERT $value IN {list(TARGET_STATES)};
DEFINE FIELD OVERWRITE address ON campaign_target TYPE option<string>;
DEFINE FIELD OVERWRITE is_sensitive ON campaign_target TYPE bool DEFAULT false;
DEFINE FIELD OVERWRITE reason ON campaign_target TYPE option<string>;
DEFINE FIELD OVERWRITE is_up ON campaign_target TYPE bool DEFAULT false;
DEFINE FIELD OVERWRITE ports ON campaign_target TYPE array<object> DEFAULT [];
DEFINE FIELD OVERWRITE ports.* ON campaign_target FLEXIBLE TYPE object;
DEFINE FIELD OVERWRITE scanned_with ON campaign_target TYPE option<string>;
DEFINE FIELD OVERWRITE scanned_at ON campaign_target TYPE option<datetime>;
DEFINE FIELD OVERWRITE elapsed_ms ON campaign_target TYPE option<int>;
DEFINE INDEX OVERWRITE campaign_target_scanned_with ON campaign_target FIELDS scanned_with;
DEFINE INDEX OVERWRITE campaign_target_address ON campaign_target FIELDS address;

DEFINE TABLE OVERWRITE campaign_batch SCHEMAFULL;
DEFINE FIELD OVERWRITE targets ON campaign_batch TYPE array<array<string>>;

DEFINE TABLE OVERWRITE campaign_host SCHEMAFULL;
DEFINE FIELD OVERWRITE address ON campaign_host TYPE string;
DEFINE FIELD OVERWRITE names ON campaign_host TYPE array<string>;
DEFINE FIELD OVERWRITE ports ON campaign_host TYPE array<object>;
DEFINE FIELD OVERWRITE ports.* ON campaign_host FLEXIBLE TYPE object;
DEFINE FIELD OVERWRITE scans ON campaign_host TYPE array<string>;
DEFINE FIELD OVERWRITE threats ON campaign_host TYPE array<string>;

DEFINE TABLE OVERWRITE campaign_threat SCHEMAFULL;
DEFINE FIELD OVERWRITE threat_id ON campaign_threat TYPE string;
DEFINE FIELD OVERWRITE severity ON campaign_threat TYPE string;
DEFINE FIELD OVERWRITE title ON campaign_threat TYPE string;
DEFINE FIELD OVERWRITE host_count ON campaign_threat TYPE int ASSERT $value >= 1;
DEFINE FIELD OVERWRITE hosts ON campaign_threat TYPE array<string>;
"""

_APPROVALS = f"""
DEFINE TABLE OVERWRITE approval SCHEMAFULL;
DEFINE FIELD OVERWRITE state ON approval TYPE string ASSERT $value IN {list(APPROVAL_STATES)};
DEFINE FIELD OVERWRITE awakeable ON approval TYPE string;
DEFINE FIELD OVERWRITE question ON approval TYPE string;
DEFINE FIELD OVERWRITE decided_by ON approval TYPE option<string>;
DEFINE FIELD OVERWRITE comment ON approval TYPE option<string>;
DEFINE FIELD OVERWRITE requested_at ON approval TYPE datetime DEFAULT time::now() READONLY;
DEFINE FIELD OVERWRITE expires_at ON approval TYPE datetime;
DEFINE FIELD OVERWRITE decided_at ON approval TYPE option<datetime>;
DEFINE INDEX OVERWRITE approval_state ON approval FIELDS state;
"""

_PHASES = [phase.value for phase in Phase]
_ALLOWED = [[before.value, after.value] for before, afters in TRANSITIONS.items() for after in sorted(afters)]

# As with jobs, the database refuses what may not follow: `$before` is what is stored, check and write are one.
_PHASE_RULE = f"""
DEFINE FIELD OVERWRITE phase ON campaign TYPE string ASSERT
    $value IN {_PHASES} AND (
        IF $before = NONE THEN $value = '{Phase.INITIALIZING}' ELSE $value = $before OR [$before, $value] IN {_ALLOWED} END
    );
DEFINE INDEX OVERWRITE campaign_phase ON campaign FIELDS phase;
"""

MIGRATIONS = [
    Migration(300, "campaigns", _CAMPAIGNS),
    Migration(301, "approvals", _APPROVALS),
    Migration(302, "phases of campaigns", _PHASE_RULE),
    Migration(303, "who watches a campaign", "DEFINE FIELD OVERWRITE is_watched ON campaign TYPE option<bool>;"),
]
