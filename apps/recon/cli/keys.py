"""Which scanners may submit. All of it needs the admin token."""

from __future__ import annotations

import click

from apps.recon.cli.client import Api, WrongRequest
from apps.recon.keys import InvalidKey, canonical

COLUMNS = ("public_key", "name", "registered_at", "revoked_at")


@click.group()
def keys() -> None:
    """Which scanners may submit."""


@keys.command("list")
@click.pass_obj
def list_keys(api: Api) -> None:
    """All keys of the registry."""
    found = api.get("/v1/keys")
    if api.as_json:
        api.show(found)
        return
    note = "any other key may submit as well" if found["mode"] == "open" else "no other key may submit"
    api.table(COLUMNS, [[key[name] for name in COLUMNS] for key in found["keys"]], note=note)


@keys.command()
@click.argument("public_key")
@click.option("--name", help="Whose it is.")
@click.pass_obj
def register(api: Api, public_key: str, name: str | None) -> None:
    """Let PUBLIC_KEY submit, also after a revocation."""
    api.show(api.post("/v1/keys", {"public_key": _canonical(public_key), "name": name}))


@keys.command()
@click.argument("public_key")
@click.pass_obj
def revoke(api: Api, public_key: str) -> None:
    """Refuse PUBLIC_KEY from now on."""
    api.show(api.delete("/v1/keys/" + _canonical(public_key).replace("+", "-").replace("/", "_")))


def _canonical(public_key: str) -> str:
    try:
        return canonical(public_key)
    except InvalidKey as error:
        raise WrongRequest(str(error), hint="recon keygen prints it") from None
