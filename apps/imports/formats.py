"""The KBO open-data format: which files an extract has, their columns, and what makes a row a good one. Pure data.

Source of the format: the register's own handbook and real extracts. Everything that depends on a file's columns is
derived from here: table definitions, readers, checks, ids, the generator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from apps.imports.model import ExtractType, Operation

Kind = Literal["entity", "enterprise", "establishment", "text", "date"]
"""`entity` is an enterprise or an establishment: the place of the first dot tells which."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name in the file, in the database, and what it holds."""

    header: str
    kind: Kind = "text"
    required: bool = False
    length_max: int | None = None

    @property
    def name(self) -> str:
        """`TypeOfAddress` -> `type_of_address`; `CountryNL` -> `country_nl`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.header).lower()

    @property
    def sql_type(self) -> str:
        return "DATE" if self.kind == "date" else "VARCHAR"


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of file. `name` is the file's, `target` the database table's."""

    name: str
    target: str
    columns: tuple[Column, ...]
    id_columns: tuple[str, ...]
    """Database names of the columns that together name one row. The first is also the key of delete files."""
    repeats_key: bool = False
    """An entity has many rows, one after the other."""

    @property
    def key(self) -> Column:
        return self.columns[0]

    @property
    def has_deletes(self) -> bool:
        return self.name != "code"

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def files(self, extract_type: ExtractType) -> dict[str, Operation]:
        """File name -> operation, deletes first."""
        if extract_type == "full" or not self.has_deletes:
            return {f"{self.name}.csv": "insert"}
        return {f"{self.name}_delete.csv": "delete", f"{self.name}_insert.csv": "insert"}

    def header(self, operation: Operation) -> list[str]:
        return [self.key.header] if operation == "delete" else [column.header for column in self.columns]


def _text(*headers: str) -> tuple[Column, ...]:
    return tuple(Column(header) for header in headers)


_ENTITY = Column("EntityNumber", "entity", required=True)
_START = Column("StartDate", "date")

TABLES: tuple[Table, ...] = (
    Table(
        "code",
        "codes",
        (Column("Category", required=True), Column("Code", required=True), *_text("Language", "Description")),
        ("category", "code", "language"),
    ),
    Table(
        "enterprise",
        "enterprises",
        (
            Column("EnterpriseNumber", "enterprise", required=True),
            *_text("Status", "JuridicalSituation", "TypeOfEnterprise", "JuridicalForm", "JuridicalFormCAC"),
            _START,
        ),
        ("enterprise_number",),
    ),
    Table(
        "establishment",
        "establishments",
        (
            Column("EstablishmentNumber", "establishment", required=True),
            _START,
            Column("EnterpriseNumber", "enterprise"),
        ),
        ("establishment_number",),
    ),
    Table(
        "denomination",
        "denominations",
        (
            _ENTITY,
            *_text("Language", "TypeOfDenomination"),
            Column("Denomination", length_max=320),
        ),
        ("entity_number", "language", "type_of_denomination", "denomination"),
    ),
    Table(
        "address",
        "addresses",
        (
            _ENTITY,
            *_text("TypeOfAddress", "CountryNL", "CountryFR", "Zipcode", "MunicipalityNL", "MunicipalityFR"),
            *_text("StreetNL", "StreetFR", "HouseNumber", "Box", "ExtraAddressInfo"),
            Column("DateStrikingOff", "date"),
        ),
        ("entity_number", "type_of_address"),
    ),
    Table(
        "contact",
        "contacts",
        (_ENTITY, *_text("EntityContact", "ContactType", "Value")),
        ("entity_number", "entity_contact", "contact_type", "value"),
    ),
    Table(
        "activity",
        "activities",
        (_ENTITY, *_text("ActivityGroup", "NaceVersion", "NaceCode", "Classification")),
        ("entity_number", "activity_group", "nace_version", "nace_code", "classification"),
        repeats_key=True,
    ),
    Table(
        "branch",
        "branches",
        (Column("Id", required=True), _START, Column("EnterpriseNumber", "enterprise")),
        ("id",),
    ),
)
"""In the order in which they are imported."""

BY_NAME = {table.name: table for table in TABLES}

META_FILE = "meta.csv"

LANGUAGE_UNKNOWN, LANGUAGE_FRENCH, LANGUAGE_DUTCH, LANGUAGE_GERMAN, LANGUAGE_ENGLISH = "01234"

NAME_LANGUAGES = (LANGUAGE_DUTCH, LANGUAGE_FRENCH, LANGUAGE_UNKNOWN, LANGUAGE_GERMAN, LANGUAGE_ENGLISH)
"""An enterprise's name is its denomination of type 001 in the first of these languages that it has."""

NAME_TYPE = "001"


@dataclass(frozen=True, slots=True)
class Meta:
    """What `meta.csv` says."""

    extract_number: int
    extract_type: ExtractType
    snapshot_date: date
    extracted_at: datetime
    """Belgian local time, as in the file."""
    version: str


class BrokenExtract(Exception):
    """The extract cannot be imported. The text begins with the file, and the line where there is one."""


def parse_meta(rows: list[list[str]]) -> Meta:
    """`rows`: the lines of meta.csv, split.

    Raises:
        BrokenExtract: something is missing or makes no sense.
    """
    if not rows or rows[0] != ["Variable", "Value"]:
        raise BrokenExtract(f"{META_FILE} line 1: the header must be Variable, Value")
    lines = {row[0]: (number, row[1]) for number, row in enumerate(rows[1:], 2) if len(row) == 2}

    def value(name: str) -> str:
        if name not in lines:
            raise BrokenExtract(f"{META_FILE}: {name} is missing")
        return lines[name][1]

    def wrong(name: str, expected: str) -> BrokenExtract:
        return BrokenExtract(f"{META_FILE} line {lines[name][0]}: {name} is {value(name)[:40]!r}, not {expected}")

    kind = value("ExtractType").lower()
    if kind not in ("full", "update"):
        raise wrong("ExtractType", "full or update")
    if not re.fullmatch(r"[0-9]{1,9}", value("ExtractNumber")) or int(value("ExtractNumber")) == 0:
        raise wrong("ExtractNumber", "a number from 1")
    try:
        snapshot = datetime.strptime(value("SnapshotDate"), "%d-%m-%Y").date()  # noqa: DTZ007 a day has no zone
    except ValueError as error:
        raise wrong("SnapshotDate", "a date dd-mm-yyyy") from error
    try:
        extracted = datetime.strptime(value("ExtractTimestamp"), "%d-%m-%Y %H:%M:%S")  # noqa: DTZ007 as in the file
    except ValueError as error:
        raise wrong("ExtractTimestamp", "a time dd-mm-yyyy hh:mm:ss") from error
    version = lines["Version"][1] if "Version" in lines else ""
    return Meta(int(value("ExtractNumber")), "full" if kind == "full" else "update", snapshot, extracted, version)


def check_digits(first_eight: int) -> int:
    """The last two digits of a number that begins with these eight."""
    return 97 - first_eight % 97
