"""The zip: what is read from it, what is refused, and how it is cut."""

from __future__ import annotations

import random
import stat
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.imports.files import Extract, Interrupted, Limits
from apps.imports.formats import BrokenExtract
from tests.imports.extracts import enterprise_number, full_extract

LIMITS = Limits(unzipped_bytes_max=10_000_000, batch_rows=7, delete_batch_rows=3)


def rewritten(source: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The same zip with its files changed."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return source


def staged(path: Path, folder: Path, limits: Limits = LIMITS) -> list[tuple[str, int, bytes]]:
    """Name, first line and content of every batch."""
    folder.mkdir(exist_ok=True)
    with Extract(path, limits) as extract:
        batches = extract.stage(folder, threading.Event())
    for batch in batches:
        assert batch.path(folder).stat().st_size == batch.byte_count
    return [(batch.name, batch.first_line, batch.path(folder).read_bytes()) for batch in batches]


def test_batches_are_the_files_without_headers_cut_at_rows(tmp_path: Path) -> None:
    path = full_extract(tmp_path, 140, enterprises=20)
    found = staged(path, tmp_path / "batches")
    names = [name for name, _, _ in found]
    assert [name for name in names if name.startswith("enterprise-")] == [f"enterprise-insert-{n}" for n in (1, 2, 3)]
    with zipfile.ZipFile(path) as archive:
        for table in ("enterprise", "denomination", "code"):
            lines = archive.read(f"{table}.csv").splitlines(keepends=True)[1:]
            parts = [(first, data) for name, first, data in found if name.startswith(f"{table}-")]
            assert b"".join(data for _, data in parts) == b"".join(lines)
            for first, data in parts:
                assert data.splitlines(keepends=True)[0] == lines[first - 2]  # line 1 is the header
            if table != "code":
                assert [data.count(b"\n") for _, data in parts] == [7, 7, 6]


def test_a_value_with_line_ends_is_not_cut(tmp_path: Path) -> None:
    number = enterprise_number(0)
    rows = [f'"{number}","2","003","name {n}\n""quoted"" line\n"\n' for n in range(30)]

    def put(members: dict[str, bytes]) -> None:
        members["denomination.csv"] += "".join(rows).encode()

    path = rewritten(full_extract(tmp_path, 140, enterprises=1), put)
    parts = [data.decode() for name, _, data in staged(path, tmp_path / "b") if name.startswith("denomination-")]
    assert len(parts) > 5
    for part in parts:
        assert part.count('"') % 2 == 0
        assert part.startswith(f'"{number}"')


def test_the_same_zip_gives_the_same_batches_whatever_the_size(tmp_path: Path) -> None:
    draw = random.Random(5)
    for rows in (1, 2, 5, draw.randint(6, 100), 10**6):
        path = full_extract(tmp_path, 140, enterprises=50)
        limits = Limits(10_000_000, rows, 3)
        first, second = staged(path, tmp_path / "a", limits), staged(path, tmp_path / "b", limits)
        assert first == second


def test_a_last_line_without_an_end_is_taken_if_it_is_whole(tmp_path: Path) -> None:
    def cut(members: dict[str, bytes]) -> None:
        members["denomination.csv"] = members["denomination.csv"].rstrip(b"\n")

    path = rewritten(full_extract(tmp_path, 140, enterprises=2), cut)
    names = [data for name, _, data in staged(path, tmp_path / "b") if name.startswith("denomination-")]
    assert [data.count(b"\n") for data in names] == [2]


def _truncate(members: dict[str, bytes]) -> None:
    members["enterprise.csv"] = members["enterprise.csv"][:-3]


def _crlf(members: dict[str, bytes]) -> None:
    members["contact.csv"] = members["contact.csv"].replace(b"\n", b"\r\n")


def _without(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda members: members.pop(name)


def _meta(old: str, new: str) -> Callable[[dict[str, bytes]], object]:
    return lambda members: members.update({"meta.csv": members["meta.csv"].replace(old.encode(), new.encode())})


def _put(name: str, data: bytes = b"x") -> Callable[[dict[str, bytes]], object]:
    return lambda members: members.update({name: data})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_truncate, "enterprise.csv line 4: the file ends in the middle of a row"),
        (_crlf, "contact.csv line 1: lines end with CR LF; in this format they end with LF"),
        (
            _put("address.csv", b'"EntityNumber"\n'),
            "address.csv line 1: the header is '\"EntityNumber\"', expected EntityNumber,",
        ),
        (_put("branch.csv", b""), "branch.csv line 1: the header is ''"),
        (_put("branch.csv", b"\xff\xfe"), "branch.csv line 1: the header is"),
        (_without("activity.csv"), "activity.csv is missing in the zip of this full extract"),
        (_without("meta.csv"), "meta.csv is missing in the zip"),
        (_meta('"full"', '"half"'), "meta.csv line 4: ExtractType is 'half', not full or update"),
        (_meta('"full"', '"update"'), "enterprise_delete.csv is missing in the zip of this update extract"),
        (_meta('"140"', '"x"'), "meta.csv line 5: ExtractNumber is 'x', not a number from 1"),
        (_meta("11-10-2025", "31-02-2025"), "meta.csv line 2: SnapshotDate is '31-02-2025', not a date dd-mm-yyyy"),
        (_meta("Variable", "Name"), "meta.csv line 1: the header must be Variable, Value"),
        (_put("../evil.csv"), "the zip has a member '../evil.csv'; files of an extract lie at the top level"),
        (_put("/etc/passwd"), "the zip has a member '/etc/passwd'"),
        (_put("a\\b.csv"), "the zip has a member 'a\\\\b.csv'"),
        (_put("sub/"), "the zip has a member 'sub/'"),
        (lambda members: [members.update({f"f{n}": b""}) for n in range(70)], "members; an extract has about 16"),
        (_put("contact.csv", b"0" * 11_000_000), "at most 10000000 are allowed"),
    ],
)
def test_a_broken_extract_is_refused_with_file_and_line(
    tmp_path: Path, change: Callable[[dict[str, bytes]], object], message: str
) -> None:
    path = rewritten(full_extract(tmp_path, 140), change)
    with pytest.raises(BrokenExtract) as caught:
        staged(path, tmp_path / "b")
    assert message in str(caught.value)
    assert not (tmp_path / "evil.csv").exists()


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 but then nothing")
    with pytest.raises(BrokenExtract, match="the file is not a zip that can be read"):
        Extract(tmp_path / "x.zip", LIMITS)


def test_a_damaged_member_is_refused_with_its_name(tmp_path: Path) -> None:
    path = full_extract(tmp_path, 140, enterprises=300)
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("enterprise.csv").header_offset
    damaged = bytearray(path.read_bytes())
    damaged[offset + 200] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(BrokenExtract, match=r"enterprise\.csv: cannot be unpacked"):
        staged(path, tmp_path / "b")


def test_a_link_in_the_zip_is_refused(tmp_path: Path) -> None:
    path = full_extract(tmp_path, 140)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.csv")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BrokenExtract, match=r"'link\.csv' is a link or a device, not a file"):
        Extract(path, LIMITS)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = full_extract(tmp_path, 140)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("contact.csv", "x")
    with pytest.raises(BrokenExtract, match=r"two members named 'contact\.csv'"):
        Extract(path, LIMITS)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = full_extract(tmp_path, 140)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("extra.csv", bytes(120_000_000))
    with pytest.raises(BrokenExtract, match=r"'extra\.csv' would be more than 200 times its size"):
        Extract(path, Limits(10**9, 100, 100))


def test_a_member_that_is_longer_than_the_zip_says_is_refused(tmp_path: Path) -> None:
    path = full_extract(tmp_path, 140, enterprises=500)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"enterprise.csv") - 46 + 24  # the size in the central directory
    data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BrokenExtract, match=r"enterprise\.csv"):
        staged(path, tmp_path / "b")


def test_files_that_no_extract_has_are_left_alone(tmp_path: Path) -> None:
    path = rewritten(full_extract(tmp_path, 140), _put("readme.txt"))
    with Extract(path, LIMITS) as extract:
        assert extract.ignored == ["readme.txt"]
    assert not any("readme" in name for name, _, _ in staged(path, tmp_path / "b"))


def test_unpacking_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    path, stop = full_extract(tmp_path, 140), threading.Event()
    stop.set()
    with Extract(path, LIMITS) as extract, pytest.raises(Interrupted):
        extract.stage(tmp_path, stop)
