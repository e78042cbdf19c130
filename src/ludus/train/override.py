"""`--set field=value` on the command line: a change to a frozen recipe, checked against its types."""

from __future__ import annotations

import ast
import dataclasses
import re
from difflib import get_close_matches
from typing import Any, TypeVar

from ludus.types import Explained

T = TypeVar("T")
PLAIN = ("Any", "Literal", "Sequence", "Mapping")  # annotations that a literal may satisfy


class OverrideError(Explained, ValueError):
    """A field that is not there, or a value that does not fit."""


def override(value: T, change: str) -> T:
    """`value` with one field changed, for instance "optim.lr=3e-4" or "horizon.limits=[5, 10]".

    The new value is a Python literal (a bare word is text) of the kind that stands there now.
    Errors: OverrideError naming the fields there are, or the kind that is wanted.
    """
    path, equals, text = change.partition("=")
    if not equals:
        raise OverrideError(f"--set {change}: give field=value, for instance --set optim.lr=3e-4")
    return _replaced(value, path.strip().split("."), text.strip(), path.strip())


def _replaced(value: Any, path: list[str], text: str, whole: str) -> Any:
    name, *rest = path
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        kind = type(value).__name__
        raise OverrideError(
            f"--set {whole}: {kind} has no fields to set; change it in a recipe file"
        )
    names = [f.name for f in dataclasses.fields(value) if f.init]
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise OverrideError(
            f"--set {whole}: {type(value).__name__} has no field {name!r}; {hint}it has {', '.join(names)}"
        )
    now = getattr(value, name)
    kind = next(str(f.type) for f in dataclasses.fields(value) if f.name == name)
    new = _replaced(now, rest, text, whole) if rest else _parsed(now, kind, text, whole)
    try:
        return dataclasses.replace(value, **{name: new})
    except ValueError as error:  # the piece itself refuses
        raise OverrideError(f"--set {whole}={text}: {error}") from error


def _parsed(now: Any, kind: str, text: str, whole: str) -> Any:
    """The new value of a field that is `now`; `kind` is its annotation, which says whether None may stand there."""
    try:
        new = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        new = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if isinstance(now, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(now, tuple) and isinstance(new, list):
        return tuple(new)
    words = set(re.findall(r"\w+", kind))
    if type(new) is type(now):
        return new
    if new is None and words & {"None", "Optional", "Any"}:
        return new
    if now is None and words & {*PLAIN, type(new).__name__}:
        return new
    if now is None:
        raise OverrideError(
            f"--set {whole}={text}: {whole} is a piece ({kind}), now none; change it in a recipe file"
        )
    if isinstance(now, str | int | float | bool | tuple):
        raise OverrideError(
            f"--set {whole}={text}: that is {type(new).__name__}, and {whole} is {type(now).__name__} (now {now!r})"
        )
    raise OverrideError(
        f"--set {whole}={text}: {whole} is a piece ({type(now).__name__}), not a number; set one of its fields, "
        "or change it in a recipe file"
    )
