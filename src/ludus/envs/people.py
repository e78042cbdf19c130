"""Simulated people: users, teachers and judges, who know a hidden record and say what a language model makes of it.

    talk = Endpoint("http://127.0.0.1:8000/v1", "some-model")        or  Local(sampler, Sampling(max_tokens=60))
    env = Shop(person=customer(talk))

A person is asked with the record and the dialogue so far. What the model says is checked against the record before
anybody hears it: a reply that leaks what was not asked for, or contradicts the record, is refused and asked for again
a few times; then a scripted reply takes its place. All of that is counted (`Played.counts`), because a person who is
scripted half of the time is another person.

An endpoint that cannot be reached raises Unreachable: the episode is lost to it, and nothing is scored.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from ludus.envs.small import shop
from ludus.types import Explained, Key, Message, Role, Sampler, Sampling

R = TypeVar("R")

Said = Sequence[tuple[str, str]]
"""The dialogue so far as (who, what); the policy is "agent", and whoever else speaks is the person."""

Person = Callable[[R, Said], Awaitable[str]]
"""async (record, dialogue) -> what the person says next. `shop.Person` is one."""

Talk = Callable[[Sequence[Message]], Awaitable[str]]
"""async (messages) -> the reply of a model."""

Check = Callable[[R, Said, str], str]
"""(record, dialogue, reply) -> why the reply is refused; empty where it is fine."""


# ---------------------------------------------------------------------------------------------- who talks


class Unreachable(Explained):
    """An endpoint gave no reply; it says which and why."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind the chat route of OpenAI's protocol: `url` is what stands before /chat/completions.

    tries    for a refused connection, a time-out, and the codes 408, 429 and 5xx; `pause` seconds times 1, 2, 4 ...
             lie between them
    settings  more fields of the request, such as {"temperature": 0.7, "max_tokens": 80}
    """

    url: str
    model: str
    token: str = field(default="", repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 60.0
    tries: int = 3
    pause: float = 0.5

    async def __call__(self, messages: Sequence[Message]) -> str:
        import httpx

        said = [{"role": message.role, "content": message.text} for message in messages]
        body = {"model": self.model, "messages": said, **self.settings}
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        route = f"{self.url.rstrip('/')}/chat/completions"
        problem = ""
        async with httpx.AsyncClient(timeout=self.seconds) as client:
            for attempt in range(self.tries):
                if attempt:
                    await asyncio.sleep(self.pause * 2 ** (attempt - 1))
                try:
                    reply = await client.post(route, json=body, headers=headers)
                except httpx.TransportError as error:
                    problem = f"{type(error).__name__}: {error}"
                    continue
                if reply.is_success:
                    return self._text(reply)
                problem = f"{reply.status_code}: {reply.text[:300]}"
                if reply.status_code not in (408, 429) and reply.status_code < 500:
                    break
        raise Unreachable(
            f"{route} gave no reply ({problem}); check the address, the model's name and the token"
        )

    def _text(self, reply: Any) -> str:
        try:
            text = reply.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise Unreachable(
                f"{self.url} answered {reply.text[:300]!r}; wanted choices[0].message.content "
                "of OpenAI's chat route"
            )
        return text


@dataclass(frozen=True)
class Local:
    """A model in this process. The same dialogue gets the same reply: it names the numbers.

    sampler   of the person alone. A local one (it has a `tick`) is driven here, all talks under way in one batch; the
              sampler of an engine is driven by that engine, and must not be given
    """

    sampler: Sampler
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=80))
    seed: int = 0

    async def __call__(self, messages: Sequence[Message]) -> str:
        key = Key(self.seed, ("person", *(f"{said.role}:{said.text}" for said in messages)))
        renderer = self.sampler.renderer
        context = renderer.open(list(messages))
        talk = asyncio.ensure_future(self.sampler.generate(context, self.sampling, key))
        tick = getattr(self.sampler, "tick", None)
        try:
            while tick is not None and not talk.done():
                await asyncio.sleep(0)  # the others join before the model runs
                if not talk.done():
                    tick()
            return renderer.text((await talk).said)
        finally:
            talk.cancel()


# ---------------------------------------------------------------------------------------------- who is played


@dataclass(frozen=True)
class Played(Generic[R]):
    """A person whom a model plays.

    brief     the record -> what the model is told about its part
    scripted  who speaks where the model's replies are refused
    checks    all of them must be content
    retries   after a refused reply, each with the reason of the refusal
    counts    of all calls so far: replies, refused (one each time), scripted
    """

    talk: Talk
    brief: Callable[[R], str]
    scripted: Person[R]
    checks: Sequence[Check[R]] = ()
    retries: int = 2
    counts: Counter[str] = field(default_factory=Counter, compare=False)

    async def __call__(self, record: R, said: Said) -> str:
        messages = [Message("system", self.brief(record)), *seen_by_the_person(said)]
        self.counts["replies"] += 1
        for _ in range(1 + self.retries):
            reply = (await self.talk(messages)).strip()
            why = self.refused(record, said, reply)
            if not why:
                return reply
            self.counts["refused"] += 1
            messages += [
                Message("assistant", reply),
                Message("user", f"(Not sent: {why}. Say it anew.)"),
            ]
        self.counts["scripted"] += 1
        return await self.scripted(record, said)

    def refused(self, record: R, said: Said, reply: str) -> str:
        """Why a reply is refused, by the first check that minds; empty where none does."""
        if not reply:
            return "the reply is empty"
        return next((why for check in self.checks if (why := check(record, said, reply))), "")


def seen_by_the_person(said: Said) -> list[Message]:
    """The dialogue from the other side: the agent is the user, and the person's own words are the assistant's."""
    roles: dict[bool, Role] = {True: "user", False: "assistant"}
    told = [Message(roles[who == "agent"], text) for who, text in said]
    return told if told and told[0].role == "user" else [Message("user", "(You begin.)"), *told]


# ---------------------------------------------------------------------------------------------- what may be said


@dataclass(frozen=True)
class Sheet:
    """A record as facts that may be asked for.

    facts    fact -> its value in the record; one that the record does not have is ""
    domains  fact -> all values that it could have, so that a false one is recognised
    open     facts that the person tells without being asked
    """

    facts: Mapping[str, str]
    domains: Mapping[str, Iterable[str]] = field(default_factory=dict)
    open: frozenset[str] = frozenset()


def words_of(text: str) -> str:
    """Lower case, single spaces and no punctuation: what values are searched in."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return f" {' '.join(words)} "


def _names(text: str, value: str) -> bool:
    return bool(value) and words_of(value) in words_of(text)


def keeps_to(sheet: Callable[[R], Sheet], asked: Callable[[str], set[str]]) -> Check[R]:
    """A check that a reply leaks no fact that nobody asked for, and contradicts none.

    asked   an agent's message -> the facts that it asks for. What the agent or the person has said before is no secret
    """

    def check(record: R, said: Said, reply: str) -> str:
        known = sheet(record)
        heard = " ".join(text for _, text in said)
        wanted = {fact for who, text in said if who == "agent" for fact in asked(text)}
        free = wanted | known.open
        allowed = [known.facts[fact] for fact in free if known.facts.get(fact)]
        for fact, value in known.facts.items():
            secret = fact not in free and value not in allowed and not _names(heard, value)
            if secret and _names(reply, value):
                return f"it tells the {fact}, which was not asked for"
        true = {value.casefold() for value in known.facts.values()}
        for fact, domain in known.domains.items():
            for value in domain:
                if value.casefold() not in true and _names(reply, value):
                    return f"it says {value}, and that is not the {fact}"
        # The value of another fact in the place of the one that was asked for.
        latest = asked(said[-1][1]) if said else set()
        for fact in latest:
            domain = set(known.domains.get(fact, ()))
            named = sorted(value for value in domain if _names(reply, value))
            alike = (each for each in latest if set(known.domains.get(each, ())) == domain)
            if named and not any(known.facts.get(each, "") in named for each in alike):
                return f"it says {named[0]} for the {fact}"
        return ""

    return check


def keeps_secret(secret: Callable[[R], str]) -> Check[R]:
    """A check for teachers: the reply does not contain the answer, unless the learner has said it."""

    def check(record: R, said: Said, reply: str) -> str:
        answer = secret(record)
        told = any(who == "agent" and _names(text, answer) for who, text in said)
        return "it tells the answer" if _names(reply, answer) and not told else ""

    return check


def says_one_of(words: Sequence[str]) -> Check[Any]:
    """A check for judges: the reply is one of these words, and nothing else."""

    def check(record: Any, said: Said, reply: str) -> str:
        verdict = words_of(reply).strip()
        allowed = [words_of(word).strip() for word in words]
        return "" if verdict in allowed else f"the verdict is one of {', '.join(words)} alone"

    return check


def no_longer_than(letters: int) -> Check[Any]:
    def check(record: Any, said: Said, reply: str) -> str:
        return f"it is longer than {letters} letters" if len(reply) > letters else ""

    return check


# ---------------------------------------------------------------------------------------------- scripted people


def hints(of: Callable[[R], Sequence[str]]) -> Person[R]:
    """A scripted teacher: the record's hints one after the other, and then the last one again."""

    async def person(record: R, said: Said) -> str:
        given = of(record)
        turn = sum(who != "agent" for who, _ in said)
        return given[min(turn, len(given) - 1)]

    return person


def verdict_by(
    right: Callable[[R, str], bool], words: tuple[str, str] = ("yes", "no")
) -> Person[R]:
    """A scripted judge: the first word where the agent's last message is right, else the second."""

    async def person(record: R, said: Said) -> str:
        latest = next((text for who, text in reversed(said) if who == "agent"), "")
        return words[0] if right(record, latest) else words[1]

    return person


# ---------------------------------------------------------------------------------------------- ready-made


def customer(talk: Talk, retries: int = 2) -> Played[shop.Wish]:
    """The customer of ludus.envs.small.shop: tells one thing when it is asked for, and leaves when all is done."""
    return Played(
        talk, _customer_brief, shop.one_thing_at_a_time, (_customer_check,), retries=retries
    )


def _customer_brief(wish: shop.Wish) -> str:
    return (
        f"{wish.instruction} You talk to the shop's agent. In your first message say only what kind of thing you want "
        f"({_kind(wish)}). Then tell exactly what you are asked for, one thing a message, in a few words. What is not "
        f"said above you do not know: say {shop.UNKNOWN!r}. When the agent says that it is done, write {shop.STOP}"
    )


def _kind(wish: shop.Wish) -> Literal["the price of an item", "cancel", "change", "return"]:
    return "the price of an item" if wish.asks == "price" else wish.asks


def _customer_sheet(wish: shop.Wish) -> Sheet:
    facts = {slot: str(getattr(wish, slot)) for slot in shop.SLOTS}
    domains = {
        "name": shop.NAMES,
        "item": shop.ITEMS,
        "colour": shop.COLOURS,
        "new": shop.COLOURS,
        "kind": ("cancel", "change", "return", "price"),
    }
    return Sheet({**facts, "kind": wish.asks}, domains, frozenset({"kind"}))


def _customer_asked(text: str) -> set[str]:
    one = re.sub(r"\bnew colou?rs?\b", "new", text.lower())
    return set(re.findall(r"[a-z]+", one)) & set(shop.SLOTS)


_facts_of_the_customer = keeps_to(_customer_sheet, _customer_asked)


def _customer_check(wish: shop.Wish, said: Said, reply: str) -> str:
    done = bool(said) and "done" in words_of(said[-1][1]).split()
    if (shop.STOP in reply) != done:
        return "leave when the agent is done" if done else "do not leave before the agent is done"
    return _facts_of_the_customer(wish, said, reply)


def teacher(
    talk: Talk,
    brief: Callable[[R], str],
    answer: Callable[[R], str],
    scripted: Person[R],
    longest: int = 400,
) -> Played[R]:
    """A teacher who helps and does not tell the answer."""
    return Played(talk, brief, scripted, (keeps_secret(answer), no_longer_than(longest)))


def judge(
    talk: Talk,
    brief: Callable[[R], str],
    scripted: Person[R],
    words: Sequence[str] = ("yes", "no"),
) -> Played[R]:
    """A judge who says one of `words` about the dialogue."""
    return Played(talk, brief, scripted, (says_one_of(words),))
