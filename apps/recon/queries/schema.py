"""What queries add to the database: when recon learned of something, which is later than when a scanner saw it."""
# ruff: noqa: S608 (statements are put together from constants of this module; what a caller sends is bound)

from __future__ import annotations

from apps.recon.migrations import Migration

# What a scanner saw an hour ago and sent now is new, and no reader who has passed that hour would find it by
# `first_seen`. ALWAYS: rows from before this migration get one too, when they are next written.
_ADDED = "".join(
    f"""
DEFINE FIELD OVERWRITE added_at ON {table} TYPE datetime DEFAULT ALWAYS time::now();
DEFINE INDEX OVERWRITE {table}_added_at ON {table} FIELDS added_at;
UPDATE {table} SET last_seen = last_seen RETURN NONE;
"""
    for table in ("host", "port")
)

# Both fields in one index, so that a page of hosts by port needs no other row.
_BY_PORT = "DEFINE INDEX OVERWRITE port_number_protocol ON port FIELDS number, protocol"

MIGRATIONS = [
    Migration(200, "when hosts and ports were added", _ADDED),
    Migration(201, "ports by number and protocol", _BY_PORT),
]
