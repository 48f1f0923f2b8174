"""The page about testing is true: its tests pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_readme import ROOT, Shell, play

PAGE = (ROOT / "docs" / "testing.md").read_text()
SECTIONS = [section for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:] if "```console" in section]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_the_section_works(section: str, tmp_path: Path) -> None:
    folder, outputs = tmp_path / "session", tmp_path / "outputs"
    folder.mkdir()
    outputs.mkdir()
    shell = Shell(folder, ROOT, outputs)
    try:
        assert play(section, shell) == []
    finally:
        shell.stop()
