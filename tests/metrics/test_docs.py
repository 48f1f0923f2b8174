"""The page about metrics is true: its program prints what it says, and it names every metric."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast import Engine
from holdfast.metrics import EngineMetrics, render
from tests.metrics.program import application
from tests.test_readme import ROOT, Shell, play

PAGE = (ROOT / "docs" / "metrics.md").read_text()


def test_the_page_works(tmp_path: Path) -> None:
    folder, outputs = tmp_path / "session", tmp_path / "outputs"
    folder.mkdir()
    outputs.mkdir()
    shell = Shell(folder, ROOT, outputs)
    try:
        assert play(PAGE, shell) == []
    finally:
        shell.stop()


async def test_the_table_has_every_metric_with_its_type() -> None:
    async with Engine(application()) as engine:
        text = (await render([EngineMetrics(engine)]))[0].decode()
    told = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    listed = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.MULTILINE))
    assert listed == told
