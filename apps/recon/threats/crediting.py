"""What a signed scan earns the scanner that submitted it."""

from __future__ import annotations

from uuid import UUID

import msgspec
from restate import WorkflowContext

from apps.recon.model import IngestResult
from apps.recon.settings import Settings
from apps.recon.threats.model import CONTRIBUTORS, SUBMISSION_POINTS, Credit, object_key

SUBMITTED = 7
"""The version of the ids of submitted jobs. Those that campaigns make have another: a campaign is credited as a whole."""


def after_ingest(ctx: WorkflowContext, done: IngestResult, settings: Settings) -> None:
    """Credit the scanner for a job that is complete: one durable send, under the job's id."""
    del settings
    if not is_submitted(done.job_id):
        return
    credit = Credit(f"job:{done.job_id}", SUBMISSION_POINTS)
    ctx.generic_send(
        CONTRIBUTORS,
        "earn",
        msgspec.json.encode(credit),
        key=object_key(done.scanner_key),
        headers={"Content-Type": "application/json"},
    )


def is_submitted(job_id: str) -> bool:
    """Whether a job is somebody's signed submission."""
    try:
        return UUID(job_id).version == SUBMITTED
    except ValueError:
        return False
