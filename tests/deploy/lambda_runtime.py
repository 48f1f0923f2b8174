"""What AWS Lambda runs around a handler, as far as a function can tell: one process, one event at a time.

    python -S -P lambda_runtime.py module.handler      # in the folder of the unzipped package

Without site-packages (-S): what the package lacks, the function lacks. Events come as JSON lines on standard input, replies
go to the descriptor that standard output was; prints of the handler go to standard error, as to the function's log.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path.insert(0, str(Path.cwd()))
    module, _, name = sys.argv[1].rpartition(".")
    handler = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        try:
            reply = {"payload": handler(json.loads(line), None)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the function goes on with the next event
            traceback.print_exc()
            reply = {"error": {"errorMessage": str(error), "errorType": type(error).__name__}}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
