"""The scanner's side: make a key, sign a scan, submit it."""

from __future__ import annotations

import base64
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click
from nacl.signing import SigningKey

from apps.recon.cli.client import Api, Failure, WrongRequest
from apps.recon.cli.jobs import wait_until_final
from apps.recon.envelope import BODY_BYTES_MAX, seal
from apps.recon.sign import load_key

KEY = Path("scanner.key")


@click.command()
@click.option("--key", type=click.Path(path_type=Path), default=KEY, show_default=True, help="Where it is kept.")
@click.pass_obj
def keygen(api: Api, key: Path) -> None:
    """Make a scanner's key, and print its public half. An existing file is never replaced."""
    made = SigningKey.generate()
    try:
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made.encode())
    except FileExistsError:
        raise Failure(f"{key} exists already", hint="name another file by --key") from None
    except OSError as error:
        raise Failure(f"{key}: {error.strerror}") from None
    _print_key(api, made, key)


@click.command()
@click.argument("scan", type=click.File("rb"), default="-")
@click.option("--key", type=click.Path(path_type=Path), default=KEY, show_default=True, help="The scanner's key.")
def sign(scan: BinaryIO, key: Path) -> None:
    """Sign SCAN (naabu, masscan or nmap output; standard input by default); the envelope goes to standard output.

    It can be sent within five minutes: curl -X POST URL/v1/mesh/ingest -d @-
    """
    sys.stdout.buffer.write(_sealed(scan, key))


@click.command()
@click.argument("scan", type=click.File("rb"), default="-")
@click.option("--key", type=click.Path(path_type=Path), default=KEY, show_default=True, help="The scanner's key.")
@click.option("--wait", is_flag=True, help="Wait for the job's end; exit status 1 if it failed.")
@click.pass_obj
def submit(api: Api, scan: BinaryIO, key: Path, wait: bool) -> None:
    """Sign SCAN and submit it. Safe to repeat within its five minutes: the same envelope is the same job."""
    accepted: dict[str, Any] = api.post_bytes("/v1/mesh/ingest", _sealed(scan, key))
    if not wait:
        api.show(accepted)
        return
    job = wait_until_final(api, accepted["job_id"])
    api.show(job)
    if job["state"] == "failed":
        raise Failure(f"the job failed: {job['error_message']}")


def _sealed(scan: BinaryIO, key: Path) -> bytes:
    if not key.exists():
        raise Failure(f"{key} does not exist", hint="make one: python -m apps.recon keygen")
    try:
        body = seal(scan.read(), load_key(key), timestamp_s=int(time.time()))
    except ValueError as error:
        raise WrongRequest(str(error), hint="name another file by --key") from None
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from None
    if len(body) > BODY_BYTES_MAX:
        raise WrongRequest(f"{len(body)} bytes when signed; {BODY_BYTES_MAX} are accepted", hint="split the scan")
    return body


def _print_key(api: Api, key: SigningKey, path: Path) -> None:
    public_key = base64.b64encode(key.verify_key.encode()).decode()
    if api.as_json:
        api.show({"public_key": public_key, "file": str(path)})
    else:
        click.echo(public_key)
        click.echo(f"the secret half is in {path}; register the line above: recon keys register KEY", err=True)
