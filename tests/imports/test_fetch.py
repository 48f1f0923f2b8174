"""Getting the zip: resumed where it stopped, never taken for another file, checked before it is used."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from apps.imports.fetch import Fetched, FetchFailed, NotFetchable, fetch, forget
from apps.imports.files import Interrupted
from apps.imports.object_store import ObjectStore, signed_headers
from apps.imports.settings import Settings

BODY = bytes(range(256)) * 20_000  # 5 MB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Source:
    """A web server with one file, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.body = BODY
        self.etag: str | None = '"one"'
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.break_after: int | None = None
        """Bytes after which the connection is cut, once."""
        self.silent_after: int | None = None
        """Bytes after which nothing more is said until `speaks`, once."""
        self.is_silent, self.speaks = threading.Event(), threading.Event()
        self.statuses: list[int] = []
        """To be answered first."""

    def answer(self, handler: BaseHTTPRequestHandler, *, is_head: bool) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append((f"{handler.command} {handler.path}", headers))
        if self.statuses:
            handler.send_response(self.statuses.pop(0))
            handler.send_header("content-length", "0")
            handler.end_headers()
            return
        start = 0
        if "range" in headers and headers.get("if-range") == self.etag:
            start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
        part = self.body[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("content-range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        if self.etag:
            handler.send_header("etag", self.etag)
        handler.send_header("content-length", str(len(part)))
        handler.end_headers()
        if is_head:
            return
        if self.break_after is not None:
            handler.wfile.write(part[: self.break_after])
            self.break_after = None
            handler.close_connection = True
            return
        if self.silent_after is not None:
            handler.wfile.write(part[: self.silent_after])
            handler.wfile.flush()
            part, self.silent_after = part[self.silent_after :], None
            self.is_silent.set()
            self.speaks.wait()
        handler.wfile.write(part)


@pytest.fixture
def source() -> Iterator[Source]:
    with serving(Source()) as source:
        yield source


@contextmanager
def serving(source: Source) -> Iterator[Source]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked had enough
                source.answer(self, is_head=False)

        def do_HEAD(self) -> None:
            source.answer(self, is_head=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    source.url = f"http://127.0.0.1:{server.server_port}/extract.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., Fetched]:
    """Fetches to `tmp_path/stored/extract.zip`."""

    def get(
        source: str,
        *,
        sha256: str | None = None,
        size_bytes: int | None = None,
        environ: dict[str, str] | None = None,
        stop: threading.Event | None = None,
    ) -> Fetched:
        return fetch(
            source,
            tmp_path / "stored" / "extract.zip",
            settings=Settings.load(environ=environ or {}),
            sha256=sha256,
            size_bytes=size_bytes,
            stop=stop or threading.Event(),
        )

    return get


def stored(tmp_path: Path) -> bytes:
    return (tmp_path / "stored" / "extract.zip").read_bytes()


def test_what_was_fetched_before_an_interruption_is_not_fetched_again(
    source: Source, get: Callable[..., Fetched], tmp_path: Path
) -> None:
    source.break_after = 2_000_000
    with pytest.raises(FetchFailed, match=r"does not answer|ended after"):
        get(source.url)
    assert get(source.url) == Fetched(SHA256, len(BODY))
    assert stored(tmp_path) == BODY
    part = int(source.asked[1][1]["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < part <= 2_000_000
    assert source.asked[1][1]["if-range"] == '"one"'


def test_who_stops_does_not_wait_for_a_server_that_says_nothing(
    source: Source, get: Callable[..., Fetched], tmp_path: Path
) -> None:
    source.silent_after, stop = 2_000_000, threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            under_way = pool.submit(get, source.url, stop=stop)
            assert source.is_silent.wait(30)
            stop.set()
            assert isinstance(under_way.exception(timeout=30), Interrupted), "sooner than the time-out of a read"
        finally:
            source.speaks.set()
    assert get(source.url).sha256 == SHA256
    assert stored(tmp_path) == BODY


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    source: Source, get: Callable[..., Fetched], tmp_path: Path
) -> None:
    source.break_after = 2_000_000
    with pytest.raises(FetchFailed):
        get(source.url)
    source.body, source.etag = BODY[::-1], '"two"'
    get(source.url)
    assert stored(tmp_path) == BODY[::-1]


def test_without_a_validator_nothing_is_resumed(source: Source, get: Callable[..., Fetched], tmp_path: Path) -> None:
    source.break_after, source.etag = 2_000_000, None
    with pytest.raises(FetchFailed):
        get(source.url)
    get(source.url)
    assert "range" not in source.asked[1][1]
    assert stored(tmp_path) == BODY


@pytest.mark.parametrize("status", [503, 500, 429, 408])
def test_a_server_that_is_busy_may_be_asked_again(source: Source, get: Callable[..., Fetched], status: int) -> None:
    source.statuses = [status]
    with pytest.raises(FetchFailed, match=f"answered {status}"):
        get(source.url)
    assert get(source.url).sha256 == SHA256


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_file_that_is_not_there_or_not_allowed_is_not_asked_for_again(
    source: Source, get: Callable[..., Fetched], status: int
) -> None:
    source.statuses = [status]
    with pytest.raises(NotFetchable, match=f"answered {status}"):
        get(source.url)


def test_nobody_at_the_address_may_be_somebody_later(get: Callable[..., Fetched]) -> None:
    with serving(Source()) as gone:
        url = gone.url
    with pytest.raises(FetchFailed, match="does not answer"):
        get(url)


def test_size_and_checksum_are_verified(source: Source, get: Callable[..., Fetched], tmp_path: Path) -> None:
    with pytest.raises(NotFetchable, match="has 5120000 bytes, not 5"):
        get(source.url, size_bytes=5)
    with pytest.raises(NotFetchable, match=f"SHA-256 is {SHA256}, not {'0' * 64}"):
        get(source.url, sha256="0" * 64)
    assert not list((tmp_path / "stored").glob("*.zip"))
    assert get(source.url, sha256=SHA256.upper(), size_bytes=len(BODY)).sha256 == SHA256


def test_a_complete_file_is_used_again_while_the_source_is_unchanged(
    source: Source, get: Callable[..., Fetched], tmp_path: Path
) -> None:
    get(source.url)
    assert get(source.url).sha256 == SHA256
    assert [request for request, _ in source.asked] == ["GET /extract.zip", "HEAD /extract.zip"]
    get(source.url, sha256=SHA256)  # the checksum says enough
    assert len(source.asked) == 2
    source.body, source.etag = b"another", '"two"'
    assert get(source.url).size_bytes == 7
    assert stored(tmp_path) == b"another"


def test_more_bytes_than_allowed_are_refused(source: Source, get: Callable[..., Fetched]) -> None:
    with pytest.raises(NotFetchable, match="IMPORTS_ZIP_BYTES_MAX"):
        get(source.url, environ={"IMPORTS_ZIP_BYTES_MAX": "4000000"})


def test_a_path_and_a_file_address_are_copied_and_the_file_is_left_alone(
    get: Callable[..., Fetched], tmp_path: Path
) -> None:
    file = tmp_path / "a file.zip"
    file.write_bytes(BODY)
    assert get(str(file)).sha256 == SHA256
    assert get(file.as_uri()).sha256 == SHA256
    forget(tmp_path / "stored" / "extract.zip")
    assert not list((tmp_path / "stored").iterdir())
    assert file.read_bytes() == BODY


def test_a_pipe_and_a_device_are_refused(get: Callable[..., Fetched], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.zip"
    os.mkfifo(pipe)
    for path in (str(pipe), "/dev/zero"):
        with pytest.raises(NotFetchable, match="is no regular file"):
            get(path)


@pytest.mark.parametrize("path", ["x" * 300 + ".zip", "x\0.zip", "missing.zip"])
def test_a_path_that_can_name_no_file_is_not_tried_again(get: Callable[..., Fetched], path: str) -> None:
    with pytest.raises(NotFetchable, match="cannot read"):
        get(path)


def test_secrets_of_an_address_are_not_repeated(source: Source, get: Callable[..., Fetched]) -> None:
    source.statuses = [403]
    with pytest.raises(NotFetchable) as caught:
        get(source.url.replace("http://", "http://user:pa55@") + "?X-Amz-Signature=5ecret")
    assert "pa55" not in str(caught.value)
    assert "5ecret" not in str(caught.value)


def test_an_object_is_fetched_from_its_store_by_a_signed_request(
    source: Source, get: Callable[..., Fetched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    endpoint = source.url.removesuffix("/extract.zip")
    assert get("s3://kbo/full/extract 140.zip", environ={"IMPORTS_S3_ENDPOINT": endpoint}).sha256 == SHA256
    request, headers = source.asked[0]
    assert request == "GET /kbo/full/extract%20140.zip"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")


def test_signatures_are_those_of_the_aws_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = pytest.importorskip("botocore.auth", reason="botocore is not installed")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    environ = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s/cret", "AWS_REGION": "eu-west-3"}
    url = ObjectStore.from_environment(None, environ).url("s3://kbo/a folder/extract.zip")
    assert url == "https://kbo.s3.eu-west-3.amazonaws.com/a%20folder/extract.zip"
    ours = signed_headers("GET", url, environ)
    request = AWSRequest("GET", url)
    stamp = datetime.strptime(ours["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: stamp.replace(tzinfo=None))
    auth.S3SigV4Auth(Credentials("AKID", "s/cret"), "s3", "eu-west-3").add_auth(request)
    assert ours["authorization"] == request.headers["Authorization"]
