"""Pictures of coloured shapes, and questions about them, answered in two attempts with a reflection between them.

    [picture] How many are red?
    <think>red - blue - - green - red -</think><answer>2</answer><reflection>8 wrong</reflection>
    <think>red - blue - - green - - -</think><answer>1</answer>

A thought names the colour of each of the nine cells, row by row, or the shape where shapes are asked for. The answer
follows from it, and a second attempt from the first one and the cells that the reflection names. What is in the picture
is known from the state that it was drawn from.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image as Canvas
from PIL import ImageDraw

from ludus.envs.small.sums import given
from ludus.envs.world import Split, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.types import End, Image, Key, Message, Step, Task

COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 174, 96),
    "blue": (41, 98, 255),
    "yellow": (241, 196, 15),
}
SHAPES = ("circle", "square", "triangle")
KINDS = ("count", "compare", "locate")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
PLACES = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
SIDE = 16  # pixels of a cell
BACKGROUND = (250, 250, 245)
INSTRUCTION = Message("system", "Think, answer, reflect on it, then think and answer again.")
FINE = "fine"  # the reflection that finds nothing wrong
SYMBOLS = ("<", ">", "/", "-")

EMPTY = "-"
Thing = tuple[str, str]  # a colour and a shape
Seen = tuple[str, ...]  # of each cell its colour, or its shape, or EMPTY
Kind = Literal["count", "compare", "locate"]


@dataclass(frozen=True)
class State:
    """What is drawn in each cell, and where in it (pixels from its middle, and half its width); what is asked.

    asked  colours or shapes: one to count, two to compare, one to locate, which is there once
    """

    cells: tuple[Thing | None, ...]
    strokes: tuple[tuple[int, int, int], ...]
    kind: Kind
    asked: tuple[str, ...]
    over: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What may be seen in a cell: the four colours or the three shapes, or nothing."""
        return (*(SHAPES if self.asked[0] in SHAPES else COLOURS), EMPTY)

    @property
    def seen(self) -> Seen:
        """By somebody who sees well."""
        which = int(self.asked[0] in SHAPES)
        return tuple(EMPTY if cell is None else cell[which] for cell in self.cells)

    @property
    def question(self) -> str:
        colours = self.asked[0] in COLOURS
        if self.kind == "locate":
            return f"Where is the {self.asked[0]}{' one' if colours else ''}?"
        named = [thing if colours else f"{thing}s" for thing in self.asked]
        if self.kind == "compare":
            return f"Are more {' or '.join(named)}?"
        return f"How many are {named[0]}?"

    def concluded(self, seen: Seen) -> str:
        """The answer that follows from what was seen."""
        first = seen.count(self.asked[0])
        if self.kind == "count":
            return str(first)
        if self.kind == "locate":
            return PLACES[seen.index(self.asked[0])] if first else "nowhere"
        second = seen.count(self.asked[1])
        if first == second:
            return "equal"
        return self.asked[0] if first > second else self.asked[1]


@lru_cache(4096)
def drawn(cells: tuple[Thing | None, ...], strokes: tuple[tuple[int, int, int], ...]) -> Image:
    """The picture, as PNG."""
    canvas = Canvas.new("RGB", (3 * SIDE, 3 * SIDE), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for index, (cell, (right, down, half)) in enumerate(zip(cells, strokes, strict=True)):
        if cell is None:
            continue
        x = index % 3 * SIDE + SIDE // 2 + right
        y = index // 3 * SIDE + SIDE // 2 + down
        box = (x - half, y - half, x + half, y + half)
        colour = COLOURS[cell[0]]
        if cell[1] == "circle":
            pen.ellipse(box, colour)
        elif cell[1] == "square":
            pen.rectangle(box, colour)
        else:
            pen.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], colour)
    encoded = io.BytesIO()
    canvas.save(encoded, "PNG")
    return Image(encoded.getvalue())


@dataclass(frozen=True)
class Shapes:
    """One turn a task; solved if the last answer is right, whatever came before it.

    filled   share of the cells that have something in them
    slips    what the players see wrongly: the share of the cells, for the beginner; the share of the tasks whose first
             answer is wrong for it, by as few cells as will do, for the expert, who finds them
    noticed  share of the cells that it saw wrongly which a beginner finds in its reflection, and
    doubted  of those that it saw rightly which it takes for wrong
    """

    filled: float = 0.7
    slips: tuple[float, float] = (0.55, 0.3)
    noticed: float = 0.2
    doubted: float = 0.06
    train: int = 4096
    test: int = 256
    seed: int = 0
    name: str = "shapes"

    def start(self, split: Split, index: int) -> State:
        """The test split gets the arrangements that hash to it; kinds of questions take turns."""
        key = Key(self.seed, ("shapes", split, index))
        return draw_for(
            split, key, lambda rng: self._draw(rng, KINDS[index % 3]), lambda state: state.cells
        )

    def _draw(self, rng: np.random.Generator, kind: Kind) -> State | None:
        colours, shapes = rng.integers(len(COLOURS), size=9), rng.integers(len(SHAPES), size=9)
        filled = rng.random(9) < self.filled
        cells = tuple(
            (tuple(COLOURS)[colour], SHAPES[shape]) if there else None
            for colour, shape, there in zip(colours, shapes, filled, strict=True)
        )
        x, y, half = rng.integers(-1, 2, 9), rng.integers(-1, 2, 9), rng.integers(5, 7, 9)
        strokes = tuple(zip(x.tolist(), y.tolist(), half.tolist(), strict=True))
        words = one_of(rng, (tuple(COLOURS), SHAPES))
        if kind == "locate":
            there = State(cells, strokes, kind, words).seen
            words = tuple(word for word in words if there.count(word) == 1)
            return State(cells, strokes, kind, (one_of(rng, words),)) if words else None
        asked = rng.choice(len(words), 1 if kind == "count" else 2, replace=False)
        return State(cells, strokes, kind, tuple(words[i] for i in asked))

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        plural = [f"{shape}s" for shape in SHAPES]
        questions = "How many are Are more or equal Where is the one nowhere"
        said = f"think answer reflection wrong {FINE}"
        names = (*COLOURS, *SHAPES, *plural, *ROWS, *COLUMNS)
        return (*listed(INSTRUCTION.text, questions, said, *names), *SYMBOLS)

    def expert(self, state: State) -> str:
        """Ends in the right answer; a share of the first ones is wrong, and the reflection says where."""
        rng = Key(self.seed, ("expert", repr(state))).generator()
        slipped, seen = [], state.seen
        if rng.random() < self.slips[1]:
            tries = 0
            while state.concluded(seen) == state.concluded(state.seen):
                slipped = rng.choice(9, min(9, 1 + tries // 8), replace=False).tolist()
                seen = misread(state, slipped, rng)
                tries += 1
        return written(state, seen, slipped, rng)

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Sees some cells wrongly, and is as uncertain when it looks again."""
        slipped = np.flatnonzero(rng.random(9) < self.slips[0]).tolist()
        chance = rng.random(9)
        found = [
            cell
            for cell in range(9)
            if chance[cell] < (self.noticed if cell in slipped else self.doubted)
        ]
        return written(state, misread(state, slipped, rng), found, rng)

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        made = []
        for index in range(self.train if split == "train" else self.test):
            state = self.start(split, index)
            made.append(
                Task(
                    id=f"{self.name}-{split}-{index}",
                    prompt=(INSTRUCTION,),
                    answer=state.concluded(state.seen),
                    env=self.name,
                    difficulty=float(KINDS.index(state.kind)),
                    extras={"split": split, "index": index},
                )
            )
        return made

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes picture and question."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, (drawn(state.cells, state.strokes), f" {state.question}"))

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        after = replace(state, over=True)
        if given(action) == state.concluded(state.seen):
            return Step(after, "right", 1.0, End.SOLVED)
        return Step(after, "wrong", 0.0, End.FAILED)

    async def fork(self, state: State) -> State:
        return state


def misread(state: State, cells: Sequence[int], rng: np.random.Generator) -> Seen:
    """What is seen where these cells are taken for something else."""
    others = [[name for name in state.names if name != seen] for seen in state.seen]
    return tuple(
        one_of(rng, others[cell]) if cell in cells else seen for cell, seen in enumerate(state.seen)
    )


def mended(state: State, seen: Seen, found: Sequence[int], rng: np.random.Generator) -> Seen:
    """What the second attempt sees: the cells that the reflection names are looked at again, all else is kept.

    A cell that was right and is named becomes something else.
    """
    doubted = [cell for cell in found if seen[cell] == state.seen[cell]]
    again = misread(state, doubted, rng)
    return tuple(again[cell] if cell in found else seen[cell] for cell in range(9))


def written(state: State, seen: Seen, found: Sequence[int], rng: np.random.Generator) -> str:
    """The five parts, where the first attempt sees this and the reflection names these cells."""
    named = " ".join(str(cell + 1) for cell in sorted(found))
    reflection = f"{named} wrong" if named else FINE
    first, second = attempt(state, seen), attempt(state, mended(state, seen, found, rng))
    return f"{first}<reflection>{reflection}</reflection>{second}"


def attempt(state: State, seen: Seen) -> str:
    return f"<think>{' '.join(seen)}</think><answer>{state.concluded(seen)}</answer>"
