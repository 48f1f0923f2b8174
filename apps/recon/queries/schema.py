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

# A number, because SurrealDB 2.3 keeps times in an index as text, where "30.5Z" comes before "30Z": a range of them is
# wrong, and a condition that it cannot take to the index reads the whole table.
_ADDED_AS_NUMBER = "".join(
    f"""
REMOVE INDEX IF EXISTS {table}_added_at ON {table};
REMOVE FIELD IF EXISTS added_at ON {table};
DEFINE FIELD OVERWRITE added_ns ON {table} TYPE int DEFAULT ALWAYS time::nano(time::now());
DEFINE INDEX OVERWRITE {table}_added_ns ON {table} FIELDS added_ns;
UPDATE {table} SET last_seen = last_seen, added_at = NONE RETURN NONE;
"""
    for table in ("host", "port")
)

MIGRATIONS = [
    Migration(200, "when hosts and ports were added", _ADDED),
    Migration(201, "ports by number and protocol", _BY_PORT),
    Migration(202, "when hosts and ports were added, as a number", _ADDED_AS_NUMBER),
]
