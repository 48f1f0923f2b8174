"""Numbered changes of the schema, each applied once and recorded in the table `migration`.

The frame's own are in `apps.recon.schema`, those of the parts in `apps.recon.<part>.schema`. A released migration is
never edited: a database would not notice. The recorded checksum finds out, and the store refuses the database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from apps.recon import parts
from apps.recon.surreal import StoreError, StoreRefused, Surreal

MIGRATION_TABLE = """
DEFINE TABLE IF NOT EXISTS migration SCHEMAFULL;
DEFINE FIELD IF NOT EXISTS number ON migration TYPE int ASSERT $value >= 1;
DEFINE FIELD IF NOT EXISTS name ON migration TYPE string;
DEFINE FIELD IF NOT EXISTS checksum ON migration TYPE string;
DEFINE FIELD IF NOT EXISTS applied_at ON migration TYPE datetime DEFAULT time::now() READONLY;
DEFINE INDEX IF NOT EXISTS migration_name ON migration FIELDS name UNIQUE;
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One change of the schema."""

    number: int
    """The order, and the identity: used once, for ever."""
    name: str
    sql: str
    """Statements without BEGIN and COMMIT; running them twice changes nothing (`DEFINE ... OVERWRITE`, `UPSERT`)."""

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def all_migrations() -> list[Migration]:
    """Those of the frame and of every part, in the order in which they are applied."""
    from apps.recon.schema import MIGRATIONS  # here, because it needs `Migration`

    return ordered([*MIGRATIONS, *(each for module in parts.part_schemas() for each in module.MIGRATIONS)])


def ordered(migrations: Iterable[Migration]) -> list[Migration]:
    """By number.

    Raises:
        ValueError: a number is used twice.
    """
    by_number: dict[int, Migration] = {}
    for each in migrations:
        if (other := by_number.setdefault(each.number, each)) is not each:
            raise ValueError(f"migrations {other.name!r} and {each.name!r} both have number {each.number}")
    return [by_number[number] for number in sorted(by_number)]


async def migrate(surreal: Surreal, migrations: Sequence[Migration]) -> list[Migration]:
    """Bring a database to the last migration. Returns those that had not been applied.

    Processes that start together may all call it: whoever finds a migration recorded meanwhile passes on.

    Raises:
        StoreRefused: the database has a migration that is not in the list, or another text under a number.
        StoreError: a migration failed; it left nothing behind.
    """
    await surreal.write(MIGRATION_TABLE)
    recorded = await _recorded(surreal)
    known = {each.number: each for each in migrations}
    if unknown := sorted(set(recorded) - set(known)):
        raise StoreRefused(
            f"the database has migration {unknown[-1]}, which this program does not know: it was used by a newer version"
        )
    for number, checksum in recorded.items():
        if checksum != known[number].checksum:
            raise StoreRefused(
                f"migration {number} ({known[number].name}) is not what was applied to this database; "
                "use the version that made it, or a new database"
            )
    fresh = [each for each in migrations if each.number not in recorded]
    for each in fresh:
        await _apply(surreal, each)
    return fresh


async def _recorded(surreal: Surreal) -> dict[int, str]:
    (rows,) = await surreal.read("SELECT number, checksum FROM migration")
    return {row["number"]: row["checksum"] for row in rows}


async def _apply(surreal: Surreal, migration: Migration) -> None:
    try:
        await surreal.write(
            f"""BEGIN;
            {migration.sql};
            CREATE type::thing('migration', $migration_number)
                SET number = $migration_number, name = $migration_name, checksum = $migration_checksum;
            COMMIT;""",
            migration_number=migration.number,
            migration_name=migration.name,
            migration_checksum=migration.checksum,
        )
    except StoreError as error:
        if (await _recorded(surreal)).get(migration.number) == migration.checksum:
            return  # another process did it at the same time
        raise StoreError(f"migration {migration.number} ({migration.name}) failed: {error}") from error
