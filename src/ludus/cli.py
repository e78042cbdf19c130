"""The command line: `ludus list | run | eval | replicate | compare | bench | env`. Every --help teaches it."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ludus import cli_env, recipes
from ludus.types import Explained

console = Console()
Text = tyro.conf.Positional
DEFAULT_K = (1, 8)  # of pass@k; what is more than the answers is left out


@dataclass(frozen=True)
class List:
    """Every system: id, family, paper, and what its last replication found.

    Args:
        family: only this family, such as agents or policy.
        json: one JSON object a line instead of a table.
        page: write the table as Markdown to this file instead (docs/systems.md is made so).
    """

    family: str = ""
    json: bool = False
    page: Path | None = None

    def __call__(self) -> None:
        every = list(recipes.entries())
        families = sorted({entry.family for entry in every})
        if self.family and self.family not in families:
            raise SystemExit(f"--family {self.family}: there is none; give {', '.join(families)}")
        rows = [entry for entry in every if self.family in ("", entry.family)]
        if self.json:
            for entry in rows:
                row = {"id": entry.id, "family": entry.family, "title": entry.title}
                print(json.dumps(row | {"verdicts": _verdicts(entry.id)}))
            return
        if self.page:
            self.page.write_text(systems_page(rows))
            return
        table = Table("id", "family", "system", "replication")
        for entry in rows:
            found = Counter(_verdicts(entry.id).values())
            table.add_row(
                entry.id, entry.family, entry.title, ", ".join(f"{n} {v}" for v, n in found.items())
            )
        console.print(table)


@dataclass(frozen=True)
class Run:
    """Train: a recipe by its id, or a file of your own that has `recipe = Recipe(...)`.

    For example

        ludus run agentgym-rl
        ludus run agentgym-rl --model path/to/model --steps 200 --set optim.lr=1e-6
        ludus run mine.py --seed 1 --out runs/mine

    Args:
        recipe: id (see `ludus list`) or a .py file.
        variant: another recipe value in the same file, such as ppo or real_book, or one of its arms.
        model: a shipped base, a folder with a transformers model and tokenizer, or a hub name.
        steps: training steps; the recipe's own if left out.
        seed: of everything random; the same seed gives the same curve to the last digit on one machine.
        out: the run folder; a new one under runs/ if left out.
        resume: go on with the run in --out after it was stopped or killed.
        set: change a field, as often as needed: --set answers=16 --set optim.lr=3e-4.
        device: cpu, cuda, mps; the best there is if left out.
        deadline: seconds that one call of the environment may take before its rollout is given up.
        checkpoint_every: steps between checkpoints.
        track: where curves are drawn as they grow.
        quiet: show nothing but errors.
    """

    recipe: Text[str]
    variant: str = "recipe"
    model: str = ""
    steps: int | None = None
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    set: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE"), tyro.conf.UseAppendAction
    ] = ()
    device: str = "auto"
    deadline: float = 60.0
    checkpoint_every: int = 10
    track: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ("tensorboard",)
    quiet: bool = False

    def __call__(self) -> None:
        from ludus.engines.local.build import build
        from ludus.train.progress import Silent, progress
        from ludus.train.recipe import describe
        from ludus.train.run import run
        from ludus.train.study import Study, run_study, shown, silent
        from ludus.train.trackers import open_trackers

        recipe = chosen(self.recipe, self.variant, self.set, self.model, self.steps)
        name = self.recipe if self.variant == "recipe" else f"{self.recipe}:{self.variant}"
        out = self.out or fresh(Path("runs"), Path(self.recipe).stem)
        if self.resume and self.out is None:
            raise SystemExit("--resume wants --out, the folder of the run to go on with")
        if isinstance(recipe, Study):
            track = silent if self.quiet else shown
            told = run_study(
                recipe, out, name=name, seed=self.seed, resume=self.resume, track=track
            )
            if not self.quiet:
                table = Table("measure", "value", title=f"{name}, seed {self.seed}")
                for measure, value in told.items():
                    table.add_row(measure, f"{value:.4g}")
                console.print(table, f"all of it lies in {out}")
            return
        try:
            result = run(
                recipe,
                lambda: build(recipe, seed=self.seed, device=self.device, deadline=self.deadline),
                out,
                name=name,
                seed=self.seed,
                resume=self.resume,
                checkpoint_every=self.checkpoint_every,
                trackers=lambda folder, after: open_trackers(
                    self.track, folder, describe(recipe), after=after
                ),
                progress=lambda total, done: Silent() if self.quiet else progress(total, done=done),
            )
        except KeyboardInterrupt:
            words = [*self.typed(), "--seed", str(self.seed), "--resume", "--out", str(out)]
            raise KeyboardInterrupt(f"; go on with: {shlex.join(words)}") from None
        if self.quiet:
            return
        again = shlex.join(self.typed())
        console.print(
            f"\nsuccess on held-out tasks  before {result.before['success']}   after {result.after['success']}\n"
            f"report                     {out / 'report.html'}\n\n"
            "What to try next\n"
            f"  ludus eval {out} --k 1 8                 avg@n and pass@k with intervals\n"
            f"  {again} --seed {self.seed + 1}              the same with other random numbers\n"
            f"  {again} --model DIR           your own model, nothing else changed\n"
            "  docs/own-environment.md                  your own world, in 25 lines",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )

    def typed(self) -> list[str]:
        """The command that makes such a run again, without seed and folder."""
        words = ["ludus", "run", self.recipe]
        words += [] if self.variant == "recipe" else ["--variant", self.variant]
        words += ["--model", self.model] if self.model else []
        words += [] if self.steps is None else ["--steps", str(self.steps)]
        return [*words, *(word for change in self.set for word in ("--set", change))]


@dataclass(frozen=True)
class Eval:
    """Measure a trained run, or any model, on held-out tasks: success, avg@n and pass@k with 95 % intervals.

    For example

        ludus eval runs/agentgym-rl-1 --answers 8 --k 1 8
        ludus eval --model path/to/model --task agentgym-rl --variant real_book

    Args:
        run: a run folder; its model is measured on its own recipe's held-out tasks.
        model: instead of a run: a shipped base, a folder, or a hub name.
        task: the recipe whose held-out tasks are attempted; the run's own if left out.
        variant: another recipe value in that file.
        tasks: how many held-out tasks; all of them if 0.
        answers: attempts at each.
        k: the k of pass@k; each needs as many answers.
        turns: turns allowed; the recipe's evaluation setting if left out.
        temperature: of sampling; 0 is greedy.
        seed: of the attempts' random numbers.
        json: print JSON.
    """

    run: Text[Path | None] = None
    model: str = ""
    task: str = ""
    variant: str = "recipe"
    tasks: int = 256
    answers: int = 8
    k: tuple[int, ...] = DEFAULT_K
    turns: int | None = None
    temperature: float = 1.0
    seed: int = 0
    device: str = "auto"
    json: bool = False

    def __call__(self) -> None:
        from ludus.engines.local.build import open_model
        from ludus.engines.local.engine import LocalEngine
        from ludus.engines.local.sampler import LocalSampler
        from ludus.evals.metrics import table
        from ludus.rollouts.settings import at_temperature
        from ludus.train.folder import RunFolder
        from ludus.train.recipe import Recipe
        from ludus.train.run import evaluate, held_out
        from ludus.types import Key

        self.check()
        model, task, variant = self.model, self.task, self.variant
        folder = None if self.run is None else RunFolder(self.run)
        step, seed = 1, self.seed
        if folder is not None:
            model = str(folder.path / "model")
            name, seed = folder.about["name"], folder.about["seed"]
            if not Path(model).exists():
                raise SystemExit(
                    f"{self.run} has no model; a run that is not over gets one with --resume, and a study has none"
                )
            if not task:  # what `ludus compare` made is called SYSTEM on TASK
                task, _, own = name.rpartition(" on ")[2].partition(":")
                variant = own or variant
                step = max(1, (folder.summary or {}).get("steps", 1))
        if not task:
            raise SystemExit("give --task, the recipe whose held-out tasks are attempted")
        recipe = chosen(task, variant)
        if not isinstance(recipe, Recipe):
            raise SystemExit(f"{task} has no held-out tasks; `ludus run {task}` measures it")
        evaluation = replace(
            recipe.evaluation,
            answers=self.answers,
            max_turns=self.turns or recipe.evaluation.max_turns,
        )
        strategy = at_temperature(recipe.evaluation.strategy or recipe.strategy, self.temperature)
        samplers = {}
        for player, policy in {"policy": recipe, **recipe.others}.items():
            where: Any = model if player == "policy" else policy.model
            if folder is not None and not self.task and player != "policy":
                learnt = folder.path / f"model-{player}"
                where = learnt if learnt.exists() else where
            samplers[player] = LocalSampler(*open_model(where, device=self.device, seed=seed))
        engine = LocalEngine(samplers)
        tasks = held_out(recipe.env, self.tasks or len(recipe.env.tasks("test")))
        with closing(engine), console.status(f"{len(tasks)} tasks, {self.answers} answers each"):
            groups = evaluate(
                engine,
                strategy,
                recipe.env,
                tasks,
                evaluation,
                Key(self.seed) / "eval",
                cast=recipe.cast.plays(step) if recipe.cast else None,
            )
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        found = table(rollouts, [k for k in self.k if k <= self.answers])
        ends = Counter(str(rollout.end) for rollout in rollouts)
        if self.json:
            measures = {name: vars(interval) for name, interval in found.items()}
            print(json.dumps({"model": model, "task": task, "measures": measures, "ends": ends}))
            return
        shown = Table("measure", "mean", "95 % interval", "tasks", title=f"{model} on {task}")
        for name, interval in found.items():
            low_high = f"{interval.low:.3f} to {interval.high:.3f}"
            shown.add_row(name, f"{interval.mean:.3f}", low_high, str(interval.n))
        console.print(shown)
        console.print("ends: " + ", ".join(f"{count} {end}" for end, count in ends.most_common()))

    def check(self) -> None:
        """Raise on what cannot be measured, before a model is loaded."""
        if (self.run is None) == (not self.model):
            raise SystemExit("give a run folder or --model, one of them: see `ludus eval --help`")
        least = {"tasks": 0, "answers": 1, "turns": 1, "temperature": 0}
        for name, lowest in least.items():
            if (value := getattr(self, name)) is not None and value < lowest:
                raise SystemExit(f"--{name} {value}; give at least {lowest}")
        wrong = [k for k in self.k if k < 1 or (k > self.answers and self.k != DEFAULT_K)]
        if wrong:
            raise SystemExit(
                f"--k {wrong[0]} of {self.answers} answers; give k from 1 to {self.answers}, or --answers {max(self.k)}"
            )


@dataclass(frozen=True)
class Replicate:
    """Run a recipe's claims with several seeds, and write what came out: numbers, intervals, verdicts.

    Args:
        recipe: id, or a .py file with `arms` and `claims`.
        seeds: how many; the verdict comes from their interval.
        out: where the runs lie; finished ones are not run again.
        docs: where ID.json and ID.md are written.
        json: print the JSON too.
    """

    recipe: Text[str]
    seeds: int = 3
    out: Path = Path("runs/replicate")
    docs: Path = Path("docs/replications")
    json: bool = False

    def __call__(self) -> None:
        from ludus.train.replicate import replicate_recipe

        told = replicate_recipe(self.recipe, range(self.seeds), self.out, self.docs, console.print)
        if self.json:
            print(json.dumps(told))


@dataclass(frozen=True)
class Compare:
    """How several systems learn, on one task, at equal cost: held-out success with paired intervals, and the curves.

    Of each system its way of learning is taken (credit, loss, optimiser ...); model, world, strategy and curriculum are
    the task's. ID:VARIANT names another recipe value of a file, so agentgym-rl, agentgym-rl:rloo and agentgym-rl:ppo
    are plain GRPO, RLOO and PPO. For example

        ludus compare tempo agentgym-rl agentgym-rl:rloo --task tempo --seeds 5 --budget tokens=1e5
        ludus compare gigpo agentgym-rl --task gigpo --budget turns=20000 --set optim.lr=1e-3

    Args:
        systems: two ids or more (see `ludus list`), or .py files, each with :VARIANT or without.
        task: whose world is learnt: an id or a .py file, with :VARIANT or without.
        budget: samples=N, turns=N or tokens=N; training ends after the step in which so many were sampled.
        seeds: how many; intervals are over them.
        set: change a field of all, as often as needed: --set optim.lr=1e-3; --set evaluation.every=10 draws
            held-out success where else the curves show that of training.
        out: where the runs lie; finished ones are not run again.
        docs: where NAME.json, NAME.md and NAME.png are written.
        name: of those files; made of the systems and the task if left out.
        json: print the JSON too.
    """

    systems: Text[tuple[str, ...]]
    task: str
    budget: str
    seeds: int = 3
    set: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE"), tyro.conf.UseAppendAction
    ] = ()
    out: Path = Path("runs/compare")
    docs: Path = Path("docs/comparisons")
    name: str = ""
    json: bool = False

    def __call__(self) -> None:
        from ludus.train.compare import budget_of, compare, slug

        def named(text: str) -> Any:
            id_, _, variant = text.partition(":")
            return chosen(id_, variant or "recipe")

        words = ["ludus", "compare", *self.systems, "--task", self.task]
        words += ["--seeds", str(self.seeds), "--budget", self.budget]
        told = compare(
            {text: named(text) for text in self.systems},
            self.task,
            named(self.task),
            budget=budget_of(self.budget),
            seeds=range(self.seeds),
            changes=self.set,
            name=self.name or "-".join(map(slug, (*self.systems, "on", self.task))),
            command=shlex.join([*words, *(w for change in self.set for w in ("--set", change))]),
            out=self.out,
            docs=self.docs,
            say=console.print,
        )
        if self.json:
            print(json.dumps(told))
            return
        shown = Table("system", "held-out success", "95 % interval", title=f"on {self.task}")
        for system, found in told["systems"].items():
            after = found["after"]
            low_high = f"{after['low']:.3f} to {after['high']:.3f}"
            shown.add_row(system, f"{after['mean']:.3f}", low_high)
        console.print(shown)
        for pair in told["pairs"]:
            d = pair["difference"]
            console.print(
                f"{pair['first']} - {pair['second']}: {d['mean']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}), "
                f"{pair['verdict']}",
                highlight=False,
            )
        console.print(f"page and picture: {self.docs / told['name']}.md, .png", highlight=False)


@dataclass(frozen=True)
class Bench:
    """Speed and memory, as ratios to a named peer measured in the same run.

    Args:
        name: which bench; all are listed if left out.
        quick: small sizes, to see that it works; its figures mean little.
        json: also write the figures to this file.
    """

    name: Text[str] = ""
    quick: bool = False
    json: Path | None = None

    def __call__(self) -> None:
        from ludus.benches import main as bench

        bench(self.name, quick=self.quick, json=self.json)


def chosen(
    name: str,
    variant: str = "recipe",
    changes: tuple[str, ...] = (),
    model: str = "",
    steps: int | None = None,
) -> Any:
    """A recipe (or a study) as the command line asks for it."""
    from ludus.train.override import override
    from ludus.train.recipe import Recipe
    from ludus.train.study import Study

    def is_one(value: Any) -> bool:
        return isinstance(value, Recipe | Study) and not isinstance(value, type)

    module = recipes.load(name)
    arms = getattr(module, "arms", {})
    recipe: Any = getattr(module, variant, None)
    if not is_one(recipe):
        recipe = arms.get(variant)
    if not is_one(recipe):
        there = [*(k for k, v in vars(module).items() if is_one(v)), *arms]
        raise recipes.UnknownRecipe(
            f"{name} has no recipe value {variant!r}; it has {', '.join(there)}"
        )
    for change in changes:
        recipe = override(recipe, change)
    if model:
        recipe = replace(recipe, model=model)
    if steps is not None and not isinstance(recipe, Recipe):
        raise SystemExit(f"{name} is no training run and has no --steps; see its fields with --set")
    return recipe if steps is None else replace(recipe, steps=steps)


def fresh(parent: Path, name: str) -> Path:
    """parent/name-1, or the next number that is free."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


def systems_page(rows: Sequence[recipes.Entry]) -> str:
    """A table with links, relative to docs/."""
    lines = ["# Systems", "", "Made by `ludus list --page docs/systems.md`.", ""]
    lines += [
        "Each system is one file; its header says what is reproduced and what is not. A verdict is computed from the",
        "interval over seeds of what a claim compares: it holds, it does not hold, or the seeds are too few to tell",
        "(inconclusive). A dash: the claims have not been run yet.",
        "",
        "| system | family | what it is | claims |",
        "|---|---|---|---|",
    ]
    for entry in rows:
        found = Counter(_verdicts(entry.id).values())
        told = ", ".join(f"{n} {verdict}" for verdict, n in found.items())
        claims = f"[{told}](replications/{entry.id}.md)" if told else "-"
        file = f"../src/ludus/recipes/{entry.family}/{entry.file.name}"
        lines.append(f"| [{entry.id}]({file}) | {entry.family} | {entry.title} | {claims} |")
    return "\n".join(lines) + "\n"


def _verdicts(name: str) -> dict[str, str]:
    file = Path("docs/replications") / f"{name}.json"
    if not file.exists():
        return {}
    return {claim["text"]: claim["verdict"] for claim in json.loads(file.read_text())["claims"]}


COMMANDS: dict[str, Any] = {
    "list": List,
    "run": Run,
    "eval": Eval,
    "replicate": Replicate,
    "compare": Compare,
    "bench": Bench,
    "env": cli_env.Env,
}


def main() -> None:
    """Errors that carry their cure are printed as they are; anything else is a defect, with its trace."""
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="ludus",
        description="Ludus trains language-model agents by letting them play.",
    )
    try:
        command()
    except KeyboardInterrupt as stop:
        cure = "".join(map(str, stop.args))
        if isinstance(command, Replicate | Compare):
            cure = "; the same command goes on where it was stopped"
        Console(stderr=True).print(
            f"\nstopped{cure}", soft_wrap=True, markup=False, highlight=False
        )
        sys.exit(130)
    except (Explained, FileNotFoundError) as error:
        Console(stderr=True).print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
