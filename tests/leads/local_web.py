"""A web server of this machine for tests: every other side of leads, by whatever each test needs.

web.page("www.wiltgen.be", bakery)                     # a business's site, found by the mirror setting
web.answers("/search", [503, 503, {"elements": []}])   # one after the other, the last one again and again
web.route("/hook", handler)                            # anything else: (Request) -> Answer
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    at: float
    """`time.monotonic()`."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, value: Any) -> Answer:
        """A status, HTML text, JSON, or an answer itself."""
        match value:
            case Answer():
                return value
            case int():
                return cls(value, b"{}")
            case str():
                return cls(200, value.encode(), "text/html; charset=utf-8")
            case _:
                return cls(200, json.dumps(value).encode())


class LocalWeb:
    """See the module. Everything it was asked is in `requests`."""

    def __init__(self) -> None:
        self._routes: dict[str, Callable[[Request], Any]] = {}
        self._lock = threading.Lock()
        self._open = threading.Event()
        self.requests: list[Request] = []
        self.running = 0
        self.running_max = 0
        self.url = ""

    @property
    def mirror(self) -> str:
        """For `Settings.site_mirror_url`."""
        return f"{self.url}/sites/{{host}}/"

    def route(self, path: str, handler: Callable[[Request], Any]) -> None:
        self._routes[path] = handler

    def answers(self, path: str, values: list[Any]) -> None:
        left = list(values)

        def next_one(_: Request) -> Any:
            return left.pop(0) if len(left) > 1 else left[0]

        self.route(path, next_one)

    def page(self, host: str, html: str) -> None:
        self.route(f"/sites/{host}/", lambda _: html)

    def sites(self, handler: Callable[[Request], Any]) -> None:
        """For all sites that have no page of their own."""
        self.route("/sites/", handler)

    def asked(self, path: str) -> list[Request]:
        with self._lock:
            return [request for request in self.requests if request.path.startswith(path)]

    def hold(self) -> Callable[[Request], Any]:
        """A handler that answers only when the server stops, or `let_go` is called."""

        def wait(_: Request) -> Any:
            self._open.wait(60)
            return 204

        return wait

    def let_go(self) -> None:
        self._open.set()

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            self.running += 1
            self.running_max = max(self.running_max, self.running)
        try:
            handler = self._routes.get(request.path)
            if handler is None and request.path.startswith("/sites/"):
                handler = self._routes.get("/sites/")
            return Answer.of(handler(request) if handler is not None else 404)
        finally:
            with self._lock:
                self.running -= 1


@contextmanager
def local_web() -> Iterator[LocalWeb]:
    """A server on a free port."""
    web = LocalWeb()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = web.answer(
                Request(self.command, parts.path, parse_qs(parts.query), headers, body, time.monotonic())
            )
            try:
                self.send_response(answer.status)
                self.send_header("content-type", answer.content_type)
                self.send_header("content-length", str(len(answer.body)))
                self.send_header("connection", "close")
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
            except OSError:
                pass  # whoever asked is gone
            self.close_connection = True

        do_GET = do_POST = do_HEAD = do_PUT = handle_one  # noqa: N815 names of the base class

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was killed

    with Server(("127.0.0.1", 0), Handler) as server:
        web.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            web.let_go()
            server.shutdown()
            thread.join()
