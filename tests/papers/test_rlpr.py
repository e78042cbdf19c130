"""Pinned numbers of RLPR, arXiv:2506.18254: the probability of the reference answer as a reward."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from tests.helpers import engine, tiny_model, tokenizer

from ludus.data.render import Renderer
from ludus.rewards.forced_score import (
    SIGNAL,
    ForcedScore,
    answered,
    composed,
    mean_probability,
    repeats,
    well_formed,
)
from ludus.rollouts.forced_answer import ForcedAnswer, up_to_answer, without_reasoning
from ludus.rollouts.single_turn import SingleTurn
from ludus.types import (
    Completion,
    ContextTooLong,
    End,
    Group,
    Key,
    Message,
    Node,
    Request,
    Rollout,
    Sampling,
    Task,
    Turn,
)
from ludus.weights.spread import SpreadFilter, deviations

T = TypeVar("T")
TASK = Task("q", (Message("user", "Goal: craft oak planks."),), answer="oak log")
GOOD = "<think>x</think> <answer> oak planks</answer>"


# ------------------------------------------------------------------ the reward


def test_mean_of_probabilities() -> None:
    p = [0.9, 0.8, 0.01, 0.95]
    assert mean_probability(np.log(p)) == pytest.approx(0.665)
    assert math.prod(p) == pytest.approx(0.00684)
    assert math.exp(np.log(p).mean()) == pytest.approx(0.2876, abs=5e-5)
    # one token made a hundred times less likely: the mean hardly moves, the product by the whole factor
    worse = [0.9, 0.8, 0.0001, 0.95]
    assert mean_probability(np.log(worse)) == pytest.approx(0.6625, abs=3e-5)
    assert math.prod(p) / math.prod(worse) == pytest.approx(100)
    assert mean_probability(np.zeros(0)) == 0.0
    assert mean_probability(np.log([0.37])) == pytest.approx(0.37)  # one token, not debiased


def test_what_is_known_without_reasoning_is_taken_off() -> None:
    assert composed(0.665, 0.40, formed=True) == pytest.approx(0.3385)
    assert composed(0.665, 0.40, formed=True, share=0.0) == pytest.approx(0.265)
    assert composed(0.3, 0.4, formed=True, share=0.0) == 0.0
    assert composed(0.3, 0.4, formed=False) == 0.0
    assert composed(0.665, 0.40, formed=True, repeated=True) == pytest.approx(0.3385 - 1)
    assert composed(1.0, 0.0, formed=True) == 1.0


def test_format_and_repetition() -> None:
    assert well_formed(GOOD) and answered(GOOD)
    assert not well_formed(GOOD + "<answer>") and not well_formed(
        "<answer>a</answer><think></think>"
    )
    assert well_formed("said: <answer>4</answer>", ("answer",)) and not well_formed("<answer>4")
    assert not answered("<answer> \n</answer>") and not answered("4")
    words = " ".join(str(i) for i in range(10))
    assert repeats(" ".join([words] * 10)) and not repeats(" ".join([words] * 9))
    assert not repeats("") and not repeats("a b c")
    assert repeats("a a a", words=1, times=3)


def rollout(text: str, p: list[float] | None, end: End = End.FAILED) -> Rollout:
    node = Node(Node(None, np.array([1])), np.array([2]), True, np.zeros(1, np.float32))
    signals = {} if p is None else {SIGNAL: np.log(p)}
    return Rollout(TASK, (node,), (Turn(node, text),), 0.0, end, signals=signals)


def test_the_reward_of_a_group() -> None:
    texts = [GOOD, "<think></think><answer> </answer>", "no tags", GOOD]
    made = [rollout(text, [0.9, 0.8, 0.01, 0.95]) for text in texts]
    made[3] = replace(made[3], end=End.ENGINE_LOST)
    (group,) = asyncio.run(ForcedScore({"q": 0.4})([Group("q", tuple(made))]))
    # in form but empty: the format's share alone; no form: nothing
    assert [r.reward for r in group.rollouts] == pytest.approx([0.3385, 0.1, 0.0, 0.0])
    assert group.rollouts[0].terms["probability"] == pytest.approx(0.665)
    assert group.rollouts[3] is made[3]
    with pytest.raises(ValueError, match="lacks the score of its reference"):
        asyncio.run(ForcedScore({"q": 0.4})([Group("q", (rollout(GOOD, None),))]))
    with pytest.raises(ValueError, match="lacks an r'"):
        asyncio.run(ForcedScore({})([Group("q", (rollout(GOOD, [0.5]),))]))


# ------------------------------------------------------------------ the measurement


def ids(text: str) -> np.ndarray:
    return np.array(tokenizer()(text)["input_ids"], np.int64)


@pytest.mark.parametrize(
    ("said", "kept", "space"),
    [
        ("get <answer> oak</answer>", "get <answer>", " "),  # " oak" is one token
        ("get <answer>\n\n oak planks</answer>", "get <answer>\n\n", " "),
        ("<answer>\n\u00e9", "<answer>\n", ""),
        ("<answer>oak", "<answer>", ""),
        ("<answer>a</answer> <answer>oak", "<answer>a</answer> <answer>", ""),
        ("<answer>", "<answer>", ""),
        ("\u00e9\u4e2d<answer>\U0001f600", "\u00e9\u4e2d<answer>", ""),
    ],
)
def test_what_stands_before_the_answer_is_kept_as_it_was_sampled(
    said: str, kept: str, space: str
) -> None:
    renderer, tokens = Renderer(tokenizer()), ids(said)
    got = up_to_answer(renderer, tokens, "<answer>")
    assert got is not None and (renderer.text(got[0]), got[1]) == (kept, space)
    assert got[0].tolist() == tokens[: len(got[0])].tolist()
    assert up_to_answer(renderer, ids("no tag"), "<answer>") is None
    assert up_to_answer(renderer, np.zeros(0, np.int64), "<answer>") is None


def test_a_token_that_ends_in_the_answer_is_cut() -> None:
    """Where " Action:" is one token, an opening of "Act" ends inside it."""
    tokens = ids("get Action:")
    got = up_to_answer(Renderer(tokenizer()), tokens, "Act")
    assert got is not None and tokenizer().decode(got[0]) == "get Act" and got[1] == ""
    assert got[0][0] == tokens[0] and "Act" not in [tokenizer().decode(t) for t in tokens]


class Sure:
    """Says `text`; each token of the reference has the probability `p`; remembers what it was asked to score."""

    max_rows, parked = 8, 0

    def __init__(self, text: str, p: float = 0.5) -> None:
        self.text, self.p, self.asked = text, p, list[tuple[str, str]]()
        self.renderer = Renderer(tokenizer())

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion:
        tokens = np.array([*ids(self.text), tokenizer().eos_token_id])
        return Completion(tokens, np.zeros(len(tokens), np.float32), "stop", 0, sampling)

    async def score(self, context: Node, tokens: np.ndarray) -> np.ndarray:
        if self.p < 0:
            raise ContextTooLong("full")
        self.asked.append((tokenizer().decode(context.context()), tokenizer().decode(tokens)))
        return np.full(len(tokens), math.log(self.p), np.float32)


def measured(text: str, p: float = 0.5, answer: Any = "oak log") -> tuple[Rollout, Sure]:
    sampler = Sure(text, p)
    strategy = ForcedAnswer(SingleTurn())
    request = Request(replace(TASK, answer=answer), 1, 1)
    (made,) = asyncio.run(strategy(request, sampler, None, Key(0)))  # type: ignore[misc]
    return made, sampler


def test_the_reference_takes_the_place_of_the_answer() -> None:
    made, sampler = measured(GOOD)
    ((before, scored),) = sampler.asked
    assert scored == " oak log"  # the reference exactly, and the space that its first token carries
    assert before.endswith("<think>x</think> <answer>") and "oak planks<" not in before
    assert mean_probability(made.signals[SIGNAL]) == pytest.approx(0.5)
    # a right answer: what is scored is what was said
    made, sampler = measured("<think>x</think> <answer>oak log</answer>")
    ((before, scored),) = sampler.asked
    assert f"{before}{scored}</answer>".endswith("<think>x</think> <answer>oak log</answer>")
    # of several references the first; numbers too
    assert measured(GOOD, answer=["7", "seven"])[1].asked[0][1].strip() == "7"
    assert measured(GOOD, answer=7)[1].asked[0][1].strip() == "7"
    # whitespace that is a token of its own is read and not scored
    ((before, scored),) = measured("<think>x</think><answer>\n7</answer>", answer="oak")[1].asked
    assert before.endswith("<answer>\n") and scored == "oak"


def test_without_a_tag_or_without_room_there_is_no_probability() -> None:
    made, sampler = measured("oak planks")
    assert sampler.asked == [] and len(made.signals[SIGNAL]) == 0
    made, _ = measured(GOOD, p=-1.0)
    assert mean_probability(made.signals[SIGNAL]) == 0.0


def waited(sampler: Any, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of something that waits for the local sampler, which is ticked meanwhile."""

    async def run() -> T:
        future = asyncio.ensure_future(make())
        while not future.done():
            await asyncio.sleep(0)
            if sampler.parked:
                sampler.tick()
        return future.result()

    return asyncio.run(run())


def test_what_the_first_weights_give_without_reasoning() -> None:
    sampler, plain = engine(tiny_model()).sampler, tiny_model()
    other = replace(TASK, id="p", answer="inventory")
    got = waited(sampler, lambda: without_reasoning(sampler, [TASK, other]))
    for task in (TASK, other):
        prompt, answer = sampler.renderer.open(task.prompt).context(), ids(f" {task.answer}")
        whole = torch.from_numpy(np.concatenate([prompt, answer]))
        with torch.no_grad():
            chances = plain(whole[None]).logits[0].float().softmax(-1)
        at = torch.from_numpy(answer)[:, None]
        want = chances[-1 - len(answer) : -1].gather(1, at).mean().item()
        assert got[task.id] == pytest.approx(want, rel=1e-3)


# ------------------------------------------------------------------ the filter


def test_deviation_of_a_group() -> None:
    reward = torch.tensor([0.1, 0.5, 0.2, 0.2, 0.9, 0.3], dtype=torch.float64)
    group = torch.tensor([4, 4, -1, -1, 7, 4])
    got = deviations(reward, group)
    assert got.tolist() == pytest.approx([0.0, torch.tensor([0.1, 0.5, 0.3]).std().item(), 0.0])
    lost = torch.tensor([True, True, True, True, True, False])
    assert deviations(reward, group, scored=lost)[1].item() == pytest.approx(0.4 / math.sqrt(2))


def test_the_bar_is_a_share_of_the_moving_average() -> None:
    spread = SpreadFilter()
    state = {"step": 20, "average": 0.20, "count": 15}
    state = spread.update(state, [0.10, 0.20])
    assert state["average"] == pytest.approx(0.1995)
    assert spread.keeps(state, [0.05, 0.12]) == [False, True]
    assert spread.keeps({**state, "average": 0.24}, [0.12]) == [True]  # at the bar


def test_when_it_is_measured_and_when_it_is_used() -> None:
    spread = SpreadFilter(beta=1.0)
    state = spread.init()
    for step in range(1, 11):
        assert spread.keeps(state, [0.0, 1.0]) == [True, True]
        state = spread.update(json.loads(json.dumps(state)), [] if step == 8 else [step / 10])
    # steps 6, 7, 9 and 10; nothing was sampled in step 8
    assert state == {"step": 10, "average": pytest.approx(0.8), "count": 4}
    assert spread.keeps(state, [0.79, 0.81]) == [False, True]
    state = spread.update(state, [0.3, 0.5])  # of all groups, the dropped one too
    assert state["average"] == pytest.approx(0.99 * 0.8 + 0.01 * 0.4)
    assert spread.keeps(spread.init() | {"step": 30}, [0.0]) == [
        True
    ]  # never measured: nothing to go by
