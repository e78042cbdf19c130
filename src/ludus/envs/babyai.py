"""BabyAI: a robot in rooms with doors, keys, boxes and balls, told what to do in a sentence (arXiv:1810.08272).

The embodied family of AgentGym-RL (arXiv:2509.08755): its 40 levels on the `minigrid` package, with actions in words,
such as `go to red ball 1`, that a breadth-first search over the cells in sight turns into MiniGrid's moves. What is
seen is told in words, or shown as a picture for policies that read images.

What the original does and this does not: paths through closed doors and through cells out of sight; `move forward`
refused for a wall behind; no action that opens a box, so that a level cannot be solved; an object numbered differently
in the description and in an action; `then` and `after you` of the mission replaced by `and`; a success that took more
than 5/9 of MiniGrid's limit not taken as an end; a reward paid again for every unknown action. `scoring="original"`
brings the last two back, for comparison.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ludus.envs.world import Split, action_of, listed, one_of, refuse_if_over
from ludus.types import End, Image, Message, Part, Step, Task

# Level 1 first, as AgentGym numbers them: its item i is level i mod 40 + 1 with the seed i div 40.
LEVELS = tuple(
    f"BabyAI-{name}"
    for name in (
        "GoToRedBallGrey-v0 GoToRedBall-v0 GoToRedBallNoDists-v0 GoToObjS6-v1 GoToLocalS8N7-v0 GoToObjMazeS7-v0 "
        "GoToImpUnlock-v0 GoToSeqS5R2-v0 GoToRedBlueBall-v0 GoToDoor-v0 GoToObjDoor-v0 Open-v0 OpenRedDoor-v0 "
        "OpenDoorLoc-v0 OpenRedBlueDoorsDebug-v0 OpenDoorsOrderN4Debug-v0 Pickup-v0 UnblockPickup-v0 PickupLoc-v0 "
        "PickupDistDebug-v0 PickupAbove-v0 PutNextLocalS6N4-v0 PutNextS7N4Carrying-v0 Unlock-v0 UnlockLocalDist-v0 "
        "KeyInBox-v0 UnlockPickupDist-v0 BlockedUnlockPickup-v0 UnlockToUnlock-v0 ActionObjDoor-v0 FindObjS7-v0 "
        "KeyCorridorS6R3-v0 OneRoomS20-v0 MoveTwoAcrossS8N9-v0 SynthS5R2-v0 SynthLoc-v0 SynthSeq-v0 MiniBossLevel-v0 "
        "BossLevel-v0 BossLevelNoUnlock-v0"
    ).split()
)

# Level 16's missions about two doors cannot be solved by anybody in minigrid 3.2: its strict check judges the move that
# opens the first door as a wrong opening of the second. They are left as they are; leave 16 out of `levels` if need be.
NOT_FOR_THE_BOT = frozenset({23, 26})  # levels that minigrid says its bot cannot solve

INSTRUCTION = Message(
    "system",
    "You are a robot in a building with rooms. Do what the goal says. Write one action per turn, after Action:\n"
    "turn left, turn right, move forward\n"
    "go to red ball 1 (walks up to it and faces it)\n"
    "pick up red ball 1 (walks up to it and takes it; you carry one thing at most)\n"
    "drop (puts down what you carry, in front of you)\n"
    "toggle (opens or closes the door, or opens the box, in front of you)\n"
    "go through blue open door 1\n"
    "toggle and go through blue closed door 1 (a locked door wants a key of its colour in your hands)\n"
    "check available actions\n"
    "Things of one name are numbered, the nearest first, anew in every turn.",
)

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, NOTHING = range(7)  # MiniGrid's moves
HEADINGS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # MiniGrid's directions: east, south, west, north

Cell = tuple[int, int]
Moves = tuple[int, ...]


# ---------------------------------------------------------------------------------------------- what is seen


@dataclass(frozen=True)
class Thing:
    """Something in sight. `ahead` and `right` are its distances in cells as the robot faces; left is negative."""

    name: str
    number: int
    cell: Cell
    ahead: int
    right: int

    @property
    def label(self) -> str:
        return f"{self.name} {self.number}"

    def __str__(self) -> str:
        side = f"{abs(self.right)} {'right' if self.right > 0 else 'left'}" if self.right else ""
        where = " and ".join(
            part for part in (f"{self.ahead} ahead" * (self.ahead > 0), side) if part
        )
        return f"{self.label} ({where})"


@dataclass(frozen=True)
class View:
    """What the robot knows at one moment.

    things  nearest first, without walls and what is carried
    free    cells in sight that can be walked on, the robot's own among them
    wall    cells ahead to the nearest wall in sight, or 0
    held    name of what is carried, or ""
    """

    at: Cell
    heading: int
    things: tuple[Thing, ...]
    free: frozenset[Cell]
    wall: int
    held: str

    @property
    def front(self) -> Cell:
        return _ahead(self.at, self.heading)

    @property
    def faced(self) -> Thing | None:
        return next((thing for thing in self.things if thing.cell == self.front), None)

    def __str__(self) -> str:
        seen = ", ".join(str(thing) for thing in self.things)
        wall = f" A wall is {self.wall} ahead." if self.wall else ""
        return f"You see: {seen or 'nothing'}.{wall} You carry {self.held or 'nothing'}."


def look(game: Any) -> View:
    """The view of a MiniGrid environment's robot."""
    grid, seen = (
        game.gen_obs_grid()
    )  # turned so that the robot is in the middle of the last row, facing up
    at = (int(game.agent_pos[0]), int(game.agent_pos[1]))
    heading = int(game.agent_dir)
    forward, right = HEADINGS[heading], HEADINGS[(heading + 1) % 4]
    found: list[tuple[int, int, str, Cell]] = []
    free = {at}
    walls: list[int] = []
    for column, row in np.argwhere(seen).tolist():
        to_right, ahead = column - grid.width // 2, grid.height - 1 - row
        if ahead == to_right == 0:  # what is carried is drawn on the robot's own cell
            continue
        cell = (
            at[0] + forward[0] * ahead + right[0] * to_right,
            at[1] + forward[1] * ahead + right[1] * to_right,
        )
        thing = grid.get(column, row)
        if thing is None or thing.can_overlap():
            free.add(cell)
        if thing is not None and thing.type == "wall":
            walls += [ahead] if to_right == 0 else []
        elif thing is not None and thing.type != "floor":
            found.append((ahead, to_right, _name(thing), cell))
    counts: dict[str, int] = {}
    things = []
    for ahead, to_right, name, cell in sorted(
        found, key=lambda each: (each[0] + abs(each[1]), each)
    ):
        counts[name] = counts.get(name, 0) + 1
        things.append(Thing(name, counts[name], cell, ahead, to_right))
    held = _name(game.carrying) if game.carrying else ""
    return View(at, heading, tuple(things), frozenset(free), min(walls, default=0), held)


def _name(thing: Any) -> str:
    if thing.type != "door":
        return f"{thing.color} {thing.type}"
    state = "open" if thing.is_open else "locked" if thing.is_locked else "closed"
    return f"{thing.color} {state} door"


def _ahead(cell: Cell, heading: int) -> Cell:
    return cell[0] + HEADINGS[heading][0], cell[1] + HEADINGS[heading][1]


# ---------------------------------------------------------------------------------------------- what can be done


def path(view: View, goal: Cell, arrive: bool) -> Moves | None:
    """The fewest moves after which the robot stands on `goal` (arrive), or else in front of it and faces it.

    A breadth-first search over (cell, heading), through free cells in sight alone; None where there is no way.
    """
    start = (view.at, view.heading)
    came: dict[tuple[Cell, int], tuple[tuple[Cell, int], int] | None] = {start: None}
    queue = deque([start])
    while queue:
        pose = queue.popleft()
        cell, heading = pose
        if goal == (cell if arrive else _ahead(cell, heading)):
            moves: list[int] = []
            while (step := came[pose]) is not None:
                pose, move = step
                moves.append(move)
            return tuple(reversed(moves))
        nexts = (
            ((_ahead(cell, heading), heading), FORWARD),
            ((cell, (heading - 1) % 4), LEFT),
            ((cell, (heading + 1) % 4), RIGHT),
        )
        for after, move in nexts:
            if after[0] in view.free and after not in came:
                came[after] = (pose, move)
                queue.append(after)
    return None


def choices(view: View) -> Mapping[str, Moves]:
    """Every action that can be done now, and the moves that it means."""
    offered: dict[str, Moves] = {"turn left": (LEFT,), "turn right": (RIGHT,)}
    if view.front in view.free:
        offered["move forward"] = (FORWARD,)
    faced = view.faced
    if view.held and faced is None and view.front in view.free:
        offered["drop"] = (DROP,)
    if faced is not None and (faced.name.endswith("box") or _opens(view, faced)):
        offered["toggle"] = (TOGGLE,)
    for thing in view.things:
        to = path(view, thing.cell, arrive=False)
        if to is None:
            continue
        # One who stands there already waits for one move: a goal of going there is judged after a move.
        offered[f"go to {thing.label}"] = to or (NOTHING,)
        if "door" not in thing.name and "goal" not in thing.name and not view.held:
            offered[f"pick up {thing.label}"] = (*to, PICK_UP)
        if "open door" in thing.name and (through := path(view, thing.cell, arrive=True)):
            offered[f"go through {thing.label}"] = through
        elif "door" in thing.name and _opens(view, thing):
            offered[f"toggle and go through {thing.label}"] = (*to, TOGGLE, FORWARD)
    return offered


def _opens(view: View, door: Thing) -> bool:
    """Whether toggling this thing as a door does something: a locked one wants a key of its colour."""
    colour, *_ = door.name.split()
    return "door" in door.name and ("locked" not in door.name or view.held == f"{colour} key")


def understood(said: str, offered: Mapping[str, Moves]) -> str:
    """The action that was meant: `pickup` is `pick up`, and a name without a number is that of the nearest."""
    words = " ".join(said.lower().split())
    if words.startswith("pickup "):
        words = "pick up " + words.removeprefix("pickup ")
    return f"{words} 1" if f"{words} 1" in offered else words


def refusal(view: View, action: str) -> str:
    """Why an action cannot be done."""
    verb, thing = next(
        (
            (verb, thing)
            for thing in view.things
            for verb in ("toggle and go through", "go through", "pick up", "go to")
            if action == f"{verb} {thing.label}"
        ),
        ("", None),
    )
    match action:
        case "move forward":
            return "Something is in the way."
        case "drop":
            return "There is no free cell in front of you." if view.held else "You carry nothing."
        case "toggle":
            return "There is nothing in front of you that you can open or close."
    if thing is None:
        return "That is no action, or what it names is not in sight."
    if path(view, thing.cell, arrive=False) is None:
        return f"You see no free way to {thing.label}."
    if verb == "pick up" and view.held:
        return f"You already carry a {view.held}."
    if "locked" in thing.name:
        return f"{thing.label} is locked; you need a key of its colour in your hands."
    return f"You cannot {verb} {thing.label}."


# ---------------------------------------------------------------------------------------------- the environment


@dataclass(eq=False)
class State:
    """A game under way: MiniGrid's environment changes in place, and `fork` copies it.

    last, score  reward of the last action that did something and the sum of rewards, for the original scoring
    bot          minigrid's bot, once the expert was asked; it is told of every move
    """

    level: int
    game: Any
    over: bool = False
    last: float = 0.0
    score: float = 0.0
    bot: Any = None

    @property
    def goal(self) -> str:
        return self.game.mission


@dataclass(frozen=True)
class BabyAI:
    """The 40 levels, or some of them.

    levels   1 to 40
    train    seeds per level of the train split: 0, 1, ...
    test     seeds per level of the test split, those after the train split's
    scoring  minigrid: 1 - 0.9 * moves / limit at success; success: 1; original: the sum of the rewards so far, as
             AgentGym's client returns it (use AgentLoop(total="last")), with its defects
    sight    words, or a picture of what the robot sees (view) or of the whole building (map) beside the list of actions
    tile     pixels of a cell's side in pictures
    """

    levels: Sequence[int] = tuple(range(1, 41))
    train: int = 20
    test: int = 3
    scoring: Literal["minigrid", "success", "original"] = "minigrid"
    sight: Literal["words", "view", "map"] = "words"
    tile: int = 16
    name: str = field(default="babyai", kw_only=True)

    def __post_init__(self) -> None:
        wrong = [level for level in self.levels if not 1 <= level <= len(LEVELS)]
        if wrong or not self.levels:
            raise ValueError(
                f"levels {wrong or list(self.levels)}; give some of 1 to {len(LEVELS)}"
            )

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        seeds = range(self.train) if split == "train" else range(self.train, self.train + self.test)
        return tuple(
            self.item((level - 1) + len(LEVELS) * seed) for seed in seeds for level in self.levels
        )

    def item(self, index: int) -> Task:
        """AgentGym's item of this number."""
        seed, level = divmod(index, len(LEVELS))
        return Task(
            id=f"{self.name}-{index}",
            prompt=(INSTRUCTION,),
            env=self.name,
            difficulty=level + 1,
            domain=LEVELS[level],
            extras={"level": level + 1, "seed": seed},
        )

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the building and the mission."""
        match task.extras:
            case {"level": int(level), "seed": int(number)} if (
                1 <= level <= len(LEVELS) and number >= 0 and task.env == self.name
            ):
                state = State(level, building(level, number))
                return Step(state, self._told(state, f"Goal: {state.goal}\n"))
        raise ValueError(
            f"task {task.id!r} with extras {dict(task.extras)} is none of {self.name}; "
            "take tasks from env.tasks('train') or env.tasks('test'), or env.item(number)"
        )

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        view = look(state.game)
        offered = choices(view)
        said = understood(action_of(action), offered)
        info: dict[str, Any] = {
            "anchor": str(view),
            "valid": said in offered,
            "actions": tuple(offered),
        }
        if said == "check available actions":
            step = self._answered(state, "", {**info, "valid": True})
        elif said not in offered:
            step = self._answered(state, f"{refusal(view, said)}\n", info)
        else:
            step = self._moved(state, offered[said], info)
        state.score += step.reward
        if self.scoring == "original":
            step = Step(step.state, step.observation, state.score, step.end, step.info)
        state.over = step.end is not None
        return step

    async def fork(self, state: State) -> State:
        return copy.deepcopy(state)

    async def close(self, state: State) -> None:
        """Nothing to free."""

    def _answered(self, state: State, text: str, info: Mapping[str, Any]) -> Step:
        """Nothing happened; the original pays its last reward once more."""
        again = state.last if self.scoring == "original" else 0.0
        return Step(state, self._told(state, text), again, info=info)

    def _moved(self, state: State, moves: Moves, info: Mapping[str, Any]) -> Step:
        original = self.scoring == "original"
        value, solved, end = 0.0, False, None
        for move in moves:
            _, value, ended, late, _ = state.game.step(move)
            if state.bot is not None:
                state.bot.replan(move)
            solved = bool(ended and value > 0)
            if ended:
                end = End.SOLVED if solved else End.FAILED
            elif late and not original:
                end = End.OUT_OF_TURNS  # MiniGrid's own limit, in moves
            if end is not None:
                break
        if original and value <= 0.5:
            end = None
        state.last = float(value)
        info = {**info, "moves": state.game.step_count, "limit": state.game.max_steps}
        told = self._told(state, "The goal is reached.\n" if end is End.SOLVED else "")
        return Step(
            state, told, float(solved) if self.scoring == "success" else state.last, end, info
        )

    def _told(self, state: State, first: str) -> str | tuple[Part, ...]:
        view = look(state.game)
        actions = f"You can: {', '.join(choices(view))}"
        if self.sight == "words":
            return f"{first}{view}\n{actions}"
        frame = state.game.get_frame(
            highlight=self.sight == "map", tile_size=self.tile, agent_pov=self.sight == "view"
        )
        return (f"{first}You carry {view.held or 'nothing'}.\n{actions}", png(frame))

    @property
    def views(self) -> Mapping[str, Callable[[State], object]]:
        return {"render": lambda state: png(state.game.get_frame(tile_size=self.tile))}

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        return listed(
            INSTRUCTION.text,
            *_REFUSALS,
            _MISSIONS,
            "Goal You see can A wall ahead right left reached",
        )

    def expert(self, state: State) -> str:
        """Goes to, picks up or opens what the mission names where it is in sight.

        If it is not, it looks around first, and puts down what it carries; everything else is left to minigrid's bot,
        move by move, which takes milliseconds, or much longer where something is carried. From then on the bot is told
        of every move. It gives up on NOT_FOR_THE_BOT.
        """
        view = look(state.game)
        if type(state.game.instrs).__name__ in _BEGIN:
            if direct := _direct(state.game.instrs, view):
                return direct
            if view.held and state.bot is None:
                return "drop" if "drop" in choices(view) else "turn right"
            if state.game.step_count < 4 and state.bot is None:
                return "turn right"
        if state.bot is None:
            from minigrid.utils.baby_ai_bot import BabyAIBot

            state.bot = _Planned(BabyAIBot(state.game))
        match state.bot.plan:
            case n if n == PICK_UP and view.faced is not None:
                return f"pick up {view.faced.label}"
            case n:
                return {
                    LEFT: "turn left",
                    RIGHT: "turn right",
                    FORWARD: "move forward",
                    DROP: "drop",
                }.get(n, "toggle" if n == TOGGLE else "check available actions")

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        return one_of(rng, tuple(choices(look(state.game))))


def _direct(mission: Any, view: View) -> str:
    """The one action that does a mission about a thing in sight, or ""."""
    cells = {tuple(map(int, cell)) for cell in mission.desc.obj_poss}
    offered = choices(view)
    begin = _BEGIN[type(mission).__name__]
    actions = (f"{begin} {thing.label}" for thing in view.things if thing.cell in cells)
    return next((action for action in actions if action in offered), "")


_BEGIN = {
    "GoToInstr": "go to",
    "PickupInstr": "pick up",
    "OpenInstr": "toggle and go through",
}


class _Planned:
    """minigrid's bot, with the move that it wants next; when it has given up, it looks around."""

    def __init__(self, bot: Any) -> None:
        self.bot, self.plan, self.gave_up = bot, int(bot.replan()), False

    def replan(self, move: int) -> None:
        from minigrid.utils.baby_ai_bot import DisappearedBoxError

        try:
            self.plan = RIGHT if self.gave_up else int(self.bot.replan(move))
        except DisappearedBoxError:  # it does not go on where somebody opened a box
            self.gave_up, self.plan = True, RIGHT


def building(level: int, seed: int) -> Any:
    """MiniGrid's environment of a level, reset."""
    try:
        import gymnasium
        import minigrid  # noqa: F401  (names the levels)
    except ImportError as error:
        raise ImportError("BabyAI needs minigrid; pip install minigrid") from error
    game = gymnasium.make(LEVELS[level - 1], disable_env_checker=True).unwrapped
    with contextlib.redirect_stdout(io.StringIO()):  # minigrid prints every mission that it rejects
        game.reset(seed=seed)
    return game


def png(frame: np.ndarray) -> Image:
    """[height, width, 3] uint8 as a picture of a message."""
    from PIL import Image as Pictures

    data = io.BytesIO()
    Pictures.fromarray(frame).save(data, "PNG")
    return Image(data.getvalue())


_REFUSALS = (
    "Something is in the way. There is no free cell in front of you. You carry nothing.",
    "There is nothing in front of you that you can open or close.",
    "That is no action, or what it names is not in sight. You see no free way to",
    "You already carry a. is locked; you need a key of its colour in your hands. You cannot",
)
_MISSIONS = (
    "go to the a red green blue purple yellow grey ball box key door object locked open closed on your left right "
    "in front of you behind you pick up put next to after you and then goal"
)
