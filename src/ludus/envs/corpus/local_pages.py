"""Long-horizon search in pages of several screens, with budgets and notes, as ASearcher's agents read the web.

arXiv:2508.07976. A page is opened by its title and shown a screen at a time, so an answer may be many turns away:

    question                  pet of author of milas
    search milas              found balas
    open balas                balas 1 of 2: balas also milas. work.
    next                      balas 2 of 2: author [figor]. scene [hutor]. year 4 7 2.
    note author figor         noted
    open figor                figor 1 of 3: figor. person.

`back` returns to the page before, at the screen that was left; `notes` lists what was noted, which is for agents whose
history is cut. Reading rules (`Reading`) serve any index: `Search(index, train, test, rules=Reading())`. `LocalPages`
is the small world on generated encyclopaedias, whose links stand in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from ludus.data.questions import Passage, Question
from ludus.envs.corpus.deep_search import ALL_NAMES, DeepSearch, library
from ludus.envs.corpus.encyclopaedia import DIGITS, EMBLEMS, KINDS, LINKS, Counts
from ludus.envs.corpus.index import BM25
from ludus.envs.corpus.search import Form, Shelf, parse, verdict
from ludus.envs.world import Split, listed, one_of, place_of, refuse_if_over
from ludus.types import Message, Step, Task

VERBS: Mapping[str, bool] = {
    **{verb: True for verb in ("search", "open", "note", "answer")},
    **{verb: False for verb in ("next", "back", "notes")},
}
STOP = tuple(f"</{verb}>" for verb in VERBS)
INSTRUCTIONS: Mapping[Form, Message] = {
    "plain": Message(
        "system",
        "Answer the question. Write one action: search WORDS (finds pages that say them), open TITLE (shows a page), "
        "next (its next screen), back (the page before), note TEXT, notes or answer ANSWER.",
    ),
    "tags": Message(
        "system",
        "Answer the question. Write one action:\n<search>words</search> finds pages\n<open>title</open> shows a page\n"
        "<next></next> its next screen\n<back></back> the page before\n<note>text</note> keeps a note\n"
        "<notes></notes> shows the notes\n<answer>answer</answer> answers, in a few words\nWhat is shown comes back "
        "as\n<information>...</information>\nYou may think first:\n<think>...</think>",
    ),
}
HELP: Mapping[Form, str] = {
    "plain": "write search, open, next, back, note, notes or answer",
    "tags": (
        "Write one action:\n<search>words</search>\n<open>title</open>\n<next></next>\n<back></back>\n"
        "<note>text</note>\n<notes></notes>\n<answer>answer</answer>"
    ),
}
SPENT = "no more pages, write answer"
LONGEST_NOTE = 200  # characters
MOST_NOTES = 20


@dataclass(frozen=True)
class State:
    """`at` are the pages on the way here, each with the screen it was left at, from 0; the last one is open.

    words, visits  used so far
    """

    question: Question
    seen: tuple[str, ...] = ()
    at: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    words: int = 0
    visits: int = 0
    over: bool = False


@dataclass(frozen=True)
class Reading:
    """The rules.

    top     titles that a search gives
    screen  characters of a screen; ASearcher's pieces have 25,000
    screens of a page at most; the rest of a longer page is not shown
    words   budget of words shown by search, open, next and back (a token is about three quarters of one); a screen
            that does not fit is cut, and then only notes and an answer are taken. None: no limit
    visits  pages that may be opened; going back is free. None: no limit
    graded  pay the token F1 of the answer instead of 1 for an exact match; solved is the exact match
    """

    form: Form = "tags"
    top: int = 5
    screen: int = 25_000
    screens: int = 10
    words: int | None = None
    visits: int | None = None
    graded: bool = False

    def __post_init__(self) -> None:
        if self.form not in INSTRUCTIONS:
            raise ValueError(f"form={self.form!r}; give 'tags' or 'plain'")
        if min(self.top, self.screen, self.screens) < 1:
            raise ValueError(
                f"top={self.top}, screen={self.screen}, screens={self.screens}; give each from 1"
            )
        if any(budget is not None and budget < 0 for budget in (self.words, self.visits)):
            raise ValueError(f"words={self.words}, visits={self.visits}; give 0 or more, or None")

    @property
    def verbs(self) -> Mapping[str, bool]:
        return VERBS

    @property
    def prompt(self) -> Message:
        return INSTRUCTIONS[self.form]

    def begin(self, question: Question) -> Step:
        return Step(State(question, (question.text,)), question.text)

    def step(self, state: State, message: str, shelf: Shelf) -> Step:
        refuse_if_over(state.over)
        verb, rest = parse(message, self.form, self.verbs) or ("", "")
        match verb:
            case "answer":
                told, reward, end = verdict(rest, state.question, self.graded)
                return Step(replace(state, over=True), told, reward, end)
            case "note" if len(state.notes) < MOST_NOTES:
                return _told(replace(state, notes=(*state.notes, rest[:LONGEST_NOTE])), "noted")
            case "note":
                return _told(state, "no more notes")
            case "notes":
                numbered = [f"{number} {note}" for number, note in enumerate(state.notes, start=1)]
                return _told(state, ", ".join(numbered) or "no notes")
            case "search" | "open" | "next" | "back" if self.left(state) == 0:
                return _told(state, SPENT)
            case "search":
                found = [shelf.index.passages[h.place] for h in shelf.index.top(rest, self.top)]
                titles = ", ".join(dict.fromkeys(one.title for one in found))
                return self._shown(state, f"found {titles or 'nothing'}")
            case "open":
                return self._open(state, rest, shelf)
            case "next":
                return self._next(state, shelf)
            case "back" if len(state.at) > 1:
                return self._show(replace(state, at=state.at[:-1]), shelf)
            case "back":
                return _told(state, "no page before")
        return _told(state, HELP[self.form])

    def left(self, state: State) -> int | None:
        """Words that may still be shown."""
        return None if self.words is None else max(0, self.words - state.words)

    def cut(self, title: str, shelf: Shelf) -> list[str]:
        """The screens of a page; none where there is no such page."""
        text = shelf.page(title)
        return [] if text is None else screens(text, self.screen)[: self.screens]

    def _open(self, state: State, title: str, shelf: Shelf) -> Step:
        if not self.cut(title, shelf):
            return _told(state, f"no page {title[:100]}")
        if self.visits is not None and state.visits >= self.visits:
            return _told(state, SPENT)
        opened = replace(state, at=(*state.at, (title, 0)), visits=state.visits + 1)
        return self._show(opened, shelf)

    def _next(self, state: State, shelf: Shelf) -> Step:
        if not state.at:
            return _told(state, "no page open")
        title, screen = state.at[-1]
        if screen + 1 == len(self.cut(title, shelf)):
            return _told(state, "no more")
        return self._show(replace(state, at=(*state.at[:-1], (title, screen + 1))), shelf)

    def _show(self, state: State, shelf: Shelf) -> Step:
        title, screen = state.at[-1]
        cut = self.cut(title, shelf)
        return self._shown(state, f"{title} {screen + 1} of {len(cut)}: {cut[screen]}")

    def _shown(self, state: State, text: str) -> Step:
        """What a page or a search shows, as far as the budget goes."""
        left, count = self.left(state), len(text.split())
        if left is not None and count > left:
            text, count = " ".join(text.split()[:left]), left
        told = text if self.form == "plain" else f"<information>{text}</information>"
        return _told(replace(state, words=state.words + count), told)


def screens(text: str, size: int) -> list[str]:
    """Pieces of at most `size` characters: whole sentences where they fit, else whole words, else parts of a word."""
    found = [""]
    for sentence in re.split(r"(?<=[.!?]) +|\n+", text.strip()):
        pieces = [sentence] if len(sentence) <= size else sentence.split()
        for piece in pieces:
            for start in range(0, len(piece), size):
                part = piece[start : start + size]
                longer = f"{found[-1]} {part}" if found[-1] else part
                if start == 0 and len(longer) <= size:
                    found[-1] = longer
                else:
                    found.append(part)
    return [one for one in found if one] or [""]


def _told(state: State, told: str) -> Step:
    return Step(replace(state, seen=(*state.seen, told)), told)


# ---------------------------------------------------------------------------------------------- the small world


@dataclass(frozen=True)
class LocalPages:
    """The questions of `source` on its encyclopaedias, whose articles are pages of several screens.

    reading  its `screen` says how long the way is: with 30 characters, two sentences, an article has two or three
    """

    source: DeepSearch = field(default_factory=DeepSearch)
    reading: Reading = field(
        default_factory=lambda: Reading(form="plain", top=3, screen=30, words=400, visits=30)
    )
    name: str = "local_pages"

    def __post_init__(self) -> None:
        if self.reading.form != "plain":
            raise ValueError(
                "the players of LocalPages know the plain form; give Reading(form='plain'), or use "
                "Search(..., rules=Reading())"
            )

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        told = f"{INSTRUCTIONS['plain'].text} {HELP['plain']} {SPENT} noted no page open before found nothing"
        return listed(*self.source.words(), told)

    def expert(self, state: State) -> str:
        """Follows the question through the screens that were shown; answers at random when nothing more is shown."""
        if state.seen[-1] == SPENT:
            return "answer nothing"
        fact, *relations, name = state.seen[0].split(" of ")
        shown = [found for text in state.seen if (found := _SCREEN.fullmatch(text))]
        title = next(
            (one["title"] for one in shown if re.match(rf"(\w+ also )?{name}\b", one["text"])), None
        )
        if title is None:
            found = state.seen[-1].removeprefix("found ").split(", ")
            if not state.seen[-1].startswith("found ") or found == ["nothing"]:
                return f"search {name}"
            return f"open {name if name in found else found[0]}"
        for relation in (*reversed(relations), fact):
            own = " ".join(one["text"] for one in shown if one["title"] == title)
            said = re.search(rf"\b{relation} \[?([^.\]]+)", own)
            if said is None:
                last = shown[-1]
                more = last["title"] == title and int(last["screen"]) < int(last["count"])
                return "next" if more else f"open {title}"
            title = said[1]
        return f"answer {title}"

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Opens, looks for or notes anything that was named, and answers with anything."""
        told = " ".join(state.seen)
        names = sorted(set(re.findall(r"\w+", told)) & set(ALL_NAMES))
        facts = re.findall(r"\b(?:pet|flag|year) ([^.]+)\.", told)
        digits = " ".join(str(digit) for digit in rng.integers(10, size=DIGITS))
        name = one_of(rng, names)
        choices = [f"search {name}", f"open {name}", f"note {name}", "next", "back", "notes"]
        guess = digits if state.seen[0].startswith("year") else one_of(rng, EMBLEMS)
        return one_of(rng, [*choices, f"answer {one_of(rng, [guess, *facts])}"])

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            replace(
                task,
                id=f"{self.name}-{split}-{number}",
                prompt=(self.reading.prompt,),
                env=self.name,
            )
            for number, task in enumerate(self.source.tasks(split))
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes encyclopaedia and question."""
        counts: Mapping[Split, int] = {"train": self.source.train, "test": self.source.test}
        return self.reading.begin(self.source.start(*place_of(self, task, counts)))

    async def step(self, state: State, action: str) -> Step:
        number = state.question.extras["edition"]
        return self.reading.step(state, action, pages(self.source.counts, self.source.seed, number))

    async def fork(self, state: State) -> State:
        return state


_SCREEN = re.compile(r"(?P<title>\w+) (?P<screen>\d+) of (?P<count>\d+): (?P<text>.*)")
_LINK = re.compile(
    rf"\b({'|'.join(sorted({name for kind in KINDS for name in LINKS[kind]}))}) (\w+)\."
)


@lru_cache(maxsize=256)
def pages(counts: Counts, seed: int, number: int) -> Shelf:
    """The articles of an edition with their links in brackets."""
    book, _ = library(counts, seed, number)
    marked = [Passage(one.id, one.title, _LINK.sub(r"\1 [\2].", one.text)) for one in book.passages]
    return Shelf(BM25.over(marked))
