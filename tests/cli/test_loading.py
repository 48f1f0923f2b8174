"""`module:app` -> application, or one line that says what is wrong and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from holdfast import Engine
from holdfast.cli.loading import load_app
from holdfast.errors import DeploymentError, HoldfastError, InvalidApp

GREETER = """\
import restate

greeter = restate.Service("Greeter")


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"Hello {name}"


other = restate.VirtualObject("Other")


@other.handler()
async def get(ctx: restate.ObjectContext) -> None:
    pass


twice = [greeter, restate.Workflow("Greeter")]
both = [greeter, other]
app = restate.app([greeter])
number = 42


class Holder:
    app = app


class Middleware:
    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)


wrapped = Middleware()
"""

FILES = {
    "hf_greeter.py": GREETER,
    "hf_plain.py": "number = 42\n",
    "hf_syntax.py": "import restate\n\ndef broken(:\n    pass\n",
    "hf_raises.py": "import os\n\n\ndef setting():\n    return os.environ['HF_NO_SUCH_SETTING']\n\n\nvalue = setting()\n",
    "hf_sdk_raises.py": "import restate\n\napp = restate.app(\n    [42]\n)\n",
    "hf_needs.py": "import restate\nimport hf_no_such_package.part\n",
    "hf_exits.py": "import sys\n\nsys.exit(3)\n",
    "hf_package/__init__.py": "",
    "hf_package/main.py": GREETER,
}


@pytest.fixture(autouse=True)
def _user_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    for name in [name for name in sys.modules if name.startswith("hf_")]:
        del sys.modules[name]


GOOD = {
    "hf_greeter:app": ["Greeter"],
    "hf_greeter:greeter": ["Greeter"],
    "hf_greeter:other": ["Other"],
    "hf_greeter:both": ["Greeter", "Other"],
    "hf_greeter:wrapped": ["Greeter"],
    "hf_greeter:Holder.app": ["Greeter"],
    "hf_package.main:app": ["Greeter"],
}


@pytest.mark.parametrize("reference", GOOD)
async def test_an_application_or_services_are_found(reference: str):
    async with Engine(load_app(reference)) as engine:
        assert list(engine.services) == GOOD[reference]


# reference -> type of error, message, hint. `{cwd}` is the current directory.
BAD: dict[str, tuple[type[HoldfastError], str, str]] = {
    "hf_greeter": (
        InvalidApp,
        "'hf_greeter' does not name an application",
        "write module:attribute, e.g. hf_greeter:app",
    ),
    "./hf_greeter.py": (
        InvalidApp,
        "'./hf_greeter.py' does not name an application",
        "write module:attribute, e.g. hf_greeter:app",
    ),
    ":app": (InvalidApp, "':app' does not name an application", "write module:attribute, e.g. myapp:app"),
    "hf_greeter:": (
        InvalidApp,
        "'hf_greeter:' does not name an application",
        "write module:attribute, e.g. hf_greeter:app",
    ),
    "hf_greeter.py:app": (InvalidApp, "no module 'hf_greeter.py'", "name a module, not a file: hf_greeter:app"),
    "hf_package/main.py:app": (
        InvalidApp,
        "no module 'hf_package/main.py'",
        "name a module, not a file: hf_package.main:app",
    ),
    "hf_greeterr:app": (InvalidApp, "no module 'hf_greeterr'", "did you mean hf_greeter:app?"),
    "hf_package.mian:app": (InvalidApp, "no module 'hf_package.mian'", "did you mean hf_package.main:app?"),
    "hf_pakage.main:app": (InvalidApp, "no module 'hf_pakage'", "did you mean hf_package.main:app?"),
    "zzzzzz:app": (InvalidApp, "no module 'zzzzzz'", "start in the directory that holds zzzzzz; this is {cwd}"),
    "hf_greeter:ap": (InvalidApp, "module 'hf_greeter' has no 'ap'", "did you mean hf_greeter:app?"),
    "hf_greeter:xyz": (
        InvalidApp,
        "module 'hf_greeter' has no 'xyz'",
        "it has app, both, greeter, other, twice, wrapped",
    ),
    "hf_plain:app": (
        InvalidApp,
        "module 'hf_plain' has no 'app'",
        "make one in hf_plain: app = restate.app([my_service])",
    ),
    "hf_greeter:number": (
        InvalidApp,
        "hf_greeter:number is no application but an object of type int",
        "name what restate.app([...]) returned, or a restate Service, VirtualObject or Workflow",
    ),
    "hf_greeter:greet": (
        InvalidApp,
        "hf_greeter:greet is no application but the function greet",
        "name what restate.app([...]) returned, or a restate Service, VirtualObject or Workflow",
    ),
    "hf_greeter:Middleware": (
        InvalidApp,
        "hf_greeter:Middleware is no application but the class Middleware",
        "name what restate.app([...]) returned, or a restate Service, VirtualObject or Workflow",
    ),
    "hf_greeter:twice": (
        InvalidApp,
        "hf_greeter:twice: Service Greeter already exists",
        "give each service a name of its own",
    ),
    "hf_syntax:app": (
        DeploymentError,
        "importing hf_syntax failed: SyntaxError: invalid syntax (hf_syntax.py:3)",
        "to see the whole traceback: python -c 'import hf_syntax'",
    ),
    "hf_raises:app": (
        DeploymentError,
        "importing hf_raises failed: KeyError: 'HF_NO_SUCH_SETTING' (hf_raises.py:5)",
        "to see the whole traceback: python -c 'import hf_raises'",
    ),
    "hf_sdk_raises:app": (
        DeploymentError,
        "importing hf_sdk_raises failed: AttributeError: 'int' object has no attribute 'name' (hf_sdk_raises.py:3)",
        "to see the whole traceback: python -c 'import hf_sdk_raises'",
    ),
    "hf_needs:app": (
        DeploymentError,
        "importing hf_needs failed: ModuleNotFoundError: No module named 'hf_no_such_package' (hf_needs.py:2)",
        "install hf_no_such_package for {python}",
    ),
    "hf_exits:app": (
        DeploymentError,
        "importing hf_exits failed: it ends the process, sys.exit(3) (hf_exits.py:3)",
        "to see the whole traceback: python -c 'import hf_exits'",
    ),
}


async def test_a_script_that_starts_itself_is_told_where_that_belongs(tmp_path: Path):
    (tmp_path / "hf_script.py").write_text("import asyncio\n\nasyncio.run(None)\n")
    with pytest.raises(DeploymentError, match="cannot be called from a running event loop") as raised:
        load_app("hf_script:app")
    assert raised.value.hint == "what starts the program goes under: if __name__ == '__main__':"


@pytest.mark.parametrize("reference", BAD)
def test_what_is_wrong_is_told_in_one_line(reference: str, tmp_path: Path):
    error_type, message, hint = BAD[reference]
    with pytest.raises(HoldfastError) as raised:
        load_app(reference)
    assert (raised.type, raised.value.message) == (error_type, message)
    assert raised.value.hint == hint.replace("{cwd}", str(tmp_path)).replace("{python}", sys.executable)
