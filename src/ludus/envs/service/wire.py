"""How tasks and steps are written between a server and its clients: JSON, and nothing that runs when it is read.

What JSON has no word for is an object with one key that begins with `$`, so that a tuple comes back as a tuple (an
anchor must be hashable) and a picture as its bytes. A state is never written: it stays where its environment is.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ludus.types import End, Image, Message, Step, Task


def encode(value: Any) -> Any:
    """`value` as what `json` can write; what is neither JSON's kind nor a tuple, set, bytes or picture, as its repr."""
    if type(value) is str or value is None:  # by far the most, and a match looks at cases in turn
        return value
    match value:
        case np.generic():
            return encode(value.item())
        case float() if not math.isfinite(value):
            return {"$float": repr(float(value))}
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [encode(item) for item in value]
        case tuple():
            return {"$tuple": [encode(item) for item in value]}
        case frozenset() | set():
            return {"$set": [encode(item) for item in sorted(value, key=repr)]}
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case Image():
            return {"$image": base64.b64encode(value.data).decode()}
        case Mapping():
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: encode(item) for key, item in value.items()}
            return {"$map": [[encode(key), encode(item)] for key, item in value.items()]}
    return repr(value)


def decode(value: Any) -> Any:
    """What `encode` was given; a set comes back frozen, and what was written as its repr stays text."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$float": str(text), **rest} if not rest:
            return float(text)
        case {"$tuple": list(items), **rest} if not rest:
            return tuple(decode(item) for item in items)
        case {"$set": list(items), **rest} if not rest:
            return frozenset(decode(item) for item in items)
        case {"$bytes": str(text), **rest} if not rest:
            return base64.b64decode(text)
        case {"$image": str(text), **rest} if not rest:
            return Image(base64.b64decode(text))
        case {"$map": list(items), **rest} if not rest:
            return {decode(key): decode(item) for key, item in items}
    return {key: decode(item) for key, item in value.items()}


_written = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def dumps(value: Any) -> bytes:
    """One line of ASCII: lone surrogates, which no UTF-8 can hold, survive as escapes."""
    return _written(value).encode()


def task_out(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "prompt": [[message.role, encode(message.content)] for message in task.prompt],
        "answer": encode(task.answer),
        "env": task.env,
        "difficulty": encode(task.difficulty),
        "domain": task.domain,
        "extras": encode(dict(task.extras)),
    }


def task_in(told: Mapping[str, Any]) -> Task:
    changed = {key: decode(told[key]) for key in ("answer", "difficulty", "extras")}
    prompt = tuple(Message(role, decode(content)) for role, content in told["prompt"])
    return Task(**{**told, **changed, "prompt": prompt})


def step_out(step: Step) -> dict[str, Any]:
    """All of a step but its state."""
    return {
        "observation": encode(step.observation),
        "reward": float(step.reward),
        "end": None if step.end is None else str(step.end),
        "info": encode(dict(step.info)),
    }


def step_in(told: Mapping[str, Any], state: Any) -> Step:
    end = told["end"]
    return Step(
        state,
        decode(told["observation"]),
        told["reward"],
        None if end is None else End(end),
        decode(told["info"]),
    )
