"""A process that serves and starts executions until it is killed.

python -m tests.providers.child '{"provider": "embedded", "settings": {…}, "workflow": {…}, "inputs": [[name, input], …]}'
"""

from __future__ import annotations

import asyncio
import json
import sys

from holdfast import providers
from holdfast.providers import WorkflowSpec


async def main() -> None:
    order = json.loads(sys.argv[1])
    async with await providers.open(order["provider"], **order["settings"]) as provider:
        spec = WorkflowSpec.from_json(order["workflow"])
        await provider.create_workflow(spec)
        for name, value in order["inputs"]:
            await provider.start_execution(spec.workflow_id, value, execution_name=name)
        print("started", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
