"""Tell Discord which slash commands there are. Done once per application, and again after they change."""

from __future__ import annotations

import httpx

from apps.leads.discord import COMMANDS

TIMEOUT_S = 30.0


class CannotRegister(Exception):
    """Discord did not take them."""


def register(api_url: str, application_id: str, bot_token: str) -> list[str]:
    """Replace the application's commands by ours. Returns their names.

    Raises:
        CannotRegister: it refused, or did not answer.
    """
    if not application_id.isascii() or not application_id.isdigit():
        raise CannotRegister(f"{application_id!r} is no application id: digits only")
    url = f"{api_url.rstrip('/')}/applications/{application_id}/commands"
    try:
        answer = httpx.put(url, json=COMMANDS, headers={"authorization": f"Bot {bot_token}"}, timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        raise CannotRegister(f"no answer from {api_url}: {type(error).__name__}") from error
    if not answer.is_success:
        raise CannotRegister(f"Discord answered with {answer.status_code}")
    return [command["name"] for command in COMMANDS]
