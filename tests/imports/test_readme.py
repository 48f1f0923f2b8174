"""The README of imports is true: its 60 seconds work word for word, its tables are those of the code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.imports.cli import main
from tests.support.restate_server import free_ports
from tests.test_readme import ROOT, Shell, play

APP = ROOT / "apps" / "imports"
README = (APP / "README.md").read_text()


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


def test_sixty_seconds(session: Shell) -> None:
    # Its port may be in use here; nothing else differs from the page.
    [port] = free_ports(1)
    session.run(f"export IMPORTS_PORT={port} IMPORTS_URL=http://127.0.0.1:{port}")
    left_out = play(README.replace("127.0.0.1:3002", f"127.0.0.1:{port}"), session)
    if left_out:
        pytest.skip(f"all commands work but these, for which curl or jq is missing here: {left_out}")


def test_every_module_that_is_named_is_there() -> None:
    named = re.findall(r"`(\w+\.py)`", README.partition("## What is where")[2])
    assert len(named) > 20
    assert set(named) <= {path.name for path in APP.glob("*.py")}


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {re.split(r"[<>=~\[]", line)[0] for line in project["optional-dependencies"]["imports"]}
    section = README.partition("## Dependencies")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| ([a-z][\w-]+) \|", section, re.M)) == extra


def test_every_command_is_described() -> None:
    section = README.partition("## Commands")[2].partition("\n## ")[0]
    assert {found.split()[0] for found in re.findall(r"^\| `imports (.+?)`", section, re.M)} == set(main.commands)


def test_every_link_leads_somewhere() -> None:
    for page in (APP / "README.md", APP / "hosting.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
