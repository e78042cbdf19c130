"""The small games move by move: what is pushed, coloured, merged, computed and refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

from ludus.envs.games import countdown, frozen_lake, maze, sokoban, twenty48, wordle
from ludus.envs.games.countdown import Countdown
from ludus.envs.games.frozen_lake import FrozenLake, Lake
from ludus.envs.games.guess_number import GuessNumber, State, needed
from ludus.envs.games.maze import Maze
from ludus.envs.games.sokoban import Sokoban
from ludus.envs.games.twenty48 import Twenty48
from ludus.envs.games.wordle import WORDS, Wordle, colours
from ludus.envs.world import World, mixed, play, side
from ludus.types import End, Key, Step

GAMES = [
    Sokoban(train=4, test=4),
    FrozenLake(train=4, test=4),
    FrozenLake(slip=2 / 3, train=4, test=4),
    Maze(train=4, test=4),
    Maze(view="walls", train=4, test=4),
    Countdown(tries=3, train=4, test=4),
    GuessNumber(train=4, test=4),
    Wordle(train=4, test=4),
    Twenty48(train=4, test=4),
]
every = pytest.mark.parametrize("world", GAMES, ids=lambda world: world.name)


def go(world: World, state: Any, *actions: str) -> list[Step]:
    """The steps that these actions lead to, one from the other."""
    steps = []
    for action in actions:
        steps.append(asyncio.run(world.step(state, action)))
        state = steps[-1].state
    return steps


def finished(world: World, states: Iterable[Any]) -> list[Step]:
    """The last steps of the expert's games from these states."""

    async def finish(state: Any) -> Step:
        step = Step(state, "")
        while step.end is None:
            step = await world.step(step.state, world.expert(step.state))
        return step

    async def all_of_them() -> list[Step]:
        return [await finish(state) for state in states]

    return asyncio.run(all_of_them())


def first(world: World, index: int = 0, seed: int = 0) -> Any:
    return asyncio.run(world.reset(world.tasks("test")[index], seed)).state


@every
def test_giving_up_is_an_end_of_its_own_and_pays_nothing(world: World):
    for said in ("give up", "It cannot be done.\nAction: Give up."):
        (step,) = go(world, first(world), said)
        assert step.end is End.GAVE_UP and step.reward == 0
        with pytest.raises(ValueError, match="call reset"):
            go(world, step.state, "up")


@every
def test_a_state_is_a_plain_value_and_its_own_fork(world: World):
    state = first(world)
    assert asyncio.run(world.fork(state)) is state  # type: ignore[attr-defined]
    assert hash(state) == hash(first(world)) and state == first(world)
    rng = np.random.default_rng(0)
    task = world.tasks("test")[1]
    games = [
        asyncio.run(play(world, task, 5, mixed(world, 0.5), np.random.default_rng(9), 12))
        for _ in range(2)
    ]
    assert games[0] == games[1] and world.beginner(state, rng)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: Sokoban(size=(4, 6)), "5 to 10 rows"),
        (lambda: Sokoban(boxes=0), "1 to 3 boxes"),
        (lambda: Sokoban(moves=(5, 4)), "least, most"),
        (lambda: FrozenLake(size=2), "3 to 12"),
        (lambda: FrozenLake(slip=1.1), "slip from 0 to 1"),
        (lambda: Maze(size=(7, 8)), "odd numbers"),
        (lambda: Countdown(count=(1, 4)), "from 2 to 6"),
        (lambda: Countdown(tries=0), "1 try or more"),
        (lambda: GuessNumber(span=(64, 16)), "least, most"),
        (lambda: GuessNumber(span=(2, 2), spare=-2), "at least one guess"),
        (lambda: Wordle(words_known=("apple", "pear")), "pear"),
        (lambda: Twenty48(target=100), "power of two"),
    ],
)
def test_a_world_that_cannot_be_says_what_to_give(make: Callable[[], World], wanted: str):
    with pytest.raises(ValueError, match=wanted):
        make()


# ---------------------------------------------------------------------------------------------- Sokoban

ROOM = """
#######
#-----#
#@$--.#
#-$$--#
#---..#
#######
"""


def test_pushes_against_walls_and_boxes():
    start = sokoban.read(ROOM)
    assert sokoban.drawn(start) == ROOM.strip()

    def rows(*moves: str) -> list[str]:
        state = start
        for move in moves:
            state = sokoban.push(state, move)
        return sokoban.drawn(state).splitlines()

    assert rows("left") == rows()  # a wall
    assert rows("down", "right")[3] == "#@$$--#"  # a box behind a box
    assert rows("right")[2] == "#-@$-.#"
    assert rows("right", "right")[2] == "#--@$.#"
    assert rows("right", "right", "right")[2] == "#---@*#"  # onto the goal
    assert rows("right", "right", "right", "right") == rows("right", "right", "right")  # a wall
    assert rows("right", "right", "right", "up", "right", "down") == [
        *("#######", "#-----#", "#----+#", "#-$$-$#", "#---..#", "#######")
    ]
    down = rows("up", "right", "down")
    assert down == rows("up", "right")  # a box above a box: nothing moved


def test_rewards_of_ragen_and_a_box_that_comes_off_its_goal():
    world = Sokoban(step_reward=-0.1, placed=1.0, solved=10.0)
    start = sokoban.read("######\n#@$.-#\n######")
    crossing = sokoban.read("#######\n#@*-.-#\n#--$--#\n#######")
    steps = go(world, crossing, "right", "right", "left")
    assert [step.reward for step in steps] == pytest.approx([-1.1, 0.9, -0.1])
    assert [step.end for step in steps] == [None] * 3
    (done,) = go(world, start, "right")
    assert done.end is End.SOLVED and done.reward == pytest.approx(10.9)
    (silly,) = go(world, start, "jump")
    assert silly.state == start and silly.reward == -0.1 and not silly.info["valid"]
    with pytest.raises(ValueError, match="one player and a goal for every box"):
        sokoban.read("####\n#@$#\n####")


def test_a_box_in_a_corner_is_lost_and_the_solver_knows():
    start = sokoban.read("######\n#-@--#\n#-$-.#\n#----#\n######")
    way = sokoban.solution(start)
    assert way is not None and len(way) == 4  # round to the left of the box, and two pushes
    world = Sokoban()
    steps = go(replace(world, corners=True), start, "down", "right", "down", "left")
    assert [step.end for step in steps] == [None] * 3 + [End.FAILED]
    # Against the wall below the box is lost too, but in no corner: only the solver knows that.
    assert sokoban.solution(steps[0].state) is None
    stuck = go(world, start, "down", "right", "down", "left")[-1]
    assert stuck.end is None and sokoban.solution(stuck.state) is None
    assert world.expert(stuck.state) == "give up"


@pytest.mark.parametrize("boxes", [1, 2])
def test_levels_can_be_solved_and_their_difficulty_is_the_shortest_solution(boxes: int):
    world = Sokoban(boxes=boxes, moves=(4, 14), train=12, test=12)
    for split in ("train", "test"):
        for index, task in enumerate(world.tasks(split)):
            state = world.start(split, index)
            way = sokoban.solution(state)
            assert way is not None and len(way) == task.difficulty and 4 <= len(way) <= 14
            assert len(state.boxes) == boxes and not state.placed
            assert side(sokoban.drawn(state)) == split
            assert go(world, state, *way)[-1].end is End.SOLVED


# ---------------------------------------------------------------------------------------------- Frozen Lake

LAKE = Lake(4, frozenset([(1, 1), (1, 3), (2, 3), (3, 0)]))  # the 4 x 4 lake of Gymnasium


def test_the_lake_edges_holes_and_goal():
    world, start = FrozenLake(), frozen_lake.State(LAKE)
    assert frozen_lake.drawn(start) == "@---\n-!-!\n---!\n!--*"
    assert [step.state.you for step in go(world, start, "up", "left", "right")] == [
        *((0, 0), (0, 0), (0, 1))
    ]
    fell = go(world, start, "down", "right")[-1]
    assert fell.end is End.FAILED and fell.reward == 0
    steps = go(world, start, "down", "down", "right", "right", "down", "right")
    assert [step.end for step in steps] == [None] * 5 + [End.SOLVED] and steps[-1].reward == 1
    assert frozen_lake.way(LAKE) is not None and len(frozen_lake.way(LAKE) or ()) == 6
    assert frozen_lake.way(Lake(3, frozenset([(0, 1), (1, 0)]))) is None


def test_slips_have_the_stated_shares_and_the_same_luck_for_the_same_step():
    state = frozen_lake.State(LAKE)
    drawn = Counter(
        frozen_lake.slipped(replace(state, steps=steps, luck=Key(3, ("luck",))), "right", 2 / 3)
        for steps in range(3000)
    )
    assert set(drawn) == {"right", "up", "down"}
    # three standard deviations of a share of 1/3 of 3000 are 77
    assert all(abs(count - 1000) < 77 for count in drawn.values())
    assert frozen_lake.outcomes("up", 0.5) == {"up": 0.5, "left": 0.25, "right": 0.25}
    world = FrozenLake(slip=2 / 3, train=4, test=4)
    assert go(world, state, "down") == go(world, state, "down")
    assert len({first(world, seed=seed).luck for seed in range(5)}) == 5


def test_the_slippery_lake_is_won_as_often_as_value_iteration_says():
    # The best policy of this lake wins 0.8235 of all games (Gymnasium's FrozenLake-v1, undiscounted and endless).
    world = FrozenLake(slip=2 / 3, train=4, test=4)
    chance = max(frozen_lake.chances(LAKE, 2 / 3)[(0, 0)].values())
    assert 0.78 < chance < 0.8235  # discounted by 0.999 a step
    starts = (frozen_lake.State(LAKE, luck=Key(seed, ("luck",))) for seed in range(300))
    won = sum(step.end is End.SOLVED for step in finished(world, starts))
    assert abs(won / 300 - 0.8235) < 3 * (0.8235 * 0.1765 / 300) ** 0.5
    # Where nothing slips the chance is the discount to the power of the steps.
    assert frozen_lake.chances(LAKE, 0.0)[(0, 0)]["down"] == pytest.approx(0.999**6)


# ---------------------------------------------------------------------------------------------- Maze

WAYS = frozenset([(1, 1), (1, 2), (1, 3), (2, 3), (3, 3)])
PLAN = maze.Plan(5, 5, WAYS, (3, 3))
AT = maze.State(PLAN, (1, 1), frozenset([(1, 1)]))


def test_both_views_of_a_maze_and_its_walls():
    assert maze.drawn(AT) == "#####\n#@--#\n###-#\n###*#\n#####"
    assert maze.told(AT) == "goal 3 3 you 1 1 walls up down left"
    steps = go(Maze(view="walls"), AT, "up", "right", "right", "down", "down")
    assert [step.observation for step in steps] == [
        "goal 3 3 you 1 1 walls up down left",
        "goal 3 3 you 1 2 walls up down",
        "goal 3 3 you 1 3 walls up right",
        "goal 3 3 you 2 3 walls left right",
        "you are at the goal",
    ]
    assert [step.reward for step in steps] == [0, 0, 0, 0, 1] and steps[-1].end is End.SOLVED
    assert steps[0].state == AT


def test_rewards_of_lmrl_gym():
    world = Maze(goal=0.0, step_reward=-1.0, invalid=-4.0)
    steps = go(world, AT, "up", "fly", "right", "right", "down", "down")
    assert [step.reward for step in steps] == [-1, -4, -1, -1, -1, 0]


def test_mazes_have_one_way_between_any_two_squares():
    for seed in range(20):
        ways = maze.carved(np.random.default_rng(seed), 7, 9)
        links = sum((row + 1, column) in ways for row, column in ways)
        links += sum((row, column + 1) in ways for row, column in ways)
        assert links == len(ways) - 1  # a tree, if it is connected
        plan = maze.Plan(7, 9, ways, min(ways))
        assert all(maze.route(plan, cell) is not None for cell in ways)
        assert {(r, c) for r, c in product(range(1, 7, 2), range(1, 9, 2))} <= ways


def test_mazes_that_are_drawn_and_not_played_do_not_stay_in_memory():
    maze.route.cache_clear()
    world = Maze(size=(31, 31), moves=(2, 60), train=2, test=0, seed=77)
    world.start("train", 0)
    assert maze.route.cache_info().currsize == 0
    tasks = world.tasks("train")
    assert maze.route.cache_info().currsize == len(tasks) == 2


def test_the_expert_without_a_map_knows_only_walls_that_it_stood_beside():
    """Two mazes that differ where nobody looked yet: the same action in both."""
    other = maze.State(replace(PLAN, ways=WAYS - {(2, 3)} | {(3, 2)}), AT.you, AT.been)
    world = Maze(view="walls")
    assert world.expert(AT) == world.expert(other) == "right"
    # With the map in view it sees that the way to the right leads nowhere.
    dead_end = replace(PLAN, ways=frozenset([(1, 1), (1, 2), (2, 1), (3, 1), (3, 2), (3, 3)]))
    assert Maze().expert(maze.State(dead_end, (1, 1), frozenset([(1, 1)]))) == "down"


# ---------------------------------------------------------------------------------------------- Countdown


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("10 - 4 - 3", 3),
        ("24 / 4 / 2", 3),
        ("2*(3+(4-1))", 12),
        ("((((7))))", 7),
        ("8 / (3 - 8 / 3)", 24),
        ("3 - 5", -2),
        ("1 / 2", Fraction(1, 2)),
    ],
)
def test_arithmetic_is_read_with_its_ranks(text: str, value: Fraction):
    assert countdown.value_of(countdown.tokens_of(text), whole=False) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "()", "(", ")", "2 +", "+ 2", "-2", "2 3", "2 (3)", "(2)3", "(2", "2)", "2 + * 3"),
        *(
            "2 ** 3",
            "2 // 3",
            "2 % 3",
            "2 = 2",
            "1e3",
            "2.5",
            "__import__('os')",
            "٣ + 1",
            "2 +\x00 3",
        ),
        "9" * 900,
        "(" * 900,
    ],
)
def test_what_is_no_arithmetic_is_refused_and_never_run(text: str):
    with pytest.raises(countdown.Refused, match="no arithmetic"):
        countdown.value_of(countdown.tokens_of(text), whole=False)


def test_each_number_once_and_divisions_without_a_rest():
    def said(text: str, numbers: tuple[int, ...], use_all: bool = True, whole: bool = True) -> str:
        try:
            return str(countdown.check(text, numbers, use_all, whole))
        except countdown.Refused as refused:
            return str(refused)

    assert said("(5 - 3) * 8", (3, 5, 8)) == "16"
    assert said("5 * 3 + 5", (3, 5, 8)) == "you used 5 once too often"
    assert said("5 * 3 + 5", (3, 5, 5)) == "20"
    assert said("5 * 3 + 7", (3, 5, 8)) == "you used 7 and it is not there"
    assert said("5 * 3", (3, 5, 8)) == "you did not use 8"
    assert said("5 * 3", (3, 5, 8), use_all=False) == "15"
    assert said("7 / 2", (2, 7)) == "7 / 2 leaves a rest"
    assert said("7 / 2", (2, 7), whole=False) == "7/2"
    assert said("8 / (3 - 8 / 3)", (3, 3, 8, 8), whole=True) == "8 / 3 leaves a rest"
    assert said("8 / (3 - 8 / 3)", (3, 3, 8, 8), whole=False) == "24"
    assert said("8 / (3 - 3)", (3, 3, 8)) == "division by 0"


def test_the_ends_and_rewards_of_countdown():
    state = countdown.State((3, 5, 8), 16, tries=1)
    (right,) = go(Countdown(), state, "It must be this.\nAction: (5 - 3) * 8")
    assert right.end is End.SOLVED and right.reward == 1 and right.observation == "that is 16"
    for world, near, bad in ((Countdown(), 0.0, 0.0), (Countdown(form=0.1), 0.1, 0.0)):
        (missed,) = go(world, state, "5 * 3 + 8")
        (wrong,) = go(world, state, "5 * 3 + 1")
        (silly,) = go(world, state, "sixteen")
        assert (missed.reward, wrong.reward, silly.reward) == (near, near, bad)
        for unread in ("17 +", "5 * 3 +", "(5 - 3", "3 5 8 9"):
            (half,) = go(world, state, unread)
            assert half.reward == 0 and half.observation == "this is no arithmetic"
        assert {missed.end, wrong.end, silly.end} == {End.FAILED}


def test_more_tries_tell_what_came_out():
    state = countdown.State((3, 5, 8), 17, tries=3)
    steps = go(Countdown(tries=3, form=0.1), state, "5 * 3 + 8", "5 + 3", "8 + 5 + 3")
    assert [step.observation for step in steps] == [
        *("that is 23, 2 left", "you did not use 8, 1 left", "that is 16")
    ]
    assert [step.end for step in steps] == [None, None, End.FAILED]
    assert [step.reward for step in steps] == [0, 0, 0.1]


def test_the_search_finds_what_there_is_and_nothing_else():
    assert countdown.solve((3, 3, 8, 8), 24, True, True) is None
    found = countdown.solve((3, 3, 8, 8), 24, True, False)
    assert found and countdown.check(found, (3, 3, 8, 8), True, False) == 24
    assert countdown.solve((1, 1), 3, True, True) is None
    assert countdown.solve((2, 9), 9, False, True) == "9"
    world = Countdown(count=(3, 5), train=30, test=30)
    for index, task in enumerate(world.tasks("test")):
        state = world.start("test", index)
        assert len(state.numbers) == task.difficulty and state.target not in state.numbers
        assert countdown.check(world.expert(state), state.numbers, True, True) == state.target


# ---------------------------------------------------------------------------------------------- Guess the number


def test_halving_needs_what_it_is_said_to_need():
    assert [needed(n) for n in (1, 2, 3, 4, 7, 8, 63, 64)] == [1, 2, 2, 3, 3, 4, 6, 7]
    for numbers in (16, 31, 32, 63, 64):
        states = [State(5, 4 + numbers, secret, left=99) for secret in range(5, 5 + numbers)]
        steps = finished(GuessNumber(), states)
        assert all(step.end is End.SOLVED for step in steps)
        assert max(len(step.state.guesses) for step in steps) == needed(numbers)


def test_higher_lower_and_the_last_guess():
    world = GuessNumber(wrong=-1.0)
    state = State(1, 16, 11, left=3)
    steps = go(world, state, "guess 8", "12", "guess eleven", "guess 10")
    assert [step.observation for step in steps] == [
        "higher 2 left",
        "lower 1 left",
        "no such action 1 left",
        "no guess left, the secret was 11",
    ]
    assert steps[1].state.possible == (9, 11)
    assert [step.end for step in steps] == [None, None, None, End.FAILED]
    assert [step.reward for step in steps] == [-1] * 4
    (won,) = go(world, state, "Guess 11.")
    assert won.end is End.SOLVED and won.reward == 1


# ---------------------------------------------------------------------------------------------- Wordle


@pytest.mark.parametrize(
    ("guess", "secret", "said"),
    [
        ("allee", "apple", "gybbg"),  # one l, and the e is spent on the last place
        ("apple", "apple", "ggggg"),
        ("crane", "moist", "bbbbb"),
        ("eerie", "where", "ybybg"),
        ("geese", "eagle", "yybbg"),
        ("llama", "label", "gyybb"),
        ("sissy", "basis", "yygbb"),
        ("speed", "abide", "bbyby"),
        ("speed", "erase", "ybyyb"),
        ("steal", "least", "yyyyy"),
    ],
)
def test_colours_of_repeated_letters(guess: str, secret: str, said: str):
    assert colours(guess, secret) == said


def test_the_list_has_different_words_of_five_letters_and_secrets_are_held_out():
    assert len(set(WORDS)) == len(WORDS) == 536
    assert all(len(word) == 5 and word.isascii() and word.islower() for word in WORDS)
    world = Wordle()
    assert not set(world.secrets("train")) & set(world.secrets("test"))
    assert set(world.secrets("train")) | set(world.secrets("test")) == set(WORDS)
    with pytest.raises(ValueError, match="the words of that split"):
        Wordle(test=500)
    assert wordle.alike("light", ("might", "night", "eight", "laugh", "light")) == 3


def test_six_guesses_and_the_rewards_of_lmrl_gym():
    world = Wordle(solved=0.0, wrong=-1.0)
    state = wordle.State("apple")
    steps = go(world, state, "a n g l e", "xxxxx", "maple", "m a p l e", "apple")
    assert [step.observation for step in steps] == [
        *("g b b g g, 5 left", "no word of the list, 5 left", "b y g g g, 4 left"),
        *("b y g g g, 3 left", "g g g g g"),
    ]
    assert [step.reward for step in steps] == [-1, -1, -1, -1, 0]
    assert steps[-1].end is End.SOLVED and steps[2].info["anchor"] == ("angle",)
    lost = go(world, state, *["m a p l e"] * 6)
    assert [step.end for step in lost] == [None] * 5 + [End.FAILED]
    assert lost[-1].observation == "b y g g g. The word was apple."


def test_elimination_agrees_with_all_colours_and_splits_what_remains():
    words = ("eight", "fight", "light", "might", "night", "right", "sight", "tight", "flame")
    history = (("eight", colours("eight", "night")),)
    # f, l and m in one guess tell more than any of the words that remain
    assert wordle.best_guess(words, history) == "flame"
    # n, r, s and t remain, and no word tells two of them apart: one of them is tried
    history = (*history, ("flame", colours("flame", "night")))
    assert wordle.best_guess(words, history) in ("night", "right", "sight", "tight")


# ---------------------------------------------------------------------------------------------- 2048


@pytest.mark.parametrize(
    ("row", "after", "points"),
    [
        ((2, 2, 2, 2), (4, 4, 0, 0), 8),
        ((2, 2, 4, 0), (4, 4, 0, 0), 4),
        ((4, 2, 2, 0), (4, 4, 0, 0), 4),
        ((0, 0, 0, 2), (2, 0, 0, 0), 0),
        ((2, 0, 2, 2), (4, 2, 0, 0), 4),
        ((2, 2, 2, 0), (4, 2, 0, 0), 4),
        ((2, 4, 2, 4), (2, 4, 2, 4), 0),
        ((8, 8, 16, 0), (16, 16, 0, 0), 16),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0),
    ],
)
def test_a_row_slides_and_merges_once(row: twenty48.Row, after: twenty48.Row, points: int):
    assert twenty48.slid(row) == (after, points)


def test_a_board_slides_in_four_directions():
    board = ((0, 0, 2, 2), (0, 0, 0, 0), (4, 0, 0, 4), (0, 0, 2, 4))
    assert twenty48.moved(board, "left") == (
        ((4, 0, 0, 0), (0, 0, 0, 0), (8, 0, 0, 0), (2, 4, 0, 0)),
        12,
    )
    assert twenty48.moved(board, "right") == (
        ((0, 0, 0, 4), (0, 0, 0, 0), (0, 0, 0, 8), (0, 0, 2, 4)),
        12,
    )
    assert twenty48.moved(board, "up") == (
        ((4, 0, 4, 2), (0, 0, 0, 8), (0, 0, 0, 0), (0, 0, 0, 0)),
        12,
    )
    assert twenty48.moved(board, "down") == (
        ((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 2), (4, 0, 4, 8)),
        12,
    )
    # Of three equal tiles the two that the slide brings together first are merged.
    assert twenty48.moved(((2, 2, 2, 0), *[(0,) * 4] * 3), "right")[0][0] == (0, 0, 2, 4)


def test_new_tiles_ends_and_the_score_of_2048():
    world = Twenty48(target=16, solved=0.0, point=1.0)
    board = ((8, 8, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (2, 0, 0, 0))
    (still,) = go(world, twenty48.State((*board[:3], (2, 4, 8, 2))), "down")
    assert still.end is None  # the two 8s fell
    (won,) = go(world, twenty48.State(board), "left")
    assert won.end is End.SOLVED and won.reward == 16
    (plain,) = go(Twenty48(target=16), twenty48.State(board), "left")
    assert plain.reward == 1 and plain.info["points"] == 16
    (one,) = go(world, twenty48.State(board), "down")
    tiles = Counter(tile for row in one.state.board for tile in row)
    assert sum(tiles.values()) - tiles[0] == 4 and one.reward == 0
    packed = twenty48.State(board, moves=3)
    assert go(world, packed, "down") == go(world, packed, "down")
    corner = twenty48.State(((2, 0, 0, 0), *[(0,) * 4] * 3))
    (nothing,) = go(world, corner, "left")
    assert nothing.state == corner and str(nothing.observation).startswith("nothing moves")


def test_a_full_board_without_a_pair_is_lost():
    # Whichever tile comes into the last square (2 or 4), no neighbour equals it.
    board = ((8, 16, 8, 16), (16, 8, 16, 8), (8, 16, 8, 16), (0, 16, 8, 16))
    (lost,) = go(Twenty48(), twenty48.State(board), "left")
    assert lost.end is End.FAILED and lost.reward == 0
    assert twenty48.ways(lost.state.board) == ()


def test_new_tiles_are_a_four_one_time_in_ten():
    empty = ((0,) * 4,) * 4
    boards = [twenty48.with_tile(empty, Key(seed).generator()) for seed in range(2000)]
    fours = sum(4 in row for board in boards for row in board)
    # three standard deviations of 0.1 of 2000 are 40
    assert abs(fours - 200) < 40
    places = Counter((r, c) for board in boards for r in range(4) for c in range(4) if board[r][c])
    assert len(places) == 16 and min(places.values()) > 80
