"""A web page as a policy reads it, and the actions of WebArena (arXiv:2307.13854) that it writes.

A page is a tree of roles and names, the accessibility tree that a screen reader speaks. It is told in one of two forms:

    lines   a line for every block, and numbers for what can be used; short, for small models
                [1] link 'cart' [2] link 'orders'
                heading 'red hat'
                price 12
                [3] textbox 'amount': 1 [4] button 'add'
    tree    a line for every node, all of them numbered, children one tab further in; WebArena's form. A text is left
            out only where a name says it, while WebArena looks for it anywhere in the three lines above, numbers too

An action names an element by its number:

    click [4]              hover [4]              type [3] [two] [1]      (the last 1: and press Enter; 0: do not)
    press [Control+a]      scroll [down]          goto [/shop/cart]       go_back    go_forward
    new_tab                tab_focus [0]          close_tab               stop [the answer]

It stands alone, behind the last `Action:`, or between the last three backticks of what stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from ludus.envs.world import action_of
from ludus.types import Explained

Form = Literal["lines", "tree"]

# ---------------------------------------------------------------------------------------------- pages


@dataclass(frozen=True, eq=False)
class Node:
    """An element or a text of a page. Identity is equality, so that pages are quick to look up.

    states  those that hold, such as checked
    key     what its reader finds it by again
    """

    role: str
    name: str = ""
    value: str = ""
    states: tuple[str, ...] = ()
    key: int = 0
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()

    def __str__(self) -> str:
        value = f": {self.value}" if self.value else ""
        return " ".join((f"{self.role} '{self.name}'{value}", *self.states))


@dataclass(frozen=True)
class Sight:
    """What a browser shows: the page of the tab in front, its address, and the titles of all tabs.

    screen  how many screens it is scrolled down
    """

    page: Node
    url: str
    tabs: tuple[str, ...] = ("",)
    tab: int = 0
    screen: int = 0


@dataclass(frozen=True)
class Told:
    """A page in text; `elements[n - 1]` is what number n stands for."""

    lines: tuple[str, ...]
    elements: tuple[Node, ...]

    def screen(self, number: int, rows: int) -> str:
        """The lines of a screen of so many rows, and whether there are more."""
        first = min(number * rows, max(0, (len(self.lines) - 1) // rows * rows))
        shown = list(self.lines[first : first + rows])
        above = ["more above"] if first else []
        below = ["more below"] if first + rows < len(self.lines) else []
        return "\n".join(above + shown + below)

    def scrolled(self, screen: int, way: str, rows: int) -> int:
        """The number of the screen after a scroll up or down; the first and the last are the ends."""
        last = max(0, (len(self.lines) - 1) // rows)
        return max(0, min(screen, last) - 1) if way == "up" else min(screen + 1, last)

    def element(self, number: int) -> Node:
        if not 1 <= number <= len(self.elements):
            raise Misread(f"no element [{number}] on this page")
        return self.elements[number - 1]


CONTROLS = frozenset(
    "link button textbox searchbox combobox listbox checkbox radio switch spinbutton slider tab option menuitem "
    "menuitemcheckbox menuitemradio treeitem DisclosureTriangle ColorWell Date DateTime InputTime".split()
)
FIELDS = frozenset("textbox searchbox spinbutton".split())  # what is typed into
LISTS = frozenset(("combobox", "listbox"))
BLOCKS = frozenset(
    "RootWebArea heading paragraph listitem row navigation main list table dialog alert article banner "
    "contentinfo region search group blockquote figure caption complementary tablist tabpanel menu toolbar "
    "radiogroup term definition DescriptionListTerm DescriptionListDetail Section".split()
)
# Of these, WebArena's tree shows those that have a name.
SILENT = frozenset(
    "generic img list strong paragraph banner navigation Section LabelText Legend listitem emphasis none".split()
)
# Whose name is the text in them; the title of a page or of a group is another text.
CALLED_BY_TEXT = CONTROLS | frozenset("heading columnheader rowheader img image".split())
MANY = 10  # options of a list that are written out in lines; longer lists are typed into


@lru_cache(maxsize=512)
def told(page: Node, form: Form = "lines") -> Told:
    """The page in a form; kept, since the same page is told, acted on and told again."""
    return _in_lines(page) if form == "lines" else _in_tree(page)


def without_labels(page: Node) -> Node:
    """The same, without the labels of controls: their text is the control's name already."""
    nodes = list(page.walk())
    if not any(node.role == "LabelText" for node in nodes):
        return page
    names = {node.name for node in nodes if node.role in CONTROLS}

    def kept(node: Node) -> list[Node]:
        children = [one for child in node.children for one in kept(child)]
        if node.role != "LabelText":
            return [replace(node, children=tuple(children))]
        text = " ".join(child.name for child in children if child.role == "StaticText")
        return [child for child in children if child.role != "StaticText" or text not in names]

    return kept(page)[0]


def _in_lines(page: Node) -> Told:
    lines: list[str] = []
    line: list[str] = []
    elements: list[Node] = []

    def end() -> None:
        if line:
            lines.append(" ".join(line))
            line.clear()

    def number(node: Node) -> None:
        elements.append(node)
        line.append(f"[{len(elements)}] {node}")

    def walk(node: Node) -> None:
        block = node.role in BLOCKS
        if block:
            end()
        if node.role in CONTROLS:
            number(node)
            if node.role in LISTS:
                options = [each for each in node.walk() if each.role == "option"]
                for option in options if len(options) <= MANY else ():
                    number(option)
        elif node.role == "StaticText":
            line.append(node.name)
        elif node.role == "heading" and all(each.role == "StaticText" for each in node.children):
            line.append(str(node))
        else:
            if node.role in ("img", "image") and node.name:
                line.append(str(node))
            for child in node.children:
                walk(child)
        if block:
            end()

    walk(page)
    end()
    return Told(tuple(lines), tuple(elements))


def _in_tree(page: Node) -> Told:
    lines: list[str] = []
    elements: list[Node] = []

    def walk(node: Node, depth: int, above: Node) -> None:
        shown = bool(node.name or node.value or node.states) or node.role not in SILENT
        if node.role == "StaticText":
            shown = shown and not _again(node, above, elements[-1])
        if shown:
            elements.append(node)
            lines.append("\t" * depth + f"[{len(elements)}] {node}")
        for child in node.children:
            walk(child, depth + shown, node if shown else above)

    walk(page, 0, page)
    return Told(tuple(lines), tuple(elements))


def _again(text: Node, above: Node, before: Node) -> bool:
    """Whether a text is a part of the name of what it stands in, or the whole name of what stands right before it."""
    in_name = above.role in CALLED_BY_TEXT and text.name in above.name
    return in_name or (before.role in CONTROLS and text.name == before.name)


def tabs_line(sight: Sight) -> str:
    return " | ".join(
        f"Tab {at}{' (current)' if at == sight.tab else ''}: {title}"
        for at, title in enumerate(sight.tabs)
    )


def observation(sight: Sight, form: Form, rows: int, first: str = "") -> str:
    """What the policy reads: a line before the page, the tabs where there are several, and a screen of the page."""
    page = told(sight.page, form).screen(sight.screen, rows)
    tabs = tabs_line(sight) if form == "tree" or len(sight.tabs) > 1 else ""
    return "\n".join(part for part in (first, tabs, page) if part)


# ---------------------------------------------------------------------------------------------- actions

Verb = Literal[
    "click",
    "type",
    "hover",
    "press",
    "scroll",
    "new_tab",
    "tab_focus",
    "close_tab",
    "goto",
    "go_back",
    "go_forward",
    "stop",
]


class Misread(Explained, ValueError):
    """A text that is no action, or an action that cannot be done here; the message is what the policy reads."""


@dataclass(frozen=True)
class Act:
    """One action; `number` is that of an element, or of a tab for tab_focus."""

    verb: Verb
    number: int = 0
    text: str = ""
    enter: bool = True


NUMBER = r"\[([0-9]{1,6})\]"
FORMS: dict[str, tuple[re.Pattern[str], str]] = {
    "click": (re.compile(rf"{NUMBER}"), "click [number]"),
    "hover": (re.compile(rf"{NUMBER}"), "hover [number]"),
    "type": (
        re.compile(rf"{NUMBER} ?\[(.*?)\](?: ?\[(?:press_enter_after=)?([01])\])?"),
        "type [number] [text] [0 or 1]",
    ),
    "press": (re.compile(r"\[([^\[\]]+)\]"), "press [key]"),
    "scroll": (re.compile(r"\[?(?:direction=)?(up|down)\]?"), "scroll [down] or scroll [up]"),
    "new_tab": (re.compile(""), "new_tab"),
    "tab_focus": (re.compile(rf"{NUMBER}"), "tab_focus [number]"),
    "close_tab": (re.compile(""), "close_tab"),
    "goto": (re.compile(r"\[(.+)\]"), "goto [address]"),
    "go_back": (re.compile(""), "go_back"),
    "go_forward": (re.compile(""), "go_forward"),
    "stop": (re.compile(r"(?:\[(.*)\])?"), "stop [answer]"),
}
FENCE = "```"
FENCED = re.compile(r"```(.*?)```", re.DOTALL)


def parse(message: str) -> Act:
    """The action of a message; Misread says what an action looks like."""
    before, _, said = message.rpartition("Action:")
    if before.count(FENCE) % 2:  # `Action:` stands in the fence, too
        said = said.partition(FENCE)[0]
    elif fenced := FENCED.findall(said):
        said = fenced[-1]
    said = action_of(said)
    said = said.encode(errors="replace").decode()  # half characters can be neither sent nor stored
    verb = re.split(r"[^a-z_]", said, maxsplit=1)[0]
    if verb not in FORMS:
        raise Misread("no such action")
    pattern, form = FORMS[verb]
    found = pattern.fullmatch(said.removeprefix(verb).lstrip())
    if found is None:
        raise Misread(f"write {form}")
    match verb:
        case "click" | "hover" | "tab_focus":
            return Act(verb, int(found[1]))
        case "type":
            return Act(verb, int(found[1]), found[2], found[3] != "0")
        case "press" | "scroll" | "goto" | "stop":
            return Act(verb, text=(found[1] or "").strip())
        case "new_tab" | "close_tab" | "go_back" | "go_forward":
            return Act(verb)
    raise AssertionError(verb)


UNREACHABLE = "this address cannot be reached"
NOWHERE = {-1: "nothing to go back to", 1: "nothing to go forward to"}

# WebArena's own words for them; ours are those of the DOM
KEYS = {
    "ctrl": "Control",
    "control": "Control",
    "alt": "Alt",
    "shift": "Shift",
    "meta": "Meta",
    "cmd": "Meta",
    "enter": "Enter",
    "return": "Enter",
    "tab": "Tab",
    "esc": "Escape",
    "escape": "Escape",
    "backspace": "Backspace",
    "delete": "Delete",
    "space": "Space",
    "arrowup": "ArrowUp",
    "arrowdown": "ArrowDown",
    "arrowleft": "ArrowLeft",
    "arrowright": "ArrowRight",
    "pageup": "PageUp",
    "pagedown": "PageDown",
    "home": "Home",
    "end": "End",
}


MODIFIERS = ("Control", "Alt", "Shift", "Meta")


def keys_of(text: str) -> str:
    """`ctrl+v` as the DOM calls it, `Control+v`."""
    *held, last = [KEYS.get(part.strip().lower(), part.strip()) for part in text.split("+")]
    character = len(last) == 1 and "!" <= last <= "~"  # a keyboard has no others
    known = character or last in KEYS.values() or re.fullmatch(r"F[1-9]|F1[0-2]", last)
    if not known or any(each not in MODIFIERS for each in held):
        raise Misread("no such key")
    return "+".join((*held, last))


INSTRUCTION = (
    "You use a web browser to do what you are asked. What can be used on the page has a number. Write one action:\n"
    "click [number]\n"
    "type [number] [text] [1] (replaces what a field holds and presses Enter; 0 at the end does not press it)\n"
    "hover [number]\n"
    "press [key]\n"
    "scroll [down] or scroll [up]\n"
    "new_tab, tab_focus [number], close_tab\n"
    "goto [address], go_back, go_forward\n"
    "stop [answer] (ends the task; without an answer where none is asked for)"
)


def only(elements: Sequence[Node], role: str, name: str) -> int | None:
    """The number of the first element of this role and name; None where there is none."""
    return next(
        (
            at
            for at, each in enumerate(elements, 1)
            if (each.role, each.name.casefold()) == (role, name.casefold())
        ),
        None,
    )
