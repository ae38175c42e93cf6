"""Catalog files decoded into definitions with the line of every field: Python, YAML and JSON.

This module knows the outer shape of a file (lists of features and plans) but not what a feature
or plan may hold.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import traceback
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import CodeType
from typing import Any, Iterator, Literal, NoReturn

import yaml

from .builders import Definition
from .fields import join

Kind = Literal["feature", "plan"]
FILE_BYTES_MAX = 4 << 20
_SECTIONS: dict[str, Kind] = {"features": "feature", "plans": "plan", "products": "plan"}
NODES_MAX = 100_000
DEPTH_MAX = 12
NUMBER_DIGITS_MAX = 30
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,29})(\.\d{1,30})?([eE][+-]?\d{1,2})?")


@dataclass(frozen=True)
class FileProblem:
    """One thing wrong in a catalog file."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class CatalogFileError(Exception):
    """A catalog file cannot be used; `problems` say where and why, the text has one a line."""

    def __init__(self, problems: list[FileProblem]):
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True)
class Source:
    """One feature or plan as written: its decoded fields and where each stands."""

    kind: Kind
    raw: Any
    file: str
    path: str
    """Its own path in the file, such as `plans.pro`."""
    lines: dict[str, int] = field(repr=False)
    """Line by path within it, `""` being its own; a field that is left out has its parent's."""

    def problem(self, path: str, message: str) -> FileProblem:
        """A problem of the field at `path` within this definition."""
        return FileProblem(self.file, self.line_of(path), join(self.path, path), message)

    def line_of(self, path: str) -> int:
        """The line of the field at `path`, or of the nearest thing around it."""
        while path not in self.lines and path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 0)


def read_sources(path: Path) -> list[Source]:
    """Every feature and plan the file defines, in its order. Raises CatalogFileError."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise CatalogFileError([FileProblem(str(path), 0, "", f"cannot be read: {problem.strerror}")]) from None
    if len(data) > FILE_BYTES_MAX:
        raise CatalogFileError([FileProblem(str(path), 0, "", f"is larger than {FILE_BYTES_MAX} bytes")])
    try:
        text = data.decode()
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise CatalogFileError([FileProblem(str(path), line, "", "is not UTF-8 text")]) from None
    match path.suffix.lower():
        case ".py":
            return _from_python(path, text)
        case ".yaml" | ".yml" | ".json":
            return _from_yaml(path, text)
    raise CatalogFileError([FileProblem(str(path), 0, "", "must end in .py, .yaml, .yml or .json")])


# --- Python


def _from_python(path: Path, text: str) -> list[Source]:
    try:
        namespace = _run(compile(text, str(path), "exec"), path)
    except SyntaxError as problem:
        raise CatalogFileError([FileProblem(problem.filename or str(path), problem.lineno or 0, "", f"is not Python: {problem.msg}")]) from None
    except (Exception, SystemExit) as problem:
        frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(path)]
        line = frames[-1].lineno or 0 if frames else 0
        raise CatalogFileError([FileProblem(str(path), line, "", f"{type(problem).__name__}: {problem}")]) from problem
    found: dict[int, Definition] = {}
    for name, value in namespace.items():
        if not name.startswith("__"):
            found.update((id(one), one) for one in _exported(value))
    if not found:
        raise CatalogFileError([FileProblem(str(path), 0, "", "exports no feature(...) and no product(...)")])
    in_order = sorted(found.values(), key=lambda one: one.kind != "feature")
    return [_definition_source(one, i) for i, one in enumerate(in_order)]


def _run(code: CodeType, path: Path) -> dict[str, Any]:
    """The names the file's code leaves behind. Its folder can be imported from, as if run; what it prints goes to
    stderr, for stdout is the command's own."""
    namespace: dict[str, Any] = {"__name__": "__catalog__", "__file__": str(path)}
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            exec(code, namespace)
    finally:
        sys.path.pop(0)
    return namespace


def _exported(value: Any) -> Iterator[Definition]:
    if isinstance(value, Definition):
        if value.kind != "item":
            yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _exported(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _exported(entry)


def _definition_source(one: Definition, index: int) -> Source:
    kind: Kind = "plan" if one.kind == "plan" else "feature"
    lines = {"": one.line}
    items = one.get("items")
    raw: dict[str, Any] = dict(one)
    if kind == "plan" and isinstance(items, list):
        raw["items"] = [dict(item) if isinstance(item, Definition) else item for item in items]
        for i, item in enumerate(items):
            if isinstance(item, Definition):
                lines[f"items[{i}]"] = item.line
    return Source(kind, raw, one.file, _own_path("plans" if kind == "plan" else "features", raw, index), lines)


# --- YAML and JSON


def _from_yaml(path: Path, text: str) -> list[Source]:
    is_json = path.suffix.lower() == ".json"
    reader = _Reader(str(path))
    decoded = _json(path, text) if is_json else None
    try:
        # JSON may be indented by tabs, which YAML refuses; none of JSON's texts holds a raw tab
        root = yaml.compose(text.replace("\t", " ") if is_json else text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        line = mark.line + 1 if mark else 0
        raise CatalogFileError([FileProblem(str(path), line, "", f"is not YAML: {problem.problem}")]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        raise CatalogFileError([FileProblem(str(path), 0, "", f"cannot be read: {problem}")]) from None
    if not isinstance(root, yaml.MappingNode):
        reader.fail(root, "", "must hold features: and plans:, each a list")
    found: list[Source] = []
    seen: list[str] = []
    for key, node in root.value:
        section = str(key.value)
        if section not in _SECTIONS:
            reader.fail(key, section, "is not known here; a catalog has features: and plans: (or products:)")
        if section in seen:
            reader.fail(key, section, "is given twice")
        seen.append(section)
        found += reader.section(section, node, decoded[section] if is_json else None)
    return sorted(found, key=lambda source: source.kind != "feature")


def _json(path: Path, text: str) -> Any:
    """The decoded JSON: YAML reads its positions, but some of its texts differently."""
    try:
        return json.loads(text, parse_float=_number, parse_int=_number, parse_constant=_number)
    except json.JSONDecodeError as problem:
        raise CatalogFileError([FileProblem(str(path), problem.lineno, "", f"is not JSON: {problem.msg}")]) from None
    except (RecursionError, ValueError) as problem:
        raise CatalogFileError([FileProblem(str(path), 0, "", f"is not JSON: {problem}")]) from None


class _Reader:
    """Walks the nodes of one file: values, and the line of each field."""

    def __init__(self, file: str):
        self.file = file
        self.nodes = 0

    def fail(self, node: yaml.Node | None, path: str, message: str) -> NoReturn:
        line = node.start_mark.line + 1 if node is not None else 0
        raise CatalogFileError([FileProblem(self.file, line, path, message)])

    def section(self, section: str, node: yaml.Node, decoded: Any) -> Iterator[Source]:
        """The definitions of one section: a list of objects, or a map of objects by id."""
        if isinstance(node, yaml.SequenceNode):
            entries: list[tuple[Any, yaml.Node]] = list(enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            entries = [(str(key.value), entry) for key, entry in node.value]
        elif isinstance(node, yaml.ScalarNode) and self._scalar(node, section) is None:
            entries = []
        else:
            self.fail(node, section, "must be a list")
        for i, (key, entry) in enumerate(entries):
            lines = {"": entry.start_mark.line + 1}
            owner = f"{section}.{key}" if key != i else _own_path(section, _scalars(entry), i)
            raw = self._value(entry, "", lines, owner)
            if decoded is not None:
                raw = decoded[key]
            if isinstance(raw, dict) and key != i:
                raw.setdefault("id", key)
            yield Source(_SECTIONS[section], raw, self.file, _own_path(section, raw, i), lines)

    def _value(self, node: yaml.Node, path: str, lines: dict[str, int], owner: str) -> Any:
        self.nodes += 1
        if self.nodes > NODES_MAX or path.count(".") + path.count("[") > DEPTH_MAX:
            self.fail(node, owner, "is too large, or refers to itself")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, join(owner, path))
        if isinstance(node, yaml.SequenceNode):
            values = []
            for i, entry in enumerate(node.value):
                at = f"{path}[{i}]"
                lines[at] = entry.start_mark.line + 1
                values.append(self._value(entry, at, lines, owner))
            return values
        fields: dict[str, Any] = {}
        for key, entry in node.value:
            name = str(key.value)
            at = join(path, name)
            if name in fields:
                self.fail(key, join(owner, at), "is given twice")
            lines[at] = key.start_mark.line + 1
            fields[name] = self._value(entry, at, lines, owner)
        return fields

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        text: str = node.value
        if node.style in ("'", '"', "|", ">"):
            return text
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int" | "float" if text.lower() in (".inf", "+.inf"):
                return "inf"
            case "int" | "float":
                try:
                    return _number(text.replace("_", "").removeprefix("+"))
                except ValueError as problem:
                    self.fail(node, path, f"{problem}; a text goes in quotes")
        return text


def _number(text: str) -> int | Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a plain decimal number of at most {NUMBER_DIGITS_MAX} digits")
    return int(text) if text.lstrip("-").isdigit() else Decimal(text)


def _scalars(node: yaml.Node) -> dict[str, str]:
    """The plain fields of a mapping, for its id before the rest is read."""
    fields = node.value if isinstance(node, yaml.MappingNode) else []
    return {str(key.value): entry.value for key, entry in fields if isinstance(entry, yaml.ScalarNode)}


def _own_path(section: str, raw: Any, index: int) -> str:
    own = raw.get("id") if isinstance(raw, dict) else None
    return f"{section}.{own}" if isinstance(own, str) and own else f"{section}[{index}]"
