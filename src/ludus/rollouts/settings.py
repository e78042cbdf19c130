"""The samplings that a strategy holds, in itself and in what it wraps: all of them told, or changed at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from ludus.types import Sampling


def samplings(value: Any) -> Iterator[Sampling]:
    """Every Sampling in a dataclass, a partial, a mapping or a sequence of such, however deep."""
    if isinstance(value, Sampling):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from samplings(getattr(value, field.name))
    elif isinstance(value, functools.partial):
        yield from samplings((value.args, value.keywords))
    elif isinstance(value, Mapping):
        yield from samplings(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from samplings(each)


def at_temperature(piece: Any, temperature: float) -> Any:
    """A strategy with every Sampling in it, and in what it wraps, at this temperature."""

    def inside(value: Any) -> Any:
        return at_temperature(value, temperature)

    if isinstance(piece, Sampling):
        return dataclasses.replace(piece, temperature=temperature)
    if dataclasses.is_dataclass(piece) and not isinstance(piece, type):
        now = {f.name: getattr(piece, f.name) for f in dataclasses.fields(piece) if f.init}
        new = {name: made for name, old in now.items() if (made := inside(old)) is not old}
        return dataclasses.replace(piece, **new) if new else piece
    if isinstance(piece, functools.partial):
        args, keywords = inside(piece.args), inside(piece.keywords)
        same = args is piece.args and keywords is piece.keywords
        return piece if same else functools.partial(piece.func, *args, **keywords)
    if isinstance(piece, list | tuple):
        made = [inside(each) for each in piece]
        return piece if all(a is b for a, b in zip(made, piece, strict=True)) else type(piece)(made)
    if isinstance(piece, Mapping):
        held = {name: inside(each) for name, each in piece.items()}
        return piece if all(held[name] is piece[name] for name in piece) else held
    return piece
