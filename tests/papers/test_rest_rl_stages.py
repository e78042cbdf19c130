"""Card rest-rl, the two stages with a real sampler and learner at tiny size: start states, value model, search."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.curricula.partial_solutions import PartialSolutions
from ludus.curricula.uniform import Uniform
from ludus.data.batch import make_batch
from ludus.data.render import Renderer
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.model import CausalModel
from ludus.engines.local.sampler import LocalSampler
from ludus.envs.small.pipelines import PAIRS, WORDS, Pipelines, run
from ludus.evals.tree_decoding import TreeDecoding, rank_correlation
from ludus.losses.clipped import clipped_ratio
from ludus.models import tiny
from ludus.rollouts.continued import BEGUN, Continued, begun_by
from ludus.rollouts.tree_search import VALUES, BestOf, TreeData, TreeSearch
from ludus.search import mcts
from ludus.search.value_model import ValueModel
from ludus.train.loop import start, train
from ludus.train.recipe import Recipe
from ludus.train.study import silent
from ludus.types import (
    End,
    Group,
    Key,
    Optim,
    Request,
    Rollout,
    Sampling,
    Step,
    Task,
    Turn,
)

WORLD = Pipelines(lines=(3, 3), train=24, test=12)
SIZE = tiny.Size(hidden=32, layers=1, heads=2, shared=1, head=16, inner=64)
SAMPLING = Sampling(temperature=1.0, max_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the rules of the small world a little: some steps on a beginner's programs."""
    from ludus.models.world_base import WorldBase

    made = WorldBase(WORLD, share=0.0, steps=80, games=24, turns=1, warmup=8, size=SIZE)
    model, tokenizer = made.build()
    where = tmp_path_factory.mktemp("base")
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


def opened(folder: Path) -> tuple[CausalModel, LocalEngine]:
    from ludus.engines.local.model import load

    model, tokenizer = load(folder, device="cpu")
    return model, LocalEngine(LocalSampler(model, Renderer(tokenizer)))


# ---------------------------------------------------------------------------------------------- the world


def test_programs_are_run() -> None:
    assert run("sort\nreverse", (2, -1, 0)) == (2, 0, -1)
    assert run("square\n\nnegate\n", (2, -1)) == (-4, -1) and run("", (1,)) == (1,)
    assert run("unique", (1, 2, 1)) == (1, 2) and run("rotate", (1, 2, 3)) == (2, 3, 1)
    assert run("sort it", (1,)) is None and run("square\n" * 9, (2,)) is None
    assert run("rotate\nabsolute\ndouble", ()) == ()


def test_each_word_means_one_line_of_its_pair() -> None:
    meant = [WORLD.meant(word) for word in range(len(WORDS))]
    assert [{meant[2 * i], meant[2 * i + 1]} for i in range(4)] == [set(pair) for pair in PAIRS]
    assert any(
        Pipelines(seed=seed).meant(word) != meant[word] for seed in range(1, 4) for word in range(8)
    )
    state = WORLD.start("train", 0)
    assert all(WORLD.verdicts(state, WORLD.expert(state)))
    assert not any(WORLD.verdicts(state, "no program"))
    done = asyncio.run(WORLD.step(state, f"{WORLD.expert(state)}\n"))
    assert done.reward == 1.0 and done.end is End.SOLVED


def test_a_wrong_program_passes_some_tests() -> None:
    """Verdicts in between are what tells the filter of deviations from one of mixed outcomes."""
    rng = np.random.default_rng(0)
    rewards = [
        asyncio.run(WORLD.step(state, WORLD.beginner(state, rng))).reward
        for state in (WORLD.start("train", i % 24) for i in range(200))
    ]
    between = [reward for reward in rewards if 0 < reward < 1]
    assert len(between) > 40 and 0.05 < rewards.count(1.0) / 200 < 0.7
    train = {WORLD.start("train", i).order for i in range(24)}
    assert not train & {WORLD.start("test", i).order for i in range(12)}


# ---------------------------------------------------------------------------------------------- stage 1

TASKS = {task.id: task for task in WORLD.tasks()}


def answered(task: Task, rewards: dict[str, float]) -> Group:
    def one(said: str, reward: float) -> Rollout:
        return Rollout(task, (), (Turn(None, said),), reward, End.FAILED)  # type: ignore[arg-type]

    return Group(task.id, tuple(one(said, reward) for said, reward in rewards.items()))


def test_a_round_goes_once_through_the_states_of_its_problems() -> None:
    first, second, third = list(TASKS.values())[:3]
    drawing = PartialSolutions(problems=3, samples=2, answers=4)
    tasks = [first, second, third]
    state, asked = drawing.draw(drawing.init(tasks), tasks, 2, Key(0) / "draw")
    assert sorted(r.task.id for r in asked) == sorted(t.id for t in tasks)
    assert [r.answers for r in asked] == [2, 2, 2]

    collected = [
        answered(first, {"sort\nsquare\nunique": 1.0, "sort": 0.5}),  # varied, and one is good
        answered(second, {"sort": 0.5, "reverse": 0.0}),  # varied, none good
        answered(third, {"sort": 0.5, "reverse": 0.5}),  # all alike: left out
    ]
    state, more = drawing.more(state, collected)
    made = [(r.task.id, r.task.extras[BEGUN]) for r in more]
    assert len(more) == 2 and [r.answers for r in more] == [4, 4]
    learnt = [*collected, answered(first, {"x": 0.0}), answered(second, {"y": 0.0})]
    assert drawing.more(state, learnt) == (state, [])
    assert drawing.select(state, learnt) == learnt[3:]
    state = drawing.update(state, learnt)

    state, rest = drawing.draw(state, tasks, 2, Key(0) / "then")
    made += [(r.task.id, r.task.extras[BEGUN]) for r in rest]
    assert state["collected"] == 0 and state["states"] == []
    assert drawing.more(state, []) == (state, []) and drawing.select(state, learnt) == learnt
    # two prompts, and ceil(0.5 * 3) beginnings of the good answer
    assert Counter(name for name, _ in made) == {first.id: 3, second.id: 1}
    begun = [text for name, text in made if name == first.id and text]
    assert (second.id, "") in made and (first.id, "") in made and len(begun) == 2
    assert set(begun) <= {"sort\n", "sort\nsquare\n", "sort\nsquare\nunique"}
    _, again = drawing.draw(state, tasks, 2, Key(0) / "anew")
    assert [r.answers for r in again] == [2, 2, 2]  # the next round collects


def test_the_last_step_takes_what_is_left_over() -> None:
    tasks = list(TASKS.values())[:5]
    drawing = PartialSolutions(problems=5, samples=2, answers=3, beta=0.0)
    state, _ = drawing.draw(drawing.init(tasks), tasks, 2, Key(0))
    collected = [answered(task, {"a": 1.0, "b": 0.0}) for task in tasks]
    state, more = drawing.more(state, collected)
    state, rest = drawing.draw(state, tasks, 2, Key(0) / "then")
    assert [len(more), len(rest)] == [2, 3]


def test_where_no_problem_is_kept() -> None:
    tasks = list(TASKS.values())[:2]
    drawing = PartialSolutions(problems=2, samples=2)
    state, _ = drawing.draw(drawing.init(tasks), tasks, 4, Key(1))
    collected = [answered(task, {"a": 0.5, "b": 0.5}) for task in tasks]
    state, more = drawing.more(state, collected)
    assert more == [] and drawing.select(state, collected) == collected
    with pytest.raises(ValueError, match="give 1 or more"):
        PartialSolutions(samples=0)


def test_an_answer_goes_on_from_its_beginning(folder: Path) -> None:
    _, engine = opened(folder)
    task = next(iter(TASKS.values()))
    want = str(task.answer)
    lines = want.split("\n")
    begun = "".join(f"{line}\n" for line in lines[:2])
    request = Request(begun_by(task, begun), 6, 1)
    (group,) = engine.collect(Continued(SAMPLING), [request], WORLD, Key(0))
    for rollout in group.rollouts:
        node = rollout.turns[0].node
        assert node.parent is not None and not node.parent.trainable
        text = engine.sampler.renderer.text(node.context())
        assert f"{begun}{rollout.turns[0].action}" in text
        passed = WORLD.verdicts(WORLD.start("train", 0), begun + rollout.turns[0].action)
        assert rollout.terms["passed"] == sum(passed[: WORLD.shown]) / WORLD.shown
        assert rollout.reward == pytest.approx(
            rollout.terms["passed"] + 1e-3 * rollout.terms["stopped"]
        )
    batch = make_batch([group])
    assert int(batch.mask.sum()) == sum(len(r.turns[0].node.tokens) for r in group.rollouts)
    # the whole program as its beginning: all that is left is to stop
    whole = Request(begun_by(task, want), 1, 1)
    stop = engine.sampler.renderer.stop_ids
    greedy = Continued(Sampling(temperature=0.0, max_tokens=1))
    (group,) = engine.collect(greedy, [whole], WORLD, Key(0))
    ended = int(group.rollouts[0].turns[0].node.tokens[0]) in stop
    assert group.rollouts[0].terms["stopped"] == ended
    assert not ended or group.rollouts[0].reward == pytest.approx(1.001)


def test_the_first_stage_learns_from_states(folder: Path) -> None:
    recipe = Recipe(
        env=WORLD,
        strategy=Continued(SAMPLING),
        credit=GRPO(),
        loss=partial(clipped_ratio, low=0.2, high=0.2),
        curriculum=PartialSolutions(problems=12, samples=4, answers=4),
        horizon=fixed(1),
        model=str(folder),
        optim=Optim(lr=1e-3),
        tasks=4,
        answers=4,
        steps=3,
    )

    def reports(recipe: Recipe) -> list[dict[str, float]]:
        model, engine = opened(folder)
        learner = LocalLearner(model, recipe.objective, recipe.optim)
        tasks = WORLD.tasks()
        going = train(recipe, engine, {"policy": learner}, tasks, start(recipe, tasks), seed=0)
        return [dict(report.metrics) for _, report in going]

    steps = reports(replace(recipe, tasks=2))
    spent = [0.0, *(step["spent/rollouts"] for step in steps)]
    sampled = [after - before for before, after in pairwise(spent)]
    assert sampled[0] >= 12 * 4 + 2 * 4  # what was collected counts
    assert all(count >= 2 * 4 and count % 4 == 0 for count in sampled[1:])
    assert all(np.isfinite(step.get("loss", 0.0)) for step in steps)
    # without threshold and beginnings it is GRPO, on every problem of the round
    bare = PartialSolutions(
        problems=4, samples=1, answers=4, least_std=0.0, beta=0.0, inner=Uniform()
    )
    steps = reports(replace(recipe, curriculum=bare))
    assert [step["spent/rollouts"] for step in steps] == [4 * 5, 8 * 5, 12 * 5]


# ---------------------------------------------------------------------------------------------- stage 2


def test_a_value_model_learns_and_reads_the_last_token(folder: Path) -> None:
    model, _ = opened(folder)
    value = ValueModel(model.module, seed=1)
    assert torch.equal(
        ValueModel(model.module, seed=1).module.score.weight, value.module.score.weight
    )
    rng = np.random.default_rng(0)
    contexts = [rng.integers(6, 60, size=int(rng.integers(2, 9))) for _ in range(64)]
    targets = [float(ids[-1] % 2) for ids in contexts]
    errors = value.fit(contexts, targets, lr=5e-3, epochs=40, rows=32)
    assert len(errors) == 80 and np.mean(errors[-4:]) < 0.1 < np.mean(errors[:4])
    said = value(contexts)
    assert all(0 <= v <= 1 for v in said)
    assert np.mean(np.abs(np.array(said) - targets)) < 0.3
    alone = [value([ids])[0] for ids in contexts[:5]]  # padding changes nothing
    assert alone == pytest.approx(said[:5], abs=1e-5)
    short = ValueModel(model.module, seed=1, length=3)
    longer = [np.concatenate([rng.integers(6, 60, size=5), ids[-3:]]) for ids in contexts[:4]]
    cut = [ids[-3:] for ids in longer]
    assert short(longer) == pytest.approx(short(cut), abs=1e-6)
    with pytest.raises(ValueError, match="one for each"):
        value.fit(contexts, targets[:3], lr=1e-3)


def test_a_value_does_not_change_with_the_token_that_pads(folder: Path) -> None:
    """Many policies pad with the end of a turn, which stands inside every prompt and may end a text."""
    model, _ = opened(folder)
    value = ValueModel(model.module, seed=1)
    value.module.score.weight.data.mul_(3)
    model.module.config.pad_token_id = 1
    other = ValueModel(model.module, seed=1)
    other.module.load_state_dict(value.module.state_dict())
    contexts = [np.array(ids) for ids in ([5, 1, 9, 12, 1, 30, 40], [7, 8, 1], [6, 20, 1, 1])]
    assert other._read(contexts).tolist() == value._read(contexts).tolist()
    model.module.config.pad_token_id = None
    assert ValueModel(model.module, seed=1)(contexts[:1])


def test_a_tree_is_walked_however_deep() -> None:
    root = node = mcts.Node("")
    for _ in range(2000):
        first, _ = mcts.add_children(node, ["a\nb", "c"])
        node = first
    walked = list(root.walk())
    assert len(walked) == 4001 and walked[0] is root and walked[2000] is node
    assert [n.state for n in walked[2001:2003]] == [f"{walked[at].state}c\n" for at in (1999, 1998)]


def test_searches_spend_what_they_are_given(folder: Path) -> None:
    _, engine = opened(folder)
    state, task = WORLD.start("train", 0), next(iter(TASKS.values()))
    asked = [Request(task, 1, 1)]
    (group,) = engine.collect(TreeData(SAMPLING, rounds=4), asked, WORLD, Key(0))
    data = group.rollouts[0]
    pairs, expanded = data.signals[VALUES], int(data.terms["expanded"])
    assert 1 <= expanded <= 4 and len(pairs) >= expanded + data.terms["samples"]
    prompt = engine.sampler.renderer.open(data.opening).context()
    assert np.array_equal(pairs[0][0], prompt)  # the root is the bare prompt
    for ids, target in pairs[expanded:]:
        text = engine.sampler.renderer.text(ids[len(prompt) :])
        assert target == sum(WORLD.verdicts(state, text)[: WORLD.shown]) / WORLD.shown

    seen: list[np.ndarray] = []

    def fair(contexts: object) -> list[float]:
        """The share of tests that a text passes as it stands: exact for whole programs."""
        seen.extend(contexts)  # type: ignore[arg-type]
        texts = [engine.sampler.renderer.text(ids[len(prompt) :]) for ids in contexts]  # type: ignore[union-attr]
        return [sum(WORLD.verdicts(state, text)) / 16 for text in texts]

    for way in (TreeSearch(SAMPLING, fair, 20), BestOf(SAMPLING, fair, 20)):
        seen.clear()
        (group,) = engine.collect(way, asked, WORLD, Key(3))
        found = group.rollouts[0]
        assert found.terms["samples"] == 20 and found.terms["scored"] == len(seen)
        assert found.solved == (found.signals["score"] == 1)
    with pytest.raises(ValueError, match="wants an environment"):
        asyncio.run(BestOf(SAMPLING, fair)(asked[0], engine.sampler, None, Key(0)))


def test_a_search_wants_samples_for_one_expansion() -> None:
    with pytest.raises(ValueError, match="samples=4, and an expansion takes 5; give enough"):
        TreeSearch(SAMPLING, len, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="samples=0; give 1 or more"):
        BestOf(SAMPLING, len, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="samples=12 cannot be spent 5 at a time"):
        TreeDecoding(WORLD, "", samples=(10, 12))


def test_a_lost_problem_does_not_end_the_study(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Pipelines):
        async def reset(self, task: Task, seed: int) -> Step:
            if task.id.endswith("-1"):
                raise ConnectionError("the server restarts")
            step = await super().reset(task, seed)
            long = task.id.endswith("-2")
            return replace(step, observation="no room " * 3000) if long else step

    gone = Gone(lines=(3, 3), train=24, test=12)
    settings = {"problems": 4, "rounds": 2, "held_out": 4, "ranked": 3, "samples": (5,)}
    told = TreeDecoding(gone, str(folder), SAMPLING, **settings).measure(0, tmp_path, silent)
    assert all(np.isfinite(value) for value in told.values())
    assert told["plain"] in [0, 0.5, 1] and told["scored/best of 5"] == 5


def test_the_study_measures_every_way(folder: Path, tmp_path: Path) -> None:
    study = TreeDecoding(
        WORLD,
        str(folder),
        SAMPLING,
        problems=6,
        rounds=3,
        held_out=6,
        ranked=3,
        samples=(5, 10),
        lr=1e-3,
    )
    told = study.measure(0, tmp_path, silent)
    assert {"plain", "greedy", "best of 5", "vm-mcts 5", "vm-mcts 10", "rank"} <= set(told)
    assert all(0 <= told[name] <= 1 for name in ("plain", "greedy", "best of 10", "vm-mcts 10"))
    assert told["tokens/vm-mcts 10"] > 0 and -1 <= told["rank"] <= 1
    assert told["scored/best of 10"] == 10
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 6 * 6
    assert study.measure(0, tmp_path, silent) == told


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 90]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5
    assert rank_correlation([0, 1, 1, 2], [0, 1, 2, 3]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation([1, 1], [0, 1]) == 0.0
