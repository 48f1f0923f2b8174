"""The README of leads is true: its 60 seconds work word for word, its tables are those of the code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from apps.leads.booking import TIER_DISCOUNT_PERCENT
from apps.leads.cli import main
from apps.leads.openapi import document
from apps.leads.settings import Prices
from apps.leads.tiers import TIERS
from tests.support.restate_server import free_ports
from tests.test_readme import ROOT, Shell, play

APP = ROOT / "apps" / "leads"
README = (APP / "README.md").read_text()


def section(title: str) -> str:
    """What stands below a heading."""
    found = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, title
    return found


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a folder that has the applications, as the root of the repository does."""
    folder, outputs = tmp_path / "session", tmp_path / "outputs"
    folder.mkdir()
    outputs.mkdir()
    (folder / "apps").symlink_to(ROOT / "apps")
    shell = Shell(folder, ROOT, outputs)
    yield shell
    shell.stop()


@pytest.mark.slow
def test_sixty_seconds(session: Shell) -> None:
    # Its port may be in use here; nothing else differs from the page.
    [port] = free_ports(1)
    session.run("unset ${!LEADS_*} ${!RESTATE_*}")
    session.run(f"export LEADS_API_PORT={port} LEADS_API_URL=http://127.0.0.1:{port}")
    left_out = play(section("In 60 seconds").replace("127.0.0.1:3001", f"127.0.0.1:{port}"), session)
    if left_out:
        pytest.skip(f"all commands work but these, for which curl or jq is missing here: {left_out}")


def test_every_module_is_named() -> None:
    named = set(re.findall(r"`(\w+\.py)`", section("What is where")))
    there = {path.name for path in APP.glob("*.py") if not path.name.startswith("__")}
    assert named == there


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {re.split(r"[<>=~\[]", line)[0] for line in project["optional-dependencies"]["leads"]}
    assert set(re.findall(r"^\| ([a-z][\w-]+) \|", section("Dependencies"), re.M)) == extra


def test_every_command_is_described() -> None:
    rows = re.findall(r"^\| `leads (.+?) \|", section("Commands"), re.M)
    assert {row.split("`")[0].split()[0] for row in rows} == set(main.commands)
    for group in ("jobs", "wallet"):
        command = main.commands[group]
        assert isinstance(command, click.Group)
        [row] = [row for row in rows if row.startswith(f"{group} ")]
        assert set(re.findall(r"[a-z-]+(?=`)", row)) == set(command.commands)


def test_every_route_is_described() -> None:
    described: set[str] = set()
    for row in re.findall(r"^\| `(?:GET|POST) (.+?) \|", section("API"), re.M):
        paths = re.findall(r"/[\w./{}-]+", row)
        for path in paths:
            is_whole = path.startswith(("/v1/", "/health", "/openapi", "/discord"))
            base = paths[0] if paths[0].endswith("}") else paths[0].rpartition("/")[0]
            described.add(path if is_whole else base + path)
    named = {re.sub(r"\{\w+\}", "{}", path) for path in described}
    known = {re.sub(r"\{\w+\}", "{}", path) for path in document()["paths"]}
    assert named - {"/discord/interactions", "/openapi.json"} == known


def test_prices_and_limits_are_those_of_the_code() -> None:
    prices = Prices()
    assert f"| discovery | {prices.discovery_cents} |" in README
    assert f"| enrichment | {prices.enrichment_cents} |" in README
    rows = re.findall(
        r"^\| (\w+) \| (.*?) ?\| (.+?) \| (\d+) \| (\d+) minutes? \| ([\d.]+) \$ \|$", section("Tiers"), re.M
    )
    assert [row[0] for row in rows] == [*TIERS]
    for tier, off, starts, parallel, minutes, usd in rows:
        limits = TIERS[tier]
        assert int(off.removesuffix(" %") or 0) == TIER_DISCOUNT_PERCENT[tier]
        assert starts == f"{limits.per_minute}, {limits.per_hour}, {limits.per_day}"
        assert (int(parallel), int(minutes) * 60, float(usd)) == (
            limits.parallel,
            limits.run_max_s,
            limits.cost_max_usd,
        )


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (APP / target).exists(), target
