"""What leads refuses, and why, for whoever asked.

LeadsError            code (like HTTP), message, is_retryable, details
    EngineRefused     what the engine, or the handler behind it, answered
    EngineUnreachable no answer: 503
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.leads.model import TEXT_CHARACTERS_MAX


class LeadsError(Exception):
    """A request that was refused; nothing happened. `code` is an HTTP status."""

    def __init__(
        self, code: int, message: str, *, is_retryable: bool = False, details: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.is_retryable = is_retryable
        self.details = dict(details or {})

    def as_json(self) -> dict[str, Any]:
        """`code`, `message`, `retryable`, `details`."""
        return {"code": self.code, "message": self.message, "retryable": self.is_retryable, "details": self.details}


def checked_user_id(user_id: str) -> str:
    """Itself. It is part of paths, so it must be readable and be no path.

    Raises:
        LeadsError: 422.
    """
    if (
        not 0 < len(user_id) <= TEXT_CHARACTERS_MAX
        or "/" in user_id
        or not user_id.isprintable()
        or user_id in (".", "..")
    ):
        raise LeadsError(422, f"user_id: 1 to {TEXT_CHARACTERS_MAX} printable characters without a slash")
    return user_id


class EngineRefused(LeadsError):
    """The engine, or the handler behind it, answered with an error. Numbers in its metadata are `details`."""

    def __init__(self, code: int, message: str, metadata: Mapping[str, str]) -> None:
        numbers = {name: int(value) for name, value in metadata.items() if value.isdigit()}
        super().__init__(code, message, is_retryable=code >= 500, details=numbers)


class EngineUnreachable(LeadsError):
    """The engine did not answer. What was asked may have happened, and may be asked again: it happens once."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            503, f"the engine cannot be reached ({type(error).__name__}); next: try again", is_retryable=True
        )
