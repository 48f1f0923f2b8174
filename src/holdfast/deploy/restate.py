"""A Restate server of this machine, for development: started from its npm package, stopped, asked for.

Nothing of the server comes with holdfast. It is looked for in `RESTATE_SERVER_BIN`, in `node_modules` here and above, in
its own folder, on the PATH; if it is nowhere, npm installs it into that folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from holdfast.admin.client import http_client
from holdfast.deploy.errors import ApplyFailed, ToolMissing
from holdfast.deploy.versions import RESTATE
from holdfast.errors import CannotListen

PACKAGE = "@restatedev/restate-server"
BINARY_VARIABLE = "RESTATE_SERVER_BIN"

_STATE = "running.json"
_LOG = "server.log"
# A cold start takes half a second on two idle cores; the rest is for a loaded machine.
_START_TIMEOUT_S = 60.0
# It flushes its files; killed, it recovers from its log at the next start.
_STOP_TIMEOUT_S = 15.0
_LOOK_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that runs."""

    pid: int
    started: str
    """When the system says that the process began: a pid alone may be somebody else's by now."""
    ingress_url: str
    admin_url: str
    version: str
    folder: str
    """Its data, log and, if npm installed it, program."""


def status(folder: Path) -> LocalServer | None:
    """The server that was started in `folder` and still runs."""
    try:
        server = LocalServer(**json.loads((folder / _STATE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return server if _start_of(server.pid) == server.started else None


def up(
    folder: Path, *, ingress_port: int = 8080, admin_port: int = 9070, told: Callable[[str], None] = lambda _line: None
) -> tuple[LocalServer, bool]:
    """Start a server and wait until it answers, unless one runs already.

    Args:
        folder: Its data stays here, so that the next start goes on with it.
        ingress_port, admin_port: 0 takes a free one.
        told: Called with what takes long, before it is done.
    Returns:
        The server, and whether it was started now.
    Raises:
        ToolMissing: there is no server, and no npm to install it.
        CannotListen: a port is taken.
        ApplyFailed: npm or the server failed; its last words are in the message.
    """
    if (running := status(folder)) is not None:
        return running, False
    folder.mkdir(parents=True, exist_ok=True)
    binary = find(folder) or _install(folder, told)
    ingress, admin, node = _ports(ingress_port, admin_port, 0)
    environment = {
        "RESTATE_NODE_NAME": "local",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LISTEN_MODE": "tcp",
        **os.environ,
        "RESTATE_BASE_DIR": str((folder / "data").resolve()),
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}/",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
    }
    with (folder / _LOG).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - no shell
            [str(binary), "--no-logo"],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at the terminal is not for it
        )
    ingress_url, admin_url = f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}"
    try:
        _await(process, folder, (f"{admin_url}/health", f"{ingress_url}/restate/health"))
        server = LocalServer(
            process.pid,
            _start_of(process.pid) or "",
            ingress_url,
            admin_url,
            _version(admin_url),
            str(folder.resolve()),
        )
    except BaseException:
        process.kill()
        process.wait()
        raise
    (folder / _STATE).write_text(json.dumps(asdict(server)), "utf-8")
    process.returncode = 0  # it is meant to outlive us, and Popen to say nothing about that
    return server, True


def down(folder: Path) -> LocalServer | None:
    """Stop the server that was started in `folder`; its data stays. Returns it, or None if none ran."""
    server = status(folder)
    if server is not None:
        for number, patience_s in ((signal.SIGTERM, _STOP_TIMEOUT_S), (signal.SIGKILL, _STOP_TIMEOUT_S)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)
            deadline = time.monotonic() + patience_s
            while (gone := status(folder) is None) is False and time.monotonic() < deadline:
                time.sleep(_LOOK_AGAIN_S)
            if gone:
                break
    (folder / _STATE).unlink(missing_ok=True)
    return server


def find(folder: Path) -> Path | None:
    """The server's program, or None when this machine has none.

    Raises:
        ToolMissing: `RESTATE_SERVER_BIN` names none.
    """
    if configured := os.environ.get(BINARY_VARIABLE):
        if not os.access(configured, os.X_OK):
            raise ToolMissing(f"{BINARY_VARIABLE}={configured} is no program", hint="correct it, or unset it")
        return _native(Path(configured))
    here = Path.cwd()
    for parent in (folder / "npm", here, *here.parents):
        launcher = parent / "node_modules" / ".bin" / "restate-server"
        if launcher.exists():
            return _native(launcher)
    on_path = shutil.which("restate-server")
    return _native(Path(on_path)) if on_path else None


def _native(launcher: Path) -> Path:
    """The program itself. npm's launcher only starts it, and would not pass a signal on when it is killed."""
    packages = launcher.resolve().parent.parent.parent
    native = [*packages.glob("restate-server-*/bin/restate-server")]
    return native[0] if len(native) == 1 else launcher


def _install(folder: Path, told: Callable[[str], None]) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise ToolMissing(
            "there is no Restate server here, and no npm to install it with",
            hint=f"install Node.js, or set {BINARY_VARIABLE} to a restate-server",
        )
    told(f"installing {PACKAGE} {RESTATE} (Business Source License) into {folder / 'npm'}")
    command = [
        npm,
        "install",
        "--prefix",
        str(folder / "npm"),
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
    ]
    # No package scripts: an indirect dependency would report the installation to its vendor.
    done = subprocess.run(  # noqa: S603 - no shell
        [*command, f"{PACKAGE}@{RESTATE}"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    launcher = folder / "npm" / "node_modules" / ".bin" / "restate-server"
    if done.returncode != 0 or not launcher.exists():
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[:3]
        raise ApplyFailed(f"npm cannot install {PACKAGE}: {' '.join(reason)}", hint="is the registry reachable?")
    return _native(launcher)


def _ports(*wanted: int) -> list[int]:
    """Ports that are free now, in place of each 0 any."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in wanted:
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise CannotListen(
                    f"port {port} on 127.0.0.1 cannot be used: {error.strerror}",
                    hint="another server? choose other ports: --ingress-port 0 --admin-port 0 takes free ones",
                ) from error
            ports.append(int(probe.getsockname()[1]))
        return ports


def _await(process: subprocess.Popen[bytes], folder: Path, urls: tuple[str, ...]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    with http_client("http:", timeout_s=2) as http:
        for url in urls:
            while not _answers(http, url):
                if process.poll() is not None or time.monotonic() > deadline:
                    lines = (folder / _LOG).read_text("utf-8", errors="replace").splitlines()
                    what = "did not answer" if process.poll() is None else f"ended with {process.returncode}"
                    raise ApplyFailed(f"the Restate server {what}: {' '.join(lines[-3:])}", hint=f"see {folder / _LOG}")
                time.sleep(_LOOK_AGAIN_S)


def _answers(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _version(admin_url: str) -> str:
    with http_client(admin_url, timeout_s=5) as http:
        return str(http.get(f"{admin_url}/version").json()["version"])


def _start_of(pid: int) -> str | None:
    """When the process began, as text that only serves to compare; None when it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # the name before it may have spaces
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout.strip() or None
