"""`holdfast version`."""

from __future__ import annotations

import platform
from importlib.metadata import version as package_version

import click

from holdfast.cli.output import json_option, show


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Versions of holdfast and of what it stands on.

    In Python: importlib.metadata.version.
    """
    import apsw

    versions = {
        "holdfast": package_version("holdfast"),
        "restate-sdk": package_version("restate-sdk"),
        "sqlite": apsw.sqlite_lib_version(),
        "python": platform.python_version(),
    }
    show(versions, as_json, lambda: "\n".join(f"{name} {number}" for name, number in versions.items()))
