"""Card mir-bench: scores, wrong shots, prompts, the pool's funnel, program search and trivial rules."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from ludus.evals.mir_bench.functions import (
    PRIMITIVES,
    Function,
    behaviour,
    draw_input,
    functions,
)
from ludus.evals.mir_bench.pool import STAGES, Pool, pool
from ludus.evals.mir_bench.problems import Filters, Problem, candidates, search_answers
from ludus.evals.mir_bench.prompts import (
    AWARE,
    COPIES,
    DIRECT,
    FREE,
    LEVELS,
    RATES,
    prompt,
    with_copies,
    with_wrong,
    wrong_of,
)
from ludus.evals.mir_bench.scores import answer_of, lenient, strict
from ludus.evals.mir_bench.trivial import (
    TRIVIAL,
    copied,
    edit_distance,
    most_common,
    nearest,
    trivial_accuracy,
)
from ludus.evals.mir_bench.world import ManyShots
from ludus.types import End, Env, Key

SMALL = Filters(calls=400, shots=300)
SIZE = 3


@pytest.fixture(scope="module")
def pools() -> dict[str, Pool]:
    return {split: pool(split, SIZE, depth=2, filters=SMALL) for split in ("train", "test")}  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize(
    ("gold", "output", "loose", "exact"),
    [
        ("[1, 2]", "Output: [1,2]", 1, 0),
        ("3", 'Output: {"ans": 3}', 1, 0),
        ("True", "Output: true", 0, 0),
        ("abc", "Output: 'abc'", 1, 0),
        ("7", "I think 7", 0, 0),
        ("7", "Output:** 7", 1, 1),
        # and by hand
        ("7", "**Output: 7**", 1, 1),
        ("7", "Output: 6, no.\noutput: 7", 1, 1),  # the last one, the case of O ignored
        ("[1]", "Output:\n```python\n[1]\n```", 1, 1),
        ("3", "Output: {3}", 1, 0),
        ("3", "Output: {3: 4, 5: 6}", 0, 0),
        (
            "7",
            "Maybe7",
            0,
            0,
        ),  # unparsed is wrong; the published script cuts five letters off and calls it right
        ("", "Output:", 1, 1),
    ],
)
def test_strict_and_lenient(gold: str, output: str, loose: int, exact: int):
    assert (lenient(output, gold), strict(output, gold)) == (bool(loose), bool(exact))


def test_unparsed_is_its_own_outcome():
    assert answer_of("I think 7") is None and answer_of("Output:") == ""


@pytest.mark.parametrize(
    "text",
    [
        "[" * 9_000,
        "9" * 9_000,
        "(" * 50_000,
        "\x00",
        "\ud800",
        "{1: " * 3_000,
        "-" * 9_000,
        "{[]: 1}",
    ],
)
def test_hostile_answers_are_wrong(text: str):
    assert not lenient(f"Output: {text}", "7")


# ---------------------------------------------------------------------------------------------- functions


def test_thirty_primitives_and_their_compositions():
    assert len(PRIMITIVES) == len({p.name for p in PRIMITIVES}) == 30
    for kind in ("number", "text", "list"):
        assert [len(functions(kind, depth)) for depth in (1, 2, 3)] == [10, 110, 1110]


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("collatz", 7, 22),
        ("collatz", 8, 4),
        ("digit sum", -123, 6),
        ("digits turned", 120, 21),
        ("last digit", -17, 7),
        ("places", "aBz", [1, 2, 26]),
        ("no vowels", "aBEcd", "Bcd"),
        ("first half", "abcde", "ab"),
        ("every second", "abcde", "ace"),
        ("rising", [3, 1, 2], [2, 1, 3]),
        ("rising", [1, 3, 2], [1, 3, 2]),
        ("rising", [], []),
        ("running sums", [1, -2, 3], [1, -1, 2]),
        ("highest", [], 0),
        ("evens", [-2, 3, 0], [-2, 0]),
    ],
)
def test_primitives_by_hand(name: str, x: Any, y: Any):
    assert Function(tuple(p for p in PRIMITIVES if p.name == name))(x) == y


def test_every_composition_runs_on_every_input_and_its_source_agrees():
    rng = np.random.default_rng(0)
    for kind in ("number", "text", "list"):
        for function in functions(kind, 3)[::7]:
            for harder in (False, True):
                x = draw_input(kind, rng, harder=harder)
                assert eval(function.source, {"accumulate": accumulate, "x": x}) == function(x), (
                    function.name
                )


# ---------------------------------------------------------------------------------------------- the pool


def test_the_funnel_and_what_is_in_the_pool(pools: dict[str, Pool]):
    for split in pools.values():
        passed = [split.funnel[stage] for stage in STAGES]
        assert passed == sorted(passed, reverse=True) and passed[-1] == len(split.problems) == SIZE
        assert passed[0] > SIZE
        for problem in split.problems:
            inputs = [x for x, _ in problem.shots]
            tests = [x for x, _ in problem.tests]
            assert len(set(inputs)) == len(inputs) >= 300 and len(set(tests)) == 10
            assert not set(tests) & set(inputs)
            assert max(len(text) for shot in problem.shots + problem.tests for text in shot) <= 128
            assert max(trivial_accuracy(problem, 64).values()) <= 0.5
            source = problem.function.source
            for x, y in problem.tests:  # the gold, a second way
                assert str(eval(source, {"accumulate": accumulate, "x": problem.value(x)})) == y
    told = [{behaviour(p.function) for p in split.problems} for split in pools.values()]
    assert not told[0] & told[1]


def test_the_published_filters_pass_some_and_stop_what_cannot_differ():
    made = pool("train", 1, depth=2)
    assert len(made.problems[0].shots) >= 4096
    with pytest.raises(ValueError, match="ask for fewer"):
        pool("train", 1, depth=1, filters=Filters(calls=5, shots=6))


def test_program_search_never_falls_with_shots_and_is_never_wrong(pools: dict[str, Pool]):
    for problem in (*pools["train"].problems, *pools["test"].problems):
        right = []
        for shots in (1, 2, 4, 8, 16, 32, 64):
            answers = search_answers(problem, shots, 2)
            told = [
                (answer, gold) for answer, (_, gold) in zip(answers, problem.tests, strict=True)
            ]
            assert all(answer in (None, gold) for answer, gold in told)
            right.append(sum(answer == gold for answer, gold in told))
            assert problem.function in candidates(problem, shots, 2)
        assert right == sorted(right) and right[2] < 10 == right[-1]


# ---------------------------------------------------------------------------------------------- trivial rules


SHOTS = (("ab", "1"), ("abc", "2"), ("xyz", "2"), ("abd", "3"))


def test_trivial_rules():
    assert most_common(SHOTS, "q") == "2" and copied(SHOTS, "q") == "q"
    assert nearest(SHOTS, "abcd") == "2" and nearest(SHOTS, "a") == "1"
    assert [rule.__name__ for rule in TRIVIAL] == ["most_common", "nearest", "copied"]
    distances = [
        edit_distance(*pair)
        for pair in [("kitten", "sitting"), ("", "abc"), ("abc", "abc"), ("ab", "ba")]
    ]
    assert distances == [3, 3, 0, 2]
    problem = Problem(Function(PRIMITIVES[10:11]), SHOTS, (("abcd", "2"), ("abd", "3")))
    assert trivial_accuracy(problem, 4) == {"most_common": 0.5, "nearest": 1.0, "copied": 0.0}


# ---------------------------------------------------------------------------------------------- prompts


def test_a_prompt_word_for_word():
    assert prompt(SHOTS[:2], "q", DIRECT) == (
        "An unknown function turns inputs into outputs. Predict its output for the last input. "
        "Write only 'Output: ' and your answer in Python's form.\n"
        "Input:ab\nOutput:1\nInput:abc\nOutput:2\nInput:q"
    )
    assert FREE + AWARE in prompt(SHOTS, "q", FREE + AWARE)


def test_wrong_shots_of_the_card():
    assert [wrong_of(64, rate) for rate in RATES] == [1, 2, 4, 8, 16, 32, 48]
    rng = np.random.default_rng(0)
    shots = [(str(i), str(i % 5)) for i in range(64)]
    for rate in RATES:
        made = with_wrong(shots, rate, [str(i) for i in range(5)], rng)
        assert [x for x, _ in made] == [x for x, _ in shots]
        assert sum(a != b for a, b in zip(made, shots, strict=True)) == wrong_of(64, rate)
    assert prompt(with_wrong(shots, 0, [], rng), "q") == prompt(shots, "q")  # byte for byte
    with pytest.raises(ValueError, match="no spare output"):
        with_wrong([("1", "2")], 1, ["2", "2"], rng)


def test_copies_of_one_shot():
    assert COPIES[-1] + 16 == 1024
    rng = np.random.default_rng(0)
    assert with_copies(SHOTS, 0, rng) == list(SHOTS)
    made = with_copies(SHOTS, 48, rng)
    counts = sorted(made.count(shot) for shot in SHOTS)
    assert len(made) == 52 and counts == [1, 1, 1, 49] and made[:4] != list(SHOTS)


def test_as_an_environment(pools: dict[str, Pool]):
    world = ManyShots({split: made.problems for split, made in pools.items()}, (4, 8))  # type: ignore[misc]
    assert isinstance(world, Env)
    tasks = world.tasks("test")
    assert len(tasks) == SIZE * 2 * 10
    # Counted the same way: 300 functions, 10 levels, 10 tests; 693 functions.
    assert (300 * len(LEVELS) * 10, 693 * len(LEVELS) * 10) == (30_000, 69_300)
    for index, task in enumerate(tasks):
        step = asyncio.run(world.reset(task, 0))
        problem = pools["test"].problems[index // 20]
        x, gold = problem.tests[index % 10]
        shots = (4, 8)[index // 10 % 2]
        assert task.difficulty == shots and task.answer == gold
        assert step.observation == prompt(problem.shots[:shots], x)
        won = asyncio.run(world.step(step.state, f"Output: {gold}"))
        lost = asyncio.run(world.step(step.state, "seven"))
        assert (won.end, won.reward, won.info["parsed"]) == (End.SOLVED, 1, True)
        assert (lost.end, lost.reward, lost.info["parsed"]) == (End.FAILED, 0, False)
    four, eight = (asyncio.run(world.reset(tasks[i], 0)).state.text for i in (0, 10))
    shots = four.rpartition("Input:")[0]
    assert eight.startswith(shots)  # a longer prompt begins with the shorter one's shots
    with pytest.raises(ValueError, match="call reset"):
        asyncio.run(world.step(won.state, ""))
    step = asyncio.run(replace(world, lenient=True).reset(tasks[0], 0))
    quoted = f"Output: {{'answer': {step.state.gold}}}"
    assert asyncio.run(replace(world, lenient=True).step(step.state, quoted)).reward == 1
    assert asyncio.run(world.step(step.state, quoted)).reward == 0


def test_a_world_wants_as_many_tests_of_each_and_enough_shots(pools: dict[str, Pool]):
    one, other = pools["test"].problems[:2]
    with pytest.raises(ValueError, match="train problems have different numbers of tests"):
        ManyShots({"train": (one, replace(other, tests=other.tests[:3]))})
    with pytest.raises(ValueError, match="has 20 shots; give fewer in shots="):
        ManyShots({"test": (replace(one, shots=one.shots[:20]),)}, (4, 32))


def test_a_pool_is_drawn_by_its_seed_alone(pools: dict[str, Pool]):
    assert pool("test", 2, depth=2, filters=SMALL).problems == pools["test"].problems[:2]
    assert pool("test", 2, depth=2, filters=SMALL, seed=1).problems != pools["test"].problems[:2]
    assert Key(0) / "mir-bench" != Key(1) / "mir-bench"
