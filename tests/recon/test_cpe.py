"""CPE names from what a scanner reports, and which vulnerability records apply to them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from apps.recon.enrich.cpe import Cpe, NotACpe, find_cpes, from_product, parse_cpe, split_version
from apps.recon.enrich.matching import Applies, Configuration, Criterion, Node, applies, criterion_applies
from apps.recon.enrich.nvd import Vulnerability, decode_cve, decode_page
from apps.recon.enrich.products import BANNERS, PRODUCTS, identify
from apps.recon.enrich.versions import compare_versions

DATA = Path(__file__).resolve().parents[2] / "apps" / "recon" / "data"
NVD = DATA / "vuln" / "nvd"


def records() -> dict[str, Vulnerability]:
    """Every real record."""
    found: dict[str, Vulnerability] = {}
    for path in sorted(NVD.glob("*.json")):
        content = json.loads(path.read_bytes())
        page = decode_page(path.read_bytes()).vulnerabilities if isinstance(content, dict) else map(decode_cve, content)
        found |= {each.cve_id: each for each in page}
    return found


RECORDS = records()


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cpe:/a:openbsd:openssh:5.9p1", "cpe:2.3:a:openbsd:openssh:5.9p1:*:*:*:*:*:*:*"),
        ("cpe:/o:microsoft:windows_xp::-", "cpe:2.3:o:microsoft:windows_xp:*:-:*:*:*:*:*:*"),
        ("cpe:/a:igor_sysoev:nginx", "cpe:2.3:a:igor_sysoev:nginx:*:*:*:*:*:*:*:*"),
        ("cpe:/a:a:b%2fc:1", r"cpe:2.3:a:a:b\/c:1:*:*:*:*:*:*:*"),
        ("cpe:/a:hp:insight:7.4.0.1570::~~online~win2003~x64~", "cpe:2.3:a:hp:insight:7.4.0.1570:*:*:*:online:win2003:x64:*"),
        (r"cpe:2.3:a:optimism:eth-optimism\/l2geth:*:*:*:*:*:*:*:*", r"cpe:2.3:a:optimism:eth-optimism\/l2geth:*:*:*:*:*:*:*:*"),
        (r"cpe:2.3:a:vendor:a\:b:1.0:*:*:*:*:*:*:*", r"cpe:2.3:a:vendor:a\:b:1.0:*:*:*:*:*:*:*"),
    ],
)  # fmt: skip
def test_both_forms_of_a_name_are_read_and_the_newer_is_written(text: str, name: str):
    assert str(parse_cpe(text)) == name
    assert parse_cpe(name) == parse_cpe(text)


@pytest.mark.parametrize(
    "text", ["", "openssh", "cpe:/", "cpe:/x:a:b", "cpe:2.3:a:b", "cpe:/a:vendor", "cpe:2.3:a:b:c:d"]
)
def test_what_is_no_name_is_refused(text: str):
    with pytest.raises(NotACpe):
        parse_cpe(text)


def test_every_criterion_of_every_real_record_is_a_name_and_writes_itself():
    criteria = {each for record in RECORDS.values() for each in record.cpes}
    assert len(criteria) > 140
    for text in criteria:
        assert str(parse_cpe(text)) == text


@pytest.mark.parametrize(
    ("text", "version", "update"),
    [
        ("5.9p1 Debian 5ubuntu1", "5.9", "p1"),
        ("2.2.22", "2.2.22", "*"),
        ("9.8.1-P1", "9.8.1", "p1"),
        ("3.0.0-rc1", "3.0.0", "rc1"),
        ("1.0.2k", "1.0.2k", "*"),
        ("v2.4.6", "2.4.6", "*"),
        ("8.00.528.00; SP1+", "8.00.528.00", "*"),
        ("(Firmware: 1)", "*", "*"),
        ("", "*", "*"),
        (None, "*", "*"),
    ],
)
def test_a_version_is_split_as_the_dictionary_has_it(text: str | None, version: str, update: str):
    assert split_version(text) == (version, update)


def test_the_scanners_own_name_comes_first_and_takes_the_databases_spelling():
    found = find_cpes(["cpe:/a:openbsd:openssh:5.9p1", "cpe:/o:linux:linux_kernel", "nonsense"], "nginx", "1.0")
    assert [(str(each.cpe), each.origin) for each in found] == [
        ("cpe:2.3:a:openbsd:openssh:5.9:p1:*:*:*:*:*:*", "scanner"),
        ("cpe:2.3:o:linux:linux_kernel:*:*:*:*:*:*:*:*", "scanner"),
    ]
    [mysql] = find_cpes(["cpe:/a:mysql:mysql:5.7.16"], None, None)
    assert (mysql.cpe.vendor, mysql.cpe.version) == ("oracle", "5.7.16")


def test_a_platform_alone_leaves_the_program_to_its_product():
    found = find_cpes(["cpe:/o:linux:linux_kernel"], "OpenSSH", "5.3")
    assert [(each.cpe.product, each.origin) for each in found] == [("openssh", "product"), ("linux_kernel", "scanner")]


def test_every_product_that_nmap_reported_in_the_real_files_is_known_or_has_no_dictionary_name():
    reported = {
        found for path in (DATA / "nmap").glob("*.xml") for found in re.findall(r'product="([^"]+)"', path.read_text())
    }
    unknown = {product for product in reported if from_product(product, "1") is None}
    assert unknown == {
        "Microsoft SQL Server 2000", "Sagem router telnetd", "Synology DiskStation NAS ftpd", "Windows XP microsoft-ds",
    }  # fmt: skip


def test_the_version_of_another_thing_is_not_taken():
    """nmap's version of Coyote is the connector's, and of Cisco's SSH the protocol server's."""
    tomcat = from_product("Apache Tomcat/Coyote JSP engine", "1.1")
    assert tomcat is not None
    assert not tomcat.has_version


# -- banners ---------------------------------------------------------------------------------------------------------

SAID = {
    "SSH-2.0-OpenSSH_7.4p1 Debian-10+deb9u7": ("OpenSSH", "7.4p1"),
    "SSH-2.0-OpenSSH_for_Windows_8.1": ("OpenSSH", "8.1"),
    "SSH-2.0-Cisco-1.25": ("Cisco SSH", None),
    "HTTP/1.1 200 OK\r\nServer: nginx/1.18.0 (Ubuntu)\r\n": ("nginx", "1.18.0"),
    "Server: nginx": ("nginx", None),
    "Server: Apache/2.2.22 (Ubuntu)": ("Apache httpd", "2.2.22"),
    "Server: Apache": ("Apache httpd", None),
    "Server: Microsoft-IIS/10.0": ("Microsoft IIS httpd", "10.0"),
    "Server: lighttpd/1.4.55": ("lighttpd", "1.4.55"),
    "Server: Caddy": ("Caddy httpd", None),
    "4\\x00\\x00\\x00\\x0A5.7.16\\x00\\x00\\x00\\x12gaaaaaaaa\\x00": ("MySQL", "5.7.16"),
    "J\x00\x00\x00\n8.0.23-0ubuntu0.20.04.1\x00abc": ("MySQL", "8.0.23"),
    "Y\x00\x00\x00\n5.5.5-10.3.22-MariaDB-0+deb10u1\x00": ("MariaDB", "10.3.22"),
    "PostgreSQL 12.3 on x86_64-pc-linux-gnu": ("PostgreSQL DB", "12.3"),
    "MongoDB 4.2.8": ("MongoDB", "4.2.8"),
    "redis_version:5.0.7": ("Redis key-value store", "5.0.7"),
    "Apache Tomcat/9.0.31": ("Apache Tomcat", "9.0.31"),
    "Server: Apache-Coyote/1.1": ("Apache Tomcat", None),
    "Server: Jetty(9.4.24.v20191120)": ("Jetty", "9.4.24.v20191120"),
    "220 ProFTPD 1.3.5e Server (Debian)": ("ProFTPD", "1.3.5e"),
    "220 (vsFTPd 3.0.3)": ("vsftpd", "3.0.3"),
    "BIND 9.11.5-P4": ("ISC BIND", "9.11.5-P4"),
    "dnsmasq-2.80": ("dnsmasq", "2.80"),
    "220 mail.example.com ESMTP Postfix (Ubuntu)": ("Postfix smtpd", None),
    "220 mx ESMTP Exim 4.92 Mon": ("Exim smtpd", "4.92"),
    "220 h ESMTP Sendmail 8.15.2/8.15.2": ("Sendmail", "8.15.2"),
    "Via: 1.1 proxy (squid/3.5.27)": ("Squid http proxy", "3.5.27"),
    "Via: 1.1 varnish (Varnish/6.0)": ("Varnish", "6.0"),
}
"""Made by hand after what these servers say; the first of MySQL's is from a real report."""


@pytest.mark.parametrize(("banner", "identity"), SAID.items(), ids=[each[:30] for each in SAID])
def test_a_banner_gives_product_and_version(banner: str, identity: tuple[str, str | None]):
    assert identify(banner) == identity
    assert from_product(*identity) is not None


def test_every_pattern_is_tried_by_an_example_and_names_a_known_product():
    assert {each.product for each in BANNERS} == {product for product, _ in SAID.values()}
    assert all(each.product.lower() in PRODUCTS for each in BANNERS)


@pytest.mark.parametrize("banner", ["", "hello", "Server: something/1.0", "Apaches/2.2", "SSH-2.0-dropbear_2019.78"])
def test_other_banners_give_nothing(banner: str):
    assert identify(banner) is None


def test_a_hostile_banner_takes_no_time():
    for text in ("Apache" * 100_000, "SSH-" + "2." * 100_000, "Jetty(" * 100_000, "4" + "\\x00" * 100_000):
        identify(text)  # the time limit of the tests is the assertion


# -- versions --------------------------------------------------------------------------------------------------------


def test_versions_in_their_order():
    ordered = [
        "1.0.0-alpha1",
        "1.0.0-beta",
        "1.0.0-rc1",
        "1.0.0",
        "1.0.0p1",
        "1.0.2",
        "1.0.2a",
        "1.0.2k",
        "1.2",
        "1.10",
        "2",
    ]
    for index, older in enumerate(ordered):
        assert compare_versions(older, older) == 0
        for newer in ordered[index + 1 :]:
            assert (compare_versions(older, newer), compare_versions(newer, older)) == (-1, 1), (older, newer)


@pytest.mark.parametrize(
    ("one", "other"), [("7", "7.0"), ("7.0.0", "7"), ("v1.2", "1.2"), ("1_2", "1.2"), ("007", "7")]
)
def test_versions_that_are_the_same(one: str, other: str):
    assert compare_versions(one, other) == 0


# -- matching --------------------------------------------------------------------------------------------------------

ANYTHING = "cpe:2.3:a:v:p:*:*:*:*:*:*:*:*"


def named(version: str, update: str = "*") -> Cpe:
    return Cpe("a", "v", "p", version, update)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"version_start_including": "2.2.0", "version_end_excluding": "2.2.33"}, ["2.2.0", "2.2.32"], ["2.1.9", "2.2.33"]),
        ({"version_start_excluding": "2.2", "version_end_including": "2.4"}, ["2.2.1", "2.4", "2.4.0"], ["2.2", "2.4.1"]),
        ({"version_end_including": "7.7"}, ["1", "7.7"], ["7.7.1", "8"]),
        ({"version_start_including": "3"}, ["3", "10"], ["2.9.9"]),
        ({}, ["0.1", "99"], []),
    ],
)  # fmt: skip
def test_a_range_has_its_bounds(bounds: dict[str, str], inside: list[str], outside: list[str]):
    criterion = Criterion(ANYTHING, **bounds)  # pyright: ignore[reportArgumentType]
    assert {version: criterion_applies(criterion, named(version)) for version in inside + outside} == {
        **dict.fromkeys(inside, Applies.YES),
        **dict.fromkeys(outside, Applies.NO),
    }


@pytest.mark.parametrize(
    ("criterion", "version", "update", "expected"),
    [
        ("cpe:2.3:a:v:p:1.0:*:*:*:*:*:*:*", "1.0", "p1", Applies.YES),
        ("cpe:2.3:a:v:p:1.0:p1:*:*:*:*:*:*", "1.0", "p1", Applies.YES),
        ("cpe:2.3:a:v:p:1.0:p1:*:*:*:*:*:*", "1.0", "*", Applies.NO),
        ("cpe:2.3:a:v:p:1.0:-:*:*:*:*:*:*", "1.0", "*", Applies.YES),
        ("cpe:2.3:a:v:p:-:*:*:*:*:*:*:*", "1.0", "*", Applies.NO),
        ("cpe:2.3:a:v:p:*:*:*:*:*:wordpress:*:*", "1.0", "*", Applies.CONDITIONAL),
        ("cpe:2.3:a:other:p:*:*:*:*:*:*:*:*", "1.0", "*", Applies.NO),
        ("not a name", "1.0", "*", Applies.NO),
    ],
)
def test_a_criterion_and_a_name(criterion: str, version: str, update: str, expected: Applies):
    assert criterion_applies(Criterion(criterion), named(version, update)) is expected


def test_a_name_without_a_version_applies_to_nothing():
    assert applies([Configuration(nodes=[Node(cpe_match=[Criterion(ANYTHING)])])], Cpe("a", "v", "p")) is Applies.NO


def test_a_platform_that_a_scan_cannot_see_is_a_condition():
    windows = Criterion("cpe:2.3:o:microsoft:windows:-:*:*:*:*:*:*:*", vulnerable=False)
    program = Criterion(ANYTHING)
    both = Configuration(operator="AND", nodes=[Node(cpe_match=[program]), Node(cpe_match=[windows])])
    in_one_node = Configuration(nodes=[Node(operator="AND", cpe_match=[program, windows])])
    for configuration in (both, in_one_node):
        assert applies([configuration], named("1")) is Applies.CONDITIONAL
        assert applies([configuration], Cpe("o", "microsoft", "windows", "10")) is Applies.NO
    negated = Configuration(nodes=[Node(negate=True, cpe_match=[program])])
    assert applies([negated], named("1")) is Applies.NO
    assert applies([negated, Configuration(nodes=[Node(cpe_match=[program])])], named("1")) is Applies.YES


@pytest.mark.parametrize(
    ("name", "cve_ids"),
    [
        ("cpe:/a:openbsd:openssh:5.9p1", {"CVE-2018-15473"}),
        ("cpe:/a:openbsd:openssh:7.7p1", {"CVE-2018-15473"}),
        ("cpe:/a:openbsd:openssh:7.8p1", set()),
        ("cpe:/a:openbsd:openssh", set()),
        ("cpe:/a:apache:http_server:2.2.22", {"CVE-2017-7679"}),
        ("cpe:/a:apache:http_server:2.2.33", set()),
        ("cpe:/a:apache:http_server:2.4.25", {"CVE-2017-7679"}),
        ("cpe:/a:apache:http_server:2.4.26", set()),
        ("cpe:/a:mahara:mahara:21.04.2", {"CVE-2022-24111"}),
        ("cpe:/a:mahara:mahara:21.04.3", set()),
        ("cpe:/a:mahara:mahara:21.10.0", {"CVE-2022-24111"}),
        ("cpe:/a:vim:vim:8.2.4326", {"CVE-2022-0554"}),
        ("cpe:/a:paloaltonetworks:globalprotect:5.2.8", {"CVE-2022-0016", "CVE-2022-0018", "CVE-2022-0021"}),
    ],
)  # fmt: skip
def test_real_records_and_real_names(name: str, cve_ids: set[str]):
    [found] = find_cpes([name], None, None)
    applying = {cve_id: applies(record.configurations, found.cpe) for cve_id, record in RECORDS.items()}
    assert {cve_id for cve_id, how in applying.items() if how is not Applies.NO} == cve_ids
    if "globalprotect" in name:
        assert set(applying.values()) == {Applies.NO, Applies.CONDITIONAL}
