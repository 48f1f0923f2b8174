"""Who announces an address: Team Cymru's bulk format, and the database file."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.recon.enrich.cymru import BadAnswer, Origin, ask, parse_answer, question
from apps.recon.enrich.mmdb import Database, DatabaseRefused, find_origin
from tests.recon.intel import ASN_FILE, CITY_FILE, whois_server

GOOGLE = "15169   | 8.8.8.8          | 8.8.8.0/24          | US | arin     | 2023-12-28 | GOOGLE, US"
NOBODY = "NA      | 10.0.0.1         | NA                  |    | other    |            | NA"
GREETING = "Bulk mode; whois.cymru.com [2026-01-01 00:00:00 +0000]\n"


def test_the_question():
    assert question(["8.8.8.8", "2001:db8::1"]) == b"begin\nverbose\n8.8.8.8\n2001:db8::1\nend\n"


def test_an_answer_has_a_line_for_each_address():
    answer = parse_answer(f"{GREETING}{GOOGLE}\n{NOBODY}\n", ["8.8.8.8", "10.0.0.1"])
    assert answer == {"8.8.8.8": Origin(15169, "GOOGLE, US", "US", "8.8.8.0/24"), "10.0.0.1": None}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("64500 | 192.0.2.1 | 192.0.2.0/24 | NL | ripencc | 2000-01-01 | FIRST | AND A BAR, NL", Origin(64500, "FIRST | AND A BAR, NL", "NL", "192.0.2.0/24")),
        ("64500 64501 | 192.0.2.1 | 192.0.2.0/24 | NL | ripencc | | TWO", Origin(64500, "TWO", "NL", "192.0.2.0/24")),
        ("64500 | 192.0.2.1 | 192.0.2.0/24 | | | | ONE\n64501 | 192.0.2.1 | 192.0.2.0/25 | | | | OTHER", Origin(64500, "ONE", None, "192.0.2.0/24")),
        ("64500 | 192.0.2.1 | 192.0.2.0/24", Origin(64500, None, None, "192.0.2.0/24")),
        ("NA | 192.0.2.1 | NA", None),
    ],
)  # fmt: skip
def test_the_forms_of_a_line(lines: str, expected: Origin | None):
    assert parse_answer(GREETING + lines, ["192.0.2.1"]) == {"192.0.2.1": expected}


def test_an_address_may_be_written_otherwise_in_the_answer():
    answer = parse_answer("64500 | 2001:db8:0:0::1 | 2001:db8::/32 | | | | X", ["2001:db8::1"])
    assert list(answer) == ["2001:db8::1"]


@pytest.mark.parametrize("text", ["", GREETING, "Error: no ASN or IP match on line 3.\n", f"{GREETING}{GOOGLE[:12]}"])
def test_an_answer_that_was_cut_off_is_refused(text: str):
    with pytest.raises(BadAnswer, match=r"left out 1 of 1 addresses, 8\.8\.8\.8 first"):
        parse_answer(text, ["8.8.8.8"])


async def test_the_client_asks_and_reads_to_the_end():
    async with whois_server({"8.8.8.8": GOOGLE}) as whois:
        host, port = whois.server.split(":")
        addresses = ["8.8.8.8", *(f"10.0.0.{index}" for index in range(49))]
        found = await ask(addresses, host=host, port=int(port), timeout_s=10)
        assert whois.asked == [addresses]
    assert found.pop("8.8.8.8") == Origin(15169, "GOOGLE, US", "US", "8.8.8.0/24")
    assert set(found.values()) == {None}
    with pytest.raises(OSError, match="Connect"):
        await ask(["8.8.8.8"], host=host, port=int(port), timeout_s=10)


@pytest.mark.parametrize(
    ("address", "number", "organisation"),
    [
        ("1.0.0.1", 15169, "Google Inc."),
        ("1.128.0.1", 1221, "Telstra Pty Ltd"),
        ("89.160.20.112", 29518, "Bredband2 AB"),
        ("216.160.83.56", 209, None),
    ],
)
def test_addresses_in_the_real_file(address: str, number: int, organisation: str | None):
    database = Database(ASN_FILE, kind="ASN", setting="RECON_GEOIP_ASN")
    assert find_origin(database, address) == Origin(number, organisation)
    assert database.version.startswith("GeoLite2-ASN@")
    database.close()


def test_addresses_that_are_not_in_it():
    database = Database(ASN_FILE, kind="ASN", setting="RECON_GEOIP_ASN")
    for address in ("104.16.99.52", "172.29.0.3", "74.207.244.221", "::1"):
        assert find_origin(database, address) is None
    database.close()


def test_a_file_that_is_missing_or_another_one(tmp_path: Path):
    (tmp_path / "text.mmdb").write_text("hello")
    for path, reason in (
        (tmp_path / "missing.mmdb", "No such file or directory; give the path of an .mmdb file"),
        (tmp_path / "text.mmdb", "is not a MaxMind database"),
        (CITY_FILE, "is a GeoLite2-City database; it must be ASN"),
    ):
        with pytest.raises(DatabaseRefused, match=r"^RECON_GEOIP_ASN: .*") as caught:
            Database(path, kind="ASN", setting="RECON_GEOIP_ASN")
        assert reason in str(caught.value)
