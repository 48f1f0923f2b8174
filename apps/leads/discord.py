"""Slash commands of Discord: the signed interactions that it posts, and what is answered.

    PING                            PONG
    /discover niche location limit  the job is started and on disk, then "thinking" (type 5); the result follows when the
                                    job ends, by the durable step that tells of every end (`notifications.py`)
    /wallet                         the balance, seen by who asked only
    a wrong signature               401, as Discord tests it

The signature covers the time; one that is more than five minutes away is refused. The interaction's id is the job's client
key: the same request again, or a recorded one, is the same job.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from apps.leads.access import Caller
from apps.leads.errors import LeadsError
from apps.leads.model import DISCOVERY_BUSINESSES_MAX, DiscoveryRequest, JobView
from apps.leads.service import Service

logger = logging.getLogger("leads.discord")

START_S = 2.0
"""How long a start may take before something else is answered: Discord gives up after three seconds."""
PING, COMMAND = 1, 2
PONG, MESSAGE, DEFERRED = 1, 4, 5
ONLY_FOR_WHO_ASKED = 64
STRING, INTEGER = 3, 4
WINDOW_S = 300
"""How far the signed time may be from our clock, in either direction."""
_TIMESTAMP_CHARACTERS_MAX = 12

COMMANDS: list[dict[str, Any]] = [
    {
        "name": "discover",
        "description": "Find businesses, look at their websites, score them",
        "type": 1,
        "options": [
            {"name": "niche", "description": "What kind, e.g. bakery", "type": STRING, "required": True},
            {"name": "location", "description": "Where, e.g. Arlon", "type": STRING, "required": True},
            {
                "name": "limit",
                "description": "At most so many",
                "type": INTEGER,
                "min_value": 1,
                "max_value": DISCOVERY_BUSINESSES_MAX,
            },
        ],
    },
    {"name": "wallet", "description": "What is in your wallet", "type": 1},
]
"""What `leads discord-commands` registers."""


class Option(msgspec.Struct):
    name: str
    value: str | int | float | bool | None = None


class CommandData(msgspec.Struct):
    name: str
    options: list[Option] = []


class User(msgspec.Struct):
    id: str


class Member(msgspec.Struct):
    user: User


class Kind(msgspec.Struct):
    """What every interaction has. A PING needs nothing else."""

    type: int


class Interaction(msgspec.Struct):
    """What Discord posts, as far as it matters here."""

    id: str
    type: int
    application_id: str
    token: str = ""
    data: CommandData | None = None
    member: Member | None = None
    """In a server; in a direct message it is `user`."""
    user: User | None = None

    @property
    def user_id(self) -> str:
        """Whose wallet pays: `discord-<user id>`."""
        who = self.member.user if self.member is not None else self.user
        if who is None or not who.id.isascii() or not who.id.isdigit():
            raise LeadsError(400, "the interaction names no user")
        return f"discord-{who.id}"


class Interactions:
    """Answers interactions.

    Args:
        public_key: Of the Discord application, 64 characters of hex; empty: interactions are refused with 404.
    Raises:
        ValueError: It is no such key.
    """

    def __init__(self, service: Service, public_key: str) -> None:
        self._service = service
        self._starting: set[asyncio.Task[JobView]] = set()
        self._key = VerifyKey(bytes.fromhex(public_key)) if public_key else None

    async def answer(self, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """The response to one request.

        Args:
            body: As it came: the signature is over these bytes, not over what they mean.
        Raises:
            LeadsError: 401 not signed by Discord, 400 not an interaction, 404 no interactions here.
        """
        self._verify(headers, body)
        try:
            if msgspec.json.decode(body, type=Kind).type == PING:
                return {"type": PONG}
            interaction = msgspec.json.decode(body, type=Interaction)
        except msgspec.DecodeError as error:
            raise LeadsError(400, f"the body is no interaction: {error}") from error
        if interaction.type != COMMAND or interaction.data is None:
            raise LeadsError(400, f"interactions of type {interaction.type} are not known")
        try:
            match interaction.data.name:
                case "discover":
                    return await self._discover(interaction, interaction.data)
                case "wallet":
                    return await self._wallet(interaction)
                case other:
                    raise LeadsError(400, f"there is no command /{other}")
        except LeadsError as error:
            return _message(error.message)

    def _verify(self, headers: Mapping[str, str], body: bytes) -> None:
        if self._key is None:
            raise LeadsError(404, "no Discord application is configured; see LEADS_API_DISCORD_PUBLIC_KEY")
        timestamp = headers.get("x-signature-timestamp", "")
        try:
            is_number = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _TIMESTAMP_CHARACTERS_MAX
            if not is_number or abs(time.time() - int(timestamp)) > WINDOW_S:
                raise ValueError
            signature = bytes.fromhex(headers.get("x-signature-ed25519", ""))
            self._key.verify(timestamp.encode() + body, signature)
        except (BadSignatureError, ValueError) as error:
            raise LeadsError(401, "invalid request signature") from error

    async def _discover(self, interaction: Interaction, data: CommandData) -> dict[str, Any]:
        options = {option.name: option.value for option in data.options}
        limit = options.get("limit", 10)
        request = DiscoveryRequest(
            user_id=interaction.user_id,
            niche=str(options.get("niche") or ""),
            location=str(options.get("location") or ""),
            limit=limit if isinstance(limit, int) else 0,
            client_key=f"discord-{interaction.id}",
            notify=[f"interaction/{interaction.application_id}/{interaction.token}"],
        )
        start = asyncio.create_task(self._service.start_requested_discovery(Caller(request.user_id), request))
        self._starting.add(start)
        start.add_done_callback(self._started)
        done, _ = await asyncio.wait({start}, timeout=START_S)
        if not done:
            # "Thinking" would stay for ever if it failed now. A result follows this message just as well.
            return _message("The engine is slow just now. If the job can be started, its result follows here.")
        start.result()
        return {"type": DEFERRED}

    def _started(self, start: asyncio.Task[JobView]) -> None:
        self._starting.discard(start)
        if not start.cancelled() and (error := start.exception()) is not None:
            logger.info("a discovery was not started: %s", error)

    async def _wallet(self, interaction: Interaction) -> dict[str, Any]:
        wallet = await self._service.wallet(Caller(interaction.user_id), "me")
        held = f", {wallet.held_cents / 100:.2f} of it held" if wallet.held_cents else ""
        return _message(f"${wallet.balance_cents / 100:.2f}{held}; tier {wallet.tier}")


def _message(text: str) -> dict[str, Any]:
    data = {"content": text[:2000], "flags": ONLY_FOR_WHO_ASKED, "allowed_mentions": {"parse": []}}
    return {"type": MESSAGE, "data": data}
