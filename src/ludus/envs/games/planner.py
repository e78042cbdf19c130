"""What an expert would do in TextCraft, and what a beginner might try."""

from __future__ import annotations

from ludus.envs.games.textcraft import Recipe, State, command


def plan(state: State) -> tuple[str, ...]:
    """Actions that solve from `state`: what is held is used first, then raw items are fetched, then crafts in order.

    Each item is made by its shallowest recipe, so every ingredient is shallower than its product and the recursion
    ends. The plan is short, not always the shortest; it comes back empty where the goal is crafted already.
    """
    depth = state.book.depth
    if state.goal not in state.book.of or state.goal not in depth:
        raise ValueError(f"no recipe of the book leads to {state.goal!r}; choose another goal")
    stock = dict(state.inventory)
    fetched: dict[str, int] = {}
    crafts: list[str] = []

    def level(recipe: Recipe) -> int:
        return max(depth.get(name, len(depth)) for name, _ in recipe.uses)

    def take(name: str, count: int) -> str:
        """Set `count` of an item that fills `name` aside, making what is missing; returns the item."""
        item = min(
            state.book.fillers(name),
            key=lambda item: (stock.get(item, 0) < count, depth.get(item, len(depth))),
        )
        missing = count
        while missing := missing - set_aside(item, missing):
            if item in state.book.raw:
                fetched[item] = fetched.get(item, 0) + missing
                break
            make(item)
        return item

    def set_aside(item: str, count: int) -> int:
        """Take up to `count` from the stock, out of reach of what is made meanwhile."""
        taken = min(count, stock.get(item, 0))
        stock[item] = stock.get(item, 0) - taken
        return taken

    def make(item: str) -> None:
        recipe = min(state.book.of[item], key=level)
        crafts.append(command(recipe, [take(name, count) for name, count in recipe.uses]))
        stock[item] = stock.get(item, 0) + recipe.count

    if not state.solved:
        make(state.goal)
    return (*(f"get {count} {item}" for item, count in fetched.items()), *crafts)


def legal(state: State) -> tuple[str, ...]:
    """Well-formed actions that somebody who read the opening text could try, useful or not.

    Every raw item that a shown recipe names, in the numbers named; every shown recipe, a tag filled by an item that is
    held, if one is, else by its first item; and `inventory`.
    """
    book, held = state.book, dict(state.inventory)

    def filled(name: str) -> str:
        items = book.fillers(name)
        return next((item for item in items if item in held), items[0])

    gets = [
        f"get {count} {name}"
        for recipe in state.shown
        for name, count in recipe.uses
        if name in book.raw
    ]
    crafts = [command(r, [filled(name) for name, _ in r.uses]) for r in state.shown]
    return tuple(dict.fromkeys((*gets, *crafts, "inventory")))


def recall(recipe: Recipe) -> str:
    """A command as a line of thought: "make sand: 1 golden paper"."""
    return f"make {recipe.makes}: " + ", ".join(f"{n} {name}" for name, n in recipe.uses)


def reason(state: State) -> tuple[str, str]:
    """A thought and an action: from the goal down to the first ingredient that is missing, one look-up a line.

        make sand: 1 golden paper
        make golden paper: 1 copper string
        Action: get 1 copper string

    Every line is read off one command or off the inventory, so a small model can write it where it could not leap to
    the action. It solves what `plan` solves, with more actions where two products share an ingredient.
    """
    held = dict(state.inventory)
    depth = state.book.depth
    lines: list[str] = []
    item = state.goal
    while True:
        recipe = min(
            state.book.of[item],
            key=lambda recipe: max(depth.get(name, len(depth)) for name, _ in recipe.uses),
        )
        lines.append(recall(recipe))
        used: list[str] = []
        for name, count in recipe.uses:
            filler = min(
                state.book.fillers(name),
                key=lambda x: (held.get(x, 0) < count, depth.get(x, len(depth))),
            )
            missing = count - held.get(filler, 0)
            if missing > 0 and filler in state.book.raw:
                return "\n".join(lines), f"get {missing} {filler}"
            if missing > 0:
                item = filler
                break
            used.append(filler)
        else:
            return "\n".join(lines), command(recipe, used)
