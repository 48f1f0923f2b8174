"""What happens while a command waits: a moving line on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from holdfast.cli.output import talk

if TYPE_CHECKING:
    from rich.console import RenderableType

    from holdfast.providers.types import StateChange

_PROGRESS_MAX = 60


class Progress:
    """Shows changes on stderr, as they come, until the block ends."""

    def __init__(self, execution_id: str) -> None:
        self._execution_id = execution_id
        self._started_at_s = time.monotonic()
        self._change: StateChange | None = None
        self._live: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # Drawn again ten times a second, for the clock; gone at the end, when the outcome is printed.
            self._live = Live(
                get_renderable=self._picture, console=Console(stderr=True), refresh_per_second=10, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, change: StateChange) -> None:
        """The newest change."""
        self._change = change
        if self._live is None:
            talk(f"{change.at:%H:%M:%S}  {self._execution_id}  {summary(change)}")

    def _picture(self) -> RenderableType:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        if self._change is None:
            return Text(f"{self._execution_id} …")
        elapsed_s = int(time.monotonic() - self._started_at_s)
        line = Table.grid(padding=(0, 1))
        parts: list[RenderableType] = [
            self._spinner or Spinner("dots"),
            Text(self._execution_id, style="bold"),
            Text(_state(self._change)),
        ]
        if (done := share(self._change.progress)) is not None:
            from rich.progress_bar import ProgressBar

            parts.append(ProgressBar(total=1.0, completed=done, width=30))
        if progress := _progress(self._change.progress):
            parts.append(Text(progress))
        parts.append(Text(f"{elapsed_s // 60}:{elapsed_s % 60:02}", style="dim"))
        line.add_row(*parts)
        return line

    @property
    def _spinner(self) -> Any:
        if not hasattr(self, "_turning"):
            from rich.spinner import Spinner

            self._turning = Spinner("dots")
        return self._turning


def summary(change: StateChange) -> str:
    """State, progress and error in one line."""
    parts = [_state(change), _progress(change.progress)]
    if change.error is not None:
        first_line, _, _ = change.error.message.partition("\n")
        parts.append(f"[{change.error.code}] {first_line}")
    return "  ".join(filter(None, parts))


def share(progress: Any) -> float | None:
    """How much is done, 0 to 1, where progress says it: a number up to 1, or `completed` (or `done`) of `total`."""
    if isinstance(progress, int | float) and not isinstance(progress, bool):
        return float(progress) if 0 <= progress <= 1 else None
    if not isinstance(progress, dict):
        return None
    given = cast("dict[str, Any]", progress)
    done, total = given.get("completed", given.get("done")), given.get("total")
    if isinstance(done, int | float) and isinstance(total, int | float) and total > 0:
        return min(max(done / total, 0.0), 1.0)
    return None


def _state(change: StateChange) -> str:
    state, sub_state = change.to_state.value, change.sub_state.value
    return state if state == sub_state else f"{state} ({sub_state})"


def _progress(progress: Any) -> str:
    if progress is None:
        return ""
    if isinstance(progress, dict):
        given = cast("dict[str, Any]", progress)
        text = " ".join(f"{name}={_text(value)}" for name, value in given.items())
    else:
        text = _text(progress)
    return text if len(text) <= _PROGRESS_MAX else f"{text[:_PROGRESS_MAX]}…"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
