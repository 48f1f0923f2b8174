"""Invocations, state and what is switched off: requests and the answers of both engines."""

from __future__ import annotations

from typing import Any

from tests.admin.conftest import UNKNOWN
from tests.admin.registry_table import UNKNOWN as UNKNOWN_DEPLOYMENT
from tests.admin.registry_table import WRONG_SHAPE, get, patch
from tests.admin.steps import Has, Starts, Step, refusal

UNKNOWN_SUBSCRIPTION = "sub_16tCcPQuIcwtYpzUmqjMAmK"
NOT_JSON = "Expected request with `Content-Type: application/json`"
NO_PARSE = Starts("Failed to parse the request body as JSON: ")


def call(target: str, body: Any = "x", *, save: str = "i", status: int = 200) -> Step:
    """An invocation that has completed."""
    return Step(f"POST ingress:/{target}", status, ..., body=body, save=save)


def send(target: str, body: Any = "x", *, save: str = "i") -> Step:
    return Step(f"POST ingress:/{target}/send", 202, ..., body=body, save=save)


def sent_later(*, save: str = "i") -> Step:
    return Step("POST ingress:/Greeter/greet/send?delay=1h", 202, ..., body="x", save=save)


def pending(*, save: str = "i") -> list[Step]:
    return [
        Step("POST ingress:/Counter/{n}/hold/send", 202, ..., save="holder"),
        send("Counter/{n}/add", 1, save=save),
    ]


def operate(what: str, status: Any, answer: Any = "", *, at: str = "{i}", query: str = "", save: str = "") -> Step:
    return Step(f"PATCH /invocations/{at}/{what}{query}", status, answer, save=save)


def paused() -> Step:
    """Pauses and waits for it: 202 as long as its attempt runs."""
    return Step("PATCH /invocations/{i}/pause", 200, until=True)


def result(value: Any, *, at: str = "{i}") -> Step:
    """The result, waited for."""
    return Step(f"GET ingress:/restate/invocation/{at}/attach", 200, value)


def restart(status: int = 200, answer: Any = None, *, query: str = "", at: str = "{i}", save: str = "again") -> Step:
    """Restart as new."""
    if status == 200:
        return operate("restart-as-new", 200, {"new_invocation_id": f"{{{save}}}"}, at=at, query=query, save=save)
    return operate("restart-as-new", status, answer, at=at, query=query)


def batch(what: str, invocation_ids: list[str], status: int = 200, answer: Any = "", **more: Any) -> Step:
    body = {"invocation_ids": invocation_ids, **more}
    return Step(f"POST /internal/invocations_batch_operations/{what}", status, answer, body=body)


def bad_query(reason: str) -> str:
    return f"Failed to deserialize query string: {reason}"


NO_RESULT = refusal(
    "The prefix of the journal '{i}' up to 'from' (included) contains some Commands without respective Completions."
)
IS_RUNNING = refusal("The invocation '{i}' is still running.")
IS_EARLY = refusal("The invocation '{i}' cannot be restarted because it's not running yet.")
IS_GONE = refusal(
    "The invocation '{i}' cannot be restarted because the input is not available. This indicates that the journal was "
    "already purged, or not retained at all."
)
NOT_SUPPORTED = refusal(
    "Restarting the invocation '{i}' is not supported. Restarting workflows is not supported, and restarting "
    "invocations created using the old service protocol."
)
CANNOT_MOVE = refusal(
    "The invocation '{i}' is still running or the deployment id is not pinned yet, deployment id cannot be changed."
)


def bad_deployment(reason: str, where: str = "query parameter") -> dict[str, Any]:
    return refusal(f"The {where} 'deployment' is invalid. Reason: {reason}")


MALFORMED = {
    "foo": "bad format",
    "": "bad length",
    "LATEST": "bad format",
    "dp_1abc": "bad length",
    "dp_2abc": "unrecognized codec version",
    "inv_1abc": "id doesn't match the expected type",
    "Dp_16tCcPQuIcwtYpzUmqjMAmK": "unrecognized resource type: Dp",
    "dp_1zzzzzzzzzzzzzzzzzzzzzz": "base62 decode error",
}
MALFORMED_FROM = {
    "-1": "from: invalid digit found in string",
    "x": "from: invalid digit found in string",
    "": "from: cannot parse integer from empty string",
    "4294967296": "from: number too large to fit in target type",
    "0&from=1": "duplicate field `from`",
}

RESTART: dict[str, list[Step]] = {
    "from the beginning": [
        call("Greeter/steps"),
        restart(),
        result("x has 1", at="{again}"),
        restart(at="{again}", save="third"),
    ],
    **{
        f"from entry {index}": [call("Greeter/steps"), restart(query=f"?from={index}"), result("x has 1", at="{again}")]
        for index in range(6)
    },
    "behind the last entry": [
        call("Greeter/steps"),
        *(restart(400, NO_RESULT, query=f"?from={index}") for index in (6, 7, 100, 4294967294)),
    ],
    "a failed one": [
        call("Greeter/refuse", {"message": "no", "code": 418}, status=418),
        restart(),
        Step(
            "GET ingress:/restate/invocation/{again}/attach",
            418,
            {"code": 418, "message": "no", "source": "invocation"},
        ),
    ],
    "an object": [
        call("Counter/{n}/add", 2),
        restart(),
        result(4, at="{again}"),
        restart(query="?from=1", save="third"),
        result(2, at="{third}"),
        Step("POST ingress:/Counter/{n}/peek", 200, 2),
    ],
    "an object behind its key": [
        call("Counter/{n}/add", 2),
        Step("POST ingress:/Counter/{n}/hold/send", 202, ..., save="holder"),
        restart(),
        operate("pause", 409, refusal("The invocation '{again}' is not running, cannot be paused."), at="{again}"),
    ],
    "a killed one, up to where it hung": [
        send("Greeter/wait"),
        operate("kill", 200),
        restart(400, NO_RESULT, query="?from=1"),
        restart(),
        operate("kill", 200, at="{again}"),
    ],
    "a running one": [send("Greeter/wait"), restart(409, IS_RUNNING)],
    "a suspended or running one, somewhere": [
        send("Greeter/wait"),
        restart(409, IS_RUNNING, query=f"?deployment={UNKNOWN_DEPLOYMENT}"),
    ],
    "a scheduled one": [sent_later(), restart(425, IS_EARLY)],
    "a pending one": [*pending(), restart(425, IS_EARLY)],
    "a workflow": [
        send("Signup/{n}/run", "me"),
        call("Signup/{n}/approve", "you", save="shared"),
        result("me approved by you"),
        restart(422, NOT_SUPPORTED),
        restart(422, refusal(NOT_SUPPORTED["message"].replace("{i}", "{shared}")), at="{shared}"),
    ],
    "without a journal": [
        call("Greeter/steps"),
        operate("purge-journal", 200),
        restart(410, IS_GONE),
        restart(410, IS_GONE, query=f"?from=100&deployment={UNKNOWN_DEPLOYMENT}"),
    ],
    "an unknown one": [restart(404, refusal(f"The requested invocation '{UNKNOWN}' does not exist"), at=UNKNOWN)],
    "a malformed one": [
        restart(
            400,
            refusal("The request field 'invocation_id' is invalid. Reason: bad length"),
            at="inv_1bad",
            query="?deployment=foo",
        ),
        restart(400, bad_query("from: invalid digit found in string"), at="inv_1bad", query="?from=x"),
    ],
    "from a malformed index": [
        call("Greeter/steps"),
        *(restart(400, bad_query(text), query=f"?from={value}") for value, text in MALFORMED_FROM.items()),
    ],
    "on a deployment": [
        call("Greeter/steps"),
        get("/services/Greeter", 200, ...),
        Step("GET /services/Greeter", 200, ..., save="here"),
        *(restart(query=f"?deployment={choice}") for choice in ("keep", "Keep", "latest", "Latest", "{here}")),
        restart(query="?from=2&deployment={here}"),
        result("x has 1", at="{again}"),
    ],
    "on an unknown deployment": [
        call("Greeter/steps"),
        restart(
            400,
            refusal("The given deployment was not found when trying to restart as new the invocation '{i}'."),
            query=f"?deployment={UNKNOWN_DEPLOYMENT}",
        ),
    ],
    "on a malformed deployment": [
        call("Greeter/steps"),
        *(restart(400, bad_deployment(reason), query=f"?deployment={text}") for text, reason in MALFORMED.items()),
    ],
    "with parameters that nobody knows": [call("Greeter/steps"), restart(query="?more=1")],
}

RESUME: dict[str, list[Step]] = {
    "a running one on another deployment": [
        send("Greeter/wait"),
        Step("PATCH /invocations/{i}/resume?deployment=keep", 200),
        operate("kill", 200),
    ],
    "a paused one on a deployment": [
        Step("GET /services/Greeter", 200, ..., save="here"),
        send("Greeter/wait"),
        Step("PATCH /invocations/{i}/resume?deployment=latest", 409, CANNOT_MOVE),
        paused(),
        operate(
            "resume",
            400,
            refusal("The given deployment was not found when trying to resume the invocation '{i}'."),
            query=f"?deployment={UNKNOWN_DEPLOYMENT}",
        ),
        *(
            operate("resume", 400, bad_deployment(reason), query=f"?deployment={text}")
            for text, reason in MALFORMED.items()
        ),
        operate("resume", 400, bad_query("duplicate field `deployment`"), query="?deployment=keep&deployment=keep"),
        operate("resume", 200, query="?deployment={here}"),
        paused(),
        operate("resume", 200, query="?deployment=Latest"),
        operate("kill", 200),
    ],
    "one that is bound to no deployment": [
        Step("GET /services/Greeter", 200, ..., save="here"),
        send("Greeter/stumble"),
        paused(),
        operate("resume", 409, CANNOT_MOVE, query="?deployment={here}"),
        operate("resume", 409, CANNOT_MOVE, query=f"?deployment={UNKNOWN_DEPLOYMENT}"),
        operate("resume", 200, query="?deployment=latest"),
        operate("kill", 200),
    ],
    "a completed one on a deployment": [
        call("Greeter/steps"),
        operate(
            "resume",
            409,
            refusal("The invocation '{i}' is completed, cannot be resumed."),
            query=f"?deployment={UNKNOWN_DEPLOYMENT}",
        ),
    ],
    "a scheduled one on a deployment": [
        sent_later(),
        operate(
            "resume",
            425,
            refusal("The invocation '{i}' is either inboxed or scheduled, cannot be resumed."),
            query=f"?deployment={UNKNOWN_DEPLOYMENT}",
        ),
    ],
    "an unknown one on a deployment": [
        operate(
            "resume",
            404,
            refusal(f"The requested invocation '{UNKNOWN}' does not exist"),
            at=UNKNOWN,
            query="?deployment=latest",
        )
    ],
}

NOT_FOUND = {"invocation_id": UNKNOWN, "error": f"Invocation '{UNKNOWN}' not found"}


def failed(text: str, invocation: str) -> dict[str, str]:
    return {"invocation_id": f"{{{invocation}}}", "error": f"Invocation '{{{invocation}}}' {text}"}


BATCH: dict[str, list[Step]] = {
    **{
        what: [
            call("Greeter/steps", save="done"),
            send("Greeter/wait", save="live"),
            sent_later(save="later"),
            batch(what, ["{done}", "{live}", "{later}", UNKNOWN], 200, answer),
            operate("kill", ..., ..., at="{live}"),
        ]
        for what, answer in {
            "cancel": {"succeeded": ["{live}", "{later}"], "failed": [failed("was already completed", "done"), NOT_FOUND]},
            "kill": {"succeeded": ["{live}", "{later}"], "failed": [failed("was already completed", "done"), NOT_FOUND]},
            "purge": {
                "succeeded": ["{done}"],
                "failed": [failed("is not yet completed", "live"), failed("is not yet completed", "later"), NOT_FOUND],
            },
            "purge-journal": {
                "succeeded": ["{done}"],
                "failed": [failed("is not yet completed", "live"), failed("is not yet completed", "later"), NOT_FOUND],
            },
            "pause": {
                "succeeded": ["{live}"],
                "failed": [
                    failed("is not running, cannot be paused", "done"),
                    failed("is not running, cannot be paused", "later"),
                    NOT_FOUND,
                ],
            },
            "resume": {
                "succeeded": ["{live}"],
                "failed": [
                    failed("is completed, cannot be resumed", "done"),
                    failed("is either inboxed or scheduled, cannot be resumed", "later"),
                    NOT_FOUND,
                ],
            },
            "restart-as-new": {
                "succeeded": [{"old_invocation_id": "{done}", "new_invocation_id": ...}],
                "failed": [failed("is still running", "live"), {"invocation_id": "{later}", "error": ...}, NOT_FOUND],
            },
        }.items()
    },
    "none": [batch("kill", [], 200, {"succeeded": [], "failed": []})],
    "the same twice": [batch("kill", [UNKNOWN, UNKNOWN], 200, {"succeeded": [], "failed": [NOT_FOUND, NOT_FOUND]})],
    "a thousand": [batch("cancel", [UNKNOWN] * 1000, 200, {"succeeded": [], "failed": [NOT_FOUND] * 1000})],
    "more than a thousand": [
        batch("cancel", [UNKNOWN] * 1001, 400, refusal("Batch size 1001 exceeds maximum allowed size of 1000"))
    ],
    "what cannot be restarted": [
        call("Greeter/steps", save="done"),
        operate("purge-journal", 200, at="{done}"),
        call("Greeter/steps", save="whole"),
        batch("restart-as-new", ["{done}"], 200, {"succeeded": [], "failed": [{"invocation_id": "{done}", "error": ...}]}),
        batch(
            "restart-as-new",
            ["{whole}"],
            200,
            {"succeeded": [], "failed": [{"invocation_id": "{whole}", "error": ...}]},
            deployment=UNKNOWN_DEPLOYMENT,
        ),
    ],
    "on a deployment": [
        *(batch("resume", [UNKNOWN], 200, {"succeeded": [], "failed": [NOT_FOUND]}, deployment=choice)
          for choice in (None, "keep", "Keep", "latest", "Latest", UNKNOWN_DEPLOYMENT)),
        *(batch("resume", [UNKNOWN], 400, bad_deployment(reason, "request field"), deployment=text)
          for text, reason in MALFORMED.items()),
        *(batch("restart-as-new", [UNKNOWN], 400, bad_deployment(reason, "request field"), deployment=text)
          for text, reason in MALFORMED.items()),
    ],
    "no invocations": [
        batch("kill", ["foo"], 422, WRONG_SHAPE),
        batch("kill", [UNKNOWN, "inv_1bad"], 422, WRONG_SHAPE),
        Step("POST /internal/invocations_batch_operations/kill", 422, WRONG_SHAPE, body={"invocation_ids": [5]}),
        Step("POST /internal/invocations_batch_operations/kill", 422, WRONG_SHAPE, body={"ids": [UNKNOWN]}),
        Step("POST /internal/invocations_batch_operations/kill", 422, WRONG_SHAPE, body=[]),
        Step("POST /internal/invocations_batch_operations/kill", 400, NO_PARSE, body=b"{"),
        Step("POST /internal/invocations_batch_operations/kill", 415, NOT_JSON),
        Step("GET /internal/invocations_batch_operations/kill", 405, headers={"allow": "POST"}),
        batch("nope", [UNKNOWN], 404),
    ],
}  # fmt: skip


def state(body: Any, status: int, answer: Any = "") -> Step:
    return Step("POST /services/Counter/state", status, answer, body=body)


STATE: dict[str, list[Step]] = {
    "texts and bytes": [
        state({"object_key": "{n}", "new_state": {"total": [52, 50], "note": "é", "": [1]}}, 202),
        Step("POST ingress:/Counter/{n}/peek", 200, 42),
    ],
    "of a version that does not fit": [
        state({"object_key": "{n}", "new_state": {"total": [52]}}, 202),
        state({"object_key": "{n}", "new_state": {"total": [53]}, "version": "zz"}, 202),
        Step("POST ingress:/Counter/{n}/peek", 200, 4),
    ],
    "of an empty key": [state({"object_key": "", "new_state": {}, "version": None}, 202)],
    "what is no state": [
        state(body, 422, WRONG_SHAPE)
        for body in (
            {"object_key": 5, "new_state": {}},
            {"object_key": "a", "new_state": []},
            {"object_key": "a", "new_state": {"x": None}},
            {"object_key": "a", "new_state": {"x": [1.5]}},
            {"object_key": "a", "new_state": {"x": [-1]}},
            {"object_key": "a", "new_state": {"x": [256]}},
            {"object_key": "a", "new_state": {"x": [True]}},
            {"object_key": "a", "new_state": {"x": [[1]]}},
            {"object_key": "a", "new_state": {"x": {}}},
            {"object_key": "a", "new_state": {}, "version": 5},
            ["a"],
            5,
        )
    ],
    "what is no JSON": [
        state(body, 400, NO_PARSE)
        for body in (b"", b"{", b'{"object_key":"\\ud800","new_state":{}}', b'{"object_key":"a","new_state":NaN}')
    ],
}


def subscribe(body: Any, status: int, answer: Any) -> Step:
    return Step("POST /subscriptions", status, answer, body=body)


def bad_uri(what: str, uri: str, reason: str) -> dict[str, Any]:
    return refusal(f"[META0009] invalid {what} URI '{uri}': {reason}", "META0009")


TOPIC, GREET = "kafka://foo/t", "service://Greeter/greet"
NO_HANDLER = "cannot find service/handler specified in the sink URI."
OFF: dict[str, list[Step]] = {
    "subscriptions": [
        get("/subscriptions", 200, {"subscriptions": []}),
        get(f"/subscriptions?sink={GREET}&source=x", 200, {"subscriptions": []}),
        get(
            f"/subscriptions/{UNKNOWN_SUBSCRIPTION}",
            404,
            refusal(f"The requested subscription '{UNKNOWN_SUBSCRIPTION}' does not exist"),
        ),
        get("/subscriptions/foo", 400, "Invalid URL: Cannot parse `subscription` with value `foo`: bad format"),
        Step(
            f"DELETE /subscriptions/{UNKNOWN_SUBSCRIPTION}",
            404,
            refusal(f"not found in the schema registry: subscription with id '{UNKNOWN_SUBSCRIPTION}'"),
        ),
        Step("PATCH /subscriptions/foo", 405, body={}, headers={"allow": "GET,HEAD,DELETE"}),
        subscribe(
            {"source": TOPIC, "sink": GREET}, 400, refusal("Kafka cluster 'foo' not found. Available clusters: []")
        ),
        subscribe(
            {"source": TOPIC, "sink": GREET, "options": {"a": "b"}},
            400,
            refusal("Kafka cluster 'foo' not found. Available clusters: []"),
        ),
        subscribe(
            {"source": "x", "sink": "y"},
            400,
            bad_uri("source", "x", "must have a scheme segment, with supported schemes: [kafka]."),
        ),
        subscribe(
            {"source": TOPIC, "sink": "http://Greeter/greet"},
            400,
            bad_uri("sink", "http://Greeter/greet", "must have a scheme segment, with supported schemes: [service]."),
        ),
        *(
            subscribe({"source": TOPIC, "sink": sink}, 400, bad_uri("sink", sink, NO_HANDLER))
            for sink in ("service://Nope/greet", "service://Greeter/nope")
        ),
        *(
            subscribe(body, 422, WRONG_SHAPE)
            for body in (
                {},
                [],
                {"source": TOPIC},
                {"source": 5, "sink": "y"},
                {"source": TOPIC, "sink": GREET, "options": 5},
            )
        ),
        subscribe(None, 415, NOT_JSON),
    ],
    "Kafka clusters": [
        get("/kafka-clusters", 200, {"clusters": []}),
        get("/kafka-clusters/nope", 404, refusal("The requested Kafka cluster 'nope' does not exist")),
        patch(
            "/kafka-clusters/nope",
            {"properties": {"bootstrap.servers": "x"}},
            404,
            refusal("not found in the schema registry: kafka cluster 'nope'"),
        ),
        patch("/kafka-clusters/nope", {}, 422, WRONG_SHAPE),
        Step(
            "DELETE /kafka-clusters/nope",
            404,
            refusal("not found in the schema registry: kafka cluster named 'nope'"),
        ),
        Step(
            "POST /kafka-clusters",
            400,
            refusal("kafka cluster 'foo' properties must contain either 'bootstrap.servers' or 'metadata.broker.list'"),
            body={"name": "foo", "properties": {}},
        ),
        Step("POST /kafka-clusters", 422, WRONG_SHAPE, body={}),
        Step("POST /kafka-clusters", 422, WRONG_SHAPE, body={"name": "foo"}),
        Step(
            "POST /kafka-clusters",
            201,
            ...,
            body={"name": "c{n}", "properties": {"bootstrap.servers": "127.0.0.1:1"}},
            ours=(400, refusal("Kafka cluster 'c{n}' cannot be added: this engine reads no Kafka topics")),
        ),
        Step("DELETE /kafka-clusters/c{n}", 202, ..., ours=(404, ...)),
        Step("PUT /kafka-clusters/foo", 405, body={}, headers={"allow": "GET,HEAD,PATCH,DELETE"}),
    ],
    "limits": [
        Step("PUT /limits/rules", 200, [], body=[]),
        Step("POST /limits/rules/bulk-delete", 200, [], body=[]),
        Step("POST /limits/rules/bulk-delete", 200, [], body=[{"pattern": "nope{n}"}]),
        *(Step("PUT /limits/rules", 422, WRONG_SHAPE, body=body) for body in ({}, [{}], [5], [{"pattern": 5}])),
        *(Step("POST /limits/rules/bulk-delete", 422, WRONG_SHAPE, body=body) for body in ({}, [{}], [5])),
        Step("PUT /limits/rules", 415, NOT_JSON),
        get("/limits/rules", 405),
        Step(
            "PUT /limits/rules",
            200,
            ...,
            body=[{"pattern": "r{n}", "limits": {"concurrency": 1}}],
            ours=(400, refusal("limit rules are not supported by this engine")),
        ),
        Step("POST /limits/rules/bulk-delete", 200, ..., body=[{"pattern": "r{n}"}]),
    ],
    "queues": [
        *(
            Step(
                f"POST /vqueues/foo/{what}",
                400,
                refusal("The request field 'vqueue_id' is invalid. Reason: bad format"),
                ours=(400, refusal("The request field 'vqueue_id' is invalid. Reason: there is no queue 'foo'")),
            )
            for what in ("pause", "resume")
        ),
        Step("POST /vqueues/foo/nope", 404),
        get("/vqueues/foo/resume", 405),
    ],
}

PATHS: dict[str, list[Step]] = {
    "cluster health": [
        get("/cluster-health", 200, {"cluster_name": "localcluster", "metadata_cluster_health": {"members": [1]}})
    ],
    "the OpenAPI document": [
        get("/openapi", 200, Has({"openapi": "3.1.0"})),
        get("/v4/openapi", 200, Has({"openapi": "3.1.0"})),
    ],
    "HEAD": [
        Step("HEAD /health", 200),
        Step("HEAD /services", 200, ..., headers={"content-type": "application/json"}),
        Step("HEAD /services/Nope", 404, ...),
    ],
    "other methods": [
        Step(f"{method} /health", 405, headers={"allow": "GET,HEAD"})
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
    ]
    + [
        Step("PUT /deployments", 405, headers={"allow": "GET,HEAD,POST"}),
        Step("POST /services", 405, headers={"allow": "GET,HEAD"}),
        Step("PUT /invocations/foo/cancel", 405, headers={"allow": "PATCH"}),
    ],
    "versions": [
        get("/v2/health", 200),
        get("/v4/health", 200),
        get("/v5/health", 404),
        get("/v04/health", 404),
        get("/v4/v4/health", 404),
        get("/v4", 404),
        get("/v4/", 404),
        get("/v1", 400, "Unsupported Admin API version V1. This server supports versions between V2 and V4."),
        get("/v1/", 404),
        get("/v1/nope", 400, "Unsupported Admin API version V1. This server supports versions between V2 and V4."),
        Step(
            "POST /v1/nope", 400, "Unsupported Admin API version V1. This server supports versions between V2 and V4."
        ),
    ],
    "no such paths": [
        get(path, 404) for path in ("/nope", "/internal", "/vqueues", "/services/Greeter/handlers/", "/limits")
    ],
    "what is not UTF-8": [
        get("/services/%ff", 400, "Invalid URL: Invalid UTF-8 in `service`"),
        get("/deployments/%ff", 400, "Invalid URL: Invalid UTF-8 in `deployment`"),
        Step("PATCH /invocations/%ff/cancel", 400, "Invalid URL: Invalid UTF-8 in `invocation_id`"),
    ],
    "a slash within a part": [
        get("/services/a%2Fb", 404, refusal("The requested service 'a/b' does not exist")),
        get("/deployments/a%2Fb", 400, "Invalid URL: Cannot parse `deployment` with value `a/b`: bad format"),
        Step(
            "PATCH /invocations/a%2Fb/cancel",
            400,
            refusal("The request field 'invocation_id' is invalid. Reason: bad format"),
        ),
    ],
    "malformed deployments": [
        get(f"/deployments/{text}", 400, f"Invalid URL: Cannot parse `deployment` with value `{text}`: {reason}")
        for text, reason in MALFORMED.items()
        if text
    ],
    "delete by a mode given twice": [
        Step(f"DELETE /invocations/{UNKNOWN}?mode=kill&mode=kill", 400, bad_query("duplicate field `mode`"))
    ],
    "delete a malformed one by a malformed mode": [
        Step(
            "DELETE /invocations/foo?mode=",
            400,
            Starts("Failed to deserialize query string: mode: unknown variant ``, "),
        )
    ],
}

ROWS: dict[str, list[Step]] = {
    **{f"restart: {name}": row for name, row in RESTART.items()},
    **{f"resume: {name}": row for name, row in RESUME.items()},
    **{f"batch: {name}": row for name, row in BATCH.items()},
    **{f"state: {name}": row for name, row in STATE.items()},
    **{f"off: {name}": row for name, row in OFF.items()},
    **{f"path: {name}": row for name, row in PATHS.items()},
}
