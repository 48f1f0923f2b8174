"""Every setting of the embedded engine, with unit, default and limit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Durability = Literal["full", "relaxed"]

CREDENTIAL_HEADERS = ("authorization", "cookie", "proxy-authorization")
"""What HTTP clients put passwords, tokens and sessions into, by themselves or by custom."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine.

    Raises:
        ValueError: a value outside its limits, with the limits.
    """

    durability: Durability = "full"
    """`full`: a commit is on disk (fsync) before anything of it leaves the process. `relaxed`: a commit is with the
    operating system; nothing is lost when the process dies, the last commits may be when the machine does."""

    attempts_max: int = 1000
    """Attempts that run at the same time; more invocations wait in status ready."""

    suspend_after_ms: int = 1000
    """An attempt that only waits is suspended after this time, so that it costs no memory. With more work waiting
    for a place, it is suspended at once. Needs protocol version 7, which tells that an attempt only waits; with 5 and 6
    it is the handler's inactivity timeout (a minute) that suspends."""

    body_bytes_max: int = 32 << 20
    """Largest request body and largest single journal entry."""

    eager_state_bytes_max: int = 32 << 20
    """State up to this size is sent along with the start of an attempt; of larger state the handler asks what it
    reads."""

    drain_ms: int = 10_000
    """On stop, how long running attempts may take to finish or suspend."""

    cleanup_interval_ms: int = 600_000
    """How often results past their retention are removed."""

    refuse_deadlocks: bool = True
    """A call to a key that is held by the caller itself, or by a handler that waits for the caller, fails with a terminal
    error (409) that says so. A Restate server lets such a call wait for ever."""

    pause_on_mismatch: bool = True
    """An invocation whose journal does not fit the code any more is paused at once, with a message that names both and
    says how to go on. A Restate server retries it by its policy first."""

    protocol_version_max: int = 7
    """Newest service protocol version to use, 5 to 7."""

    connect_timeout_ms: int = 10_000
    """How long a connection to an endpoint may take."""

    endpoint_ca_file: str | None = None
    """PEM file of the authorities whose certificates https endpoints may have; None means those of the system."""

    identity_key_file: str | None = None
    """PEM file with an Ed25519 private key (PKCS#8). Requests to endpoints are signed with it, so that services that
    list its public key in `identity_keys` refuse everybody else."""

    allowed_origins: tuple[str, ...] = ()
    """Web pages that may send requests to ingress and admin API from a browser, as origins
    (`https://ui.example.com`); `*` stands for every page. Those that holdfast itself serves always may."""

    stored_headers_deny: tuple[str, ...] = CREDENTIAL_HEADERS
    """Request headers that the ingress neither stores nor shows to handlers. By default those that carry credentials:
    they would stay readable in the journal for as long as the invocation is kept."""

    stored_headers_allow: tuple[str, ...] | None = None
    """Request headers that the ingress stores and shows to handlers, if they are not denied; None means all."""

    query_timeout_ms: int = 30_000
    """How long one SQL query may take, its wait for others included."""

    query_rows_max: int = 100_000
    """Most rows one SQL query may give."""

    query_memory_bytes_max: int = 256 << 20
    """Memory of one SQL query: of its result, and of what it sorts, groups and joins. Nothing of it is written to disk."""

    def __post_init__(self) -> None:
        if self.durability not in ("full", "relaxed"):
            raise ValueError(f"durability must be 'full' or 'relaxed', not {self.durability!r}")
        if not 5 <= self.protocol_version_max <= 7:
            raise ValueError(f"protocol_version_max must be 5, 6 or 7, not {self.protocol_version_max}")
        for name in (
            "attempts_max",
            "body_bytes_max",
            "cleanup_interval_ms",
            "connect_timeout_ms",
            "query_timeout_ms",
            "query_rows_max",
            "query_memory_bytes_max",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("suspend_after_ms", "eager_state_bytes_max", "drain_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("allowed_origins", "stored_headers_deny", "stored_headers_allow"):
            if isinstance(getattr(self, name), str):  # a tuple of characters otherwise, without a word
                raise TypeError(f"{name} must be a tuple of strings, e.g. ({getattr(self, name)!r},)")
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"allowed_origins must be like 'https://ui.example.com' or '*', not {origin!r}")


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+/?|null")


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Who may reach the HTTP APIs that `serve` opens ports for. Programs that mount `engine.ingress` or
    `engine.admin` decide this themselves (see docs/security.md).

    Raises:
        ValueError: a value outside its limits, with the limits.
    """

    insecure: bool = False
    """Let other machines in although there are no tokens."""

    tokens_file: str | None = None
    """Where the tokens are; None means beside the database, `app.db.tokens`."""

    ingress_token: str | None = field(default=None, repr=False)
    """A token of the ingress besides those of the file, at least 32 characters."""

    admin_token: str | None = field(default=None, repr=False)
    """The same, of the admin API."""

    allowed_hosts: tuple[str, ...] = ()
    """Names, besides those of this machine, under which an API without tokens may be called."""

    tls_cert: str | None = None
    """PEM file with the certificate (chain) of both APIs; None: no TLS."""

    tls_key: str | None = None
    """PEM file with its private key; None: it is in `tls_cert`."""

    head_timeout_ms: int = 20_000
    """How long the head of a request may take to arrive, and a new connection to say anything."""

    body_timeout_ms: int = 30_000
    """How long the body of a request may take, plus a second for each KiB."""

    head_bytes_max: int = 64 << 10
    """Largest head of a request: its line and headers."""

    headers_max: int = 100
    """Most headers of a request; a Restate server has the same limit."""

    connections_max: int = 10_000
    """Most connections of one port at a time; further ones are closed."""

    def __post_init__(self) -> None:
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key needs tls_cert, the certificate that it belongs to")
        if isinstance(self.allowed_hosts, str):
            raise TypeError(f"allowed_hosts must be a tuple of strings, e.g. ({self.allowed_hosts!r},)")
        for name in ("head_timeout_ms", "body_timeout_ms", "head_bytes_max", "headers_max", "connections_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
