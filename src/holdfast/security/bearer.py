"""What clients send for a token. One place, because what goes wrong with a header quotes it: libraries say `Illegal header
value b'Bearer …'`, and the secret is in the log."""

from __future__ import annotations

from holdfast.errors import InvalidRequest


def can_be_sent(token: str) -> bool:
    """Whether a header can carry the token: a line end of a file, for example, is none."""
    return token.isascii() and token.isprintable() and token == token.strip()


def bearer_headers(token: str | None) -> dict[str, str]:
    """The `authorization` header for a token; none without one.

    Raises:
        InvalidRequest: no header can carry the token. The message does not have it.
    """
    if not token:
        return {}
    if not can_be_sent(token):
        raise InvalidRequest("the token has characters that no header can carry", hint="copy it again")
    return {"authorization": f"Bearer {token}"}
