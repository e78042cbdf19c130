"""The systems of the catalogue, one file each: recipes/<family>/<id with _ for ->.py."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from ludus.types import Explained

HERE = Path(__file__).parent


class UnknownRecipe(Explained, LookupError):
    """No recipe of that name; the message names the nearest ones."""


@dataclass(frozen=True)
class Entry:
    """A recipe file as `ludus list` shows it; reading it runs nothing."""

    id: str
    family: str
    file: Path
    title: str  # the first line of its docstring


def entries() -> Iterator[Entry]:
    """Every recipe file, in order of family and id."""
    for file in sorted(HERE.glob("*/*.py")):
        if file.stem != "__init__":
            doc = ast.get_docstring(ast.parse(file.read_text())) or ""
            yield Entry(file.stem.replace("_", "-"), file.parent.name, file, doc.split("\n")[0])


def load(name: str) -> ModuleType:
    """The module of a recipe, by id (agentgym-rl) or as a file of one's own (mine.py)."""
    if name.endswith(".py"):
        file = Path(name)
        if not file.exists():
            raise UnknownRecipe(f"there is no file {name}")
    else:
        known = {entry.id: entry.file for entry in entries()}
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(near)}? " if near else ""
            raise UnknownRecipe(f"no recipe is called {name!r}; {hint}`ludus list` shows them all")
        file = known[name]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses of the file look their module up
    spec.loader.exec_module(module)
    if not hasattr(module, "recipe"):
        raise UnknownRecipe(
            f"{name} defines no `recipe`; a recipe file has a line recipe = Recipe(...)"
        )
    return module
