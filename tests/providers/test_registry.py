"""Providers by name: ours, and those that other packages bring."""

from __future__ import annotations

import sys
import textwrap
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast import providers
from holdfast.cli.main import holdfast
from holdfast.providers import ProviderConflict, ProviderNotFound, registry
from holdfast.providers.registry import ProviderFactory, Registry
from tests.support.processes import run_python


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDFAST_WORKFLOW_RESTATE_DRAIN")


FACTORY = ProviderFactory(open=lambda settings: None)  # type: ignore[arg-type, return-value]


def test_ours_are_known_and_sorted() -> None:
    assert registry.names() == ["embedded", "restate"]
    assert all(registry.has(name) for name in registry.names())
    assert registry.get("restate").description


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ProviderNotFound, match="there is no provider 'mock'; known: embedded, restate"):
        registry.get("mock")


async def test_opening_an_unknown_provider_is_refused() -> None:
    with pytest.raises(ProviderNotFound):
        await providers.open("mock")


@pytest.mark.parametrize("name", ["", "Upper", "two words", "-x", "x-"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ProviderConflict, match="is no name of a provider"):
        Registry().register(name, FACTORY)


def test_a_taken_name_is_refused() -> None:
    made = Registry()
    made.register("mine", FACTORY)
    with pytest.raises(ProviderConflict, match="there is a provider 'mine' already"):
        made.register("mine", FACTORY)


def test_of_many_threads_one_registers_a_name() -> None:
    made = Registry()
    outcomes: list[bool] = []
    start = threading.Barrier(8)

    def register() -> None:
        start.wait()
        try:
            made.register("mine", FACTORY)
            outcomes.append(True)
        except ProviderConflict:
            outcomes.append(False)

    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


THIRD_PARTY = """\
    from holdfast.providers.embedded import open_embedded
    from holdfast.providers.registry import ProviderFactory
    from holdfast.providers.settings import EMBEDDED

    FACTORY = ProviderFactory(open_embedded, EMBEDDED, "somebody else's engine")
"""
USE = """\
    import asyncio
    from holdfast import providers
    from holdfast.providers import Configuration, registry

    async def main() -> None:
        print(registry.names())
        print(Configuration.load({"workflow.acme.db": ":memory:", "workflow.default_provider": "acme"}).problems())
        print(Configuration.load({"workflow.acme.dbx": "1"}).problems())
        async with await providers.open("acme", db=":memory:") as provider:
            print(len(await provider.list_workflows()))

    asyncio.run(main())
"""


def install(folder: Path, name: str, reference: str) -> None:
    """A distribution with an entry point, as pip leaves it."""
    metadata = folder / f"{name}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[holdfast.providers]\n{name} = {reference}\n")


def test_another_package_brings_a_provider(tmp_path: Path) -> None:
    install(tmp_path, "acme", "acme_provider:FACTORY")
    (tmp_path / "acme_provider.py").write_text(textwrap.dedent(THIRD_PARTY))
    lines = run_python(textwrap.dedent(USE), path=tmp_path).splitlines()
    assert lines[0] == "['acme', 'embedded', 'restate']"
    assert lines[1] == "[]"
    assert "is no setting; allowed: db, durability" in lines[2]
    assert lines[3] == "0"


def test_a_broken_package_is_named_and_hides_nothing(tmp_path: Path) -> None:
    install(tmp_path, "acme", "no_such_module:FACTORY")
    lines = run_python(
        "from holdfast.providers import Configuration, registry\n"
        "print(registry.names())\n"
        "print(Configuration.load({'workflow.restate.endpoint': 'x'}).problems())\n",
        path=tmp_path,
    ).splitlines()
    assert lines[0] == "['acme', 'embedded', 'restate']"
    assert "provider 'acme' cannot be loaded from no_such_module:FACTORY" in lines[1]
    assert "workflow.restate.endpoint" in lines[1]


def test_a_package_cannot_take_our_names(tmp_path: Path) -> None:
    install(tmp_path, "restate", "no_such_module:FACTORY")
    assert "a Restate server" in run_python(
        "from holdfast.providers import registry\nprint(registry.get('restate').description)", path=tmp_path
    )


def test_providers_on_the_command_line() -> None:
    import json

    found = json.loads(CliRunner().invoke(holdfast, ["providers", "--json"]).stdout)
    assert [each["name"] for each in found] == ["embedded", "restate"]
    assert "restate   a Restate server" in CliRunner().invoke(holdfast, ["providers"]).stdout


def test_the_package_knows_its_providers(tmp_path: Path) -> None:
    source = (
        "import holdfast\nprint(holdfast.providers.open.__name__, 'holdfast.embedded' in __import__('sys').modules)"
    )
    assert run_python(source, path=tmp_path).strip() == "open_provider False"


def test_types_and_errors_are_imported_without_the_sdk(tmp_path: Path) -> None:
    loaded = run_python(
        "import sys, holdfast.providers\nholdfast.providers.WorkflowSpec\nprint('restate' in sys.modules, 'httpx' in sys.modules)",
        path=tmp_path,
    )
    assert loaded.strip() == "False False", sys.version
