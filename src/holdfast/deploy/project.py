"""The user's project on disk: what belongs to an application, and where rendered files go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from holdfast.deploy.errors import InvalidDeployment
from holdfast.deploy.render.files import RenderedFile
from holdfast.deploy.settings import Source

REQUIREMENTS = "requirements.txt"

_SOURCE_FOLDERS = (".", "src")


def sources_of(reference: str, project: Path) -> tuple[Source, ...]:
    """What of the project the application's module belongs to: its top-level module or package, in `.` or in `src`.

    Returns:
        Empty when it is not in the project, i.e. comes with one of its packages.
    """
    top = reference.partition(":")[0].split(".")[0]
    for folder in _SOURCE_FOLDERS:
        for name in (f"{top}.py", top):
            path = project / folder / name
            if path.is_file() or (path.is_dir() and any(path.glob("*.py"))):
                return (Source(PurePosixPath(folder, name).as_posix(), name),)
    # A folder that is a package only by what is in it (no __init__.py, no module of its own).
    for folder in _SOURCE_FOLDERS:
        if (project / folder / top).is_dir():
            return (Source(PurePosixPath(folder, top).as_posix(), top),)
    return ()


def included(paths: Iterable[str], project: Path) -> tuple[Source, ...]:
    """Files and folders that the user names; `path` keeps its place, `path=target` moves.

    Raises:
        InvalidDeployment: one does not exist, or is not in the project.
    """
    return tuple(_included(text, project) for text in paths)


def _included(text: str, project: Path) -> Source:
    path, _, target = text.partition("=")
    inside = _inside(path, project, "--include")
    if not (project / inside).exists():
        raise InvalidDeployment(f"--include {path}: there is no such file or folder in {project}")
    return Source(inside, PurePosixPath(target).as_posix() if target else inside)


def requirements_of(given: Sequence[str], project: Path) -> tuple[str, ...]:
    """Requirement files: those that are named, else the project's `requirements.txt`, if it has one.

    Raises:
        InvalidDeployment: one does not exist, or is not in the project.
    """
    if not given:
        return (REQUIREMENTS,) if (project / REQUIREMENTS).is_file() else ()
    inside = tuple(_inside(path, project, "--requirements") for path in given)
    for path in inside:
        if not (project / path).is_file():
            raise InvalidDeployment(f"--requirements {path}: there is no such file in {project}")
    return inside


def out_folder(out: str, project: Path) -> str:
    """Where files are rendered to, relative to the project.

    Raises:
        InvalidDeployment: it is outside: an image is built from the project's folder, and sees nothing else.
    """
    return _inside(out, project, "--out")


def _inside(path: str, project: Path, flag: str) -> str:
    absolute = Path(os.path.normpath(project / path))
    if not absolute.is_relative_to(project):
        raise InvalidDeployment(
            f"{flag} {path} is outside {project}", hint="start in the project's folder, and stay inside"
        )
    return absolute.relative_to(project).as_posix()


def write(files: Iterable[RenderedFile], project: Path) -> list[tuple[str, bool]]:
    """Write what is new or different.

    Returns:
        (path, whether it was written) of each file.
    """
    told: list[tuple[str, bool]] = []
    for file in files:
        path = project / file.path
        is_changed = not path.is_file() or path.read_text("utf-8") != file.text
        if is_changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, "utf-8")
        told.append((file.path, is_changed))
    return told
