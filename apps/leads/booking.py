"""The wallet as a pure state machine: what a booking does to a balance. No engine, no clock, no database.

    available = balance - held
    top_up   balance + a                          charge   balance - price, refused if price > available
    hold     held + price, refused likewise       capture  balance - price, held - price: the hold becomes a charge
    release  held - price: the hold is over       refund   balance + price of a charge or capture, once

Every booking has a key. The same key again changes nothing and gives the receipt of the first time; with other contents it
is refused. `release` and `refund` of something that never came are booked as well, with nothing: if it comes late, it is
refused. So undoing works whether or not what is undone took effect.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

TIER_DISCOUNT_PERCENT = {"free": 0, "starter": 20, "pro": 50, "enterprise": 50}

HOLDS_MAX = 100
"""Open at the same time in one wallet: they are part of one value."""
AMOUNT_CENTS_MAX = 100_000_000
RECENT_RECEIPTS = 16
"""So many receipts stay in the wallet's own value; older ones lie beside it, one by one (see `wallet.py`)."""


class Kind(StrEnum):
    TOP_UP = "top_up"
    CHARGE = "charge"
    HOLD = "hold"
    CAPTURE = "capture"
    RELEASE = "release"
    REFUND = "refund"
    SET_TIER = "set_tier"


class Booking(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What is asked of a wallet."""

    key: str
    """Its identity: made from what it is for, e.g. a job's id, its run and the kind."""
    amount_cents: int = 0
    """Of a top-up; the list price of a charge or hold, from which the tier's discount goes off."""
    of: str = ""
    """Key of the hold, charge or capture that is captured, released or refunded."""
    tier: str = ""
    job_id: str = ""
    run: int = 0
    reference: str = ""
    """Of the payment, or why."""


class Receipt(msgspec.Struct, kw_only=True, frozen=True):
    """What a booking did. `balance_cents` and what follows are as they were right after it."""

    seq: int
    """Number in the ledger, from 0."""
    kind: Kind
    booking: Booking
    price_cents: int
    """What was charged, held, captured, given back; 0 for an undoing of something that never came."""
    balance_cents: int
    held_cents: int
    tier: str = ""
    """The wallet's, when it was booked: a job's limits are those of the tier that paid for it."""
    is_settled: bool = False
    """A hold that was captured or released; a charge or capture that was refunded."""

    @property
    def available_cents(self) -> int:
        return self.balance_cents - self.held_cents


class Wallet(msgspec.Struct, kw_only=True, frozen=True):
    balance_cents: int = 0
    holds: dict[str, int] = {}
    """Open holds: key -> cents."""
    tier: str = "free"
    lifetime_spent_cents: int = 0
    lifetime_topped_up_cents: int = 0
    booking_count: int = 0
    """Also the number of the next ledger entry."""
    recent: dict[str, Receipt] = {}
    """The newest receipts by key, oldest first."""

    @property
    def held_cents(self) -> int:
        return sum(self.holds.values())

    @property
    def available_cents(self) -> int:
        return self.balance_cents - self.held_cents


class LedgerEntry(msgspec.Struct, kw_only=True, frozen=True):
    """One line of the ledger. The amounts of all lines add up to the balance, the held amounts to what is held."""

    seq: int
    kind: Kind
    key: str
    amount_cents: int
    """What it did to the balance, signed."""
    held_cents: int
    """What it did to what is held, signed."""
    balance_after_cents: int
    held_after_cents: int
    job_id: str = ""
    run: int = 0
    reference: str = ""
    at_ms: int = 0


class Refused(Exception):
    """The booking is not possible; nothing was booked."""

    def __init__(self, code: int, message: str, **details: int) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class Booked(msgspec.Struct, kw_only=True, frozen=True):
    """The outcome of `book`."""

    wallet: Wallet
    receipt: Receipt
    entry: LedgerEntry | None
    """None: it had been booked before."""
    settled: Receipt | None = None
    """The receipt that `of` names, as it is from now on."""


def price_cents(list_cents: int, tier: str) -> int:
    """List price less the tier's discount, rounded down to whole cents."""
    return list_cents * (100 - TIER_DISCOUNT_PERCENT[tier]) // 100


def book(
    wallet: Wallet, kind: Kind, booking: Booking, *, earlier: Receipt | None, of: Receipt | None, at_ms: int = 0
) -> Booked:
    """Do one booking.

    Args:
        earlier: Receipt of `booking.key`, if there is one.
        of: Receipt of `booking.of`, if there is one.
    Raises:
        Refused: 402 not enough money, 409 the key was used for something else or what it names is settled, 422 the
            booking makes no sense, 429 too many open holds.
    """
    if earlier is not None:
        if (earlier.kind, _identity(earlier.booking)) != (kind, _identity(booking)):
            raise Refused(409, f"key {booking.key} was used for {_described(earlier)}; nothing was booked")
        return Booked(wallet=wallet, receipt=earlier, entry=None)
    _check(kind, booking)
    if kind in (Kind.CAPTURE, Kind.RELEASE, Kind.REFUND):
        return _settle(wallet, kind, booking, of, at_ms)
    if kind is Kind.SET_TIER:
        return _booked(msgspec.structs.replace(wallet, tier=booking.tier), wallet, kind, booking, 0, at_ms)
    if kind is Kind.TOP_UP:
        richer = msgspec.structs.replace(
            wallet,
            balance_cents=wallet.balance_cents + booking.amount_cents,
            lifetime_topped_up_cents=wallet.lifetime_topped_up_cents + booking.amount_cents,
        )
        return _booked(richer, wallet, kind, booking, booking.amount_cents, at_ms)
    return _spend(wallet, kind, booking, at_ms)


def _spend(wallet: Wallet, kind: Kind, booking: Booking, at_ms: int) -> Booked:
    price = price_cents(booking.amount_cents, wallet.tier)
    if price > wallet.available_cents:
        raise Refused(
            402,
            f"insufficient funds: {price} cents required, {wallet.available_cents} available",
            required_cents=price,
            available_cents=wallet.available_cents,
        )
    if kind is Kind.CHARGE:
        after = msgspec.structs.replace(
            wallet,
            balance_cents=wallet.balance_cents - price,
            lifetime_spent_cents=wallet.lifetime_spent_cents + price,
        )
    else:
        if len(wallet.holds) >= HOLDS_MAX:
            raise Refused(429, f"{HOLDS_MAX} holds are open; wait until some of those jobs have ended")
        after = msgspec.structs.replace(wallet, holds={**wallet.holds, booking.key: price})
    return _booked(after, wallet, kind, booking, price, at_ms)


def _settle(wallet: Wallet, kind: Kind, booking: Booking, of: Receipt | None, at_ms: int) -> Booked:
    wanted = (Kind.CHARGE, Kind.CAPTURE) if kind is Kind.REFUND else (Kind.HOLD,)
    if of is None and kind is Kind.CAPTURE:
        raise Refused(409, f"there is no hold {booking.of}")
    if of is None:
        # Undone before it was done. Its key is used up with nothing behind it, so that it cannot come late.
        undone = Receipt(
            seq=wallet.booking_count,
            kind=kind,
            booking=Booking(key=booking.of, of=booking.key),
            price_cents=0,
            balance_cents=wallet.balance_cents,
            held_cents=wallet.held_cents,
            is_settled=True,
        )
        return _booked(wallet, wallet, kind, booking, 0, at_ms, settled=undone)
    if of.kind not in wanted or of.is_settled:
        what = "is settled already" if of.kind in wanted else f"is {_described(of)}"
        raise Refused(409, f"cannot {kind.replace('_', ' ')} {booking.of}: it {what}")
    price = of.price_cents
    holds = {key: cents for key, cents in wallet.holds.items() if key != booking.of}
    sign = {Kind.CAPTURE: -1, Kind.RELEASE: 0, Kind.REFUND: 1}[kind]
    after = msgspec.structs.replace(
        wallet,
        holds=holds,
        balance_cents=wallet.balance_cents + sign * price,
        lifetime_spent_cents=wallet.lifetime_spent_cents - sign * price,
    )
    return _booked(after, wallet, kind, booking, price, at_ms, settled=msgspec.structs.replace(of, is_settled=True))


def _booked(
    after: Wallet,
    before: Wallet,
    kind: Kind,
    booking: Booking,
    price: int,
    at_ms: int,
    *,
    settled: Receipt | None = None,
) -> Booked:
    receipt = Receipt(
        seq=before.booking_count,
        kind=kind,
        booking=booking,
        price_cents=price,
        balance_cents=after.balance_cents,
        held_cents=after.held_cents,
        tier=after.tier,
    )
    entry = LedgerEntry(
        seq=before.booking_count,
        kind=kind,
        key=booking.key,
        amount_cents=after.balance_cents - before.balance_cents,
        held_cents=after.held_cents - before.held_cents,
        balance_after_cents=after.balance_cents,
        held_after_cents=after.held_cents,
        job_id=booking.job_id,
        run=booking.run,
        reference=booking.reference or booking.of,
        at_ms=at_ms,
    )
    recent = {**after.recent, booking.key: receipt}
    if settled is not None:
        recent[settled.booking.key] = settled
    wallet = msgspec.structs.replace(after, booking_count=before.booking_count + 1, recent=recent)
    return Booked(wallet=wallet, receipt=receipt, entry=entry, settled=settled)


def overflow(wallet: Wallet) -> tuple[Wallet, dict[str, Receipt]]:
    """Take the oldest receipts out, when there are more than `RECENT_RECEIPTS`: the rest, and what was taken out."""
    surplus = len(wallet.recent) - RECENT_RECEIPTS
    if surplus <= 0:
        return wallet, {}
    old = dict([*wallet.recent.items()][:surplus])
    recent = {key: receipt for key, receipt in wallet.recent.items() if key not in old}
    return msgspec.structs.replace(wallet, recent=recent), old


def _identity(booking: Booking) -> tuple[object, ...]:
    # The reference is for people: a repetition may word it differently.
    return (booking.key, booking.amount_cents, booking.of, booking.tier, booking.job_id, booking.run)


def _check(kind: Kind, booking: Booking) -> None:
    if not 0 < len(booking.key) <= 200:
        raise Refused(422, "key: 1 to 200 characters")
    has_amount = kind in (Kind.TOP_UP, Kind.CHARGE, Kind.HOLD)
    if has_amount and not 0 < booking.amount_cents <= AMOUNT_CENTS_MAX:
        raise Refused(422, f"amount_cents: 1 to {AMOUNT_CENTS_MAX}, not {booking.amount_cents}")
    if kind in (Kind.CAPTURE, Kind.RELEASE, Kind.REFUND) and not 0 < len(booking.of) <= 200:
        raise Refused(422, "of: the key of what is captured, released or refunded is required")
    if booking.of == booking.key:
        raise Refused(422, "of: a booking cannot refer to itself")
    if kind is Kind.SET_TIER and booking.tier not in TIER_DISCOUNT_PERCENT:
        raise Refused(422, f"tier: one of {', '.join(TIER_DISCOUNT_PERCENT)}, not {booking.tier!r}")


def _described(receipt: Receipt) -> str:
    return f"a {receipt.kind.replace('_', ' ')} of {receipt.price_cents} cents"
