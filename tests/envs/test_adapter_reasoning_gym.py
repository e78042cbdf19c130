"""ludus.envs.adapters.reasoning_gym on the package: every dataset, its answers, and answers that are none."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("reasoning_gym")


from ludus.envs.adapters.reasoning_gym import ReasoningGym, answer_of, names
from ludus.envs.guard import EnvFault, Guarded, checked
from ludus.types import End, Step

# Their answer field is empty or an example, and the scorer does not take it for an answer.
NO_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


def attempt(world: ReasoningGym, split: str, index: int, answer: str) -> Step:
    async def play() -> Step:
        opening = await world.reset(world.tasks(split)[index], 0)  # type: ignore[arg-type]
        assert isinstance(opening.observation, str) and opening.observation
        return await world.step(opening.state, answer)

    return checked(asyncio.run(play()), world.name)


def test_there_are_over_a_hundred() -> None:
    assert len(names()) >= 100 and "composite" not in names()


@pytest.mark.parametrize("dataset", names())
def test_every_dataset_takes_its_own_answer_and_not_nonsense(dataset: str) -> None:
    world = ReasoningGym(dataset, train=1, test=1)
    task = world.tasks("test")[0]
    right = attempt(world, "test", 0, f"So: <answer>{task.answer}</answer>")
    assert (right.end is End.SOLVED) == (dataset not in NO_ANSWER)
    if dataset != "game_of_life_halting":  # takes whatever does not say that it halts
        wrong = attempt(world, "test", 0, "<answer>nonsense</answer>")
        assert wrong.end is End.FAILED and wrong.reward < 0.5


def test_partial_reward_is_the_scorers_own() -> None:
    world = ReasoningGym("chain_sum", train=3, test=3)
    answer = world.tasks()[0].answer
    step = attempt(world, "train", 0, f"<answer>it is {answer}</answer>")
    assert step.end is End.FAILED
    assert step.reward == pytest.approx(len(answer) / len(f"it is {answer}"))


def test_no_question_is_in_both_splits_and_the_same_config_gives_the_same() -> None:
    def questions(split: str) -> list[str]:
        world = ReasoningGym("leg_counting", {"max_animals": 4}, train=50, test=30)
        return [
            str(asyncio.run(world.reset(task, 0)).observation)
            for task in world.tasks(split)  # type: ignore[arg-type]
        ]

    assert len(set(questions("train"))) == 50 and len(set(questions("test"))) == 30
    assert not set(questions("train")) & set(questions("test"))
    assert questions("test") == questions("test")


@pytest.mark.parametrize(
    "said", ["", "\x00", "\ud800", "9" * 100_000, "<answer>" * 5_000, "(" * 3_000]
)
def test_hostile_answers_fail(said: str) -> None:
    for dataset in ("basic_arithmetic", "prime_factorization", "polynomial_equations", "countdown"):
        step = attempt(ReasoningGym(dataset, train=1, test=1), "test", 0, said)
        assert step.end is End.FAILED and step.reward < 0.5


def test_an_answer_that_the_scorer_cannot_read_is_wrong_and_a_broken_scorer_is_a_fault() -> None:
    world = ReasoningGym("prime_factorization", train=1, test=1)
    assert "ValueError" in attempt(world, "test", 0, "nonsense").info["unread"]

    def broken(answer: object, entry: object) -> float:
        raise KeyError("no table")

    world._source.score_answer = broken

    async def play() -> None:
        env = Guarded(world)
        await env.step((await env.reset(world.tasks()[0], 0)).state, "2")

    with pytest.raises(EnvFault, match="no table") as fault:
        asyncio.run(play())
    assert fault.value.end is End.ENV_CRASHED


def test_the_last_tags_hold_the_answer() -> None:
    assert answer_of("<answer>1</answer> no, <answer> 2 </answer>.") == "2"
    assert answer_of("  3 ") == "3" and answer_of("<answer>4") == "4"


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no dataset 'sums'; one of: .*basic_arithmetic"):
        ReasoningGym("sums")
