"""What may be a target, which address of it is scanned, and how results of several scans are joined. No engine here."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from apps.recon.campaigns.correlate import Seen, Threat, Vulnerability, exposure, join, tally
from apps.recon.campaigns.model import HOSTS_SHOWN_MAX, SCANS_SHOWN_MAX, TARGETS_MAX, OpenPort, TargetRow
from apps.recon.campaigns.targets import (
    AllowList,
    ResolutionFailed,
    TargetForbidden,
    TargetRejected,
    TargetUnknown,
    count,
    expand,
    locate,
    parse_address,
)
from apps.recon.campaigns.validation import check
from apps.recon.campaigns.xml import scan_text
from apps.recon.parsers import parse_scan
from apps.recon.settings import LOOPBACK, Settings

ALLOW = AllowList(LOOPBACK, (ip_network("127.66.0.0/16"),))

EXPANDED: dict[str, list[str]] = {
    "127.0.0.1": ["127.0.0.1"],
    "  127.0.0.1\n": ["127.0.0.1"],
    "::1": ["::1"],
    "0:0:0:0:0:0:0:1": ["::1"],
    "::ffff:127.0.0.1": ["127.0.0.1"],
    "127.0.0.0/30": ["127.0.0.1", "127.0.0.2"],
    "127.0.0.5/30": ["127.0.0.5", "127.0.0.6"],
    "127.0.0.8/31": ["127.0.0.8", "127.0.0.9"],
    "127.0.0.7/32": ["127.0.0.7"],
    "Example.ORG.": ["example.org"],
    "localhost": ["localhost"],
    "a_b.example.org": ["a_b.example.org"],
}
UNUSABLE = [
    "", "   ", "-oN/etc/passwd", "--script=x", "127.1", "0x7f.0.0.1", "2130706433", "127.0.0.1:80", "http://127.0.0.1/",
    "a..b", "-a.org", "a b", "fe80::1%eth0", "127.0.0.0/33", "127.0.0.0/8", "::/0", "x" * 300, "exa\x00mple.org", "münchen.de",
]  # fmt: skip


@pytest.mark.parametrize("text", EXPANDED)
def test_a_line_stands_for_these_targets(text: str) -> None:
    assert list(expand(text)) == EXPANDED[text]


@pytest.mark.parametrize("text", UNUSABLE)
def test_a_line_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(TargetRejected):
        list(expand(text))


def test_counting_spreads_nothing_out() -> None:
    assert count(["127.0.0.0/17"] * 1000) == 1000 * 32768
    assert count(["::/0", "127.0.0.0/99", "a", "127.0.0.1"]) == 4
    assert len(list(expand("127.0.0.0/16"))) == TARGETS_MAX - 2


def test_only_loopback_is_allowed_unless_somebody_says_otherwise() -> None:
    allow = AllowList(Settings().allowed_networks)
    for address in ("127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"):
        allow.check(parse_address(address))
    for address in ("10.0.0.1", "169.254.169.254", "0.0.0.0", "::2", "fe80::1", "::ffff:10.0.0.1", "2002:7f00:1::"):
        with pytest.raises(TargetForbidden, match="RECON_ALLOWED_NETWORKS"):
            allow.check(parse_address(address))
    with pytest.raises(TargetForbidden, match="none"):
        AllowList(()).check(parse_address("127.0.0.1"))


async def test_a_name_is_resolved_once_and_its_address_is_what_counts() -> None:
    asked: list[str] = []

    async def rebinding(name: str) -> list[str]:
        asked.append(name)
        return ["127.0.0.9"] if len(asked) == 1 else ["169.254.169.254"]

    [row] = await check(["evil.example.org"], ALLOW, rebinding, is_last_try=False)
    assert (row["state"], row["address"]) == ("ready", "127.0.0.9")
    assert asked == ["evil.example.org"]


async def test_a_name_with_any_forbidden_address_is_not_scanned_at_all() -> None:
    async def two(_: str) -> list[str]:
        return ["127.0.0.1", "192.0.2.1"]

    with pytest.raises(TargetForbidden):
        await locate("both.example.org", ALLOW, two)


async def test_a_name_that_nobody_knows_is_rejected_and_one_that_fails_is_asked_again() -> None:
    async def unsure(name: str) -> list[str]:
        if name == "gone.example.org":
            raise TargetUnknown(f"the name {name} has no address")
        raise ResolutionFailed(f"{name} could not be resolved")

    [row] = await check(["gone.example.org"], ALLOW, unsure, is_last_try=False)
    assert row["state"] == "rejected"
    with pytest.raises(ResolutionFailed):
        await check(["later.example.org"], ALLOW, unsure, is_last_try=False)
    [row] = await check(["later.example.org"], ALLOW, unsure, is_last_try=True)
    assert (row["state"], row["reason"]) == ("rejected", "later.example.org could not be resolved")


async def test_sensitive_targets_are_marked_and_doubles_are_one() -> None:
    async def nobody(name: str) -> list[str]:
        raise AssertionError(name)

    rows = await check(["127.66.0.1", "127.66.0.0/31", "127.0.0.1", " 127.0.0.1"], ALLOW, nobody, is_last_try=False)
    assert {row["target"]: row["is_sensitive"] for row in rows} == {
        "127.66.0.0": True, "127.66.0.1": True, "127.0.0.1": False,
    }  # fmt: skip


# -- joining ---------------------------------------------------------------------------------------------------------


def test_the_same_host_from_two_scans_is_one_entry() -> None:
    first = Seen("campaign-1", "127.0.0.10", "db.example.org", [OpenPort(22, service="ssh"), OpenPort(80)])
    second = Seen("job-1", "127.0.0.10", None, [OpenPort(22, product="OpenSSH", version="9.6"), OpenPort(53, "udp")])
    other = Seen("job-1", "127.0.0.9", None, [OpenPort(6379, service="redis")])
    hosts = join([first, second, other], [Vulnerability("127.0.0.10", "tcp", 22, "CVE-2024-6387", "HIGH")])
    assert [host.address for host in hosts] == ["127.0.0.9", "127.0.0.10"]
    joined = hosts[1]
    assert (joined.names, joined.scans) == (["db.example.org"], ["campaign-1", "job-1"])
    assert [(port.number, port.protocol) for port in joined.ports] == [(22, "tcp"), (53, "udp"), (80, "tcp")]
    ssh = joined.ports[0]
    assert (ssh.service, ssh.product, ssh.version) == ("ssh", "OpenSSH", "9.6")
    assert (joined.threats, hosts[0].threats) == (["CVE-2024-6387"], ["EXPOSED-REDIS"])


def test_a_version_never_goes_with_another_product() -> None:
    nginx = Seen("a", "h", None, [OpenPort(80, product="nginx")])
    apache = Seen("b", "h", None, [OpenPort(80, product="Apache", version="2.4")])
    [host] = join([nginx, apache], [])
    assert (host.ports[0].product, host.ports[0].version) == ("nginx", None)


def test_a_host_seen_very_often_stays_small() -> None:
    seen = [Seen(f"job-{number}", "h", None, [OpenPort(80)]) for number in range(500)]
    [host] = join(seen, [])
    assert (len(host.scans), len(host.ports)) == (SCANS_SHOWN_MAX, 1)


def test_threats_come_with_their_hosts_and_the_worst_first() -> None:
    known = {"A": Threat("A", "low", "a"), "B": Threat("B", "critical", "b"), "C": Threat("C", "low", "c")}
    hosts = [(f"127.0.0.{number}", ["A", "B"] if number == 3 else ["A"]) for number in range(1, 200)]
    found = tally([*hosts, ("127.0.1.1", ["C"])], known)
    assert [(one.threat_id, one.host_count) for one in found] == [("B", 1), ("A", 199), ("C", 1)]
    assert found[1].hosts == [f"127.0.0.{number}" for number in range(1, HOSTS_SHOWN_MAX + 1)]


def test_only_services_that_should_not_be_reachable_are_threats_by_themselves() -> None:
    assert exposure(OpenPort(23, service="Telnet")) == "EXPOSED-TELNET"
    assert [exposure(OpenPort(1, service=name)) for name in (None, "ssh", "https")] == [None, None, None]


def test_results_go_into_the_graph_as_the_scan_they_are() -> None:
    nasty = 'OpenSSH <9.6> & "co" \x00\x1b'
    rows = [
        TargetRow("db.example.org", "scanned", "127.0.0.2", is_up=True, ports=[OpenPort(22, "tcp", "ssh", nasty, "9")]),
        TargetRow("::1", "scanned", "::1", is_up=True, ports=[]),
        TargetRow("127.0.0.3", "scanned", "127.0.0.3", is_up=False),
        TargetRow("127.0.0.4", "failed", "127.0.0.4", is_up=True),
    ]
    text = scan_text(rows)
    assert text is not None
    scan = parse_scan(text)
    assert set(scan.hosts) == {"127.0.0.2", "::1"}
    host = scan.hosts["127.0.0.2"]
    [port] = host.ports.values()
    assert (host.name, port.number, port.service, port.version) == ("db.example.org", 22, "ssh", "9")
    assert port.product == 'OpenSSH <9.6> & "co" ??'
    assert scan_text(rows[2:]) is None
