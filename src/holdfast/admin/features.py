"""What Restate has and this engine has not: Kafka subscriptions, limit rules, virtual queues. Answered as switched off.

Lists are empty, look-ups find nothing, and what would switch them on is refused. Requests are checked as Restate does, so
that a client learns of its own mistakes first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from holdfast.admin.registry import BODY_BYTES_MAX
from holdfast.admin.requests import Fields, json_body, json_fields, path_id, path_text, wrong_shape
from holdfast.errors import InvalidRequest

if TYPE_CHECKING:
    from holdfast.runtime.engine import EngineRuntime

_SINK = re.compile(r"service://([^/?#]+)/([^/?#]+)")


class Features:
    """One method per endpoint."""

    def __init__(self, engine: EngineRuntime) -> None:
        self._engine = engine

    # --- Kafka

    async def list_subscriptions(self, _request: Request) -> Response:
        return JSONResponse({"subscriptions": []})

    async def subscribe(self, request: Request) -> Response:
        fields = await json_fields(request, BODY_BYTES_MAX)
        source, sink = fields.required_text("source"), fields.required_text("sink")
        fields.text_map("options")
        cluster = source.removeprefix("kafka://").partition("/")[0]
        if not source.startswith("kafka://"):
            raise _bad_subscription("source", source, "must have a scheme segment, with supported schemes: [kafka].")
        if not sink.startswith("service://"):
            raise _bad_subscription("sink", sink, "must have a scheme segment, with supported schemes: [service].")
        target = _SINK.fullmatch(sink)
        service = self._engine.services.get(target[1]) if target else None
        if target is None or service is None or target[2] not in service.handlers:
            raise _bad_subscription("sink", sink, "cannot find service/handler specified in the sink URI.")
        raise InvalidRequest(
            f"Kafka cluster '{cluster}' not found. Available clusters: []",
            hint="this engine reads no Kafka topics: send what they hold to its ingress",
        )

    async def subscription(self, request: Request) -> Response:
        subscription_id = path_id(request, "subscription", "sub")
        raise InvalidRequest(f"The requested subscription '{subscription_id}' does not exist", status=404)

    async def unsubscribe(self, request: Request) -> Response:
        subscription_id = path_id(request, "subscription", "sub")
        message = f"not found in the schema registry: subscription with id '{subscription_id}'"
        raise InvalidRequest(message, status=404)

    async def list_clusters(self, _request: Request) -> Response:
        return JSONResponse({"clusters": []})

    async def add_cluster(self, request: Request) -> Response:
        fields = await json_fields(request, BODY_BYTES_MAX)
        name, properties = fields.required_text("name"), _properties(fields)
        if not properties.keys() & {"bootstrap.servers", "metadata.broker.list"}:
            raise InvalidRequest(
                f"kafka cluster '{name}' properties must contain either 'bootstrap.servers' or 'metadata.broker.list'"
            )
        raise InvalidRequest(
            f"Kafka cluster '{name}' cannot be added: this engine reads no Kafka topics",
            hint="send what they hold to its ingress",
        )

    async def cluster(self, request: Request) -> Response:
        name = path_text(request, "cluster_name")
        raise InvalidRequest(f"The requested Kafka cluster '{name}' does not exist", status=404)

    async def update_cluster(self, request: Request) -> Response:
        name = path_text(request, "cluster_name")
        _properties(await json_fields(request, BODY_BYTES_MAX))
        raise InvalidRequest(f"not found in the schema registry: kafka cluster '{name}'", status=404)

    async def remove_cluster(self, request: Request) -> Response:
        name = path_text(request, "cluster_name")
        raise InvalidRequest(f"not found in the schema registry: kafka cluster named '{name}'", status=404)

    # --- limits

    async def put_rules(self, request: Request) -> Response:
        rules = await _rules(request)
        if rules:
            raise InvalidRequest(
                "limit rules are not supported by this engine",
                hint="its `attempts_max` bounds what runs at the same time",
            )
        return JSONResponse([])

    async def delete_rules(self, request: Request) -> Response:
        await _rules(request)
        return JSONResponse([])  # the patterns that were removed

    async def vqueue(self, request: Request) -> Response:
        vqueue_id = path_text(request, "vqueue_id")
        raise InvalidRequest(f"The request field 'vqueue_id' is invalid. Reason: there is no queue '{vqueue_id}'")


def _properties(fields: Fields) -> dict[str, str]:
    properties = fields.text_map("properties")
    if properties is None:
        raise wrong_shape("missing field `properties`")
    return properties


def _bad_subscription(what: str, uri: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"[META0009] invalid {what} URI '{uri}': {reason}", restate_code="META0009")


async def _rules(request: Request) -> list[str]:
    """The patterns of a list of rules."""
    document: Any = await json_body(request, BODY_BYTES_MAX)
    if not isinstance(document, list):
        raise wrong_shape("expected a list of rules")
    patterns: list[str] = []
    for index, rule in enumerate(cast(list[Any], document)):
        if not isinstance(rule, dict):
            raise wrong_shape(f"[{index}]: expected an object")
        patterns.append(Fields(cast(dict[str, Any], rule), f"[{index}].").required_text("pattern"))
    return patterns
