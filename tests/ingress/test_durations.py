from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidRequest
from holdfast.ingress.durations import DELAY_DAYS_MAX, parse_delay_ms
from tests.ingress.durations import BARE_NUMBERS, INVALID, VALID


@pytest.mark.parametrize("text", VALID)
def test_a_duration_is_understood(text: str) -> None:
    assert parse_delay_ms(text) == VALID[text]


@pytest.mark.parametrize("text", [text for text in INVALID if text not in BARE_NUMBERS])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^bad delay query parameter, must be a ISO8601 duration: ") as refusal:
        parse_delay_ms(text)
    assert refusal.value.status == 400


@given(st.integers(0, DELAY_DAYS_MAX * 86_400_000))
def test_a_bare_number_is_milliseconds(delay_ms: int) -> None:
    assert parse_delay_ms(str(delay_ms)) == delay_ms == parse_delay_ms(f"{delay_ms}ms")


@given(st.integers(0, 999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_the_notations_agree(days: int, hours: int, minutes: int, seconds: int, millis: int) -> None:
    expected_ms = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + millis
    for text in (
        f"P{days}DT{hours}H{minutes}M{seconds}.{millis:03d}S",
        f"{days} days {hours}h {minutes}min, {seconds}s {millis}ms",
        f"{days}d{hours}h{minutes}m{seconds}.{millis:03d}s",
        f"{days}d {hours:02d}:{minutes:02d}:{seconds:02d}.{millis:03d}",
    ):
        assert parse_delay_ms(text) == expected_ms


@given(st.text(alphabet="0123456789 .,:+-PTYMWDHSdhmsuago", max_size=14))
def test_any_text_is_a_delay_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_delay_ms(text) <= DELAY_DAYS_MAX * 86_400_000
    except InvalidRequest:
        pass


def test_the_longest_delay() -> None:
    assert parse_delay_ms(f"{DELAY_DAYS_MAX}d") == DELAY_DAYS_MAX * 86_400_000
    for text in (f"{DELAY_DAYS_MAX + 1}d", str(DELAY_DAYS_MAX * 86_400_000 + 1), "9" * 5_000):
        with pytest.raises(InvalidRequest, match="longer than"):
            parse_delay_ms(text)
