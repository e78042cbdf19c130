"""A browser without a browser: it reads plain HTML and follows links and forms, in a thousandth of Chromium's time.

What it makes of a page is the accessibility tree that Chromium makes of it, for pages without scripts and styles that
hide or move things; tests/envs/test_websites.py compares the two on every page of the sites. What differs:

    keys   Enter is the only one
    POST   going back to a page that a form led to, without being sent on, asks for its address anew; Chromium says that
           it cannot be reached

A browser is a value, so it is copied by being kept:

    browser = opened("/shop", fetch)              # fetch: (method, address, fields) -> (address, HTML)
    browser = do(browser, parse("click [3]"), told(sight(browser).page), 24, fetch)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from html.parser import HTMLParser
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit

from ludus.envs.web.page import (
    FIELDS,
    NOWHERE,
    Act,
    Misread,
    Node,
    Sight,
    Told,
    keys_of,
    without_labels,
)

Fetch = Callable[[Literal["GET", "POST"], str, Mapping[str, str]], tuple[str, str]]
"""(method, path with query, fields of a form) -> (the path that it led to, the HTML there); Misread: not reachable"""

BLANK = "about:blank"
ENTER_ONLY = "only Enter can be pressed here"
ALONE = frozenset("area base br col embed hr img input link meta source track wbr".split())
CLOSED_BY = {
    "li": {"li"},
    "option": {"option"},
    "tr": {"tr"},
    "td": {"td", "th"},
    "th": {"td", "th"},
}
ENDS_P = frozenset(
    "address article aside blockquote dl fieldset figure footer form h1 h2 h3 h4 header hr main nav ol p pre section "
    "table ul".split()
)


# ---------------------------------------------------------------------------------------------- HTML


@dataclass(eq=False)
class Element:
    """`number` counts the elements of a page; it is what they are found by again."""

    tag: str
    attributes: Mapping[str, str]
    number: int
    parent: Element | None
    children: list[Element | str] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def up(self, tag: str) -> Element | None:
        element: Element | None = self
        while element is not None and element.tag != tag:
            element = element.parent
        return element

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(parts).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.at = Element("document", {}, 0, None)
        self.count = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ENDS_P:
            self._close({"p"})
        self._close(CLOSED_BY.get(tag, set()), once=True)
        self.count += 1
        made = Element(tag, {k: v or "" for k, v in attrs}, self.count, self.at)
        self.at.children.append(made)
        if tag not in ALONE:
            self.at = made

    def handle_endtag(self, tag: str) -> None:
        above = self.at.up(tag)
        if above is not None and above.parent is not None:
            self.at = above.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)

    def _close(self, tags: set[str], once: bool = False) -> None:
        while self.at.tag in tags and self.at.parent is not None:
            self.at = self.at.parent
            if once:
                return


@dataclass(frozen=True, eq=False)
class Document:
    root: Element
    elements: Mapping[int, Element]

    @property
    def title(self) -> str:
        return next((each.text for each in self.root.walk() if each.tag == "title"), "")


@lru_cache(maxsize=2048)
def read(html: str) -> Document:
    """The elements of a page; kept, because the attempts of a group read the same pages."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return Document(reader.root, {each.number: each for each in reader.root.walk()})


# ---------------------------------------------------------------------------------------------- the browser


Filled = tuple[tuple[int, str], ...]
"""(element, what it holds now), where that is not what the page said; a checkbox holds "on" or "" """


@dataclass(frozen=True)
class Tab:
    """`past[at]` is the address of the page in front; a new tab has none."""

    past: tuple[str, ...] = ()
    at: int = -1
    html: str = ""
    filled: Filled = ()
    screen: int = 0
    focus: int = 0

    @property
    def url(self) -> str:
        return self.past[self.at] if self.past else BLANK

    def now(self, element: Element) -> str:
        """What a field, a list or a checkbox holds."""
        return dict(self.filled).get(element.number, _held(element))

    def hold(self, *changes: tuple[Element, str]) -> Tab:
        new = dict(self.filled) | {element.number: value for element, value in changes}
        return replace(self, filled=tuple(sorted(new.items())))

    def to(self, where: str, html: str) -> Tab:
        return Tab((*self.past[: self.at + 1], where), self.at + 1, html)

    def went(self, address: str, fetch: Fetch) -> Tab:
        """By a link, or a goto; where it is the page that one is on, the history stays as it is."""
        where, html = fetch("GET", address, {})
        if address != self.url:
            return self.to(where, html)
        return Tab((*self.past[: self.at], where, *self.past[self.at + 1 :]), self.at, html)


@dataclass(frozen=True)
class Browser:
    tabs: tuple[Tab, ...]
    front: int = 0

    @property
    def tab(self) -> Tab:
        return self.tabs[self.front]

    def having(self, tab: Tab) -> Browser:
        tabs = (*self.tabs[: self.front], tab, *self.tabs[self.front + 1 :])
        return replace(self, tabs=tabs)


def opened(url: str, fetch: Fetch) -> Browser:
    return Browser((Tab().to(*fetch("GET", url, {})),))


@lru_cache(maxsize=512)
def sight(browser: Browser) -> Sight:
    tab = browser.tab
    titles = tuple(read(each.html).title for each in browser.tabs)
    return Sight(tree(tab.html, tab.filled), tab.url, titles, browser.front, tab.screen)


def do(browser: Browser, act: Act, seen: Told, rows: int, fetch: Fetch) -> Browser:
    """The browser after an action on what was seen, so many rows at once.

    Misread where it cannot be done; `stop` and `hover` do nothing.
    """
    tab = browser.tab
    match act.verb:
        case "click" | "type" | "hover":
            return browser.having(_on(tab, seen.element(act.number), act, fetch))
        case "press":
            return browser.having(_pressed(tab, keys_of(act.text), fetch))
        case "scroll":
            return browser.having(replace(tab, screen=seen.scrolled(tab.screen, act.text, rows)))
        case "new_tab":
            return Browser((*browser.tabs, Tab()), len(browser.tabs))
        case "tab_focus":
            if act.number >= len(browser.tabs):
                raise Misread(f"no tab {act.number}")
            return replace(browser, front=act.number)
        case "close_tab":
            if len(browser.tabs) == 1:
                raise Misread("this is the only tab")
            left = browser.tabs[: browser.front] + browser.tabs[browser.front + 1 :]
            return Browser(left, min(browser.front, len(left) - 1))
        case "goto":
            return browser.having(tab.went(act.text, fetch))
        case "go_back" | "go_forward":
            by = -1 if act.verb == "go_back" else 1
            if not 0 <= tab.at + by < len(tab.past):
                raise Misread(NOWHERE[by])
            html = fetch("GET", tab.past[tab.at + by], {})[1]
            return browser.having(Tab(tab.past, tab.at + by, html))
        case "stop":
            return browser
    raise AssertionError(act)


def _on(tab: Tab, node: Node, act: Act, fetch: Fetch) -> Tab:
    element = read(tab.html).elements[node.key]
    if act.verb == "hover":
        return tab
    if act.verb == "type":
        return _typed(tab, node, element, act, fetch)
    if node.role == "option":
        return _chosen(tab, element)
    tab = replace(tab, focus=element.number)
    match node.role:
        case "link":
            return tab.went(urljoin(tab.url, element.attributes["href"]), fetch)
        case "button":
            return _sent(tab, element, fetch)
        case "checkbox":
            return tab.hold((element, "" if tab.now(element) else "on"))
        case "radio":
            name, form = element.attributes.get("name"), element.up("form")
            same = (
                each
                for each in read(tab.html).elements.values()
                if _kind(each) == "radio"
                and each.attributes.get("name") == name
                and each.up("form") is form
            )
            return tab.hold(*((each, "on" if each is element else "") for each in same))
    return tab


def _typed(tab: Tab, node: Node, element: Element, act: Act, fetch: Fetch) -> Tab:
    if node.role == "combobox":
        for option in _options(element):
            if option.text.casefold() == act.text.strip().casefold():
                return _chosen(tab, option)
        raise Misread(f"'{node.name}' has no option '{act.text}'")
    if node.role not in FIELDS:
        raise Misread(f"nothing can be typed into a {node.role}")
    longest = element.attributes.get("maxlength", "")
    text = _fitting(act.text, int(longest)) if longest.isdecimal() else act.text
    tab = replace(tab.hold((element, text)), focus=element.number)
    return _entered(tab, element, fetch) if act.enter else tab


def _fitting(text: str, room: int) -> str:
    """The characters that fit, typed one by one; a browser counts two for those beyond 16 bits."""
    kept = []
    for each in text:
        units = 2 if each > "\uffff" else 1
        if units <= room:
            kept.append(each)
            room -= units
    return "".join(kept)


def _chosen(tab: Tab, option: Element) -> Tab:
    list_ = option.up("select")
    return tab if list_ is None else tab.hold((list_, str(_options(list_).index(option))))


def _pressed(tab: Tab, key: str, fetch: Fetch) -> Tab:
    """What Enter does in the field that was typed into, or on what was clicked, last."""
    if key != "Enter":
        raise Misread(ENTER_ONLY)
    element = read(tab.html).elements.get(tab.focus)
    if element is None:
        return tab
    if element.tag == "a":
        return tab.went(urljoin(tab.url, element.attributes["href"]), fetch)
    return _entered(tab, element, fetch)


def _entered(tab: Tab, element: Element, fetch: Fetch) -> Tab:
    """A browser sends the form by its first button; without a button, only if it has no other field."""
    form = element.up("form")
    if form is None or element.tag not in ("input", "button"):
        return tab
    button = next((each for each in form.walk() if _kind(each) == "submit"), None)
    if button is not None:
        return _sent(tab, button, fetch)
    fields = [each for each in form.walk() if _kind(each) in TYPED]
    return _sent(tab, element, fetch) if len(fields) == 1 else tab


def _sent(tab: Tab, by: Element, fetch: Fetch) -> Tab:
    form = by.up("form")
    if form is None or _kind(by) in ("button", "reset"):
        return tab
    pairs: dict[str, str] = {}
    for each in form.walk():
        name, kind = each.attributes.get("name"), _kind(each)
        if not name or kind is None or (kind == "submit" and each is not by):
            continue
        held = tab.now(each)
        if kind in ("checkbox", "radio"):
            if held:
                pairs[name] = each.attributes.get("value", "on")
        elif kind == "select":
            if options := _options(each):
                option = options[int(held)]
                pairs[name] = option.attributes.get("value", option.text)
        else:
            pairs[name] = held
    to = urljoin(tab.url, form.attributes.get("action", ""))
    if form.attributes.get("method", "get").lower() == "post":
        return tab.to(*fetch("POST", to, pairs))
    return tab.to(*fetch("GET", f"{to.partition('?')[0]}?{urlencode(pairs)}", {}))


TYPED = frozenset("text search email url tel password number".split())


def _kind(element: Element) -> str | None:
    """Of what can be sent: the type of an input, "submit" of a button, "select", "textarea"."""
    if element.tag == "input":
        return element.attributes.get("type", "text").lower()
    if element.tag == "button":
        return element.attributes.get("type", "submit").lower()
    return element.tag if element.tag in ("select", "textarea") else None


def _options(element: Element) -> list[Element]:
    return [each for each in element.walk() if each.tag == "option"]


def _held(element: Element) -> str:
    """What the page says that it holds; of a list, the number of the chosen option."""
    match _kind(element):
        case "checkbox" | "radio":
            return "on" if "checked" in element.attributes else ""
        case "select":
            chosen = [n for n, o in enumerate(_options(element)) if "selected" in o.attributes]
            return str(chosen[-1] if chosen else 0)
        case "textarea":
            return element.text
    return element.attributes.get("value", "")


# ---------------------------------------------------------------------------------------------- roles and names

ROLES = {
    "nav": "navigation",
    "main": "main",
    "p": "paragraph",
    "ul": "list",
    "ol": "list",
    "li": "listitem",
    "table": "table",
    "tr": "row",
    "td": "cell",
    "th": "columnheader",
    "button": "button",
    "select": "combobox",
    "textarea": "textbox",
    "form": "form",
    "label": "LabelText",
    **{f"h{level}": "heading" for level in range(1, 7)},
}
INPUTS = {
    **dict.fromkeys(("text", "email", "url", "tel", "password"), "textbox"),
    **dict.fromkeys(("submit", "button", "reset"), "button"),
    "search": "searchbox",
    "number": "spinbutton",
    "checkbox": "checkbox",
    "radio": "radio",
}
UNSEEN = frozenset("head script style template title".split())


@lru_cache(maxsize=2048)
def tree(html: str, filled: Filled = ()) -> Node:
    """The accessibility tree of a page, its fields holding what was typed into them."""
    document, tab = read(html), Tab(html=html, filled=filled)
    labels = {
        each.attributes["for"]: each.text
        for each in document.root.walk()
        if each.tag == "label" and "for" in each.attributes
    }
    inside = tuple(_nodes(document.root.children, tab, labels))
    return without_labels(Node("RootWebArea", document.title, children=inside))


def _nodes(
    children: Sequence[Element | str], tab: Tab, labels: Mapping[str, str]
) -> Iterator[Node]:
    for child in children:
        if isinstance(child, str):
            text = " ".join(child.split())
            if text:
                yield Node("StaticText", text)
        elif child.tag not in UNSEEN and "hidden" not in child.attributes:
            yield from _of(child, tab, labels)


def _of(element: Element, tab: Tab, labels: Mapping[str, str]) -> Iterator[Node]:
    role = _role(element)
    inside = () if role in FIELDS else tuple(_nodes(element.children, tab, labels))
    key = element.number
    match role:
        case None:
            yield from inside
        case "link" | "heading" | "columnheader":
            yield Node(role, _name(element, labels) or element.text, key=key, children=inside)
        case "button":
            name = _name(element, labels) or element.text or element.attributes.get("value", "")
            yield Node(role, name, key=key, children=inside)
        case "checkbox" | "radio":
            on = ("checked",) if tab.now(element) else ()
            yield Node(role, _name(element, labels), "", on, key)
        case "combobox":
            options, at = _options(element), int(tab.now(element))
            told_ = tuple(
                Node("option", o.text, "", ("selected",) if n == at else (), o.number)
                for n, o in enumerate(options)
            )
            yield Node(
                role, _name(element, labels), options[at].text if options else "", (), key, told_
            )
        case "textbox" | "searchbox" | "spinbutton":
            value = " ".join(tab.now(element).split())
            if _kind(element) == "password":
                value = "•" * len(value)
            yield Node(role, _name(element, labels), value, (), key)
        case "image":
            if name := element.attributes.get("alt", ""):
                yield Node(role, name, key=key)
        case _:
            yield Node(role, "", key=key, children=inside)


def _role(element: Element) -> str | None:
    if element.tag == "a":
        return "link" if "href" in element.attributes else None
    if element.tag == "input":
        return INPUTS.get(_kind(element) or "")
    return "image" if element.tag == "img" else ROLES.get(element.tag)


def _name(element: Element, labels: Mapping[str, str]) -> str:
    """As a screen reader finds it: what the page says it is called, its label, what stands in it while it is empty."""
    if name := element.attributes.get("aria-label"):
        return name
    if name := labels.get(element.attributes.get("id", "")):
        return name
    label = element.up("label")
    if label is not None and label is not element:
        return " ".join(
            " ".join(child.split()) for child in label.children if isinstance(child, str)
        ).strip()
    return element.attributes.get("placeholder") or element.attributes.get("title", "")


def split(address: str) -> tuple[str, dict[str, str]]:
    """Path and query fields of an address."""
    parts = urlsplit(address)
    return unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True))
