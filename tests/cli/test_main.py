"""The command as a whole: help, versions, the demo, and how quickly it answers."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from holdfast.cli import demo
from holdfast.cli.main import holdfast
from tests.cli.support import run

REPOSITORY = Path(__file__).parents[2]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


COMMANDS = commands(holdfast)


def test_the_commands():
    assert [" ".join(path) for path in COMMANDS] == [
        "serve",
        "call",
        "send",
        "workflows create",
        "workflows validate",
        "workflows list",
        "workflows show",
        "workflows delete",
        "executions start",
        "executions status",
        "executions list",
        "executions stop",
        "executions wait",
        "executions watch",
        "executions signal",
        "invocations list",
        "invocations show",
        "invocations cancel",
        "invocations kill",
        "invocations pause",
        "invocations resume",
        "invocations restart-as-new",
        "invocations purge",
        "state get",
        "state set",
        "state clear",
        "sql",
        "metrics",
        "services list",
        "services describe",
        "services configure",
        "deployments register",
        "deployments list",
        "deployments describe",
        "deployments update",
        "deployments remove",
        "tokens create",
        "tokens list",
        "tokens revoke",
        "api",
        "providers contract",
        "config show",
        "config check",
        "deploy render",
        "deploy apply",
        "deploy register",
        "restate up",
        "restate down",
        "restate status",
        "demo",
        "version",
    ]


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != ("demo",)], ids=" ".join)
def test_every_command_speaks_json_and_names_its_python_equivalent(path: tuple[str, ...]):
    result = CliRunner().invoke(holdfast, [*path, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert re.search(r"In Python: \w", result.stdout)


def test_help_fits_on_one_line_per_command():
    result = CliRunner().invoke(holdfast, ["--help"])
    summaries = result.stdout.partition("Commands:")[2].partition("Exit codes")[0].strip().splitlines()
    assert len(summaries) == len(holdfast.commands)
    assert not [line for line in summaries if line.endswith("...")]


def test_help_needs_none_of_the_heavy_parts():
    # Which is what makes `--help` and a mistyped option quick, whatever the machine.
    heavy = ["apsw", "httpx", "restate", "rich", "starlette", "structlog", "uvicorn", "asyncio"]
    program = f"import sys, holdfast.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version():
    versions = json.loads(run("version", "--json").stdout)
    assert versions["holdfast"] == version("holdfast")
    assert versions["restate-sdk"] == version("restate-sdk")
    assert versions["python"] == platform.python_version()
    assert tuple(map(int, versions["sqlite"].split("."))) >= (3, 51, 3)
    assert run("version").stdout.splitlines()[0] == f"holdfast {version('holdfast')}"


def test_an_unknown_command_is_exit_code_2():
    result = run("invocation", "list")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "No such command 'invocation'" in result.stderr


def test_demo_is_the_reference_applications():
    result = run("demo", "--help")
    assert result.returncode == 0, result.stderr
    assert "--jobs" in result.stdout


def test_demo_gives_its_result_as_json(tmp_path: Path):
    result = run("demo", "--json", "--jobs", "20", "--keep-dir", str(tmp_path / "demo"))
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["ok"]
    assert answer["problems"] == []
    assert answer["completed_count"] + answer["failed_count"] == 20
    assert answer["repeated_recorded_count"] == 0


def test_demo_without_the_source_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(demo, "_ROOT", tmp_path)
    result = CliRunner().invoke(holdfast, ["demo", "--jobs", "3"])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error HF0000: the demo is part of the source tree; this holdfast was installed without it",
        "  next: get the source tree of holdfast and run: make demo",
    ]


def test_demo_without_its_packages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "requires", lambda _: ["click>=8", "no-such-package>=2 ; extra == 'recon'"])
    result = CliRunner().invoke(holdfast, ["demo"])
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == "error HF0000: the demo needs packages that are not installed: no-such-package"
    assert second.startswith("  next: run it with everything it needs: make demo; or: pip install -e '")


PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md"))]
WRITTEN = re.compile(r"`holdfast ([a-z][^`]*)`|^\$ (?:! )?holdfast ([a-z].*)$|^ {2,}holdfast ([a-z].*)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_to_type_is_a_command_with_these_options(page: str):
    written = [next(filter(None, found)) for found in WRITTEN.findall((REPOSITORY / page).read_text())]
    assert [line for line in written if not is_known(line.partition(" | ")[0].split())] == []


def is_known(words: list[str]) -> bool:
    """Whether these words after `holdfast` name a command, or a group of them, and options that it has."""
    command: click.Command = holdfast
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        if name not in command.commands:
            return False
        command = command.commands[name]
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return {word.partition("=")[0] for word in words if word.startswith("--")} <= options | {"--help"}


def test_a_page_may_not_say_what_is_no_command():
    assert is_known(["invocations", "show", "ID"])
    assert not is_known(["invocations", "describe", "ID"])
    assert not is_known(["invocations", "show", "ID", "--nope"])
