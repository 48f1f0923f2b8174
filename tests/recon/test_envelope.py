"""The signed envelope: raw bytes are signed, checks come in order, every refusal looks the same from outside."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

import pytest
from nacl.signing import SigningKey

from apps.recon import envelope
from apps.recon.envelope import (
    InvalidEnvelope,
    SignatureRejected,
    Submission,
    open_envelope,
    parse,
    seal,
    signed_bytes,
)

NOW_S = 1_790_000_000
KEY = SigningKey(bytes(range(32)))


@pytest.fixture(autouse=True, params=["small", "large"])
def split_as(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large body is split in another way, which must not be told from the first."""
    if request.param == "large":
        monkeypatch.setattr(envelope, "LARGE_BYTES", -1)


def sealed(raw_data: bytes, *, template: bytes | None = None, timestamp_s: int = NOW_S, key: SigningKey = KEY) -> bytes:
    """An envelope around exactly these bytes; `template` shows the members' order and the blanks around them."""
    template = template or b'{"data":%(data)b,"public_key":"%(key)b","signature":"%(sig)b","timestamp":%(time)d}'
    return template % {
        b"data": raw_data,
        b"key": base64.b64encode(key.verify_key.encode()),
        b"sig": base64.b64encode(key.sign(b"%d%b" % (timestamp_s, raw_data)).signature),
        b"time": timestamp_s,
    }


def opened(body: bytes, now_s: float = NOW_S) -> Submission:
    return open_envelope(body, now_s=now_s)


RAW_DATA = {
    "compact": b'{"ip":"10.0.0.1","port":80}',
    "blanks inside": b'{ "ip" : "10.0.0.1" ,\n\t"port":  80 }',
    "escapes that printing would change": rb'{"name":"\u0041\/\u00e9"}',
    "text beyond ASCII": '{"name":"é漢\U0001f600"}'.encode(),
    "number spellings": b"[1.0, 1e3, -0, 0.10]",
    "a string": rb'"{\"ip\":\"10.0.0.1\",\"port\":80}\n"',
    "a member named like ours, inside": b'{"data":{"timestamp":1},"signature":"x"}',
    "brackets inside strings": rb'["}", "{\"data\":", "]\\"]',
    "null": b"null",
    "an array": b"[]",
}


@pytest.mark.parametrize("raw_data", RAW_DATA.values(), ids=RAW_DATA)
def test_the_raw_slice_is_what_is_verified(raw_data: bytes):
    assert parse(sealed(raw_data)).raw_data == raw_data
    assert opened(sealed(raw_data)).signed_at_s == NOW_S


def test_blanks_around_the_members_are_not_part_of_the_data():
    template = (
        b' \r\n{ "timestamp" :\t%(time)d , "data" : \n %(data)b \t , "signature":"%(sig)b","public_key":"%(key)b"} \n'
    )
    assert parse(sealed(b"[1,  2]", template=template)).raw_data == b"[1,  2]"
    assert opened(sealed(b"[1,  2]", template=template)).scan == "[1,  2]"


def test_data_printed_again_no_longer_fits_its_signature():
    body = sealed(b'{"port": 80}')
    again = json.dumps(json.loads(body), separators=(",", ":")).encode()
    with pytest.raises(SignatureRejected):
        opened(again)


def test_the_signed_bytes_are_digits_and_data_without_anything_between():
    assert signed_bytes(1700000000, b'{"a": 1}') == b'1700000000{"a": 1}'


def test_a_known_envelope_is_accepted():
    """Made once with another Ed25519 implementation (RFC 8032 arithmetic in Python), so both sides cannot be wrong alike."""
    body = (
        b'{"data":[{"ip":"192.0.2.1","port":22}],"public_key":"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",'
        b'"signature":"Dm7NTILsm7ypcyiCQCPNbbkg4NHP6ki+FPNHvmpY2iQdgcQ634tMp5T0K3BbB+JSiKIxJx4HDK7kHOw8W1RZBQ==","timestamp":1790000000}'
    )
    assert opened(body).scan == '[{"ip":"192.0.2.1","port":22}]'


def test_a_string_is_unpacked_and_anything_else_stays_json_text():
    assert opened(sealed(rb'"line 1\nline 2"')).scan == "line 1\nline 2"
    assert opened(sealed(b"[ 1 ]")).scan == "[ 1 ]"


def test_a_lone_surrogate_becomes_text_that_can_be_stored():
    opened(sealed(rb'"\ud800 x"')).scan.encode("utf-8")


def changed(**changes: Any) -> bytes:
    """A valid envelope with members replaced, or removed where the value is `...`; the signature is not renewed."""
    members = json.loads(sealed(b'"scan"')) | changes
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


SMALL = base64.b64encode(bytes(31)).decode()
OTHER_KEY = base64.b64encode(SigningKey(bytes(32)).verify_key.encode()).decode()

REJECTED = {
    "no data": (changed(data=...), "no data"),
    "no public_key": (changed(public_key=...), "no public_key"),
    "no signature": (changed(signature=...), "no signature"),
    "no timestamp": (changed(timestamp=...), "no timestamp"),
    "nothing at all": (b"{}", "no data, public_key, signature, timestamp"),
    "timestamp 0": (changed(timestamp=0), "positive integer"),
    "timestamp negative": (changed(timestamp=-NOW_S), "positive integer"),
    "timestamp as text": (changed(timestamp=str(NOW_S)), "positive integer"),
    "timestamp as fraction": (changed(timestamp=float(NOW_S)), "positive integer"),
    "timestamp true": (changed(timestamp=True), "positive integer"),
    "too old": (sealed(b"1", timestamp_s=NOW_S - 301), "301 s old"),
    "too new": (sealed(b"1", timestamp_s=NOW_S + 301), "-301 s old"),
    "newer than any float": (sealed(b"1", timestamp_s=10**400), "s old"),
    "key not base64": (changed(public_key="!" * 44), "public_key is not base64"),
    "key not text": (changed(public_key=5), "public_key is not base64"),
    "key too short": (changed(public_key=SMALL), "public_key is 31 bytes"),
    "signature not base64": (changed(signature="é"), "signature is not base64"),
    "signature too short": (changed(signature=SMALL), "signature is 31 bytes"),
    "other key": (changed(public_key=OTHER_KEY), "does not fit"),
    "other data": (changed(data="scan "), "does not fit"),
    "other timestamp": (changed(timestamp=NOW_S + 1), "does not fit"),
    "an all-zero key": (changed(public_key=base64.b64encode(bytes(32)).decode()), "does not fit"),
}


@pytest.mark.parametrize(("body", "reason"), REJECTED.values(), ids=REJECTED)
def test_rejected(body: bytes, reason: str):
    with pytest.raises(SignatureRejected, match=reason):
        opened(body)


def test_checks_come_in_order():
    """A body with every fault is refused for the first; mending one shows the next."""
    body = changed(timestamp=NOW_S - 999, public_key="!", signature="!", data=...)
    order = []
    for mended in ({"data": 1}, {"timestamp": NOW_S}, {"public_key": OTHER_KEY}, {"signature": "A" * 86 + "=="}, {}):
        with pytest.raises(SignatureRejected) as caught:
            opened(body)
        order.append(str(caught.value).split()[0] + " " + str(caught.value).split()[1])
        body = json.dumps(json.loads(body) | mended).encode()
    assert order == ["no data", "timestamp is", "public_key is", "signature is", "the signature"]


@pytest.mark.parametrize("age_s", [-300, 0, 300])
def test_the_window_is_five_minutes_either_way(age_s: int):
    assert opened(sealed(b"1", timestamp_s=NOW_S - age_s)).signed_at_s == NOW_S - age_s


INVALID = {
    "empty": (b"", "invalid_json"),
    "no JSON": (b"hello", "invalid_json"),
    "cut off": (sealed(b"1")[:-1], "invalid_json"),
    "more after the end": (sealed(b"1") + b"x", "invalid_json"),
    "no colon": (b'{"data" 1}', "invalid_json"),
    "no comma": (b'{"data":1 "timestamp":2}', "invalid_json"),
    "comma at the end": (b'{"data":1,}', "invalid_json"),
    "name without quotes": (b"{data:1}", "invalid_json"),
    "number as a name": (b"{1:1}", "invalid_json"),
    "NaN": (b'{"data":NaN}', "invalid_json"),
    "Infinity": (b'{"data":-Infinity}', "invalid_json"),
    "digits without end": (b'{"data":' + b"9" * 5000 + b"}", "invalid_json"),
    "nested without end": (b'{"data":' + b"[" * 200_000, "invalid_json"),
    "not UTF-8": (b'{"data":"\xff"}', "invalid_json"),
    "an array": (b"[]", "invalid_request"),
    "a number": (b"5", "invalid_request"),
    "the same member twice": (b'{"data":1,"data":2}', "invalid_request"),
    "twice, once escaped": (rb'{"data":1,"d\u0061ta":2}', "invalid_request"),
}


@pytest.mark.parametrize(("body", "code"), INVALID.values(), ids=INVALID)
def test_invalid(body: bytes, code: str):
    with pytest.raises(InvalidEnvelope) as caught:
        opened(body)
    assert caught.value.code == code


def test_the_same_submission_is_the_same_job():
    first = opened(sealed(b'"scan"'))
    template = b'{"timestamp":%(time)d, "signature":"%(sig)b", "public_key":"%(key)b", "data":%(data)b, "more":1}'
    assert opened(sealed(b'"scan"', template=template), NOW_S + 200).job_id == first.job_id
    others = [
        sealed(b'"scan"', timestamp_s=NOW_S + 1),
        sealed(b'"scan2"'),
        sealed(b'"scan"', key=SigningKey(bytes(32))),
    ]
    assert len({first.job_id, *(opened(body).job_id for body in others)}) == 4


def test_job_ids_are_uuids_of_version_7_that_sort_by_time():
    job_ids = [opened(sealed(b"1", timestamp_s=NOW_S + second)).job_id for second in range(50)]
    assert job_ids == sorted(job_ids)
    for second, job_id in enumerate(job_ids):
        assert (UUID(job_id).version, UUID(job_id).variant) == (7, "specified in RFC 4122")
        assert UUID(job_id).int >> 80 == (NOW_S + second) * 1000


@pytest.mark.parametrize(
    "scan", ['{"ip":"::1","port":1}\n{"ip":"::1","port":2}\n', "<?xml ?>\n<a/>", "[ 1,\n2 ]\n", "é"]
)
def test_what_a_scanner_seals_can_be_opened(scan: str):
    body = seal(scan, KEY, timestamp_s=NOW_S)
    assert b"\n" not in body, "curl -d @file would drop it"
    submission = opened(body)
    assert submission.scan in (scan, "[ 1,2 ]")
    assert submission.scanner_key == base64.b64encode(KEY.verify_key.encode()).decode()
