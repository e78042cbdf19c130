"""What an SQL query is worth, by the rows it returns. Think2SQL, arXiv:2504.15077, and the ladders it compares with.

Rows are tuples of cells in the order returned; None in place of rows stands for a query that failed. The reward and
the measure differ here: `graded` pays for what `execution_match` rejects (two columns swapped: 1 against 0), so a
policy that is trained on the one is to be reported by the other.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Sequence
from typing import NamedTuple

Row = tuple[object, ...]
Rows = Sequence[Row]


# ---------------------------------------------------------------------------------------------- the answer in the text

# A text comes from a model and may repeat a tag ten thousand times, so it is read from left to right once: a pattern
# such as <answer>(.*?)</answer> takes the square of its length.
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")  # keeps places


def _inside(text: str, opening: str, closing: str) -> list[str]:
    """What stands between each opening and the next closing, stripped; upper case does not count."""
    lower, found, at = text.translate(_LOWER), [], 0
    while (start := lower.find(opening, at)) >= 0:
        start += len(opening)
        end = lower.find(closing, start)
        if end < 0:
            break
        found.append(text[start:end].strip())
        at = end + len(closing)
    return found


def extract_sql(text: str) -> str:
    """The last <answer>, in it the last ```sql fence, in that the last fence; what is absent is passed over."""
    for opening, closing in (("<answer>", "</answer>"), ("```sql", "```"), ("```", "```")):
        found = _inside(text, opening, closing)
        text = found[-1] if found else text
    return _unquoted(text.strip()).strip()


def _unquoted(text: str) -> str:
    """Without backticks around it, or half a pair at its end; those of a name that ends the query stay."""
    bare = text.lstrip("`")
    bare = bare.removesuffix("`" * (len(text) - len(bare)) or "```")
    return bare.removesuffix("`") if bare.count("`") % 2 else bare


def well_formed(text: str, thoughts: str = "reasoning") -> bool:
    """Whether the text is thoughts in their tag (of this name), the answer in its tag, and nothing else."""
    first, last = f"<{thoughts}>", "</answer>"
    lower = text.strip().translate(_LOWER)
    if not (lower.startswith(first) and lower.endswith(last)):
        return False
    return re.search(rf"</{thoughts}>\s*<answer>", lower[len(first) : -len(last)]) is not None


# ---------------------------------------------------------------------------------------------- rows against rows


def execution_match(rows: Rows | None, gold: Rows) -> float:
    """1 if both are the same set of rows, else 0: the measure of BIRD.

    The order of rows and their repetition do not count, the order of columns does. Equal cells are equal in Python: 1
    and 1.0 are, 1 and "1" are not.
    """
    return float(rows is not None and set(rows) == set(gold))


class Graded(NamedTuple):
    """How much of a table is right; each number in [0, 1], rounded to three places as published.

    precision    cells that are in both / cells of the query, as sets
    recall       cells that are in both / cells of the gold
    cardinality  rows of the shorter / rows of the longer
    """

    precision: float
    recall: float
    cardinality: float

    @property
    def score(self) -> float:
        """Q = (precision + recall + cardinality) / 3."""
        return sum(self) / 3


def graded(rows: Rows | None, gold: Rows) -> Graded:
    """Cell precision, cell recall and tuple cardinality, of QATCH. Both empty: 1. One empty, or a failed query: 0.

    Where a cell stands counts nowhere. (The release sorts each row first, which changes none of the three.)
    """
    if rows is None or bool(rows) != bool(gold):
        return Graded(0.0, 0.0, 0.0)
    if not rows:
        return Graded(1.0, 1.0, 1.0)
    ours, theirs = ({cell for row in table for cell in row} for table in (rows, gold))
    same = len(ours & theirs)
    fewer, more = sorted((len(rows), len(gold)))
    return Graded(round(same / len(ours), 3), round(same / len(theirs), 3), round(fewer / more, 3))


# ---------------------------------------------------------------------------------------------- rewards


def weighted(content: float, form: bool, share: float = 0.15) -> float:
    """(1 - share) content + share form. Think2SQL: 0.15 with execution match, 0.05 with the graded score."""
    return (1 - share) * content + share * form


def floored(content: float, executes: bool, form: bool = True) -> float:
    """At least 0.1 for a query that executes, and, in the variant that passes `form`, is well formed; 0 if it fails."""
    if not executes:
        return 0.0
    return max(content, 0.1) if form else content


def bucketed(content: float) -> float:
    """Steps in place of a slope: [0, 0.1) -> 0.1, [0.1, 0.5) -> 0.5, [0.5, 0.8) -> 0.8, [0.8, 1) -> 0.9, 1 -> 1."""
    return next(
        (
            worth
            for below, worth in ((0.1, 0.1), (0.5, 0.5), (0.8, 0.8), (1.0, 0.9))
            if content < below
        ),
        1.0,
    )


def sql_r1(form: bool, executes: bool, correct: bool, length_bonus: float = 0.0) -> float:
    """The ladder of SQL-R1, arXiv:2504.08600: form +-1, executes +-2, correct +-3, each step only after the one before.

    So -1 malformed, -1 fails, 0 wrong rows, 6 right, and `length_bonus` on top of a right one.
    """
    if not form:
        return -1.0
    if not executes:
        return 1.0 - 2.0
    return 1.0 + 2.0 + (3.0 + length_bonus if correct else -3.0)


def sql_r1_length(thoughts: int, answer: int, sql: int, limit: int = 2048) -> float:
    """The bonus of `sql_r1`, from lengths in characters: 0.5 min(1, (thoughts + answer) / limit) + sql / answer."""
    return 0.5 * min(1.0, (thoughts + answer) / limit) + sql / max(answer, 1)


def arctic(form: bool, executes: bool, correct: bool) -> float:
    """The ladder of Arctic-Text2SQL, arXiv:2505.20315: 1 right, 0.1 executes and is well formed, else 0."""
    if not executes:
        return 0.0
    return 1.0 if correct else 0.1 * form


def tag_recall(text: str, tag: str, gold: Collection[str]) -> float:
    """Share of the `gold` names in the comma-separated list of the first <tag>, whatever their case; 0 without one."""
    found = _inside(text, f"<{tag}>", f"</{tag}>")
    if not found or not gold:
        return 0.0
    told = {name.strip().strip("`\"'").lower() for name in found[0].split(",")}
    wanted = {name.strip().lower() for name in gold}
    return len(told & wanted) / len(wanted)


def length_penalty(
    scores: Sequence[float], lengths: Sequence[int], *, strength: float = 0.1, right: float = 0.5
) -> list[float]:
    """The scores of one group with a deduction for answers that are longer than the right ones usually are.

        z_i = (length_i - mu) / max(std, 0.2 mu),   mu, std (sample) over answers with score > right
        s_i - min(0.9, strength z_i), not below 0, where z_i > 0 and s_i > 0

    Fewer than two right answers: nothing is changed.   Args: scores [G], lengths [G] in characters.   Returns: [G].
    """
    if len(scores) != len(lengths):
        raise ValueError(
            f"{len(scores)} scores came with {len(lengths)} lengths; give one for each"
        )
    usual = [length for score, length in zip(scores, lengths, strict=True) if score > right]
    if len(usual) < 2 or not any(usual):
        return list(scores)
    mean = statistics.mean(usual)
    spread = max(statistics.stdev(usual), 0.2 * mean)
    over = [max(0.0, (length - mean) / spread) for length in lengths]
    return [
        max(0.0, score - min(0.9, strength * z)) if score > 0 else score
        for score, z in zip(scores, over, strict=True)
    ]


def time_limit(gold_seconds: float) -> float:
    """Seconds that a query may take: min(1.2 t + 10, 500), t the time of the gold query."""
    return min(1.2 * gold_seconds + 10, 500.0)
