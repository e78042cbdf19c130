"""Was the right thing done and said: equality of database states, and outputs that must be told to the person.

The reward of tau-bench and of MUA-RL (arXiv:2508.18669): 1 if the final database equals the one that the gold actions
make and every required output was said, else 0. No partial credit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any


def digest(value: Any, exclude: Collection[str] = ()) -> str:
    """SHA-256 of plain data, independent of the order of keys: mappings, sequences, sets, dataclasses, scalars.

    A list and a tuple of the same items are equal; 1, 1.0, True and "1" are all different.

    exclude  names of keys and fields that do not count, time stamps for instance
    """
    return hashlib.sha256(json.dumps(_plain(value, exclude)).encode()).hexdigest()


def _plain(value: Any, exclude: Collection[str]) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        # Keys become pairs with their type, so that 1 and "1" stay two keys; sorted, so that order does not count.
        pairs = [
            [_plain(key, ()), _plain(item, exclude)]
            for key, item in value.items()
            if key not in exclude
        ]
        return {"map": sorted(pairs, key=lambda pair: json.dumps(pair[0]))}
    if isinstance(value, set | frozenset):
        return {"set": sorted((_plain(item, exclude) for item in value), key=json.dumps)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item, exclude) for item in value]
    if value is None or isinstance(
        value, str | int | float
    ):  # bool is an int, and json tells it apart
        return value
    raise TypeError(
        f"a state holds a {type(value).__name__}; give plain data (mappings, sequences, sets, dataclasses, text, "
        "numbers, None), so that equal states have equal digests"
    )


def all_said(outputs: Iterable[str], messages: Sequence[str]) -> bool:
    """Whether each output occurs in some message to the person; upper case and commas do not count.

    `messages` are the agent's, without its tool calls. The published code takes the commas out of the messages only,
    so an output such as "1,250" can never be found there; here they are taken out of both.
    """
    plain = [message.lower().replace(",", "") for message in messages]
    return all(
        any(output.lower().replace(",", "") in message for message in plain) for output in outputs
    )
