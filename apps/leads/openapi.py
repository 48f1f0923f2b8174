"""The API as an OpenAPI 3.1 document, its schemas made from the types that the routes use."""

from __future__ import annotations

from typing import Any

import msgspec

from apps.leads import messages, model
from apps.leads.booking import Receipt
from apps.leads.export import FORMATS, MEDIA_TYPES
from apps.leads.wallet import WalletView

_REF = "#/components/schemas/{name}"
_TYPES: list[type] = [
    messages.DiscoveryBody,
    messages.EnrichmentBody,
    messages.TopUpBody,
    messages.TierBody,
    messages.JobsPage,
    messages.StepsPage,
    messages.LogsPage,
    messages.LeadsPage,
    messages.LeadItem,
    messages.LedgerPage,
    messages.Health,
    messages.ErrorBody,
    model.JobView,
    model.CostView,
    WalletView,
    Receipt,
]
_MEANINGS = {
    400: "Not JSON",
    401: "The key is missing or wrong",
    402: "Not enough money; nothing was started. `details` has `required_cents` and `available_cents`",
    403: "Not with this key",
    404: "Not there, or not yours",
    409: "Not in this state, or the key belongs to another request",
    413: "The body is too large",
    422: "A field is wrong",
    429: "This tier's limit is reached; `Retry-After` says when to try again",
    503: "The engine cannot be reached; the same request again is safe",
}


def document() -> dict[str, Any]:
    """The document, as JSON data."""
    schemas, components = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    of = dict(zip(_TYPES, schemas, strict=True))
    error = of[messages.ErrorBody]

    def operation(
        name: str, summary: str, answer: type, *errors: int, status: int = 200, body: type | None = None, **more: Any
    ) -> dict[str, Any]:
        known = {str(status): _content("Done" if status == 200 else "Accepted, and on disk", of[answer])}
        codes = (*errors, *((400, 413, 422) if body is not None else ()), 401, 503)
        known |= {str(code): _content(_MEANINGS[code], error) for code in sorted(codes)}
        request = {"requestBody": {"required": True, "content": _json(of[body])}} if body is not None else {}
        return {"summary": summary, "operationId": name, **request, "responses": known, **more}

    start = {"status": 202, "parameters": [_header("Idempotency-Key", "The same as client_key")]}
    starts = (402, 403, 409, 429)
    job, user = _in_path("job_id"), _in_path("user_id")
    limit = _query("limit", {"type": "integer", "minimum": 0})
    return {
        "openapi": "3.1.0",
        "info": {"title": "leads", "version": "1"},
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/discovery": {
                "post": operation("discover", "Start a discovery", model.JobView, *starts, body=messages.DiscoveryBody, **start)
            },
            "/v1/enrichment": {
                "post": operation("enrich", "Start an enrichment", model.JobView, *starts, 404, body=messages.EnrichmentBody, **start)
            },
            "/v1/jobs": {"get": operation("jobs", "Jobs, newest first", messages.JobsPage, 403, 422, parameters=_job_filters(limit))},
            "/v1/jobs/{job_id}": job | {"get": operation("job", "A job", model.JobView, 404)},
            "/v1/jobs/{job_id}/steps": job | {"get": operation("steps", "Its steps", messages.StepsPage, 404)},
            "/v1/jobs/{job_id}/logs": job
            | {"get": operation("logs", "Its log", messages.LogsPage, 404, 422, parameters=[_query("after", {"type": "integer", "minimum": 0})])},
            "/v1/jobs/{job_id}/cost": job | {"get": operation("cost", "What it cost us", model.CostView, 404)},
            "/v1/jobs/{job_id}/stream": job | {"get": _stream(error)},
            "/v1/jobs/{job_id}/cancel": job
            | {"post": operation("cancel", "End a job; what it took is given back", model.JobView, 403, 404, status=202)},
            "/v1/jobs/{job_id}/resume": job
            | {"post": operation("resume", "Let a job go on", model.JobView, 402, 403, 404, 409, status=202)},
            "/v1/leads": {
                "get": operation(
                    "leads", "Leads, best first", messages.LeadsPage, 404, 422,
                    parameters=[_query("job_id", {"type": "string"}), limit, _query("offset", {"type": "integer", "minimum": 0})],
                )
            },
            "/v1/leads/{lead_id}": _in_path("lead_id") | {"get": operation("lead", "A lead", messages.LeadItem, 404)},
            "/v1/leads/export": {"get": _export(error)},
            "/v1/wallets/{user_id}": user | {"get": operation("wallet", "A wallet", WalletView, 403)},
            "/v1/wallets/{user_id}/ledger": user
            | {"get": operation("ledger", "What was booked", messages.LedgerPage, 403, 422, parameters=[_query("count", {"type": "integer", "minimum": 0, "maximum": 1000})])},
            "/v1/wallets/{user_id}/top-up": user
            | {"post": operation("top_up", "Put money in", Receipt, 403, 409, body=messages.TopUpBody)},
            "/v1/wallets/{user_id}/tier": user
            | {"post": operation("tier", "Set the tier", Receipt, 403, 409, body=messages.TierBody)},
            "/health": {"get": operation("health", "Does the database answer?", messages.Health)},
        },
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }  # fmt: skip


def _job_filters(limit: dict[str, Any]) -> list[dict[str, Any]]:
    statuses = {"type": "array", "items": {"$ref": _REF.format(name="JobStatus")}}
    return [
        _query("status", statuses),
        _query("workflow_id", {"enum": [*model.JobKind]}),
        _query("user_id", {"type": "string"}),
        _query("before_ms", {"type": "integer", "minimum": 0}),
        limit,
    ]


def _stream(error: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": "Server-sent events: `log` per line, `job` when it moves, until it is over",
        "operationId": "stream",
        "responses": {
            "200": {"description": "Events", "content": {"text/event-stream": {}}},
            "401": _content(_MEANINGS[401], error),
            "404": _content(_MEANINGS[404], error),
        },
    }


def _export(error: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": "Leads as a file, one flat row each",
        "operationId": "export",
        "parameters": [_query("job_id", {"type": "string"}), _query("format", {"enum": [*FORMATS], "default": "csv"})],
        "responses": {
            "200": {"description": "The file", "content": {kind.split(";")[0]: {} for kind in MEDIA_TYPES.values()}},
            **{str(code): _content(_MEANINGS[code], error) for code in (401, 404, 422)},
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _content(meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": meaning, "content": _json(schema)}


def _in_path(name: str) -> dict[str, Any]:
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}
