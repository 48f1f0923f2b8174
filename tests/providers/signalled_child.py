"""A program with a provider, for its test to end with SIGTERM.

python -m tests.providers.signalled_child '{"provider": "embedded", "settings": {…}, "has_handler": true}'
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from holdfast import providers
from holdfast.providers import WorkflowSpec


async def main() -> None:
    order = json.loads(sys.argv[1])
    end = asyncio.Event()
    if order["has_handler"]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    async with await providers.open(order["provider"], **order["settings"]) as provider:
        spec = WorkflowSpec(workflow_id="signalled", name="S", definition="tests.providers.flows:plain")
        await provider.create_workflow(spec)
        started = await provider.start_execution("signalled", 1)
        await provider.wait(started.execution_id)
        print("started", flush=True)
        await end.wait()
    print("closed in order", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
