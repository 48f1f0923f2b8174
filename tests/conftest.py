"""What holds for all tests: how they are collected, and in which order they run."""

from __future__ import annotations

import gc
from collections.abc import Generator
from pathlib import Path

import pytest

FIRST = Path(__file__).with_name("test_readme.py")
"""It takes half a minute, and by its name it comes last: one process would be left alone with it."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting imports a great deal and drops next to nothing: looking for garbage meanwhile took a sixth of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path != FIRST)
