"""Rendering is pure: settings in, files out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_architecture import PACKAGE, imported_modules

PURE = [
    *sorted((PACKAGE / "deploy" / "render").glob("*.py")),
    PACKAGE / "deploy/settings.py",
    PACKAGE / "deploy/steps.py",
]
IMPURE = {
    "os",
    "pathlib",
    "subprocess",
    "socket",
    "shutil",
    "tempfile",
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
}
IMPURE |= {"httpx", "boto3", "sys", "asyncio", "threading"}


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_a_renderer_touches_nothing(path: Path) -> None:
    names = {name for _, name in imported_modules(path.read_text(), "")}
    # PurePosixPath is text with rules.
    assert {name for name in names if name.split(".")[0] in IMPURE} <= {"pathlib.PurePosixPath"}


def test_what_is_rendered_does_not_depend_on_what_applies_it() -> None:
    for path in PURE:
        names = {name for _, name in imported_modules(path.read_text(), "")}
        allowed = (
            "holdfast.deploy.render",
            "holdfast.deploy.settings",
            "holdfast.deploy.versions",
            "holdfast.deploy.errors",
        )
        allowed += ("holdfast.endpoint.IDENTITY_KEYS_VARIABLE",)
        assert [name for name in names if name.startswith("holdfast") and not name.startswith(allowed)] == []
