"""A shop with a customer: the agent asks a person, reads and writes a database, and keeps to a policy.

    customer  cancel my order
    agent     name?                 customer  Ann
    agent     call orders Ann       shop      31 red hat pending, 57 blue cup delivered
    agent     item?                 customer  hat
    agent     call cancel 31        shop      31 red hat cancelled
    agent     done                  (the customer leaves)

The rules of MUA-RL (arXiv:2508.18669) at a small scale. A message with a tool call goes to the shop (only its first
call counts), any other to the customer, who answers from a hidden record, one thing a question. Reward 1, when the
customer leaves or is transferred, if the database equals what the gold actions make of it and all required outputs
were said; else 0. A database is an immutable value and every episode starts from the task's own, so no rollout sees
what another one wrote.

An output counts as said among any others: an agent that lists all numbers is paid 1 for a price without looking it up.
Where wishes are prices (not by default), read what a well-paid agent says.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from ludus.envs.world import LONGEST, Split, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.rewards.state_equality import all_said, digest
from ludus.types import End, Key, Message, Step, Task

NAMES = tuple("Ann Bob Cleo Dan Eve Finn Gus Hal Ida Jo Kit Lou Max Ned Oz Pia".split())
ITEMS = tuple("hat cup bag pen lamp ring sock vase".split())
COLOURS = tuple("red blue green white black brown".split())

POLICY = (
    "You serve a shop. Ask the customer one thing at a time, or write one call:\n"
    "call orders NAME\n"
    "call price ITEM\n"
    "call cancel NUMBER\n"
    "call change NUMBER COLOUR\n"
    "call return NUMBER\n"
    "call transfer (to a person)\n"
    "Cancel and change only pending orders. Return only delivered orders. Say done at the end."
)
STOP = "###STOP###"

Kind = Literal["cancel", "change", "return", "price", "refused"]
KINDS: tuple[Kind, ...] = get_args(Kind)


# ---------------------------------------------------------------------------------------------- the database


@dataclass(frozen=True)
class Order:
    """`stamp` counts the writes up to the last one to this order; 0 if it was never written."""

    number: int
    owner: str
    item: str
    colour: str
    status: Literal["pending", "delivered", "cancelled", "returned"]
    stamp: int = 0

    def __str__(self) -> str:
        return f"{self.number} {self.colour} {self.item} {self.status}"


@dataclass(frozen=True)
class Database:
    orders: tuple[Order, ...]
    prices: tuple[tuple[str, int], ...]
    writes: int = 0

    def find(self, number: str) -> Order:
        for order in self.orders:
            if str(order.number) == number:
                return order
        raise Refused(f"no order {number}")

    def write(self, order: Order, **changes: Any) -> Database:
        """The database with this order changed and stamped."""
        after = replace(order, **changes, stamp=self.writes + 1)
        orders = tuple(after if each is order else each for each in self.orders)
        return replace(self, orders=orders, writes=self.writes + 1)


class Refused(Exception):
    """Raised by a tool on what it cannot do; the text is what the agent reads."""


TRANSFER = ("transfer", "transfer (to a person)")  # the second as the policy writes it
WRITES = ("cancel", "change", "return")
# One call: the word at the start of a line, then the tool and what it is given.
CALL = re.compile(r"^\s*call\b(.*)$", re.MULTILINE)


def use(database: Database, call: str) -> tuple[Database, str]:
    """Database and answer after a call such as `cancel 31`. The tools obey; the policy is the agent's part."""
    match call.split():
        case ["orders", name]:
            owned = [str(order) for order in database.orders if order.owner == name]
            return database, ", ".join(owned) or f"no orders of {name}"
        case ["price", item]:
            price = dict(database.prices).get(item)
            return database, f"no item {item}" if price is None else f"{item} {price}"
        case ["cancel", number]:
            return _written(database, number, status="cancelled")
        case ["return", number]:
            return _written(database, number, status="returned")
        case ["change", number, colour] if colour in COLOURS:
            return _written(database, number, colour=colour)
    raise Refused(f"no such call {call.strip()}")


def _written(database: Database, number: str, **changes: Any) -> tuple[Database, str]:
    order = database.find(number)
    after = database.write(order, **changes)
    return after, str(after.find(number))


# ---------------------------------------------------------------------------------------------- the customer


@dataclass(frozen=True)
class Wish:
    """The hidden record that a customer answers from: who, what, and for a change the new colour.

    `asks` is what the customer says it wants: a refused wish is a cancellation or return that the policy forbids.
    """

    kind: Kind
    asks: Literal["cancel", "change", "return", "price"]
    name: str
    item: str
    colour: str
    new: str = ""

    @property
    def instruction(self) -> str:
        """The wish in words: for a language model that plays the customer, and to tell the splits apart by."""
        want = {
            "price": f"You want to know the price of a {self.item}.",
            "change": f"You want your order of a {self.colour} {self.item} changed to {self.new}.",
        }.get(self.asks, f"You want to {self.asks} your order of a {self.colour} {self.item}.")
        return f"You are {self.name}. {want}"


Said = Sequence[tuple[str, str]]
"""The dialogue so far as (agent or customer, what was said), without tool calls and their answers."""

Person = Callable[[Wish, Said], Awaitable[str]]
"""async (wish, dialogue) -> what the customer says next; the first line if nothing was said. STOP in it ends the talk.

An error raised here loses the episode, it does not score it 0: the policy had no part in it.
"""

# What a question may ask for, by the word that asks for it.
SLOTS = ("name", "item", "colour", "new")
UNKNOWN, AGAIN = "I do not know", "please ask for one thing"


def answered(wish: Wish, message: str) -> str:
    """The scripted answer: to the first thing that is asked for, and to that alone; STOP to `done`."""
    words = re.findall(r"[a-z]+", message.lower())
    if "done" in words:
        return STOP
    slot = next((word for word in words if word in SLOTS), None)
    return AGAIN if slot is None else getattr(wish, slot) or UNKNOWN


async def one_thing_at_a_time(wish: Wish, said: Said) -> str:
    if not said:
        return "price of an item" if wish.asks == "price" else f"{wish.asks} my order"
    return answered(wish, said[-1][1])


async def everything_at_once(wish: Wish, said: Said) -> str:
    """The control: there is nothing left to ask for."""
    if not said:
        new = f", new colour {wish.new}" if wish.new else ""
        return f"{wish.name}, {wish.asks}, {wish.colour} {wish.item}{new}"
    return answered(wish, said[-1][1])


# ---------------------------------------------------------------------------------------------- an episode


@dataclass(frozen=True)
class State:
    """`log` is all that the agent has seen and written; `before` and `gold` the databases to compare with."""

    wish: Wish
    database: Database = field(repr=False)
    gold: Database = field(repr=False)
    outputs: tuple[str, ...] = ()
    log: tuple[tuple[Literal["agent", "customer", "call", "shop"], str], ...] = ()
    over: bool = False

    @property
    def said(self) -> Said:
        return tuple((who, text) for who, text in self.log if who == "agent" or who == "customer")

    @property
    def paid(self) -> bool:
        messages = [text for who, text in self.log if who == "agent"]
        return digest(self.database) == digest(self.gold) and all_said(self.outputs, messages)


def fewest_questions(wish: Wish, database: Database) -> int:
    """How many answers single the wish out: what a lucky agent must ask before it writes."""
    if wish.asks == "price":
        return 1
    owned = [order for order in database.orders if order.owner == wish.name]
    tells = next(
        slots
        for count in range(3)
        for slots in itertools.combinations(("item", "colour"), count)
        if sum(all(getattr(o, s) == getattr(wish, s) for s in slots) for o in owned) == 1
    )
    return 1 + len(tells) + (wish.asks == "change")


@dataclass(frozen=True)
class Shop:
    """Three kinds of orders to write, as in MUA-RL's demonstration; `Shop(KINDS)` has those without a write too.

    kinds    of wishes; tasks take them in turn. A "refused" wish has nothing to write and nothing to say, so an agent
             that does nothing is paid for it: report their share beside any score
    person   who plays the customer: `one_thing_at_a_time`, `everything_at_once`, or a language model
    """

    kinds: tuple[Kind, ...] = ("cancel", "change", "return")
    person: Person = one_thing_at_a_time
    customers: int = 4
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "shop"

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ValueError(f"kinds={self.kinds}; give some of {', '.join(KINDS)}")
        if not 1 <= self.customers <= len(NAMES):
            raise ValueError(f"customers={self.customers}; give 1 to {len(NAMES)}")

    def start(self, split: Split, index: int) -> State:
        """The test split gets the wishes whose words hash to it, so no instruction is in both."""
        kind = self.kinds[index % len(self.kinds)]
        key = Key(self.seed, ("shop", split, index))
        return draw_for(
            split, key, lambda rng: self.draw(rng, kind), lambda state: state.wish.instruction
        )

    def draw(self, rng: np.random.Generator, kind: Kind) -> State | None:
        """A database and a wish of one of its customers; None where the status does not fit the wish."""
        owners = [NAMES[place] for place in rng.permutation(len(NAMES))[: self.customers]]
        numbers = rng.permutation(np.arange(10, 100)).tolist()
        orders: list[Order] = []
        for owner in owners:
            items = rng.permutation(len(ITEMS))[: int(rng.integers(2, 4))].tolist()
            if rng.random() < 0.4:
                items[1] = items[0]  # the same thing twice: then the colour must be asked for
            colours = rng.permutation(len(COLOURS))  # different: item and colour tell orders apart
            for item, colour in zip(items, colours, strict=False):
                status = "pending" if rng.random() < 0.5 else "delivered"
                orders.append(Order(numbers.pop(), owner, ITEMS[item], COLOURS[colour], status))
        prices = tuple((item, int(rng.integers(10, 100))) for item in ITEMS)
        database = Database(tuple(sorted(orders, key=lambda order: order.number)), prices)
        order = one_of(rng, orders)
        return self.with_wish(rng, kind, database, order)

    def with_wish(
        self, rng: np.random.Generator, kind: Kind, database: Database, order: Order
    ) -> State | None:
        asks = one_of(rng, ("cancel", "return")) if kind == "refused" else kind
        allowed = order.status == ("delivered" if asks == "return" else "pending")
        if kind != "price" and allowed == (kind == "refused"):
            return None
        new = ""
        if kind == "change":
            new = one_of(rng, [colour for colour in COLOURS if colour != order.colour])
        wish = Wish(kind, asks, order.owner, order.item, order.colour, new)
        gold = database
        for call in gold_calls(wish, order):
            gold, _ = use(gold, call)
        outputs = (str(dict(database.prices)[wish.item]),) if kind == "price" else ()
        return State(wish, database, gold, outputs)

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        texts = (*NAMES, *ITEMS, *COLOURS, *SLOTS, *WRITES, UNKNOWN, AGAIN)
        said = "my order price of an item shop call orders no such done pending delivered cancelled returned"
        return listed(POLICY, said, *texts)

    def expert(self, state: State) -> str:
        """Asks for what is missing, looks, asks on where two orders fit, writes if the policy allows it, and leaves.

        It understands the scripted customers only.
        """
        known, listing, price, written = _known(state)
        first = state.log[0][1]
        asks = next(word for word in ("cancel", "change", "return", "price") if word in first)
        if asks == "price":
            if "item" not in known:
                return "item?"
            return f"call price {known['item']}" if price is None else f"{price} done"
        if written:
            return "done"
        if "name" not in known:
            return "name?"
        if listing is None:
            return f"call orders {known['name']}"
        fits = [
            (number, colour, item, status)
            for number, colour, item, status in listing
            if known.get("item", item) == item and known.get("colour", colour) == colour
        ]
        if len(fits) > 1:
            return "colour?" if "item" in known else "item?"
        number, _, _, status = fits[0]
        if status != ("delivered" if asks == "return" else "pending"):
            return "done"
        if asks != "change":
            return f"call {asks} {number}"
        return f"call change {number} {known['new']}" if "new" in known else "new?"

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Asks, looks and writes about what was named, and leaves now and then."""
        _, listing, _, _ = _known(state)
        names = sorted({word for _, text in state.log for word in text.split()} & set(NAMES))
        numbers = [row[0] for row in listing or ()]
        choices = [
            *(f"{slot}?" for slot in SLOTS),
            *(f"call orders {name}" for name in names),
            f"call price {one_of(rng, ITEMS)}",
            *(f"call {verb} {number}" for verb in ("cancel", "return") for number in numbers),
            *(f"call change {number} {one_of(rng, COLOURS)}" for number in numbers),
            "done",
        ]
        return one_of(rng, choices)

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """`extras["changes"]` is False where the gold actions write nothing and nothing has to be said."""
        made = []
        for index in range(self.train if split == "train" else self.test):
            state = self.start(split, index)
            made.append(
                Task(
                    id=f"{self.name}-{split}-{index}",
                    prompt=(Message("system", POLICY),),
                    env=self.name,
                    difficulty=fewest_questions(state.wish, state.database),
                    domain=state.wish.kind,
                    extras={
                        "split": split,
                        "index": index,
                        "instruction": state.wish.instruction,
                        "changes": state.gold != state.database or bool(state.outputs),
                    },
                )
            )
        return made

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes database and wish."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        opening = await self.person(state.wish, ())
        return Step(replace(state, log=(("customer", opening),)), opening)

    async def step(self, state: State, action: str) -> Step:
        """`info["did"]` is ask, read, write, error, leave or transfer; count questions before the first write by it."""
        refuse_if_over(state.over)
        call = CALL.search(action, max(0, len(action) - LONGEST))  # what counts stands at the end
        if call is None:
            return await self.tell(state, action[-LONGEST:].strip())
        asked = " ".join(call[1].split()).rstrip(".")
        state = replace(state, log=(*state.log, ("call", asked)))
        if asked in TRANSFER:
            return _ended(state, "transferred", "transfer")
        try:
            database, told = use(state.database, asked)
            did = "write" if database != state.database else "read"
        except Refused as refused:
            database, told, did = state.database, str(refused), "error"
        after = replace(state, database=database, log=(*state.log, ("shop", told)))
        return Step(after, f"shop: {told}", info={"did": did})

    async def tell(self, state: State, message: str) -> Step:
        state = replace(state, log=(*state.log, ("agent", message)))
        told = await self.person(state.wish, state.said)
        if STOP in told:
            return _ended(state, told, "leave")
        return Step(replace(state, log=(*state.log, ("customer", told))), told, info={"did": "ask"})

    async def fork(self, state: State) -> State:
        return state


def gold_calls(wish: Wish, order: Order) -> tuple[str, ...]:
    """The writes that fulfil a wish."""
    if wish.kind in ("price", "refused"):
        return ()
    return (f"{wish.kind} {order.number} {wish.new}".strip(),)


def _ended(state: State, told: str, did: str) -> Step:
    after = replace(state, over=True)
    if state.paid:
        return Step(after, told, 1.0, End.SOLVED, {"did": did})
    return Step(after, told, 0.0, End.FAILED, {"did": did})


def _known(
    state: State,
) -> tuple[dict[str, str], list[tuple[str, str, str, str]] | None, str | None, bool]:
    """What the log tells: answers by slot, the orders that were listed, a price, and whether something was written."""
    known: dict[str, str] = {}
    listing: list[tuple[str, str, str, str]] | None = None
    price, written = None, False
    first = state.log[0][1]
    if "," in first:  # everything at once
        name, _, thing, *rest = first.split(", ")
        known = {"name": name, "colour": thing.split()[0], "item": thing.split()[1]}
        known |= {"new": rest[0].split()[-1]} if rest else {}
    for (_, asked), (who, told) in itertools.pairwise(state.log):
        if who == "customer" and told not in (UNKNOWN, AGAIN):
            words = re.findall(r"[a-z]+", asked.lower())
            slot = next((word for word in words if word in SLOTS), None)
            known |= {slot: told} if slot else {}
        if who == "shop" and asked.startswith("orders") and not told.startswith("no "):
            rows = [row.split() for row in told.split(", ")]
            listing = [(number, colour, item, status) for number, colour, item, status in rows]
        if who == "shop" and asked.startswith("price") and not told.startswith("no "):
            price = told.split()[1]
        written |= who == "shop" and asked.startswith(WRITES) and not told.startswith("no ")
    return known, listing, price, written
