"""Structured logs: one line per event, with the invocation and the handler it belongs to, and quiet on replay.

Library code logs through `logging.getLogger("holdfast.…")` and passes fields as `extra={"invocation_id": …}`; it never
configures anything. `configure` does, for the command line and for programs that want the same: it renders the records
of every logger, the user's and the SDK's among them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Literal, TextIO

LogFormat = Literal["console", "json"]

current_invocation: ContextVar[tuple[str, str] | None] = ContextVar("holdfast_current_invocation", default=None)
"""(invocation id, `Service/handler`) of the attempt that the running task belongs to; set by whoever drives attempts.

The SDK forgets its own context before it logs a handler's exception, so its context alone is not enough.
"""

# Replay repeats what the *user's* code says. These speak for themselves, and a warning about a broken replay is news.
_NEVER_MUTED = ("holdfast", "asyncio", "uvicorn")
_FIELDS = ("invocation_id", "handler")


class InvocationFilter(logging.Filter):
    """Drops what user code logs while its journal is replayed; marks the rest with invocation id and handler.

    Belongs on handlers rather than loggers: there it sees the records of every logger, in the context that logged.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_replayed(record):
            return False
        for field, value in _invocation_fields().items():
            if not hasattr(record, field):  # what the caller said explicitly wins
                setattr(record, field, value)
        return True


def configure(log_format: LogFormat = "console", level: str | int = "INFO", stream: TextIO | None = None) -> None:
    """Send every log record of this process to `stream` as readable lines or as JSON, one object per line.

    Replaces the handlers of the root logger; calling it again replaces them again. Loggers made by structlog go the
    same way.

    Args:
        log_format: `console` for people (colours on a terminal), `json` for machines.
        level: Least level that is shown; a name such as `DEBUG`, or its number.
        stream: Where lines go; standard error when None.
    Raises:
        ValueError: `level` is no known level.
    """
    import structlog

    target: TextIO = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.addFilter(InvocationFilter())
    handler.setFormatter(_formatter(log_format, colors=target.isatty()))
    root = logging.getLogger()
    root.setLevel(level.upper() if isinstance(level, str) else level)
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    # Starting and stopping are told by `holdfast serve` itself; uvicorn would tell them twice, once per port.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, root.level))
    # A line for each request would hide what they are made for: a provider asks its server again and again.
    logging.getLogger("httpx").setLevel(
        max(logging.WARNING, root.level) if root.level > logging.DEBUG else logging.NOTSET
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _shared_processors() -> list[Any]:
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _formatter(log_format: LogFormat, *, colors: bool) -> logging.Formatter:
    import structlog

    if log_format == "json":
        # Tracebacks as text: structured ones carry local variables, and with them secrets.
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        rendering = [
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared_processors(), structlog.stdlib.ExtraAdder()],
        processors=[_add_invocation, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )


def _add_invocation(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # structlog's own loggers keep their fields apart from the record; the filter has marked the record.
    record = event.get("_record")
    for field in _FIELDS:
        value = getattr(record, field, None)
        if value is not None:
            event.setdefault(field, value)
    return event


def _is_replayed(record: logging.LogRecord) -> bool:
    source = record.name.partition(".")[0]
    if source in _NEVER_MUTED or (source == "restate" and record.levelno >= logging.WARNING):
        return False
    sdk = _sdk_module("restate.logging")
    return sdk is not None and not sdk.RestateLoggingFilter().filter(record)


def _invocation_fields() -> Mapping[str, str]:
    if known := current_invocation.get():
        return dict(zip(_FIELDS, known, strict=True))
    sdk = _sdk_module("restate.server_context")
    if sdk is None:
        return {}
    try:
        context = sdk.current_context()
    except LookupError:  # outside a handler
        return {}
    handler = context.handler
    return {"invocation_id": context.request().id, "handler": f"{handler.service_tag.name}/{handler.name}"}


def _sdk_module(name: str) -> Any:
    # Only looked up, never imported: a program that does not run handlers need not load the SDK to log a line.
    return sys.modules.get(name)
