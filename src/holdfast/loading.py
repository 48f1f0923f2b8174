"""`module:attribute` -> the object it names, or one clear line about what is wrong with it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from holdfast.errors import DeploymentError, InvalidApp


def load_app(reference: str) -> Callable[..., Any]:
    """Import what `reference` names. The current directory is looked in first.

    Args:
        reference: `package.module:attribute`, where the attribute is what `restate.app([...])` returned, or a restate
            service, virtual object or workflow, or a list of these.
    Raises:
        InvalidApp: there is no such module or attribute, or it is something else.
        DeploymentError: the module exists and fails while it is imported.
    """
    return _as_app(load_reference(reference), reference)


def load_reference(reference: str) -> Any:
    """The object that `package.module:attribute` names, whatever it is. The current directory is looked in first.

    Raises: as `load_app`, but for the kind of the object.
    """
    module_name, colon, attribute = reference.partition(":")
    if not colon or not module_name or not attribute:
        hint = f"write module:attribute, e.g. {_dotted(module_name) or 'myapp'}:app"
        raise InvalidApp(f"{reference!r} does not name an application", hint=hint)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    return _attribute(_import(module_name, attribute), attribute)


def services_of(app: Any) -> list[Any]:
    """The services that `restate.app([...])` was given; none if `app` is another ASGI application, or wraps one."""
    try:
        endpoint = inspect.getclosurevars(app).nonlocals.get("endpoint")
    except TypeError:  # no function
        return []
    return list(getattr(endpoint, "services", {}).values())


def _import(name: str, attribute: str) -> ModuleType:
    if name.endswith(".py") or "/" in name:
        raise InvalidApp(f"no module {name!r}", hint=f"name a module, not a file: {_dotted(name)}:{attribute}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _no_module(name, error.name, attribute) from error
        hint = f"install {str(error.name).partition('.')[0]} for {sys.executable}"
        raise _import_failed(name, error, hint) from error
    except (Exception, SystemExit) as error:
        hint = f"to see the whole traceback: python -c 'import {name}'"
        if "asyncio.run() cannot be called" in str(error):  # a script that names itself as a definition
            hint = "what starts the program goes under: if __name__ == '__main__':"
        raise _import_failed(name, error, hint) from error


def _dotted(file_name: str) -> str:
    return file_name.removesuffix(".py").strip("./").replace("/", ".")


def _no_module(name: str, missing: str, attribute: str) -> InvalidApp:
    """`missing` is the first part of `name` that does not exist."""
    parent, _, last = missing.rpartition(".")
    paths = list(sys.modules[parent].__path__) if parent else [str(Path.cwd())]
    close = difflib.get_close_matches(last, [module.name for module in pkgutil.iter_modules(paths)], n=1)
    if close:
        meant = name.replace(missing, f"{parent}.{close[0]}" if parent else close[0], 1)
        return InvalidApp(f"no module {missing!r}", hint=f"did you mean {meant}:{attribute}?")
    top = name.partition(".")[0]
    return InvalidApp(f"no module {missing!r}", hint=f"start in the directory that holds {top}; this is {Path.cwd()}")


def _import_failed(name: str, error: BaseException, hint: str) -> DeploymentError:
    if isinstance(error, SystemExit):
        what = f"it ends the process, sys.exit({error.code!r})"
    else:
        what = traceback.format_exception_only(error)[-1].strip()
    return DeploymentError(f"importing {name} failed: {what} ({_where(error)})", hint=hint)


def _where(error: BaseException) -> str:
    """`file:line` of the innermost frame that is the user's, not a library's or the import system's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    libraries = tuple(str(Path(path)) for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    ours = str(Path(__file__))
    standard = str(Path(importlib.__file__).parent.parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != ours]
    users = [
        frame
        for frame in frames
        if not frame.filename.startswith(("<frozen", *libraries)) and not frame.filename.startswith(standard)
    ]
    frame = (users or frames)[-1]
    return f"{_short(frame.filename)}:{frame.lineno}"


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _attribute(module: ModuleType, dotted: str) -> Any:
    found: Any = module
    for name in dotted.split("."):
        if not hasattr(found, name):
            raise _no_attribute(module, found, name)
        found = getattr(found, name)
    return found


def _no_attribute(module: ModuleType, holder: Any, name: str) -> InvalidApp:
    candidates = [known for known, value in vars(module).items() if _kind(value) is not None]
    close = difflib.get_close_matches(name, candidates or dir(holder), n=1)
    if close or len(candidates) == 1:
        hint = f"did you mean {module.__name__}:{(close or candidates)[0]}?"
    elif candidates:
        hint = f"it has {', '.join(sorted(candidates))}"
    else:
        hint = f"make one in {module.__name__}: app = restate.app([my_service])"
    return InvalidApp(f"module {module.__name__!r} has no {name!r}", hint=hint)


def _as_app(found: Any, reference: str) -> Callable[..., Any]:
    import restate

    match _kind(found):
        case "app":
            return found
        case "service":
            return cast("Callable[..., Any]", restate.app([found]))
        case "services":
            try:
                return cast("Callable[..., Any]", restate.app(found))
            except ValueError as error:  # two of one name
                raise InvalidApp(f"{reference}: {error}", hint="give each service a name of its own") from error
        case _:
            hint = "name what restate.app([...]) returned, or a restate Service, VirtualObject or Workflow"
            raise InvalidApp(f"{reference} is no application but {described(found)}", hint=hint)


def _kind(value: Any) -> str | None:
    import restate

    kinds = (restate.Service, restate.VirtualObject, restate.Workflow)
    if isinstance(value, kinds):
        return "service"
    if (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(item, kinds) for item in cast(Iterable[Any], value))
    ):
        return "services"
    return "app" if is_asgi(value) else None


def is_asgi(value: Any) -> bool:
    """Whether it can be awaited as `value(scope, receive, send)`."""
    if inspect.isclass(value) or not callable(value):
        return False
    function = value if inspect.isroutine(value) else value.__call__
    if not inspect.iscoroutinefunction(function):
        return False
    try:
        inspect.signature(function).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return True


def described(value: Any) -> str:
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    return f"an object of type {type(value).__name__}"
