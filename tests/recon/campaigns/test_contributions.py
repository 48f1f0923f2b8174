"""What a scanner earns: a point for each signed scan that is in the graph, however often it is sent."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from apps.recon.campaigns.batch import job_of
from apps.recon.threats import model
from apps.recon.threats.crediting import is_submitted
from apps.recon.threats.model import REPUTATION_OPEN, Contributor, object_key
from tests.recon.campaigns.conftest import until
from tests.recon.campaigns.world import listening
from tests.recon.conftest import Recon

ONE, TWO = (f'{{"ip":"192.0.2.{number}","port":443}}' for number in (1, 2))


def key_of(recon: Recon) -> str:
    return base64.b64encode(bytes(recon.key.verify_key)).decode()


async def contributor(recon: Recon) -> dict[str, Any]:
    answer = await recon.http.get(f"/v1/contributors/{key_of(recon)}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def earned(recon: Recon, *credits: str) -> dict[str, Any]:
    """The contributor, once these are its credits and no others."""

    async def look() -> dict[str, Any] | None:
        known = await contributor(recon)
        return known if {one["credit_id"] for one in known["credits"]} == set(credits) else None

    return await until(look)


async def test_a_completed_submission_earns_a_point_once(recon: Recon) -> None:
    assert (await contributor(recon))["reputation"] == REPUTATION_OPEN
    body = recon.seal(ONE)
    answers = [await recon.http.post("/v1/mesh/ingest", content=body) for _ in range(3)]
    [job] = {answer.json()["job_id"] for answer in answers}
    assert (await recon.final(job))["state"] == "completed"
    known = await earned(recon, f"job:{job}")
    assert (known["reputation"], known["contributions"]) == (REPUTATION_OPEN + 1, 1)

    failed = await recon.submit("nothing of use")
    assert (await recon.final(failed))["state"] == "failed"
    second = await recon.submit(TWO)
    await recon.final(second)
    known = await earned(recon, f"job:{job}", f"job:{second}")
    assert (known["reputation"], known["contributions"]) == (REPUTATION_OPEN + 2, 2)


async def test_a_campaign_is_credited_as_a_whole_and_not_for_its_jobs(recon: Recon) -> None:
    campaign = f"c-{uuid.uuid4().hex[:8]}"
    targets = ["127.0.0.2", "127.0.0.3"]
    async with listening(*targets) as port:
        options = {"ports": [port], "batch_size": 1, "contributor": key_of(recon)}
        body = {"campaign_id": campaign, "targets": targets, "options": options}
        assert (await recon.http.post("/v1/campaigns", json=body)).status_code == 202
        await until(lambda: is_over(recon, campaign))
    jobs = (await recon.http.get("/v1/jobs")).json()["jobs"]
    assert {job["scanner_key"] for job in jobs} == {key_of(recon)}
    assert len(jobs) == 2
    assert (await earned(recon, f"campaign:{campaign}"))["contributions"] == 1


async def is_over(recon: Recon, key: str) -> bool:
    return (await recon.http.get(f"/v1/campaigns/{key}")).json()["status"] == "complete"


# -- pure ----------------------------------------------------------------------------------------------------------


def test_who_has_no_reputation_left_earns_nothing() -> None:
    assert model.earn(Contributor("k", 0), "job:1", 1) is None


def test_what_was_earned_is_bounded_and_counts_once() -> None:
    known = Contributor("k", REPUTATION_OPEN)
    for number in range(3 * model.SOURCES_MAX):
        new = model.earn(known, f"job:{number}", 1)
        assert new is not None
        known = new
    assert (known.reputation, len(known.credits)) == (model.REPUTATION_MAX, model.SOURCES_MAX)
    assert known.contributions == 3 * model.SOURCES_MAX
    assert model.earn(known, f"job:{3 * model.SOURCES_MAX - 1}", 1) is None


def test_only_what_was_submitted_under_a_signature_counts() -> None:
    assert is_submitted("01900000-0000-7000-8000-000000000001")
    assert not is_submitted(job_of("c", 1))
    assert not is_submitted("job-1")
    assert object_key("a+b/c=") == "a-b_c"
