"""The page about patterns is true: its programs run and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast import patterns
from tests.test_readme import ROOT, Shell, play

PAGE = (ROOT / "docs" / "patterns.md").read_text()
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]


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


def test_every_section_is_in_the_table_and_runs_code() -> None:
    table = PAGE.partition("\n## ")[0]
    for section in SECTIONS:
        title = section.partition("\n")[0]
        assert f"(#{title.lower().replace(' ', '-')})" in table
        assert "```console\n$ python " in section
        assert "**Not**" in section or "**not**" in section  # when not to use it


def test_every_public_name_says_what_it_is() -> None:
    for name in patterns.__all__:
        documented = getattr(patterns, name)
        assert not callable(documented) or documented.__doc__, name
