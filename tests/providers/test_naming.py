"""Any legal id gives a legal, distinct service name; ids of executions can be taken apart again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.providers.naming import (
    EXECUTION_NAME,
    WORKFLOW_ID,
    execution_id_for,
    is_reserved,
    service_name_for,
    split_execution_id,
)

# As the server 1.7 checks it, written down independently of the code under test.
SERVER_PATTERN = re.compile(r"^([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*$")

WORKFLOW_IDS = st.from_regex(WORKFLOW_ID, fullmatch=True)
EXECUTION_NAMES = st.from_regex(EXECUTION_NAME, fullmatch=True)


@given(WORKFLOW_IDS)
def test_a_service_name_is_legal_and_not_reserved(workflow_id: str) -> None:
    name = service_name_for(workflow_id)
    assert SERVER_PATTERN.fullmatch(name)
    assert not is_reserved(name)


@given(st.sets(WORKFLOW_IDS, max_size=20))
def test_distinct_ids_give_distinct_names(workflow_ids: set[str]) -> None:
    assert len({service_name_for(each) for each in workflow_ids}) == len(workflow_ids)


@pytest.mark.parametrize(
    ("workflow_id", "name"),
    [
        ("enrich", "enrich"),
        ("a-1", "a-1"),
        ("a1", "a1"),
        ("1-a", "W1-a"),
        ("-", "W-"),
        ("-a", "W-a"),
        ("restate", "Wrestate"),
        ("restate-import", "Wrestate-import"),
        ("openapi", "Wopenapi"),
        ("openapi-1", "openapi-1"),
    ],
)
def test_names_by_example(workflow_id: str, name: str) -> None:
    assert service_name_for(workflow_id) == name


@given(WORKFLOW_IDS, EXECUTION_NAMES)
def test_an_execution_id_can_be_taken_apart(workflow_id: str, execution_name: str) -> None:
    assert split_execution_id(execution_id_for(workflow_id, execution_name)) == (workflow_id, execution_name)


@pytest.mark.parametrize("text", ["", "enrich", "enrich.", ".name", "Enrich.name", "enrich.a.b", "enrich.a b", "ü.a"])
def test_other_texts_are_no_execution_ids(text: str) -> None:
    assert split_execution_id(text) is None
