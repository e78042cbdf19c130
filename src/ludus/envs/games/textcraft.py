"""TextCraft: craft a goal item from recipes that are given as text.

The world of ADaPT (arXiv:2311.05772), one of the five families of AgentGym-RL (arXiv:2509.08755). Three actions:
`get 2 oak log` takes an item that no recipe makes, `craft 4 oak planks using 1 oak log` applies one recipe once,
`inventory` lists what is held. Reward 1 when the goal item is crafted, else 0. The rules are plain functions above
the class; a state is a pure value, so a fork of a state is the state itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from ludus.envs.world import Split, place_of
from ludus.types import End, Message, Step, Task

T = TypeVar("T")

Inventory = tuple[tuple[str, int], ...]
"""(item, how many), sorted by item, without zeros: equal holdings are equal values."""

INSTRUCTION = Message(
    "system",
    "Craft the goal item. Write one action per turn, after Action:\n"
    "get 1 oak log (takes an item that no command crafts)\n"
    "craft 4 oak planks using 1 oak log (applies one command)\n"
    "inventory (lists what you hold)\n"
    "Where a command names a kind, such as planks, use one item of that kind.",
)

ONE_ACTION = "Error: write only one action per turn."


@dataclass(frozen=True)
class Recipe:
    """`count` of `makes` from `uses`; a name in `uses` is an item or a tag, which any one item of the tag fills.

    tag   the tag that `makes` belongs to, if any
    """

    makes: str
    count: int
    uses: tuple[tuple[str, int], ...]
    tag: str | None = None

    def __str__(self) -> str:
        return command(self, [name for name, _ in self.uses])


@dataclass(frozen=True)
class Book:
    """Recipes, and `others`: items that exist beside those that a recipe makes or uses."""

    recipes: tuple[Recipe, ...]
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        makes = {recipe.makes for recipe in self.recipes}
        both = sorted(recipe.tag for recipe in self.recipes if recipe.tag in makes and recipe.tag)
        if both:
            raise ValueError(f"{both[0]!r} is a tag and an item of one book; rename one of them")

    @cached_property
    def of(self) -> Mapping[str, tuple[Recipe, ...]]:
        """Item to the recipes that make it."""
        return _grouped((recipe.makes, recipe) for recipe in self.recipes)

    @cached_property
    def using(self) -> Mapping[str, tuple[Recipe, ...]]:
        """Item or tag to the recipes that name it as an ingredient."""
        return _grouped((name, recipe) for recipe in self.recipes for name, _ in recipe.uses)

    @cached_property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """Tag to its items, in the book's order."""
        pairs = ((recipe.tag, recipe.makes) for recipe in self.recipes if recipe.tag)
        return {tag: tuple(dict.fromkeys(items)) for tag, items in _grouped(pairs).items()}

    @cached_property
    def raw(self) -> frozenset[str]:
        """Items that `get` finds: they exist, no recipe makes them and they are no tag."""
        named = {name for recipe in self.recipes for name, _ in recipe.uses}
        return frozenset((named | set(self.others)) - set(self.of) - set(self.members))

    @cached_property
    def depth(self) -> Mapping[str, int]:
        """Item or tag to the least number of crafting levels below it; raw items have 0.

        depth(x) = min over the recipes that make x, or carry x as their tag, of 1 + max of depth over the ingredients.
        Found level by level, so a cycle of recipes does no harm; what cannot be made at all is absent.
        """
        depth = dict.fromkeys(self.raw, 0)
        level = 0
        while True:
            level += 1
            found = {
                name
                for recipe in self.recipes
                if all(name in depth for name, _ in recipe.uses)
                for name in (recipe.makes, recipe.tag)
                if name is not None and name not in depth
            }
            if not found:
                return depth
            depth.update(dict.fromkeys(found, level))

    def fillers(self, name: str) -> tuple[str, ...]:
        """The items that may stand where a recipe says `name`: those of the tag, or the item itself."""
        return self.members.get(name, (name,))


@dataclass(frozen=True)
class State:
    """Where an episode is. `shown` are the recipes of the opening text; the others of `book` work too."""

    goal: str
    book: Book = field(hash=False, repr=False)
    shown: tuple[Recipe, ...] = field(hash=False, repr=False)
    inventory: Inventory = ()

    @property
    def solved(self) -> bool:
        return any(item == self.goal for item, _ in self.inventory)


# ---------------------------------------------------------------------------------------------- the rules


class Refused(Exception):
    """Raised by `get` and `craft` on what the rules do not allow; `act` makes its text the observation."""


def get(book: Book, inventory: Inventory, count: int, item: str) -> Inventory:
    """Take `count` of a raw item."""
    if item not in book.raw:
        raise Refused(f"Could not find {item}")
    return _add(inventory, item, count)


def craft(
    book: Book, inventory: Inventory, makes: str, given: Sequence[tuple[str, int]]
) -> tuple[Inventory, Recipe]:
    """Apply once the first recipe for `makes` whose ingredients are exactly `given`."""
    wanted = dict[str, int]()
    for item, count in given:
        wanted[item] = wanted.get(item, 0) + count
    held = dict(inventory)
    if any(held.get(item, 0) < count for item, count in wanted.items()):
        raise Refused(f"Could not find enough items to craft {makes}")
    for recipe in book.of.get(makes, ()):
        if len(given) == len(recipe.uses) and _matches(book, recipe.uses, given):
            for item, count in wanted.items():
                inventory = _add(inventory, item, -count)
            return _add(inventory, makes, recipe.count), recipe
    raise Refused(f"Could not find a valid recipe for {makes}")


def inventory_text(inventory: Inventory) -> str:
    held = " ".join(f"[{item}] ({count})" for item, count in inventory)
    return f"Inventory: {held or 'You are not carrying anything.'}"


def command(recipe: Recipe, items: Sequence[str]) -> str:
    """The action that applies `recipe`, with `items` in the places of its ingredients."""
    using = ", ".join(
        f"{count} {item}" for item, (_, count) in zip(items, recipe.uses, strict=True)
    )
    return f"craft {recipe.count} {recipe.makes} using {using}"


LONGEST = 1000  # characters of an action; real ones have a few hundred at most
# Six digits are more than any recipe asks for, and keep what is held small whatever is written.
_COUNTED = re.compile(r"([0-9]{1,6}) (.+)")
_VERB = re.compile(r"\s*(?:craft|get|inventory)\b")


def parse(message: str) -> list[str]:
    """The actions of a message: what follows `Action:`, or else the whole of it.

    More than one come back for a second `Action:`, or for two lines that begin like an action.
    """
    pieces = message.split("Action:")
    if len(pieces) > 2:
        return [piece.strip() for piece in pieces[1:]]
    lines = pieces[-1].splitlines()
    actions = [line.strip() for line in lines if _VERB.match(line)]
    return actions if len(actions) > 1 else [pieces[-1].strip()]


def act(state: State, message: str) -> tuple[Inventory, str]:
    """Inventory and observation after a message of the policy; a refused action changes nothing."""
    actions = parse(message)
    if len(actions) > 1:
        return state.inventory, ONE_ACTION
    if len(actions[0]) > LONGEST:
        return state.inventory, f"Could not execute {actions[0][:100]}..."
    action = " ".join(actions[0].split()).rstrip(".")  # a full stop is a habit, not a mistake
    try:
        return _execute(state, action)
    except Refused as refused:
        return state.inventory, str(refused)


def _execute(state: State, action: str) -> tuple[Inventory, str]:
    verb, _, rest = action.partition(" ")
    if action == "inventory":
        return state.inventory, inventory_text(state.inventory)
    if verb == "get" and (counted := _count(rest)):
        item, count = counted
        return get(state.book, state.inventory, count, item), f"Got {count} {item}"
    if verb == "craft" and " using " in rest:
        product, _, ingredients = rest.partition(" using ")
        # The number before the product is not checked, as in the original: the answer says how many were made.
        numbered = _COUNTED.fullmatch(product)
        makes = numbered[2] if numbered else product
        given = [counted for part in ingredients.split(",") if (counted := _count(part.strip()))]
        if len(given) == ingredients.count(",") + 1:
            inventory, recipe = craft(state.book, state.inventory, makes, given)
            return inventory, f"Crafted {recipe.count} {recipe.makes}"
    raise Refused(f"Could not execute {action}")


def _count(text: str) -> tuple[str, int] | None:
    """("oak log", 2) of "2 oak log"; None where the number is missing, zero or too long."""
    match = _COUNTED.fullmatch(text)
    return (match[2], int(match[1])) if match and int(match[1]) else None


def _matches(book: Book, uses: Sequence[tuple[str, int]], given: Sequence[tuple[str, int]]) -> bool:
    """Whether `given` fills `uses` one to one with equal counts, in any order."""
    if not uses:
        return not given
    (wanted, count), *rest = uses
    return any(
        count == number
        and item in book.fillers(wanted)
        and _matches(book, rest, [*given[:index], *given[index + 1 :]])
        for index, (item, number) in enumerate(given)
    )


def _add(inventory: Inventory, item: str, count: int) -> Inventory:
    held = dict(inventory)
    held[item] = held.get(item, 0) + count
    return tuple(sorted((name, number) for name, number in held.items() if number))


def _grouped(pairs: Iterable[tuple[str, T]]) -> dict[str, tuple[T, ...]]:
    groups: dict[str, list[T]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in groups.items()}


# ---------------------------------------------------------------------------------------------- the environment


def opening(state: State) -> str:
    """The first observation: the shown recipes and the goal."""
    lines = "\n".join(str(recipe) for recipe in state.shown)
    return f"Crafting commands:\n{lines}\n\nGoal: craft {state.goal}."


@dataclass(frozen=True)
class TextCraft:
    """The environment over any source of books; `books.generated` and `books.minecraft` make one.

    start    (split, index) -> the state that a task begins in
    depths   split -> minimum depth of each task's goal; its length is the number of tasks
    """

    start: Callable[[Split, int], State]
    depths: Mapping[Split, Sequence[int]]
    name: str = "textcraft"

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(INSTRUCTION,),
                env=self.name,
                difficulty=depth,
                extras={"split": split, "index": index},
            )
            for index, depth in enumerate(self.depths[split])
        )

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes everything, so all answers of a group see the same text."""
        counts: Mapping[Split, int] = {each: len(depths) for each, depths in self.depths.items()}
        state = self.start(*place_of(self, task, counts))
        return Step(state, opening(state))

    async def step(self, state: State, action: str) -> Step:
        if state.solved:
            raise ValueError("this episode is over, its goal is crafted; call reset for a new one")
        inventory, observation = act(state, action)
        after = replace(state, inventory=inventory)
        if after.solved:
            return Step(after, observation, 1.0, End.SOLVED)
        return Step(after, observation)

    async def fork(self, state: State) -> State:
        return state

    async def close(self, state: State) -> None:
        """Nothing to free."""

    @property
    def views(self) -> Mapping[str, Callable[[State], object]]:
        return {
            "commands": lambda state: [
                command(r, [name for name, _ in r.uses]) for r in state.shown
            ],
            "goal": lambda state: state.goal,
        }
