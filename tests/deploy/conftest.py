"""Fixtures: a project in the current directory, a Restate server for the session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.support import GREETER
from tests.support.restate_server import RunningRestate, running_server, skip_without_server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `greeter.py`, which is the current directory; no setting of the machine is seen."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "greeter.py").write_text(GREETER)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    for name in ("HOLDFAST_ADMIN_URL", "HOLDFAST_ADMIN_TOKEN", "HOLDFAST_CONFIG", "RESTATE_IDENTITY_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    known = set(sys.modules)
    yield folder
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture(scope="package")
def restate() -> Iterator[RunningRestate]:
    """A real server without deployments, one for all tests here."""
    skip_without_server()
    with running_server() as server:
        yield server
