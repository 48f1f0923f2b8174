"""The wallet as a pure state machine: money is neither made nor lost, whatever is booked in whatever order."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.leads.booking import (
    HOLDS_MAX,
    RECENT_RECEIPTS,
    Booking,
    Kind,
    LedgerEntry,
    Receipt,
    Refused,
    Wallet,
    book,
    overflow,
    price_cents,
)
from apps.leads.wallet import balance_of


class Account:
    """A wallet with its receipts and its ledger, kept as the virtual object keeps them."""

    def __init__(self) -> None:
        self.wallet = Wallet()
        self.old: dict[str, Receipt] = {}
        self.ledger: list[LedgerEntry] = []

    def do(self, kind: Kind, booking: Booking) -> Receipt:
        def receipt(key: str) -> Receipt | None:
            return self.wallet.recent.get(key) or self.old.get(key)

        booked = book(self.wallet, kind, booking, earlier=receipt(booking.key), of=receipt(booking.of))
        if booked.entry is not None:
            self.ledger.append(booked.entry)
        self.wallet, old = overflow(booked.wallet)
        self.old |= old
        return booked.receipt

    def top_up(self, cents: int) -> None:
        self.do(Kind.TOP_UP, Booking(key=f"top-up-{len(self.ledger)}", amount_cents=cents))


KEYS = st.sampled_from([f"k{number}" for number in range(12)])
BOOKINGS = st.tuples(
    st.sampled_from([*Kind]),
    st.builds(
        Booking,
        key=KEYS,
        of=st.one_of(st.just(""), KEYS),
        amount_cents=st.sampled_from([-1, 0, 1, 99, 100, 500, 999]),
        tier=st.sampled_from(["", "free", "starter", "pro", "gold"]),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BOOKINGS, max_size=60))
def test_after_any_history_the_ledger_sums_to_the_balance_and_nothing_is_overdrawn(
    history: list[tuple[Kind, Booking]],
) -> None:
    account = Account()
    receipts: dict[str, Receipt] = {}
    for kind, booking in history:
        before = account.wallet
        try:
            receipt = account.do(kind, booking)
        except Refused:
            assert account.wallet == before
            continue
        if booking.key in receipts:  # a key is booked once, for ever
            assert (receipt.seq, receipt.price_cents) == (receipts[booking.key].seq, receipts[booking.key].price_cents)
            assert account.wallet == before
        receipts[booking.key] = receipt
        wallet = account.wallet
        assert balance_of(account.ledger) == (wallet.balance_cents, wallet.held_cents)
        assert 0 <= wallet.held_cents <= wallet.balance_cents
        assert wallet.lifetime_topped_up_cents - wallet.lifetime_spent_cents == wallet.balance_cents
        assert [entry.seq for entry in account.ledger] == [*range(wallet.booking_count)]
        assert len(wallet.recent) <= RECENT_RECEIPTS


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BOOKINGS, max_size=40))
def test_a_history_that_is_told_twice_changes_nothing_the_second_time(history: list[tuple[Kind, Booking]]) -> None:
    account = Account()
    done: list[tuple[Kind, Booking]] = []
    for kind, booking in history:
        try:
            account.do(kind, booking)
        except Refused:
            continue
        done.append((kind, booking))
    before = account.wallet, len(account.ledger)
    for kind, booking in done:
        account.do(kind, booking)
    assert (account.wallet, len(account.ledger)) == before


@pytest.mark.parametrize(
    ("list_cents", "tier", "price"),
    [
        (100, "free", 100),
        (100, "starter", 80),
        (100, "pro", 50),
        (500, "starter", 400),
        (99, "starter", 79),
        (1, "pro", 0),
    ],
)
def test_a_tier_takes_its_discount_off_rounded_down(list_cents: int, tier: str, price: int) -> None:
    assert price_cents(list_cents, tier) == price


def test_a_charge_needs_the_money_at_hand_and_says_what_is_missing() -> None:
    account = Account()
    account.top_up(120)
    account.do(Kind.HOLD, Booking(key="h", amount_cents=100))
    with pytest.raises(Refused, match="100 cents required, 20 available") as refused:
        account.do(Kind.CHARGE, Booking(key="c", amount_cents=100))
    assert (refused.value.code, refused.value.details) == (402, {"required_cents": 100, "available_cents": 20})
    account.do(Kind.RELEASE, Booking(key="r", of="h"))
    assert account.do(Kind.CHARGE, Booking(key="c", amount_cents=100)).balance_cents == 20


def test_a_hold_is_captured_at_the_price_it_was_made_for() -> None:
    account = Account()
    account.top_up(1000)
    account.do(Kind.HOLD, Booking(key="h", amount_cents=500))
    account.do(Kind.SET_TIER, Booking(key="t", tier="pro"))
    assert account.do(Kind.CAPTURE, Booking(key="c", of="h")).price_cents == 500
    assert (account.wallet.balance_cents, account.wallet.holds) == (500, {})


@pytest.mark.parametrize(
    ("first", "second"), [(Kind.CAPTURE, Kind.RELEASE), (Kind.RELEASE, Kind.CAPTURE), (Kind.CAPTURE, Kind.CAPTURE)]
)
def test_a_hold_is_settled_once(first: Kind, second: Kind) -> None:
    account = Account()
    account.top_up(1000)
    account.do(Kind.HOLD, Booking(key="h", amount_cents=500))
    account.do(first, Booking(key="first", of="h"))
    with pytest.raises(Refused, match="settled already"):
        account.do(second, Booking(key="second", of="h"))


@pytest.mark.parametrize(("take", "undo"), [(Kind.CHARGE, Kind.REFUND), (Kind.HOLD, Kind.RELEASE)])
def test_what_was_undone_before_it_came_cannot_come_any_more(take: Kind, undo: Kind) -> None:
    account = Account()
    account.top_up(1000)
    assert account.do(undo, Booking(key="u", of="late")).price_cents == 0
    with pytest.raises(Refused, match="key late was used"):
        account.do(take, Booking(key="late", amount_cents=100))
    assert (account.wallet.balance_cents, account.wallet.held_cents) == (1000, 0)


def test_a_charge_is_refunded_once_and_a_capture_too() -> None:
    account = Account()
    account.top_up(1000)
    account.do(Kind.CHARGE, Booking(key="c", amount_cents=100))
    account.do(Kind.HOLD, Booking(key="h", amount_cents=500))
    account.do(Kind.CAPTURE, Booking(key="hc", of="h"))
    for number, key in enumerate(["c", "hc"]):
        account.do(Kind.REFUND, Booking(key=f"r{number}", of=key))
        with pytest.raises(Refused, match="settled already"):
            account.do(Kind.REFUND, Booking(key=f"again{number}", of=key))
    assert account.wallet.balance_cents == 1000
    assert account.wallet.lifetime_spent_cents == 0


def test_a_key_belongs_to_one_booking_for_ever_also_when_its_receipt_is_old() -> None:
    account = Account()
    account.top_up(10_000)
    account.do(Kind.CHARGE, Booking(key="c", amount_cents=100))
    for _ in range(2 * RECENT_RECEIPTS):
        account.top_up(1)
    assert "c" not in account.wallet.recent
    balance = account.wallet.balance_cents
    assert account.do(Kind.CHARGE, Booking(key="c", amount_cents=100)).price_cents == 100
    assert account.wallet.balance_cents == balance
    with pytest.raises(Refused, match="key c was used for a charge of 100 cents"):
        account.do(Kind.CHARGE, Booking(key="c", amount_cents=200))


def test_holds_and_receipts_of_a_wallet_are_bounded() -> None:
    account = Account()
    account.top_up(1_000_000)
    for number in range(HOLDS_MAX):
        account.do(Kind.HOLD, Booking(key=f"h{number}", amount_cents=1))
    with pytest.raises(Refused, match="holds are open"):
        account.do(Kind.HOLD, Booking(key="one too many", amount_cents=1))
    assert len(msgspec.json.encode(account.wallet)) < 10_000
