"""Every setting of imports: flags go before the environment, the environment before the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from apps.serving.secrets import UNSENDABLE, can_be_sent

_KB = 1024
_GB = 1024**3


class InvalidSetting(ValueError):
    """A setting cannot be used; the text names it and says what it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where things are and how much may be used. Each field's environment variable stands beside it."""

    ingress_url: str = field(default="http://127.0.0.1:8080", metadata={"env": "RESTATE_INGRESS_URL"})
    admin_url: str = field(default="http://127.0.0.1:9070", metadata={"env": "RESTATE_ADMIN_URL"})
    auth_token: str | None = field(default=None, metadata={"env": "RESTATE_AUTH_TOKEN"}, repr=False)
    """Bearer token of a protected engine."""
    motherduck_token: str | None = field(default=None, metadata={"env": "MOTHERDUCK_TOKEN"}, repr=False)
    """With it and no `database`, MotherDuck is where the data goes."""
    motherduck_database: str = field(default="kbo", metadata={"env": "MOTHERDUCK_DATABASE"})
    database: str | None = field(default=None, metadata={"env": "IMPORTS_DATABASE"})
    """A DuckDB file, or `md:<database>`. None: MotherDuck when there is a token, else `imports-data/kbo.duckdb`."""
    files: Path = field(default=Path("imports-data/files"), metadata={"env": "IMPORTS_FILES"})
    """Directory of stored zips and of the batches cut from them. Belongs to one worker."""
    batch_rows: int = field(default=983_040, metadata={"env": "IMPORTS_BATCH_ROWS"})
    """Rows of one insert batch, which is one durable step and one database transaction. The default is eight of DuckDB's
    row groups: batches that fill their row groups are stored once and never moved again."""
    delete_batch_rows: int = field(default=100_000, metadata={"env": "IMPORTS_DELETE_BATCH_ROWS"})
    """Keys of one delete batch."""
    memory_limit_mb: int = field(default=2048, metadata={"env": "IMPORTS_MEMORY_MB"})
    """What DuckDB may use before it spills to disk, 2^20 bytes each."""
    threads: int = field(default=0, metadata={"env": "IMPORTS_THREADS"})
    """Of DuckDB; 0 means one per processor."""
    keep_zip_hours: float = field(default=168.0, metadata={"env": "IMPORTS_KEEP_ZIP_HOURS"})
    """How long the stored zip of a failed or cancelled import is kept for another try."""
    fetch_patience_s: float = field(default=600.0, metadata={"env": "IMPORTS_FETCH_PATIENCE_S"})
    """For how long a download that fails is tried again; after that the import fails."""
    unzipped_bytes_max: int = field(default=20 * _GB, metadata={"env": "IMPORTS_UNZIPPED_BYTES_MAX"})
    zip_bytes_max: int = field(default=4 * _GB, metadata={"env": "IMPORTS_ZIP_BYTES_MAX"})
    rejected_rows_max: int = field(default=10_000, metadata={"env": "IMPORTS_REJECTED_ROWS_MAX"})
    """More bad rows than this in one file, and the file counts as broken: the import fails."""
    s3_endpoint: str | None = field(default=None, metadata={"env": "IMPORTS_S3_ENDPOINT"})
    """Where `s3://` addresses are fetched; None means Amazon in AWS_REGION."""

    @classmethod
    def load(cls, *, environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
        """Settings from `flags` (None means not given), then `environ` (the process's own if None), then defaults.

        Raises:
            InvalidSetting: a value cannot be used.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for each in fields(cls):
            variable = each.metadata["env"]
            if flags.get(each.name) is not None:
                values[each.name] = flags[each.name]
            elif environ.get(variable):  # set to nothing counts as not set, as compose files have it
                values[each.name] = _parse(variable, str(each.type), environ[variable])
        return cls(**values)

    def __post_init__(self) -> None:
        for name in ("ingress_url", "admin_url"):
            url = getattr(self, name)
            if not url.startswith(("http://", "https://")):
                raise InvalidSetting(f"{_variable(name)} is {url!r}; it must be an http:// or https:// address")
            object.__setattr__(self, name, url.rstrip("/"))
        if self.auth_token and not can_be_sent(self.auth_token):
            raise InvalidSetting(f"{_variable('auth_token')} {UNSENDABLE}")
        least = {"batch_rows": 1, "delete_batch_rows": 1, "memory_limit_mb": 64, "threads": 0, "rejected_rows_max": 0}
        least |= {"unzipped_bytes_max": _KB, "zip_bytes_max": _KB, "keep_zip_hours": 0, "fetch_patience_s": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise InvalidSetting(f"{_variable(name)} is {getattr(self, name)}; it must be at least {lowest}")

    @property
    def database_url(self) -> str:
        """A path, or `md:<database>`. Never holds the token."""
        if self.database:
            return self.database
        return f"md:{self.motherduck_database}" if self.motherduck_token else "imports-data/kbo.duckdb"

    @property
    def is_motherduck(self) -> bool:
        return self.database_url.startswith("md:")


def _variable(name: str) -> str:
    return next(each.metadata["env"] for each in fields(Settings) if each.name == name)


def _parse(variable: str, type_: str, text: str) -> Any:
    try:
        if type_ == "Path":
            return Path(text)
        if type_ in ("int", "float"):
            return int(text) if type_ == "int" else float(text)
    except ValueError as error:
        raise InvalidSetting(f"{variable} is {text!r}; it must be a number") from error
    return text
