"""Small KBO extracts made by hand, and a web server that hands them out when the test says so."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_HEADERS = {
    "meta": '"Variable","Value"',
    "code": '"Category","Code","Language","Description"',
    "enterprise": (
        '"EnterpriseNumber","Status","JuridicalSituation","TypeOfEnterprise","JuridicalForm","JuridicalFormCAC","StartDate"'
    ),
    "establishment": '"EstablishmentNumber","StartDate","EnterpriseNumber"',
    "denomination": '"EntityNumber","Language","TypeOfDenomination","Denomination"',
    "address": (
        '"EntityNumber","TypeOfAddress","CountryNL","CountryFR","Zipcode","MunicipalityNL","MunicipalityFR",'
        '"StreetNL","StreetFR","HouseNumber","Box","ExtraAddressInfo","DateStrikingOff"'
    ),
    "contact": '"EntityNumber","EntityContact","ContactType","Value"',
    "activity": '"EntityNumber","ActivityGroup","NaceVersion","NaceCode","Classification"',
    "branch": '"Id","StartDate","EnterpriseNumber"',
}


def enterprise_number(index: int) -> str:
    """The index-th number, with its check digits: `0400.000.015` for 0."""
    eight = 4_000_000 + index
    digits = f"0{eight:07d}{97 - eight % 97:02d}"
    return f"{digits[:4]}.{digits[4:7]}.{digits[7:]}"


def full_extract(folder: Path, number: int, *, enterprises: int = 3, broken_file: str | None = None) -> Path:
    """A full extract of named enterprises.

    Args:
        broken_file: A table whose file has a header that is none.
    """
    names = [enterprise_number(index) for index in range(enterprises)]
    meta = {
        "SnapshotDate": "11-10-2025",
        "ExtractTimestamp": "12-10-2025 05:00:00",
        "ExtractType": "full",
        "ExtractNumber": str(number),
        "Version": "1.0.0",
    }
    lines = {
        "meta": [f'"{name}","{value}"' for name, value in meta.items()],
        "code": ['"TypeOfDenomination","001","NL","Naam"', '"TypeOfDenomination","001","FR","Nom"'],
        "enterprise": [f'"{each}","AC","000","2","014",,01-02-1990' for each in names],
        "denomination": [f'"{each}","2","001","Bedrijf {each}"' for each in names],
    }
    target = folder / f"KboOpenData_{number:04d}_2025_10_12_Full.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, header in _HEADERS.items():
            first = "this is no header" if name == broken_file else header
            archive.writestr(f"{name}.csv", "\n".join([first, *lines.get(name, [])]) + "\n")
    return target


@dataclass
class Gate:
    """A web server for one folder. A name in `held` is answered when it is released."""

    url: str
    held: dict[str, threading.Event] = field(default_factory=dict[str, threading.Event])
    asked: list[str] = field(default_factory=list[str])

    def hold(self, path: Path) -> str:
        """Its address; requests for it wait for `release`."""
        self.held[path.name] = threading.Event()
        return f"{self.url}/{path.name}"

    def release(self, path: Path) -> None:
        self.held[path.name].set()


@contextmanager
def serving(folder: Path) -> Iterator[Gate]:
    """Serve the files of a folder over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(is_head=True)

        def do_GET(self) -> None:
            self._answer(is_head=False)

        def _answer(self, *, is_head: bool) -> None:
            name = self.path.partition("?")[0].rsplit("/", 1)[-1]
            gate.asked.append(name)
            if name in gate.held:
                gate.held[name].wait(60)
            path = folder / name
            body = path.read_bytes() if path.is_file() else b"no such file"
            self.send_response(200 if path.is_file() else 404)
            self.send_header("content-length", str(len(body)))
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked was cancelled meanwhile
                self.end_headers()
                if not is_head:
                    self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gate = Gate(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        for event in gate.held.values():
            event.set()
        server.shutdown()
        thread.join()
        server.server_close()
