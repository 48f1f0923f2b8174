"""The process that the demo kills: `python -m apps.imports serve`, the same program a user would run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from apps.imports.model import Progress
from apps.serving import demo


class Child(demo.Child):
    """A running imports, and a client of its API."""

    @classmethod
    async def start(cls, directory: Path, log: Path, options: Sequence[str], variables: dict[str, str]) -> Self:
        """Start it on `directory` and wait until it answers.

        Raises:
            DemoFailed: it ended, or said nothing for a minute.
        """
        command = ("apps.imports", "serve", "--child", "--port", "0", "--dir", str(directory), *options)
        kept = demo.environment_without("IMPORTS_", "RESTATE_", "MOTHERDUCK_")
        return await cls.launch("imports", command, log, kept | variables)

    async def progress(self, import_id: str) -> Progress | None:
        """None while the engine cannot be asked, or does not know the import."""
        answer = await self.http.get(f"/api/imports/{import_id}/progress")
        return msgspec.json.decode(answer.content, type=Progress) if answer.is_success else None
