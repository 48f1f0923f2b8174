"""Registrations that are refused: by what the endpoint says, and by what the request says."""

from __future__ import annotations

from typing import Any

from tests.admin.registry_table import NO_SERVICE, NOT_ABSOLUTE, THE_SERVICE, WRONG_SHAPE, get, register
from tests.admin.steps import Has, Starts, Step, refusal

REFUSED_ANSWERS: dict[str, tuple[int, Any]] = {
    "not-found": (500, refusal(..., "META0003")),
    "failing": (500, refusal(..., "META0003")),
    "wrong-type": (500, refusal(..., "META0013")),
    "type-with-parameter": (500, refusal(..., "META0013")),
    "type-of-version-5": (500, refusal(..., "META0013")),
    "no-mode": (500, refusal(..., "META0013")),
    "versions-upside-down": (500, refusal(..., "META0013")),
    "versions-of-tomorrow": (500, refusal(..., "META0012")),
    "versions-of-yesterday": (500, refusal(..., "META0012")),
    "reserved-name": (
        400,
        refusal("[META0005] cannot insert/modify service 'RestateThings' as it contains a reserved name", "META0005"),
    ),
    "reserved-openapi": (
        400,
        refusal("[META0005] cannot insert/modify service 'OpenAPI' as it contains a reserved name", "META0005"),
    ),
    **{
        case: (500, refusal(Starts("received a bad response from the SDK that cannot be decoded: ")))
        for case in (
            *("no-json", "a-list", "unknown-field", "unknown-field-of-a-service", "unknown-field-of-a-handler"),
            *("unknown-field-of-an-input", "unknown-field-of-an-output", "no-services", "no-versions", "unknown-mode"),
            *("version-0", "version-as-text", "no-name", "no-type", "bad-service-name", "bad-handler-name"),
            *("unknown-service-type", "unknown-handler-type", "negative-timeout", "timeout-as-text"),
            *("required-as-text", "metadata-of-numbers", "unknown-policy"),
        )
    },
    **{
        case: (400, refusal(...))
        for case in (
            *("workflow-handler-in-service", "exclusive-in-service", "workflow-handler-in-object"),
            *("exclusive-in-workflow", "public-in-private", "workflow-retention-in-service"),
            *("workflow-retention-of-a-shared-one", "idempotency-retention-of-a-run", "content-type-without-slash"),
        )
    },
    "bad-schema": (400, refusal(Starts("the json schema for Zoo{n}/h input is invalid: "))),
    "bad-output-schema": (400, refusal(Starts("the json schema for Zoo{n}/h output is invalid: "))),
    "external-schema": (400, refusal(Starts("the json schema for Zoo{n}/h input is invalid: "))),
    "schema-as-text": (400, refusal(Starts('the json schema for Zoo{n}/h input is invalid: "x" is not of types '))),
}
DISCOVERY: dict[str, list[Step]] = {
    f"discovery: {case}": [register(case, status, answer), get(THE_SERVICE, 404, NO_SERVICE)]
    for case, (status, answer) in REFUSED_ANSWERS.items()
}
DISCOVERY["nobody listens"] = [
    Step("POST /deployments", 500, refusal(Starts("[META0003] "), "META0003"), body={"uri": "http://127.0.0.1:1/"})
]
DISCOVERY["a name that is none"] = [
    Step(
        "POST /deployments",
        500,
        refusal(Starts("[META0003] "), "META0003"),
        body={"uri": "http://no-such-host.invalid:9080"},
    )
]
DISCOVERY["only HTTP/1.1"] = [
    Step("POST /deployments", 500, refusal(Starts("[META0014] "), "META0014"), body={"uri": "{zoo11}/plain/{n}"}),
    Step(
        "POST /deployments",
        201,
        Has({"id": "{a}"}),
        body={"uri": "{zoo11}/request-response/{n}", "use_http_11": True},
        save="a",
    ),
]

WRONG_BODIES: dict[str, Any] = {
    "nothing said": {},
    "a number as address": {"uri": 5},
    "no address": {"uri": ""},
    "null as address": {"uri": None},
    "no host": {"uri": "http://"},
    "no host, but a path": {"uri": "http:///x"},
    "force as text": {"uri": "{zoo}/plain/{n}", "force": "yes"},
    "dry run as number": {"uri": "{zoo}/plain/{n}", "dry_run": 1},
    "a header name with a space": {"uri": "{zoo}/plain/{n}", "additional_headers": {"a b": "x"}},
    "a header of a number": {"uri": "{zoo}/plain/{n}", "additional_headers": {"x": 1}},
    "a header of two lines": {"uri": "{zoo}/plain/{n}", "additional_headers": {"x": "a\nb"}},
    "headers as list": {"uri": "{zoo}/plain/{n}", "additional_headers": []},
    "metadata of a number": {"uri": "{zoo}/plain/{n}", "metadata": {"a": 1}},
    "metadata as list": {"uri": "{zoo}/plain/{n}", "metadata": []},
    "a list": [],
    "a number": 5,
    "a string": "x",
}
BODIES: dict[str, list[Step]] = {
    f"register: {name}": [Step("POST /deployments", 422, WRONG_SHAPE, body=body)] for name, body in WRONG_BODIES.items()
}
BODIES |= {
    f"register at {uri}": [
        Step(
            "POST /deployments",
            400,
            refusal(f"The request field 'uri' is invalid. Reason: {NOT_ABSOLUTE % uri}"),
            body={"uri": uri},
        )
    ]
    for uri in ("x", "/x", "localhost:9080", "*")
}
BODIES |= {
    "register: no JSON": [
        Step("POST /deployments", 400, Starts("Failed to parse the request body as JSON: "), body=body)
        for body in (b"", b"{", b"\xff", b'{"uri":"x"} x', b"\xef\xbb\xbf{}", b'{"uri":NaN}', b'{"uri":"\\ud800"}')
    ],
    "register: no content type": [
        Step("POST /deployments", 415, "Expected request with `Content-Type: application/json`")
    ],
    "register: another content type": [
        Step(
            "POST /deployments",
            415,
            "Expected request with `Content-Type: application/json`",
            body=b"{}",
            sends={"content-type": "text/plain"},
        )
    ],
    "register: with a charset": [
        Step(
            "POST /deployments", 422, WRONG_SHAPE, body=b"{}", sends={"content-type": "application/json; charset=utf-8"}
        )
    ],
    "register: JSON by another name": [
        Step("POST /deployments", 422, WRONG_SHAPE, body=b"{}", sends={"content-type": "application/x+json"})
    ],
    "register: too large": [
        Step(
            "POST /deployments",
            413,
            "Failed to buffer the request body: length limit exceeded",
            body=b'{"uri":"' + bytes(3 << 20) + b'"}',
        )
    ],
    "register a function": [
        Step(
            "POST /deployments", 400, refusal(Starts("The request field 'arn' is invalid. Reason: ")), body={"arn": "x"}
        )
    ],
}

ROWS: dict[str, list[Step]] = {**DISCOVERY, **BODIES}
