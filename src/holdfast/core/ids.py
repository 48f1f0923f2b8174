"""Parse and format invocation, awakeable and deployment ids, exactly as Restate spells them.

`inv_1` + base62(partition key, 8 bytes) padded to 11 + base62(uuid, 16 bytes) padded to 22. The number that is encoded
is the byte-reversed one. No randomness is drawn here: callers bring it.
"""

from __future__ import annotations

import base64
import hashlib

from xxhash import xxh3_64_intdigest

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_DIGITS = {digit: value for value, digit in enumerate(_ALPHABET)}
_PAIR_BASE = 62 * 62
_TEN_DIGITS = 62**10

_TO_STANDARD = str.maketrans("-_+/", "+/--")  # what only the other alphabet has becomes invalid

INVOCATION_PREFIX = "inv_1"
AWAKEABLE_PREFIX = "sign_1"
DEPLOYMENT_PREFIX = "dp_1"
_OLD_AWAKEABLE_PREFIX = "prom_1"

NO_SIGNAL = 0
"""Of awakeable ids of protocols before 5: accepted, as a Restate server does, but nobody waits for them here."""


class MalformedId(ValueError):
    """The text is no id of the expected kind; the message is the reason as the server words it."""


def _base62_22(number: int) -> str:
    """22 digits. Unrolled: this runs for every new invocation, and small divisions are cheaper than long ones."""
    high, low = divmod(number, _TEN_DIGITS)
    top, middle = divmod(high, _TEN_DIGITS)
    return _PAIRS[top] + _ten_digits(middle) + _ten_digits(low)


def _ten_digits(number: int) -> str:
    number, p5 = divmod(number, _PAIR_BASE)
    number, p4 = divmod(number, _PAIR_BASE)
    number, p3 = divmod(number, _PAIR_BASE)
    p1, p2 = divmod(number, _PAIR_BASE)
    pairs = _PAIRS
    return f"{pairs[p1]}{pairs[p2]}{pairs[p3]}{pairs[p4]}{pairs[p5]}"


def _unbase62(text: str, size: int) -> bytes:
    number = 0
    try:
        for digit in text:
            number = number * 62 + _DIGITS[digit]
        return number.to_bytes(size, "little")
    except (KeyError, OverflowError):
        raise MalformedId("base62 decode error") from None


def invocation_text(raw: bytes) -> str:
    """24 bytes -> `inv_1…`."""
    first, rest = divmod(int.from_bytes(raw[:8], "little"), _TEN_DIGITS)
    return f"{INVOCATION_PREFIX}{_ALPHABET[first]}{_ten_digits(rest)}{_base62_22(int.from_bytes(raw[8:], 'little'))}"


def invocation_bytes(text: str) -> bytes:
    """`inv_1…` -> 24 bytes.

    Raises:
        MalformedId: `bad format`, `bad length`, `unrecognized codec version`, `base62 decode error`, …
    """
    if not text.startswith(INVOCATION_PREFIX):
        _refuse_prefix(text, "inv")
    if len(text) != 38:
        raise MalformedId("bad length")
    return _unbase62(text[5:16], 8) + _unbase62(text[16:], 16)


_KINDS = ("inv", "dp", "sub", "sign", "prom", "snap", "mut", "vq")


def _refuse_prefix(text: str, kind: str) -> None:
    head, separator, rest = text.partition("_")
    if not text or (separator and not rest):
        raise MalformedId("bad length")
    if not separator:
        raise MalformedId("bad format")
    if head not in _KINDS:
        raise MalformedId(f"unrecognized resource type: {head}")
    if rest[0] != "1":
        raise MalformedId("unrecognized codec version")
    if head != kind:
        raise MalformedId("id doesn't match the expected type")


def awakeable_text(invocation: bytes, signal_index: int) -> str:
    raw = invocation + signal_index.to_bytes(4, "big")
    return AWAKEABLE_PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def awakeable_parts(text: str) -> tuple[bytes, int]:
    """`sign_1…` -> (invocation bytes, signal index); `prom_1…`, of protocols long gone, gives `NO_SIGNAL`.

    Raises:
        MalformedId: not an awakeable id.
    """
    is_old = text.startswith(_OLD_AWAKEABLE_PREFIX)
    if not is_old and not text.startswith(AWAKEABLE_PREFIX):
        _refuse_prefix(text, "sign")
    payload = text[len(AWAKEABLE_PREFIX) :]  # the same length for both
    try:
        raw = base64.b64decode(payload.translate(_TO_STANDARD) + "==", validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 28:
        raise MalformedId("base62 decode error" if is_old else "id doesn't match the expected type")
    return raw[:24], NO_SIGNAL if is_old else int.from_bytes(raw[24:], "big")


def deployment_text(raw: bytes) -> str:
    """16 bytes -> `dp_1…`."""
    return DEPLOYMENT_PREFIX + _base62_22(int.from_bytes(raw, "little"))


def check_resource(text: str, kind: str) -> None:
    """
    Args:
        kind: `dp` for a deployment, `sub` for a subscription.
    Raises:
        MalformedId: not an id of that kind.
    """
    prefix = f"{kind}_1"
    if not text.startswith(prefix):
        _refuse_prefix(text, kind)
    if len(text) != len(prefix) + 22:
        raise MalformedId("bad length")
    _unbase62(text[len(prefix) :], 16)


def _uuid(*parts: str) -> bytes:
    return hashlib.sha256(",".join(parts).encode()).digest()[:16]


def partition_key(key: str) -> bytes:
    """Of a keyed target, as the server derives it: xxh3-64 of the key and 0xFF."""
    return xxh3_64_intdigest(key.encode() + b"\xff").to_bytes(8, "big")


def workflow_run_id(service: str, key: str) -> bytes:
    """The same workflow and key give the same invocation, here and on a Restate server."""
    return partition_key(key) + _uuid("wf", service, key)


def idempotent_id(service: str, key: str | None, handler: str, idempotency_key: str) -> bytes:
    """The same target and idempotency key give the same invocation."""
    if key is None:
        # The server's own partition key for plain services depends on its bucket layout; any stable one will do.
        head = xxh3_64_intdigest(f"{service},{idempotency_key}".encode()).to_bytes(8, "big")
        return head + _uuid("ik", service, handler, idempotency_key)
    return partition_key(key) + _uuid("ik", service, key, handler, idempotency_key)


def fresh_id(key: str | None, at_ms: int, entropy: bytes) -> bytes:
    """A new invocation id from 24 bytes of `entropy`.

    Ids of plain services begin with the time, so that the database's index grows at its end instead of in the middle.
    """
    if key is None:
        head = (at_ms << 20 | int.from_bytes(entropy[:3], "big") >> 4).to_bytes(8, "little")
    else:
        head = partition_key(key)
    return head + entropy[8:24]
