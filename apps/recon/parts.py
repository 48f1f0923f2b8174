"""How recon is put together: the frame (ingest, store, API, CLI) and the parts that plug into it.

A part is a package `apps.recon.<name>`: `enrich`, `queries`, `campaigns`, `threats`. It may offer any of these
names at its top level; the frame finds them, and a part that is not there is left out.

    def services(store: Store, settings: Settings) -> list[Service | VirtualObject | Workflow]:
        '''What the engine shall run. `create_app(store, settings)` adds them to the ingest workflow.'''

    def routes(context: ApiContext) -> list[BaseRoute]:
        '''HTTP routes (Starlette), with their full paths: `/v1/campaigns` ... `create_api(...)` adds them.'''

    def commands() -> list[click.Command]:
        '''Commands or groups for `python -m apps.recon`. `@click.pass_obj` gives each an `apps.recon.cli.client.Api`
        (`api.get(path, **query)`, `api.post(path, body)`, `api.show(result)`, `api.table(columns, rows)`), which
        reports every failure in one line.'''

    async def panels(context: ApiContext) -> list[Panel]:
        '''Tables for the dashboard at `/`. Called for each showing: at most a few quick queries.'''

    async def metrics(store: Store) -> list[Metric]:
        '''Families of `prometheus_client` for `/metrics`. Called for each scrape: at most a few quick queries.'''

    def after_ingest(ctx: WorkflowContext, done: IngestResult, settings: Settings) -> None:
        '''Called in the ingest workflow once a job is completed and its hosts are in the database:
        `store.hosts_of_job(job_id, limit=..., after=...)` lists their addresses. May only send (`ctx.workflow_send`,
        `ctx.service_send`, `ctx.object_send`), never wait; it is replayed like any handler code.'''

    async def sweep(ctx: ObjectContext, store: Store, settings: Settings) -> None:
        '''Called in every tick of the sweeper (`control.py`): start what is recorded, but was never started, because
        the engine was away. Reads in a step, and then may only send.'''

and in `apps.recon.<name>.schema`:

    MIGRATIONS: list[Migration]     # apps.recon.migrations.Migration(number, name, sql)

Numbers say the order and are never used twice: frame 1 to 99, enrich 100, queries 200, campaigns 300, threats 400.
A migration runs once, in one transaction with the row that records it. Write it without BEGIN and COMMIT and with
`DEFINE ... OVERWRITE`, so that it may run again over what an interrupted or older version left.

The database (`apps.recon.store.Store`; open when handlers and routes run):

    await store.read(sql, **params)             result of each statement; raises StoreError
    await store.write(sql, **params)            one transaction of yours: put BEGIN; and COMMIT; around several statements
    await store.write_step(step, sql, **params) the same with the step's line in `step_ledger`, BEGIN and COMMIT added

Record ids made from the data (see `apps.recon.schema`):

    host     host:⟨address⟩                       as `type::thing('host', '192.0.2.1')`
    port     port:[address, protocol, number]      a port belongs to one host
    service  service:⟨fingerprint⟩                 SHA-256 of the lower-case `name|product|version`; shared by ports
    banner   banner:⟨SHA-256 of the whole banner⟩
    tls_cert tls_cert:⟨SHA-256 of the DER⟩
    HAS      HAS:[address, protocol, number]       host -> port
    RUNS     RUNS:[address, protocol, number]      port -> service: the one that runs there now
    EVIDENCED_BY                                   service -> banner | tls_cert
    sighting sighting:[job, address]               which submissions told of a host

`enrich` owns city, region, country, asn, cloud_region, vuln, vuln_doc and their edges, `campaigns` and `threats` theirs.
`host.asn`, `city`, `region`, `country`, `cloud_region` and `service.cpe` are defined by the frame and written by `enrich`.

HTTP helpers for routes are in `apps.recon.http`: `ApiError(status, code, message)` is answered as the JSON error body,
`answer(struct, status)` as JSON, `read_json(request, Type)` gives a validated body or 400, `number`, `choice` read query
parameters, `require_admin(request, settings)` wants `Authorization: Bearer <RECON_ADMIN_TOKEN>`, `context.limit(request)`
counts a read request against its caller.

Settings come from `apps.recon.settings.Settings` only; a new one is a field there. Nothing else reads the environment.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import restate
    from starlette.requests import Request

    from apps.recon.limits import RequestLimits
    from apps.recon.settings import Settings
    from apps.recon.store import Store

PARTS = ("enrich", "queries", "campaigns", "threats")


@dataclass(frozen=True, slots=True)
class ApiContext:
    """What a route may use."""

    store: Store
    client: restate.RestateClient
    """Calls and sends to any service, on whichever engine: `client.workflow_send(run, key=..., arg=...)` gives a handle
    with the `invocation_id`, which `cancel` takes."""
    settings: Settings
    limits: RequestLimits

    async def cancel(self, invocation_id: str) -> None:
        """Ask the engine to cancel an invocation; unknown and finished ones are left alone. Portable: a small service
        on the engine does it, no access to an admin API is needed.

        Raises:
            restate.HttpError: the engine refused.
            httpx.TransportError: the engine could not be reached.
        """
        from apps.recon.control import cancel  # here, because it needs the workflows, and they need the parts

        await cancel(self.client, invocation_id)

    def limit(self, request: Request) -> None:
        """Count a read request of this caller.

        Raises:
            ApiError: 429 with Retry-After.
        """
        self.limits.count_read(request)


@dataclass(frozen=True, slots=True)
class Panel:
    """One table of the dashboard. Cells are shown as text, times as they are in UTC."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""
    """Shown when there are no rows, or below them."""
    facts: dict[str, int] = field(default_factory=dict[str, int])
    """Counts for the top of the page, by label."""


def parts() -> list[ModuleType]:
    """The parts that are there, in the order of `PARTS`. A part that cannot be imported raises."""
    return [
        importlib.import_module(f"apps.recon.{name}")
        for name in PARTS
        if importlib.util.find_spec(f"apps.recon.{name}") is not None
    ]


def collect(name: str, *arguments: Any) -> Iterator[Any]:
    """What the parts' functions of this name return, one after the other."""
    for part in parts():
        offer = getattr(part, name, None)
        if offer is not None:
            yield from offer(*arguments)


def offers(name: str) -> list[Any]:
    """The parts' attributes of this name."""
    return [found for part in parts() if (found := getattr(part, name, None)) is not None]


def part_schemas() -> list[ModuleType]:
    """The `schema` modules of the parts that have one."""
    return [
        importlib.import_module(f"{part.__name__}.schema")
        for part in parts()
        if importlib.util.find_spec(f"{part.__name__}.schema") is not None
    ]
