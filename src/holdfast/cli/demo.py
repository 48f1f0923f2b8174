"""`holdfast demo`: run the reference application, which is part of the source tree only."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import click

from holdfast.errors import HoldfastError

_ROOT = Path(__file__).parents[3]


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Run real scans, kill the engine half-way, lose nothing.

    The reference application recon works through real port scans; the demo checks that each was stored once.

    Needs a source checkout. Arguments are passed on; `holdfast demo --help` lists them.
    """
    if not (_ROOT / "apps" / "recon" / "demo.py").is_file():
        hint = "get the source tree of holdfast and run: make demo"
        raise HoldfastError("the demo is part of the source tree; this holdfast was installed without it", hint=hint)
    if missing := _missing_packages():
        hint = f"run it with everything it needs: make demo; or: pip install -e '{_ROOT}[recon]'"
        raise HoldfastError(f"the demo needs packages that are not installed: {', '.join(missing)}", hint=hint)
    command = [sys.executable, "-m", "apps.recon.demo", *arguments]
    sys.exit(subprocess.run(command, cwd=_ROOT, check=False).returncode)  # noqa: S603 - our own module


def _missing_packages() -> list[str]:
    needed = [one for one in requires("holdfast") or [] if 'extra == "recon"' in one.replace("'", '"')]
    names = [name[0] for one in needed if (name := re.match(r"[\w.-]+", one))]
    return [name for name in names if not _is_installed(name)]


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
