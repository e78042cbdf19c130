"""Environments by name, as the command line has them: a file of one's own (`mine.py:World`), or one of the package.

The worlds of the package are found by reading its files, without running them: a class with `tasks`, `reset` and
`step`, and a function that says it returns one.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ludus.types import Env, Explained

HERE = Path(__file__).parent
METHODS = {"tasks", "reset", "step"}
WRAPPERS = {
    "guard",
    "world",
    "named",
    "conformance",
    "processes",
    "service",
}  # files and folders without worlds


class UnknownEnv(Explained, LookupError):
    """No environment of that name, or none that can be made so; the message says what there is."""


@dataclass(frozen=True)
class Entry:
    """A world of the package.

    name    `file:NAME`, with the folders of the file only where another file has its name
    module  of Python
    wants   arguments that must be given with --set
    """

    name: str
    module: str
    title: str
    wants: tuple[str, ...]

    @property
    def folder(self) -> str:
        """That its file lies in, below envs; none for the worlds that are one file."""
        return self.module.removeprefix("ludus.envs.").rpartition(".")[0]


@cache
def entries() -> tuple[Entry, ...]:
    """Every world of the package, in order of its file."""
    trees = {
        ".".join(file.relative_to(HERE).with_suffix("").parts): ast.parse(file.read_text())
        for file in sorted(HERE.rglob("*.py"))
        if not WRAPPERS & set(file.relative_to(HERE).with_suffix("").parts)
        if file.stem != "__init__"
    }
    classes = {
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and _is_world(node)
    }
    worlds = {
        module: [
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
            if _is_world(node) or _extends(node, classes) or _makes(node, classes)
        ]
        for module, tree in trees.items()
    }
    stems = Counter(_stem(module) for module, nodes in worlds.items() if nodes)
    return tuple(
        Entry(
            f"{_stem(module) if stems[_stem(module)] == 1 else module}:{node.name}",
            f"ludus.envs.{module}",
            _title(node, trees[module]),
            _wants(node),
        )
        for module, nodes in worlds.items()
        for node in nodes
    )


def _stem(module: str) -> str:
    return module.rpartition(".")[2]


def load(name: str, changes: Sequence[str] = ()) -> Env:
    """The environment that `name` says, made with the arguments of `changes`, each FIELD=VALUE."""
    where, _, what = name.rpartition(":") if ":" in name else (name, "", "")
    module = _module(where, name)
    if not what:
        there = _of(module)
        if len(there) != 1:
            raise UnknownEnv(
                f"{where} has {_listed(there)}; name one, for example {where}:{next(iter(there), 'NAME')}"
            )
        what = next(iter(there))
    made: Any = getattr(module, what, None)
    if made is None:
        raise UnknownEnv(f"{where} has no {what!r}; it has {_listed(_of(module))}")
    given = dict(_argument(change) for change in changes)
    if isinstance(made, type) or not isinstance(made, Env):
        made = _called(made, name, given)
    elif given:
        raise UnknownEnv(f"{name} is made already, so --set cannot change it; name its class")
    if not isinstance(made, Env) or isinstance(made, type):
        lacks = [
            method for method in ("name", "tasks", "reset", "step") if not hasattr(made, method)
        ]
        raise UnknownEnv(
            f"{name} is a {type(made).__name__} without {', '.join(lacks)}; "
            "an environment has name, tasks, reset and step (docs/own-environment.md)"
        )
    return made


def _called(make: Any, name: str, given: Mapping[str, Any]) -> Any:
    if not callable(make):
        raise UnknownEnv(
            f"{name} is a {type(make).__name__}, neither an environment nor a class of one"
        )
    try:
        bound = inspect.signature(make).bind(**given)
    except TypeError as error:
        raise UnknownEnv(
            f"{name}{inspect.signature(make)}: {error}; give simple arguments with --set FIELD=VALUE, "
            "or write a file of your own that makes it and name that: mine.py:NAME"
        ) from error
    return make(*bound.args, **bound.kwargs)


def _argument(change: str) -> tuple[str, Any]:
    field, equals, text = change.partition("=")
    if not equals:
        raise UnknownEnv(f"--set {change}: give FIELD=VALUE")
    try:
        return field, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return field, text


def _module(where: str, name: str) -> ModuleType:
    if where.endswith(".py"):
        file = Path(where)
        if not file.exists():
            raise UnknownEnv(f"there is no file {where}")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module  # dataclasses of the file look their module up
        sys.path.insert(
            0, str(file.parent.resolve())
        )  # its neighbours are imported like by `python FILE`
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.pop(0)
        return module
    known = {entry.name.partition(":")[0]: entry.module for entry in entries()}
    if where not in known:
        names = [entry.name for entry in entries()]
        near = get_close_matches(where, known, n=3, cutoff=0.4) or get_close_matches(name, names)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UnknownEnv(
            f"no environment is called {name!r}; {hint}`ludus env list` shows them all, "
            "and a file of your own is named FILE.py:NAME"
        )
    return importlib.import_module(known[where])


def _of(module: ModuleType) -> list[str]:
    """The environments, and classes of them, that a module makes itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        if all(hasattr(value, method) for method in METHODS)
        if not isinstance(value, type) or value.__module__ == module.__name__
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no environment"


# ---------------------------------------------------------------------------------------------- reading files


def _is_world(node: ast.AST) -> bool:
    if not isinstance(node, ast.ClassDef) or any("Protocol" in ast.unparse(b) for b in node.bases):
        return False
    methods = {f.name for f in node.body if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}
    return methods >= METHODS


def _extends(node: ast.AST, classes: set[str]) -> bool:
    return isinstance(node, ast.ClassDef) and any(ast.unparse(b) in classes for b in node.bases)


def _makes(node: ast.AST, classes: set[str]) -> bool:
    returned = node.returns if isinstance(node, ast.FunctionDef) else None
    return returned is not None and ast.unparse(returned).strip("'\"").split(".")[-1] in classes


def _title(node: ast.ClassDef | ast.FunctionDef, tree: ast.Module) -> str:
    of_file, own = ast.get_docstring(tree) or "", ast.get_docstring(node) or ""
    told = own or of_file if isinstance(node, ast.FunctionDef) else of_file or own
    return told.split("\n")[0]


def _wants(node: ast.ClassDef | ast.FunctionDef) -> tuple[str, ...]:
    """The arguments without a default: of a function, of `__init__`, or the fields of a dataclass."""
    if isinstance(node, ast.FunctionDef):
        return _required(node.args)
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return _required(inner.args)[1:]
    return tuple(_fields(node))


def _required(arguments: ast.arguments) -> tuple[str, ...]:
    plain = [*arguments.posonlyargs, *arguments.args]
    plain = plain[: len(plain) - len(arguments.defaults)]
    keyed = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return tuple(a.arg for a in (*plain, *(a for a, default in keyed if default is None)))


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for inner in node.body:
        match inner:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=None):
                if "ClassVar" not in ast.unparse(kind):
                    yield name
