"""Rows of deployments, service revisions and changed service settings. Written rarely, each change in one transaction."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import apsw


@dataclass(slots=True)
class DeploymentRow:
    id: str
    created_at_ms: int
    manifest: str
    name: str | None
    """Of an application in this process."""
    uri: str | None
    options: dict[str, Any] = field(default_factory=dict[str, Any])


class DeploymentRows:
    """Every method is one transaction on the engine's writing connection, which must not be inside another.

    Raises:
        apsw.Error: the change could not be stored; nothing of it was.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    @contextmanager
    def _transaction(self) -> Generator[apsw.Connection]:
        # Not apsw's own: when the commit finds no space, that leaves its transaction open.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def all(self) -> list[DeploymentRow]:
        """Oldest first."""
        rows = self._many(
            "SELECT id, created_at_ms, manifest, name, uri, options FROM deployment ORDER BY created_at_ms, rowid"
        )
        return [
            DeploymentRow(i, at_ms, manifest, name, uri, json.loads(o)) for i, at_ms, manifest, name, uri, o in rows
        ]

    def _many(self, sql: str) -> list[Any]:
        found: Any = self._connection.execute(sql).fetchall()
        return found

    def revisions(self) -> list[tuple[str, int, str]]:
        """(service, revision, deployment id), oldest first."""
        return self._many("SELECT service, revision, deployment_id FROM service_revision ORDER BY revision")

    def settings(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(deployment id, service) -> what an operator changed."""
        rows = self._connection.execute("SELECT deployment_id, service, settings FROM service_setting")
        return {(deployment_id, service): json.loads(settings) for deployment_id, service, settings in rows}

    def register(self, row: DeploymentRow, services: list[str]) -> None:
        """Add or replace a deployment; each service gets its next revision, and settings of its manifest again."""
        with self._transaction() as db:
            self._put(row)
            for service in services:
                db.execute(
                    "INSERT INTO service_revision SELECT ?1, coalesce(max(revision), 0) + 1, ?2 FROM service_revision "
                    "WHERE service = ?1",
                    (service, row.id),
                )
                db.execute("DELETE FROM service_setting WHERE service = ? AND deployment_id = ?", (service, row.id))

    def update(self, row: DeploymentRow) -> None:
        """Replace a deployment's row and leave revisions as they are."""
        with self._transaction():
            self._put(row)

    def _put(self, row: DeploymentRow) -> None:
        self._connection.execute(
            "INSERT INTO deployment (id, created_at_ms, manifest, name, uri, options) VALUES (?1, ?2, ?3, ?4, ?5, ?6) "
            "ON CONFLICT (id) DO UPDATE SET manifest = ?3, name = ?4, uri = ?5, options = ?6",
            (row.id, row.created_at_ms, row.manifest, row.name, row.uri, json.dumps(row.options)),
        )

    def remove(self, deployment_id: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM deployment WHERE id = ?", (deployment_id,))
            db.execute("DELETE FROM service_revision WHERE deployment_id = ?", (deployment_id,))
            db.execute("DELETE FROM service_setting WHERE deployment_id = ?", (deployment_id,))

    def set_settings(self, deployment_id: str, service: str, settings: Mapping[str, Any]) -> None:
        with self._transaction() as db:
            row = (service, deployment_id, json.dumps(dict(settings)))
            db.execute("INSERT OR REPLACE INTO service_setting VALUES (?, ?, ?)", row)

    def live_count(self, deployment_id: str) -> int:
        """Invocations bound to the deployment that are not over."""
        row = self._connection.execute(
            "SELECT count(*) FROM invocation WHERE status <> 'completed' AND deployment_id = ?", (deployment_id,)
        ).fetchone()
        return row[0] if row is not None else 0
