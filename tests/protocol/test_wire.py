"""Frames and protobuf fields: exact bytes, every way to cut a stream, and what malformed bytes may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol import messages as m
from holdfast.protocol import wire
from holdfast.protocol.wire import Decoder, MalformedFrame

# A handler that returns its JSON string input, on the wire: the same bytes in versions 5, 6 and 7.
TO_SDK = bytes.fromhex(
    "0000 0000 00000023  0a18 8414b45e8a2b8f9c5cb0d3c35d2aed54961cf9ccd21fa8d4  1203 646267  1801  4801"
    "0400 0000 00000008  7206 0a04 22686922".replace(" ", "")
)
FROM_SDK = bytes.fromhex("0401 0000 00000008 7206 0a04 22686922 0003 0000 00000000".replace(" ", ""))

MESSAGES = [
    (m.RUN, wire.uint(11, 1) + wire.text(12, "step")),
    (m.END, b""),
    (m.PROPOSE_RUN_COMPLETION, wire.uint(1, 300) + wire.data(14, bytes(200))),
    (m.SIGNAL, wire.uint(2, 17) + b"\x22\x00"),
]
STREAM = b"".join([wire.frame(kind, body) for kind, body in MESSAGES])

bodies = st.binary(max_size=60)
streams = st.lists(st.tuples(st.integers(0, 0xFFFF), bodies), max_size=8)
u64 = st.integers(0, 2**64 - 1)


def test_golden_start_and_input():
    start = m.start_frame(
        invocation_bytes=bytes.fromhex("8414b45e8a2b8f9c5cb0d3c35d2aed54961cf9ccd21fa8d4"),
        debug_id="dbg",
        known_entries=1,
        state=[],
        partial_state=False,
        key=None,
        retry_count=0,
        since_last_entry_ms=0,
        random_seed=1,
        version=6,
    )
    assert start + m.input_frame([], b'"hi"') == TO_SDK


def test_golden_output_and_end():
    (kind, body), end = Decoder().feed(FROM_SDK)
    assert kind == m.OUTPUT
    assert m.decode_result(wire.message(body), value=14, failure=15) == m.Result(value=b'"hi"')
    assert end == (m.END, b"")
    assert wire.frame(kind, body) + wire.frame(*end) == FROM_SDK


def test_messages_survive_every_split():
    for cut in range(len(STREAM) + 1):
        decoder = Decoder()
        assert decoder.feed(STREAM[:cut]) + decoder.feed(STREAM[cut:]) == MESSAGES
        assert decoder.is_empty


def test_messages_survive_byte_by_byte():
    decoder = Decoder()
    assert [message for byte in STREAM for message in decoder.feed(bytes((byte,)))] == MESSAGES


@given(streams, st.data())
def test_any_stream_survives_any_cuts(messages: list[tuple[int, bytes]], data: st.DataObject):
    stream = b"".join([wire.frame(kind, body) for kind, body in messages])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = Decoder()
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [message for part in parts for message in decoder.feed(part)] == messages
    assert decoder.is_empty
    assert list(wire.split(stream)) == messages


def test_a_frame_that_is_not_whole_yet_waits():
    decoder = Decoder()
    assert decoder.feed(STREAM[:-1]) == MESSAGES[:-1]
    assert not decoder.is_empty
    assert decoder.feed(STREAM[-1:]) == MESSAGES[-1:]


def test_flags_are_ignored():
    flagged = bytearray(wire.frame(m.PROPOSE_RUN_COMPLETION, b"\x08\x01"))
    flagged[2:4] = b"\x80\x00"  # version 7 asks for an acknowledgement of every proposal
    assert Decoder().feed(bytes(flagged)) == [(m.PROPOSE_RUN_COMPLETION, b"\x08\x01")]


def test_a_body_over_the_limit_is_refused_by_its_header_alone():
    header = wire.frame(m.RUN, bytes(11))[: wire.HEADER_BYTES]
    with pytest.raises(MalformedFrame, match="11 bytes, the limit is 10"):
        Decoder(body_bytes_max=10).feed(header)
    assert Decoder(body_bytes_max=11).feed(header) == []


VARINTS = {
    0: "00",
    1: "01",
    127: "7f",
    128: "8001",
    300: "ac02",
    2**32 - 1: "ffffffff0f",
    2**64 - 1: "ffffffffffffffffff01",
}


@pytest.mark.parametrize(("value", "encoded"), VARINTS.items())
def test_varint_bytes(value: int, encoded: str):
    assert wire.varint(value).hex() == encoded
    assert wire.read_varint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@given(u64)
def test_varint_round_trip(value: int):
    encoded = wire.varint(value)
    assert wire.read_varint(b"\xff" + encoded + b"\x05", 1) == (value, 1 + len(encoded))


@given(st.lists(st.tuples(st.integers(1, 17), u64 | bodies), max_size=8))
def test_fields_round_trip_in_order(written: list[tuple[int, int | bytes]]):
    body = b"".join(
        [wire.uint(number, value) if isinstance(value, int) else wire.data(number, value) for number, value in written]
    )
    assert wire.fields(body) == written
    assert wire.message(body) == dict(written)


def test_fixed_width_fields_are_skipped():
    body = wire.uint(1, 5) + b"\x15" + bytes(4) + b"\x19" + bytes(8) + wire.uint(4, 6)
    assert wire.fields(body) == [(1, 5), (4, 6)]


def test_repeated_numbers_are_read_packed_and_single():
    assert wire.numbers(5) == [5]
    assert wire.numbers(b"\x01\xac\x02") == [1, 300]
    assert wire.numbers(b"") == []


MALFORMED = {
    "varint is cut off": "0880",
    "varint longer than 64 bits": "08" + "ff" * 10 + "01",
    "varint of 70 bits in ten bytes": "08" + "ff" * 9 + "7f",
    "length is cut off": "0a",
    "field longer than its message": "0a05aa",
    "32-bit field is cut off": "0d000000",
    "64-bit field is cut off": "0900000000",
    "group, which proto3 has not": "0b0c",
    "wire type 6": "0e",
    "wire type 7": "0f",
    "tag is cut off": "80",
}


@pytest.mark.parametrize("encoded", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_fields(encoded: str):
    with pytest.raises(MalformedFrame):
        wire.fields(bytes.fromhex(encoded))


def _only_malformed(read: object, *arguments: object) -> None:
    try:
        read(*arguments)  # type: ignore[operator]
    except MalformedFrame:
        pass


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_are_frames_or_malformed(chunks: list[bytes]):
    decoder = Decoder(body_bytes_max=100)
    for chunk in chunks:
        _only_malformed(decoder.feed, chunk)


@given(st.binary(max_size=80))
def test_any_body_is_fields_or_malformed(body: bytes):
    _only_malformed(wire.fields, body)
    _only_malformed(wire.numbers, body)


def test_a_frame_in_thousands_of_chunks_is_copied_once():
    """A quarter of a million chunks: joining at each of them would copy terabytes."""
    body = bytes(4 << 20)
    stream = wire.frame(m.OUTPUT, body) + wire.frame(m.END, b"")
    decoder, found = Decoder(), list[tuple[int, bytes]]()
    for start in range(0, len(stream), 16):
        found += decoder.feed(stream[start : start + 16])
    assert found == [(m.OUTPUT, body), (m.END, b"")]
    assert decoder.is_empty


def test_a_header_that_is_none_is_told_from_one_that_is_too_large():
    with pytest.raises(wire.FrameTooLarge, match="pass a reference"):
        Decoder(body_bytes_max=10).feed(wire.HEADER.pack(m.OUTPUT, 0, 11))
    with pytest.raises(MalformedFrame) as caught:
        Decoder(body_bytes_max=10).feed(b"HTTP/1.1 500 Oops")
    assert type(caught.value) is MalformedFrame
