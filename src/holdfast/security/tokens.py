"""Bearer tokens: made once, shown once, kept as hashes in a file beside the database.

The file is a log: one JSON line for each token made or revoked, only ever appended to. So the commands need no lock of
the database, a running engine notices changes by looking at the file, and what was revoked when stays on record.

A token is 256 random bits. What is that long cannot be guessed or looked up, so a plain SHA-256 keeps it as safe as a
slow password hash would, and checking one costs a microsecond.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from holdfast.errors import InvalidRequest, InvalidSetting

log = logging.getLogger("holdfast.security")

Scope = Literal["ingress", "admin"]
SCOPES: tuple[Scope, ...] = ("ingress", "admin")

FIXED_SECRET_CHARACTERS_MIN = 32
"""Of a token that a person chose. Thirty-two hexadecimal digits are 128 bits, which nobody guesses."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Its secret is not."""

    id: str
    name: str
    scope: Scope
    sha256: str
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None = None

    def is_usable(self, now_ms: int) -> bool:
        return self.revoked_at_ms is None and (self.expires_at_ms is None or now_ms < self.expires_at_ms)


def tokens_path(db: str | os.PathLike[str]) -> Path:
    """Where the tokens of the engine on `db` are: `app.db` -> `app.db.tokens`."""
    path = Path(db)
    return path.with_name(path.name + ".tokens")


def digest_of(secret: str | bytes) -> bytes:
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()


class TokenFile:
    """The tokens of one engine.

    Args:
        path: See `tokens_path`. The file is made with the first token.
        now_ms: The time, milliseconds since 1970.
    """

    def __init__(self, path: str | os.PathLike[str], *, now_ms: Callable[[], int] = lambda: time.time_ns() // 10**6):
        self.path = Path(path)
        self._now_ms = now_ms

    def tokens(self) -> list[Token]:
        """Every token there ever was, oldest first.

        Raises:
            InvalidSetting: somebody else could have written the file, or a line of it is damaged.
        """
        try:
            with self.path.open("rb") as file:
                self._check_mode(os.fstat(file.fileno()))
                content = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InvalidSetting(
                f"the tokens file {self.path} cannot be read: {error.strerror}", hint="give this user the file"
            ) from error
        tokens: dict[str, Token] = {}
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip():
                self._apply(tokens, line, number)
        return list(tokens.values())

    def create(self, scope: Scope, name: str | None = None, *, expires_in_ms: int | None = None) -> tuple[Token, str]:
        """Make a token.

        Args:
            name: To recognise it by; usable tokens have different names. None: its id.
            expires_in_ms: How long it is good for, milliseconds; None: until it is revoked.
        Returns:
            (token, secret). The secret is not kept anywhere.
        Raises:
            InvalidRequest: the name is taken, or has characters other than letters, digits, `.`, `_`, `@` and `-`.
            InvalidSetting: the file cannot be read or written.
        """
        now_ms = self._now_ms()
        if name is not None and not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is no name for a token", hint="up to 64 letters, digits, '.', '_', '@', '-'; e.g. ci-deploy"
            )
        if any(token.name == name and token.is_usable(now_ms) for token in self.tokens()):
            raise InvalidRequest(f"there is a token called {name!r} already", hint="revoke it first, or take another")
        secret = f"hf_{scope}_{secrets.token_urlsafe(32)}"
        token_id = f"tok_{secrets.token_hex(6)}"
        expires_at_ms = None if expires_in_ms is None else now_ms + expires_in_ms
        token = Token(token_id, name or token_id, scope, digest_of(secret).hex(), now_ms, expires_at_ms)
        self._append(
            {
                "create": token.id,
                "name": token.name,
                "scope": scope,
                "sha256": token.sha256,
                "at_ms": now_ms,
                "expires_at_ms": expires_at_ms,
            }
        )
        return token, secret

    def revoke(self, id_or_name: str) -> Token:
        """End a token. Running engines refuse it within a second. A token that was revoked before stays so.

        Raises:
            InvalidRequest: there is no such token.
            InvalidSetting: the file cannot be read or written.
        """
        named = [token for token in self.tokens() if id_or_name in (token.id, token.name)]
        # A name may be used again after its token was revoked: the usable one is meant.
        named.sort(key=lambda token: token.revoked_at_ms is None)
        if not named:
            raise InvalidRequest(f"there is no token {id_or_name!r}", status=404, hint="see: holdfast tokens list")
        token = named[-1]
        if token.revoked_at_ms is None:
            self._append({"revoke": token.id, "at_ms": self._now_ms()})
        return token

    def _append(self, entry: dict[str, Any]) -> None:
        # The newline in front ends a line that was cut off by a crash, so that it damages only itself.
        line = f"\n{json.dumps(entry)}\n".encode()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise InvalidSetting(
                f"the tokens file {self.path} cannot be written: {error.strerror}",
                hint="the directory must exist, and file and directory belong to this user",
            ) from error

    def _check_mode(self, status: os.stat_result) -> None:
        if os.name == "posix" and (status.st_mode & _OTHERS_MAY or status.st_uid not in (os.geteuid(), 0)):
            mode = stat.S_IMODE(status.st_mode)
            raise InvalidSetting(
                f"others may have written the tokens file {self.path} (mode {mode:03o}, owner {status.st_uid})",
                hint=f"look at what it holds, then: chmod 600 {self.path}",
            )

    def _apply(self, tokens: dict[str, Token], line: bytes, number: int) -> None:
        try:
            entry = cast(dict[str, Any], json.loads(line))
            if "revoke" in entry:
                token = tokens[entry["revoke"]]
                tokens[token.id] = replace(token, revoked_at_ms=int(entry["at_ms"]))
                return
            if entry["scope"] not in SCOPES or len(bytes.fromhex(entry["sha256"])) != 32:
                raise ValueError
            expires_at_ms = entry["expires_at_ms"]
            token = Token(
                str(entry["create"]),
                str(entry["name"]),
                entry["scope"],
                entry["sha256"],
                int(entry["at_ms"]),
                None if expires_at_ms is None else int(expires_at_ms),
            )
            tokens[token.id] = token
        except (ValueError, KeyError, TypeError, AttributeError):
            # To go on would mean to ignore what may be a revocation.
            raise InvalidSetting(
                f"line {number} of the tokens file {self.path} is damaged",
                hint="remove the line, or the file, and make new tokens: holdfast tokens create",
            ) from None


class TokenGate:
    """Whether a request may pass one API, by its `authorization` header.

    Args:
        scope: The API.
        file: See `look`.
        fixed: A secret of the configuration (not kept, only its hash).
    Raises:
        InvalidSetting: the file cannot be used, or the fixed secret is too short or cannot be sent.
    """

    def __init__(
        self,
        scope: Scope,
        file: TokenFile | None = None,
        *,
        fixed: str | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 10**6,
    ) -> None:
        if fixed is not None and len(fixed) < FIXED_SECRET_CHARACTERS_MIN:
            raise InvalidSetting(
                f"the {scope} token of the environment has {len(fixed)} characters, fewer than "
                f"{FIXED_SECRET_CHARACTERS_MIN}",
                hint="take a random one: openssl rand -hex 32",
            )
        if fixed is not None and fixed != fixed.strip():
            raise InvalidSetting(
                f"the {scope} token of the environment begins or ends with a blank or a line end, which no request can send",
                hint="a file's last line end belongs to the file: HOLDFAST_ADMIN_TOKEN=$(cat FILE) leaves it out",
            )
        self.scope: Scope = scope
        self._file = file
        self._fixed: list[tuple[bytes, int | None]] = [] if fixed is None else [(digest_of(fixed), None)]
        self._now_ms = now_ms
        self._seen: object = None
        self._known = self._fixed
        self.is_closed = bool(self._fixed)
        """A token is needed. Once it is, it stays so: neither revoking the last token nor losing the file opens the
        API."""
        self.look(is_first=True)

    def usable(self) -> int:
        """How many tokens would be admitted now."""
        now_ms = self._now_ms()
        return sum(expires_at_ms is None or now_ms < expires_at_ms for _, expires_at_ms in self._known)

    def close(self) -> None:
        """Ask for a token even when there is none, so that everybody is refused until one is made."""
        self.is_closed = True

    def admits(self, authorization: bytes | None) -> bool:
        """Whether the header names a token that is known, not revoked and not expired."""
        if not self.is_closed:
            return True
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return False
        presented = digest_of(authorization[7:].strip())
        # Every hash is compared, in constant time: neither position nor prefix of a match can be measured.
        admitted = False
        for digest, expires_at_ms in self._known:
            if hmac.compare_digest(presented, digest) and (expires_at_ms is None or self._now_ms() < expires_at_ms):
                admitted = True
        return admitted

    def look(self, *, is_first: bool = False) -> None:
        """Read the file if it has changed. To be called now and then: a look at every request would cost every request.

        Args:
            is_first: A file that cannot be used is an error, instead of a reason to refuse everybody.
        Raises:
            InvalidSetting: only then.
        """
        if self._file is None:
            return
        try:
            status = self._file.path.stat()
            seen: object = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode, status.st_uid)
        except OSError as error:
            seen = error.errno
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._learn(self._file.tokens())
        except InvalidSetting as error:
            if is_first:
                raise
            # Whoever damaged the file may have meant to open the door: nobody passes until it is mended.
            self._known = self._fixed
            self.close()
            log.error("no token is admitted", extra={"error": error.message, "next": error.hint})

    def _learn(self, tokens: Iterable[Token]) -> None:
        own = [token for token in tokens if token.scope == self.scope]
        if own:
            self.is_closed = True
        live = [token for token in own if token.revoked_at_ms is None]
        self._known = self._fixed + [(bytes.fromhex(token.sha256), token.expires_at_ms) for token in live]
