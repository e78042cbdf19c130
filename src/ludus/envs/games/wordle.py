"""Wordle: find a secret word of five letters in six guesses, each answered with five colours.

    a l l e e     g y b b g      (the secret is apple: one l, and its one e is the last letter)

The game of LMRL-Gym (arXiv:2311.18232) and AgentGym (arXiv:2406.04151). As there, letters are written with spaces
between them, so that a tokenizer cannot hide them. The secrets of the two splits are different words; every word of
the list may be guessed in both.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ludus.envs.games.shared import GIVE_UP, given_up, listed_tasks
from ludus.envs.world import Split, action_of, listed, one_of, place_of, refuse_if_over, side
from ludus.types import End, Key, Message, Step, Task

INSTRUCTION = Message(
    "system",
    "Find the secret word of five letters. Write one word with spaces between its letters, such as c r a n e. The "
    "colours: g is a letter in its place, y one that belongs in another place, b one that the word has not, or not "
    "once more. Write give up if you cannot go on.",
)
UNKNOWN = "no word of the list"
LENGTH = 5

WORDS = tuple(
    """
    about above actor adapt admit adult after again agent agree alarm album alert alike alive allow alone along alter
    among angel anger angle angry ankle apart apple apply apron arena argue arise arrow aside asset audio avoid awake
    award aware bacon badge basic basin basis beach beard beast began begin being belly below bench berry birth black
    blade blame blank blast blend bless blind block blood board boast bonus boost booth brain brake brand brass
    brave bread break breed brick bride brief bring broad brook broom brown brush build bunch burst cabin cable camel
    candy canoe cargo carry catch cause chain chair chalk charm chart chase cheap check cheek cheer chess chest chief
    child chill choir chose civil claim class clean clear clerk click cliff climb clock close cloth cloud clown coach
    coast color coral couch count court cover crack craft crane crash cream creek crime crisp cross crowd crown curve
    cycle daily dairy dance death delay depth diary dirty ditch donor doubt dough dozen draft drain drama dream dress
    dried drift drink drive eager eagle early earth eight elbow empty enemy enjoy enter entry equal error essay event
    every exact exist extra fable faith false fancy fault favor feast fence fever field fifth fifty fight final first
    flame flash fleet float flock flood floor flour fluid focus force forge found frame fresh front frost fruit funny
    ghost giant given glass globe glory glove grace grade grain grand grant grape grass grave great green greet grill
    group guard guess guest guide habit happy harsh heart heavy hello honey honor horse hotel house human humor hurry
    ideal image index inner input issue ivory jelly jewel joint judge juice kneel knife knock label labor large laugh
    layer learn lemon level light limit linen local logic loose lower loyal lucky lunch magic major maple march match
    mayor medal melon mercy merge merit metal minor mixed model money month moral motor mount mouse mouth movie music
    naval nerve never night noble noise north novel nurse ocean offer olive onion opera orbit order organ other outer
    owner paint panel paper party pasta patch peace peach pearl penny phone photo piano piece pilot pitch place plain
    plane plant plate point porch pound power press price pride prime print prize proof proud punch pupil queen quick
    quiet quilt quite radio raise ranch range rapid ratio reach ready relax reply rifle right rigid rival river roast
    robot rocky rough round route royal rural salad sauce scale scarf scene scope score scout seven shade shake shape
    share sharp sheep sheet shelf shell shine shirt shock shore short shout sight skill skirt sleep slice slide slope
    small smart smell smile smoke snake solid solve sound south space spare spark speak speed spend spice spoon sport
    staff stage stair stamp stand start steam steel stick stone store storm story stove sugar sweet swing table taste
    teach thank theme thick thing think three throw tiger title toast today topic total touch tower trace track trade
    trail train treat trick truck trunk trust truth twice uncle under union unity until upper urban usual valid value
    visit vital voice wagon waste watch water whale wheat wheel white whole woman world worry worth wound wrist write
    wrong yield young youth zebra
    """.split()
)


@dataclass(frozen=True)
class State:
    secret: str
    guesses: tuple[str, ...] = ()
    over: bool = False


def colours(guess: str, secret: str) -> str:
    """g, y or b for each letter. One is coloured as often as the secret has it: first in place, then from the left.

    colours("allee", "apple") = "gybbg"
    """
    left = Counter(letter for letter, own in zip(secret, guess, strict=True) if letter != own)
    said = []
    for letter, own in zip(guess, secret, strict=True):
        if letter == own:
            said.append("g")
        elif left[letter]:
            left[letter] -= 1
            said.append("y")
        else:
            said.append("b")
    return "".join(said)


@lru_cache(maxsize=8192)
def alike(word: str, words: tuple[str, ...]) -> int:
    """How many of `words` differ from `word` in one letter. alike("light", ("might", "night", "eight")) = 3"""
    return sum(colours(other, word).count("g") == LENGTH - 1 for other in words)


@lru_cache(maxsize=64)
def _secrets(words: tuple[str, ...], split: Split, seed: int) -> tuple[str, ...]:
    own = [word for word in words if side(word) == split]
    order = Key(seed, ("wordle", split)).generator().permutation(len(own))
    return tuple(own[place] for place in order)


@lru_cache(maxsize=4)
def _table(words: tuple[str, ...]) -> np.ndarray:
    """[guess, secret] -> the colours as a number from 0 to 242."""
    digits = str.maketrans("byg", "012")
    rows = [
        [int(colours(guess, secret).translate(digits), 3) for secret in words] for guess in words
    ]
    return np.array(rows, np.int64)


@lru_cache(maxsize=65536)
def best_guess(words: tuple[str, ...], history: tuple[tuple[str, str], ...]) -> str:
    """The guess after which the fewest words are expected to remain; of equals one that may be the secret.

    history  (guess, its colours) so far; what remains agrees with all of them
    """
    table = _table(words)
    place = {word: index for index, word in enumerate(words)}
    remain = np.ones(len(words), bool)
    for guess, answer in history:
        remain &= np.array([colours(guess, word) == answer for word in words])
    left = np.flatnonzero(remain)
    if len(left) <= 2:
        return words[left[0]]

    # Words expected to remain, times their number: the sum over the colours of (words that give them) squared.
    def remaining(word: str) -> int:
        return int((np.bincount(table[place[word], left]) ** 2).sum())

    return min(words, key=lambda word: (remaining(word), not remain[place[word]]))


@dataclass(frozen=True)
class Wordle:
    """Reward `solved` for the secret and `wrong` for every other turn. LMRL-Gym has solved=0, wrong=-1, so that what
    is learnt is to need few guesses; AgentGym's score is whether it was found.

    guesses  as many as there are; a word that is not in the list takes none
    """

    guesses: int = 6
    solved: float = 1.0
    wrong: float = 0.0
    train: int = 256
    test: int = 64
    seed: int = 0
    words_known: tuple[str, ...] = WORDS
    name: str = "wordle"

    def __post_init__(self) -> None:
        odd = [word for word in self.words_known if not (len(word) == LENGTH and word.islower())]
        if odd or len(set(self.words_known)) != len(self.words_known):
            raise ValueError(
                f"words_known has {odd[:1] or 'a word twice'}; give words of 5 letters"
            )
        counts: dict[Split, int] = {"train": self.train, "test": self.test}
        for split, wanted in counts.items():
            if not 0 < wanted <= len(self.secrets(split)):
                raise ValueError(
                    f"{split}={wanted}; give 1 to {len(self.secrets(split))}, the words of that split"
                )

    def secrets(self, split: Split) -> tuple[str, ...]:
        """The words that hash to this split, in an order keyed by the seed."""
        return _secrets(self.words_known, split, self.seed)

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        """The letters are words; what a guess says is made of them."""
        return listed(INSTRUCTION.text, UNKNOWN, "left", " ".join(string.ascii_lowercase))

    def expert(self, state: State) -> str:
        """Whatever leaves the fewest words that agree with all colours so far."""
        history = tuple((guess, colours(guess, state.secret)) for guess in state.guesses)
        return " ".join(best_guess(self.words_known, history))

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        return " ".join(one_of(rng, self.words_known))

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """The difficulty is how many words differ from the secret in one letter: colours tell them apart one by one."""
        secrets = self.secrets(split)[: self.train if split == "train" else self.test]
        return listed_tasks(self, split, INSTRUCTION, (alike(s, self.words_known) for s in secrets))

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the secret."""
        split, index = place_of(self, task, {"train": self.train, "test": self.test})
        return Step(State(self.secrets(split)[index]), f"{self.guesses} left")

    async def step(self, state: State, action: str) -> Step:
        """`info` holds the guesses before this one as the anchor, and whether this was a word of the list."""
        refuse_if_over(state.over)
        said = action_of(action).lower()
        if said == GIVE_UP:
            return given_up(state)
        guess = "".join(said.split())
        known = guess in self.words_known
        info = {"anchor": state.guesses, "valid": known}
        if not known:
            left = self.guesses - len(state.guesses)
            return Step(state, f"{UNKNOWN}, {left} left", self.wrong, info=info)
        guessed = replace(state, guesses=(*state.guesses, guess))
        seen = " ".join(colours(guess, state.secret))
        left = self.guesses - len(guessed.guesses)
        if guess == state.secret:
            return Step(replace(guessed, over=True), seen, self.solved, End.SOLVED, info)
        if not left:
            lost = f"{seen}. The word was {state.secret}."
            return Step(replace(guessed, over=True), lost, self.wrong, End.FAILED, info)
        return Step(guessed, f"{seen}, {left} left", self.wrong, info=info)

    async def fork(self, state: State) -> State:
        return state

    @property
    def views(self) -> Mapping[str, Callable[[State], object]]:
        return {"filtered_vocab": self.possible}

    def possible(self, state: State) -> list[str]:
        """The words that agree with all colours so far."""
        return [
            word
            for word in self.words_known
            if all(colours(guess, word) == colours(guess, state.secret) for guess in state.guesses)
        ]
