"""The process that the demo kills: `python -m apps.recon.serve`, the same program a user would run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from apps.serving import demo


class Child(demo.Child):
    """A running service."""

    @classmethod
    async def start(
        cls, directory: Path, *, module: str = "apps.recon.serve", settings: Mapping[str, str] | None = None
    ) -> Self:
        """Start the service (`module`, run as a program) on `directory` and wait until it answers.

        Args:
            settings: Environment variables besides those of this process.
        Raises:
            DemoFailed: it ended, or said nothing for a minute.
        """
        command = (module, "--dir", str(directory), "--port", "0", "--child")
        kept = demo.environment_without()
        return await cls.launch("the service", command, directory / "serve.log", kept | dict(settings or {}))
