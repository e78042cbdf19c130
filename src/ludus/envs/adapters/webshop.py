"""WebShop: buy what an instruction asks for in a shop of real products (arXiv:2207.01206), in its text environment.

    shop = WebShop(python="webshop-env/bin/python", folder="WebShop")

The repository (github.com/princeton-nlp/WebShop) is on no package index and wants old versions of nearly everything, so
it runs in a process of its own interpreter: one that loads the products once and serves all sessions, over its
standard input and output. The pages, what can be clicked and the reward are the original's: at `click[buy now]` the
share of wanted attributes, options and price that were met, times how well the kind of product fits. A fork plays the
history again. Where the original draws prices without a seed, ours are the same in every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ludus.envs.adapters.live import Held, Live, forked, not_copied
from ludus.envs.world import Split, action_of
from ludus.types import End, Explained, Message, Step, Task

INSTRUCTION = Message(
    "system",
    "You are in a web shop. Buy what the instruction asks for. Write one action per turn, after Action:\n"
    "search[red shoes] (from the page with the search bar)\n"
    "click[b07xyz1234] (a product, an option, or a button such as next >, < prev, back to search, description)\n"
    "click[buy now] (ends the task; choose the options before)",
)

INSTALL = (
    "git clone https://github.com/princeton-nlp/WebShop, and in it, with an environment of its own (Python 3.8, "
    "Java): ./setup.sh -d small, or -d all"
)
DATA = ("data/items_shuffle_1000.json", "data/items_ins_v2_1000.json", "data/items_human_ins.json")
INDEXES = {100: "indexes_100", 1000: "indexes_1k", 100_000: "indexes_100k", None: "indexes"}

ACTION = re.compile(r"\b(search|click)\s*\[(.*)\]", re.IGNORECASE)
OPERATORS = (
    "<r>",
    "<a>",
    "<c>",
    "<q>",
)  # first words of a search that list products for developers

PROGRAM = r"""
import json, os, random, sys
out = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)  # what the shop prints is no answer
settings = json.loads(sys.argv[1])
sys.path.insert(0, os.getcwd())

def tell(**said):
    out.write(json.dumps(said) + "\n")
    out.flush()

try:
    random.seed(0)
    from web_agent_site.envs.web_agent_text_env import WebAgentTextEnv
    first = WebAgentTextEnv(**settings)
    server = first.server
except BaseException as error:
    tell(error="%s: %s" % (type(error).__name__, error))
    raise
tell(goals=len(server.goals))
del settings["num_products"], settings["human_goals"]
sessions = {}

def page(env):
    there = env.get_available_actions()
    clicks = [name for name in there["clickables"] if name != "search"]
    at = (env.browser.current_url or "").replace(env.session, "")  # with the options that were chosen
    return {"seen": env.observation, "at": at, "bar": there["has_search_bar"], "clicks": clicks}

for line in sys.stdin:
    asked = json.loads(line)
    name = asked["session"]
    try:
        if asked["do"] == "reset":
            env = WebAgentTextEnv(server=server, session_prefix=name + "-", **settings)
            server.user_sessions.pop(env.session, None)
            env.reset(session=asked["goal"])
            sessions[name] = env
            tell(**page(env))
        elif asked["do"] == "step":
            env = sessions[name]
            _, reward, done, _ = env.step(asked["action"])
            tell(reward=float(reward), done=bool(done), **page(env))
        else:
            env = sessions.pop(name, None)
            if env is not None:
                server.user_sessions.pop(env.session, None)
            tell()
    except Exception as error:
        tell(error="%s: %s" % (type(error).__name__, error))
"""


def wanted(message: str) -> str:
    """The search[...] or click[...] of an action, as the shop has it; empty where there is none.

    The original cannot read a bracket within the brackets, so an option whose name has one cannot be chosen.
    """
    found = ACTION.search(action_of(message.encode(errors="replace").decode()))
    if found is None or not found[2].strip():
        return ""
    kind, what = found[1].lower(), found[2].strip().lower()
    if "[" in what or (kind == "search" and what.startswith(OPERATORS)):
        return ""
    return f"{kind}[{what}]"


class Worker:
    """The shop's process. It is asked by one thread at a time; a question that takes too long ends it."""

    def __init__(self, python: str, folder: Path, settings: dict[str, Any], starts: float) -> None:
        self.lock = threading.Lock()
        try:
            self.process = subprocess.Popen(
                [python, "-c", PROGRAM, json.dumps(settings)],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise Explained(f"{python} cannot be started ({error}); {INSTALL}") from error
        try:
            self.goals = int(self._answer(starts)["goals"])
        except RuntimeError as error:
            self.end()
            raise Explained(f"WebShop in {folder} did not start: {error}\n{INSTALL}") from error

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, seconds: float, **question: Any) -> dict[str, Any]:
        with self.lock:
            pipe = self.process.stdin
            assert pipe is not None
            try:
                pipe.write(json.dumps(question) + "\n")
                pipe.flush()
            except OSError as error:
                self._kill()
                raise RuntimeError("WebShop's process has ended") from error
            return self._answer(seconds)

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        alarm = threading.Timer(seconds, self.process.kill)
        alarm.start()
        try:
            line = self.process.stdout.readline()
        finally:
            alarm.cancel()
        if not line:
            self._kill()
            raise RuntimeError(f"WebShop's process ended, or gave no answer for {seconds:g} s")
        said = json.loads(line)
        if "error" in said:
            raise RuntimeError(said["error"])
        return said

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self._kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what could not be written any more
                if pipe is not None:
                    pipe.close()


class Front:
    """The process of one environment, started when it is first needed and again after it died (`restarts`)."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.restarts = 0
        self.names = itertools.count()
        self._lock = threading.Lock()

    def there(self, *how: Any) -> Worker:
        with self._lock:
            if self.worker is not None and not self.worker.alive:
                self.worker.end()
                self.worker, self.restarts = None, self.restarts + 1
            if self.worker is None:
                self.worker = Worker(*how)
            return self.worker

    def close(self) -> None:
        with self._lock:
            if self.worker is not None:
                self.worker.end()
                self.worker = None


@dataclass(frozen=True)
class WebShop:
    """python  the interpreter in which WebShop's requirements are; folder: its repository, with data and search index

    products     100, 1000, 100,000 or None for all: which search index is used
    human_goals  instructions that people wrote (12,087 of them), else generated ones
    test, train  the first 500 goals are the test split, those from 1,500 on are trained on, as in the paper
    text         the original's observation_mode: text, or text_rich, which marks what can be clicked
    listed       whether an observation ends with what can be clicked; info["actions"] has it anyway
    seconds      for one answer; starts: for loading the products
    """

    python: str
    folder: str
    products: int | None = 1000
    human_goals: bool = True
    test: int = 500
    train: int = 1500
    text: Literal["text", "text_rich"] = "text"
    listed: bool = False
    seconds: float = 30.0
    starts: float = 900.0
    front: Front = field(default_factory=Front, compare=False, repr=False)
    name: str = field(default="webshop", kw_only=True)

    def __post_init__(self) -> None:
        if self.products not in INDEXES:
            raise ValueError(f"products={self.products}; give 100, 1000, 100_000 or None")

    @cached_property
    def _folder(self) -> Path:
        """The repository, with everything that it needs."""
        folder = Path(self.folder).expanduser().resolve()
        if not (folder / "web_agent_site").is_dir():
            raise Explained(
                f"WebShop is not in {folder}; {INSTALL}\n(the index's `webshop` lacks the engine)"
            )
        needed = (*DATA, f"search_engine/{INDEXES[self.products]}")
        missing = [name for name in needed if not (folder / name).exists()]
        if missing:
            raise Explained(f"{folder} lacks {', '.join(missing)}; {INSTALL}")
        return folder

    def _worker(self) -> Worker:
        settings = {
            "observation_mode": self.text,
            "num_products": self.products,
            "human_goals": self.human_goals,
        }
        python = shutil.which(self.python) or str(Path(self.python).expanduser().absolute())
        return self.front.there(python, self._folder, settings, self.starts)

    @cached_property
    def _goals(self) -> dict[Split, range]:
        goals = self._worker().goals
        if goals <= self.train or goals < self.test:
            raise ValueError(
                f"there are {goals} goals; give test={goals // 5}, train={goals // 5}, say"
            )
        return {"test": range(self.test), "train": range(self.train, goals)}

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            Task(
                f"{self.name}-{goal}",
                (INSTRUCTION,),
                env=self.name,
                extras={"split": split, "goal": goal},
            )
            for goal in self._goals[split]
        )

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the goal fixes everything."""
        worker = await asyncio.to_thread(self._worker)
        match task.extras:
            case {"split": "train" | "test" as split, "goal": int(goal)} if (
                goal in self._goals[split] and task.env == self.name
            ):
                name = f"s{next(self.front.names)}"
            case _:
                raise ValueError(
                    f"task {task.id!r} with extras {dict(task.extras)} is none of {self.name}; "
                    "take tasks from env.tasks('train') or env.tasks('test')"
                )
        page = await self._ask(worker, do="reset", session=name, goal=goal)
        seen = self._shown(page)
        live = Live(task, seed, (), seen, held=Held([worker, name, page]))
        return Step(live, seen, info={"actions": actions(page)})

    async def step(self, state: Live, action: str) -> Step:
        held = state.enter()
        if held is None:
            raise ValueError("this state was closed; call reset for a new one")
        worker, name, before = held
        said = wanted(action)
        page, valid = before, False
        if said:
            page = await self._ask(worker, do="step", session=name, action=said)
            valid = said.startswith("search") or said[len("click[") : -1] in before["clicks"]
        held[2] = page
        done, reward = (page["done"], page["reward"]) if said else (False, 0.0)
        seen = self._shown(page)
        end = None if not done else End.SOLVED if reward >= 1 else End.FAILED
        info = {"actions": actions(page), "valid": valid, "anchor": before["at"]}
        return Step(state.after(action, seen, done), seen, reward, end, info)

    async def fork(self, state: Live) -> Live:
        return await forked(self, state, not_copied)

    async def close(self, state: Live) -> None:
        held, state.held.thing = state.held.thing, None
        if held is not None and held[0].alive:
            await self._ask(held[0], do="close", session=held[1])

    async def _ask(self, worker: Worker, **question: Any) -> dict[str, Any]:
        return await asyncio.to_thread(worker.ask, self.seconds, **question)

    def _shown(self, page: dict[str, Any]) -> str:
        if not self.listed:
            return page["seen"]
        return f"{page['seen']}\n\nYou can: {', '.join(actions(page))}"


def actions(page: dict[str, Any]) -> tuple[str, ...]:
    """What can be done on a page."""
    search = ("search[...]",) if page["bar"] else ()
    return (*search, *(f"click[{name}]" for name in page["clicks"] if "[" not in name))
