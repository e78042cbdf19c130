"""Is the answer right? Strict is the published rule; lenient is what the release meant and never ran."""

from __future__ import annotations

import ast


def answer_of(text: str) -> str | None:
    """What follows the last "Output:", without bold and code fences; None if there is no such word."""
    _, marker, said = text.rpartition("utput:")
    if not marker:
        return None
    said = said.replace("```python", "").replace("```", "").strip()
    return said.removeprefix("**").removesuffix("**").strip()


def strict(text: str, gold: str) -> bool:
    """Exactly the gold text. The published scores are of this rule, whatever their script says (it lacks an import)."""
    return answer_of(text) == gold.strip()


LONGEST = 10_000  # characters of an answer that is worth parsing


def lenient(text: str, gold: str) -> bool:
    """Strict, or a Python literal that prints as the gold text, out of a dict or set of one if need be."""
    answer = answer_of(text)
    if answer is None or len(answer) > LONGEST:
        return False
    if answer == gold.strip():
        return True
    try:
        value = ast.literal_eval(answer)
        if isinstance(value, dict) and len(value) == 1:
            value = next(iter(value.values()))
        if isinstance(value, set) and len(value) == 1:
            value = next(iter(value))
        return str(value) == gold.strip()
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False  # what a model wrote is no literal
