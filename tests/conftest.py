"""What holds for all tests: how they are collected, in which order they run, and how long the slow ones may take."""

from __future__ import annotations

import gc
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile("loaded", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("loaded")

FIRST = Path(__file__).with_name("test_readme.py")
"""It takes half a minute, and by its name it comes last: one process would be left alone with it."""
SLOW_TIMEOUT_S = 400
"""Slow is up to half a minute on an idle machine."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting imports a great deal and drops next to nothing: looking for garbage meanwhile took a sixth of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # nor is it ever garbage afterwards
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path != FIRST)
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
