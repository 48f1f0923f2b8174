"""The pages: all imports, one import while it runs and afterwards, and the question before it is cancelled.

They only show. The one form is Cancel. `assets/imports.js` asks for the progress every two seconds; without JavaScript
the page reloads itself as often, and Cancel asks on a page of its own. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from apps.imports.access import FormKey
from apps.imports.messages import Outcome
from apps.imports.model import Progress, Status
from apps.imports.service import Imports, InvalidCursor, NotFound

HERE = Path(__file__).parent
STAGES = (Status.PENDING, Status.PREPARING, Status.PROCESSING, Status.FINALIZING)
PAGE_ENTRIES = 25
REJECTED_SHOWN = 20
FORM_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of details. `field` is the name under which the script finds it."""

    label: str
    text: str
    field: str = ""
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """What the templates show of one import."""

    import_id: str
    progress: Progress
    outcome: Outcome | None = None
    """None before it is recorded: in its first moments."""

    @property
    def source(self) -> str | None:
        return None if self.outcome is None else self.outcome.job.source

    @property
    def url(self) -> str:
        return f"/imports/{quote(self.import_id)}"

    @property
    def cancel_url(self) -> str:
        return f"{self.url}/cancel"

    @property
    def progress_url(self) -> str:
        return f"/api{self.url}/progress"

    @property
    def is_final(self) -> bool:
        return self.progress.status.is_final

    @property
    def is_ended_early(self) -> bool:
        return self.progress.status in (Status.FAILED, Status.CANCELLED)

    @property
    def bar(self) -> int:
        """Of `total or 1`: an import without batches is complete as well."""
        is_full = self.progress.status is Status.COMPLETED and not self.progress.total
        return 1 if is_full else self.progress.completed

    @property
    def stages(self) -> tuple[Status, ...]:
        return STAGES

    @property
    def facts(self) -> list[Fact]:
        """Details, in the order of the page; what is known only later shows a dash."""
        shown = self.progress
        extract = None if shown.extract_number is None else f"{shown.extract_number}, {shown.extract_type}"
        rows = f"{count(shown.rows_completed)} of {count(shown.rows_total)}" if shown.rows_total else None
        rate = None if shown.rows_per_second is None else f"{count(round(shown.rows_per_second))} rows/s"
        table = f"{shown.current_table}, {shown.current_operation}" if shown.current_table else None
        common = [
            Fact("Extract", extract or "–", "extract"),
            Fact("Snapshot of", shown.snapshot_date or "–", "snapshot"),
            Fact("Rows read", rows or "–", "rows"),
            Fact("Speed", rate or "–", "rate"),
            Fact("Rejected rows", count(shown.rejected_rows), "rejected"),
        ]
        now = [
            Fact("Table", table or "–", "table"),
            Fact("Batch", count(shown.current_batch), "batch"),
            Fact("Step", shown.step or "–", "step"),
        ]
        done = [Fact("Names resolved", count(shown.names_resolved))]
        return [*common, *(done if self.is_final else now), Fact("Job", shown.job_id or "–", "job", is_wide=True)]


def count(number: int | None) -> str:
    """1234567 -> `1,234,567`; None -> a dash."""
    return "–" if number is None else f"{number:,}"


def duration(seconds: float | None) -> str:
    """75 -> `1 min 15 s`; None -> a dash. The script of the page writes it the same way."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def page_routes(imports: Imports) -> list[BaseRoute]:
    """The routes of the pages and of what they load."""
    pages = _Pages(imports)
    return [
        Route("/", pages.history),
        Route("/imports/{import_id}", pages.progress),
        Route("/imports/{import_id}/cancel", pages.ask_cancel),
        Route("/imports/{import_id}/cancel", pages.cancel, methods=["POST"]),
        Mount("/assets", StaticFiles(directory=HERE / "assets")),
    ]


def render(template: str, status: int = 200, **values: Any) -> Response:
    """A page from `templates/`."""
    return HTMLResponse(_environment.get_template(template).render(values), status)


def problem(status: int, title: str, message: str) -> Response:
    """A page that says what went wrong."""
    return render("problem.html", status, title=title, message=message)


class _Pages:
    def __init__(self, imports: Imports) -> None:
        self._imports = imports
        self._form_key = FormKey()

    async def history(self, request: Request) -> Response:
        try:
            page = await self._imports.history(PAGE_ENTRIES, request.query_params.get("cursor"))
        except InvalidCursor as error:
            return problem(400, "No such page", str(error))
        next_url = f"/?{urlencode({'cursor': page.next_cursor})}" if page.next_cursor else None
        return render("imports.html", entries=page.imports, next_url=next_url)

    async def progress(self, request: Request) -> Response:
        view = await self._view(request.path_params["import_id"])
        return render("import.html", view=view, form_key=self._form_key.of(f"cancel {view.import_id}"))

    async def ask_cancel(self, request: Request) -> Response:
        view = await self._view(request.path_params["import_id"])
        if view.is_final:
            return RedirectResponse(view.url, 303)
        return render("cancel.html", view=view, form_key=self._form_key.of(f"cancel {view.import_id}"))

    async def cancel(self, request: Request) -> Response:
        import_id = request.path_params["import_id"]
        if not self._form_key.fits(f"cancel {import_id}", await _form_value(request, "key")):
            message = "This form is not, or no longer, ours. Go back to the import and ask again."
            return problem(403, "Not cancelled", message)
        await self._imports.cancel(import_id)
        return RedirectResponse(f"/imports/{quote(import_id)}", 303)

    async def _view(self, import_id: str) -> View:
        progress = await self._imports.progress(import_id)
        if progress is None:
            raise NotFound(import_id)
        return View(import_id, progress, await self._imports.outcome(import_id, REJECTED_SHOWN))


async def _form_value(request: Request, name: str) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            return ""
    return parse_qs(body.decode("ascii", "replace")).get(name, [""])[0]


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)
_environment.filters.update(count=count, duration=duration)
