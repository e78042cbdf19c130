"""How much of a short answer is right: token F1, the score of question answering."""

from __future__ import annotations

from collections import Counter


def token_f1(answer: str, gold: str) -> float:
    """2 c / (words of answer + words of gold), c = words in common, each as often as in both. Case does not count.

    arXiv:1606.05250 and IGPO's outcome, arXiv:2510.14967; without that metric's dropping of articles and punctuation.
    Two empty texts give 1, one empty text 0.
    """
    ours, theirs = answer.lower().split(), gold.lower().split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))
