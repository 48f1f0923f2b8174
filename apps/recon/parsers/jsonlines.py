"""naabu and masscan output: JSON, though seldom quite.

naabu writes one object per line; captured terminal output has log lines in between, and old versions wrote `port` as an
object. masscan writes an array, but some versions leave a comma behind the last element or end with `{finished: 1}`,
which no JSON parser takes. So the text is tried as one JSON value first and read line by line otherwise; an element is
masscan's if it has a list of `ports`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, cast

from apps.recon.model import Scan
from apps.recon.parsers.evidence import read_banner
from apps.recon.parsers.hosts import Gathered, add_port, read_port

_LOG_LINE = re.compile(r"\[\s*(INF|DBG|WRN|ERR|FTL|VER|TRC)\s*\]")
_FINISHED = re.compile(r"\{\s*\"?finished\"?\s*:\s*\d+\s*\}")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def parse_json_scan(text: str) -> Scan:
    """Parse naabu or masscan output. Never raises; what cannot be used is counted."""
    gathered = Gathered()
    is_masscan = False
    for record in _records(text):
        ports = record.get("ports") if record is not None else None
        if record is None:
            gathered.skip()
        elif isinstance(ports, list):
            is_masscan = True
            _masscan(gathered, record, cast(list[Any], ports))
        else:
            _naabu(gathered, record)
    return gathered.scan("masscan" if is_masscan else "naabu")


def _records(text: str) -> Iterable[dict[str, Any] | None]:
    """Each element; None for one that is no object or does not parse."""
    try:
        whole: Any = json.loads(text)
    except (ValueError, RecursionError):
        yield from _lines(text)
        return
    for element in cast(list[Any], whole if isinstance(whole, list) else [whole]):
        yield cast(dict[str, Any], element) if isinstance(element, dict) else None


def _lines(text: str) -> Iterable[dict[str, Any] | None]:
    for raw in text.split("\n"):  # not splitlines(): a JSON string may hold other line ends, U+2028 for one
        line = raw.strip()
        if _LOG_LINE.match(_COLOUR.sub("", line)):
            continue
        line = _without_brackets(line)
        if not line or _FINISHED.fullmatch(line):
            continue
        try:
            element: Any = json.loads(line)
        except (ValueError, RecursionError):
            element = None
        yield cast(dict[str, Any], element) if isinstance(element, dict) else None


def _without_brackets(line: str) -> str:
    """Drop what is left of an array around and between the elements of masscan's output."""
    if line[:1] in ("[", ","):
        line = line[1:].lstrip()
    if line[-1:] in ("]", ","):
        line = line[:-1].rstrip()
    return line


def _naabu(gathered: Gathered, record: dict[str, Any]) -> None:
    number, protocol = record.get("port"), record.get("protocol")
    if isinstance(number, dict):  # old versions: {"Port": 443, "Protocol": "tcp"}, or 0 and 1 for tcp and udp
        old = cast(dict[str, Any], number)
        number = old.get("Port", old.get("port"))
        protocol = protocol or old.get("Protocol") or "tcp"
        protocol = "udp" if protocol == 1 else protocol
    port = read_port(number, protocol)
    host = gathered.host(record.get("ip"), record.get("host")) if port is not None else None
    if port is None or host is None:
        gathered.skip()
    else:
        add_port(host, port)


def _masscan(gathered: Gathered, record: dict[str, Any], ports: list[Any]) -> None:
    for element in ports:
        entry = cast(dict[str, Any], element) if isinstance(element, dict) else {}
        if entry.get("status", "open") != "open":
            continue  # a well-formed answer that says "closed": nothing to keep, nothing wrong
        service: Any = entry.get("service")
        told = cast(dict[str, Any], service) if isinstance(service, dict) else {}
        port = read_port(
            entry.get("port"),
            entry.get("proto"),
            _string(told.get("name")),
            banner=read_banner(_string(told.get("banner"))),
        )
        host = gathered.host(record.get("ip"), None) if port is not None else None
        if port is None or host is None:
            gathered.skip()
        else:
            add_port(host, port)


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
