"""What threats keep in SurrealDB: a row per threat for lists, and the older part of histories."""

from __future__ import annotations

from apps.recon.migrations import Migration
from apps.recon.threats.model import SEVERITIES

_THREATS = f"""
DEFINE TABLE OVERWRITE threat SCHEMAFULL;
DEFINE FIELD OVERWRITE threat_id ON threat TYPE string ASSERT string::len($value) > 0;
DEFINE FIELD OVERWRITE severity ON threat TYPE string ASSERT $value IN {list(SEVERITIES)};
DEFINE FIELD OVERWRITE title ON threat TYPE string;
DEFINE FIELD OVERWRITE updates ON threat TYPE int ASSERT $value >= 0;
DEFINE FIELD OVERWRITE host_count ON threat TYPE int ASSERT $value >= 0;
DEFINE FIELD OVERWRITE first_seen ON threat TYPE datetime;
DEFINE FIELD OVERWRITE last_seen ON threat TYPE datetime;
DEFINE INDEX OVERWRITE threat_last_seen ON threat FIELDS last_seen;

DEFINE TABLE OVERWRITE history_chunk SCHEMAFULL;
DEFINE FIELD OVERWRITE entries ON history_chunk TYPE string;
DEFINE FIELD OVERWRITE archived_at ON history_chunk TYPE datetime DEFAULT time::now() READONLY;
"""

MIGRATIONS = [Migration(400, "threats", _THREATS)]
