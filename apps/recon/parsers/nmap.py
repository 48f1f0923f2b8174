"""nmap's XML output.

The file comes from outside, so it is read with defusedxml: a DOCTYPE and an `xml-stylesheet` line are in genuine files
and are passed over without fetching what they refer to; an entity declaration refuses the whole file.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from apps.recon.model import Host, Scan
from apps.recon.parsers.errors import ScanRejected
from apps.recon.parsers.evidence import read_banner, read_certificate
from apps.recon.parsers.hosts import Gathered, add_port, read_port


def parse_nmap(text: str) -> Scan:
    """Parse an `nmap -oX` report: hosts that are up, and their open ports (`open|filtered` is not open).

    Raises:
        ScanRejected: not well-formed, not nmap's, or with entities or external references.
    """
    gathered = Gathered()
    try:
        # As bytes: a file that declares another encoding than the text now has would otherwise be refused.
        # Element by element: the whole tree of a large report takes fifteen times the memory of its text.
        elements: Any = ElementTree.iterparse(
            BytesIO(_without_declaration(text).encode()),
            events=("start", "end"),
            forbid_dtd=False,
            forbid_entities=True,
            forbid_external=True,
        )
        root: Any = None
        for event, element in elements:
            if root is None:
                root = element
                _check_root(root)
            elif event == "end" and element.tag == "host":
                _host(gathered, element)
                root.clear()
    except DefusedXmlException as error:
        raise ScanRejected("the XML declares entities, which no nmap report does") from error
    except ParseError as error:
        raise ScanRejected(f"the XML is broken: {_shortened(str(error))}") from error
    return gathered.scan("nmap")


def _check_root(root: Any) -> None:
    if root.tag != "nmaprun":
        raise ScanRejected(f"the XML is not an nmap report: its root is <{_shortened(root.tag)}>, not <nmaprun>")


def _shortened(text: str) -> str:
    """A name can be as long as the whole file, and what is wrong with it goes into the job's row and the journal."""
    return text if len(text) <= 100 else f"{text[:100]} ..."


def _without_declaration(text: str) -> str:
    return text.partition("?>")[2].lstrip() if text.startswith("<?xml ") else text


def _host(gathered: Gathered, element: Any) -> None:
    status = element.find("status")
    if status is not None and status.get("state") != "up":
        return
    addresses = {entry.get("addrtype"): entry.get("addr") for entry in element.iter("address")}
    name = element.find("hostnames/hostname")
    host = gathered.host(addresses.get("ipv4") or addresses.get("ipv6"), name.get("name") if name is not None else None)
    if host is None:
        gathered.skip()
        return
    for port in element.iterfind("ports/port"):
        _port(gathered, host, port)


def _port(gathered: Gathered, host: Host, element: Any) -> None:
    state = element.find("state")
    if state is None or state.get("state") != "open":
        return
    service = element.find("service")
    known: dict[str, str] = service.attrib if service is not None else {}
    said = {script.get("id"): script.get("output") for script in element.iterfind("script")}
    port = read_port(
        element.get("portid"),
        element.get("protocol"),
        known.get("name"),
        known.get("product"),
        known.get("version"),
        banner=read_banner(said.get("banner")),
        certificate=read_certificate(said.get("ssl-cert")),
        cpes=[cpe.text for cpe in element.iterfind("service/cpe")],
    )
    if port is None:
        gathered.skip()
    else:
        add_port(host, port)
