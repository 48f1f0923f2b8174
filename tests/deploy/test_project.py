"""What of a project belongs to an application, and what the rendered entry modules do with identity keys."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.deploy import InvalidDeployment, Source
from holdfast.deploy.project import included, out_folder, requirements_of, sources_of
from holdfast.deploy.steps import next_steps
from tests.deploy.support import PATIENCE_S, environment, rendered, settings
from tests.deploy.variants import KEY

LAYOUTS = {
    "a module": (["shop.py"], "shop:app", Source("shop.py", "shop.py")),
    "a package": (["shop/__init__.py", "shop/app.py"], "shop.app:app", Source("shop", "shop")),
    "a package without __init__": (["shop/orders/app.py"], "shop.orders.app:app", Source("shop", "shop")),
    "in src": (["src/shop/__init__.py"], "shop.app:app", Source("src/shop", "shop")),
    "a module in src": (["src/shop.py"], "shop:app", Source("src/shop.py", "shop.py")),
    "module beats a folder of data": (["shop.py", "shop/data.csv"], "shop:app", Source("shop.py", "shop.py")),
    "src beats a folder of data": (["shop/data.csv", "src/shop/__init__.py"], "shop:app", Source("src/shop", "shop")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_modules_place_is_found(layout: str, tmp_path: Path) -> None:
    files, reference, source = LAYOUTS[layout]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert sources_of(reference, tmp_path) == (source,)


def test_what_is_installed_is_not_copied(tmp_path: Path) -> None:
    assert sources_of("installed.app:app", tmp_path) == ()


def test_includes_keep_their_place_or_move(tmp_path: Path) -> None:
    (tmp_path / "src" / "shop").mkdir(parents=True)
    (tmp_path / "prices.csv").write_text("")
    assert included(["src/shop=shop", "prices.csv"], tmp_path) == (
        Source("src/shop", "shop"),
        Source("prices.csv", "prices.csv"),
    )
    with pytest.raises(InvalidDeployment, match="no such file"):
        included(["missing"], tmp_path)


def test_requirements_are_those_named_else_the_projects(tmp_path: Path) -> None:
    assert requirements_of([], tmp_path) == ()
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "base.txt").write_text("")
    assert requirements_of([], tmp_path) == ("requirements.txt",)
    assert requirements_of(["base.txt"], tmp_path) == ("base.txt",)


@pytest.mark.parametrize("out", ["..", "/etc", "a/../../b"])
def test_files_stay_in_the_project(out: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidDeployment, match="is outside"):
        out_folder(out, tmp_path)


@pytest.mark.parametrize(
    ("mechanism", "module", "variable"),
    [("asgi", "vercel/api/index.py", {}), ("lambda", "lambda_handler.py", {"AWS_LAMBDA_FUNCTION_NAME": "greeter"})],
)
def test_identity_keys_hold_without_the_platforms_variable(
    mechanism: str, module: str, variable: dict[str, str], project: Path
) -> None:
    """An application that reads the variable finds it, though nobody has set it."""
    (project / "signed.py").write_text(
        (project / "greeter.py")
        .read_text()
        .replace("import restate\n", "import os\n\nimport restate\n", 1)
        .replace(
            "restate.app([greeter])", 'restate.app([greeter], identity_keys=[os.environ["RESTATE_IDENTITY_KEYS"]])'
        )
    )
    files = rendered(mechanism, reference="signed:app", identity_keys=(KEY,))  # type: ignore[arg-type]
    (project / "entry.py").write_text(files[module])
    line = [sys.executable, "-c", "import entry"]
    done = subprocess.run(
        line, cwd=project, env=environment(variable), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_a_platforms_files_cannot_carry_is_told() -> None:
    made = settings("asgi", platforms=("railway", "vercel"), environment={"LEVEL": "info"}, secrets=("API_KEY",))
    steps = next_steps(made)
    assert "railway variables --set LEVEL=…" in steps
    assert "vercel env add API_KEY production" in steps
