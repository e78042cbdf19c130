"""The benches at sizes that only show that they work. Nothing here looks at a clock: costs are counted in tokens."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ludus import benches
from ludus.benches import duel, service
from ludus.benches.duel import Measured, NoPeer, ratios, refuse_unequal
from ludus.benches.job import Job
from ludus.benches.side import Ready, Told

needs_trl = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed"
)


def figures(name: str, folder: Path) -> dict[str, Any]:
    """What the bench writes, run as `ludus bench NAME --quick --json FILE` runs it."""
    file = folder / "new folder" / f"{name}.json"
    threads = torch.get_num_threads()
    try:
        benches.main(name, quick=True, json=file)
    finally:
        torch.set_num_threads(threads)
    found = json.loads(file.read_text())
    assert found["bench"] == name
    assert found["machine"]["threads"] == 1 and found["machine"]["torch"]
    assert found["targets"] and all(isinstance(t["kept"], bool) for t in found["targets"])
    return found


# ------------------------------------------------------------------------------------------ ours alone


def test_a_turn_computes_its_new_tokens_and_not_its_history(tmp_path: Path) -> None:
    found = figures("turns", tmp_path)["turns"]
    assert list(found) == ["2", "4", "8"]
    assert len({episode["new"] for episode in found.values()}) == 1
    for episode in found.values():
        # the prompt is shared out over the turns; half the context is what a turn would compute without a cache
        assert episode["computed"] <= episode["new"] < episode["context"] / 2
    assert found["8"]["computed"] < 1.1 * found["4"]["computed"]


def test_a_group_prefills_its_prompt_once(tmp_path: Path) -> None:
    found = figures("group", tmp_path)["groups"]
    # 40 tokens for the first answer; each other one computes the last token again, whose logits it wants
    assert {n: group["prefilled"] for n, group in found.items()} == {"1": 40, "2": 41, "4": 43}


def test_a_tree_has_the_gradient_of_its_rows(tmp_path: Path) -> None:
    found = figures("tree", tmp_path)["shapes"]
    counts = {name: (shape["distinct"], shape["rows"]) for name, shape in found.items()}
    # 40 + 3 x 12 against 3 x 52; 24 + (2 + 4) x 12 against 4 x (24 + 2 x 12)
    assert counts == {"3 answers": (76, 156), "search of depth 2": (96, 192)}
    assert all(0 < shape["difference"] <= 1e-5 for shape in found.values())


def test_the_head_is_the_dense_one_in_less_memory(tmp_path: Path) -> None:
    found = figures("linear_logprob", tmp_path)["ways"]
    assert found["dense"]["differences"] == [0, 0, 0]
    assert max(found["chunk 16"]["differences"]) < 1e-4
    assert 0 < found["chunk 16"]["memory"] < found["dense"]["memory"]


# ------------------------------------------------------------------------------------------ worlds behind a server


def test_a_service_is_measured_and_an_idle_session_weighed(tmp_path: Path) -> None:
    found = figures("service", tmp_path)
    assert set(found["steps"]) == {"no work", "waits 1 ms", "computes 1 ms"}
    for by_sessions in found["steps"].values():
        assert list(by_sessions) == ["1", "4"]
        for ways in by_sessions.values():
            assert ways["in process"]["server"] == 0 < ways["in process"]["client"]
            assert 0 < ways["served"]["client"] < ways["served"]["seconds"]
    assert found["memory"]["full"] >= found["memory"]["empty"] > 0
    file = tmp_path / "curve.svg"
    cost = service.Cost(0.001, 0.0005)
    service.draw({"no work": {1: {"in process": cost, "served": cost}}}, file)
    assert "<svg" in file.read_text()


def test_a_soak_leaves_no_session_open() -> None:
    found = service.soak(2 * service.ROUND, every=service.ROUND, idle=0.5)
    counts, each = found["counts"], service.ROUND // 10
    assert counts["closed"] == 16 * each and counts["left alone"] == 2 * each
    # a client that hangs up has asked for its session in half of the cases
    assert 2 * each <= counts["expired"] <= 3 * each and counts["still open"] == 0
    assert sum(n for name, n in counts.items() if name.startswith("refused")) == 2 * each
    assert [done for done, _ in found["memory"]] == [0, service.ROUND, 2 * service.ROUND]


def test_growth_is_bytes_a_session() -> None:
    flat = [(n, 1000 if n else 0) for n in range(0, 100, 5)]
    assert service.growth(flat) == pytest.approx(0, abs=1e-9)
    assert service.growth([(n, 1000 + 70 * n) for n in range(0, 100, 5)]) == pytest.approx(70)


def test_bad_weather_is_counted_and_not_learnt_from(tmp_path: Path) -> None:
    """The server is killed twice on the way; every loss has a cause, and none had a say."""
    found = figures("faults", tmp_path)
    for told in found["runs"]["faults"]:
        tally = told["tally"]
        assert told["steps"] == 3 and tally["adds_up"] and tally["scored_but_lost"] == 0
        assert set(tally["causes"]) == {"failed", "hung", "server killed"}
        assert 0 < tally["scored"] < tally["rollouts"] == 3 * 16 * 8
    for told in found["runs"]["no faults"]:
        assert told["tally"]["scored"] == told["tally"]["rollouts"]
    assert sum(found["groups"].values()) == 2 * 3 * 16


# ------------------------------------------------------------------------------------------ against a peer


def as_measured(sides: dict[str, Any]) -> dict[str, Measured]:
    return {
        name: Measured(
            Ready(**one["ready"]), tuple(Told(**step) for step in one["steps"]), one["peak"]
        )
        for name, one in sides.items()
    }


@needs_trl
@pytest.mark.parametrize(("name", "turns"), [("multiturn", 2), ("singleturn", 1)])
def test_both_sides_do_the_same_work(name: str, turns: int, tmp_path: Path) -> None:
    """Counted by each side for itself, in a process of its own; and a difference would be refused."""
    found = figures(name, tmp_path)
    measured = as_measured(found["sides"])
    (ours,), (theirs,) = (measured[side].steps for side in ("ludus", "trl"))
    assert ours.rollouts == theirs.rollouts == 2 * 2
    assert ours.sampled == theirs.sampled == 2 * 2 * turns * 4
    assert ours.read == theirs.read > ours.sampled
    assert measured["ludus"].ready.parameters == measured["trl"].ready.parameters
    assert all(0 < step.sampling < step.seconds for step in (ours, theirs))
    assert all(one.peak > one.ready.memory > 0 for one in measured.values())
    refuse_unequal(measured)
    for side in measured:
        for what in ("rollouts", "sampled", "read"):
            more = replace(measured[side].steps[0], **{what: getattr(ours, what) + 1})
            doctored = measured | {side: replace(measured[side], steps=(more,))}
            with pytest.raises(AssertionError, match=f"unequal work, {what} a step"):
                refuse_unequal(doctored)


def told(seconds: float, sampling: float, cpu: float, sampled: int = 8) -> Told:
    return Told(seconds, sampling, cpu, sampling, 4, sampled, 16)


def test_steps_of_unequal_work_are_refused_on_one_side_too() -> None:
    steps = (told(1, 0.5, 1), told(1, 0.5, 1, sampled=9))
    one = Measured(Ready(1, 1), steps, 2)
    with pytest.raises(AssertionError, match="sampled a step"):
        refuse_unequal({"ludus": one, "trl": one})


def test_ratios_are_theirs_over_ours_pair_by_pair() -> None:
    ours = Measured(Ready(1, 1), (told(1, 0.5, 1), told(2, 1, 1)), 100)
    theirs = Measured(Ready(1, 1), (told(4, 2, 3), told(4, 1, 5)), 150)
    found = ratios({"ludus": ours, "trl": theirs})
    means = {name: spread.mean for name, spread in found.items()}
    assert means == {
        "speed": (4 + 2) / 2,
        "speed by processor": (3 + 5) / 2,
        "sampling": (4 + 1) / 2,
        "learning": (2 / 0.5 + 3 / 1) / 2,
        "memory": 1.5,
    }
    assert (found["speed"].least, found["speed"].greatest) == (2, 4)


def test_a_duel_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(NoPeer, match="pip install trl"):
            duel.duel(Job())
    if importlib.util.find_spec("trl") is not None:
        with pytest.raises(ValueError, match="give rows= a divisor"):
            duel.duel(Job(tasks=3, answers=3, rows=2))


# ------------------------------------------------------------------------------------------ the command


def test_every_bench_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    benches.main()
    listed = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    for name in benches.NAMES:
        made = importlib.import_module(f"ludus.benches.{name}")
        assert f"    ludus bench {name}\n" in (made.__doc__ or "")
        assert f"    {name} " in listed
        assert f"`ludus bench {name}`" in page
    with pytest.raises(benches.UnknownBench, match="linear_logprob"):
        benches.main("speed")
