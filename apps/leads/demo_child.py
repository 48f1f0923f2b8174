"""The process that the demo kills: `python -m apps.leads serve`, the same program a user would run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from apps.serving import demo


class Child(demo.Child):
    """A running leads, and a client of its API."""

    @classmethod
    async def start(cls, engine: str, log: Path, variables: Mapping[str, str]) -> Self:
        """Start it and wait until it answers.

        Args:
            variables: Its settings.
        Raises:
            DemoFailed: it ended, or said nothing for a minute.
        """
        command = ("apps.leads", "serve", "--child", "--port", "0", "--engine", engine)
        kept = demo.environment_without("LEADS_", "RESTATE_")
        return await cls.launch("leads", command, log, kept | dict(variables))

    async def ask(self, method: str, path: str, **request: Any) -> Any:
        """The answer's JSON, or its bytes where it is none.

        Raises:
            DemoFailed: it is an error.
        """
        answer = await self.http.request(method, path, **request)
        if not answer.is_success:
            raise demo.DemoFailed(f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}")
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json else answer.content
