"""docs/api.md is executed, and its table is that of the operations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.api.operations import OPERATIONS, Operation
from tests.support.restate_server import free_ports
from tests.test_readme import ROOT, Shell, play

PAGE = (ROOT / "docs" / "api.md").read_text()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder."""
    folder, outputs = tmp_path / "session", tmp_path / "outputs"
    folder.mkdir()
    outputs.mkdir()
    shell = Shell(folder, ROOT, outputs)
    yield shell
    shell.stop()


def test_the_page_works(session: Shell) -> None:
    # The page says 9070; the engine of this test listens elsewhere.
    ingress, admin = free_ports(2)
    serve = "holdfast serve flows:app --db flows.db"
    assert serve in PAGE
    page = PAGE.replace(serve, f"{serve} --ingress-port {ingress} --admin-port {admin}")
    left_out = play(page.replace("localhost:9070", f"localhost:{admin}"), session)
    if left_out:
        pytest.skip(f"all commands work but these, for which curl or jq is missing here: {left_out}")


def test_the_table_of_operations_is_complete() -> None:
    listed = re.findall(r"^\| `([A-Z]+) (/v1/[^`]*)` \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted((each.method, f"/v1{each.path}") for each in OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_answers_of_an_operation_are_in_the_table(operation: Operation) -> None:
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `{operation.method} /v1{operation.path}` ")]
    for status in operation.answers:
        assert re.search(rf"\b{status}\b", row), f"{status}: {row}"
