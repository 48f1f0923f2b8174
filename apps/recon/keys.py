"""Which scanners may submit: the registry of their public keys.

In open mode any key may, unless it is revoked; in registered mode only those in the registry.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

import msgspec

from apps.recon.store import Store


class ScannerKey(msgspec.Struct):
    """One entry of the registry. Times are UTC."""

    public_key: str
    """Base64 of its 32 bytes."""
    name: str | None
    registered_at: datetime
    revoked_at: datetime | None = None


class InvalidKey(ValueError):
    """Not the base64 of an Ed25519 public key."""


class KeyRegistry:
    """The registry, in the application's database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def may_submit(self, public_key: str, *, mode: str) -> bool:
        """Whether a key whose signature was verified is accepted.

        Args:
            mode: `open` or `registered`.
        """
        known = await self.get(public_key)
        if known is None:
            return mode == "open"
        return known.revoked_at is None

    async def get(self, public_key: str) -> ScannerKey | None:
        (rows,) = await self._store.read("SELECT * FROM type::thing('scanner_key', $key)", key=public_key)
        return _key(rows[0]) if rows else None

    async def register(self, public_key: str, name: str | None) -> ScannerKey:
        """Let a key submit; a revoked one may again. Repeating changes nothing but the name.

        Raises:
            InvalidKey: it is no public key.
        """
        public_key = canonical(public_key)
        (rows,) = await self._store.write(
            """INSERT INTO scanner_key { id: $key, public_key: $key, name: $name }
                ON DUPLICATE KEY UPDATE name = $name ?? name, revoked_at = NONE""",
            key=public_key,
            name=name,
        )
        return _key(rows[0])

    async def revoke(self, public_key: str) -> ScannerKey:
        """Refuse a key from now on, known before or not. The first time counts.

        Raises:
            InvalidKey: it is no public key.
        """
        public_key = canonical(public_key)
        (rows,) = await self._store.write(
            """INSERT INTO scanner_key { id: $key, public_key: $key, revoked_at: time::now() }
                ON DUPLICATE KEY UPDATE revoked_at = revoked_at ?? time::now()""",
            key=public_key,
        )
        return _key(rows[0])

    async def list(self) -> list[ScannerKey]:
        """All keys, the newest first."""
        (rows,) = await self._store.read("SELECT * FROM scanner_key ORDER BY registered_at DESC, public_key")
        return [_key(row) for row in rows]


def canonical(public_key: str) -> str:
    """The key's one base64 spelling; the URL-safe alphabet and missing padding are accepted.

    Raises:
        InvalidKey: not 32 bytes of base64.
    """
    text = public_key.strip().replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidKey("the key is not base64") from error
    if len(key) != 32:
        raise InvalidKey(f"the key is {len(key)} bytes long; a public key has 32")
    return base64.b64encode(key).decode()


def _key(row: dict[str, Any]) -> ScannerKey:
    return ScannerKey(row["public_key"], row.get("name"), row["registered_at"], row.get("revoked_at"))
