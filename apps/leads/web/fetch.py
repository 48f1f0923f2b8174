"""One GET after another, each bounded in time, size, redirects and unpacking. Raises `FetchFailed`, nothing else."""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from urllib.parse import urljoin

import httpcore
import httpx
import msgspec

from apps.leads.web.network import AddressRefused, GuardedTransport, NameNotFound
from apps.leads.web.types import Failure, FailureCode, FetchLimits, NetworkPolicy, TlsFacts

URL_LENGTH_MAX = 2_000
# Real pages compress 3 to 20 times; deflate itself cannot pass 1032.
RATIO_MAX = 150
# Below this much unpacked text no ratio harms anybody.
RATIO_FROM_BYTES = 500_000
_CHUNK_BYTES = 64 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)


class FetchFailed(Exception):
    """Why there is no answer, as data."""

    def __init__(
        self, code: FailureCode, message: str, *, is_transient: bool = False, is_certificate: bool = False
    ) -> None:
        super().__init__(message)
        self.is_certificate = is_certificate
        """The site can be read, if one does not insist on its certificate."""
        self.failure = Failure(code, message, is_transient)


class Fetched(msgspec.Struct):
    """One answer, whatever its status."""

    url: str
    """After redirects."""
    status: int
    headers: list[tuple[str, str]]
    """Names in small letters; repeated ones repeat."""
    body: bytes
    transferred_bytes: int
    is_truncated: bool
    redirects: list[str]
    elapsed_ms: int
    tls: TlsFacts | None

    def header(self, name: str) -> str | None:
        """The first value of a header; `name` in small letters."""
        return next((value for key, value in self.headers if key == name), None)


def checked_url(text: str, base: str | None = None) -> httpx.URL:
    """`text`, resolved against `base`, as an address that may be asked for.

    Raises:
        FetchFailed: `bad_url`.
    """
    try:
        joined = urljoin(base, text.strip()) if base else text.strip()
        url = httpx.URL(joined)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise FetchFailed("bad_url", f"{text[:100]!r} is not an address: {error}") from error
    if url.scheme not in {"http", "https"}:
        raise FetchFailed("bad_url", f"{text[:100]!r}: only http and https are read")
    if not url.host or len(joined) > URL_LENGTH_MAX:
        raise FetchFailed("bad_url", f"{text[:100]!r} has no host, or is longer than {URL_LENGTH_MAX} characters")
    if url.userinfo:
        raise FetchFailed("bad_url", f"{url.host}: an address with a user name in it is not followed")
    # One spelling for the home page, whoever writes it.
    return url.copy_with(fragment=None, raw_path=url.raw_path or b"/")


class Fetcher:
    """A client for one site and one scan; keeps cookies and connections until it is closed."""

    def __init__(self, limits: FetchLimits, policy: NetworkPolicy, *, is_certificate_checked: bool = True) -> None:
        self._limits = limits
        self._client = httpx.AsyncClient(
            transport=GuardedTransport(policy, is_certificate_checked=is_certificate_checked),
            timeout=limits.request_time_s,
            trust_env=False,  # a proxy of the environment would connect for us, past the guard
            headers={
                "user-agent": limits.user_agent,
                "accept": "text/html,application/xhtml+xml,*/*;q=0.5",
                "accept-language": "en,fr;q=0.8,nl;q=0.8,de;q=0.8,*;q=0.5",
                "accept-encoding": "gzip",
            },
        )

    async def __aenter__(self) -> Fetcher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def get(
        self,
        url: str,
        *,
        body_bytes_max: int | None = None,
        is_redirect_followed: bool = True,
        check: Callable[[str], Awaitable[None]] | None = None,
    ) -> Fetched:
        """GET, redirects followed. A status of 4xx or 5xx is an answer, not a failure.

        Args:
            check: Asked with every address before it is requested, redirects too; raises to refuse it.
        Raises:
            FetchFailed: No answer within the limits, or the policy refuses an address on the way.
        """
        started = time.perf_counter()
        target = checked_url(url)
        redirects: list[str] = []
        seen = {str(target)}
        size_max = self._limits.body_bytes_max if body_bytes_max is None else body_bytes_max
        try:
            async with asyncio.timeout(self._limits.request_time_s):
                while True:
                    if check is not None:
                        await check(str(target))
                    answer, location = await self._hop(target, size_max)
                    if location is None or not is_redirect_followed:
                        break
                    target = checked_url(location, str(target))
                    redirects.append(str(target))
                    if len(redirects) > self._limits.redirects_max:
                        raise FetchFailed("redirects", f"{url}: more than {self._limits.redirects_max} redirects")
                    # The same address once more is fine after a cookie was set; a third time is a circle.
                    if str(target) in seen and redirects.count(str(target)) > 1:
                        raise FetchFailed("redirects", f"{url}: redirects in a circle at {target}")
                    seen.add(str(target))
        except TimeoutError as error:
            message = f"{url}: no complete answer within {self._limits.request_time_s:g} s"
            raise FetchFailed("timeout", message, is_transient=True) from error
        answer.redirects = redirects
        answer.elapsed_ms = round((time.perf_counter() - started) * 1000)
        return answer

    async def _hop(self, url: httpx.URL, size_max: int) -> tuple[Fetched, str | None]:
        """One request. The second value: where the answer sends us instead."""
        try:
            async with self._client.stream("GET", url, follow_redirects=False) as response:
                tls = _tls_facts(response)
                location = response.headers.get("location") if response.status_code in _REDIRECTS else None
                body, transferred, is_truncated = b"", 0, False
                if location is None:
                    body, transferred, is_truncated = await _read(response, size_max)
                fetched = Fetched(
                    url=str(url),
                    status=response.status_code,
                    headers=[(key.lower(), value) for key, value in response.headers.multi_items()],
                    body=body,
                    transferred_bytes=transferred,
                    is_truncated=is_truncated,
                    redirects=[],
                    elapsed_ms=0,
                    tls=tls,
                )
                return fetched, location
        except AddressRefused as error:
            raise FetchFailed("refused_address", str(error)) from error
        except NameNotFound as error:
            raise FetchFailed("dns", str(error), is_transient=error.is_transient) from error
        except httpcore.TimeoutException as error:
            raise FetchFailed("timeout", f"{url}: no answer in time", is_transient=True) from error
        except httpcore.ConnectError as error:
            raise _connection_failure(url, error) from error
        except (httpcore.ProtocolError, httpx.InvalidURL, httpx.DecodingError) as error:
            raise FetchFailed("protocol", f"{url}: not an HTTP answer: {error}", is_transient=True) from error
        except (httpcore.NetworkError, httpx.TransportError, OSError) as error:
            raise FetchFailed("connect", f"{url}: connection lost: {error}", is_transient=True) from error


def _connection_failure(url: httpx.URL, error: httpcore.ConnectError) -> FetchFailed:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchFailed("tls", f"{url.host}: {cause.verify_message}", is_certificate=True)
        if isinstance(cause, ssl.SSLError):
            return FetchFailed("tls", f"{url.host}: no TLS connection: {cause.reason or cause}")
        cause = cause.__cause__ or cause.__context__
    return FetchFailed("connect", f"{url.host}: {error or 'connection refused'}", is_transient=True)


async def _read(response: httpx.Response, size_max: int) -> tuple[bytes, int, bool]:
    """The unpacked body up to `size_max`, the bytes that came over the wire, and whether there was more."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"gzip", "x-gzip"}:
        inflater = zlib.decompressobj(wbits=31)
    elif encoding == "deflate":
        inflater = zlib.decompressobj(wbits=15)
    elif encoding in {"", "identity", "none"}:
        inflater = None
    else:
        raise FetchFailed("encoding", f"{response.url}: Content-Encoding {encoding[:40]!r} was not asked for")
    body = bytearray()
    transferred = 0
    async for chunk in response.aiter_raw():
        transferred += len(chunk)
        if inflater is None:
            body += chunk
        elif not inflater.eof:
            try:
                _inflate(inflater, chunk, body, size_max, transferred)
            except zlib.error as error:
                raise FetchFailed("encoding", f"{response.url}: broken {encoding}: {error}") from error
        if len(body) > size_max:
            return bytes(body[:size_max]), transferred, True
    return bytes(body), transferred, inflater is not None and bool(body) and not inflater.eof


def _inflate(inflater: zlib._Decompress, chunk: bytes, body: bytearray, size_max: int, transferred: int) -> None:
    """Unpack `chunk` into `body` piece by piece: a chunk of a bomb is a thousand times its size."""
    while chunk and len(body) <= size_max and not inflater.eof:
        body += inflater.decompress(chunk, _CHUNK_BYTES)
        chunk = inflater.unconsumed_tail
        if len(body) > RATIO_FROM_BYTES and len(body) > RATIO_MAX * transferred:
            raise FetchFailed("bomb", f"{transferred} bytes unpack to more than {len(body)}: not read further")


def _tls_facts(response: httpx.Response) -> TlsFacts | None:
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("ssl_object") if stream is not None else None
    if connection is None:
        return None
    certificate = connection.getpeercert() or {}
    cipher = connection.cipher()
    expires = certificate.get("notAfter")
    return TlsFacts(
        is_valid=bool(certificate),  # empty when it was not checked
        version=connection.version(),
        cipher=cipher[0] if cipher else None,
        issuer=_distinguished_name(certificate.get("issuer", ())),
        subject=_distinguished_name(certificate.get("subject", ())),
        expires_at=_rfc3339(expires) if expires else None,
    )


def _distinguished_name(parts: tuple[tuple[tuple[str, str], ...], ...]) -> str | None:
    names = {key: value for part in parts for key, value in part}
    return names.get("organizationName") or names.get("commonName")


def _rfc3339(text: str) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ssl.cert_time_to_seconds(text)))
