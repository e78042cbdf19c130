"""ludus.envs.adapters.textarena on the package's own games."""

from __future__ import annotations

import asyncio
import random
import re

import pytest

pytest.importorskip("textarena")


from ludus.envs.adapters.textarena import TextArena
from ludus.envs.guard import EnvFault, Guarded, checked
from ludus.types import End, Step


def free(told: str) -> list[str]:
    return re.findall(r"'(\[\d\])'", told.rpartition("Available")[2])


def first_free(told: str, rng: random.Random) -> str:
    return free(told)[0]


def any_free(told: str, rng: random.Random) -> str:
    return rng.choice(free(told))


def guess(turns: int = 20) -> TextArena:
    return TextArena("GuessTheNumber-v0", options={"max_turns": turns})


def play(env: TextArena, *actions: str, index: int = 0) -> list[Step]:
    async def walk() -> list[Step]:
        steps = [await env.reset(env.tasks()[index], 0)]
        for action in actions:
            steps.append(checked(await env.step(steps[-1].state, action), env.name))
        return steps

    return asyncio.run(walk())


def secret(index: int = 0) -> int:
    return play(guess(), index=index)[0].state.held.thing.game.state.game_state["game_number"]


def test_a_game_for_one_is_won_from_what_it_says() -> None:
    number = secret()
    other = number - 1 if number > 1 else 2
    opening, hint, won = play(guess(), f"[{other}]", f"[{number}]")
    assert "guess the number between 1 and 20" in str(opening.observation)
    assert hint.observation == f"The target number is {'higher' if other < number else 'lower'}."
    assert won.end is End.SOLVED and won.reward == 1 and "correct" in won.info["reason"]


def test_the_games_limit_is_out_of_turns_and_a_second_wrong_form_fails() -> None:
    wrong = [f"[{n}]" for n in range(1, 21) if n != secret()][:3]
    last = play(guess(2), *wrong)[-1]
    assert last.end is End.OUT_OF_TURNS and last.reward < 1
    first, second = play(guess(), "five", "five")[1:]
    assert first.end is None and "invalid move" in str(first.observation)
    assert second.end is End.FAILED and second.reward == 0


def test_a_task_fixes_what_is_drawn_whatever_else_draws() -> None:
    random.seed(5)
    before = random.getstate()
    numbers = [secret(index) for index in range(8)]
    assert random.getstate() == before
    random.seed(6)
    assert numbers == [secret(index) for index in range(8)] and len(set(numbers)) > 3


def test_two_players_and_either_seat() -> None:
    """The opponent takes the lowest free square; a diagonal beats it, and doing nothing about it loses."""
    env = TextArena("TicTacToe-v0", opponent=first_free)
    opening, first, *_, won = play(env, "[4]", "[2]", "[6]")
    assert "You are Player 0" in str(opening.observation)
    assert "[Player 1] [0]" in str(first.observation) and "Player 0] [4]" not in str(
        first.observation
    )
    assert won.end is End.SOLVED and won.reward == 1
    lost = play(env, "[8]", "[7]", "[3]")[-1]
    assert lost.end is End.FAILED and lost.reward == -1
    second = TextArena("TicTacToe-v0", opponent=first_free, seat=1)
    assert "placed their symbol (O) in cell 0" in str(play(second)[0].observation)
    assert play(second, "[4]", "[2]", "[6]")[-1].end is End.SOLVED


def test_a_fork_goes_its_own_way_with_the_same_dice() -> None:
    env = TextArena("TicTacToe-v0", opponent=any_free)

    async def branch() -> tuple[Step, Step, Step]:
        state = (await env.reset(env.tasks()[0], 0)).state
        copy = await env.fork(state)
        one, two = await env.step(state, "[4]"), await env.step(copy, "[4]")
        replayed = await env.fork(state)
        return one, two, await env.step(replayed, "[4]")

    one, two, three = asyncio.run(branch())
    assert one == two == three and one.end is None


@pytest.mark.parametrize("said", ["", "\x00", "\ud800", "[" * 50_000, "x" * 100_000])
def test_hostile_moves_never_pay(said: str) -> None:
    for env in (guess(), TextArena("TicTacToe-v0", opponent=first_free)):
        step = play(env, said)[-1]
        assert step.reward <= 0 and step.end is None and len(str(step.observation)) < 3000


@pytest.mark.parametrize(
    ("game", "opponent", "message"),
    [
        ("NoSuchGame-v0", None, "not found"),
        ("TicTacToe-v0", None, "2"),
        ("TicTacToe-v0", lambda told, rng: "I resign", "broke the rules"),
    ],
)
def test_a_game_that_is_not_there_and_an_opponent_who_cheats_are_faults(
    game, opponent, message
) -> None:
    env = TextArena(game, opponent=opponent)

    async def walk() -> None:
        guarded = Guarded(env)
        await guarded.step((await guarded.reset(env.tasks()[0], 0)).state, "[4]")

    with pytest.raises(EnvFault, match=message) as fault:
        asyncio.run(walk())
    assert fault.value.end is End.ENV_CRASHED


def test_a_seat_without_an_opponent_is_refused() -> None:
    with pytest.raises(ValueError, match="only with an opponent"):
        TextArena("TicTacToe-v0", seat=1)
