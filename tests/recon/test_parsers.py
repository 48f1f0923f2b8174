"""Scanner output: real files of three scanners, every dialect seen in the wild, and what cannot be used."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.recon.batches import HOSTS_MAX, PORTS_MAX, cut
from apps.recon.demo_tally import count
from apps.recon.generator import naabu_scan
from apps.recon.model import Host, Port, Scan
from apps.recon.parsers import ScanRejected, parse_scan

DATA = Path(__file__).resolve().parents[2] / "apps" / "recon" / "data"

# name -> format, {address: "protocol/number ..."}; read off the files with grep, not with the parser.
FILES: dict[str, tuple[str, dict[str, str]]] = {
    "naabu/defectdojo_naabu_many.jsonl": ("naabu", {"172.29.0.3": "tcp/80 tcp/3000 tcp/8080 tcp/8443"}),
    "naabu/defectdojo_naabu_one.jsonl": ("naabu", {"172.29.0.3": "tcp/80"}),
    "naabu/pd_readme_current_ip_port.jsonl": ("naabu", {"104.16.99.52": "tcp/80 tcp/443"}),
    "naabu/pd_readme_host_ip_port.jsonl": ("naabu", {"104.16.99.52": "tcp/80 tcp/443 tcp/8080 tcp/8443"}),
    "naabu/pd_readme_old_host_port.jsonl": ("naabu", {"hackerone.com": "tcp/80 tcp/443 tcp/8080 tcp/8443"}),
    "masscan/defectdojo_masscan_many.json": ("masscan", {"172.29.0.3": "tcp/80 tcp/3000 tcp/8080 tcp/8443"}),
    "masscan/defectdojo_masscan_one.json": ("masscan", {"172.29.0.3": "tcp/80"}),
    "nmap/defectdojo_nmap_v6.40.xml": ("nmap", {"127.0.0.1": "tcp/111 tcp/2049 tcp/5432"}),
    "nmap/libnmap_1_hosts_banner_ports.xml": ("nmap", {"127.0.0.1": "tcp/22 tcp/25"}),
    "nmap/libnmap_1_os_banner_scripts.xml": (
        "nmap",
        {"127.0.0.1": "tcp/22 tcp/25 tcp/80 tcp/111 tcp/631 tcp/3306 tcp/8009 tcp/8080"},
    ),
    "nmap/libnmap_2_hosts.xml": (
        "nmap",
        {"127.0.0.1": "tcp/22 tcp/25 tcp/111 tcp/631 tcp/3306", "74.207.244.221": "tcp/22 tcp/80 tcp/9929"},
    ),
    "nmap/libnmap_2_hosts_version.xml": (
        "nmap",
        {"127.0.0.1": "tcp/22 tcp/25 tcp/111 tcp/631 tcp/3306", "74.207.244.221": "tcp/22 tcp/80 tcp/9929"},
    ),
    "nmap/libnmap_2_null_hosts.xml": ("nmap", {"127.0.0.1": "", "74.207.244.221": ""}),
    "nmap/libnmap_dionaea_scan.xml": (
        "nmap",
        {
            "172.28.1.3": "tcp/21 tcp/23 tcp/42 tcp/53 tcp/80 tcp/135 tcp/443 tcp/445 tcp/1433 tcp/1723 tcp/1883 "
            "tcp/3306 tcp/5060 tcp/9100 tcp/11211 tcp/27017"
        },
    ),
    "nmap/libnmap_fullscan.xml": (
        "nmap",
        {
            "192.168.1.1": "tcp/23 tcp/80 tcp/443 tcp/992 tcp/8080 tcp/8443",
            "192.168.1.4": "tcp/22 tcp/80 tcp/111",
        },
    ),
    "nmap/ullaakut_scan_base.xml": ("nmap", {"66.35.250.168": "tcp/80"}),
}


def shown(scan: Scan) -> dict[str, str]:
    return {host.address: " ".join(f"{p}/{n}" for p, n in sorted(host.ports)) for host in scan.hosts.values()}


def lines(*records: object) -> str:
    return "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records)


@pytest.mark.parametrize("name", FILES)
def test_a_real_file(name: str):
    format_, hosts = FILES[name]
    scan = parse_scan((DATA / name).read_text())
    assert (scan.format, shown(scan), scan.skipped_count) == (format_, hosts, 0)


def test_every_real_file_is_in_the_table_but_the_one_without_ports():
    present = {
        f"{path.parent.name}/{path.name}" for tool in ("masscan", "naabu", "nmap") for path in DATA.glob(f"{tool}/*")
    }
    assert present - FILES.keys() == {"naabu/pd_readme_typo_ip_is_port.jsonl"}
    with pytest.raises(ScanRejected, match=r"^no valid hosts \(4 entries could not be used\)$"):
        parse_scan((DATA / "naabu" / "pd_readme_typo_ip_is_port.jsonl").read_text())


def test_two_scanners_agree_on_the_host_they_both_saw():
    naabu = parse_scan((DATA / "naabu" / "defectdojo_naabu_many.jsonl").read_text())
    masscan = parse_scan((DATA / "masscan" / "defectdojo_masscan_many.json").read_text())
    assert naabu.hosts == masscan.hosts


@pytest.mark.parametrize("name", [*FILES, "naabu/pd_readme_typo_ip_is_port.jsonl"])
def test_the_demos_independent_count_agrees(name: str):
    text = (DATA / name).read_text()
    tally = count(text)
    try:
        scan = parse_scan(text)
    except ScanRejected:
        assert not tally.hosts
        assert not tally.ports
        return
    assert tally.hosts == scan.hosts.keys()
    assert tally.ports == {(host.address, *key) for host in scan.hosts.values() for key in host.ports}


def test_versions_are_kept():
    scan = parse_scan((DATA / "nmap" / "libnmap_fullscan.xml").read_text())
    assert scan.hosts["192.168.1.4"].ports["tcp", 22] == Port(
        "tcp",
        22,
        "ssh",
        "OpenSSH",
        "5.9p1 Debian 5ubuntu1",
        cpes=("cpe:/a:openbsd:openssh:5.9p1", "cpe:/o:linux:linux_kernel"),
    )
    assert scan.hosts["192.168.1.4"].ports["tcp", 80] == Port(
        "tcp", 80, "http", "Apache httpd", "2.2.22", cpes=("cpe:/a:apache:http_server:2.2.22",)
    )


HOST = {"host": "a.example", "ip": "192.0.2.1"}

# what -> text, {address: ports}, skipped
JSON_DIALECTS: dict[str, tuple[str, dict[str, str], int]] = {
    "address only": (lines({"ip": "192.0.2.1", "port": 80}), {"192.0.2.1": "tcp/80"}, 0),
    "address as host": (lines({"host": "192.0.2.1", "port": 80}), {"192.0.2.1": "tcp/80"}, 0),
    "empty host": (lines({"host": "", "ip": "192.0.2.1", "port": 80}), {"192.0.2.1": "tcp/80"}, 0),
    "name only": (lines({"host": "A.Example.", "port": 80}), {"a.example": "tcp/80"}, 0),
    "a name with two addresses": (
        lines(HOST | {"port": 80}, HOST | {"ip": "192.0.2.2", "port": 80}),
        {"192.0.2.1": "tcp/80", "192.0.2.2": "tcp/80"},
        0,
    ),
    "IPv6 in another spelling": (lines({"ip": "2001:DB8:0:0::1", "port": 80}), {"2001:db8::1": "tcp/80"}, 0),
    "udp": (lines(HOST | {"port": 53, "protocol": "udp"}), {"192.0.2.1": "udp/53"}, 0),
    "UDP": (lines(HOST | {"port": 53, "protocol": "UDP"}), {"192.0.2.1": "udp/53"}, 0),
    "one number, two protocols": (
        lines(HOST | {"port": 53, "protocol": "udp"}, HOST | {"port": 53}),
        {"192.0.2.1": "tcp/53 udp/53"},
        0,
    ),
    "port as text": (lines(HOST | {"port": "80"}), {"192.0.2.1": "tcp/80"}, 0),
    # The next five forms are made by hand; no published file has them.
    "port as object": (lines(HOST | {"port": {"Port": 443, "Protocol": "tcp"}}), {"192.0.2.1": "tcp/443"}, 0),
    "port as object, protocol a number": (
        lines(HOST | {"port": {"Port": 443, "Protocol": 0}}, HOST | {"port": {"Port": 53, "Protocol": 1}}),
        {"192.0.2.1": "tcp/443 udp/53"},
        0,
    ),
    "log lines in between": (
        lines("[INF] Running CONNECT scan", HOST | {"port": 80}, "[\x1b[34mINF\x1b[0m] Found 1 port", "[DBG] x"),
        {"192.0.2.1": "tcp/80"},
        0,
    ),
    "Windows line ends and a byte order mark": (
        "\ufeff" + lines(HOST | {"port": 80}, HOST | {"port": 81}).replace("\n", "\r\n") + "\r\n\r\n",
        {"192.0.2.1": "tcp/80 tcp/81"},
        0,
    ),
    "lines collected into an array": (
        json.dumps([HOST | {"port": 80}, HOST | {"port": 81}]),
        {"192.0.2.1": "tcp/80 tcp/81"},
        0,
    ),
    "masscan with a comma behind the last": (
        (
            '[\n{"ip":"192.0.2.1","timestamp":"1","ports":[{"port":80,"proto":"tcp","status":"open"}]},\n'
            '{"ip":"192.0.2.1","timestamp":"1","ports":[{"port":81,"proto":"udp","status":"open"}]},\n]\n'
        ),
        {"192.0.2.1": "tcp/80 udp/81"},
        0,
    ),
    "masscan with its finishing line": (
        '[\n{"ip":"192.0.2.1","ports":[{"port":80,"proto":"tcp","status":"open"}]},\n{finished: 1}\n]\n',
        {"192.0.2.1": "tcp/80"},
        0,
    ),
    "masscan, one element per line": (
        '{"ip":"192.0.2.1","ports":[{"port":80}]}\n{"ip":"192.0.2.2","ports":[{"port":80},{"port":81}]}\n',
        {"192.0.2.1": "tcp/80", "192.0.2.2": "tcp/80 tcp/81"},
        0,
    ),
    "masscan cut off": (
        '[\n{"ip":"192.0.2.1","ports":[{"port":80}]}\n,\n{"ip":"192.0.2.2","por',
        {"192.0.2.1": "tcp/80"},
        1,
    ),
    "masscan, a closed port": (
        '[{"ip":"192.0.2.1","ports":[{"port":80,"status":"closed"},{"port":81,"status":"open"}]}]',
        {"192.0.2.1": "tcp/81"},
        0,
    ),
}

GOOD = json.dumps({"ip": "192.0.2.1", "port": 80})
SKIPPED = {
    "malformed": '{"ip":"192.0.2.9","port":',
    "not an object": "[1, 2]",
    "a bare word": "hello",
    "no host": '{"port":80}',
    "no port": '{"ip":"192.0.2.9"}',
    "the port in the place of the address": '{"host":"a.example","ip":8443}',
    "port 0": '{"ip":"192.0.2.9","port":0}',
    "port 65536": '{"ip":"192.0.2.9","port":65536}',
    "port -1": '{"ip":"192.0.2.9","port":-1}',
    "port 1.5": '{"ip":"192.0.2.9","port":1.5}',
    "port true": '{"ip":"192.0.2.9","port":true}',
    "port null": '{"ip":"192.0.2.9","port":null}',
    "port as superscript": '{"ip":"192.0.2.9","port":"\u00b2"}',
    "port object with a list": '{"ip":"192.0.2.9","port":{"Port":[80],"Protocol":{}}}',
    "sctp": '{"ip":"192.0.2.9","port":80,"protocol":"sctp"}',
    "protocol a list": '{"ip":"192.0.2.9","port":80,"protocol":["tcp"]}',
    "no such address, no such name": '{"host":"a b","ip":"192.0.2.999","port":80}',
    "an address with a zone": '{"ip":"fe80::1%eth0","port":80}',
    "a name with SurrealQL in it": '{"host":"x\' OR 1; REMOVE TABLE host","port":80}',
    "nested too deeply": "[" * 100_000,
}


@pytest.mark.parametrize(("text", "hosts", "skipped"), JSON_DIALECTS.values(), ids=JSON_DIALECTS)
def test_a_dialect(text: str, hosts: dict[str, str], skipped: int):
    scan = parse_scan(text)
    assert (shown(scan), scan.skipped_count) == (hosts, skipped)


@pytest.mark.parametrize("line", SKIPPED.values(), ids=SKIPPED)
def test_an_unusable_line_is_skipped_and_counted_and_the_others_stay(line: str):
    scan = parse_scan(f"{line}\n{GOOD}\n")
    assert (shown(scan), scan.skipped_count) == ({"192.0.2.1": "tcp/80"}, 1)


@pytest.mark.parametrize("text", ["", " \n\t\n", "[]", "{}", "null", "[INF] nothing found\n", "[\n]\n", "\ufeff"])
def test_nothing_usable_is_an_error(text: str):
    with pytest.raises(ScanRejected, match=r"^no valid hosts"):
        parse_scan(text)


def test_free_text_is_shortened_and_can_be_stored():
    service = {"name": "\ud800" + "x" * 1000}
    scan = parse_scan(json.dumps([{"ip": "192.0.2.1", "ports": [{"port": 80, "service": service}]}]))
    stored = scan.hosts["192.0.2.1"].ports["tcp", 80].service
    assert stored == "?" + "x" * 255


def test_null_bytes_which_masscan_writes_for_binary_greetings_become_question_marks():
    """The database would take them in no key, and give back no row that has one."""
    service = {"name": "my\0sql", "banner": "J\0\0\0\n5.7.16"}
    scan = parse_scan(json.dumps([{"ip": "192.0.2.1", "ports": [{"port": 3306, "service": service}]}]))
    port = scan.hosts["192.0.2.1"].ports["tcp", 3306]
    assert (port.service, port.banner) == ("my?sql", "J???\n5.7.16")


def nmap(body: str, prolog: str = '<?xml version="1.0"?>') -> str:
    return f"{prolog}<nmaprun>{body}</nmaprun>"


NMAP_HOST = (
    '<host><status state="{state}"/><address addr="{address}" addrtype="{kind}"/>'
    '<ports><port protocol="{protocol}" portid="{number}"><state state="{open}"/></port></ports></host>'
)


def nmap_host(**changes: str) -> str:
    given = {"state": "up", "address": "192.0.2.1", "kind": "ipv4", "protocol": "tcp", "number": "80", "open": "open"}
    return NMAP_HOST.format(**given | changes)


NMAP_CASES: dict[str, tuple[str, dict[str, str], int]] = {
    "an open port": (nmap_host(), {"192.0.2.1": "tcp/80"}, 0),
    "IPv6": (nmap_host(address="2001:DB8::1", kind="ipv6"), {"2001:db8::1": "tcp/80"}, 0),
    "closed": (nmap_host(open="closed"), {"192.0.2.1": ""}, 0),
    "perhaps open": (nmap_host(open="open|filtered"), {"192.0.2.1": ""}, 0),
    "a host that is down": (nmap_host() + nmap_host(address="192.0.2.2", state="down"), {"192.0.2.1": "tcp/80"}, 0),
    "a hardware address only": (
        nmap_host() + nmap_host(address="02:00:00:00:00:01", kind="mac"),
        {"192.0.2.1": "tcp/80"},
        1,
    ),
    "sctp": (
        nmap_host() + nmap_host(address="192.0.2.2", protocol="sctp"),
        {"192.0.2.1": "tcp/80", "192.0.2.2": ""},
        1,
    ),
    "the same host twice": (nmap_host() + nmap_host(number="81"), {"192.0.2.1": "tcp/80 tcp/81"}, 0),
}


@pytest.mark.parametrize(("body", "hosts", "skipped"), NMAP_CASES.values(), ids=NMAP_CASES)
def test_nmap(body: str, hosts: dict[str, str], skipped: int):
    scan = parse_scan(nmap(body))
    assert (shown(scan), scan.skipped_count) == (hosts, skipped)


PROLOGS = {
    "none": "",
    "declared as Latin-1, though it is text by now": '<?xml version="1.0" encoding="ISO-8859-1"?>',
    "stylesheet": '<?xml version="1.0"?>\n<?xml-stylesheet href="file:///etc/passwd" type="text/xsl"?>',
    "doctype": '<?xml version="1.0"?>\n<!DOCTYPE nmaprun>\n<!-- Nmap -->',
}


@pytest.mark.parametrize("prolog", PROLOGS.values(), ids=PROLOGS)
def test_what_stands_before_a_genuine_report(prolog: str):
    assert shown(parse_scan(nmap(nmap_host(), prolog))) == {"192.0.2.1": "tcp/80"}


BOMB = (
    '<!DOCTYPE nmaprun [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)
REFUSED_XML = {
    "a bomb of entities": (nmap("&i;", BOMB), "entities"),
    "an entity nobody uses": (nmap(nmap_host(), '<!DOCTYPE nmaprun [<!ENTITY a "x">]>'), "entities"),
    "an entity from a file": (nmap("&a;", '<!DOCTYPE nmaprun [<!ENTITY a SYSTEM "file:///etc/passwd">]>'), "entities"),
    "cut off": (nmap(nmap_host())[:-5], "broken"),
    "another root": ("<html></html>", "root is <html>"),
    "no XML": ("<", "broken"),
    "a root with a name as long as the file": (f"<{'a' * 100_000}/>", r"root is <a{100} \.\.\.>"),
    "an unknown entity as long as the file": (
        nmap(f"&{'a' * 100_000};", '<!DOCTYPE nmaprun SYSTEM "nmap.dtd">'),
        r"undefined entity &a{1,100} \.\.\.$",
    ),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED_XML.values(), ids=REFUSED_XML)
def test_refused_xml(text: str, reason: str):
    with pytest.raises(ScanRejected, match=reason):
        parse_scan(text)


def test_a_dtd_elsewhere_is_not_fetched():
    """nmap itself has written a DOCTYPE with a web address in it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/nmap.dtd"
        prolog = f'<!DOCTYPE nmaprun PUBLIC "-//IDN nmap.org//DTD Nmap XML 1.04//EN" "{address}">'
        assert shown(parse_scan(nmap(nmap_host(), prolog))) == {"192.0.2.1": "tcp/80"}
        with pytest.raises(BlockingIOError):
            listener.accept()


@settings(deadline=None)
@given(st.text(max_size=300) | st.text(st.sampled_from('[]{}",:\n <>?!-&;01abipport'), max_size=300))
def test_no_text_makes_the_parser_fail_in_another_way(text: str):
    try:
        scan = parse_scan(text)
    except ScanRejected:
        return
    assert scan.hosts


@pytest.mark.parametrize("seed", range(5))
def test_a_generated_scan_holds_what_it_should(seed: int):
    text = naabu_scan(f"{seed}", 200)
    assert text == naabu_scan(f"{seed}", 200)
    scan, tally = parse_scan(text), count(text)
    assert (len(scan.hosts), scan.skipped_count) == (200, 0)
    assert {(host.address, *key) for host in scan.hosts.values() for key in host.ports} == tally.ports
    assert len(text.splitlines()) > len(tally.ports) + 2  # repeated lines and log lines are in it


def made_up_scan(port_counts: list[int]) -> Scan:
    hosts: dict[str, Host] = {}
    for index, port_count in enumerate(port_counts):
        address = f"10.0.{index >> 8}.{index & 255}"
        ports = {("tcp", number): Port("tcp", number) for number in range(1, port_count + 1)}
        hosts[address] = Host(address, address, None, ports)
    return Scan("naabu", hosts)


CUTS = {
    "nothing open": [0],
    "exactly one batch of hosts": [1] * HOSTS_MAX,
    "one host more": [1] * (HOSTS_MAX + 1),
    "exactly one batch of ports": [PORTS_MAX],
    "one port more": [PORTS_MAX + 1],
    "all ports of a host": [65535, 1],
    "mixed": random.Random(1).choices([0, 1, 5, 400, 1500], k=300),
}


@pytest.mark.parametrize("port_counts", CUTS.values(), ids=CUTS)
def test_batches_are_bounded_and_hold_everything_once(port_counts: list[int]):
    scan = made_up_scan(port_counts)
    batches = list(cut(scan))
    assert all(batch.hosts and len(batch.hosts) <= HOSTS_MAX and len(batch.ports) <= PORTS_MAX for batch in batches)
    rows = [row.id for batch in batches for row in batch.ports]
    assert len(rows) == len(set(rows)) == scan.port_count
    assert sum(batch.host_count for batch in batches) == len(scan.hosts)
    # Every port's host is in the same batch: the edge needs both ends.
    assert all({row.id[0] for row in batch.ports} <= {row.id for row in batch.hosts} for batch in batches)
