"""How commands reach workflows: through a running API (`--url`), or by opening a provider in this process."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.admin.api import ADMIN_TOKEN_VARIABLE, ADMIN_URL
from holdfast.cli.config import configuration_options, configured
from holdfast.cli.output import talk, token_option
from holdfast.errors import DatabaseInUse, InvalidRequest

if TYPE_CHECKING:
    from holdfast.providers.base import WorkflowProvider
    from holdfast.providers.configuration import Configuration

T = TypeVar("T")

URL_VARIABLE = "HOLDFAST_API_URL"


@dataclass(frozen=True, slots=True)
class Where:
    """Which workflows a command is about."""

    provider: str | None
    url: str | None
    db: str | None
    config_file: Path | None
    settings: Sequence[str]

    def run(
        self, work: Callable[[WorkflowProvider], Awaitable[T]], *, serves: bool = True, may_create: bool = False
    ) -> T:
        """Do something with the provider, and let go of it.

        Args:
            serves: Code of workflows may run in this process meanwhile. False for looks, which should be quick.
            may_create: A database that does not exist is made.
        """
        import asyncio

        with _warnings_told():
            return asyncio.run(self._run(work, serves=serves, may_create=may_create))

    async def _run(self, work: Callable[[WorkflowProvider], Awaitable[T]], *, serves: bool, may_create: bool) -> T:
        try:
            async with await self._open(serves=serves, may_create=may_create) as provider:
                return await work(provider)
        except DatabaseInUse as error:
            hint = f"an engine has it open: ask that one, --url and the address of its admin API, e.g. {ADMIN_URL}"
            raise DatabaseInUse(error.message, hint=hint) from error

    async def _open(self, *, serves: bool, may_create: bool) -> WorkflowProvider:
        if self.url is not None:
            if self.provider is not None and not may_create:
                raise click.UsageError("with --url, --provider is for a workflow that is created; others are found")
            from holdfast.api.client import HttpProvider

            return HttpProvider(self.url, token=os.environ.get(ADMIN_TOKEN_VARIABLE))
        from holdfast.providers.opening import open_provider, open_router

        configuration = self.configuration()
        if not may_create:
            _check_database(self._only(configuration), configuration)
        if not serves:
            # What runs is not waited for: it goes on wherever it is opened next.
            configuration = configuration.with_flags({"workflow.embedded.drain": "1ms"}, origin="this command")
        if self.provider is None:
            return await open_router(configuration, restate={"serve": serves})
        more = {"serve": serves} if self.provider == "restate" else {}
        return await open_provider(self.provider, config=configuration, **more)

    def configuration(self) -> Configuration:
        """All settings, the options of this command among them."""
        shorthands = [] if self.db is None else [f"workflow.embedded.db={self.db}"]
        return configured(self.config_file, [*shorthands, *self.settings])

    def _only(self, configuration: Configuration) -> str | None:
        """The one provider that will be asked, if it is one."""
        if self.provider is not None:
            return self.provider
        return None if configuration.routes else configuration.default_provider


def provider_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--provider`, `--url`, `--db`, `--config`, `--set`; the command gets them as `where`."""

    @functools.wraps(command)
    def with_where(
        provider: str | None,
        url: str | None,
        db: str | None,
        config_file: Path | None,
        settings: Sequence[str],
        **others: Any,
    ) -> Any:
        return command(where=_where(provider, url, db, config_file, settings), **others)

    options = [
        click.option("--provider", help="embedded, restate …  [default: as the configuration routes]"),
        click.option(
            "--url",
            envvar=URL_VARIABLE,
            show_envvar=True,
            help="Ask a running `holdfast serve` (its admin address) or `holdfast api`, instead of opening a provider.",
        ),
        token_option(ADMIN_TOKEN_VARIABLE),
        click.option("--db", envvar="HOLDFAST_DB", help="The embedded provider's file.  [default: holdfast.db]"),
        configuration_options,
    ]
    found: Callable[..., Any] = with_where
    for option in reversed(options):
        found = option(found)
    return found


def _where(
    provider: str | None, url: str | None, db: str | None, config_file: Path | None, settings: Sequence[str]
) -> Where:
    context = click.get_current_context()
    is_from_environment = context.get_parameter_source("url") == click.core.ParameterSource.ENVIRONMENT
    if url is not None and is_from_environment and (provider is not None or settings or config_file is not None):
        url = None  # said here how to open one: that is nearer than the environment
    if url is not None and (settings or config_file is not None):
        raise click.UsageError("--config and --set are for a provider that is opened here; with --url there is none")
    if db is not None and context.get_parameter_source("db") == click.core.ParameterSource.ENVIRONMENT and url:
        db = None
    if db is not None and url is not None:
        raise click.UsageError("--db is for a provider that is opened here; with --url there is none")
    return Where(provider, url, db, config_file, settings)


def _check_database(provider: str | None, configuration: Configuration) -> None:
    """A look at a file that does not exist would make it, and find nothing."""
    if provider != "embedded":
        return
    db = str(configuration.section("embedded")["db"])
    if db != ":memory:" and not Path(db).exists():
        raise InvalidRequest(
            f"there is no database {db}",
            hint=f"begin with: holdfast workflows create; or ask a running engine: --url {ADMIN_URL}",
        )


class _Telling(logging.Handler):
    """Warnings, a line each. What a command fails with is not among them: it is told as its error."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "error_code") or record.name == "asyncio":  # which knows only of connections that broke
            return
        more = [
            str(value) for name in ("workflow_id", "endpoint", "error", "hint") if (value := getattr(record, name, ""))
        ]
        talk(": ".join([f"{record.levelname.lower()}: {record.getMessage()}", *more]))


@contextmanager
def _warnings_told() -> Generator[None]:
    handler = _Telling(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
