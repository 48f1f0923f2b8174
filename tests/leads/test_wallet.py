"""The wallet on an engine: many callers at the same time, repeated keys, old receipts, the archived ledger."""

from __future__ import annotations

import asyncio

import pytest

from apps.leads.booking import RECENT_RECEIPTS, Booking
from apps.leads.errors import EngineRefused
from apps.leads.jobs import LeadsError
from apps.leads.wallet import balance_of
from tests.leads.conftest import OpenLeads


async def test_parallel_charges_never_spend_one_cent_twice(open_leads: OpenLeads) -> None:
    world = await open_leads()
    await world.rich(500)

    refusals: list[tuple[int, str, dict[str, int]]] = []

    async def charge(number: int) -> int:
        try:
            booking = Booking(key=f"c{number}", amount_cents=100)
            return (await world.gateway.call("Wallet", world.user, "charge", booking))["price_cents"]
        except EngineRefused as error:
            refusals.append((error.code, error.message, error.details))
            return 0

    prices = await asyncio.gather(*(charge(number) for number in range(12)))
    assert sorted(prices) == [0] * 7 + [100] * 5
    missing = {"required_cents": 100, "available_cents": 0}
    assert refusals == [(402, "insufficient funds: 100 cents required, 0 available", missing)] * 7
    assert await world.balance() == (0, 0)


async def test_a_booking_that_is_sent_again_is_booked_once(open_leads: OpenLeads) -> None:
    world = await open_leads()
    top_ups = [world.wallets.top_up(world.user, 500, key="payment-7") for _ in range(5)]
    receipts = await asyncio.gather(*top_ups)
    assert {receipt.seq for receipt in receipts} == {0}
    assert await world.balance() == (500, 0)
    with pytest.raises(LeadsError, match="key top-up:payment-7 was used for a top up of 500 cents"):
        await world.wallets.top_up(world.user, 1000, key="payment-7")


async def test_the_ledger_is_archived_and_still_sums_to_the_balance(open_leads: OpenLeads) -> None:
    world = await open_leads()
    await world.rich(10_000)
    count = 85  # the log keeps 50 at hand, and archives 25 at a time
    for start in range(0, count, 17):
        bookings = [Booking(key=f"c{number}", amount_cents=7) for number in range(start, start + 17)]
        await asyncio.gather(*(world.gateway.call("Wallet", world.user, "charge", booking) for booking in bookings))
    assert len(await world.kinds()) == count + 1
    status = await world.gateway.call("WalletLedger", world.user, "status")
    assert status["chunks"] >= 1
    lines = await world.wallets.ledger(world.user, 1000)
    assert [line.seq for line in lines] == [*range(count + 1)]
    assert balance_of(lines) == await world.balance() == (10_000 - 7 * count, 0)
    assert [line.seq for line in await world.wallets.ledger(world.user, 3)] == [count - 2, count - 1, count]
    # The first charge's receipt is no longer in the wallet's value; its key is known all the same.
    assert count > RECENT_RECEIPTS
    again = await world.gateway.call("Wallet", world.user, "charge", Booking(key="c0", amount_cents=7))
    assert again["price_cents"] == 7
    assert await world.balance() == (10_000 - 7 * count, 0)
    await world.wallets.refund(world.user, "c0")
    with pytest.raises(EngineRefused, match="settled already"):
        await world.gateway.call("Wallet", world.user, "refund", Booking(key="another", of="c0"))


async def test_a_wallet_says_what_a_tier_and_a_hold_change(open_leads: OpenLeads) -> None:
    world = await open_leads()
    await world.rich(1000)
    await world.wallets.set_tier(world.user, "starter", key="1")
    await world.gateway.call("Wallet", world.user, "hold", Booking(key="h", amount_cents=500))
    wallet = await world.wallets.get(world.user)
    assert (wallet.tier, wallet.balance_cents, wallet.held_cents, wallet.available_cents) == ("starter", 1000, 400, 600)
    assert wallet.holds == {"h": 400}
    with pytest.raises(LeadsError, match="tier: one of free, starter, pro, enterprise, not 'gold'"):
        await world.wallets.set_tier(world.user, "gold", key="2")


@pytest.mark.parametrize("name", ["Ada Lovelace", "a?b#c%2F", "Жито"])
async def test_a_user_may_be_called_anything(open_leads: OpenLeads, name: str) -> None:
    world = await open_leads()
    user = f"{name} {world.user}"
    await world.wallets.top_up(user, 500, key="p")
    wallet = await world.wallets.get(user)
    assert (wallet.user_id, wallet.balance_cents) == (user, 500)
