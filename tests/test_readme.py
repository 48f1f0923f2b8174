"""The README is executed: what a newcomer types there works, and prints what the README says.

Its ```console blocks are one bash session, top to bottom, with .venv/bin on the PATH. It begins in a copy of this tree,
or, where the page has a `git clone`, in an empty folder.

- a line `$ command` runs and must exit 0; one that ends in a backslash goes on in the next line. `$ command &` stays in
  the background; a `holdfast serve` there is waited for until it accepts connections on its ports;
- the other lines are what the command prints: each must occur, in this order, and `...` or `…` stands for anything;
- a ```python block whose first line is a comment with a file's name, `# greeter.py`, is saved under that name where
  the session then is; every other one must compile.

So that the session tests this tree and needs no network, `git clone` copies the tree with its virtual environment,
`python3 -m venv` links to that environment, and `pip install` only checks that the package is installed. `make demo`
runs, unless HOLDFAST_SKIP_SLOW is set; any other target (`make test` would come back here) must only be known to make.
What must not run belongs into a ```sh or ```text block.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.restate_server import free_ports
from tests.test_architecture import repository_files

ROOT = Path(__file__).resolve().parents[1]

DEFAULT_PORTS = {"--ingress-port": 8080, "--admin-port": 9070}
# A start takes about half a second; a loaded CI machine may need much longer.
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
POLL_S = 0.02
# Used if they are there: a fresh machine has neither.
OPTIONAL_TOOLS = ("curl", "jq")

BLOCK = re.compile(r"^```(?P<language>console|python)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME_COMMENT = re.compile(r"# (?P<name>[\w./-]+\.py)\n")

# Shell functions come before programs; `command` reaches the program.
# --assume-old: the copy of the tree shares the virtual environment and must never rebuild it.
PRELUDE = r"""
git() {
    [ "$1" = clone ] || { command git "$@"; return; }
    cp -a "$README_TREE" "${3:-$(basename "$2" .git)}"
}
pip() {
    [ "$1" = install ] || { command pip "$@"; return; }
    command python -c 'import importlib.metadata, re, sys
for word in sys.argv[2:]:
    if not word.startswith("-"):
        importlib.metadata.version(re.split(r"[\[=<>~;@]", word)[0].strip(" .") or "holdfast")' "$@"
}
python() {
    [ "$1 $2" = "-m venv" ] || { command python "$@"; return; }
    [ -e "$3" ] || ln -s "$README_VENV" "$3"
}
python3() { python "$@"; }
make() {
    local options=(--assume-old=.venv/.packages --assume-old=.venv/.stamp --assume-old=node_modules/.stamp)
    [ "$1" = demo ] && [ -z "$HOLDFAST_SKIP_SLOW" ] || options+=(--dry-run)
    command make "${options[@]}" "$@"
}
"""


@dataclass
class Step:
    """A command with what it prints, or a file to save or compile. `line` is where it stands in the page."""

    line: int
    command: str = ""
    printed: list[str] = field(default_factory=list)
    python: str = ""


def fail(message: str) -> NoReturn:
    """The page is wrong, not the code of this test: no traceback."""
    pytest.fail(message, pytrace=False)


def parse(page: str) -> list[Step]:
    """The steps of a page, in order."""
    steps: list[Step] = []
    for block in BLOCK.finditer(page):
        line = page.count("\n", 0, block.start("body")) + 1
        if block["language"] == "python":
            steps.append(Step(line, python=block["body"]))
            continue
        for number, text in enumerate(block["body"].splitlines(), start=line):
            if text.startswith("$ "):
                steps.append(Step(number, command=text.removeprefix("$ ")))
            elif steps and steps[-1].command.endswith("\\") and not steps[-1].printed:
                steps[-1].command += "\n" + text.removeprefix("> ")
            elif text.strip():
                if not steps or steps[-1].python:
                    fail(f"line {number}: output before the first command: {text}")
                steps[-1].printed.append(text)
    return steps


def first_unprinted(expected: list[str], output: str) -> str | None:
    """The first expected line that `output` lacks, at its place in the order. Widths of blank space do not matter."""
    lines = iter(" ".join(line.split()) for line in output.splitlines())
    for line in expected:
        anything = re.escape(" ".join(line.split())).replace(re.escape("..."), ".*").replace("…", ".*")
        if anything != ".*" and not any(re.fullmatch(anything, printed) for printed in lines):
            return line
    return None


def served_ports(command: str) -> list[int]:
    """The ports on which a `holdfast serve` will listen; none for other commands."""
    words = shlex.split(command, comments=True)
    if words[:2] != ["holdfast", "serve"]:
        return []
    ports = dict(DEFAULT_PORTS)
    for index, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in ports:
            ports[option] = int(value or words[index + 1])
    return list(ports.values())


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def becomes_true(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


class Shell:
    """One bash that keeps its folder, variables and background jobs from command to command."""

    def __init__(self, folder: Path, tree: Path, outputs: Path) -> None:
        # What an outer `make test ARGS=...` hands down would reach the README's own make.
        environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "ARGS")}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "README_TREE": str(tree),
            "README_VENV": sys.prefix,
            "COLUMNS": "120",
            "NO_COLOR": "1",
        }
        self._outputs = outputs
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
            start_new_session=True,  # so that `stop` reaches what the commands left in the background
        )
        status, _ = self.run(PRELUDE)
        assert status == 0

    def run(self, command: str) -> tuple[int, Path]:
        """Run a command to its end. Returns its exit status and the file with what it printed so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        index = len(list(self._outputs.glob("*.sh")))
        script, output = self._outputs / f"{index}.sh", self._outputs / f"{index}.txt"
        script.write_text(command + "\n")
        self._process.stdin.write(f". {script} >{output} 2>&1 </dev/null; echo $?\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline()
        if not status:
            fail(f"the shell ended: {command}\n{output.read_text()}")
        return int(status), output

    def has_running_job(self) -> bool:
        return self.run("jobs -pr")[1].read_text() != ""

    def stop(self) -> None:
        """End the shell and everything it started; servers get the time to drain."""

        def is_gone() -> bool:
            self._process.poll()
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return True
            return False

        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            if not becomes_true(is_gone, STOP_TIMEOUT_S):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is, or would be, committed, with this virtual environment: what `git clone` and `make` give."""
    copy = tmp_path_factory.mktemp("tree")
    for path in repository_files():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


@pytest.fixture
def session(tmp_path: Path, tree: Path) -> Iterator[Shell]:
    """A shell in an empty folder."""
    folder, outputs = tmp_path / "session", tmp_path / "outputs"
    folder.mkdir()
    outputs.mkdir()
    shell = Shell(folder, tree, outputs)
    yield shell
    shell.stop()


def save_or_compile(step: Step, session: Shell) -> None:
    if named := FILE_NAME_COMMENT.match(step.python):
        folder = Path(session.run("pwd")[1].read_text().strip())
        (folder / named["name"]).write_text(step.python)
        return
    try:
        compile(step.python, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        fail(f"line {step.line}: not Python: {error}")


def play_command(step: Step, session: Shell) -> None:
    """Run one command; the test fails, with line and output, if it does not do what the page says."""
    status, output = session.run(step.command)
    where = f"line {step.line}: $ {step.command}"
    if status:
        fail(f"{where}\nexit status {status}\n{output.read_text()}")
    if not step.command.rstrip().endswith("&"):
        unprinted = first_unprinted(step.printed, output.read_text())
        if unprinted is not None:
            fail(f"{where}\ndoes not print: {unprinted}\nbut: {output.read_text()}")
        return

    ports = served_ports(step.command.rstrip().removesuffix("&"))

    def is_ready() -> bool:
        if not session.has_running_job():
            fail(f"{where}\nended at once\n{output.read_text()}")
        return all(map(is_listening, ports)) and first_unprinted(step.printed, output.read_text()) is None

    if not becomes_true(is_ready, READY_TIMEOUT_S):
        fail(f"{where}\nis not ready (ports {ports}) or does not print {step.printed}\n{output.read_text()}")


def play(page: str, session: Shell) -> list[str]:
    """Play a whole page. Returns the commands left out because this machine lacks a tool they use."""
    left_out: list[str] = []
    for step in parse(page):
        if step.python:
            save_or_compile(step, session)
        elif any(re.search(rf"\b{tool}\b", step.command) and not shutil.which(tool) for tool in OPTIONAL_TOOLS):
            left_out.append(step.command)
        else:
            play_command(step, session)
    return left_out


@pytest.mark.slow
@pytest.mark.timeout(300)  # `make demo` is among the commands and takes up to 30 s
def test_every_command_of_the_readme_works(session: Shell) -> None:
    page = (ROOT / "README.md").read_text()
    steps = parse(page)
    assert any(step.command for step in steps)
    busy = {port for step in steps for port in served_ports(step.command.removesuffix("&")) if is_listening(port)}
    if busy and not os.environ.get("CI"):
        pytest.skip(f"the README's server needs ports that are in use: {sorted(busy)}")
    assert not busy, "the README's server needs these ports"
    if "git clone" not in page:
        status, _ = session.run("git clone holdfast && cd holdfast")
        assert status == 0
    left_out = play(page, session)
    if left_out:
        pytest.skip(f"all commands work but these, for which curl or jq is missing here: {left_out}")


# The player itself: a page that lies must fail.

PAGE = """
```python
# hello.py
print("hello", "world")
```
```console
$ python hello.py
hello   world
$ mkdir inner && cd inner && GREETING=hi
$ echo "$GREETING" \\
>   there; pwd
hi there
.../inner
```
"""


def test_a_page_runs_in_one_session(session: Shell) -> None:
    assert play(PAGE, session) == []


@pytest.mark.parametrize(
    ("commands", "complaint"),
    [
        ("$ true\n$ false", "line 3: \\$ false\nexit status 1"),
        ("$ echo one\ntwo", "does not print: two\nbut: one"),
        ("$ printf 'a\\nb\\n'\nb\na", "does not print: a"),
        ("$ no-such-program", "exit status 127"),
        ("$ make no-such-target -C ..", "exit status 2"),
        ("$ pip install no-such-package", "exit status 1"),
        ("$ sleep 0 &\n$ wait\n$ holdfast serve no_such_module:app --admin-port=1 &", "ended at once"),
        ("$ exit 3", "the shell ended"),
        ("output", "line 2: output before"),
        ("$ true\n```\n```python\nprint(", "line 5: not Python"),
    ],
)
def test_a_page_that_lies_fails(session: Shell, commands: str, complaint: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=complaint):
        play(f"```console\n{commands}\n```\n", session)


def test_a_tree_is_cloned_with_its_environment_and_targets(session: Shell) -> None:
    page = """```console
$ git clone https://example.org/holdfast.git && cd holdfast
$ python3 -m venv .venv && . .venv/bin/activate && pip install --upgrade -e ".[recon]"
$ make test
...pytest...
$ test "$(type -P python)" -ef .venv/bin/python
```
"""
    assert play(page, session) == []


def test_background_servers_are_waited_for_and_stopped(session: Shell) -> None:
    [port] = free_ports(1)
    # A real server under the command's name: the player only knows ports.
    page = f"""```console
$ holdfast() {{ python -u -m http.server --bind 127.0.0.1 {port}; }}
$ holdfast serve hello:app --ingress-port {port} --admin-port={port} &
Serving HTTP on ... port {port} ...
$ python -c 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:{port}/").status)'
200
$ python -m http.server {port} 2>/dev/null || echo "in use"
in use
```
"""
    assert play(page, session) == []
    session.stop()
    assert not is_listening(port)


@pytest.mark.parametrize(
    ("command", "ports"),
    [
        ("holdfast serve greeter:app ", [8080, 9070]),
        ("holdfast serve greeter:app --ingress-port 1234 --admin-port=5678", [1234, 5678]),
        ("holdfast call Greeter/greet", []),
    ],
)
def test_served_ports(command: str, ports: list[int]) -> None:
    assert served_ports(command) == ports
