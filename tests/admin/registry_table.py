"""Deployments and services: what both engines answer when the same endpoints are registered with them."""

from __future__ import annotations

from typing import Any

from tests.admin.steps import Has, Listed, Starts, Step, refusal
from tests.admin.zoo import RECURSIVE

UNKNOWN = "dp_16tCcPQuIcwtYpzUmqjMAmK"
NOT_ABSOLUTE = "The provided uri %s is not absolute, only absolute URIs can be used."


def shown_handler(name: str = "h", **more: Any) -> dict[str, Any]:
    """`HandlerMetadata` of a handler that declares nothing."""
    plain = {"public": True, "input_description": "*/*", "output_description": "application/json"}
    return {"name": name, **plain, "retry_policy": {"max_attempts": None}, **more}


def shown_service(*handlers: dict[str, Any], at: str = "{a}", revision: int | str = 1, **more: Any) -> dict[str, Any]:
    """`ServiceMetadata` of a service that declares nothing."""
    return {
        "name": "Zoo{n}",
        "ty": "Service",
        "handlers": list(handlers) or [shown_handler()],
        "deployment_id": at,
        "revision": revision,
        "public": True,
        "idempotency_retention": "1d",
        "journal_retention": "1d",
        "inactivity_timeout": "1m",
        "abort_timeout": "10m",
        "enable_lazy_state": False,
        "retry_policy": {
            "initial_interval": "500ms",
            "exponentiation_factor": 2.0,
            "max_attempts": 70,
            "max_interval": "1m",
            "on_max_attempts": "Pause",
        },
        **more,
    }


def shown_deployment(case: str, *services: dict[str, Any], at: str = "{a}", **more: Any) -> dict[str, Any]:
    """The full form."""
    return {
        "id": at,
        "uri": f"{{zoo}}/{case}/{{n}}",
        "protocol_type": "BidiStream",
        "http_version": "HTTP/2.0",
        "created_at": "TIME",
        "min_protocol_version": 5,
        "max_protocol_version": 7,
        "sdk_version": "zoo/1.0",
        "services": list(services) or [shown_service(at=at)],
        **more,
    }


def registered(*services: dict[str, Any], at: str = "{a}", **more: Any) -> dict[str, Any]:
    versions = {"min_protocol_version": 5, "max_protocol_version": 7, "sdk_version": "zoo/1.0"}
    return {"id": at, "services": list(services) or [shown_service(at=at)], **versions, **more}


def register(
    case: str, status: int = 201, answer: Any = None, *, save: str = "a", version: str = "", **options: Any
) -> Step:
    """Registration of an endpoint of the zoo. Without an answer, only what tells deployments apart is compared."""
    if answer is None:
        answer = Has({"id": f"{{{save}}}"}) if status < 300 else ...
    return Step(
        f"POST {version}/deployments",
        status,
        answer,
        body={"uri": f"{{zoo}}/{case}/{{n}}", **options},
        headers={"location": f"deployments/{{{save}}}"} if status < 300 else {},
        save=save if status < 300 else "",
    )


def get(path: str, status: int = 200, answer: Any = "") -> Step:
    return Step(f"GET {path}", status, answer)


def patch(path: str, body: Any, status: int = 200, answer: Any = "", **more: Any) -> Step:
    return Step(f"PATCH {path}", status, answer, body=body, **more)


def remove(at: str = "{a}", status: int = 202, answer: Any = "", query: str = "?force=true") -> Step:
    return Step(f"DELETE /deployments/{at}{query}", status, answer)


THE_SERVICE = "/services/Zoo{n}"
NO_SERVICE = refusal("The requested service 'Zoo{n}' does not exist")
OBJECT = {"ty": "VirtualObject"}
WORKFLOW = {"ty": "Workflow", "workflow_completion_retention": "1d"}
EXCLUSIVE = shown_handler(ty="Exclusive")
RUN, LOOK = shown_handler("run", ty="Workflow"), shown_handler("look", ty="Shared")
TYPE_CHANGE = refusal(
    "[META0006] detected a new service revision for 'Zoo{n}' changing the service type from previous revision. "
    "Service type cannot be changed across revisions.",
    "META0006",
)
TUNED: dict[str, Any] = {
    "idempotency_retention": "1s 500ms",
    "journal_retention": "0s",
    "inactivity_timeout": "1m 30s",
    "abort_timeout": "1h",
    "enable_lazy_state": True,
    "retry_policy": {
        "initial_interval": "10ms",
        "exponentiation_factor": 1.5,
        "max_attempts": 3,
        "max_interval": "20ms",
        "on_max_attempts": "Kill",
    },
}
TUNED_HANDLER = shown_handler(
    journal_retention="1d", inactivity_timeout="1ms", abort_timeout="0s", enable_lazy_state=True
)
SHAPED = shown_handler(
    "shaped",
    documentation="What it does",
    metadata={"a": "b"},
    input_description="JSON 'Order'",
    output_description="JSON 'Order'",
    input_json_schema=RECURSIVE,
    output_json_schema=RECURSIVE,
)
DESCRIBED = shown_service(
    SHAPED,
    shown_handler("text", input_description="text/plain", output_description="text/plain"),
    shown_handler("any", output_description="none"),
    shown_handler("untyped", input_description="application/json", input_json_schema=True),
    shown_handler("void", input_description="none", output_description="none"),
    shown_handler("hidden", public=False),
    shown_handler("plain"),
    documentation="What it is for",
    metadata={"team": "a"},
)


def unused(what: str, duration: str) -> list[dict[str, str]]:
    text = f"The configured inactivity_timeout {duration} will not be applied because the {what} is exposed in "
    return [{"code": "RT0021", "message": f"{text}Request/Response mode."}]


REGISTER: dict[str, list[Step]] = {
    "a new endpoint": [
        register("plain", 201, registered()),
        get("/deployments/{a}", 200, shown_deployment("plain")),
        get(
            "/deployments",
            200,
            {"deployments": Listed([shown_deployment("plain") | {"services": [{"name": "Zoo{n}", "revision": 1}]}])},
        ),
        get(THE_SERVICE, 200, shown_service()),
        get("/services", 200, {"services": Listed([shown_service()])}),
    ],
    "one that does not tell its SDK": [
        register("anonymous", 201, {key: value for key, value in registered().items() if key != "sdk_version"}),
    ],
    "everything there is to describe": [
        register("described", 201, registered(DESCRIBED)),
        get(THE_SERVICE, 200, DESCRIBED),
        get(f"{THE_SERVICE}/handlers", 200, {"handlers": DESCRIBED["handlers"]}),
        get(f"{THE_SERVICE}/handlers/shaped", 200, SHAPED),
    ],
    "every setting": [register("tuned", 201, registered(shown_service(TUNED_HANDLER, **TUNED)))],
    "an object": [register("object", 201, registered(shown_service(EXCLUSIVE, **OBJECT)))],
    "a workflow": [register("workflow", 201, registered(shown_service(RUN, LOOK, **WORKFLOW)))],
    "a private service": [
        register("private", 201, registered(shown_service(shown_handler(public=False), public=False)))
    ],
    "two services": [register("two-services"), get("/services/Other{n}", 200, Has({"revision": 1}))],
    "request/response": [
        register("request-response", 201, registered(shown_service(inactivity_timeout="0s"))),
        get("/deployments/{a}", 200, Has({"protocol_type": "RequestResponse", "http_version": "HTTP/2.0"})),
        patch(
            THE_SERVICE,
            {"inactivity_timeout": "5s"},
            200,
            shown_service(inactivity_timeout="0s", info=unused("service", "5s")),
        ),
    ],
    "request/response with an inactivity timeout": [
        register(
            "request-response-tuned",
            201,
            registered(
                shown_service(
                    shown_handler(info=unused("handler", "7ms")),
                    inactivity_timeout="0s",
                    info=unused("service", "5s"),
                )
            ),
        ),
        get(f"{THE_SERVICE}/handlers/h", 200, shown_handler(info=unused("handler", "7ms"))),
    ],
    "HTTP/1.1": [
        register("request-response", use_http_11=True),
        get("/deployments/{a}", 200, Has({"protocol_type": "RequestResponse", "http_version": "HTTP/1.1"})),
    ],
    "HTTP/1.1 and bidirectional": [
        register("plain", use_http_11=True),
        get("/deployments/{a}", 200, Has({"protocol_type": "BidiStream", "http_version": "HTTP/1.1"})),
    ],
    "no services": [register("empty", 201, registered() | {"services": []})],
    "a service without handlers": [register("no-handlers", 201, registered(shown_service() | {"handlers": []}))],
    "one attempt at least": [
        register("no-attempts", 201, Has({"services": [Has({"retry_policy": Has({"max_attempts": 1})})]}))
    ],
    "delays that shrink": [
        register(
            "shrinking-delays", 201, Has({"services": [Has({"retry_policy": Has({"exponentiation_factor": 0.5})})]})
        )
    ],
    "the last of two services with one name": [
        register("service-twice", 201, registered(shown_service(shown_handler("g"))))
    ],
    "the last of two handlers with one name": [
        register("handler-twice", 201, registered(shown_service(shown_handler(documentation="again"))))
    ],
    "nulls": [register("nulls", 201, registered())],
    "a workflow with two runs": [register("two-runs")],
    "the oldest form of manifest": [register("type-of-version-1", 201, registered())],
    "headers and metadata": [
        register("plain", additional_headers={"X-A": "1"}, metadata={"k": "v"}),
        get("/deployments/{a}", 200, shown_deployment("plain", additional_headers={"x-a": "1"}, metadata={"k": "v"})),
    ],
    "fields that nobody knows": [register("plain", more=1)],
}

AGAIN: dict[str, list[Step]] = {
    "a known address": [
        register("plain"),
        register("plain", 200, registered()),
        get(THE_SERVICE, 200, shown_service()),
    ],
    "a known address with other options": [
        register("plain"),
        register("plain", 200, use_http_11=True, additional_headers={"a": "b"}, metadata={"c": "d"}, breaking=True),
        get("/deployments/{a}", 200, shown_deployment("plain")),
    ],
    "a known address with force": [
        register("plain"),
        register("plain", 200, registered(shown_service(revision=2)), force=True),
        register("plain", 200, force=True, additional_headers={"a": "b"}, metadata={"c": "d"}),
        get(
            "/deployments/{a}",
            200,
            shown_deployment("plain", shown_service(revision=3), additional_headers={"a": "b"}, metadata={"c": "d"}),
        ),
    ],
    "version 2 of the API forces": [
        register("plain", version="/v2"),
        register("plain", 201, registered(shown_service(revision=2)), version="/v2"),
        register(
            "plain",
            409,
            refusal("Conflict: deployment {a} already exists"),
            version="/v2",
            force=False,
        ),
        register("plain", 200, registered(shown_service(revision=2)), version="/v3"),
        register("plain", 200, registered(shown_service(revision=2)), version="/v4"),
    ],
    "a slash at the end is another address": [
        register("plain"),
        Step("POST /deployments", 201, Has({"id": "{b}"}), body={"uri": "{zoo}/plain/{n}/"}, save="b"),
    ],
    "a dry run": [
        register("plain", 201, registered(), dry_run=True),
        get(THE_SERVICE, 404, NO_SERVICE),
        get("/deployments/{a}", 404, refusal("The requested deployment '{a}' does not exist")),
        register("plain"),
        register("plain", 200, registered(), dry_run=True),
        register("plain", 200, registered(shown_service(revision=2)), dry_run=True, force=True),
        get(THE_SERVICE, 200, shown_service()),
        register("not-found", 500, Has({"restate_code": "META0003"}), dry_run=True),
    ],
    "another type of service": [
        register("plain"),
        register("object", 409, TYPE_CHANGE),
        register("object", 409, TYPE_CHANGE, dry_run=True),
        register("object", 201, save="b", breaking=True),
        get(THE_SERVICE, 200, shown_service(EXCLUSIVE, at="{b}", revision=2, **OBJECT)),
        register("workflow", 201, save="c", force=True),
        get(THE_SERVICE, 200, shown_service(RUN, LOOK, at="{c}", revision=3, **WORKFLOW)),
        get("/deployments/{a}", 200, shown_deployment("plain")),
    ],
    "new invocations go to the newest": [
        register("two-handlers"),
        register("plain", save="b"),
        get(THE_SERVICE, 200, shown_service(at="{b}", revision=2)),
        get(
            f"{THE_SERVICE}/handlers/g",
            404,
            refusal("The requested handler 'g' on service 'Zoo{n}' does not exist"),
        ),
        get(
            "/deployments/{a}",
            200,
            shown_deployment("two-handlers", shown_service(shown_handler(), shown_handler("g"))),
        ),
    ],
}

WRONG_SHAPE = Starts("Failed to deserialize the JSON body into the target type: ")

CHANGE: dict[str, list[Step]] = {
    "nothing": [register("plain"), patch("/deployments/{a}", {}, 200, shown_deployment("plain"))],
    "the address": [
        register("plain"),
        patch("/deployments/{a}", {"uri": "{zoo}/anonymous/{n}"}, 200, Has({"uri": "{zoo}/anonymous/{n}"})),
        get("/deployments/{a}", 200, Has({"uri": "{zoo}/anonymous/{n}", "services": [shown_service()]})),
    ],
    "the address, with other settings": [
        register("plain"),
        patch("/deployments/{a}", {"uri": "{zoo}/tuned/{n}"}, 200, shown_deployment("tuned")),
        get(THE_SERVICE, 200, shown_service()),
        patch(
            "/deployments/{a}",
            {"uri": "{zoo}/tuned/{n}", "overwrite": True},
            200,
            shown_deployment("tuned", shown_service(TUNED_HANDLER, **TUNED)),
        ),
        get(THE_SERVICE, 200, shown_service(TUNED_HANDLER, **TUNED)),
    ],
    "the address, in a dry run": [
        register("plain"),
        patch("/deployments/{a}", {"uri": "{zoo}/tuned/{n}", "dry_run": True}, 200, shown_deployment("tuned")),
        patch(
            "/deployments/{a}",
            {"uri": "{zoo}/tuned/{n}", "dry_run": True, "overwrite": True},
            200,
            shown_deployment("tuned", shown_service(TUNED_HANDLER, **TUNED)),
        ),
        get("/deployments/{a}", 200, shown_deployment("plain")),
    ],
    "the protocol": [
        register("plain"),
        patch(
            "/deployments/{a}", {"uri": "{zoo}/request-response/{n}"}, 200, Has({"protocol_type": "RequestResponse"})
        ),
        get(THE_SERVICE, 200, shown_service(inactivity_timeout="0s")),
    ],
    "a handler more": [
        register("plain"),
        patch("/deployments/{a}", {"uri": "{zoo}/two-handlers/{n}"}, 200, shown_deployment("two-handlers")),
        patch("/deployments/{a}", {"overwrite": True}, 200, shown_deployment("two-handlers")),
        patch(
            "/deployments/{a}",
            {"uri": "{zoo}/two-handlers/{n}", "overwrite": True},
            200,
            shown_deployment("two-handlers", shown_service(shown_handler(), shown_handler("g"))),
        ),
    ],
    "a service more": [
        register("plain"),
        patch("/deployments/{a}", {"uri": "{zoo}/two-services/{n}"}, 200, shown_deployment("two-services")),
        get("/services/Other{n}", 404, refusal("The requested service 'Other{n}' does not exist")),
        patch("/deployments/{a}", {"uri": "{zoo}/two-services/{n}", "overwrite": True}, 200, ...),
        get("/services/Other{n}", 200, Has({"revision": 1, "deployment_id": "{a}"})),
        get(THE_SERVICE, 200, shown_service()),
    ],
    "a service less": [
        register("two-services"),
        patch(
            "/deployments/{a}",
            {"uri": "{zoo}/plain/{n}"},
            200,
            ...,
            ours=(409, refusal(Starts("[META0006] the address does not offer service Other{n}, "), "META0006")),
        ),
        patch("/deployments/{a}", {"uri": "{zoo}/plain/{n}", "overwrite": True}, 200, shown_deployment("plain")),
        get("/services/Other{n}", 404, refusal("The requested service 'Other{n}' does not exist")),
    ],
    "a handler less": [
        register("two-handlers"),
        patch(
            "/deployments/{a}",
            {"uri": "{zoo}/plain/{n}"},
            200,
            ...,
            ours=(409, refusal(Starts("[META0006] the address does not offer handler Zoo{n}/g, "), "META0006")),
        ),
    ],
    "another type": [
        register("plain"),
        patch(
            "/deployments/{a}",
            {"uri": "{zoo}/object/{n}"},
            200,
            ...,
            ours=(
                409,
                refusal(Starts("[META0006] the address does not offer service Zoo{n} as a SERVICE, "), "META0006"),
            ),
        ),
        patch("/deployments/{a}", {"uri": "{zoo}/object/{n}", "overwrite": True}, 200, ...),
        get(THE_SERVICE, 200, shown_service(EXCLUSIVE, **OBJECT)),
    ],
    "to where nothing can be read": [
        register("plain"),
        patch("/deployments/{a}", {"uri": "{zoo}/not-found/{n}"}, 500, refusal(..., "META0003")),
        patch("/deployments/{a}", {"uri": "{zoo}/versions-of-tomorrow/{n}"}, 500, refusal(..., "META0012")),
        patch("/deployments/{a}", {"uri": "http://127.0.0.1:1"}, 500, refusal(..., "META0003")),
        get("/deployments/{a}", 200, shown_deployment("plain")),
    ],
    "headers": [
        register("plain", additional_headers={"x-a": "1"}),
        patch("/deployments/{a}", {"additional_headers": None}, 200, Has({"additional_headers": {"x-a": "1"}})),
        patch("/deployments/{a}", {"additional_headers": {"X-B": "2"}}, 200, Has({"additional_headers": {"x-b": "2"}})),
        patch("/deployments/{a}", {"additional_headers": {}}, 200, shown_deployment("plain")),
    ],
    "what cannot be": [
        register("plain"),
        patch("/deployments/{a}", {"overwrite": "x"}, 422, WRONG_SHAPE),
        patch("/deployments/{a}", {"additional_headers": {"a b": "c"}}, 422, WRONG_SHAPE),
        patch("/deployments/{a}", [], 422, WRONG_SHAPE),
        patch("/deployments/{a}", b"{", 400, Starts("Failed to parse the request body as JSON: ")),
        patch("/deployments/{a}", None, 415, "Expected request with `Content-Type: application/json`"),
        patch(
            "/deployments/{a}",
            {"uri": "x"},
            400,
            refusal(f"The request field 'uri' is invalid. Reason: {NOT_ABSOLUTE % 'x'}"),
        ),
        patch("/deployments/{a}", {"arn": "x"}, 400, refusal(Starts("The request field 'arn' is invalid. Reason: "))),
    ],
    "one that is not there": [
        patch(
            f"/deployments/{UNKNOWN}",
            {"uri": "{zoo}/plain/{n}"},
            404,
            refusal(f"The requested deployment '{UNKNOWN}' does not exist"),
        ),
        patch(
            f"/deployments/{UNKNOWN}",
            {"uri": "x"},
            400,
            refusal(f"The request field 'uri' is invalid. Reason: {NOT_ABSOLUTE % 'x'}"),
        ),
    ],
    "by PUT": [
        register("plain"),
        Step("PUT /deployments/{a}", 405, refusal("PUT deployment is deprecated, use PATCH instead"), body={}),
        Step("PUT /deployments/{a}", 415, "Expected request with `Content-Type: application/json`"),
        Step("PUT /v2/deployments/{a}", 200, shown_deployment("plain"), body={}),
        Step("PUT /v2/deployments/{a}", 200, ..., body={"uri": "{zoo}/anonymous/{n}"}),
        get("/deployments/{a}", 200, Has({"uri": "{zoo}/anonymous/{n}"})),
        Step("POST /deployments/{a}", 405, headers={"allow": "GET,HEAD,DELETE,PATCH,PUT"}),
    ],
}

REMOVE: dict[str, list[Step]] = {
    "only by force": [
        register("plain"),
        remove(status=501, query=""),
        remove(status=501, query="?force=false"),
        remove(
            status=400,
            query="?force=maybe",
            answer="Failed to deserialize query string: force: provided string was not `true` or `false`",
        ),
        remove(
            status=400,
            query="?force=true&force=true",
            answer="Failed to deserialize query string: duplicate field `force`",
        ),
        remove(query="?force=true&more=x"),
        remove(status=404, answer=refusal("not found in the schema registry: deployment with id '{a}'")),
        get("/deployments/{a}", 404, refusal("The requested deployment '{a}' does not exist")),
        get(THE_SERVICE, 404, NO_SERVICE),
        get(f"{THE_SERVICE}/handlers", 404, NO_SERVICE),
        get(f"{THE_SERVICE}/openapi", 404, NO_SERVICE),
    ],
    "the newest": [
        register("two-handlers"),
        register("plain", save="b"),
        remove("{b}"),
        get(THE_SERVICE, 200, shown_service(shown_handler(), shown_handler("g"))),
        register("plain", 201, registered(shown_service(at="{c}", revision=2), at="{c}"), save="c"),
    ],
    "all, and begin again": [
        register("plain"),
        register("plain", 200, force=True),
        remove(),
        register("plain", 201, registered(shown_service(at="{b}"), at="{b}"), save="b"),
    ],
    "one that is not there": [
        Step(f"DELETE /deployments/{UNKNOWN}", 501),
        Step(
            f"DELETE /deployments/{UNKNOWN}?force=true",
            404,
            refusal(f"not found in the schema registry: deployment with id '{UNKNOWN}'"),
        ),
    ],
}

DURATIONS = {
    "3h": "3h", "1d": "1d", "PT3H": "3h", "P1D": "1d", "1 hour": "1h", "1h30m": "1h 30m", "1h 30m": "1h 30m",
    "500ms": "500ms", "0s": "0s", "0": "0s", "1w": "7d", "1.5h": "1h 30m", "PT1.5S": "1s 500ms", "1 h": "1h",
    "1hrs": "1h", "1min": "1m", "3 millis": "3ms", "pt3h": "3h", "1:00:00": "1h", "1d 25h": "2d 1h",
    "10000000000ms": "115d 17h 46m 40s", "+1h": "1h", "P1W": "7d", "PT1H30M": "1h 30m", "3 days": "3d",
}  # fmt: skip
NO_DURATIONS = (
    *("5", "", 5, 5.5, "-1h", "P1M", "P1Y", "1mo", "1y", "1H", "PT", "P", "1h,30m", "99999999999999d", "inf", "1d1d"),
    *("1h 1d", "1h ago", {"secs": 1}, [], True),
)
CONFIGURE: dict[str, list[Step]] = {
    "every setting": [
        register("tuned"),
        patch(
            THE_SERVICE,
            {
                "abort_timeout": "5s",
                "journal_retention": "PT3H",
                "idempotency_retention": "1d 2h",
                "inactivity_timeout": "0",
            },
            200,
            shown_service(
                TUNED_HANDLER,
                **TUNED
                | {
                    "abort_timeout": "5s",
                    "journal_retention": "3h",
                    "idempotency_retention": "1d 2h",
                    "inactivity_timeout": "0s",
                },
            ),
        ),
        patch(THE_SERVICE, {"abort_timeout": None, "more": 1}, 200, Has({"abort_timeout": "5s"})),
        register("tuned", 200, force=True),
        get(THE_SERVICE, 200, shown_service(TUNED_HANDLER, revision=2, **TUNED)),
    ],
    "nothing": [register("plain"), patch(THE_SERVICE, {}, 200, shown_service())],
    "private and public again": [
        register("described"),
        patch(
            THE_SERVICE,
            {"public": False},
            200,
            DESCRIBED | {"public": False, "handlers": [h | {"public": False} for h in DESCRIBED["handlers"]]},
        ),
        patch(THE_SERVICE, {"public": True}, 200, DESCRIBED),
    ],
    "a private service made public": [
        register("private"),
        patch(THE_SERVICE, {"public": True}, 200, shown_service()),
    ],
    "what a workflow keeps": [
        register("workflow"),
        patch(
            THE_SERVICE,
            {"workflow_completion_retention": "1h 30m"},
            200,
            shown_service(RUN, LOOK, **WORKFLOW | {"workflow_completion_retention": "1h 30m"}),
        ),
    ],
    "what a workflow keeps that says it itself": [
        register("keeping-workflow"),
        patch(
            THE_SERVICE,
            {"workflow_completion_retention": "1h"},
            200,
            shown_service(RUN, **WORKFLOW | {"workflow_completion_retention": "7s"}),
        ),
    ],
    "what a service does not keep": [
        register("plain"),
        patch(
            THE_SERVICE,
            {"workflow_completion_retention": "1h"},
            400,
            refusal("modifying retention time for service type Service is unsupported"),
        ),
        register("object", breaking=True, save="b"),
        patch(
            THE_SERVICE,
            {"workflow_completion_retention": "1h"},
            400,
            refusal("modifying retention time for service type VirtualObject is unsupported"),
        ),
    ],
    "of one deployment only": [
        register("plain"),
        patch(THE_SERVICE, {"abort_timeout": "5s"}, 200, shown_service(abort_timeout="5s")),
        register("two-handlers", save="b"),
        get(THE_SERVICE, 200, Has({"abort_timeout": "10m"})),
        get("/deployments/{a}", 200, Has({"services": [shown_service(abort_timeout="5s")]})),
        remove("{b}"),
        get(THE_SERVICE, 200, shown_service(abort_timeout="5s")),
    ],
    "private services are called by handlers only": [
        register("plain"),
        patch(THE_SERVICE, {"public": False}, 200, ...),
        Step("POST ingress:/Zoo{n}/h", 400, Has({"message": "the invoked service is not public", "source": "ingress"})),
    ],
    "one that is not there": [
        patch(
            "/services/Nope",
            {"public": True},
            404,
            refusal("not found in the schema registry: service with name 'Nope'"),
        ),
        patch("/services/Nope", {}, 404, refusal("The requested service 'Nope' does not exist")),
        patch("/services/Nope", {"public": "x"}, 422, WRONG_SHAPE),
    ],
    "what cannot be": [
        register("plain"),
        patch(THE_SERVICE, {"public": "x"}, 422, WRONG_SHAPE),
        patch(THE_SERVICE, 5, 422, WRONG_SHAPE),
        patch(THE_SERVICE, b"{", 400, Starts("Failed to parse the request body as JSON: ")),
        patch(THE_SERVICE, None, 415, "Expected request with `Content-Type: application/json`"),
        Step(f"POST {THE_SERVICE}", 405, body={}, headers={"allow": "GET,HEAD,PATCH"}),
    ],
    "durations": [
        register("plain"),
        *(
            patch(THE_SERVICE, {"abort_timeout": text}, 200, Has({"abort_timeout": shown}))
            for text, shown in DURATIONS.items()
        ),
    ],
    "what is no duration": [
        register("plain"),
        *(patch(THE_SERVICE, {"abort_timeout": text}, 422, WRONG_SHAPE) for text in NO_DURATIONS),
    ],
}

ROWS: dict[str, list[Step]] = {
    **{f"register: {name}": row for name, row in REGISTER.items()},
    **{f"register: {name}": row for name, row in AGAIN.items()},
    **{f"update: {name}": row for name, row in CHANGE.items()},
    **{f"remove: {name}": row for name, row in REMOVE.items()},
    **{f"configure: {name}": row for name, row in CONFIGURE.items()},
}
