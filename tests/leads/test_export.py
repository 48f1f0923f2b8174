"""Exports: one flat row per lead, the same in CSV, JSON and Parquet, and no surprise in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from apps.leads.export import COLUMNS, FORMATS, Format, export
from apps.leads.model import Business, Lead
from tests.leads.examples import bakery, hostile, unknown


def read_back(content: bytes, file_format: Format, folder: Path) -> list[dict[str, Any]]:
    """What other programs read in the file."""
    if file_format == "json":
        return json.loads(content)
    if file_format == "csv":
        return [*csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))]
    path = folder / "leads.parquet"
    path.write_bytes(content)
    with duckdb.connect() as database:
        answer = database.execute("SELECT * FROM read_parquet(?)", [str(path)])
        names = [column[0] for column in answer.description or []]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_has_the_same_rows_in_the_same_order(file_format: Format, tmp_path: Path) -> None:
    leads = [bakery(), hostile(), unknown()]
    rows = read_back(export(leads, file_format), file_format, tmp_path)
    assert [row["job_id"] for row in rows] == [lead.job_id for lead in leads]
    assert [*rows[0]] == [*COLUMNS]
    first = rows[0]
    assert first["lead_id"] == "enrichment-1:osm:node/1"
    assert first["owner"] == "Marie Delvaux"
    assert float(first["score"]) == bakery().score
    assert str(first["website_reachable"]).lower() == "true"
    assert "wordpress" in first["technology"]
    assert rows[2]["score"] in (None, "")
    assert rows[2]["website_reachable"] in (None, "")


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_leads_are_a_file_without_rows(file_format: Format, tmp_path: Path) -> None:
    content = export([], file_format)
    assert read_back(content, file_format, tmp_path) == []
    if file_format == "csv":
        assert content.decode().strip().split(",") == [*COLUMNS]


def test_parquet_keeps_types(tmp_path: Path) -> None:
    path = tmp_path / "leads.parquet"
    path.write_bytes(export([bakery()], "parquet"))
    with duckdb.connect() as database:
        described = database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    assert {row[0]: row[1] for row in described} == COLUMNS


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("=SUM(A1:A9)", "'=SUM(A1:A9)"),
        ("@cmd", "'@cmd"),
        ("-2+3", "'-2+3"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("\t=1", "'\t=1"),
        ("＝1+1", "'＝1+1"),
        ("+32 63 22-00", "+32 63 22-00"),
        ('He said "hello", twice\nand left', 'He said "hello", twice\nand left'),
        ("Crème brûlée €", "Crème brûlée €"),
    ],
)
def test_a_spreadsheet_finds_no_formula_in_a_strangers_text(name: str, written: str) -> None:
    lead = Lead(job_id="j", rank=0, business=Business(place_id="p", name=name))
    [row] = csv.DictReader(io.StringIO(export([lead], "csv").decode(), newline=""))
    assert row["name"] == written
    [row] = json.loads(export([lead], "json"))
    assert row["name"] == name
