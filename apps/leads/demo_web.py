"""The websites of the demo, on this machine: the handmade pages in `data/pages` stand in for every business's site.

Also what else the demo needs from outside: a paid source of owners that knows nobody, and a Discord webhook. Whoever runs
it can hold visitors at the door, which is how a process is killed exactly in the middle.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PAGES = Path(__file__).parent / "data" / "pages"
HOME = "/"
# What a site answers at which path; a business's site is one of these, by its name.
SITES: tuple[dict[str, str], ...] = (
    {HOME: "bakery.html", "/contact": "bakery-contact.html", "/mentions-legales": "bakery-legal.html"},
    {HOME: "salon-wix.html"},
    {HOME: "boutique-shopify.html"},
    {HOME: "garage-webflow.html", "/impressum": "garage-impressum.html"},
    {HOME: "studio-squarespace.html"},
)
HOLD_MAX_S = 120.0


class DemoWeb:
    """What was asked of it, and the door."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._free_visits = 0
        self.url = ""
        self.visits: Counter[str] = Counter()
        """Host -> home pages that were sent."""
        self.held = 0
        """Visitors at the door, or gone from there."""
        self.owner_questions: Counter[str] = Counter()
        """Idempotency key -> questions."""
        self.messages: list[dict[str, Any]] = []
        """What came to the webhook."""

    @property
    def mirror_url(self) -> str:
        """For the setting `site_mirror_url`."""
        return f"{self.url}/sites/{{host}}/"

    def close_after(self, visits: int) -> None:
        """Send so many more home pages, then hold every visitor."""
        with self._lock:
            self._free_visits, self.held = visits, 0
            self._open.clear()

    def open(self) -> None:
        """Let everybody in."""
        self._open.set()

    def enter(self, host: str) -> None:
        """Wait at the door if it is closed; counts the visit."""
        with self._lock:
            is_free = self._open.is_set() or self._free_visits > 0
            self._free_visits -= not self._open.is_set()
            self.held += not is_free
        if not is_free:
            self._open.wait(HOLD_MAX_S)
        with self._lock:
            self.visits[host] += 1

    def note_question(self, key: str) -> None:
        with self._lock:
            self.owner_questions[key] += 1

    def note_message(self, message: dict[str, Any]) -> None:
        with self._lock:
            self.messages.append(message)


def page(host: str, path: str) -> bytes | None:
    """What the site of `host` answers at `path`; None: it has no such page."""
    name = SITES[zlib.crc32(host.encode()) % len(SITES)].get(path)
    if name is None:
        return None
    # Their links begin at the root, which is not this site's own here.
    return (PAGES / name).read_bytes().replace(b'href="/', f'href="/sites/{host}/'.encode())


@contextmanager
def running_web() -> Generator[DemoWeb]:
    """The web on a free port of this machine."""
    web = DemoWeb()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            # "/sites/<host>/<path>"
            _, _, rest = urlsplit(self.path).path.partition("/sites/")
            host, slash, path = rest.partition("/")
            content = page(host, f"/{path}") if slash else None
            if content is None:
                self._send(404, b"there is no such page\n", "text/plain")
                return
            if path == "":
                web.enter(host)
            self._send(200, content, "text/html")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.path == "/owners":
                web.note_question(self.headers.get("idempotency-key") or "")
                self._send(200, b'{"owner": null}', "application/json")
            elif self.path == "/webhook":
                web.note_message(json.loads(body))
                self._send(204, b"", "application/json")
            else:
                self._send(404, b"{}", "application/json")

        def _send(self, status: int, content: bytes, media_type: str) -> None:
            try:
                self.send_response(status)
                self.send_header("content-type", media_type)
                self.send_header("content-length", str(len(content)))
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the visitor was killed
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A visitor that was killed is no error of ours."""

    with Server(("127.0.0.1", 0), Handler) as server:
        web.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            web.open()
            server.shutdown()
            thread.join()
