"""apps/leads/README.md is true: its program runs, twice, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

from apps.leads import booking, settings
from tests.support.processes import REPOSITORY, run_python

PAGE = (REPOSITORY / "apps" / "leads" / "README.md").read_text()


def test_the_program_prints_what_the_page_says_also_the_second_time(tmp_path: Path) -> None:
    program = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.DOTALL)
    assert program is not None
    for _ in range(2):
        assert run_python(program[1], path=tmp_path) == program[2]


def test_every_module_is_listed() -> None:
    table = PAGE.partition("## What is where")[2].partition("\n## ")[0]
    modules = {path.name for path in (REPOSITORY / "apps" / "leads").glob("[a-z]*.py")}
    core = {
        "model.py",
        "booking.py",
        "workflows.py",
        "discovery.py",
        "enrichment.py",
        "running.py",
        "store.py",
        "jobs.py",
    }
    assert core <= modules
    assert all(f"`{name}`" in table for name in core)


def test_numbers_are_those_of_the_code() -> None:
    prices = settings.Prices()
    assert f"| discovery | {prices.discovery_cents} |" in PAGE
    assert f"| enrichment | {prices.enrichment_cents} |" in PAGE
    assert booking.TIER_DISCOUNT_PERCENT == {"free": 0, "starter": 20, "pro": 50, "enterprise": 50}
    assert f"(at most {booking.HOLDS_MAX})" in PAGE
    defaults = settings.Settings()
    assert (defaults.discovery_time_max_s, defaults.enrichment_time_max_s) == (600, 1800)
    assert (
        defaults.scan_concurrency,
        defaults.discovery_limits.site_time_s,
        defaults.enrichment_limits.site_time_s,
    ) == (
        5,
        10,
        30,
    )
