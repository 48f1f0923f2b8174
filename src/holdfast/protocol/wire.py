"""Frames and protobuf fields of the Restate service protocol, versions 5 to 7.

A frame is an 8-byte header, `u16 type | u16 flags | u32 body length` (big-endian), then a protobuf body. The messages
are few and flat, so bodies are read with one generic field scan and written with concatenation; this module is on the
hot path, and a schema compiler's objects would cost more than everything else the engine does with a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct

HEADER = Struct(">HHI")
HEADER_BYTES = HEADER.size
_pack_header = HEADER.pack
_unpack_header = HEADER.unpack_from

_UNUSED_TYPES = 0x0500
"""SDKs send control messages and commands, all of them below."""

_U32_MAX, _U64_MAX = (1 << 32) - 1, (1 << 64) - 1

Content = Mapping[int, int | bytes]
"""Fields by number."""

Field = tuple[int, int | bytes]
"""(field number, varint or length-delimited value)."""


class MalformedFrame(ValueError):
    """The bytes are no frame or no protobuf body."""


class FrameTooLarge(MalformedFrame):
    """A header announces more than may be sent."""


def frame(message_type: int, body: bytes) -> bytes:
    """One frame with flags 0."""
    return _pack_header(message_type, 0, len(body)) + body


def varint(value: int) -> bytes:
    """An unsigned LEB128 integer."""
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = [bytes((value,)) for value in range(128)]
_TAGS = [varint(value) for value in range(256)]
_tag = _TAGS.__getitem__  # field numbers up to 31: all the protocol has


def uint(number: int, value: int) -> bytes:
    """A varint field."""
    return _tag(number << 3) + varint(value)


def data(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    size = len(value)
    return _tag(number << 3 | 2) + (_SMALL[size] if size < 0x80 else varint(size)) + value


def text(number: int, value: str) -> bytes:
    return data(number, value.encode())


def read_varint(buffer: bytes, position: int) -> tuple[int, int]:
    """(value, next position).

    Raises:
        MalformedFrame: the buffer ends inside the integer, or it is longer than 64 bits.
    """
    result = shift = 0
    try:
        while True:
            byte = buffer[position]
            position += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                if result > _U64_MAX:
                    break
                return result, position
            shift += 7
            if shift > 63:
                break
    except IndexError:
        raise MalformedFrame("protobuf body ends inside a varint") from None
    raise MalformedFrame("varint longer than 64 bits")


def fields(body: bytes) -> list[Field]:
    """All fields of a protobuf message in order.

    Raises:
        MalformedFrame: a field is cut off or has a wire type the protocol does not use.
    """
    out: list[Field] = []
    position, end = 0, len(body)
    while position < end:
        tag = body[position]
        position += 1
        if tag > 0x7F:
            tag, position = read_varint(body, position - 1)
        wire_type = tag & 7
        if wire_type == 2:
            size, position = read_varint(body, position)
            stop = position + size
            if stop > end:
                raise MalformedFrame("protobuf field is longer than its message")
            out.append((tag >> 3, body[position:stop]))
            position = stop
        elif wire_type == 0:
            value, position = read_varint(body, position)
            out.append((tag >> 3, value))
        elif wire_type == 5 and position + 4 <= end:  # skipped: no message of ours has fixed-width fields
            position += 4
        elif wire_type == 1 and position + 8 <= end:
            position += 8
        else:
            raise MalformedFrame(f"protobuf wire type {wire_type} at offset {position}")
    return out


def message(body: bytes) -> dict[int, int | bytes]:
    """Fields by number, the last one wins (protobuf's rule for scalars). Absent fields are absent keys."""
    return dict(fields(body))


def u32(content: Content, number: int, default: int | None = None) -> int:
    """A 32-bit integer field.

    Raises:
        MalformedFrame: of another type, too large, or absent without a default.
    """
    value = u64(content, number, default)
    if value > _U32_MAX:
        raise MalformedFrame(f"field {number} is {value}, more than 32 bits")
    return value


def u64(content: Content, number: int, default: int | None = None) -> int:
    """A 64-bit integer field. Raises as `u32`."""
    value = content.get(number, default)
    if not isinstance(value, int):
        raise MalformedFrame(f"field {number} is {'absent' if value is None else 'no integer'}")
    return value


def octets(content: Content, number: int, default: bytes = b"") -> bytes:
    """A length-delimited field. Raises MalformedFrame if it is of another type."""
    value = content.get(number, default)
    if not isinstance(value, bytes):
        raise MalformedFrame(f"field {number} is an integer")
    return value


def string(content: Content, number: int) -> str:
    """A text field, empty when absent. Raises MalformedFrame if it is of another type or no UTF-8."""
    try:
        return octets(content, number).decode()
    except UnicodeDecodeError:
        raise MalformedFrame(f"field {number} is no UTF-8") from None


def numbers(packed_or_single: int | bytes) -> list[int]:
    """A repeated u32, which may be packed or not."""
    if isinstance(packed_or_single, int):
        return [packed_or_single]
    out: list[int] = []
    position = 0
    while position < len(packed_or_single):
        value, position = read_varint(packed_or_single, position)
        out.append(value)
    return out


def split(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each frame in a buffer that holds whole frames only: what the journal stores."""
    position, end = 0, len(buffer)
    while position < end:
        message_type, _flags, size = _unpack_header(buffer, position)
        position += HEADER_BYTES
        yield message_type, buffer[position : position + size]
        position += size


class Decoder:
    """Collects bytes and yields whole frames, however the stream was cut."""

    __slots__ = ("_body_bytes_max", "_have", "_need", "_rest")

    def __init__(self, body_bytes_max: int = 32 << 20) -> None:
        self._rest: list[bytes] = []
        self._have = self._need = 0
        self._body_bytes_max = body_bytes_max

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Frames completed by `chunk`, as (type, body).

        Raises:
            MalformedFrame: a header announces a body over the limit; `FrameTooLarge` if it is a header indeed.
        """
        buffer = chunk
        if self._have:
            self._rest.append(chunk)
            self._have += len(chunk)
            if self._have < self._need:
                return []  # joined once, when the frame is whole: a large one comes in thousands of chunks
            buffer = b"".join(self._rest)
        need = HEADER_BYTES
        out: list[tuple[int, bytes]] = []
        position, end = 0, len(buffer)
        while end - position >= HEADER_BYTES:
            message_type, _flags, size = _unpack_header(buffer, position)
            if size > self._body_bytes_max:
                too_large = f"message of {size} bytes, the limit is {self._body_bytes_max}"
                if message_type >= _UNUSED_TYPES:  # no header at all
                    raise MalformedFrame(too_large)
                raise FrameTooLarge(f"{too_large}: keep large data elsewhere and pass a reference to it")
            stop = position + HEADER_BYTES + size
            if stop > end:
                need = HEADER_BYTES + size
                break
            out.append((message_type, buffer[position + HEADER_BYTES : stop]))
            position = stop
        self._have, self._need = end - position, need
        self._rest = [buffer[position:]] if position < end else []
        return out

    @property
    def is_empty(self) -> bool:
        """No part of a frame is waiting for its rest."""
        return not self._have
