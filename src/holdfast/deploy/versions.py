"""Versions that rendered files name. Pinned: what was tested today is what runs after the next restart."""

from __future__ import annotations

PYTHON_IMAGES = {
    "3.11": "python:3.11.14-slim-bookworm",
    "3.12": "python:3.12.12-slim-bookworm",
    "3.13": "python:3.13.11-slim-bookworm",
}
"""Base image of each Python version; AWS Lambda has a runtime for each of them too."""

PYTHON = "3.13"

RESTATE = "1.7.12"
"""The server that the tests compare with (package.json); a test keeps the two in step."""

RESTATE_IMAGE = f"docker.restate.dev/restatedev/restate:{RESTATE}"

HYPERCORN = "0.18.0"
"""What `holdfast.endpoint` was tested with (requirements.lock); a test keeps the two in step."""

RESTATE_SDK = "restate-sdk>=1.3,<2"
ZSTD = "backports.zstd>=1.0"
"""On Lambda the SDK compresses replies above 3 MiB, if it finds this (or Python 3.14): the limit there is 6 MB."""
