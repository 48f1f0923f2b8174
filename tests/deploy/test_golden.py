"""Rendered files, byte for byte. After a change that is meant: HOLDFAST_UPDATE_GOLDEN=1 pytest tests/deploy/test_golden.py,
and read the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast import endpoint
from holdfast.deploy import render
from tests.deploy.variants import VARIANTS

GOLDEN = Path(__file__).parent / "golden"


def golden_name(path: str) -> str:
    """Python among them is no code of ours to check."""
    return f"{path}.txt" if path.endswith(".py") else path


@pytest.mark.parametrize("variant", VARIANTS)
def test_rendered_files(variant: str) -> None:
    settings = VARIANTS[variant]
    files = {file.path.removeprefix(f"{settings.out}/"): file.text for file in render(settings)}
    if "endpoint.py" in files:
        assert files.pop("endpoint.py") == Path(endpoint.__file__).read_text()
    actual = {golden_name(path): text for path, text in files.items()}
    folder = GOLDEN / variant
    if os.environ.get("HOLDFAST_UPDATE_GOLDEN"):
        for path, text in actual.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    expected = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert actual == expected


def test_the_same_settings_give_the_same_files() -> None:
    for settings in VARIANTS.values():
        assert render(settings) == render(settings)


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(VARIANTS)
