"""report.html: what it says, what it draws, and that nothing in it can act."""

from __future__ import annotations

import html.parser
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ludus.data import store
from ludus.evals.metrics import Interval, table
from ludus.train import charts
from ludus.train.charts import Series, area_chart, figure, line_chart, smooth, thin, ticks
from ludus.train.folder import RunFolder
from ludus.train.report import difference, end_counts, main, render, spans, verdict, write
from ludus.train.report_advice import advice, rising
from ludus.train.report_chats import LONGEST, pick, readable
from ludus.train.report_curves import curves, other_curves, stages
from ludus.types import End, Group, Image, Message, Node, Report, Rollout, Task, Turn

S, F, TURNS, LOST = End.SOLVED, End.FAILED, End.OUT_OF_TURNS, End.ENV_CRASHED
RECIPE = {
    "is": "Recipe",
    "model": "tiny",
    "env": {"is": "TextCraft"},
    "answers": 8,
    "steps": 30,
    "optim": {"lr": 0.003},
    "evaluation": {"max_turns": 6},
}


def rollout(task: str, end: End, *said: str, difficulty: float = 0.0, error: str = "") -> Rollout:
    node = Node(None, np.zeros(4, np.int64), role="prompt")
    turns = []
    for text in said or ("look",):
        node = Node(node, np.arange(3), True, np.zeros(3, np.float32), version=0)
        turns.append(Turn(node, text, f"seen after {text}", reward=0.5))
    opening = (Message("system", "You craft."), Message("user", f"Goal of {task}"))
    return Rollout(
        Task(task, difficulty=difficulty),
        (node,),
        tuple(turns),
        float(end is S),
        end,
        error=error,
        opening=opening,
    )


def attempts(ends: Sequence[End]) -> list[Rollout]:
    return [rollout(f"t{i}", end) for i, end in enumerate(ends)]


def make_run(path: Path, steps: int = 30, **more: Any) -> RunFolder:
    folder = RunFolder.create(path, RECIPE, 7, name="demo-system")
    for step in range(1, steps + 1):
        metrics = {
            "success": step / 40,
            "reward": step / 40,
            "turns": 3.0,
            "turns/longest": 4.0,
            "limit/turns": 4 if step <= 10 else 8,
            "success/depth 2": step / 50,
            "success/depth 10": step / 90,
            "entropy": 1.0,
            "grad_norm": 1.0,
            "end/solved": 3.0,
            "end/failed": 1.0,
            "own measure": float(step),
        }
        folder.log(
            Report(
                step, {**metrics, **more}, {"collect": 2.0, "learn": 1.0, "tokens_per_second": 9.0}
            )
        )
    return folder


class Page(html.parser.HTMLParser):
    """A page as a browser takes it: elements, their attributes, and text by element."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


# ------------------------------------------------------------------------------------------ the page


def test_the_page_of_a_finished_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before = attempts([S] * 4 + [F] * 16 + [TURNS] * 20)
    after = attempts([S] * 30 + [F] * 10)
    store.write(run.path, [Group(r.task.id, (r,)) for r in before], step=0, phase="before")
    store.write(run.path, [Group(r.task.id, (r,)) for r in after], step=30, phase="after")
    run.summarise(before=table(before), after=table(after), steps=30, tokens=1234567, seconds=95)

    assert write(run.path) == run.path / "report.html"
    source = (run.path / "report.html").read_text()
    page = Page(source)
    assert not page.open
    for said in (
        "demo-system",
        "model tiny",
        "environment TextCraft",
        "seed 7",
        "steps 30",
        "tokens 1.23M",
        "time 1:35",
        "10.0 %",
        "75.0 %",
        "Better after training: +65.0 points",
        "paired over 40 tasks",
        "4→8 turns",
        "12 of 40 held-out tasks",
        "Goal of t0",
        "seen after look",
        "This is one seed (7)",
        "ludus run demo-system --seed 8",
        "own measure",
    ):
        assert said in page.text, said
    assert str(tmp_path) not in source
    assert page.text.count("what both were told") == 12


def test_the_page_needs_nothing_from_outside_and_runs_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    page = Page(render(run, attempts([F]), attempts([S])))
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not {tag for tag, _ in page.tags} & {
        "script",
        "link",
        "iframe",
        "object",
        "base",
        "form",
    }
    for _, attributes in page.tags:
        assert not set(attributes) & {"href", "srcset", "action"}
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in (Path(charts.__file__).with_name("report.html.jinja")).read_text()


HOSTILE = (
    "</div></details></main><script>alert(1)</script><img src=x onerror=alert(2)>"
    '" onmouseover="alert(3)" <!-- {{ 7 * 7 }} {% raw %} ]]> &lt;b&gt;'
    "\x1b[31m\x00\u202egnp.exe\ud800"
)


def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path) -> None:
    run = RunFolder.create(
        tmp_path / "run",
        {**RECIPE, "env": {"is": HOSTILE}, HOSTILE[:40]: HOSTILE[:40]},
        0,
        name=HOSTILE,
    )
    run.log(
        Report(
            1,
            {f"success/{HOSTILE[:60]}": 0.5, HOSTILE[:60]: 1.0, "success": 0.1},
            {HOSTILE[:60]: 1.0},
        )
    )
    one = rollout(HOSTILE[:90], LOST, HOSTILE, HOSTILE, error=HOSTILE)
    image = Image(b'\x89PNG"><script>alert(4)</script>')
    evil = Rollout(
        one.task, one.contexts, one.turns, 0.0, S, opening=(Message("user", [HOSTILE, image]),)
    )
    source = render(run, [one, evil], [evil])
    source.encode()
    page = Page(source)
    assert not page.open, "the text closed or opened an element"
    assert "script" not in {tag for tag, _ in page.tags}
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(a["src"].startswith("data:image/png;base64,") for a in pictures)  # type: ignore[union-attr]
    assert len(pictures) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text and "<script>alert(1)</script>" in page.text
    assert "‹001B›[31m‹0000›‹202E›gnp.exe‹D800›" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", source)


def test_a_run_that_is_not_over(tmp_path: Path) -> None:
    run = make_run(tmp_path / "half", steps=12)
    page = Page(render(run, attempts([F, S]), []))
    for said in (
        "steps 12 of 30",
        "not evaluated yet",
        "50.0 %",
        "no evaluation after training",
        "--resume --out half",
    ):
        assert said in page.text, said


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {}, 0)
    assert write(tmp_path).exists()
    page = Page(render(run, [], []))
    assert "No step has been logged yet" in page.text and "A run" in page.text and not page.open


def test_it_is_built_again_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, steps=3)
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert "demo-system" in Page((tmp_path / "report.html").read_text()).text


def test_numbers_that_were_not_finite_leave_a_gap(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=4, grad_norm=float("nan"), kl_ref=float("inf"))
    titles = [curve["title"] for curve in curves(run.lines("metrics.jsonl"))]
    assert "Norm of the gradient" not in titles and "KL" not in titles and "Success" in titles


# ------------------------------------------------------------------------------------------ what it says


def test_the_verdict_is_no_stronger_than_its_interval() -> None:
    both: list[Interval | None] = [Interval(0.5, 0.4, 0.6, 9)] * 2
    assert verdict(both, Interval(0.1, 0.02, 0.2, 9)).startswith(
        "Better after training: +10.0 points [+2.0, +20.0]"
    )
    assert verdict(both, Interval(-0.1, -0.2, -0.02, 9)).startswith("Worse after training: -10.0")
    assert "No difference shown" in verdict(both, Interval(0.1, -0.02, 0.2, 9))
    assert "each of 9 tasks scored the same" in verdict(both, Interval(0.0, 0.0, 0.0, 9))
    assert "cannot be paired" in verdict(both, None)


def test_the_difference_is_paired_by_task_over_all_attempts() -> None:
    before = [rollout("a", S), rollout("a", F), rollout("b", F), rollout("c", LOST)]
    after = [rollout("a", S), rollout("b", S), rollout("b", F), rollout("c", S)]
    found = difference(before, after)
    assert found is not None and (found.mean, found.n) == (
        0.5,
        2,
    )  # a: .5 -> 1, b: 0 -> .5; c was lost
    assert difference(before, []) is None


def test_every_end_is_counted() -> None:
    rows = end_counts(attempts([S, F, F, LOST]), attempts([S, S]))
    assert [(row["name"], row["before"], row["after"], row["before_width"]) for row in rows] == [
        ("solved", "1", "2", 25.0),
        ("failed", "2", "0", 50.0),
        ("environment crashed", "1", "0", 25.0),
    ]


def test_the_time_adds_up_to_the_whole() -> None:
    timings = [{"step": s, "collect": 6.0, "learn": 3.0, "tokens_per_second": 1e6} for s in (1, 2)]
    found = spans(timings, 30.0)
    assert [(s["name"], s["time"], s["percent"]) for s in found] == [
        ("collect", "0:12", "40%"),
        ("learn", "0:06", "20%"),
        ("evaluations, checkpoints, start", "0:12", "40%"),
    ]
    assert sum(s["share"] for s in found) == pytest.approx(1)
    inside = spans([{"step": 1, "seconds": 10.0, "collect": 6.0}], None)
    assert [(s["name"], s["time"]) for s in inside] == [
        ("collect", "0:06"),
        ("rest of a step", "0:04"),
    ]
    assert spans([], None) == []


def test_the_shown_tasks_are_in_proportion_and_not_the_best() -> None:
    was = [F] * 60 + [S] * 4 + [S] * 12 + [F] * 24
    now = [S] * 60 + [F] * 4 + [S] * 12 + [F] * 24
    before, after = attempts(was), [*attempts(now), *attempts([S] * 100)]
    chosen = pick(before, after)
    assert len(chosen) == 12
    kinds = [kind for kind, _ in chosen]
    counted = {kind: kinds.count(kind) for kind in kinds}
    assert counted == {
        "newly solved": 7,
        "no longer solved": 1,
        "solved both times": 1,
        "missed both times": 3,
    }
    assert all(b.task.id == a.task.id for _, (b, a) in chosen)
    firsts = {id(r) for r in after[:100]}
    assert all(
        id(a) in firsts for _, (_, a) in chosen
    )  # the first attempt, not the later one that was solved
    assert len(pick(before[:3], after)) == 3 and pick(before, []) == []


def test_readable_text() -> None:
    assert readable("a\tb\r\nc\x07") == "a\tb\nc‹0007›"
    assert readable("x" * (LONGEST + 5)).endswith("… 5 more signs, in trajectories.parquet")


def suggestions(
    after: Sequence[Rollout] = (),
    gain: Interval | None = None,
    series: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    about = {"name": "demo", "recipe": RECIPE, "seed": 7}
    series = series or {}
    metrics = [
        {"step": i + 1, **dict(zip(series, values, strict=True))}
        for i, values in enumerate(zip(*series.values(), strict=True))
    ]
    found = advice("run", about, {"steps": 40}, metrics, after, gain)
    return "\n".join(f"{item.text} {item.command}" for item in found)


def test_advice_comes_with_its_number_and_its_command() -> None:
    assert suggestions().startswith("This is one seed (7)")
    rose = suggestions(series={"success": [i / 40 for i in range(40)]})
    assert (
        "still rose in the last quarter, by 25.0 points" in rose
        and "--resume --steps 80 --out run" in rose
    )
    assert "0% of the groups" in suggestions(
        series={"groups/mixed": [0.0] * 8, "success": [0.99] * 8}
    )
    assert "too easy" in suggestions(series={"groups/mixed": [0.0] * 8, "success": [0.99] * 8})
    assert "too hard" in suggestions(series={"groups/mixed": [0.1] * 8, "success": [0.01] * 8})
    assert "Entropy fell from 2 to 0.1" in suggestions(series={"entropy": [2.0] * 6 + [0.1] * 2})
    assert "In 2 steps the gradient was not finite" in suggestions(
        series={"grad_norm": [1.0, None, None, 1.0]}
    )
    turns = suggestions(attempts([TURNS] * 2 + [S] * 8))
    assert "20% of the attempts" in turns and "--set evaluation.max_turns=12" in turns
    assert "1 of 4 attempts after training were lost" in suggestions(attempts([S, S, S, LOST]))
    assert "--set optim.lr=0.001" in suggestions(gain=Interval(-0.2, -0.3, -0.1, 50))
    assert "--set evaluation.tasks=200" in suggestions(gain=Interval(0.0, -0.1, 0.1, 50))


def test_advice_where_nothing_was_solved() -> None:
    said = suggestions(attempts([F] * 9), Interval(0.0, 0.0, 0.0, 9))
    assert "No held-out task was solved" in said and "points wide" not in said


def test_advice_names_the_variant_as_it_is_typed() -> None:
    about = {"name": "demo:ppo", "recipe": RECIPE, "seed": 7}
    (only,) = advice("run", about, {"steps": 4}, [], [], None)
    assert only.command == "ludus run demo --variant ppo --seed 8 --out OTHER"


def test_noise_is_not_called_a_rise() -> None:
    noise = np.random.default_rng(3).normal(0.5, 0.1, size=200)
    assert rising(list(enumerate(noise))) is None
    assert rising(list(enumerate(noise + np.linspace(0, 1, 200)))) == pytest.approx(0.25, abs=0.05)
    assert rising([(0, 0.0), (1, 1.0)]) is None


# ------------------------------------------------------------------------------------------ what it draws


def test_curves_and_stages(tmp_path: Path) -> None:
    rows = make_run(tmp_path).lines("metrics.jsonl")
    assert stages(rows) == [(11, "4→8 turns")]
    drawn = {curve["title"]: curve for curve in curves(rows)}
    assert list(drawn) == [
        "Success",
        "Reward",
        "Success by difficulty",
        "Turns",
        "Entropy of a token",
        "Norm of the gradient",
        "How training attempts ended",
    ]
    assert [key["name"] for key in drawn["Success by difficulty"]["legend"]] == [
        "depth 2",
        "depth 10",
    ]
    assert [curve["title"] for curve in other_curves(rows)] == ["own measure"]


def test_evaluations_are_dots_with_their_intervals() -> None:
    rows = [{"step": s, "success": 0.5} for s in range(1, 5)]
    rows[3] |= {"held-out/success": 0.4, "held-out/success/low": 0.3, "held-out/success/high": 0.5}
    rows[1] |= {"held-out/success": 0.2, "held-out/success/low": 0.1, "held-out/success/high": 0.3}
    svg = curves(rows)[0]["svg"]
    assert svg.count("<circle") == 2 and svg.count('opacity=".14"') == 1


def test_a_line_is_where_its_numbers_are() -> None:
    svg = line_chart([Series("a", [(0, 0.0), (10, 1.0)])], share=True)
    left, right, top, bottom = 44, 450, 16, 194  # the box inside the axes
    assert f'd="M{left:.1f} {bottom:.1f}L{right:.1f} {top:.1f}"' in svg
    assert "step 10\na: 100.0%" in svg


def test_areas_fill_the_whole() -> None:
    svg = area_chart({"solved": [(1, 1.0), (2, 3.0)], "failed": [(1, 3.0), (2, 1.0)]})
    assert svg.count('class="area"') == 2
    assert "step 2\nsolved: 75.0%\nfailed: 25.0%" in svg
    tops = re.findall(r'class="area" d="M([\d.]+) ([\d.]+)L', svg)
    assert [float(y) for _, y in tops] == [149.5, 16.0]  # a quarter of the way up, and the top


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 0.83, [0, 0.25, 0.5, 0.75, 1]),
        (-0.3, 0.3, [-0.4, -0.2, 0, 0.2, 0.4]),
        (4, 4, [2, 3, 4, 5, 6]),
        (0, 0, [-0.5, -0.25, 0, 0.25, 0.5]),
        (0, 12345, [0, 5000, 10000, 15000]),
    ],
)
def test_ticks_are_round_and_span_the_data(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(low, high) == wanted


def test_ticks_hold_for_any_range() -> None:
    for low, high in itertools.product((-1e9, -3.3, -1e-7, 0, 2e-8, 17), (1e-6, 0.1, 33, 7e12)):
        if high > low:
            found, slack = ticks(low, high), 1e-8 * (high - low)
            assert 3 <= len(found) <= 8
            assert found[0] <= low + slack and found[-1] >= high - slack


def test_smoothing_knows_no_future_and_thinning_keeps_spikes() -> None:
    line = [(i, 0.0) for i in range(5)] + [(5, 3.0), (6, 0.0)]
    assert [y for _, y in smooth(line, 3)] == [0, 0, 0, 0, 0, 1, 1]
    long = [(i, 0.0) for i in range(5000)]
    long[3210] = (3210, 9.0)
    thinned = thin(long)
    assert len(thinned) <= 300 and (3210, 9.0) in thinned and thinned == sorted(thinned)


def test_figures_as_a_person_writes_them() -> None:
    values = [0, 0.00012, 0.1234, 12.34, 1234, 12345678, float("nan")]
    assert [figure(v) for v in values] == ["0", "1.2e-04", "0.123", "12.3", "1,234", "12.3M", "-"]


def test_a_long_run_stays_a_small_page(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, RECIPE, 0)
    lines = [
        json.dumps({"step": s, "success": s % 7 / 7, "reward": s % 3 / 3}) for s in range(1, 20001)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert len(render(run, [], [])) < 200_000


def test_a_chart_of_numbers_next_to_nothing_is_drawn() -> None:
    for low, high in ((0.0, 1e-13), (5e-13, 5.1e-13), (1e-300, 1e-300)):
        found = ticks(low, high)
        assert found[0] < found[-1] and found[0] <= low * (1 + 1e-8) and found[-1] >= high
        assert line_chart([Series("loss", [(1, low), (2, high)])])


def test_what_compare_made_is_not_said_to_be_run_by_a_recipe() -> None:
    about = {"name": "demo:ppo on other", "recipe": RECIPE, "seed": 7}
    (only,) = advice("run", about, {"steps": 4}, [], [], None)
    assert "one seed (7)" in only.text and not only.command


def test_going_on_names_the_seed_and_quotes_the_arm() -> None:
    about = {"name": "demo:fixed long", "recipe": RECIPE, "seed": 7}
    going = advice("run", about, {}, [], [], None)[0]
    assert going.command == "ludus run demo --variant 'fixed long' --seed 7 --resume --out run"
