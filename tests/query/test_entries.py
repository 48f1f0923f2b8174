"""JSON of journal entries that the history in `history` does not have; all others are compared with a server's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.protocol import messages as m
from holdfast.protocol.wire import data, text, uint
from holdfast.query import entries, failures, waiting
from holdfast.query.entries import Surroundings

NOTHING_KNOWN = Surroundings({}, {})
_IDEMPOTENT = data(3, text(1, "S") + text(2, "k") + text(3, "h") + text(4, "once")) + uint(11, 5)
_WORKFLOW = data(4, text(1, "W") + text(2, "k")) + uint(11, 5) + text(12, "wait")
_NO_SPAN = {
    "span_context": {"trace_id": [0] * 16, "span_id": [0] * 8, "trace_flags": 0, "is_remote": False, "trace_state": ""},
    "cause": None,
}
_NONE = {"secs": 0, "nanos": 0}

ENTRIES: dict[str, tuple[int, bytes, dict[str, Any], dict[str, Any]]] = {
    "output of an idempotent request": (
        m.GET_INVOCATION_OUTPUT,
        _IDEMPOTENT,
        {
            "Command": {
                "GetInvocationOutput": {
                    "target": {
                        "IdempotentRequest": {
                            "service_name": "S",
                            "service_key": "k",
                            "service_handler": "h",
                            "idempotency_key": "once",
                        }
                    },
                    "completion_id": 5,
                    "name": "",
                }
            }
        },
        {
            "Command": {
                "GetInvocationOutput": {
                    "target": {
                        "IdempotentRequest": {
                            "service_name": "S",
                            "service_key": "k",
                            "service_handler": "h",
                            "idempotency_key": "once",
                        }
                    },
                    "completion_id": 5,
                }
            }
        },
    ),
    "attach to a workflow": (
        m.ATTACH_INVOCATION,
        _WORKFLOW,
        {
            "Command": {
                "AttachInvocation": {
                    "target": {"Workflow": {"service_name": "W", "key": "k"}},
                    "completion_id": 5,
                    "name": "wait",
                }
            }
        },
        {
            "Command": {
                "AttachInvocation": {
                    "target": {"Workflow": {"service_name": "W", "key": "k"}},
                    "completion_id": 5,
                    "name": "wait",
                }
            }
        },
    ),
    "a call of what is not registered any more": (
        m.CALL,
        text(1, "Gone") + text(2, "run") + data(3, b"1") + text(5, "k") + uint(10, 1) + uint(11, 2),
        {
            "Command": {
                "Call": {
                    "request": {
                        "invocation_id": None,
                        "invocation_target": {
                            "VirtualObject": {
                                "name": "Gone",
                                "key": "k",
                                "handler": "run",
                                "handler_ty": "Exclusive",
                                "scope": None,
                            }
                        },
                        "span_context": _NO_SPAN,
                        "parameter": [49],
                        "headers": [],
                        "idempotency_key": None,
                        "completion_retention_duration": _NONE,
                        "journal_retention_duration": _NONE,
                    },
                    "invocation_id_completion_id": 1,
                    "result_completion_id": 2,
                    "name": "",
                }
            }
        },
        {
            "Command": {
                "Call": {
                    "invocation_id": None,
                    "invocation_target": {
                        "VirtualObject": {
                            "name": "Gone",
                            "key": "k",
                            "handler": "run",
                            "handler_ty": "Exclusive",
                            "scope": None,
                        }
                    },
                    "invocation_id_completion_id": 1,
                    "result_completion_id": 2,
                }
            }
        },
    ),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_entries(name: str) -> None:
    message_type, body, full, lite = ENTRIES[name]
    assert json.loads(entries.entry_json(message_type, body, NOTHING_KNOWN) or "null") == full
    assert json.loads(entries.entry_lite_json(message_type, body, NOTHING_KNOWN) or "null") == lite


def test_a_large_entry_has_the_short_form_only() -> None:
    body = text(1, "k") + data(3, data(1, b"x" * entries.JSON_BYTES_MAX))
    assert entries.entry_json(m.SET_STATE, body, NOTHING_KNOWN) is None
    assert entries.entry_lite_json(m.SET_STATE, body, NOTHING_KNOWN) == '{"Command":{"SetState":{"key":"k"}}}'


def test_an_entry_of_a_later_protocol_has_none() -> None:
    for message_type in (0x04FF, 0x80FF):
        assert entries.entry_json(message_type, b"", NOTHING_KNOWN) is None
        assert entries.entry_lite_json(message_type, b"", NOTHING_KNOWN) is None


FUTURES = {
    "leaves of an old protocol": ("[[2],[1],[],[],1]", 6, {"Unknown": [2, 1]}),
    "the same of a new one": ("[[2],[1],[],[],1]", 7, {"FirstCompleted": [2, 1]}),
    "nested": (
        '[[],[1],[],[[[3],[],["go"],[],4],[[4],[],[],[],3]],1]',
        7,
        {"FirstCompleted": [1, {"AllSucceededOrFirstFailed": [3, "go"]}, {"FirstSucceededOrAllFailed": [4]}]},
    ),
}


@pytest.mark.parametrize("name", FUTURES)
def test_futures(name: str) -> None:
    stored, version, tree = FUTURES[name]
    assert _plain(json.loads(waiting.future_json(stored, version))) == tree


def _plain(node: dict[str, Any]) -> Any:
    ((kind, value),) = node.items()
    if kind == "Single":
        return next(iter(value.values()))
    return {kind: [_plain(child) for child in value]}


WORDS = {
    "of a handler": (m.AttemptError(500, "boom", "Traceback"), "[500 Internal] boom\nTraceback", "RT0007"),
    "without a trace": (m.AttemptError(418, "no coffee"), "[418] no coffee", "RT0007"),
    "a journal that does not fit": (m.AttemptError(570, "mismatch"), "[570 Journal mismatch] mismatch", "RT0016"),
    "of the engine": (m.AttemptError(500, "connection lost [RT0010]"), "[500 Internal] connection lost", "RT0010"),
}


@pytest.mark.parametrize("name", WORDS)
def test_failures(name: str) -> None:
    error, text_of_it, code = WORDS[name]
    assert (failures.last_failure(error), failures.doc_code(error)) == (text_of_it, code)
