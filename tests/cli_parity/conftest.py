"""Two engines with the same application, and the official command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cli_parity.harness import Pair, Target, serving_holdfast, skip_without_cli
from tests.support.restate_server import running_server, serving_h2c, skip_without_server

APP = "tests.admin.sample_app:app"


@pytest.fixture(scope="package")
def app_url() -> Iterator[str]:
    """The application, over HTTP/2 from a process of its own."""
    with serving_h2c(APP) as url:
        yield url


@pytest.fixture(scope="module")
def bare_pair(tmp_path_factory: pytest.TempPathFactory, app_url: str) -> Iterator[Pair]:
    """Engines with nothing registered; `{app}` is where the application is."""
    skip_without_server()
    skip_without_cli()
    home = tmp_path_factory.mktemp("home")
    with ExitStack() as stack:
        restate = stack.enter_context(running_server())
        holdfast = stack.enter_context(serving_holdfast(home / "engine.db"))
        yield Pair(
            Target("restate", restate.admin_url, restate.ingress_url, home, {"app": app_url}),
            Target("holdfast", holdfast.admin_url, holdfast.ingress_url, home, {"app": app_url}),
        )


@pytest.fixture(scope="module")
def pair(bare_pair: Pair, app_url: str) -> Pair:
    """The same, with the application registered as `{dp}`."""
    bare_pair.register("dp", app_url)
    return bare_pair
