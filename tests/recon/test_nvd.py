"""The NVD's answers, the KEV catalogue, and the client against a server that sometimes refuses."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from restate import TerminalError
from restate.exceptions import RetryableError
from starlette.responses import Response

from apps.recon.enrich.kev import CatalogueRefused, read_catalogue
from apps.recon.enrich.nvd import NotAnAnswer, decode_cve, decode_page
from apps.recon.enrich.nvd_client import fetch_page
from tests.recon.intel import DATA, KEV_FILE, nvd_mirror

NVD = DATA / "vuln" / "nvd"
APACHE = "cpe:2.3:a:apache:http_server:2.2.22:*:*:*:*:*:*:*"
CISCO = "cpe:2.3:o:cisco:rv340_firmware:1.0.03.24:*:*:*:*:*:*:*"


def read(name: str) -> bytes:
    return (NVD / name).read_bytes()


def test_a_real_answer_with_its_envelope():
    page = decode_page(read("nvd2_search_47.json"))
    assert (len(page.vulnerabilities), page.total_count, page.next_index) == (47, 47, None)
    first = page.vulnerabilities[0]
    assert (first.cve_id, first.cvss, first.cvss_version, first.severity) == ("CVE-2021-25992", 9.8, "3.1", "CRITICAL")
    assert first.summary.startswith("In Ifme, versions 1.0.0 to v.7.33.2")
    assert first.published_at.tzinfo is UTC


def test_the_newest_score_counts():
    """3.1 before 3.0 before 2; version 2 has its severity beside the data."""
    [record] = decode_page(read("nvd2_CVE-2017-7542.json")).vulnerabilities
    assert (record.cvss, record.cvss_version, record.severity) == (5.5, "3.0", "MEDIUM")
    openssh, apache = (decode_cve(each) for each in json.loads(read("nvd_openssh_apache_trimmed.json")))
    assert (openssh.cvss, openssh.cvss_version, openssh.severity) == (5.3, "3.1", "MEDIUM")
    assert (apache.cvss, apache.cvss_version, apache.severity) == (9.8, "3.0", "CRITICAL")
    assert openssh.exploit_refs == ["https://www.exploit-db.com/exploits/45210/"]
    only_v2 = json.loads(read("nvd_openssh_apache_trimmed.json"))[1]
    del only_v2["metrics"]["cvssMetricV30"]
    record = decode_cve(only_v2)
    assert (record.cvss, record.cvss_version, record.severity) == (7.5, "2.0", "HIGH")
    del only_v2["metrics"]["cvssMetricV2"]
    assert decode_cve(only_v2).cvss is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b'{"resultsPerPage": 1, "startIndex": 0}'])
def test_what_is_no_answer_is_refused(body: bytes):
    with pytest.raises(NotAnAnswer):
        decode_page(body)


def test_the_real_catalogue_of_known_exploited_vulnerabilities():
    catalogue = read_catalogue(KEV_FILE, setting="RECON_KEV")
    assert len(catalogue.entries) == 1404
    assert "CVE-2021-26855" in catalogue
    assert "CVE-2018-15473" not in catalogue
    exchange = catalogue.entries["CVE-2021-26855"]
    assert (exchange.name, exchange.added_on) == (
        "Microsoft Exchange Server Remote Code Execution Vulnerability",
        date(2021, 11, 3),
    )


def test_a_missing_or_wrong_catalogue_names_the_setting(tmp_path: Path):
    with pytest.raises(CatalogueRefused, match=r"^RECON_KEV: .*No such file.*; give the path of CISA's KEV JSON file$"):
        read_catalogue(tmp_path / "kev.json", setting="RECON_KEV")
    with pytest.raises(CatalogueRefused, match=r"^RECON_KEV: .* is not CISA's KEV catalogue"):
        read_catalogue(NVD / "nvd2_search_47.json", setting="RECON_KEV")


async def test_a_page_after_the_other():
    async with nvd_mirror() as mirror:
        found: list[str] = []
        index: int | None = 0
        while index is not None:
            page = await fetch_page(mirror.url, CISCO, start_index=index, page_size=5, api_key="secret")
            found += [each.cve_id for each in page.vulnerabilities]
            index = page.next_index
        assert len(found) == len(set(found)) == page.total_count == 15
        assert len(mirror.asked) == 3
        assert set(mirror.keys) == {"secret"}


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"),
    [
        (429, {"retry-after": "7"}, timedelta(seconds=7)),
        (403, {"retry-after": "30"}, timedelta(seconds=30)),
        (403, {}, None),
        (503, {"retry-after": "soon"}, None),
        (500, {}, None),
    ],
)
async def test_what_may_work_later_is_left_to_the_engine(
    status: int, headers: dict[str, str], retry_after: timedelta | None
):
    """403 is how the NVD says that there were too many requests."""
    async with nvd_mirror() as mirror:
        mirror.says.append(lambda: Response(status_code=status, headers=headers))
        with pytest.raises(RetryableError, match=f"NVD: {status}") as caught:
            await fetch_page(mirror.url, APACHE, start_index=0, page_size=10, api_key=None)
        assert caught.value.retry_after == retry_after


async def test_retry_after_as_a_date():
    async with nvd_mirror() as mirror:
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
        mirror.says.append(lambda: Response(status_code=503, headers={"retry-after": at}))
        with pytest.raises(RetryableError) as caught:
            await fetch_page(mirror.url, APACHE, start_index=0, page_size=10, api_key=None)
        assert caught.value.retry_after is not None
        assert timedelta(seconds=95) < caught.value.retry_after <= timedelta(seconds=100)


async def test_what_will_never_work_ends_it_with_the_reason():
    async with nvd_mirror() as mirror:
        with pytest.raises(TerminalError, match="NVD: 404 Invalid parameter") as caught:
            await fetch_page(mirror.url, "cpe:2.3:a:x:y:*:*:*:*:*:*:*:*", start_index=0, page_size=10, api_key=None)
        assert caught.value.status_code == 404


async def test_garbage_and_silence_may_work_later():
    async with nvd_mirror() as mirror:
        mirror.says += [lambda: Response(b"<html>maintenance"), lambda: Response(b"")]
        for _ in range(2):
            with pytest.raises(NotAnAnswer):
                await fetch_page(mirror.url, APACHE, start_index=0, page_size=10, api_key=None)
    with pytest.raises(httpx.TransportError):
        await fetch_page(mirror.url, APACHE, start_index=0, page_size=10, api_key=None)
