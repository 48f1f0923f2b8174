from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidRequest
from holdfast.ingress.paths import (
    Awakeable,
    ById,
    ByIdempotencyKey,
    ByTarget,
    ByWorkflow,
    Health,
    Invoke,
    Route,
    decode_key,
    parse_path,
    request_path,
)
from holdfast.protocol.discovery import parse_manifest

MANIFEST = {
    "protocolMode": "BIDI_STREAM",
    "minProtocolVersion": 5,
    "maxProtocolVersion": 7,
    "services": [
        {"name": "S", "ty": "SERVICE", "handlers": [{"name": "h"}, {"name": "send"}]},
        {"name": "O", "ty": "VIRTUAL_OBJECT", "handlers": [{"name": "h"}]},
        {"name": "W", "ty": "WORKFLOW", "handlers": [{"name": "run", "ty": "WORKFLOW"}]},
    ],
}
SERVICES = parse_manifest(json.dumps(MANIFEST).encode()).services
PLAIN, KEYED, FLOW = SERVICES["S"].handlers, SERVICES["O"].handlers, SERVICES["W"].handlers

ROUTES: dict[str, Route] = {
    "/S/h": Invoke(PLAIN["h"], None, is_send=False),
    "/S/h/send": Invoke(PLAIN["h"], None, is_send=True),
    "/S/send": Invoke(PLAIN["send"], None, is_send=False),
    "/S/send/send": Invoke(PLAIN["send"], None, is_send=True),
    "/O/k/h": Invoke(KEYED["h"], "k", is_send=False),
    "/O/k/h/send": Invoke(KEYED["h"], "k", is_send=True),
    "/O/send/h": Invoke(KEYED["h"], "send", is_send=False),
    "/O//h": Invoke(KEYED["h"], "", is_send=False),
    "/O/a%2Fb%20%C3%A9+/h": Invoke(KEYED["h"], "a/b é+", is_send=False),
    "/W/k/run": Invoke(FLOW["run"], "k", is_send=False),
    "/restate/call/S/h": Invoke(PLAIN["h"], None, is_send=False),
    "/restate/send/S/h": Invoke(PLAIN["h"], None, is_send=True),
    "/restate/call/O/k/h": Invoke(KEYED["h"], "k", is_send=False),
    "/restate/send/S/send": Invoke(PLAIN["send"], None, is_send=True),
    "/restate/scope/a%20b/call/O/k/h": Invoke(KEYED["h"], "k", is_send=False, scope="a b"),
    "/restate/attach/x": ById("attach", "x"),
    "/restate/output/x": ById("output", "x"),
    "/restate/invocation/x/attach": ById("attach", "x"),
    "/restate/invocation/x/output": ById("output", "x"),
    "/restate/attach": ByTarget("attach"),
    "/restate/output": ByTarget("output"),
    "/restate/lookup": ByTarget("lookup"),
    "/restate/workflow/W/k%20k/attach": ByWorkflow("attach", "W", "k k"),
    "/restate/workflow/Unknown/k/output": ByWorkflow("output", "Unknown", "k"),
    "/restate/invocation/S/h/i%20i/output": ByIdempotencyKey("output", "S", None, "h", "i%20i"),
    "/restate/invocation/O/k%20k/h/i/attach": ByIdempotencyKey("attach", "O", "k k", "h", "i"),
    "/restate/awakeables/x/resolve": Awakeable("x", is_reject=False),
    "/restate/a/x/reject": Awakeable("x", is_reject=True),
    "/restate/health": Health(),
}


@pytest.mark.parametrize("path", ROUTES)
def test_route(path: str) -> None:
    assert parse_path(path, SERVICES) == ROUTES[path]


@given(st.text(max_size=20))
def test_every_key_survives_a_path(key: str) -> None:
    assert parse_path(f"/O/{quote(key, safe='')}/h", SERVICES) == Invoke(KEYED["h"], key, is_send=False)


@given(st.lists(st.sampled_from(["", "restate", "S", "O", "h", "send", "call", "attach", "%ff", "x"]), max_size=8))
def test_any_path_is_a_route_or_refused(parts: list[str]) -> None:
    refusal_status = 400
    try:
        assert isinstance(parse_path("/" + "/".join(parts), SERVICES), Route)
    except InvalidRequest as refusal:
        refusal_status = refusal.status
    assert refusal_status in (400, 404)


MOUNTS = {  # path, raw_path, root_path -> path below the mount point, as sent
    "at the root": ("/O/a b/h", b"/O/a%20b/h", "", "/O/a%20b/h"),
    "an encoded slash": ("/O/a/b/h", b"/O/a%2Fb/h", "", "/O/a%2Fb/h"),
    "mounted": ("/in/O/a b/h", b"/in/O/a%20b/h", "/in", "/O/a%20b/h"),
    "mounted, the path already cut": ("/S/h", b"/S/h", "/in", "/S/h"),
    "mounted under an encoded name": ("/my in/S/h", b"/my%20in/S/h", "/my in", "/S/h"),
    "a name that only begins like the mount point": ("/input/S/h", b"/input/S/h", "/in", "/input/S/h"),
    "the mount point itself": ("/in", b"/in", "/in", "/"),
    "a trailing slash after the mount point": ("/in/", b"/in/", "/in", "/"),
    "no raw path": ("/in/O/ä b%/h", None, "/in", "/O/%C3%A4%20b%25/h"),
    "the query in the raw path": ("/S/h", b"/S/h?a=b", "", "/S/h"),
    "slashes around": ("//S/h//", b"//S/h//", "", "/S/h"),
}


@pytest.mark.parametrize("case", MOUNTS)
def test_mount_point(case: str) -> None:
    path, raw_path, root_path, expected = MOUNTS[case]
    assert request_path(path, raw_path, root_path) == expected


def test_a_key_in_raw_utf8_or_none_at_all() -> None:
    assert decode_key("é".encode().decode("latin-1")) == "é"
    with pytest.raises(InvalidRequest, match="cannot decode key"):
        decode_key("%C3")
