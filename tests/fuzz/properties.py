"""What must hold of everything that comes from outside, whatever it is. `tests/fuzz` asks each of it some times, and
`python -m tests.torture fuzz` for as long as you like.

Inputs are drawn from a seed, the same ones every time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from holdfast.errors import InvalidManifest
from holdfast.protocol import messages as m
from holdfast.protocol.discovery import parse_manifest
from holdfast.protocol.wire import Decoder, MalformedFrame, data, frame, uint
from tests.core.test_hostile import TARGETS, frames, goes_on
from tests.fuzz import calls
from tests.fuzz.asked import Asked
from tests.security.test_any_bytes import play, streams

BODY_BYTES_MAX = 200
SLOW_IS_FINE = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
]


@dataclass(frozen=True, slots=True)
class Property:
    """What must hold, and of how many inputs it is asked in CI."""

    title: str
    open: Callable[[], AbstractContextManager[Asked]]
    """What has to run meanwhile."""
    examples: int


def ask(one: Property, *, examples: int, first: int) -> int:
    """Ask it of so many inputs, drawn from the seed `first`; how many there were.

    Raises:
        AssertionError: it does not hold of one of them.
    """
    count = 0
    with one.open() as asked:

        @seed(first)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=SLOW_IS_FINE,
            # A server remembers what it was told before: what fails is not the same when it is told again.
            phases=[Phase.generate] if one.title.startswith("http") else [Phase.generate, Phase.shrink],
        )
        @given(asked.inputs)
        def each(drawn: Any) -> None:
            nonlocal count
            count += 1
            asked.holds(drawn)

        each()
    return count


def _pure(
    inputs: st.SearchStrategy[Any], holds: Callable[[Any], object]
) -> Callable[[], AbstractContextManager[Asked]]:
    return lambda: nullcontext(Asked(inputs, holds))


# ---- the protocol --------------------------------------------------------------------------------------------------------

_numbers = st.integers(0, 2**64 - 1)
_fields = st.tuples(st.integers(1, 31), _numbers | st.binary(max_size=20))
_bodies = st.recursive(
    st.binary(max_size=20)
    | st.lists(_fields, max_size=5).map(lambda written: b"".join(_field(*one) for one in written)),
    lambda inner: st.tuples(st.integers(1, 31), inner).map(lambda one: data(*one)),
    max_leaves=4,
)
_kinds = st.sampled_from([*m.COMMAND_NAMES, m.ERROR, m.SUSPENSION, m.AWAITING_ON, m.PROPOSE_RUN_COMPLETION])


def _field(number: int, value: int | bytes) -> bytes:
    return uint(number, value) if isinstance(value, int) else data(number, value)


@st.composite
def _cut_streams(draw: st.DrawFn) -> list[bytes]:
    """Frames and what looks like some, in pieces."""
    whole = draw(
        st.lists(st.tuples(_kinds | st.integers(0, 0xFFFF), _bodies).map(lambda one: frame(*one)), max_size=4).map(
            b"".join
        )
    ) + draw(st.binary(max_size=12))
    cuts = sorted(draw(st.sets(st.integers(0, len(whole)), max_size=5)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def _decodes_in_any_pieces(pieces: list[bytes]) -> None:
    """The same frames, or the same refusal, however the stream is cut."""
    in_pieces, at_once = ([*_decoded(cut)] for cut in (pieces, [b"".join(pieces)]))
    assert in_pieces == at_once


def _decoded(pieces: list[bytes]) -> list[Any]:
    decoder = Decoder(BODY_BYTES_MAX)
    out: list[Any] = []
    try:
        for piece in pieces:
            out += decoder.feed(piece)
    except MalformedFrame as error:
        # What was complete before it in the same piece is not given out: the attempt is over.
        return [str(error)]
    assert sum(8 + len(body) for _, body in out) <= sum(map(len, pieces))
    return [*out, decoder.is_empty]


_READERS: dict[str, Callable[[int, bytes], Any]] = {
    "call": m.call_request,
    "completions": m.completion_ids,
    "error": lambda _, body: m.attempt_error(body),
    "output": lambda _, body: m.output_result(body),
    "proposal": lambda _, body: m.run_proposal(body),
    "suspension": lambda _, body: m.suspension(body),
    "awaiting": lambda _, body: m.awaiting_on(body),
    "leaf": m.notification_leaf,
    "value": lambda _, body: m.decode_value(body),
    "failure": lambda _, body: m.decode_failure(body),
}


def _is_read_or_malformed(drawn: tuple[str, int, bytes]) -> None:
    name, kind, body = drawn
    try:
        _READERS[name](kind, body)
    except MalformedFrame:
        pass


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def _is_a_manifest_or_invalid(body: bytes) -> None:
    try:
        parse_manifest(body)
    except InvalidManifest:
        pass


ALL: dict[str, Property] = {
    one.title: one
    for one in (
        Property("decoder", _pure(_cut_streams(), _decodes_in_any_pieces), 300),
        Property(
            "messages",
            _pure(st.tuples(st.sampled_from([*_READERS]), _kinds, _bodies), _is_read_or_malformed),
            500,
        ),
        Property("manifests", _pure(st.binary(max_size=40), _is_a_manifest_or_invalid), 100),
        Property("attempts", _pure(st.tuples(st.sampled_from(TARGETS), frames), lambda one: goes_on(*one)), 50),
        Property("connections", _pure(streams(), lambda pieces: asyncio.run(play(pieces))), 50),
        Property("http: ingress", calls.ingress, 60),
        Property("http: admin", calls.admin, 60),
        Property("http: workflows", calls.workflows, 60),
    )
}
