"""The scanners against real listeners on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from datetime import timedelta
from pathlib import Path

import pytest

from apps.recon.campaigns.scanners import (
    NmapScanner,
    ScanFailed,
    ScannerMissing,
    ScanTimedOut,
    TcpScanner,
    nmap,
)
from apps.recon.campaigns.scanners.nmap import command, read_report
from apps.recon.campaigns.scanners.tcp import PORTS_AT_A_TIME, name_service
from tests.recon.campaigns.world import listening

BANNERS = timedelta(seconds=2)


async def test_open_ports_are_found_and_closed_ones_are_not() -> None:
    async with listening("127.0.0.2") as one, listening("127.0.0.2") as other:
        found = await TcpScanner().scan("127.0.0.2", [other, 9, one, one], limit_s=10)
    assert [port.number for port in found.ports] == sorted([one, other])
    assert found.is_up


async def test_a_host_that_only_refuses_is_up() -> None:
    found = await TcpScanner().scan("127.0.0.2", [9], limit_s=10)
    assert (found.is_up, found.ports) == (True, [])


async def test_it_works_over_ipv6() -> None:
    async with listening("::1") as port:
        found = await TcpScanner().scan("::1", [port], limit_s=10)
    assert [one.number for one in found.ports] == [port]


async def test_a_greeting_tells_the_service_and_cannot_harm_a_terminal() -> None:
    async with listening("127.0.0.2", greeting=b"SSH-2.0-OpenSSH_9.6\x1b[2J\x00\r\n") as port:
        found = await TcpScanner(banner_timeout=BANNERS).scan("127.0.0.2", [port], limit_s=10)
        silent = await TcpScanner().scan("127.0.0.2", [port], limit_s=10)
    assert (found.ports[0].service, found.ports[0].banner) == ("ssh", "SSH-2.0-OpenSSH_9.6 [2J")
    assert silent.ports[0].banner is None


async def test_who_waits_for_us_to_speak_has_no_greeting() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    found = await TcpScanner(banner_timeout=timedelta(milliseconds=50)).scan("127.0.0.2", [port], limit_s=10)
    server.close()
    await server.wait_closed()
    assert [(one.number, one.banner) for one in found.ports] == [(port, None)]


async def test_many_ports_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running = most = 0
    connect = asyncio.open_connection

    async def counted(host: str, port: int) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await connect(host, port)
        finally:
            running -= 1

    monkeypatch.setattr(asyncio, "open_connection", counted)
    await TcpScanner().scan("127.0.0.2", range(1, 201), limit_s=20)
    assert 1 < most <= PORTS_AT_A_TIME


async def test_a_target_has_so_much_time_and_no_more() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    began_s = time.monotonic()
    with pytest.raises(ScanTimedOut, match="took longer"):
        await TcpScanner(banner_timeout=timedelta(seconds=60)).scan("127.0.0.2", [port], limit_s=0.2)
    assert time.monotonic() - began_s < 10
    server.close()
    await server.wait_closed()


def test_services_are_named_by_greeting_before_port() -> None:
    assert name_service(2222, b"SSH-2.0-x") == "ssh"
    assert name_service(80, b"SSH-2.0-x") == "ssh"
    assert (name_service(80, b""), name_service(4711, b"")) == ("http", None)


# -- nmap ------------------------------------------------------------------------------------------------------------

needs_nmap = pytest.mark.skipif(shutil.which("nmap") is None, reason="nmap is not installed: apt-get install nmap")


@needs_nmap
async def test_nmap_finds_what_is_open() -> None:
    async with listening("127.0.0.2", greeting=b"SSH-2.0-OpenSSH_9.6p1 Debian-1\r\n") as port:
        found = await NmapScanner().scan("127.0.0.2", [port, 9], limit_s=60)
    [ssh] = found.ports
    assert (ssh.number, ssh.protocol, ssh.service, ssh.product) == (port, "tcp", "ssh", "OpenSSH")
    assert found.is_up


@needs_nmap
async def test_nmap_says_that_a_host_refuses() -> None:
    found = await NmapScanner(with_versions=False).scan("::1", [9], limit_s=60)
    assert (found.is_up, found.ports) == (True, [])


def test_nmap_gets_a_vector_of_arguments_and_nothing_else_than_an_address() -> None:
    assert command("127.0.0.1", [80, 22, 80], with_versions=False) == [
        "-oX", "-", "-n", "-Pn", "-sT", "-p", "80,22", "127.0.0.1",
    ]  # fmt: skip
    assert command("::1", [80], with_versions=True)[-4:] == ["-sV", "--version-light", "-6", "::1"]
    for text in ("-iL/etc/passwd", "localhost", "127.0.0.1 -oN x", "127.0.0.0/8", ""):
        with pytest.raises(ValueError, match="does not appear to be"):
            command(text, [80], with_versions=False)


def program(home: Path, script: str) -> str:
    path = home / "nmap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def test_a_scanner_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ScannerMissing, match="apt-get install nmap"):
        await NmapScanner(str(tmp_path / "nmap")).scan("127.0.0.1", [9], limit_s=5)


FAILURES: dict[str, tuple[str, str]] = {
    "an exit code": ("echo trouble >&2; exit 3", "nmap ended with 3: trouble"),
    "no report": ("true", "cannot be read"),
    "half a report": ("echo '<nmaprun><host>'", "cannot be read"),
    "another program": ("echo '<html/>'", "not an nmap report"),
    "entities": ("echo '<!DOCTYPE a [<!ENTITY b \"c\">]><nmaprun>&b;</nmaprun>'", "entities"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_what_nmap_gets_wrong_is_a_failure_that_may_pass(tmp_path: Path, case: str) -> None:
    script, message = FAILURES[case]
    with pytest.raises(ScanFailed, match=message):
        await NmapScanner(program(tmp_path, script)).scan("127.0.0.1", [9], limit_s=20)


async def test_an_nmap_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 600"
    with pytest.raises(ScanTimedOut):
        await NmapScanner(program(tmp_path, script)).scan("127.0.0.1", [9], limit_s=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


ONE_OPEN_PORT = """<nmaprun><host><address addr="127.0.0.1" addrtype="ipv4"/><ports>
<port protocol="tcp" portid="9"><state state="open"/><service name="discard"/></port></ports></host></nmaprun>"""


async def test_a_service_that_does_not_say_its_version_in_time_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nmap, "VERSIONS_SHARE", 0.01)
    script = f'case "$*" in *-sV*) exec sleep 600;; esac; cat <<END\n{ONE_OPEN_PORT}\nEND'
    found = await NmapScanner(program(tmp_path, script)).scan("127.0.0.1", [9], limit_s=20)
    [port] = found.ports
    assert (port.number, port.service, port.version) == (9, "discard", None)


def test_a_report_that_is_far_too_large_is_none() -> None:
    with pytest.raises(ScanFailed, match="no report of one host"):
        read_report(b" " * (9 << 20))
