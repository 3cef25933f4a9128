"""Parameters of classes and functions, read from their source without importing them.

Config is checked before torch is imported. Importing ``torch.optim.AdamW`` to learn its parameters would
cost seconds; parsing one file costs milliseconds.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Parameter:
    """One parameter: its annotation as source text, and whether a call must give it."""

    annotation: str | None
    required: bool


@dataclass(frozen=True)
class Signature:
    """Named parameters of a callable; ``open`` if it also takes any keyword."""

    parameters: dict[str, Parameter]
    open: bool


class TargetError(Exception):
    """A dotted path that leads nowhere; the message says which part, and what is there instead."""

    def __init__(self, message: str, candidates: list[str] | None = None, wanted: str = "") -> None:
        super().__init__(message)
        self.candidates = candidates or []
        self.wanted = wanted


def signature(target: str) -> Signature | None:
    """Returns the parameters of the class or function at a dotted path.

    Returns None where the source does not tell (compiled code, made at run time).

    Raises:
        TargetError: if there is no such module, or its source defines no such name.
    """
    module, _, name = target.rpartition(".")
    if not module:
        raise TargetError(f"'{target}' is not a dotted path to a class or function")
    try:
        found = _locate(module, name, set())
    except TargetError:
        if _is_class(module):  # a method, such as a constructor by another name
            return None
        raise
    if found is None:
        return None
    node, module = found
    return _of_class(node, module) if isinstance(node, ast.ClassDef) else _of_function(node, skip_self=False)


def _is_class(target: str) -> bool:
    module, _, name = target.rpartition(".")
    try:
        return bool(module) and _locate(module, name, set()) is not None
    except TargetError:
        return False


@lru_cache
def _module_path(module: str) -> Path | None:
    """The source file of a module; None if it has none. Imports nothing.

    Raises:
        TargetError: if there is no such module.
    """
    top, *rest = module.split(".")
    loaded = sys.modules.get(top)
    try:
        spec = importlib.util.find_spec(top) if loaded is None else loaded.__spec__
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise TargetError(f"there is no module '{top}'")
    folders = [Path(entry) for entry in spec.submodule_search_locations or []]
    path = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for depth, part in enumerate(rest, start=2):
        for folder in folders:
            if (folder / part / "__init__.py").exists():
                path, folders = folder / part / "__init__.py", [folder / part]
                break
            if (folder / f"{part}.py").exists():
                path, folders = folder / f"{part}.py", []
                break
            if (folder / part).is_dir():
                path, folders = None, [folder / part]
                break
            if list(folder.glob(f"{part}.*.so")) or list(folder.glob(f"{part}.*.pyd")):
                return None
        else:
            parent = ".".join([top, *rest][: depth - 1])
            names = [
                p.stem for folder in folders for p in folder.iterdir() if p.suffix == ".py" or p.is_dir()
            ]
            raise TargetError(f"there is no module '{part}' in '{parent}'", names, part)
    return path


@lru_cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _locate(module: str, name: str, seen: set[tuple[str, str]]) -> tuple[Definition, str] | None:
    """Finds the definition of a name, following the imports of its module."""
    if (module, name) in seen:
        return None
    seen.add((module, name))
    path = _module_path(module)
    if path is None:
        return None
    is_package = path.name == "__init__.py"
    names: list[str] = []
    unknown_names = False
    for node in _statements(_tree(path).body):
        if isinstance(node, Definition):
            names.append(node.name)
            if node.name == name:
                return node, module
            unknown_names |= node.name == "__getattr__"
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, module, is_package)
            for alias in node.names:
                if alias.name == "*":
                    try:
                        found = _locate(source, name, seen)
                    except TargetError:
                        continue
                    if found is not None:
                        return found
                    unknown_names = True
                    continue
                names.append(alias.asname or alias.name)
                if (alias.asname or alias.name) == name:
                    return _locate(source, alias.name, seen)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            assigned = [target.id for target in targets if isinstance(target, ast.Name)]
            names += assigned
            if name in assigned:
                return None  # an alias or a made callable: the source does not tell
        elif isinstance(node, ast.For | ast.While):
            unknown_names = True
    if unknown_names:
        return None
    raise TargetError(f"'{module}' has no '{name}'", names, name)


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Top-level statements, those under if and try included."""
    found = []
    for node in body:
        found.append(node)
        for block in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try):
                found += _statements(getattr(node, block, []))
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                found += _statements(handler.body)
    return found


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*base, *([node.module] if node.module else [])])


def _of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, skip_self: bool) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [False] * (len(positional) - len(arguments.defaults)) + [True] * len(arguments.defaults)
    parameters = {
        argument.arg: Parameter(_text(argument.annotation), not has_default)
        for argument, has_default in list(zip(positional, defaults, strict=True))[1 if skip_self else 0 :]
    }
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters[argument.arg] = Parameter(_text(argument.annotation), default is None)
    return Signature(parameters, arguments.kwarg is not None)


def _of_class(node: ast.ClassDef, module: str) -> Signature | None:
    decorators = {_text(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}
    inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    bases: list[Signature | None] = []
    for base in node.bases:
        text = _text(base) or ""
        text = text.split("[")[0]
        if text in {"object", "Generic", "Protocol", "ABC"}:
            continue
        try:
            found = _locate(module, text, set()) if "." not in text else None
        except TargetError:
            found = None
        if found is not None and isinstance(found[0], ast.ClassDef):
            bases.append(_of_class(found[0], found[1]))
        else:
            bases.append(None)
    if inits:  # the last one: typing overloads come first
        own = _of_function(inits[-1], skip_self=True)
        if not own.open:
            return own
        # **kwargs most often go on to the base class
        parents = [parent for parent in bases if parent is not None]
        if len(parents) != 1 or len(bases) != 1 or parents[0].open:
            return own
        inherited = {name: replace(p, required=False) for name, p in parents[0].parameters.items()}
        return Signature({**inherited, **own.parameters}, False)  # the subclass may give some itself
    if decorators & {"dataclass", "dataclasses.dataclass"}:
        fields = [
            item
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        ]
        own_fields = {f.target.id: Parameter(_text(f.annotation), f.value is None) for f in fields}  # type: ignore[union-attr]
        of_base = bases[0].parameters if bases and bases[0] is not None else {}
        return Signature({**of_base, **own_fields}, False)
    if not bases:
        return Signature({}, False)
    return bases[0]


def _text(node: ast.expr | None) -> str | None:
    return None if node is None else ast.unparse(node)
