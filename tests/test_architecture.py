"""The layers as a test: imports point one way, the pure parts stay pure, applications use public names only.

    errors <- {config, logs, loading, endpoint, patterns, security} <- protocol <- core <- store <- runtime <- {query, metrics} <- {ingress, admin} <- {embedded, serving}
           <- providers <- api <- {server, deploy} <- holdfast <- {cli, testing} <- __main__
    (`holdfast` is the package's own __init__: the public names)

A module may import from its own package and from what stands left of it. Imports are read with `ast`, so that one
inside a function or under TYPE_CHECKING counts as well: an arrow that only types use is still an arrow.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "holdfast"

# Left to right as above; parts of one layer do not import each other.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"config", "logs", "loading", "endpoint", "patterns", "security"}),
    frozenset({"protocol"}),
    frozenset({"core"}),
    frozenset({"store"}),
    frozenset({"runtime"}),
    frozenset({"query", "metrics"}),
    frozenset({"ingress", "admin"}),
    frozenset({"embedded", "serving"}),
    frozenset({"providers"}),
    frozenset({"api"}),
    frozenset({"server", "deploy"}),
    frozenset({"__init__"}),
    frozenset({"cli", "testing"}),
    frozenset({"__main__"}),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

PURE = frozenset({"protocol", "core"})
IMPURE_MODULES = frozenset(
    {"apsw", "asyncio", "importlib", "os", "random", "secrets", "socket", "sqlite3", "starlette", "time", "uvicorn"}
)
# Time and randomness come in as data. `uuid` may be imported (to parse, format, derive), but these calls draw.
IMPURE_CALLS = frozenset({"uuid1", "uuid4", "uuid6", "uuid7", "utcnow", "datetime.now", "date.today", "__import__"})

APPLICATIONS_MAY_IMPORT = frozenset(
    {
        "holdfast",
        "holdfast.endpoint",
        "holdfast.errors",
        "holdfast.metrics",
        "holdfast.patterns",
        "holdfast.providers",
        "holdfast.testing",
    }
)
# What runs on a Restate server as well must need nothing of the engine.
PATTERNS_MAY_IMPORT = frozenset({"restate", "cronsim", "holdfast.errors", "holdfast.patterns"})

LINES_MAX = 700
# Path -> why one sitting is still enough to read it.
LONGER_THAN_LINES_MAX: dict[str, str] = {}

# Assembled here, because this file is searched too.
FORBIDDEN_TEXT = {
    "a package registry": re.compile(
        "|".join(re.escape(".".join(host)) for host in [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org")])
    ),
    "a path of one machine": re.compile(r"(?<![\w.~}}-])/(?:{}|{})/".format("work", "tmp/w")),
}
# Where git is not there to tell: what `make clean` removes.
MADE_FOLDERS = frozenset(
    {".git", "node_modules", "build", "dist", "demo-output", "__pycache__", ".pytest_cache", ".ruff_cache"}
    | {".hypothesis"}
)
TEXT_BYTES_MAX = 5_000_000


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if not any(part.startswith(".") for part in path.parts[-4:]))


def repository_files() -> list[Path]:
    """What is, or would be, committed. Without git (an unpacked archive) everything that is not made by make."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        paths = []
        for folder, subfolders, names in os.walk(ROOT):
            # Pruned, not filtered: the virtual environment alone has ten thousand files.
            subfolders[:] = [name for name in subfolders if name not in MADE_FOLDERS and not name.startswith(".venv")]
            paths += [Path(folder, name) for name in names]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def imported_modules(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything `source` imports; `from a import b` gives `a.b`, b being module or name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")
            if node.level:
                package = package[: len(package) - node.level + is_package]
            else:
                package = []
            base = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def part_of(name: str) -> str:
    """`holdfast.core.model` -> `core`; `holdfast` and its names, such as `holdfast.Engine`, -> `__init__`."""
    second = name.split(".")[1] if "." in name else "__init__"
    is_module = second in RANK or (PACKAGE / second).is_dir() or (PACKAGE / f"{second}.py").is_file()
    return second if is_module else "__init__"


def layer_violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What `module` of holdfast imports from a layer that is not left of its own."""
    own = part_of(module)
    if own not in RANK:
        return [f"{module}: {own} has no place in the layers; next: give it one in LAYERS"]
    wrong: list[str] = []
    for line, name in imported_modules(source, module, is_package=is_package):
        if name.split(".")[0] != "holdfast":
            continue
        other = part_of(name)
        if other != own and RANK.get(other, len(LAYERS)) >= RANK[own]:
            wrong.append(f"{module}:{line} imports {name}: {own} stands left of {other} or beside it")
    return wrong


def impurities(source: str, module: str) -> list[str]:
    """Where `module` reaches for the clock, randomness, the system or I/O."""
    wrong = [
        f"{module}:{line} imports {name}"
        for line, name in imported_modules(source, module)
        if name.split(".")[0] in IMPURE_MODULES
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in IMPURE_CALLS or called.split(".")[-1] in IMPURE_CALLS or called.endswith(".datetime.now"):
                wrong.append(f"{module}:{node.lineno} calls {called}")
    return wrong


def unportable_imports(source: str, module: str) -> list[str]:
    """What a pattern takes from elsewhere than the standard library, the SDK's public names and itself."""
    wrong: list[str] = []
    for line, name in imported_modules(source, module):
        parts = name.split(".")
        is_allowed = any(name == one or name.startswith(f"{one}.") for one in PATTERNS_MAY_IMPORT)
        is_private = parts[0] == "restate" and any(part.startswith("_") for part in parts)
        if (not is_allowed and parts[0] not in sys.stdlib_module_names) or is_private:
            wrong.append(f"{module}:{line} imports {name}")
    return wrong


def private_imports(source: str, module: str, public_names: frozenset[str]) -> list[str]:
    """What an application takes from holdfast that is not public."""
    wrong: list[str] = []
    for line, name in imported_modules(source, module):
        if name.split(".")[0] != "holdfast" or name in APPLICATIONS_MAY_IMPORT:
            continue
        parent, _, last = name.rpartition(".")
        is_public = last in public_names if parent == "holdfast" else parent in APPLICATIONS_MAY_IMPORT
        if not is_public or last.startswith("_"):
            wrong.append(f"{module}:{line} imports {name}")
    return wrong


def exported_names() -> frozenset[str]:
    """`holdfast.__all__`, read without importing it."""
    init = PACKAGE / "__init__.py"
    for node in ast.parse(init.read_text()).body if init.exists() else []:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                return frozenset(ast.literal_eval(value))
            case _:
                pass
    return frozenset()


HOLDFAST_MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in python_files(PACKAGE)
}
APPLICATION_MODULES = {relative(path): path for path in python_files(ROOT / "apps")}


@pytest.mark.parametrize("module", HOLDFAST_MODULES)
def test_imports_point_one_way(module: str) -> None:
    path = HOLDFAST_MODULES[module]
    assert layer_violations(path.read_text(), module, is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize("module", [name for name in HOLDFAST_MODULES if part_of(name) in PURE])
def test_the_pure_parts_touch_no_clock_no_randomness_and_no_system(module: str) -> None:
    assert impurities(HOLDFAST_MODULES[module].read_text(), module) == []


@pytest.mark.parametrize("module", [name for name in HOLDFAST_MODULES if part_of(name) == "patterns"])
def test_patterns_run_on_a_restate_server_as_well(module: str) -> None:
    assert unportable_imports(HOLDFAST_MODULES[module].read_text(), module) == []


@pytest.mark.parametrize("module", APPLICATION_MODULES)
def test_applications_import_public_names_only(module: str) -> None:
    assert private_imports(APPLICATION_MODULES[module].read_text(), module, exported_names()) == []


def test_no_module_is_too_long_for_one_sitting() -> None:
    line_counts = {relative(path): len(path.read_text().splitlines()) for path in python_files(ROOT / "src")}
    too_long = {path: count for path, count in line_counts.items() if count > LINES_MAX}
    assert set(too_long) == set(LONGER_THAN_LINES_MAX), f"over {LINES_MAX} lines: {too_long}; next: split, or say why"


def test_no_file_names_a_registry_or_one_machines_paths() -> None:
    found: list[str] = []
    for path in repository_files():
        if path.stat().st_size > TEXT_BYTES_MAX:
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        for what, pattern in FORBIDDEN_TEXT.items():
            found += [f"{relative(path)}: {what}: {match.group()}" for match in pattern.finditer(text)]
    assert found == []


# The rules above, tried on code that breaks them: a rule that cannot fail holds nothing.

LAYER_CASES = {
    "down is allowed": ("holdfast.runtime.engine", "from holdfast.core.model import Receipt", 0),
    "within a package is allowed": ("holdfast.core.ids", "from holdfast.core.model import Receipt", 0),
    "other libraries are no layer": ("holdfast.errors", "import json\nfrom click import echo", 0),
    "up": ("holdfast.core.model", "import holdfast.runtime.engine", 1),
    "up, from the package": ("holdfast.core.model", "from holdfast import store", 1),
    "up, the public names": ("holdfast.core.model", "from holdfast import Engine", 1),
    "up, relative": ("holdfast.core.model", "from ..runtime import engine", 1),
    "up, in a function": ("holdfast.protocol.wire", "def f():\n    from holdfast.core import model", 1),
    "up, for types only": ("holdfast.errors", "if TYPE_CHECKING:\n    from holdfast.core import model", 1),
    "sideways": ("holdfast.admin.app", "from holdfast.ingress.app import ingress_app", 1),
}


@pytest.mark.parametrize("case", LAYER_CASES)
def test_layer_rule(case: str) -> None:
    module, source, violation_count = LAYER_CASES[case]
    assert len(layer_violations(source, module)) == violation_count


def test_a_new_part_needs_a_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "novelty.py").touch()
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    assert layer_violations("", "holdfast.novelty") != []
    assert layer_violations("from holdfast import novelty", "holdfast.cli.main") != []


PURITY_CASES = {
    "parsing a uuid": ("from uuid import UUID\nUUID('0' * 32)", 0),
    "the clock": ("import time", 1),
    "the clock, from": ("from time import monotonic", 1),
    "a submodule": ("import asyncio.queues", 1),
    "the date": ("from datetime import datetime\ndatetime.now()", 1),
    "randomness by uuid": ("import uuid\nuuid.uuid4()", 1),
    "randomness by uuid, from": ("from uuid import uuid4\nuuid4()", 1),
    "randomness by os": ("def draw():\n    from os import urandom", 1),
}


@pytest.mark.parametrize("case", PURITY_CASES)
def test_purity_rule(case: str) -> None:
    source, impurity_count = PURITY_CASES[case]
    assert len(impurities(source, "holdfast.core.ids")) == impurity_count


PATTERN_CASES = {
    "the SDK": ("from restate import Context", 0),
    "a public module of the SDK": ("from restate.exceptions import RetryableError", 0),
    "the standard library": ("import asyncio", 0),
    "an error": ("from holdfast.errors import HoldfastError", 0),
    "another pattern": ("from holdfast.patterns.saga import Saga", 0),
    "a private module of the SDK": ("from restate._internal import PyVM", 1),
    "the engine": ("from holdfast.runtime.engine import EngineRuntime", 1),
    "the package, which brings the engine": ("from holdfast import Engine", 1),
    "another library": ("import httpx", 1),
}


@pytest.mark.parametrize("case", PATTERN_CASES)
def test_pattern_rule(case: str) -> None:
    source, violation_count = PATTERN_CASES[case]
    assert len(unportable_imports(source, "holdfast.patterns.x")) == violation_count


APPLICATION_CASES = {
    "the package": ("import holdfast", 0),
    "a public name": ("from holdfast import Engine", 0),
    "a public module": ("from holdfast import errors, testing", 0),
    "a pattern": ("from holdfast.patterns import Saga", 0),
    "inside a pattern's module": ("from holdfast.patterns.saga import Saga", 1),
    "a name of a public module": ("from holdfast.errors import InvalidApp", 0),
    "a name that is not exported": ("from holdfast import Secret", 1),
    "a private package": ("from holdfast import core", 1),
    "a module inside": ("import holdfast.runtime.engine", 1),
    "a name inside": ("from holdfast.store.sqlite import Store", 1),
    "deep inside a public package": ("from holdfast.testing.clock import ManualClock", 1),
}


@pytest.mark.parametrize("case", APPLICATION_CASES)
def test_application_rule(case: str) -> None:
    source, violation_count = APPLICATION_CASES[case]
    assert len(private_imports(source, "apps.recon.x", frozenset({"Engine"}))) == violation_count


@pytest.mark.parametrize(
    ("text", "is_forbidden"),
    [
        ("see https://{}.org/simple".format("pypi"), True),
        ("https://files.{}.org/x.whl".format("pythonhosted"), True),
        ("https://registry.{}.org/x.tgz".format("npmjs"), True),
        ("/{}/main/src".format("work"), True),
        ("/{}/v/bin".format("tmp/w"), True),
        ("https://example.org/our/work/here", False),
        ("/tmp/x/worker", False),
        ("network/worker", False),
    ],
)
def test_forbidden_text_rule(text: str, is_forbidden: bool) -> None:
    assert any(pattern.search(text) for pattern in FORBIDDEN_TEXT.values()) is is_forbidden
