"""imports as an application: what an embedded engine runs, and what a Restate server elsewhere calls.

holdfast serve apps.imports.app:app                   # embedded, for a look at what an import left behind
hypercorn --bind 127.0.0.1:9080 apps.imports.app:app  # for a Restate server, then register that address
"""

from __future__ import annotations

from typing import Any

import restate
from restate.server_types import RestateAppT

from apps.imports.settings import Settings
from apps.imports.store import Store
from apps.imports.workflow import kbo_import


def create_app(store: Store, settings: Settings, *, identity_keys: list[str] | None = None) -> RestateAppT:
    """The application: workflow `KboImport`, working on `store` and in `settings.files`.

    Args:
        store: May be closed; the first step opens it.
        settings: Batch sizes, limits, the directory of files.
        identity_keys: With them only requests signed by this Restate server are answered.
    """
    return restate.app(kbo_import(store, settings), identity_keys=identity_keys)


def __getattr__(name: str) -> Any:
    """`app`, made from the environment when something asks for it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = Settings.load()
    made = globals()["app"] = create_app(Store(settings), settings)
    return made
