"""The signed envelope a scan travels in.

A JSON object with four members: `data` (any JSON), `public_key` and `signature` (base64) and `timestamp` (Unix
seconds). The Ed25519 signature covers the decimal digits of the timestamp, directly followed by the bytes of `data`
exactly as they stand in the body: no separator, no hash, no re-serialisation. So the raw slice of `data` is cut out of
the body here; parsing and printing it again would change blanks, escapes or number spellings and break the signature.

Scans that are not JSON (JSON lines, XML) travel as one JSON string.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

BODY_BYTES_MAX = 10 * 1024 * 1024
WINDOW_S = 300
"""How far the timestamp may be from our clock, in either direction."""

LARGE_BYTES = 64 * 1024
"""A larger body is split by a quicker way, and is worth a thread of its own."""

_MEMBERS = ("data", "public_key", "signature", "timestamp")
_BLANKS = re.compile(r"[ \t\n\r]*")


class InvalidEnvelope(Exception):
    """The body is not a JSON object; answered with 400. `code` is `invalid_json` or `invalid_request`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SignatureRejected(Exception):
    """The envelope does not prove who sent it. The text is for the log: outside, every reason looks the same (401)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body taken apart, nothing verified yet."""

    members: dict[str, Any]
    raw_data: bytes
    """The bytes of `data` as they stand in the body; empty when the member is missing."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A verified envelope."""

    job_id: str
    """UUID version 7. The same scanner, timestamp and data always give the same id: sent again, it is the same job."""
    scanner_key: str
    signed_at_s: int
    scan: str
    """The scanner's output: the string that `data` is, or else the JSON text of `data`."""


def open_envelope(body: bytes, *, now_s: float) -> Submission:
    """Parse and verify a request body.

    Raises:
        InvalidEnvelope: not JSON, or not an object with distinct members.
        SignatureRejected: a member is missing or malformed, too old or too new, or the signature is not right.
    """
    return verify(parse(body), now_s=now_s)


def parse(body: bytes) -> Envelope:
    """Split a body into its members and the raw slice of `data`.

    Raises:
        InvalidEnvelope: not UTF-8, not JSON, not an object, or a member twice.
    """
    try:
        # Strict UTF-8 is one-to-one, so encoding a slice of the text gives back the very bytes it was decoded from.
        text = body.decode("utf-8")
        if len(body) > LARGE_BYTES and (quickly := _split_large(body)) is not None:
            return quickly
        members, slices = _scan_object(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidEnvelope("invalid_json", f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidEnvelope("invalid_json", "the body is nested too deeply") from error
    except ValueError as error:  # NaN, or an integer of thousands of digits
        raise InvalidEnvelope("invalid_json", f"the body holds a number that is not JSON: {error}") from error
    return Envelope(members, slices.get("data", "").encode())


def verify(envelope: Envelope, *, now_s: float) -> Submission:
    """Check presence, age, key, signature encoding and signature, in this order.

    Raises:
        SignatureRejected: at the first check that fails.
    """
    members = envelope.members
    if missing := [name for name in _MEMBERS if name not in members]:
        raise SignatureRejected(f"no {', '.join(missing)}")
    timestamp_s: Any = members["timestamp"]
    if type(timestamp_s) is not int or timestamp_s <= 0:  # bool is an int, and `true` is no time
        raise SignatureRejected("timestamp is not a positive integer")
    if not now_s - WINDOW_S <= timestamp_s <= now_s + WINDOW_S:
        age_s = round(now_s) - timestamp_s  # whole numbers: the sender's may be larger than any float
        raise SignatureRejected(f"timestamp is {age_s} s old; {WINDOW_S} s are allowed")
    public_key = _decode("public_key", members["public_key"], 32)
    signature = _decode("signature", members["signature"], 64)
    message = signed_bytes(timestamp_s, envelope.raw_data)
    try:
        VerifyKey(public_key).verify(message, signature)
    except BadSignatureError as error:
        raise SignatureRejected("the signature does not fit the key and the data") from error
    data: Any = members["data"]
    return Submission(
        job_id=job_id(timestamp_s, public_key, message),
        scanner_key=base64.b64encode(public_key).decode(),
        signed_at_s=timestamp_s,
        scan=_storable(data) if isinstance(data, str) else envelope.raw_data.decode(),
    )


def seal(scan: str | bytes, key: SigningKey, *, timestamp_s: int) -> bytes:
    """The scanner's side: sign a scanner's output and put it into an envelope.

    Text that is one JSON value is sent as it is, anything else (JSON lines, XML) as a JSON string. Line ends between the
    tokens of a value are left out, because `curl -d @file` would drop them and with them the signature's validity.
    """
    text = scan.decode("utf-8", "replace") if isinstance(scan, bytes) else scan
    try:
        json.loads(text)
        raw_data = text.replace("\n", "").replace("\r", "").strip(" \t").encode()
    except ValueError:
        raw_data = json.dumps(text, ensure_ascii=False).encode()
    signature = key.sign(signed_bytes(timestamp_s, raw_data)).signature
    return b'{"data":%b,"public_key":"%b","signature":"%b","timestamp":%d}' % (
        raw_data,
        base64.b64encode(key.verify_key.encode()),
        base64.b64encode(signature),
        timestamp_s,
    )


def signed_bytes(timestamp_s: int, raw_data: bytes) -> bytes:
    """What the signature covers."""
    return b"%d%b" % (timestamp_s, raw_data)


def job_id(timestamp_s: int, public_key: bytes, message: bytes) -> str:
    """A UUID version 7 made from what was signed and by whom, instead of from random bits.

    The signature itself stays out: a scanner may sign the same message twice with different results.
    """
    digest = hashlib.sha256(public_key + message).digest()
    bits = (timestamp_s * 1000) & ((1 << 48) - 1)
    bits = bits << 80 | int.from_bytes(digest[:10], "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76  # version
    bits = bits & ~(0x3 << 62) | 0x2 << 62  # variant
    return str(UUID(int=bits))


def _storable(text: str) -> str:
    """A JSON string may hold lone surrogates (backslash-u-d800), which no UTF-8 text can."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _decode(name: str, value: Any, length_bytes: int) -> bytes:
    try:
        decoded = base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise SignatureRejected(f"{name} is not base64") from error
    if len(decoded) != length_bytes:
        raise SignatureRejected(f"{name} is {len(decoded)} bytes long, not {length_bytes}")
    return decoded


def _split_large(body: bytes) -> Envelope | None:
    """The same for a body that is mostly `data`, several times as fast; None leaves all that is unusual to the slow way.

    msgspec finds the end of each value without decoding it, but takes the last of two members with one name, and does
    not say where they stood. So the members must account for the whole body, in one of the two usual spellings.
    """
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        members = {name: msgspec.json.decode(raw[name]) for name in _MEMBERS[1:]}
        raw_data = bytes(raw["data"])
        members["data"] = msgspec.json.decode(raw_data, type=str) if raw_data[:1] == b'"' else None
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError):
        return None
    is_whole = _is_made_of(body, raw, b",", b":") or _is_made_of(body, raw, b", ", b": ")
    return Envelope(members, raw_data) if is_whole else None


def _is_made_of(body: bytes, raw: dict[str, msgspec.Raw], comma: bytes, colon: bytes) -> bool:
    at = 0
    for number, (name, value) in enumerate(raw.items()):
        before = (comma if number else b"{") + b'"' + name.encode() + b'"' + colon
        if not body.startswith(before, at) or not body.startswith(memoryview(value), at + len(before)):
            return False
        at += len(before) + len(memoryview(value))
    return body[at:] == b"}"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _scan_object(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Decode the outer object by hand, remembering where each value began and ended."""
    members: dict[str, Any] = {}
    slices: dict[str, str] = {}
    at = _skip_blanks(text, 0)
    if text[at : at + 1] != "{":
        _DECODER.decode(text)  # says what is wrong when it is no JSON at all
        raise InvalidEnvelope("invalid_request", "the body is not a JSON object")
    at = _skip_blanks(text, at + 1)
    more = text[at : at + 1] != "}"
    while more:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("expected a member name in double quotes", text, at)
        name, at = _DECODER.raw_decode(text, at)
        at = _skip_blanks(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("expected a colon", text, at)
        begin = _skip_blanks(text, at + 1)
        value, end = _DECODER.raw_decode(text, begin)
        if name in members:
            # Two readers may disagree on which one counts; then what is verified is not what is used.
            raise InvalidEnvelope("invalid_request", f"the member {name!r} occurs twice")
        members[name], slices[name] = value, text[begin:end]
        at = _skip_blanks(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _skip_blanks(text, at + 1)
    if text[at : at + 1] != "}":
        raise json.JSONDecodeError("expected a comma or the end of the object", text, at)
    if (rest := _skip_blanks(text, at + 1)) != len(text):
        raise json.JSONDecodeError("unexpected text after the object", text, rest)
    return members, slices


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    assert match is not None  # it matches the empty text too
    return match.end()
