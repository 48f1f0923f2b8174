"""A real `holdfast serve`, seen from outside: by addresses, files and what it says."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.cli.support import ANY_PORTS, COMMAND, PATIENCE_S, environment, run
from tests.support.restate_server import REPOSITORY

APP = "tests.ingress.sample_app:app"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Running:
    ingress_url: str
    admin_url: str
    db: Path
    log_path: Path
    pid: int

    def ingress(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> Answer:
        """Ask the ingress. `x_y` is header `x-y`; a body is JSON."""
        return ask(self.ingress_url, method, path, body, headers)

    def admin(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> Answer:
        return ask(self.admin_url, method, path, body, headers)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def files(self) -> list[Path]:
        """Everything it has on disk."""
        return sorted(self.db.parent.glob(self.db.name + "*"))


def ask(
    url: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str], ca: Path | None = None
) -> Answer:
    """One request on a connection of its own, with the headers as they are."""
    address = urlsplit(url)
    if address.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(address.netloc, timeout=PATIENCE_S, context=context)
    else:
        connection = http.client.HTTPConnection(address.netloc, timeout=PATIENCE_S)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        named = {"content-type": "application/json"} | named
    try:
        connection.putrequest(method, path, skip_host="host" in named, skip_accept_encoding=True)
        for name, value in named.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@contextmanager
def serving(
    folder: Path, *flags: str, settings: Mapping[str, str] | None = None, umask: int = 0o022
) -> Iterator[Running]:
    """Start the command in `folder`, on free ports; killed at the end, because nothing of it is needed any more."""
    db, log_path = folder / "app.db", folder / "log.txt"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", APP, "--db", str(db), *ANY_PORTS, "--json", *flags],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=REPOSITORY,
            env=environment(settings),
            umask=umask,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log_path.read_text()
        said = json.loads(line)
        yield Running(said["ingress_url"], said["admin_url"], db, log_path, process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def token(folder: Path, scope: str, *flags: str) -> str:
    """Make a token with the command, as an operator does; its secret."""
    made = run("tokens", "create", "--scope", scope, "--db", str(folder / "app.db"), *flags)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)  # between two looks


def listening_ports(pid: int) -> set[str]:
    """Addresses that a process listens on, from the system's own tables (Linux)."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found
