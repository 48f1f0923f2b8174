"""The API as an OpenAPI 3.1 document, its schemas made from the types that the routes use."""

from __future__ import annotations

from typing import Any

import msgspec

from apps.imports import messages
from apps.imports.model import Progress

_REF = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The document, as JSON data."""
    types = [
        messages.StartBody, messages.Accepted, Progress, messages.CancelAnswer, messages.HistoryPage, messages.Outcome, messages.Health, messages.ErrorBody
    ]  # fmt: skip
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    started, accepted, progress, cancelled, history, outcome, health, error = schemas

    def answers(status: int, meaning: str, schema: dict[str, Any], *errors: int) -> dict[str, Any]:
        known = {str(status): _content(meaning, schema)}
        return known | {str(each): _content(_MEANINGS[each], error) for each in errors}

    start = {
        "summary": "Start an import",
        "operationId": "start",
        "requestBody": {"required": True, "content": {"application/json": {"schema": started}}},
        "responses": answers(202, "Started; on disk", accepted, 400, 409, 502),
    }
    look = {
        "summary": "How far an import is",
        "operationId": "progress",
        "responses": answers(200, "The progress", progress, 404, 502),
    }
    follow = {
        "summary": "The progress as server-sent events, until it is final",
        "operationId": "events",
        "responses": {
            "200": {"description": "Events `progress` and `away`", "content": {"text/event-stream": {}}},
            "404": _content(_MEANINGS[404], error),
        },
    }
    cancel = {
        "summary": "Cancel an import",
        "operationId": "cancel",
        "responses": answers(202, "Asked for; over when the progress says so", cancelled, 404, 409, 502),
    }
    record = {
        "summary": "What is recorded of an import",
        "operationId": "outcome",
        "responses": answers(200, "Its row, its tables, rows that were left out", outcome, 404),
    }
    listing = {
        "summary": "Imports, newest first",
        "operationId": "history",
        "parameters": [
            _query(
                "limit", {"type": "integer", "minimum": 1, "maximum": messages.ENTRIES_MAX, "default": messages.ENTRIES}
            ),
            _query("cursor", {"type": "string"}),
        ],
        "responses": answers(200, "A page of them", history, 400),
    }
    by_id = {"parameters": [{"name": "import_id", "in": "path", "required": True, "schema": {"type": "string"}}]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "imports", "version": "1"},
        "paths": {
            "/api/imports": {"get": listing},
            "/api/imports/start": {"post": start},
            "/api/imports/{import_id}": by_id | {"get": record},
            "/api/imports/{import_id}/progress": by_id | {"get": look},
            "/api/imports/{import_id}/events": by_id | {"get": follow},
            "/api/imports/{import_id}/cancel": by_id | {"post": cancel},
            "/health": {
                "get": {
                    "summary": "Whether the store answers, and the engine",
                    "operationId": "health",
                    "responses": answers(200, "The store does", health, 500),
                }
            },
        },
        "components": {"schemas": components},
    }


_MEANINGS = {
    400: "The request cannot be understood",
    404: "No such import",
    409: "Not in this state of the import",
    500: "The store fails",
    502: "The engine is away; the same request again is safe",
}


def _content(meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}
