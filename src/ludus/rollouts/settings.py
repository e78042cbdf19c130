"""The samplings that a strategy holds, in itself and in what it wraps: what an engine must honour, told at once."""

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
