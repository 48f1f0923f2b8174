"""Made-up extracts: the same for the same seed, consistent, and shaped like real ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from apps.imports.generator import Register
from apps.imports.verify import Expected


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return made(tmp_path_factory.mktemp("made"), seed=3)


def made(folder: Path, *, seed: int) -> list[Path]:
    with Register(800, seed=seed, nace_codes=100, first_extract=146) as register:
        return [register.write_full(folder), register.write_update(folder), register.write_update(folder)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(zips: list[Path], tmp_path: Path) -> None:
    def hashes(paths: list[Path]) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]

    assert hashes(made(tmp_path / "again", seed=3)) == hashes(zips)
    assert not set(hashes(made(tmp_path / "other", seed=4))) & set(hashes(zips))


def test_names_are_those_of_the_register(zips: list[Path]) -> None:
    assert [path.name for path in zips] == [
        "KboOpenData_0146_2025_10_06_Full.zip",
        "KboOpenData_0147_2025_10_07_Update.zip",
        "KboOpenData_0148_2025_10_08_Update.zip",
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_state_is_consistent(zips: list[Path], count: int) -> None:
    state = Expected()
    for path in zips[:count]:
        state.apply(path)
    enterprises = {row[0] for row in state.rows("enterprise")}
    establishments = {row[0] for row in state.rows("establishment")}
    assert len(enterprises) == len(state.rows("enterprise"))
    assert len(establishments) == len(state.rows("establishment"))
    for number in enterprises | establishments:
        assert number is not None
        digits = number.replace(".", "")
        assert len(digits) == 10
        assert 97 - int(digits[:8]) % 97 == int(digits[8:])
        assert (number[0] in "01") == (number in enterprises)
    assert {row[2] for row in state.rows("establishment")} <= enterprises
    assert {row[2] for row in state.rows("branch")} <= enterprises
    for table in ("denomination", "address", "contact", "activity"):
        rows = state.rows(table)
        assert len(set(rows)) == len(rows)
        assert {row[0] for row in rows} <= enterprises | establishments


def test_an_update_ends_changes_and_adds(zips: list[Path]) -> None:
    before, after = Expected(), Expected()
    before.apply(zips[0])
    after.apply(zips[0])
    after.apply(zips[1])
    for table in ("enterprise", "denomination", "address", "activity"):
        old, new = set(before.rows(table)), set(after.rows(table))
        old_keys, new_keys = {row[0] for row in old}, {row[0] for row in new}
        assert old_keys - new_keys, f"nothing ended in {table}"
        assert new_keys - old_keys, f"nothing was added in {table}"
        assert {row[0] for row in old - new} & new_keys, f"nothing changed in {table}"


def test_the_profile_is_that_of_real_extracts(zips: list[Path]) -> None:
    state = Expected()
    state.apply(zips[0])
    enterprises = len(state.rows("enterprise"))
    per_enterprise = {table: len(state.rows(table)) / enterprises for table in ("establishment", "address", "activity")}
    assert 0.7 < per_enterprise["establishment"] < 1.1  # real: 0.86
    assert 1.2 < per_enterprise["address"] < 1.8  # real: 1.47
    assert 14 < per_enterprise["activity"] < 22  # real: 18.7
    versions = Counter(row[2] for row in state.rows("activity"))
    assert set(versions) == {"2003", "2008", "2025"}
    groups = Counter(row[1] for row in state.rows("activity"))
    assert groups["003"] > 0.85 * sum(groups.values())
    types = Counter(row[3] for row in state.rows("enterprise"))
    assert 0.5 < types["2"] / enterprises < 0.7
    names = [row[3] or "" for row in state.rows("denomination")]
    assert any('"' in name for name in names)
    assert any("," in name for name in names)
