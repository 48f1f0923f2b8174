"""A rendered file, and data structures as text: the same settings always give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """Where it belongs, relative to the project, and what is in it."""

    path: str
    text: str
    is_manifest: bool = False
    """What the mechanism's own tool is fed with; shown alone when nothing is written to disk."""


class _Dumper(yaml.SafeDumper):
    """Lists are indented under their key, and no anchors: files that people read and edit."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def yaml_text(*documents: Mapping[str, Any], comment: str = "") -> str:
    """One or more documents, keys in the order given, below a comment."""
    bodies = [
        yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110)
        for document in documents
    ]
    return _comment(comment) + "---\n".join(bodies)


def json_text(document: Mapping[str, Any]) -> str:
    """Readable JSON; the format has no comments."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def toml_text(tables: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]], comment: str = "") -> str:
    """TOML of one level: `""` is the top, a mapping a table, a list an array of tables. Values are JSON's, which TOML has
    in the same spelling: text, numbers, booleans, flat lists."""
    lines: list[str] = []
    for name, content in tables.items():
        for table in [content] if isinstance(content, Mapping) else content:
            header = [] if not name else [f"[{name}]" if isinstance(content, Mapping) else f"[[{name}]]"]
            lines += [*([""] if lines else []), *header]
            lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    return _comment(comment) + "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())
