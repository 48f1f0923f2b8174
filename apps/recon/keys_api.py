"""HTTP routes of the key registry. All of them need the admin token.

GET    /v1/keys               200, all keys
POST   /v1/keys               200, body {"public_key": ..., "name": ...}: registered, also after a revocation
DELETE /v1/keys/{public_key}  200, revoked (URL-safe base64 in the path)
"""

from __future__ import annotations

import logging

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.recon.http import ApiError, answer, read_json, require_admin
from apps.recon.keys import InvalidKey, KeyRegistry, ScannerKey
from apps.recon.parts import ApiContext

logger = logging.getLogger("recon.keys")

NAME_CHARS_MAX = 128


class RegisterRequest(msgspec.Struct):
    public_key: str
    name: str | None = None


class KeyList(msgspec.Struct):
    mode: str
    keys: list[ScannerKey]


def routes(context: ApiContext) -> list[BaseRoute]:
    """The routes, for `create_api`."""
    registry = KeyRegistry(context.store)

    def check(request: Request) -> None:
        context.limit(request)
        require_admin(request, context.settings)

    async def list_keys(request: Request) -> Response:
        check(request)
        return answer(KeyList(context.settings.key_mode, await registry.list()))

    async def register(request: Request) -> Response:
        check(request)
        wanted = await read_json(request, RegisterRequest)
        if wanted.name is not None and not 1 <= len(wanted.name) <= NAME_CHARS_MAX:
            raise ApiError(400, "invalid_request", f"name must have 1 to {NAME_CHARS_MAX} characters")
        try:
            key = await registry.register(wanted.public_key, wanted.name)
        except InvalidKey as error:
            raise ApiError(400, "invalid_request", str(error)) from error
        logger.info("scanner key registered", extra={"scanner_key": key.public_key, "name_of_key": key.name})
        return answer(key)

    async def revoke(request: Request) -> Response:
        check(request)
        try:
            key = await registry.revoke(request.path_params["public_key"])
        except InvalidKey as error:
            raise ApiError(400, "invalid_request", str(error)) from error
        logger.info("scanner key revoked", extra={"scanner_key": key.public_key})
        return answer(key)

    return [
        Route("/v1/keys", list_keys),
        Route("/v1/keys", register, methods=["POST"]),
        Route("/v1/keys/{public_key:path}", revoke, methods=["DELETE"]),
    ]
