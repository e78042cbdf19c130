"""2048: slide the tiles; equal ones that meet become one of twice the number, until the target is reached.

    0 0 2 2      left     4 0 0 0
    0 0 0 0               0 0 0 0      and then a new 2, or one time in ten a 4, on an empty square
    4 0 0 4               8 0 0 0
    0 0 2 4               2 4 0 0

The game of GEM (arXiv:2510.01051) and lmgame-Bench (arXiv:2505.15146). A target of 128 is a game of about 70
moves and a good beginning; 2048 itself takes a thousand. New tiles depend on the seed and the number of the move
alone, so a state moved twice meets the same tile, and a fork is the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ludus.envs.games.shared import GIVE_UP, INVALID, MOVES, given_up, listed_tasks
from ludus.envs.world import Split, action_of, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

Row = tuple[int, ...]
Board = tuple[Row, ...]

ASK = (
    "Make a tile of {target}. Write one word: up, down, left or right. All tiles slide that way, 0 is an empty square, "
    "and two equal tiles that meet become one of twice the number. Write give up if you cannot go on."
)
STILL = "nothing moves"


@dataclass(frozen=True)
class State:
    """`luck` is the name of the numbers that say where new tiles appear; `moves` were made."""

    board: Board
    moves: int = 0
    luck: Key = field(default_factory=lambda: Key(0), repr=False)
    over: bool = False


# ---------------------------------------------------------------------------------------------- the rules


@lru_cache(maxsize=65536)  # a game sees few different rows, and the expert each of them many times
def slid(row: Row) -> tuple[Row, int]:
    """A row pushed to the left, and the sum of the tiles that were made. A tile that was made does not merge again.

    slid((2, 2, 2, 2)) = ((4, 4, 0, 0), 8)    slid((2, 2, 4, 0)) = ((4, 4, 0, 0), 4)
    """
    tiles, points = [tile for tile in row if tile], 0
    made: list[int] = []
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile:
            tile += tiles.pop(0)
            points += tile
        made.append(tile)
    return (*made, *[0] * (len(row) - len(made))), points


def moved(board: Board, direction: str) -> tuple[Board, int]:
    """The board after a slide in one of MOVES, before the new tile, and the points."""
    upright = direction in ("up", "down")
    back = -1 if direction in ("right", "down") else 1
    lines = tuple(zip(*board, strict=True)) if upright else board
    done = [slid(line[::back]) for line in lines]
    pushed = tuple(line[::back] for line, _ in done)
    points = sum(more for _, more in done)
    return (tuple(zip(*pushed, strict=True)) if upright else pushed), points


def with_tile(board: Board, rng: np.random.Generator) -> Board:
    """A 2, or one time in ten a 4, on one of the empty squares."""
    empty = [(r, c) for r, row in enumerate(board) for c, tile in enumerate(row) if not tile]
    at, tile = one_of(rng, empty), 4 if rng.random() < 0.1 else 2
    return tuple(
        tuple(tile if (r, c) == at else old for c, old in enumerate(row))
        for r, row in enumerate(board)
    )


def ways(board: Board) -> tuple[str, ...]:
    """The directions in which something moves."""
    return tuple(way for way in MOVES if moved(board, way)[0] != board)


def drawn(board: Board) -> str:
    return "\n".join(" ".join(map(str, row)) for row in board)


# ---------------------------------------------------------------------------------------------- the expert


def worth(board: Board) -> float:
    """How well the tiles are laid out: sum of tile / 2^place along a snake, + 8 an empty square, + 4 an equal pair.

    The snake begins at the top left (first row to the right, second to the left ...). Along it the largest tiles come
    first, so that neighbours in size lie side by side; pairs are two equal tiles that could merge now.
    """
    snake = [tile for i, row in enumerate(board) for tile in (row if i % 2 == 0 else row[::-1])]
    layout = sum(tile / 2**place for place, tile in enumerate(snake))
    lines = (*board, *zip(*board, strict=True))
    pairs = sum(a == b != 0 for line in lines for a, b in pairwise(line))
    return layout + 8 * snake.count(0) + 4 * pairs


def best_way(board: Board, depth: int) -> str:
    """Expectimax: the direction with the best average over the places of the next new 2, `depth` moves ahead."""
    return max(ways(board), key=lambda way: _expected(moved(board, way)[0], depth - 1))


def _expected(board: Board, depth: int) -> float:
    if not depth:
        return worth(board)
    values = []
    for r, row in enumerate(board):
        for c, tile in enumerate(row):
            if not tile:
                new = (*board[:r], (*row[:c], 2, *row[c + 1 :]), *board[r + 1 :])
                after = [_expected(moved(new, way)[0], depth - 1) for way in ways(new)]
                values.append(max(after, default=0.0))  # no way left: the game is lost
    return sum(values) / len(values)


# ---------------------------------------------------------------------------------------------- the environment


@dataclass(frozen=True)
class Twenty48:
    """Reward `solved` for the target tile, and `point` for every point of the usual score, the sum of the tiles made
    (solved=0, point=1 pays that score alone; lmgame-Bench counts by it).

    target  a power of two; the game is won when a tile has it
    size    rows and columns
    depth   moves that the expert looks ahead; with 1 it makes 128 in 60 to 120 moves, with 2 it takes 30 times as long
            and hardly more than 90
    """

    target: int = 128
    size: int = 4
    solved: float = 1.0
    point: float = 0.0
    depth: int = 1
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "2048"

    def __post_init__(self) -> None:
        if self.target < 8 or self.target & (self.target - 1) or not 3 <= self.size <= 6:
            raise ValueError(
                f"target={self.target}, size={self.size}; give a power of two from 8, and a size from 3 to 6"
            )

    def start(self, split: Split, index: int) -> State:
        """Two tiles; the test split gets the boards that hash to it."""
        key = Key(self.seed, ("2048", self.size, split, index))
        empty = ((0,) * self.size,) * self.size
        board = draw_for(
            split, key, lambda rng: with_tile(with_tile(empty, rng), rng), lambda board: board
        )
        return State(board, luck=Key(0, key.path))

    # ------------------------------------------------------------------------------------ players

    @property
    def instruction(self) -> Message:
        return Message("system", ASK.format(target=self.target))

    def words(self) -> tuple[str, ...]:
        return listed(self.instruction.text, INVALID, STILL)

    def expert(self, state: State) -> str:
        return best_way(state.board, self.depth)

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Any way in which something moves."""
        return one_of(rng, ways(state.board))

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """The difficulty is how often tiles must double."""
        count = self.train if split == "train" else self.test
        return listed_tasks(self, split, self.instruction, [self.target.bit_length() - 2.0] * count)

    async def reset(self, task: Task, seed: int) -> Step:
        """The task fixes the first board, and `seed` the new tiles: the answers of a group meet the same luck."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(replace(state, luck=Key(seed, state.luck.path)), drawn(state.board))

    async def step(self, state: State, action: str) -> Step:
        """A slide that moves nothing brings no new tile. `info` holds the anchor, and whether something moved."""
        refuse_if_over(state.over)
        said = action_of(action).lower()
        if said == GIVE_UP:
            return given_up(state)
        board, points = moved(state.board, said) if said in MOVES else (state.board, 0)
        info = {"anchor": drawn(state.board), "valid": board != state.board, "points": points}
        if board == state.board:
            why = STILL if said in MOVES else INVALID
            return Step(state, f"{why}\n{drawn(board)}", info=info)
        reward, after = self.point * points, replace(state, board=board, moves=state.moves + 1)
        if max(max(row) for row in board) >= self.target:
            done = replace(after, over=True)
            return Step(done, drawn(board), reward + self.solved, End.SOLVED, info)
        new = with_tile(board, (state.luck / state.moves).generator())
        if ways(new):
            return Step(replace(after, board=new), drawn(new), reward, info=info)
        return Step(replace(after, board=new, over=True), drawn(new), reward, End.FAILED, info)

    async def fork(self, state: State) -> State:
        return state
