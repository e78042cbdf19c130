"""Games of TextArena (arXiv:2504.11442): those for one player, and those for two against a scripted opponent.

    guess = TextArena("GuessTheNumber-v0")
    board = TextArena("TicTacToe-v0", opponent=first_free, seat=0)

What the policy sees in a turn is what the game has told its player since the last one, without its own words. The
reward is the package's at the end of the game. `End.SOLVED` from a reward of 1 (the game solved, the opponent beaten);
`End.OUT_OF_TURNS` where the game's own limit ended it. An opponent who breaks the rules is a fault of the script, so
it ends the attempt as one. The package draws from Python's global generator: each episode gets its own, put in place
for the time of a call.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.envs.adapters.live import Held, Live, forked, seed_of
from ludus.envs.world import Split, place_of
from ludus.types import End, Explained, Step, Task

Opponent = Callable[[str, random.Random], str]
"""(what it has been told since its last move, its own generator) -> its move"""

LONGEST = 4_000  # characters of a move that the package gets to read; its games read numbers, of 4,300 digits at most
MOVES = 200  # of an opponent in a row; no game has as many


@dataclass
class Match:
    """What one episode holds: the game and two generators, the package's and the opponent's."""

    game: Any
    dice: object
    opponent: random.Random


@contextlib.contextmanager
def own_dice(match: Match) -> Iterator[None]:
    """Python's global generator is the episode's, and afterwards what it was before."""
    before = random.getstate()
    random.setstate(match.dice)  # type: ignore[arg-type]
    try:
        yield
    finally:
        match.dice = random.getstate()
        random.setstate(before)


@dataclass(frozen=True)
class TextArena:
    """game  a name of the package's registry; options go to the game's constructor

    seat  the policy's player number; player 0 moves first
    """

    game: str
    opponent: Opponent | None = None
    seat: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    train: int = 100
    test: int = 50
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.game.lower())
        if self.seat not in (0, 1) or (self.seat and self.opponent is None):
            raise ValueError(f"seat={self.seat}; give 0 or 1, and 1 only with an opponent")

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        count = {"train": self.train, "test": self.test}[split]
        return [
            Task(f"{self.name}-{split}-{i}", env=self.name, extras={"split": split, "index": i})
            for i in range(count)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes what the game and the opponent draw."""
        try:
            import textarena
        except ImportError as error:
            raise Explained("TextArena is not installed; type: pip install textarena") from error
        split, index = place_of(self, task, {"train": self.train, "test": self.test})
        drawn = seed_of(self.name, split, index)
        rng = random.Random(drawn)
        match = Match(textarena.make(self.game, **self.options), rng.getstate(), rng)
        with own_dice(match):
            match.game.reset(num_players=1 if self.opponent is None else 2, seed=drawn)
            if self._opposed(match):
                raise RuntimeError(f"{self.game} was over before the first turn")
        seen = self._told(match, self.seat)
        return Step(Live(task, seed, (), seen, held=Held(match)), seen)

    async def step(self, state: Live, action: str) -> Step:
        match: Match = state.enter()
        with own_dice(match):
            done, _ = match.game.step(action=action[:LONGEST])
            done = bool(done) or self._opposed(match)
        seen = self._told(match, self.seat)
        after = state.after(action, seen, done)
        if not done:
            return Step(after, seen)
        rewards, infos = match.game.close()
        reward, inner = float(rewards[self.seat]), match.game.state
        limited = inner.max_turns is not None and inner.turn >= inner.max_turns
        lost = End.OUT_OF_TURNS if limited else End.FAILED
        reason = str(infos[self.seat].get("reason", ""))
        return Step(after, seen, reward, End.SOLVED if reward >= 1 else lost, {"reason": reason})

    async def fork(self, state: Live) -> Live:
        return await forked(self, state, copy.deepcopy)

    def _opposed(self, match: Match) -> bool:
        """Whether the game is over after the opponent's moves, as many as it has before the policy's next."""
        for _ in range(MOVES):
            who = match.game.state.current_player_id
            if who == self.seat or self.opponent is None:
                return False
            move = self.opponent(self._told(match, who), match.opponent)
            done, _ = match.game.step(action=move)
            if done:
                info = match.game.state.game_info[who]
                if info.get("invalid_move"):
                    raise RuntimeError(
                        f"the opponent's move {move!r} broke the rules: {info.get('reason')}"
                    )
                return True
        raise RuntimeError(f"the opponent moved {MOVES} times in a row in {self.game}")

    def _told(self, match: Match, player: int) -> str:
        """What the game has told `player` since the last time, without what the player said itself."""
        inner = match.game.state
        told, inner.observations[player] = inner.observations[player], []
        names = inner.role_mapping
        lines = [
            text if who < 0 else f"[{names.get(who, f'Player {who}')}] {text}"
            for who, text, kind in told
            if not (who == player and kind.name == "PLAYER_ACTION")
        ]
        return "\n".join(lines)
