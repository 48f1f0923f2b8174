"""Ids are spelled and derived as a Restate server does it, and malformed ones say why."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import ids
from holdfast.core.ids import MalformedId

INVOCATIONS = {
    "8414b45e8a2b8f9c5cb0d3c35d2aed54961cf9ccd21fa8d4": "inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG",
    "87c28b7223d06878da71814cdaa728248400e27323267e4d": "inv_1akW45ORM7j12me3GpZiiLvlCyNJ1Z8UQO",
}


@pytest.mark.parametrize(("raw", "text"), INVOCATIONS.items())
def test_invocation_vectors(raw: str, text: str):
    assert ids.invocation_text(bytes.fromhex(raw)) == text
    assert ids.invocation_bytes(text).hex() == raw


def test_awakeable_vector():
    raw = bytes.fromhex("87c28b7223d06878da71814cdaa728248400e27323267e4d")
    assert ids.awakeable_text(raw, 17) == "sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ"
    assert ids.awakeable_parts("sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ") == (raw, 17)


def test_deployment_vector():
    assert ids.deployment_text(bytes.fromhex("01a1fd077070c41e8ffa7f4679b8189c")) == "dp_14Ky6dLCXPKnOHrq4f8Dp97"


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("a", 1417734710680270745),
        ("zz", 16126871750165197044),
        ("ob1", 4082188079615716570),
        ("wf9", 13137956455592195845),
    ],
)
def test_partition_key_vectors(key: str, number: int):
    assert int.from_bytes(ids.partition_key(key), "big") == number


def test_workflow_vector():
    raw = ids.workflow_run_id("W", "w1")
    assert ids.invocation_text(raw) == "inv_12kpUQONmeFb0f6RCQUL06M6iQaCnI02st"
    assert raw[8:].hex() == "4d1d5432daa176b4f90c55dde7060208" == hashlib.sha256(b"wf,W,w1").hexdigest()[:32]


def test_idempotency_vector():
    raw = ids.idempotent_id("S", None, "echo", "k1")
    assert raw[8:].hex() == "08fdaf7c9fd91f1992d9d035084d3478" == hashlib.sha256(b"ik,S,echo,k1").hexdigest()[:32]


def test_the_same_request_has_the_same_id_and_another_one_another():
    requests = [
        ("S", None, "h", "i"),
        ("S", None, "h", "j"),
        ("S", None, "g", "i"),
        ("T", None, "h", "i"),
        ("S", "k", "h", "i"),
        ("S", "l", "h", "i"),
    ]
    assert len({ids.idempotent_id(*request) for request in requests}) == len(requests)
    assert [ids.idempotent_id(*request) for request in requests] == [ids.idempotent_id(*r) for r in requests]
    assert ids.idempotent_id("S", "k", "h", "i")[:8] == ids.partition_key("k")


@given(st.binary(min_size=24, max_size=24))
def test_invocation_round_trip(raw: bytes):
    text = ids.invocation_text(raw)
    assert len(text) == 38
    assert ids.invocation_bytes(text) == raw


@given(st.binary(min_size=24, max_size=24), st.integers(0, 2**32 - 1))
def test_awakeable_round_trip(raw: bytes, index: int):
    text = ids.awakeable_text(raw, index)
    assert len(text) == len("sign_1") + 38
    assert ids.awakeable_parts(text) == (raw, index)


@pytest.mark.parametrize("raw", [bytes(24), b"\xff" * 24])
def test_extremes_round_trip(raw: bytes):
    assert ids.invocation_bytes(ids.invocation_text(raw)) == raw


GOOD = "inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG"
MALFORMED = {
    "too short": (GOOD[:-1], "bad length"),
    "too long": (GOOD + "0", "bad length"),
    "prefix only": ("inv_1", "bad length"),
    "no digit of base62": (GOOD[:-1] + "-", "base62 decode error"),
    "number over 64 bits": ("inv_1" + "Z" * 11 + GOOD[16:], "base62 decode error"),
    "number over 128 bits": (GOOD[:16] + "Z" * 22, "base62 decode error"),
    "other codec version": ("inv_2" + GOOD[5:], "unrecognized codec version"),
    "other kind": ("dp_14Ky6dLCXPKnOHrq4f8Dp97", "id doesn't match the expected type"),
    "unknown kind": ("foo_1abc", "unrecognized resource type: foo"),
    "empty": ("", "bad length"),
    "no separator": ("inv1abc", "bad format"),
    "nothing behind the separator": ("inv_", "bad length"),
    "digits of another script": ("inv_1" + "٣" * 33, "base62 decode error"),
}


@pytest.mark.parametrize(("text", "reason"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_invocation_ids_say_why(text: str, reason: str):
    with pytest.raises(MalformedId) as refusal:
        ids.invocation_bytes(text)
    assert str(refusal.value) == reason


AWAKEABLE = "sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ"
MALFORMED_AWAKEABLES = {
    "an invocation": (GOOD, "id doesn't match the expected type"),
    "too short": (AWAKEABLE[:-1], "id doesn't match the expected type"),
    "too long": (AWAKEABLE + "AAAA", "id doesn't match the expected type"),
    "no base64": (AWAKEABLE[:-1] + "!", "id doesn't match the expected type"),
    "standard alphabet": (AWAKEABLE[:10] + "+" + AWAKEABLE[11:], "id doesn't match the expected type"),
    "padding inside": (AWAKEABLE[:-1] + "=", "id doesn't match the expected type"),
    "old protocol, too short": ("prom_1bad", "base62 decode error"),
    "other codec version": ("sign_2" + AWAKEABLE[6:], "unrecognized codec version"),
    "empty": ("", "bad length"),
}


@pytest.mark.parametrize(("text", "reason"), MALFORMED_AWAKEABLES.values(), ids=MALFORMED_AWAKEABLES.keys())
def test_malformed_awakeable_ids_say_why(text: str, reason: str):
    with pytest.raises(MalformedId) as refusal:
        ids.awakeable_parts(text)
    assert str(refusal.value) == reason


def test_awakeables_of_old_protocols_are_accepted_and_mean_nobody():
    assert ids.awakeable_parts("prom_1" + AWAKEABLE[6:])[1] == ids.NO_SIGNAL


@given(st.text(max_size=50) | st.text(max_size=40).map(lambda rest: "inv_1" + rest))
def test_any_text_is_an_id_or_malformed(text: str):
    for read in (ids.invocation_bytes, ids.awakeable_parts):
        try:
            read(text)
        except MalformedId:
            pass


def test_fresh_ids_differ_and_keyed_ones_share_their_partition():
    one = ids.fresh_id("k", 1_700_000_000_000, bytes(24))
    two = ids.fresh_id("k", 1_700_000_000_000, bytes(23) + b"\x01")
    assert one != two
    assert one[:8] == two[:8] == ids.partition_key("k")


def test_fresh_ids_of_plain_services_sort_by_time():
    texts = [
        ids.invocation_text(ids.fresh_id(None, at_ms, bytes([at_ms % 251]) * 24))
        for at_ms in range(1_700_000_000_000, 1_700_000_000_500, 7)
    ]
    assert texts == sorted(texts, key=str.swapcase)
    assert len(set(texts)) == len(texts)
