"""The process that is killed: `python -m tests.recon.dying_enrichment DIRECTORY NVD_URL`.

It submits the envelope in the directory, waits until its job is enriched and prints what came of it. The environment
variable DIE_AT says where it kills itself with SIGKILL: `relate before` (the work of that step is about to be written),
`relate after` (it is on disk, but the engine has not been told).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from apps.recon.enrich import findings, places, runs
from apps.recon.settings import Settings
from tests.recon.intel import ASN_FILE, CITY_FILE, KEV_FILE, intel, until

WRITERS: dict[str, Any] = {
    "begin": runs, "keep_lookups": places, "apply_asn": places, "apply_geo": places, "identify_services": findings,
    "keep_vulnerabilities": findings, "relate": findings, "record": runs, "finish": runs,
}  # fmt: skip
TIMES = ("first_seen", "first_detected")


def die_at(point: str) -> None:
    name, _, when = point.partition(" ")
    write: Callable[..., Awaitable[Any]] = getattr(WRITERS[name], name)

    async def dying(*args: Any, **named: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await write(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(WRITERS[name], name, dying)


def plain(value: Any) -> Any:
    """Without times, and as JSON."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key not in TIMES}
    return [plain(each) for each in value] if isinstance(value, list) else str(value)


async def main(directory: Path, nvd_url: str) -> None:
    from tests.recon.test_enrich import graph

    settings = Settings(
        geoip_asn_path=ASN_FILE, geoip_city_path=CITY_FILE, kev_path=KEV_FILE,
        nvd_enabled=True, nvd_url=nvd_url, nvd_requests_per_30s=3000,
    )  # fmt: skip
    async with intel(directory, settings) as recon:
        answer = await recon.http.post("/v1/mesh/ingest", content=(directory / "envelope").read_bytes())
        job_id = answer.json()["job_id"]

        async def ended() -> Any:
            run = (await recon.http.get(f"/v1/enrich/job-{job_id}")).json()
            return run if run.get("state", "running") not in ("running",) and "result" in run else None

        run = await until(ended)
        shown = {"state": run["state"], "result": run["result"], "graph": plain(await graph(recon))}
        print(json.dumps(shown, sort_keys=True, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    if point := os.environ.get("DIE_AT"):
        die_at(point)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
