"""RL Tango, arXiv:2505.15034: two channels, a verifier's reward, class weights, who learns when and from what."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ludus import recipes
from ludus.advantages.balanced import Balanced
from ludus.advantages.channels import OutcomeAndSteps, outcome_and_steps, share_of_steps
from ludus.advantages.credit import GRPO
from ludus.advantages.relative import grpo
from ludus.curricula.roles import Alternating
from ludus.data.batch import make_batch
from ludus.data.render import Renderer
from ludus.engines.local.build import build
from ludus.envs.guard import Guarded
from ludus.envs.small.chains import Chains, Proofs, State, judged, to_judge, worked_out, written
from ludus.evals.f1 import f1
from ludus.models import tiny
from ludus.rewards.step_verdicts import (
    parse,
    step_rewards,
    steps_of,
    verifier_format,
    verifier_reward,
)
from ludus.rollouts.solve_and_verify import (
    FOUND,
    GENERATOR,
    VERIFIER,
    SolveAndVerify,
    step_turns,
    step_verdicts,
)
from ludus.train.loop import lessons, start, train
from ludus.train.recipe import check
from ludus.types import Completion, End, Group, Key, Node, Request, Rollout, Sampling
from ludus.weights.class_balance import ClassCounts, balanced_weights

THIRD = 1 / 3
MASK = torch.tensor([[True] * 5 + [False], [True] * 6])
OUTCOME = torch.tensor([1.0, 0.0], dtype=torch.float64)
ROWS, GROUP = torch.arange(2), torch.zeros(2, dtype=torch.int64)


def steps() -> tuple[Tensor, Tensor]:
    """A: 2 steps, both right, ending at tokens 1 and 3. B: 3 steps, the first one right, ending at 1, 2 and 4."""
    reward, ends = torch.zeros(2, 6, dtype=torch.float64), torch.zeros(2, 6, dtype=torch.bool)
    ends[0, [1, 3]] = ends[1, [1, 2, 4]] = True
    reward[0, [1, 3]] = 0.5
    reward[1, [1, 2, 4]] = torch.tensor([THIRD, -THIRD, -THIRD], dtype=torch.float64)
    return reward, ends


def mixed(alpha: float, **settings: Any) -> Tensor:
    return outcome_and_steps(OUTCOME, *steps(), MASK, ROWS, GROUP, alpha=alpha, **settings)


def close(got: Tensor, want: Any, atol: float = 5.1e-5) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


# ------------------------------------------------------------------ the advantage


def test_channels_apart_and_together() -> None:
    reward, ends = steps()
    close(reward[ends].mean(), 0.13333)
    close(reward[ends].std(), 0.43141)
    close(
        mixed(1.0),
        [[1.6999, 1.6999, 0.8499, 0.8499, 0, 0], [-1.6999, -1.6999, -2.1635, -1.0817, -1.0817, 0]],
        atol=1.1e-4,
    )
    close(mixed(0.0), [[0.7071] * 5 + [0], [-0.7071] * 6])
    close(
        mixed(0.1),
        [
            [0.8064, 0.8064, 0.7214, 0.7214, 0.6364, 0],
            [-0.8064, -0.8064, -0.8527, -0.7446, -0.7446, -0.6364],
        ],
    )


def test_without_steps_it_is_grpo() -> None:
    close(mixed(0.0)[:, 0], grpo(OUTCOME, GROUP), atol=1e-12)
    reward, ends = steps()
    none = outcome_and_steps(OUTCOME, reward, ends & False, MASK, ROWS, GROUP, alpha=0.1)
    close(none, 0.9 * mixed(0.0), atol=1e-12)


def test_mixed_before_normalising_it_would_be_something_else() -> None:
    reward, _ = steps()
    placed = 0.1 * reward
    placed[0, 4] += 0.9
    total = placed.sum(1)
    assert ((total - total.mean()) / total.std() - mixed(0.1)[:, 0]).abs().max() > 0.05


def test_a_constant_verifier_teaches_no_steps() -> None:
    _, ends = steps()
    same = torch.where(ends, -0.25, 0.0).double()
    got = outcome_and_steps(OUTCOME, same, ends, MASK, ROWS, GROUP, alpha=0.1)
    close(got, 0.9 * mixed(0.0), atol=1e-12)
    assert not torch.allclose(got, mixed(0.1))


def test_single_steps_lost_members_and_strays() -> None:
    reward, ends = steps()
    only = torch.zeros_like(ends)
    only[0, 3] = True
    got = outcome_and_steps(OUTCOME, reward, only, MASK, ROWS, GROUP, alpha=1.0)
    close(got[0, :4], [0.5] * 4, atol=1e-6)  # mean 0, deviation 1
    assert (got[1] == 0).all()
    # the lost enter neither statistic
    scored = torch.tensor([True, False])
    bad = torch.where(torch.tensor([[False], [True]]), torch.nan, reward)
    outcome = torch.tensor([1.0, math.nan], dtype=torch.float64)
    got = outcome_and_steps(outcome, bad, ends, MASK, ROWS, GROUP, alpha=0.1, scored=scored)
    assert (got == 0).all()  # two equal steps, one outcome: nothing to compare
    with pytest.raises(ValueError, match="a step ends on token 5 of row 0"):
        outcome_and_steps(OUTCOME, reward, ~ends, MASK, ROWS, GROUP, alpha=0.1)
    # several contexts of one rollout are one sequence
    two = outcome_and_steps(
        OUTCOME[:1], reward, ends, MASK, torch.tensor([0, 0]), GROUP[:1], alpha=1.0
    )
    close(two[0, 0], (reward[ends] - reward[ends].mean()).sum() / reward[ends].std(), atol=1e-5)
    close(two[1, 5], 0.0)


def test_share_of_the_steps_decays() -> None:
    got = [share_of_steps(step, total=300) for step in (0, 75, 150, 300, 900)]
    assert got == pytest.approx([0.1, 0.03162, 0.01, 0.001, 0.001], abs=5e-6)
    assert share_of_steps(0, total=300, first=0.5) == 0.5
    with pytest.raises(ValueError, match="first >= last > 0"):
        share_of_steps(0, total=0)


# ------------------------------------------------------------------ the verifier


def said(*verdicts: str, final: str = r"\boxed{INCORRECT}", between: str = "") -> str:
    blocks = between.join(f"<step>checked. \\boxed{{{v}}}</step>" for v in verdicts)
    return (
        f"<step_verification>{blocks}</step_verification>\n"
        f"<final_verification>{final}</final_verification>"
    )


def test_many_tags_cost_no_more_than_their_length() -> None:
    many = 50_000
    opened = "<step_verification></step_verification><final_verification>"
    spaced = "\\boxed{CORRECT}" + " " * many + "x"
    for text in (
        "<step_verification>" * many,
        opened * many,
        (opened + "</final_verification>") * many + "x",
        "<step_verification>" + "<step>" * many + "</step_verification>",
        opened + spaced + "</final_verification>",
    ):
        said = parse(text)
        assert said.steps == () and said.final is None and not said.concluded
    assert steps_of("<step>" * many) == 0


def test_step_verdicts_become_rewards() -> None:
    assert steps_of("<step>a</step> then <step>b</step>") == 2 and steps_of("none") == 0
    assert step_rewards(parse(said("CORRECT", "CORRECT")), 2) == [0.5, 0.5]
    got = step_rewards(parse(said("CORRECT", "INCORRECT", "incorrect")), 3)
    assert got == pytest.approx([THIRD, -THIRD, -THIRD])
    assert step_rewards(parse(said("CORRECT")), 2) is None  # one verdict too few: none at all
    assert step_rewards(parse(said()), 0) is None
    assert step_rewards(parse("nonsense"), 2) is None


def test_reward_of_a_verdict() -> None:
    right = said("CORRECT", "INCORRECT")
    assert verifier_reward(parse(right), False, 2) == pytest.approx(1.8)
    assert verifier_reward(parse(right), True, 2) == pytest.approx(0.8)
    # without a final verdict nothing, although the solution was wrong and the steps are in form
    silent = said("CORRECT", "INCORRECT", final="it is INCORRECT")
    assert verifier_reward(parse(silent), False, 2) == 0.0
    assert verifier_reward(parse(""), False, 2) == 0.0
    # a verdict behind other words has the form and is not read, as in the release
    wordy = parse(said("CORRECT", "INCORRECT", final=r"so \boxed{INCORRECT}"))
    assert wordy.concluded and wordy.final is None
    assert parse(said(final=r" \box{correct}. ")).final is True


def test_format_of_a_verdict() -> None:
    def form(text: str, steps: int = 2, **settings: Any) -> float:
        return verifier_format(parse(text), steps, **settings)

    assert form(said("CORRECT", "CORRECT")) == 1.0
    assert form(said("CORRECT", "CORRECT", between="well")) == pytest.approx(0.6)
    assert form(said("CORRECT")) == pytest.approx(0.2)  # one step is missing
    assert (
        form(said("CORRECT"), solution_format=0.5) == 1.0
    )  # of a solution that has no form itself
    assert form(said(), 0) == pytest.approx(0.2)  # no steps
    assert form(said("CORRECT", "CORRECT", final="yes")) == pytest.approx(0.2)
    assert form(said("CORRECT", between="").replace("checked", "x") + "more") == 0.0
    assert form(said("maybe", "perhaps", final="yes", between="well")) == 0.0  # not below 0
    assert form("") == 0.0


def test_class_weights() -> None:
    truth = torch.tensor([True] * 64 + [False] * 192)
    weight = balanced_weights(truth, 64, 192)
    close(weight[0], 1.4641)
    close(weight[-1], 0.8453)
    assert weight.mean().item() == pytest.approx(1.0, abs=1e-6)
    # one class alone: all weigh the same
    assert balanced_weights(truth[:3], 3, 0).tolist() == pytest.approx([1.0] * 3)
    assert balanced_weights(truth[:0], 0, 0).shape == (0,)
    with pytest.raises(TypeError, match=r"give torch\.bool"):
        balanced_weights(truth.float(), 1, 1)


def test_moving_counts() -> None:
    counts = ClassCounts()
    state = counts.update(counts.init(), torch.tensor([True] * 64 + [False] * 192))
    assert state == {"right": 64.0, "wrong": 192.0}
    state = counts.update(json.loads(json.dumps(state)), torch.tensor([True] * 128 + [False] * 128))
    assert state == pytest.approx({"right": 76.8, "wrong": 179.2})


# ------------------------------------------------------------------ who learns


def test_schedule() -> None:
    roles = Alternating((("generator", 3), ("verifier", 1)), first="verifier", warmup=40)
    played = [roles.learning(step) for step in range(1, 441)]
    assert played[:40] == ["verifier"] * 40
    assert played[40:48] == ["generator", "generator", "generator", "verifier"] * 2
    assert (played.count("generator"), played.count("verifier")) == (300, 140)
    assert roles.learnt("generator", 41) == 0 and roles.learnt("verifier", 41) == 40
    assert roles.learnt("generator", 441) == 300
    assert share_of_steps(roles.learnt("generator", 441), total=300) == pytest.approx(1e-3)
    # of the step alone: whoever resumes at 200 is in the same phase
    assert [roles.learning(step) for step in range(200, 441)] == played[199:]
    own = replace(roles, own="generator")
    assert own.plays(1) == {"generator": "policy", "verifier": "verifier"}
    assert [own.learns(step) for step in (40, 41, 44)] == [
        ("verifier",),
        ("policy",),
        ("verifier",),
    ]
    with pytest.raises(ValueError, match="counted from 1"):
        roles.learning(0)
    with pytest.raises(ValueError, match="1 step or more"):
        replace(roles, turns=(("generator", 0),))
    for wrong in ({"first": ""}, {"first": "verifer"}, {"own": "policy"}):
        with pytest.raises(ValueError, match="one of the roles 'generator', 'verifier'"):
            replace(roles, **wrong)
    assert replace(roles, first="", warmup=0).learning(1) == "generator"


# ------------------------------------------------------------------ the world

CHAINS, PROOFS = Chains(train=60, test=20), Proofs(Chains(slips=0.3, train=200, test=20))


def test_solutions_and_their_steps() -> None:
    state = State((7, 4, 2, 3))
    assert state.sums == [1, 3, 6]
    assert written(state.sums) == "<step> 1</step><step> 3</step><step> 6</step>\\boxed{6}"
    # a mistake is blamed on the step where it was made
    solution = written([1, 4, 7])
    assert worked_out(state.terms, solution) == [1, 3, 7]
    said = parse(judged([1, 3, 7], solution))
    assert said.steps == (True, False, True) and said.final is False
    assert verifier_format(said, 3) == 1.0
    task = CHAINS.tasks()[0]
    chain = CHAINS.start("train", 0)
    assert CHAINS.right_steps(task, CHAINS.expert(chain)) == [True] * len(chain.sums)
    wrong = written([(n + (i == 1)) % 10 for i, n in enumerate(chain.sums)])
    assert CHAINS.right_steps(task, wrong)[:3] == [True, False, False]


def test_the_verifying_expert_is_right_about_the_beginners_solutions() -> None:
    truths = []
    for index in range(200):
        proof = PROOFS.start("train", index)
        said = parse(PROOFS.expert(proof))
        truths.append(proof.right)
        assert said.final == proof.right and len(said.steps) == len(proof.chain.sums)
    assert 0.1 < np.mean(truths) < 0.4
    rng = np.random.default_rng(0)
    found = [parse(PROOFS.beginner(PROOFS.start("train", i), rng)).final for i in range(200)]
    assert np.mean([a == b for a, b, t in zip(found, truths, truths, strict=True) if t]) < 0.4


def test_f1() -> None:
    assert f1([True, True, False], [True, False, True]) == 0.5
    assert f1([True], [True]) == 1 and f1([False], [False]) == 0 and f1([False], [True]) == 0


# ------------------------------------------------------------------ the strategy


class Says:
    """A sampler that says its texts in turn and remembers what it read."""

    def __init__(self, *said: str) -> None:
        self.tokenizer = tiny.tokenizer(PROOFS.words())
        self.said, self.renderer, self.read = list(said), Renderer(self.tokenizer), list[str]()

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion:
        said = self.said[len(self.read) % len(self.said)]
        self.read.append(str(self.tokenizer.decode(context.context())))
        ids = np.array([*self.tokenizer(said)["input_ids"], self.tokenizer.eos_token_id])
        logp = -np.arange(len(ids), dtype=np.float32)
        return Completion(ids, logp, "stop", 0, sampling)


def attempt(solution: str, *verdicts: str, index: int = 0, answer: int = 0) -> list[Rollout]:
    task = CHAINS.tasks()[index]
    strategy = SolveAndVerify(to_judge, verdicts=len(verdicts))
    cast: Any = {GENERATOR: Says(solution), VERIFIER: Says(*verdicts)}
    made = list(
        asyncio.run(
            strategy(Request(task, 1, 1), cast, Guarded(CHAINS), Key(0) / "answer" / answer)
        )
    )
    state = CHAINS.start("train", index)
    assert all(f"{state.problem}\n{solution}\n" in read for read in cast[VERIFIER].read)
    return made


def test_one_solution_several_verdicts_and_a_turn_for_each_step() -> None:
    chain = CHAINS.start("train", 0)
    solution = CHAINS.expert(chain)
    wrong = judged([0] * 3, written([0, 1, 2]))  # CORRECT INCORRECT INCORRECT, so INCORRECT
    right = judged(chain.sums, solution)
    solved, *found = attempt(solution, wrong, right, "no idea")
    assert solved.agent == GENERATOR and solved.solved and solved.reward == 1.0
    assert [t.action for t in solved.turns] == [
        *(f"<step> {n}</step>" for n in chain.sums),
        f"\\boxed{{{chain.sums[-1]}}}",
    ]
    # the first verdict gives the step rewards
    assert [t.reward for t in solved.turns] == pytest.approx([THIRD, -THIRD, -THIRD, 0])
    assert solved.terms == {"formed": 1.0, "judged": 1.0}
    assert [r.agent for r in found] == [VERIFIER] * 3 and {r.cohort for r in found} == {"0"}
    assert [r.solved for r in found] == [False, True, False]
    assert [r.reward for r in found] == pytest.approx([0.8, 1.8, 0.0])
    assert [r.terms for r in found] == [{"right found": n} for n in (0.0, 1.0, 0.0)]
    pairs = step_verdicts([Group("q", (solved, *found))], CHAINS.right_steps)
    assert pairs == [(True, True), (False, True), (False, True), *[(True, True)] * 3]

    # the tokens and their log-probabilities are those that were sampled, each once
    batch = make_batch([Group("q", (solved,))])
    assert batch.logp[0][batch.mask[0]].tolist() == [-n for n in range(int(batch.mask.sum()))]
    assert batch.turn[0][batch.mask[0]].unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "solution", ["<step> 1", "</step></step>", "\\boxed{8}", "", "<step></step>"]
)
def test_solutions_out_of_form(solution: str) -> None:
    solved, found = attempt(solution, judged([1], written([1])))
    steps = steps_of(solution)
    assert solved.end is End.FAILED and solved.terms["formed"] == float(steps > 0)
    assert "".join(t.action for t in solved.turns) == solution
    assert found.terms == {"wrong found": 0.0}
    assert [t.reward for t in solved.turns] == pytest.approx(
        [1.0, 0][: len(solved.turns)] if steps else [0]
    )


def test_a_cut_inside_a_token_comes_after_it() -> None:
    says = Says("<step> 1</step>")
    completion = asyncio.run(says.generate(Node(None, np.array([1])), Sampling(), Key(0)))
    # an end of turn behind the last step is a turn of its own: no step ends with it
    node = Node(None, completion.tokens, trainable=True, logprobs=completion.logprobs)
    step, rest = step_turns(node, says.renderer, [1.0])
    assert (step.reward, rest.reward) == (1.0, 0.0) and len(rest.node.tokens) == 1
    assert rest.node.parent is step.node
    only = replace(node, tokens=node.tokens[:-1], logprobs=completion.logprobs[:-1])
    assert len(step_turns(only, says.renderer, [1.0])) == 1


def test_who_plays_is_asked_for() -> None:
    request = Request(CHAINS.tasks()[0], 1, 1)
    with pytest.raises(ValueError, match="nobody plays verifier"):
        asyncio.run(SolveAndVerify(to_judge)(request, {GENERATOR: Says("")}, CHAINS, Key(0)))  # type: ignore
    with pytest.raises(ValueError, match="AgentLoop"):
        SolveAndVerify(to_judge, verdicts=0)


# ------------------------------------------------------------------ the credits


def test_the_generators_credit_reads_steps_from_turns() -> None:
    """The two responses of the worked case, as a batch: 0.5, 0.5 and 1/3, -1/3, -1/3, with text behind the steps."""
    reward, ends = steps()
    turn = torch.tensor([[0, 0, 1, 1, 2, -1], [0, 0, 1, 2, 2, 3]])
    batch = replace(
        make_batch([Group("q", tuple(attempt("\\boxed{1}", "no", answer=n)[0] for n in range(2)))]),
        tokens=torch.zeros(2, 6, dtype=torch.int64),
        mask=MASK,
        turn=turn,
        reward=OUTCOME,
        turn_reward=torch.tensor([[0.5, 0.5, 0, 0], [THIRD, -THIRD, -THIRD, 0]]).double(),
    )
    credit = OutcomeAndSteps(total=300)
    state, credited = credit.assign(credit.init(), batch)
    close(credited.advantage, mixed(0.1))
    assert state == {"step": 1} and credited.metrics == {"share of steps": 0.1}
    _, later = credit.assign({"step": 150}, batch)
    close(later.advantage, mixed(0.01))
    # without verdicts for each step the second response has no step at all, not steps of reward 0
    silent = replace(batch, turn_reward=batch.turn_reward * torch.tensor([[1.0], [0.0]]))
    ends = ends & torch.tensor([[True], [False]])
    _, credited = credit.assign(credit.init(), silent)
    close(
        credited.advantage,
        outcome_and_steps(OUTCOME, reward, ends, MASK, ROWS, GROUP, alpha=0.1),
    )


def test_the_verifiers_credit_weighs_samples_and_not_rewards() -> None:
    chain = CHAINS.start("train", 0)
    solutions = [CHAINS.expert(chain), *[written([0] * len(chain.sums))] * 3]
    groups = []
    for n, solution in enumerate(solutions):
        found = worked_out(chain.terms, solution)
        good, bad = judged(found, solution), judged([(f + 1) % 10 for f in found], solution)
        _, *verdicts = attempt(solution, good, bad, "no", answer=n)
        groups.append(Group(str(n), tuple(verdicts)))
    batch = make_batch(groups)
    plain = GRPO()(batch).advantage
    credit = Balanced(GRPO(), FOUND[0])
    state, credited = credit.assign(credit.init(), batch)
    assert state["counts"] == {"right": 3.0, "wrong": 9.0}
    weights = balanced_weights(torch.tensor([True] * 3 + [False] * 9), 3.0, 9.0)
    close(credited.advantage, plain * weights[:, None], atol=1e-6)
    assert weights[0] > 1.4 and credited.metrics["classes/wrong"] == 9.0
    # lost verifications are of no class
    lost = replace(batch, scored=torch.tensor([False] * 3 + [True] * 9))
    state, credited = credit.assign(json.loads(json.dumps(state)), lost)
    assert state["counts"] == pytest.approx({"right": 2.4, "wrong": 9.0})
    assert (credited.advantage[:3] == 0).all()
    close(credited.advantage[3:], plain[3:], atol=1e-6)


# ------------------------------------------------------------------ two steps


def test_two_players_learn_by_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    few = {"steps": 2, "games": 2, "warmup": 1, "size": tiny.Size(32, 1, 2, 1, 16, 64)}
    full = recipes.load("rl-tango").recipe
    other = full.others["verifier"]
    recipe = replace(
        full,
        model=replace(full.model, **few),
        others={"verifier": replace(other, model=replace(other.model, **few))},
        strategy=replace(full.strategy, verdicts=2),
        cast=replace(full.cast, turns=(("generator", 1), ("verifier", 1)), warmup=1),
        tasks=2,
        answers=2,
        steps=3,
    )
    check(recipe)
    machine = build(recipe, device="cpu")
    assert set(machine.learners) == {"policy", "verifier"}
    models = {name: machine.models[name][0].module for name in ("policy", "verifier")}

    def weights() -> dict[str, Tensor]:
        return {
            name: torch.cat([p.detach().flatten() for p in model.parameters()])
            for name, model in models.items()
        }

    tasks, before = recipe.env.tasks("train"), weights()
    run = train(recipe, machine.engine, machine.learners, tasks, start(recipe, tasks), seed=0)
    changed, states = [], []
    for state, report in run:
        after = weights()
        changed.append({name for name in after if not torch.equal(after[name], before[name])})
        states.append(state.credit)
        before = after
        told = report.metrics
        assert {"generator/success", "verifier/success", "verifier/reward"} <= set(told)
        for group in report.groups:
            assert [r.agent for r in group.rollouts] == [GENERATOR, VERIFIER, VERIFIER] * 2
    assert changed == [{"verifier"}, {"policy"}, {"verifier"}]
    assert [state["policy"]["step"] for state in states] == [0, 1, 1]
    assert states[1]["verifier"] == states[0]["verifier"]
    assert sum(states[2]["verifier"]["counts"].values()) == pytest.approx(8)
    # the verdicts on one solution are compared with each other, and the solutions of a task
    group = report.groups[0]
    assert [len(g.rollouts) for g in lessons(recipe, [group], 1)["verifier"]] == [2, 2]
    (solutions,) = lessons(recipe, [group], 2)["policy"]
    assert [r.agent for r in solutions.rollouts] == [GENERATOR] * 2
