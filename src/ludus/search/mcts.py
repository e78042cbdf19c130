"""Monte-Carlo tree search over texts that grow line by line: VM-MCTS of ReST-RL, arXiv:2508.19576.

A node is the beginning of a program (or of any text in lines), an action is one line. One round:

    select   from the root, the visible child with the highest UCT, until a node is not expanded
    expand   sample whole completions from it; their first lines are its children, equal lines share one
    score    score the completions: they are the roll-outs, nothing more is sampled
    back up  add count and total to the node and to all above it

While training data is made (`training_round`), tests score the completions and children begin unvisited; `values`
then gives what a value model learns from. While answering (`decoding_round`), the value model scores children and
completions, and `best` picks the completion that it likes most anywhere in the tree.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.types import Key

Sample = Callable[[str, int, Key], Awaitable[Sequence[str]]]
"""async (text so far, how many, key) -> completions of it."""

Score = Callable[[Sequence[str]], Awaitable[Sequence[float]]]
"""async (texts) -> a number in [0, 1] each: a verifier of whole texts, or a value model of texts in any state."""


@dataclass(eq=False)
class Node:
    """`completions` are the whole texts that were sampled from here, with their scores."""

    state: str
    parent: Node | None = None
    terminal: bool = False
    visible: bool = True
    visits: int = 0
    total: float = 0.0
    children: dict[str, Node] = field(default_factory=dict)
    completions: list[tuple[str, float]] = field(default_factory=list)

    @property
    def value(self) -> float:
        """V = total / visits; 0 before the first visit."""
        return self.total / self.visits if self.visits else 0.0

    @property
    def expanded(self) -> bool:
        return bool(self.children)

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        ahead: list[Node] = [self]
        while ahead:
            node = ahead.pop()
            yield node
            ahead.extend(reversed(node.children.values()))


@dataclass(frozen=True)
class Settings:
    """The paper's, for training; its release answers with keep=5, exploration=0.1.

    samples      completions in an expansion
    keep         children that selection sees, those of the highest value (the first of equals)
    exploration  c in UCT; `eps` keeps it finite for a child without visits
    """

    samples: int = 5
    keep: int = 3
    exploration: float = 0.2
    eps: float = 0.1


# ---------------------------------------------------------------------------------------------- the steps


def uct(value: float, visits: int, parent_visits: int, *, exploration: float, eps: float) -> float:
    """V + c sqrt((1 + ln N_parent) / (eps + N)). N_parent is at least 1: a node is visited when it is expanded."""
    return value + exploration * math.sqrt((1 + math.log(parent_visits)) / (eps + visits))


def select(root: Node, settings: Settings, key: Key) -> Node:
    """The node to expand, or a terminal one. Equal children are drawn from by `key`."""
    node = root
    while node.expanded:
        scores = {
            child: uct(
                child.value,
                child.visits,
                node.visits,
                exploration=settings.exploration,
                eps=settings.eps,
            )
            for child in node.children.values()
            if child.visible
        }
        highest = max(scores.values())
        equal = [child for child, score in scores.items() if score == highest]
        node = equal[(key / node.state).generator().integers(len(equal))]
    return node


def first_line(completion: str) -> tuple[str, bool]:
    """The action of a completion, with its line's end, and whether there is nothing after it."""
    line, rest, _ = completion.rstrip().partition("\n")
    return f"{line}\n", not rest


def whole(node: Node, completion: str) -> str:
    """The text that a completion makes of a node's, ended by one line's end, as the state of a terminal child is."""
    return f"{node.state}{completion.rstrip()}\n"


def add_children(node: Node, completions: Sequence[str]) -> list[Node]:
    """Make a child for each different first line; returns the child of each completion, so with repetitions."""
    found = []
    for completion in completions:
        action, ends = first_line(completion)
        if action not in node.children:
            node.children[action] = Node(node.state + action, node, terminal=ends)
        found.append(node.children[action])
    return found


def hide_all_but_best(node: Node, keep: int) -> None:
    ranked = sorted(node.children.values(), key=lambda child: -child.value)
    for child in ranked[keep:]:
        child.visible = False


def back_up(node: Node, count: int, total: float) -> None:
    """Add to the node and to all above it."""
    above: Node | None = node
    while above is not None:
        above.visits += count
        above.total += total
        above = above.parent


# ---------------------------------------------------------------------------------------------- the rounds


async def training_round(
    root: Node, sample: Sample, verify: Score, settings: Settings, key: Key
) -> Node:
    """One round whose scores are verdicts on whole texts; returns the node that was reached."""
    node = select(root, settings, key / "select")
    if node.terminal:
        if not node.visits:
            (reward,) = await verify([node.state])
            node.completions.append((node.state, reward))
            back_up(node, 1, reward)
        else:
            back_up(node, 1, node.value)
        return node
    completions = await sample(node.state, settings.samples, key / "sample")
    add_children(node, completions)
    hide_all_but_best(node, settings.keep)
    texts = [whole(node, completion) for completion in completions]
    rewards = await verify(texts)
    node.completions += zip(texts, rewards, strict=True)
    back_up(node, len(rewards), sum(rewards))
    return node


async def decoding_round(
    root: Node, sample: Sample, value: Score, settings: Settings, key: Key
) -> Node:
    """One round whose scores are a value model's, of each new child and of each completion.

    A child starts with one visit, and has one more for each other completion that begins with its line; the node gets
    the sum of its children.
    """
    node = select(root, settings, key / "select")
    if node.terminal:
        back_up(node, 1, node.value)
        return node
    completions = await sample(node.state, settings.samples, key / "sample")
    found = add_children(node, completions)
    children = list(node.children.values())
    values = await value([child.state for child in children])
    for child, worth in zip(children, values, strict=True):
        child.visits = found.count(child)
        child.total = worth * child.visits
    hide_all_but_best(node, settings.keep)
    texts = [whole(node, completion) for completion in completions]
    node.completions += zip(texts, await value(texts), strict=True)
    back_up(node, len(found), sum(child.total for child in children))
    return node


# ---------------------------------------------------------------------------------------------- what a tree is for


def best(root: Node) -> tuple[str, float]:
    """The completion with the highest score in the tree, wherever it was sampled; the first of equals."""
    found = [scored for node in root.walk() for scored in node.completions]
    if not found:
        raise ValueError("nothing was sampled in this tree; run a round first")
    return max(found, key=lambda scored: scored[1])


def values(root: Node) -> list[tuple[str, float]]:
    """(text, target) for a value model: every expanded state with its V, and every completion with its reward."""
    states = [(node.state, node.value) for node in root.walk() if node.expanded]
    return [*states, *(scored for node in root.walk() for scored in node.completions)]


def to_records(root: Node) -> list[dict[str, Any]]:
    """The tree as plain records, parents first; `parent` is the number of a record, -1 for the root's."""
    numbers = {node: number for number, node in enumerate(root.walk())}
    return [
        {
            "parent": numbers[node.parent] if node is not root and node.parent else -1,
            "state": node.state,
            "terminal": node.terminal,
            "visible": node.visible,
            "visits": node.visits,
            "total": node.total,
            "completions": [list(scored) for scored in node.completions],
        }
        for node in numbers
    ]


def from_records(records: Sequence[Mapping[str, Any]]) -> Node:
    """The tree of `to_records`, as it was."""
    nodes: list[Node] = []
    for record in records:
        parent = nodes[record["parent"]] if record["parent"] >= 0 else None
        node = Node(
            record["state"],
            parent,
            record["terminal"],
            record["visible"],
            record["visits"],
            record["total"],
            completions=[(text, score) for text, score in record["completions"]],
        )
        if parent is not None:
            parent.children[node.state.removeprefix(parent.state)] = node
        nodes.append(node)
    if not nodes:
        raise ValueError("no records; give those of to_records(root)")
    return nodes[0]
