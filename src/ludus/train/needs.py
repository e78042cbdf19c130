"""What the pieces of a recipe want of each other, as the pieces themselves say it. `recipe.check` compares.

    needs   of a credit, curriculum, reward or loss (by the names of its parameters): words that somebody must give
    gives   of a strategy, curriculum or reward: words
    roles   of a strategy: who plays in it, () for one player; of a reward: whom it pays

A wrapper is asked together with what it wraps (its `inner` or `strategy`). A strategy that does not say what it gives
is believed to give everything that strategies can, so that a plain function serves as one. The words:

    reward          the strategy asks an environment what an attempt earned; where it does not, the recipe has a reward
    turn_reward     turns have rewards of their own          anchor    and the states that they were taken in
    group           two answers or more to the same task      pool      what a group was chosen from, as its baseline
    guidance        hints are read                            example   an answer by somebody else is taken
    one context     a rollout is one context                  one prompt  the answers of a group follow the same prompt
    external        tokens by somebody else are trained on    begun     an answer that is begun is continued
    value, ref_logp, baseline, old_logp                       see types.Credit and Batch

and names of `Rollout.signals`, which a strategy measures for a reward.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

CURES = {
    "turn_reward": "give a strategy that plays with the environment, such as AgentLoop, or a reward that fills the "
    'turns and says so, gives = ("turn_reward",)',
    "anchor": 'give a strategy that keeps the Step.info["anchor"] of the environment, such as AgentLoop, or GRPO()',
    "pool": "give a curriculum whose `select` tells of all that was sampled, such as Adaptive()",
    "guidance": "give a strategy that puts request.guidance into its prompt, such as AgentLoop or SingleTurn",
    "example": "give strategy=WithExamples(...), from ludus.rollouts.with_examples",
    "begun": "give strategy=Continued(...), from ludus.rollouts.continued",
    "one context": "give a strategy that stays in one context, or a credit that compares turns, such as IGPO()",
    "one prompt": "give a credit of whole answers, such as GRPO()",
    "answer_probability": "give strategy=AnswerProbability(...), from ludus.rollouts.gain",
    "reference_logp": "give strategy=ForcedAnswer(...), from ludus.rollouts.forced_answer",
}
SETTINGS = {"group", "value", "ref_logp", "baseline", "old_logp"}  # given by fields of the recipe


def layers(piece: Any) -> list[Any]:
    """A piece and what it wraps, from the outside in."""
    found = []
    while piece is not None:
        found.append(piece)
        piece = getattr(piece, "inner", None) or getattr(piece, "strategy", None)
    return found


def wanted(piece: Any) -> set[str]:
    return {word for layer in layers(piece) for word in getattr(layer, "needs", ())}


def given(piece: Any) -> set[str]:
    return {word for layer in layers(piece) for word in getattr(layer, "gives", ())}


def told(strategy: Any) -> bool:
    """Whether a strategy, and all that it wraps, say what they give."""
    return all(hasattr(layer, "gives") for layer in layers(strategy))


def roles(strategy: Any) -> Sequence[str]:
    return next((layer.roles for layer in layers(strategy) if hasattr(layer, "roles")), ())


def lacking(piece: Any, strategy: Any, curriculum: Any, reward: Any) -> str | None:
    """What is wrong where `piece` (the credit, or one of the others) wants what nobody gives; None if all is there."""
    have = given(strategy) | given(curriculum) | given(reward)
    for word in sorted(wanted(piece) - SETTINGS):
        if word == "one prompt" and "guidance" in wanted(curriculum):
            return (
                f"{name(piece)} compares answers to one prompt word by word, and {name(curriculum)} gives some "
                f"answers of a group a hint; {CURES[word]}"
            )
        if word in have or (word != "pool" and not told(strategy)):
            continue
        cure = CURES.get(word, f"give a strategy that measures it and says gives = ({word!r},)")
        others = [
            name(p) for p in (strategy, curriculum, reward) if p is not None and p is not piece
        ]
        give = "give" if len(others) > 1 else "gives"
        return f"{name(piece)} needs {word!r}, and {' and '.join(others)} {give} none; {cure}"
    return None


def overruled(curriculum: Any) -> str | None:
    """What is wrong where a curriculum would leave out half of the one that it draws from."""
    for outer, inner in pairwise(layers(curriculum)):
        if hasattr(inner, "more") or hasattr(inner, "select"):
            return (
                f"{name(outer)} takes its tasks from {name(inner)} and would never ask it what to sample again or to "
                "learn from; give it one that only draws, such as Uniform() or Bandit()"
            )
    return None


def unplayed(strategy: Any, plays: Sequence[str] | None, pays: Sequence[str], role: str) -> str:
    """What is wrong with the roles of a cast (`plays`), a reward (`pays`) or an evaluation (`role`); "" if nothing."""
    if not told(strategy):
        return ""
    own = roles(strategy)
    played = f"{name(strategy)} plays {', '.join(own) or 'no roles'}"
    if plays is not None and set(plays) != set(own):
        cure = "cast those" if own else "leave the cast out, or give a strategy of several roles"
        return f"the cast is for {', '.join(plays)}, and {played}; {cure}"
    if strangers := sorted(set(pays) - set(own)):
        return (
            f"the reward pays {', '.join(strangers)}, and {played}; give a strategy with those roles, such as "
            "PioneerObserver, or another reward"
        )
    if role and role not in (own or ("policy",)):
        return f"evaluation.role={role!r}, and {played}; name one of those, or leave it empty"
    return ""


def name(piece: Any) -> str:
    """Of a class, a function, or what a partial calls."""
    piece = piece.func if isinstance(piece, functools.partial) else piece
    return getattr(piece, "__qualname__", None) or type(piece).__name__
