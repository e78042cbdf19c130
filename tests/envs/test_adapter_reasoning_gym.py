"""ludus.envs.adapters.reasoning_gym on the package: every dataset, its answers, and answers that are none."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from pathlib import Path

import pytest

pytest.importorskip("reasoning_gym")


from ludus.envs.adapters.plain_answers import EVALUATED, plain
from ludus.envs.adapters.reasoning_gym import ReasoningGym, answer_of, names, package
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


# ---------------------------------------------------------------------------------------------- evaluated answers

OWN = {
    "basic_arithmetic",
    "bitwise_arithmetic",
    "codeio",
    "number_sorting",
}  # evaluate what the package wrote
OWN |= {"propositional_logic"}  # its parse_expr is a parser of its own


def test_the_datasets_that_evaluate_are_known() -> None:
    evaluating = set()
    for name in names():
        source = inspect.getsource(sys.modules[package().factory.DATASETS[name][0].__module__])
        called = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        used = {getattr(call, "id", getattr(call, "attr", "")) for call in called}
        if used & {"eval", "exec", "parse_expr", "parse_latex", "sympify", "Fraction"}:
            evaluating.add(name)
    assert evaluating == set(EVALUATED) | OWN


@pytest.mark.parametrize("dataset", sorted(EVALUATED))
def test_code_in_an_answer_is_not_run(dataset: str, tmp_path: Path) -> None:
    world = ReasoningGym(dataset, train=1, test=1)
    mark = tmp_path / "run"
    for code in (
        f"__import__('pathlib').Path({str(mark)!r}).touch()",
        f"[open({str(mark)!r}, 'w')]",
        f"sin(open({str(mark)!r}, 'w'))",
        "oracle_answer",
        "entry['answer']",
    ):
        step = attempt(world, "test", 0, f"<answer>{code}</answer>")
        assert step.end is End.FAILED and step.reward <= 0.01
        assert step.info["unread"] == f"no plain {EVALUATED[dataset]}"
    assert not mark.exists()


@pytest.mark.parametrize("dataset", sorted(set(EVALUATED) - {"string_insertion"}))
def test_the_packages_own_answers_are_plain(dataset: str) -> None:
    source = package().create_dataset(dataset, size=40, seed=3)
    answers = [source[index]["answer"] for index in range(40)]
    assert all(plain(a, EVALUATED[dataset]) for a in answers if "Integral" not in a)


def test_other_ways_to_write_an_answer_count_as_before() -> None:
    def reward(dataset: str, rewrite: str) -> float:
        world = ReasoningGym(dataset, train=1, test=1)
        answer = world.tasks("test")[0].answer
        return attempt(world, "test", 0, eval(rewrite, {"a": answer})).reward

    rows = "[row.split() for row in a.splitlines()]"
    assert reward("binary_matrix", f"str([[int(x) for x in row] for row in {rows}])") == 0.1
    assert reward("n_queens", f"str({rows})") == 0.5
    assert reward("spiral_matrix", "str([int(x) for x in a.split()])") == 0.1
    assert reward("string_insertion", "str(list(a))") == 0.1
    assert reward("countdown", "'(' + a + ') * 1.0 / 1.0'") == 0.05  # numbers that are not there
    assert reward("countdown", "' ( ' + a + ') '") == 1
    assert reward("simple_integration", "a.replace('+ C', '+ 3 + C')") == 1
    assert reward("polynomial_multiplication", "'0 + ' + a") == 1
    assert reward("coin_flip", "'2' + a") < 1


@pytest.mark.parametrize(
    "text",
    [
        *(
            "9**9**9",
            "9**(9*99*99)",
            "(((999999999**99)**99)**99)",
            "2**x**99",
            "1e9",
            "0x1f",
            "2j",
        ),
        *("exp(exp(exp(9)))", "E**E**E**9", "exp(9**9)", "cosh(cosh(9))", "x.y", "x[0]", "S(9)"),
        *(
            "gamma(99999)",
            "Integral(x, x)",
            "sin",
            "sin()",
            "sin(x)(3)",
            "sin(a=1)",
            "sin(*x)",
            "True",
        ),
        *(
            "'x'",
            "x_1",
            "ｓｉｎ(x)",
            "x if x else x",
            "lambda: x",
            "(x:=1)",
            "x@x",
            "9!",
            "x\nx",
            "#",
        ),
        *("", "x +", "(" * 300, "-" * 999 + "1", "1+" * 600 + "1"),
    ],
)
def test_what_is_no_plain_mathematics_or_grows_too_large(text: str) -> None:
    assert not plain(text, "formula") and not plain(text, "sum")


@pytest.mark.parametrize(
    "text",
    [
        *("x**2*sin(3*x)/3 - 2*exp(-x**2) + C", "E**(2*x + 1)*log(x, 2)", "-(x - 8)**(3/2)"),
        *("x*asin(3*x) + sqrt(1 - 9*x**2)/3 + C", " 0.5*atan(pi*Y) ", "123456789**20 * x**100"),
    ],
)
def test_plain_mathematics(text: str) -> None:
    assert plain(text, "formula") and not plain(text, "sum")


def test_an_exponent_that_would_fill_the_memory_is_no_number() -> None:
    assert plain("1.5e-3", "number") and plain("1,024/2048", "number")
    assert not plain("1e999999999", "number") and not plain("1e9e9", "number")


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
