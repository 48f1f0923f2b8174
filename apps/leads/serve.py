"""leads in one process: workflows, API and pages, on an engine of its own, on a Restate server, or on both.

    embedded   the engine runs here, on `engine.db`; nothing else is needed
    restate    everything is on a Restate server, which calls this process
    hybrid     jobs, wallets and discovery here, enrichment on the Restate server

It may be killed at any moment: started again on the same directory, jobs go on where they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import uvicorn

from apps.leads.access import LOOPBACK_NAMES, Keys
from apps.leads.api import create_api
from apps.leads.demo_web import running_web
from apps.leads.errors import LeadsError
from apps.leads.running import open_leads
from apps.leads.settings import Settings, SettingsError
from apps.leads.web import LOOPBACK_ALLOWED
from apps.serving import Server, listen, stop_on_eof, stop_on_signal
from holdfast import HoldfastError

logger = logging.getLogger("leads.serve")

OPEN_STREAMS_S = 1
"""What followers of events get at the end. They connect again to the next process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where the API is, and for whom. All else is in `Settings`."""

    host: str = "127.0.0.1"
    port: int = 3001
    hosts: tuple[str, ...] = ()
    """Further names that the API answers to; with none, a port on the loopback interface answers to its names only."""
    user_keys: Mapping[str, str] = field(default_factory=dict[str, str])
    """Key -> user id."""
    master_key: str = ""
    discord_public_key: str = ""
    has_demo_sites: bool = False
    """Handmade pages of this machine stand in for the businesses' websites."""

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """For `access.Guard`."""
        return LOOPBACK_NAMES | set(self.hosts) if self.host in LOOPBACK_NAMES else frozenset(self.hosts)

    def check(self) -> ServeSettings:
        """Itself, if it makes sense.

        Raises:
            SettingsError: with the setting's name.
        """
        if self.host not in LOOPBACK_NAMES and not self.master_key and not self.user_keys:
            raise SettingsError(
                f"LEADS_API_MASTER_KEY is required on {self.host}: without a key, all who reach it could spend money"
            )
        if "" in self.user_keys or "" in self.user_keys.values():
            raise SettingsError("LEADS_API_KEYS: neither a key nor a user may be empty")
        try:
            is_key = len(bytes.fromhex(self.discord_public_key)) in (0, 32)
        except ValueError:
            is_key = False
        if not is_key:
            raise SettingsError("LEADS_API_DISCORD_PUBLIC_KEY: the application's public key, 64 characters of hex")
        return self


def parse_keys(text: str) -> dict[str, str]:
    """`{"<key>": "<user id>"}`.

    Raises:
        SettingsError: it is something else.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.DecodeError as error:
        raise SettingsError(f'LEADS_API_KEYS: JSON such as {{"key": "user"}}: {error}') from error


def load_settings(engine: str | None, environ: Mapping[str, str] | None = None, **changes: Any) -> Settings:
    """Settings from the environment; `engine` wins over what it says.

    Raises:
        SettingsError: a wrong one.
    """
    environ = dict(os.environ if environ is None else environ)
    if engine is not None:
        environ["LEADS_ENGINE"] = engine
        for name in ("LEADS_DISCOVERY_ENGINE", "LEADS_ENRICHMENT_ENGINE"):
            environ.pop(name, None)
    return Settings.from_environment(environ, **{name: value for name, value in changes.items() if value is not None})


async def serve(settings: Settings, serving: ServeSettings, *, until: Callable[[str, asyncio.Event], None]) -> None:
    """Serve until the event that is handed to `until` is set, then stop cleanly.

    Args:
        until: Called with the API's address when requests are answered.
    Raises:
        SettingsError: settings that make no sense.
        OSError: the port is taken.
        HoldfastError: an engine cannot be opened, or the server refuses.
    """
    serving.check()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(serving.host, serving.port))
        if serving.has_demo_sites:
            web = stack.enter_context(running_web())
            settings = msgspec.structs.replace(settings, site_mirror_url=web.mirror_url, network=LOOPBACK_ALLOWED)
        async with open_leads(settings) as leads:
            keys = Keys(serving.user_keys, serving.master_key)
            api = create_api(
                leads, keys=keys, hosts=serving.allowed_hosts, discord_public_key=serving.discord_public_key
            )
            await _serve_api(api, listener, until)


async def _serve_api(api: Any, listener: socket.socket, until: Callable[[str, asyncio.Event], None]) -> None:
    config = uvicorn.Config(
        api,
        lifespan="off",
        access_log=False,
        log_level="warning",
        ws="none",
        timeout_graceful_shutdown=OPEN_STREAMS_S,
    )
    server = Server(config)
    running = asyncio.create_task(server.serve([listener]))
    stop = asyncio.Event()
    host, port = listener.getsockname()[:2]
    until(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", stop)
    await stop.wait()
    server.should_exit = True
    await running


def run(settings: Settings, serving: ServeSettings, *, is_child: bool = False) -> tuple[str, str] | None:
    """Serve until SIGINT or SIGTERM.

    Args:
        is_child: For a parent process: the address as JSON on standard output, stop when standard input ends.
    Returns:
        None after a clean stop; else what went wrong, and what to do next.
    """

    def announce(url: str, stop: asyncio.Event) -> None:
        human = f"leads answers on {url}, data in {settings.directory}; Ctrl-C stops it"
        sys.stdout.write((json.dumps({"url": url}) if is_child else human) + "\n")
        sys.stdout.flush()
        stop_on_signal(stop)
        if is_child:
            stop_on_eof(stop)

    try:
        asyncio.run(serve(settings, serving, until=announce))
    except SettingsError as error:
        return str(error), "see apps/leads/.env.example"
    except HoldfastError as error:
        return str(error), getattr(error, "hint", "") or "is the Restate server running, and can it reach this process?"
    except LeadsError as error:
        return f"the engine does not answer: {error}", "is the Restate server running? See RESTATE_INGRESS_URL"
    except OSError as error:
        return f"cannot serve on {serving.host}:{serving.port}: {error}", "choose another --port"
    return None
