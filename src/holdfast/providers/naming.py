"""Names and ids: what is legal, what a workflow's service is called, what an execution's id is made of. Pure."""

from __future__ import annotations

import re

WORKFLOW_ID = re.compile(r"[a-z0-9-]{1,128}")
EXECUTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
SERVICE_NAME = re.compile(r"(?:[A-Za-z]|_[A-Za-z0-9])[A-Za-z0-9._-]*")
"""What Restate accepts as the name of a service; holdfast follows it."""

WORKFLOW_ID_RULE = "1 to 128 of a-z, 0-9 and hyphen"
EXECUTION_NAME_RULE = "1 to 128 letters, digits, hyphens and underscores"
SERVICE_NAME_RULE = "a letter (or an underscore and a letter or digit), then letters, digits, dot, underscore, hyphen"

SYSTEM_PREFIX = "holdfast."
"""Names of our own services begin with it. No generated name does: workflow ids have no dot."""


def is_reserved(service_name: str) -> bool:
    """Whether Restate refuses the name although its form is right (META0005)."""
    lower = service_name.lower()
    return lower.startswith("restate") or lower == "openapi"


def service_name_for(workflow_id: str) -> str:
    """The default service name of a workflow: the id itself where that is a legal name, else `W` and the id.

    Distinct ids give distinct names: an id has no capital letter, so no id is what another one becomes. (Joining the
    words of an id in Pascal case, as comparable systems do, gives `a-1` and `a1` one name.)
    """
    is_legal = SERVICE_NAME.fullmatch(workflow_id) is not None and not is_reserved(workflow_id)
    return workflow_id if is_legal else f"W{workflow_id}"


def execution_id_for(workflow_id: str, execution_name: str) -> str:
    """`<workflow id>.<execution name>`: neither part can hold a dot, so the id can be taken apart again.

    It is the key of the execution's supervisor at the engine: found again after any restart, without a table of ours.
    """
    return f"{workflow_id}.{execution_name}"


def split_execution_id(execution_id: str) -> tuple[str, str] | None:
    """(workflow id, execution name), or None when it is no execution id."""
    workflow_id, dot, execution_name = execution_id.partition(".")
    if not dot or not WORKFLOW_ID.fullmatch(workflow_id) or not EXECUTION_NAME.fullmatch(execution_name):
        return None
    return workflow_id, execution_name
