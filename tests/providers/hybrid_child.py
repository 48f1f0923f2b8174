"""A process with both providers, in which an embedded workflow calls one on Restate. It is killed by its test.

python -m tests.providers.hybrid_child '{"configuration": {…}, "input": {…}}'
"""

from __future__ import annotations

import asyncio
import json
import sys

from holdfast import providers
from holdfast.providers import Configuration, WorkflowSpec

HERE = "tests.providers.flows"


async def main() -> None:
    order = json.loads(sys.argv[1])
    async with await providers.open_router(Configuration.load(order["configuration"])) as router:
        await router.open_all()
        for workflow_id, flow in (("long-job", "asleep"), ("discover", "far_away")):
            await router.create_workflow(WorkflowSpec(workflow_id=workflow_id, name=flow, definition=f"{HERE}:{flow}"))
        await router.start_execution("discover", order["input"], execution_name="n")
        print("started", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
