"""Settings of the workflow layer from all their sources: flags, then environment, then `holdfast.toml`, then defaults.

    configuration = Configuration.load(flags={"workflow.restate.endpoint": "http://localhost:8080"})
    configuration.check()                     # raises with every problem at once
    configuration.section("restate")          # typed values

Every value knows where it comes from. The file is the first of: `--config`, `$HOLDFAST_CONFIG`, `holdfast.toml` in the
current directory, in the user's and in the system's configuration directory.
"""

from __future__ import annotations

import fnmatch
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from holdfast.providers import registry
from holdfast.providers.errors import InvalidConfiguration, ProviderConflict
from holdfast.providers.settings import (
    DEFAULT_PROVIDER,
    MASK,
    ROUTING,
    Setting,
    check_together,
    setting_text,
)

FILE_NAME = "holdfast.toml"
FILE_VARIABLE = "HOLDFAST_CONFIG"
VARIABLE_PREFIX = "HOLDFAST_WORKFLOW_"
DEFAULT = "default"

_PATTERN = re.compile(r"[a-z0-9*?\[\]!-]{1,128}")


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, and where."""

    raw: Any
    origin: str
    """`flag`, `variable HOLDFAST_WORKFLOW_…`, `file …` or `default`."""


@dataclass(frozen=True, slots=True)
class Route:
    """Workflows whose id matches go to this provider."""

    pattern: str
    provider: str

    def matches(self, workflow_id: str) -> bool:
        """Whether the route is this workflow's."""
        return fnmatch.fnmatchcase(workflow_id, self.pattern)


class Configuration:
    """All settings, read but not necessarily right: `problems` tells, `check` insists."""

    def __init__(self, given: Mapping[str, Given], problems: Iterable[str] = ()) -> None:
        self._given = dict(given)
        self._source_problems = list(problems)

    # ---- sources ---------------------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        file: str | os.PathLike[str] | None = None,
        flag_origin: str = "flag",
    ) -> Configuration:
        """Read every source. Nothing is raised for wrong values: ask `problems` or `check`.

        Args:
            flags: Key -> value, the strongest source.
            environ: None means that of the process.
            file: The file to read; None looks in the usual places.
        Raises:
            InvalidConfiguration: `file`, or `$HOLDFAST_CONFIG`, does not exist or is no TOML.
        """
        variables = os.environ if environ is None else environ
        given = _from_file(_file(file, variables))
        more, problems = _from_environment(variables)
        given = _over(more, given)
        return cls(_over({key: Given(value, flag_origin) for key, value in (flags or {}).items()}, given), problems)

    def with_flags(self, flags: Mapping[str, Any], origin: str = "flag") -> Configuration:
        """A copy in which these values win."""
        more = {key: Given(value, origin) for key, value in flags.items()}
        return Configuration(_over(more, self._given), self._source_problems)

    # ---- values ----------------------------------------------------------------------------------------------------------

    @property
    def default_provider(self) -> str:
        """Where workflows go that no route names."""
        given = self._given.get(DEFAULT_PROVIDER)
        return str(given.raw) if given is not None and given.raw else "embedded"

    @property
    def routes(self) -> tuple[Route, ...]:
        """The first that matches counts: flags, then the variable, then the file, each in the order it is written."""
        prefix = f"{ROUTING}."
        return tuple(
            Route(key.removeprefix(prefix), str(given.raw))
            for key, given in self._given.items()
            if key.startswith(prefix)
        )

    def provider_for(self, workflow_id: str) -> str:
        """The provider of a workflow, by route or by default."""
        found = next((route.provider for route in self.routes if route.matches(workflow_id)), None)
        return found or self.default_provider

    def section(self, provider: str) -> dict[str, Any]:
        """Typed settings of a provider, defaults included.

        Raises:
            InvalidConfiguration: every problem in them.
        """
        values, problems = self._section(provider, is_used=True)
        if problems:
            raise InvalidConfiguration(problems)
        return values

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each, with the key, what is allowed, and where it was written."""
        found = [*self._source_problems, *self._unknown_keys()]
        names = registry.names()
        if self.default_provider not in names:
            found.append(self._problem(DEFAULT_PROVIDER, _unknown(self.default_provider, names)))
        for route in self.routes:
            key = f"{ROUTING}.{route.pattern}"
            if not _PATTERN.fullmatch(route.pattern):
                found.append(self._problem(key, "is no pattern of workflow ids; e.g. discovery-*"))
            if route.provider not in names:
                found.append(self._problem(key, _unknown(route.provider, names)))
        for provider in names:
            try:
                found += self._section(provider, is_used=self.is_used(provider))[1]
            except ProviderConflict as error:  # of a third party, and broken: no reason to hide the rest
                found.append(error.message)
        return found

    def check(self) -> None:
        """
        Raises:
            InvalidConfiguration: there are problems; all of them.
        """
        if found := self.problems():
            raise InvalidConfiguration(found)

    def is_used(self, provider: str) -> bool:
        """Whether anything names the provider: then its required settings are required."""
        is_routed = provider in (self.default_provider, *(route.provider for route in self.routes))
        return is_routed or any(key.startswith(f"workflow.{provider}.") for key in self._given)

    def show(self, *, origins: bool = False) -> dict[str, Any]:
        """All settings as a JSON document, secrets masked.

        Args:
            origins: Give `{"value": …, "origin": …}` for each value.
        """

        def shown(value: Any, key: str) -> Any:
            return {"value": value, "origin": self.origin(key)} if origins else value

        sections: dict[str, Any] = {
            "default_provider": shown(self.default_provider, DEFAULT_PROVIDER),
            "routing": {route.pattern: shown(route.provider, f"{ROUTING}.{route.pattern}") for route in self.routes},
        }
        for provider in registry.names():
            values: dict[str, Any] = {}
            for setting in _settings(provider):
                key = f"workflow.{provider}.{setting.name}"
                given = self._given.get(key)
                value: Any = setting.default if given is None else given.raw
                values[setting.name] = shown(MASK if setting.is_secret and value else setting_text(value), key)
            sections[provider] = values
        return {"workflow": sections}

    def origin(self, key: str) -> str:
        """Where a value comes from."""
        given = self._given.get(key)
        return given.origin if given is not None else DEFAULT

    # ---- parts -----------------------------------------------------------------------------------------------------------

    def _section(self, provider: str, *, is_used: bool) -> tuple[dict[str, Any], list[str]]:
        values: dict[str, Any] = {}
        problems: list[str] = []
        for setting in registry.settings(provider):
            key = f"workflow.{provider}.{setting.name}"
            values[setting.name], problem = self._value(key, setting, is_used=is_used)
            if problem:
                problems.append(problem)
        if not problems:
            for line in check_together(provider, values):
                name, _, reason = line.partition(": ")
                problems.append(self._problem(f"workflow.{provider}.{name}", reason))
        return values, problems

    def _value(self, key: str, setting: Setting, *, is_used: bool) -> tuple[Any, str | None]:
        given = self._given.get(key)
        if given is None or given.raw is None or given.raw == "":  # an empty value says: as if it were not there
            if setting.is_required and is_used:
                return None, self._problem(key, f"{setting.name} is required, e.g. http://localhost:8080")
            return setting.default, None
        try:
            return setting.parse(given.raw), None
        except (TypeError, ValueError) as error:
            reason = f"is not of the right form: {setting.form}" if setting.is_secret else str(error)
            return setting.default, self._problem(key, reason)

    def _problem(self, key: str, reason: str) -> str:
        origin = self.origin(key)
        return f"{key}: {reason}" + ("" if origin == DEFAULT else f" (from {origin})")

    def _unknown_keys(self) -> list[str]:
        known = set(_known_keys())
        names = registry.names()
        found: list[str] = []
        for key in self._given:
            if key in known or key.startswith(f"{ROUTING}."):
                continue
            section, _, name = key.removeprefix("workflow.").partition(".")
            if not key.startswith("workflow."):
                found.append(self._problem(key, "is unknown: every setting is under workflow, e.g. [workflow.restate]"))
            elif section in names and name:
                allowed = [setting.name for setting in _settings(section)]
                found.append(self._problem(key, f"is no setting; allowed: {', '.join(allowed)}"))
            elif section in (*names, "routing"):
                found.append(self._problem(key, f"is a section, and has no value of its own: [{key}]"))
            else:
                allowed = ["default_provider", "routing", *names]
                found.append(self._problem(key, f"is no section of workflow; allowed: {', '.join(allowed)}"))
        return found


def variable_for(key: str) -> str:
    """`workflow.restate.api_key` -> `HOLDFAST_WORKFLOW_RESTATE_API_KEY`."""
    return "HOLDFAST_" + re.sub(r"[^A-Z0-9]", "_", key.upper())


def _over(stronger: Mapping[str, Given], weaker: Mapping[str, Given]) -> dict[str, Given]:
    """Both; the stronger source wins and comes first: of routes the first that matches counts."""
    return {**stronger, **{key: value for key, value in weaker.items() if key not in stronger}}


def _known_keys() -> list[str]:
    keys = [f"workflow.{name}.{setting.name}" for name in registry.names() for setting in _settings(name)]
    return [DEFAULT_PROVIDER, *keys]


def _settings(provider: str) -> tuple[Setting, ...]:
    try:
        return registry.settings(provider)
    except ProviderConflict:  # told by `problems`
        return ()


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"{name!r} is no provider; known: {', '.join(known)}"


def _from_environment(variables: Mapping[str, str]) -> tuple[dict[str, Given], list[str]]:
    known = {variable_for(key): key for key in _known_keys()}
    routing = variable_for(ROUTING)
    given: dict[str, Given] = {}
    problems: list[str] = []
    for variable in sorted(variables):
        if not variable.startswith(VARIABLE_PREFIX):
            continue
        origin = f"variable {variable}"
        if variable in known:
            given[known[variable]] = Given(variables[variable], origin)
        elif variable == routing:
            for rule in filter(None, map(str.strip, variables[variable].split(","))):
                pattern, _, provider = rule.partition("=")
                given[f"{ROUTING}.{pattern}"] = Given(provider, origin)
        else:
            problems.append(f"{variable}: is no setting; allowed: {', '.join(sorted([*known, routing]))}")
    return given, problems


def _file(file: str | os.PathLike[str] | None, variables: Mapping[str, str]) -> Path | None:
    named = file or variables.get(FILE_VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise InvalidConfiguration([f"{path}: there is no such configuration file"])
        return path
    user = Path(variables.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = (Path(FILE_NAME), user / "holdfast" / FILE_NAME, Path("/etc/holdfast") / FILE_NAME)
    return next((path for path in places if path.is_file()), None)


def _from_file(path: Path | None) -> dict[str, Given]:
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfiguration([f"{path}: cannot be read as TOML: {error}"]) from error
    workflow: Any = document.get("workflow", {})
    if not isinstance(workflow, dict):
        raise InvalidConfiguration([f"{path}: workflow must be a table: [workflow.restate] …"])
    origin = f"file {path}"
    given = {name: Given(value, origin) for name, value in document.items() if name != "workflow"}  # told as unknown
    for name, value in cast("dict[str, Any]", workflow).items():
        if isinstance(value, dict):
            for inner, item in cast("dict[str, Any]", value).items():
                given[f"workflow.{name}.{inner}"] = Given(item, origin)
        else:
            given[f"workflow.{name}"] = Given(value, origin)
    return given
