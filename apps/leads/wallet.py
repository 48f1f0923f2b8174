"""The wallet: a virtual object per user. Check and booking are one exclusive handler, so two jobs never spend one cent.

What a booking does is decided in `booking.py`, a pure function. Here it is kept:

* `wallet`: one value with balance, open holds and the newest receipts. It is written once per booking, as a whole, so a
  handler that is killed leaves it before or after a booking, never between.
* `receipt-<key>`: older receipts, one entry each, read only when somebody asks for that key. A key never comes free.
  A receipt is written here before the value that no longer has it.
* `WalletLedger`: a BoundedLog with every line; it archives what is old in chunks. Lines carry their number: if a handler is
  killed between sending a line and writing the wallet, the booking did not happen and its number is used again; the line
  that came last counts.
"""

from __future__ import annotations

from typing import Any

import msgspec
import restate
from restate import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject

from apps.leads.booking import Booking, Kind, LedgerEntry, Receipt, Refused, Wallet, book, overflow
from holdfast.patterns import BoundedLog

SERVICE = "Wallet"
LEDGER = "WalletLedger"


class WalletView(msgspec.Struct, kw_only=True):
    """A wallet as its owner sees it."""

    user_id: str
    balance_cents: int
    held_cents: int
    available_cents: int
    tier: str
    lifetime_spent_cents: int
    lifetime_topped_up_cents: int
    booking_count: int
    holds: dict[str, int]


ledger = BoundedLog(LEDGER, keep=50, chunk=25)
wallet = VirtualObject(SERVICE, description="Money of one user, in cents", state_preload=False)
SERVICES: list[VirtualObject] = [wallet, ledger.service, ledger.archive]


@wallet.handler()
async def top_up(ctx: ObjectContext, booking: Booking) -> Receipt:
    """Put `amount_cents` in."""
    return await _book(ctx, Kind.TOP_UP, booking)


@wallet.handler()
async def charge(ctx: ObjectContext, booking: Booking) -> Receipt:
    """Take the price out: `amount_cents` less the tier's discount. 402 if there is not enough."""
    return await _book(ctx, Kind.CHARGE, booking)


@wallet.handler()
async def hold(ctx: ObjectContext, booking: Booking) -> Receipt:
    """Set the price aside, for `capture` or `release`. 402 if there is not enough."""
    return await _book(ctx, Kind.HOLD, booking)


@wallet.handler()
async def capture(ctx: ObjectContext, booking: Booking) -> Receipt:
    """Take out what the hold `of` set aside."""
    return await _book(ctx, Kind.CAPTURE, booking)


@wallet.handler()
async def release(ctx: ObjectContext, booking: Booking) -> Receipt:
    """The hold `of` is over; nothing is taken. Also if it never came: then it cannot come any more."""
    return await _book(ctx, Kind.RELEASE, booking)


@wallet.handler()
async def refund(ctx: ObjectContext, booking: Booking) -> Receipt:
    """Give back what the charge or capture `of` took. Also if it never came: then it cannot come any more."""
    return await _book(ctx, Kind.REFUND, booking)


@wallet.handler()
async def set_tier(ctx: ObjectContext, booking: Booking) -> Receipt:
    """From now on prices are those of `tier`."""
    return await _book(ctx, Kind.SET_TIER, booking)


@wallet.handler(kind="shared")
async def get(ctx: ObjectSharedContext) -> WalletView:
    """Balance, holds, tier. A user without bookings has an empty wallet."""
    now = await _wallet(ctx)
    return WalletView(
        user_id=ctx.key(),
        balance_cents=now.balance_cents,
        held_cents=now.held_cents,
        available_cents=now.available_cents,
        tier=now.tier,
        lifetime_spent_cents=now.lifetime_spent_cents,
        lifetime_topped_up_cents=now.lifetime_topped_up_cents,
        booking_count=now.booking_count,
        holds=now.holds,
    )


@wallet.handler(kind="shared")
async def entries(ctx: ObjectSharedContext, count: int) -> list[dict[str, Any]]:
    """The newest `count` lines of the ledger, at most 1000, oldest of them first."""
    booked = (await _wallet(ctx)).booking_count
    wanted = min(max(0, count), 1000)
    status = await ctx.object_call(ledger.status, key=ctx.key(), arg=None)
    lines: list[Any] = await ctx.object_call(ledger.recent, key=ctx.key(), arg=wanted)
    chunk = status["chunks"] - 1
    while len(lines) < wanted and chunk >= 0:
        lines = [*await ctx.object_call(ledger.get_chunk, key=f"{ctx.key()}:{chunk}", arg=None), *lines]
        chunk -= 1
    numbered = {line["seq"]: line for line in lines if line["seq"] < booked}
    return [numbered[seq] for seq in sorted(numbered)][-wanted:] if wanted else []


async def _wallet(ctx: ObjectContext | ObjectSharedContext) -> Wallet:
    return await ctx.get("wallet", type_hint=Wallet) or Wallet()


async def _receipt(ctx: ObjectContext, now: Wallet, key: str) -> Receipt | None:
    if not key:
        return None
    return now.recent.get(key) or await ctx.get(_state(key), type_hint=Receipt)


def _state(key: str) -> str:
    return f"receipt-{key}"


async def _book(ctx: ObjectContext, kind: Kind, booking: Booking) -> Receipt:
    at_ms = int(await ctx.time() * 1000)
    now = await _wallet(ctx)
    earlier = await _receipt(ctx, now, booking.key)
    of = await _receipt(ctx, now, booking.of)
    try:
        booked = book(now, kind, booking, earlier=earlier, of=of, at_ms=at_ms)
    except Refused as refusal:
        # Metadata travels with the error to every caller, so that nobody has to read numbers out of a sentence.
        details = {name: str(value) for name, value in refusal.details.items()}
        raise TerminalError(refusal.message, status_code=refusal.code, metadata=details or None) from refusal
    if booked.entry is None:
        return booked.receipt
    after, old = overflow(booked.wallet)
    # No await from here on: nothing comes between these writes but the end of the process, after which they are replayed.
    ctx.object_send(ledger.append, key=ctx.key(), arg=msgspec.to_builtins(booked.entry))
    for key, receipt in old.items():
        ctx.set(_state(key), msgspec.to_builtins(receipt))
    ctx.set("wallet", msgspec.to_builtins(after))
    return booked.receipt


def balance_of(lines: list[LedgerEntry]) -> tuple[int, int]:
    """(balance, held) that the lines of a whole ledger add up to: what a wallet must say."""
    return sum(line.amount_cents for line in lines), sum(line.held_cents for line in lines)


app = restate.app(SERVICES)
"""The wallet alone, for a look at it: `holdfast serve apps.leads.wallet:app`."""
