"""Small Python programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def run_python(source: str, *, path: Path, timeout_s: float = 60) -> str:
    """Run a program with `path` importable, and in it; returns what it prints.

    Raises:
        AssertionError: it failed; with what it wrote.
    """
    places = os.pathsep.join([str(path), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=path,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
