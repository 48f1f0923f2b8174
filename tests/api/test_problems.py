"""Every error goes through a problem document and comes back as it was."""

from __future__ import annotations

import json

import pytest

from holdfast.api.problems import error_of, problem, status_of
from holdfast.errors import (
    CallerError,
    DatabaseInUse,
    EngineStopped,
    Forbidden,
    HoldfastError,
    InvalidApp,
    InvalidRequest,
    InvocationFailed,
)
from holdfast.providers import (
    ExecutionNotFound,
    InvalidConfiguration,
    InvalidInput,
    InvalidSpec,
    ProviderConflict,
    ProviderNotFound,
    ProviderUnauthorized,
    ProviderUnavailable,
    RegistrationFailed,
    WaitTimeout,
    WorkflowInUse,
    WorkflowNotFound,
)

ERRORS: dict[str, tuple[HoldfastError, int]] = {
    "spec": (InvalidSpec("retry_policy.max_attempts", "must be 0 or more", hint="e.g. 3"), 422),
    "input": (InvalidInput("cursor", "is none of this list"), 422),
    "workflow": (WorkflowNotFound("x"), 404),
    "execution": (ExecutionNotFound("x.y"), 404),
    "provider": (ProviderNotFound("x", ["embedded"]), 404),
    "conflict": (ProviderConflict("the name is taken"), 409),
    "in use": (WorkflowInUse("x", ["x.a", "x.b"]), 409),
    "wait": (WaitTimeout("x.y", 2.5, "running"), 408),
    "configuration": (InvalidConfiguration(["a: b", "c: d"]), 500),
    "registration": (
        RegistrationFailed("refused", status_code=400, body='{"message": "no"}', server_code="META0003"),
        502,
    ),
    "unavailable": (ProviderUnavailable("gone", endpoint="http://r:8080", status_code=500, body="oops"), 503),
    "unreachable": (ProviderUnavailable("gone", endpoint="http://r:8080"), 503),
    "unauthorized": (ProviderUnauthorized("no", endpoint="http://r:8080", status_code=401), 502),
    "handler": (InvocationFailed("not your business", failure_code=403, invocation_id="inv_1"), 403),
    "handler with a code that is none": (InvocationFailed("odd", failure_code=7), 500),
    "path": (InvalidRequest("there is no path /x", status=404), 404),
    "origin": (Forbidden("pages may not"), 403),
    "stopped": (EngineStopped("stopping"), 503),
    "database": (DatabaseInUse("another engine owns it", hint="stop it"), 503),
    "application": (InvalidApp("nothing there"), 500),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_survives_the_way_through_a_document(case: str) -> None:
    error, status = ERRORS[case]
    document = json.loads(json.dumps(problem(error, "/v1/x")))
    assert document["status"] == status
    assert document["type"] == f"urn:holdfast:error:{error.code}"
    assert document["instance"] == "/v1/x"
    read = error_of(document, status)
    assert read is not None
    assert type(read) is type(error)
    assert (read.message, read.hint, read.code, str(read)) == (error.message, error.hint, error.code, str(error))
    assert status_of(read) == status
    for name, value in vars(error).items():
        assert getattr(read, name, None) == value, name


def test_the_engines_own_response_is_inside() -> None:
    error, _ = ERRORS["registration"]
    assert problem(error)["server"] == {"status": 400, "body": '{"message": "no"}', "code": "META0003"}


def test_the_title_is_that_of_the_kind_of_error() -> None:
    assert problem(WorkflowNotFound("x"))["title"] == "Workflow not found"


def test_what_still_runs_is_named() -> None:
    assert problem(ERRORS["in use"][0])["execution_ids"] == ["x.a", "x.b"]


def test_an_error_of_a_newer_server_is_one_of_its_branch() -> None:
    document = {"code": "HF9999", "detail": "new", "status": 418, "hint": "later"}
    assert type(error_of(document, 418)) is CallerError
    assert status_of(error_of(document, 418) or EngineStopped("")) == 418


@pytest.mark.parametrize("document", [None, [], "text", {}, {"code": 7, "detail": "x"}, {"message": "of another API"}])
def test_what_is_no_problem_document(document: object) -> None:
    assert error_of(document, 500) is None
