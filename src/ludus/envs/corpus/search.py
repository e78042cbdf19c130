"""Deep search: find passages, read pages, answer. One of the five families of AgentGym-RL, arXiv:2509.08755.

Two ways to write an action, chosen by `Desk.form`:

    tags    <search>who wrote Emma</search>      <information>Doc 1(Title: Emma) ...</information>
            <read>Emma</read>                    <information>Emma ...</information>
            <answer>Jane Austen</answer>
    plain   search who wrote Emma                found Emma, Jane Austen
            read Emma                            Emma ...
            answer Jane Austen

Tags are those of Search-R1 (arXiv:2503.09516), whose searches show whole passages. In a message the first closing tag
counts, and what comes behind it does not: let sampling stop at `STOP`. Answers are compared as in SQuAD
(arXiv:1606.05250): without case, punctuation, articles and extra spaces.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

from ludus.data.questions import Question
from ludus.envs.corpus.index import Index
from ludus.envs.world import LONGEST, Split, action_of, place_of, refuse_if_over
from ludus.rewards.overlap import token_f1
from ludus.types import End, Message, Step, Task

Form = Literal["tags", "plain"]
VERBS: Mapping[str, bool] = {"search": True, "read": True, "answer": True}
"""What can be done, and whether something must be said with it."""
STOP = tuple(f"</{verb}>" for verb in VERBS)

INSTRUCTION: Mapping[Form, str] = {
    # no space before a tag: tiny tokenizers have no token for that
    "tags": (
        "Answer the question. Write one action:\n<search>words</search> finds passages{read}\n"
        "<answer>answer</answer> answers, in a few words\nWhat is found comes back as\n"
        "<information>...</information>\nYou may think first:\n<think>...</think>"
    ),
    "plain": (
        "Answer the question. Write one action: search WORDS (finds pages that say them), {read}or answer ANSWER."
    ),
}
READ: Mapping[Form, str] = {
    "tags": "\n<read>title</read> shows a page",
    "plain": "read TITLE (shows a page), ",
}
HELP: Mapping[Form, str] = {
    "tags": "Write one action:\n<search>words</search>{read}\n<answer>answer</answer>",
    "plain": "write search, {read}or answer",
}
READ_HELP: Mapping[Form, str] = {"tags": "\n<read>title</read>", "plain": "read, "}
AGAIN = "wrong, try again"
SPENT = "no searches and reads left, write answer"
NOTHING = "found nothing"

# ---------------------------------------------------------------------------------------------- answers

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, then without the words a, an, the, then single spaces; in this order.

    Punctuation is dropped, not made a space: "Jean-Luc" becomes "jeanluc", as in the metric that is published.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Iterable[str]) -> bool:
    """Whether `answer` is one of `golds` when both are normalised; where nothing is left of both, as they stand.

    A part of a gold answer, or more than it, is no match; an empty answer matches nothing.
    """
    ours = normalised(answer)
    return any(
        ours == normalised(gold)
        if ours
        else bool(answer.strip()) and answer.strip().lower() == gold.strip().lower()
        for gold in golds
    )


def best_f1(answer: str, golds: Iterable[str]) -> float:
    """The largest token F1 with any of `golds`, normalised; 0 for an answer of which nothing is left."""
    ours = normalised(answer)
    return max((token_f1(ours, normalised(gold)) for gold in golds), default=0.0) if ours else 0.0


def verdict(answer: str, asked: Question, graded: bool) -> tuple[str, float, End]:
    """What an answer that ends the episode is told and paid; only an exact match is solved."""
    if exact_match(answer, asked.answers):
        return "right", 1.0, End.SOLVED
    return "wrong", best_f1(answer, asked.answers) if graded else 0.0, End.FAILED


# ---------------------------------------------------------------------------------------------- actions


def parse(message: str, form: Form, verbs: Mapping[str, bool] = VERBS) -> tuple[str, str] | None:
    """(verb, what it is about) of a message; None where it is no action. At most LONGEST characters are looked up."""
    if form == "plain":
        verb, _, rest = action_of(message).partition(" ")
    else:
        closing = re.search(rf"</({'|'.join(verbs)})>", message)
        if closing is None:
            return None
        verb = closing[1]
        _, opened, rest = message[: closing.start()].rpartition(f"<{verb}>")
        if not opened:
            return None
        rest = " ".join(rest[: LONGEST + 1].split())[:LONGEST]
    return (verb, rest) if verb in verbs and bool(rest) >= verbs[verb] else None


# ---------------------------------------------------------------------------------------------- the desk


@dataclass(frozen=True)
class State:
    """`seen` is what the player was told, the question first; `looks` counts searches and reads."""

    question: Question
    seen: tuple[str, ...] = ()
    looks: int = 0
    over: bool = False


def plain_title(title: str) -> str:
    """On one line and without full stops behind it, as `action_of` reads an action."""
    return " ".join(title.split()).rstrip(".")


class Shelf:
    """An index with its passages by title."""

    def __init__(self, index: Index) -> None:
        self.index = index

    @cached_property
    def places(self) -> Mapping[str, tuple[int, ...]]:
        """Title without case -> the places of its passages. Goes through the whole corpus once."""
        found: dict[str, list[int]] = {}
        for place, one in enumerate(self.index.passages):
            found.setdefault(one.title.casefold(), []).append(place)
        return {title: tuple(places) for title, places in found.items()}

    @cached_property
    def plainly(self) -> Mapping[str, str]:
        """Title as `plain_title` leaves it -> title, of those that it changes; the first of equals."""
        found: dict[str, str] = {}
        for title in self.places:
            if (plain := plain_title(title)) != title:
                found.setdefault(plain, title)
        return found

    def page(self, title: str) -> str | None:
        """All passages of a title, in the order of the corpus: of this very one, else of one that is plainly the same.

        A plain action has lost its full stops, so "Apple Inc" opens "Apple Inc." where there is no "Apple Inc".
        """
        exact, plain = title.casefold(), plain_title(title.casefold())
        known = next((one for one in (exact, plain) if one in self.places), self.plainly.get(plain))
        places = self.places[known] if known is not None else ()
        texts = [self.index.passages[place].text for place in places]
        return " ".join(texts) if texts else None


@dataclass(frozen=True)
class Desk:
    """The rules of a search environment.

    top     passages that a search gives
    cut     characters of a passage, or of a page that is read
    looks   searches and reads allowed together; then only an answer is taken. None: as many as there are turns
    graded  pay the token F1 of the answer instead of 1 for an exact match; solved is the exact match
    again   a wrong answer does not end the episode, as in AgentGym; it then pays nothing, so not with `graded`
    pages   whether pages can be read; Search-R1 and AgentGym's SearchQA have searches and answers alone
    """

    form: Form = "tags"
    top: int = 3
    cut: int = 1000
    looks: int | None = None
    graded: bool = False
    again: bool = False
    pages: bool = True

    def __post_init__(self) -> None:
        if self.form not in INSTRUCTION:
            raise ValueError(f"form={self.form!r}; give 'tags' or 'plain'")
        if self.top < 1 or self.cut < 1 or (self.looks is not None and self.looks < 0):
            raise ValueError(
                f"top={self.top}, cut={self.cut}, looks={self.looks}; give top and cut from 1, looks from 0 or None"
            )
        if self.form == "plain" and not self.pages:
            raise ValueError(
                "a plain search shows titles alone, so pages=False leaves nothing to read; give form='tags'"
            )
        if self.graded and self.again:
            raise ValueError(
                "graded=True pays for a wrong answer and again=True lets it be repeated; give one of them"
            )

    @property
    def verbs(self) -> Mapping[str, bool]:
        return VERBS if self.pages else {verb: VERBS[verb] for verb in ("search", "answer")}

    @property
    def prompt(self) -> Message:
        return Message("system", INSTRUCTION[self.form].format(read=READ[self.form] * self.pages))

    @property
    def help(self) -> str:
        return HELP[self.form].format(read=READ_HELP[self.form] * self.pages)

    def begin(self, question: Question) -> Step:
        return Step(State(question, (question.text,)), question.text)

    def step(self, state: State, message: str, shelf: Shelf) -> Step:
        refuse_if_over(state.over)
        action = parse(message, self.form, self.verbs)
        if action is None:
            return self._told(state, self.help)
        verb, rest = action
        if verb == "answer":
            return self._answered(state, rest)
        if self.looks is not None and state.looks >= self.looks:
            return self._told(state, SPENT)
        told = self.find(rest, shelf) if verb == "search" else self.read(rest, shelf)
        return self._told(replace(state, looks=state.looks + 1), told)

    def find(self, query: str, shelf: Shelf) -> str:
        """What a search shows: passages in tags, titles (each once) in the plain form."""
        hits = shelf.index.top(query, self.top)
        found = [shelf.index.passages[hit.place] for hit in hits]
        if self.form == "plain":
            titles = dict.fromkeys(one.title[:LONGEST] for one in found)
            return f"found {', '.join(titles)}" if titles else NOTHING
        documents = "\n".join(
            f"Doc {number}(Title: {one.title}) {one.text[: self.cut]}"
            for number, one in enumerate(found, start=1)
        )
        return f"<information>{documents or NOTHING}</information>"

    def read(self, title: str, shelf: Shelf) -> str:
        page = shelf.page(title)
        told = f"no page {title[:100]}" if page is None else page[: self.cut]
        return told if self.form == "plain" else f"<information>{told}</information>"

    def _told(self, state: State, told: str) -> Step:
        return Step(replace(state, seen=(*state.seen, told)), told)

    def _answered(self, state: State, answer: str) -> Step:
        if self.again and not exact_match(answer, state.question.answers):
            return self._told(state, AGAIN)
        told, reward, end = verdict(answer, state.question, self.graded)
        return Step(replace(state, over=True), told, reward, end)


# ---------------------------------------------------------------------------------------------- the environment


class Rules(Protocol):
    """What may be done in an episode: `Desk`, or `Reading` of ludus.envs.corpus.local_pages."""

    @property
    def prompt(self) -> Message: ...
    @property
    def verbs(self) -> Mapping[str, bool]: ...
    def begin(self, question: Question) -> Step: ...
    def step(self, state: Any, message: str, shelf: Shelf) -> Step: ...


@dataclass(frozen=True, eq=False)
class Search:
    """Given questions over a given index: the real sets and corpora, or one's own.

    Search(BM25.load("wiki"), searchqa("flashrag", "train"), searchqa("flashrag", "test"))
    """

    index: Index = field(repr=False)
    train: Sequence[Question] = field(repr=False)
    test: Sequence[Question] = field(repr=False)
    rules: Rules = field(default_factory=Desk)
    name: str = "search"

    def __post_init__(self) -> None:
        shared = {one.text for one in self.train} & {one.text for one in self.test}
        if shared:
            raise ValueError(
                f"{len(shared)} questions are in train and in test, {sorted(shared)[0]!r} for one; leave them out of "
                "one of them"
            )
        if {"read", "open"} & set(self.rules.verbs):
            _ = self.shelf.plainly  # takes minutes for millions of passages; a step has a deadline

    @cached_property
    def shelf(self) -> Shelf:
        return Shelf(self.index)

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            Task(
                id=f"{self.name}-{split}-{number}-{one.id}",
                prompt=(self.rules.prompt,),
                answer=one.answers,
                env=self.name,
                difficulty=one.hops,
                domain=str(one.extras.get("set", "")),
                extras={"split": split, "index": number},
            )
            for number, one in enumerate(self._questions(split))
        )

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes everything."""
        counts: Mapping[Split, int] = {"train": len(self.train), "test": len(self.test)}
        split, number = place_of(self, task, counts)
        return self.rules.begin(self._questions(split)[number])

    async def step(self, state: Any, action: str) -> Step:
        return self.rules.step(state, action, self.shelf)

    async def fork(self, state: Any) -> Any:
        return state

    def _questions(self, split: Split) -> Sequence[Question]:
        return self.train if split == "train" else self.test
