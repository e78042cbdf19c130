"""WebArena (arXiv:2307.13854): its 812 tasks on its own sites, where those can be reached.

    export SHOPPING=http://host:7770 SHOPPING_ADMIN=http://host:7780/admin REDDIT=http://host:9999
    export GITLAB=http://host:8023 WIKIPEDIA=http://host:8888 MAP=http://host:3000 HOMEPAGE=http://host:4399

    world = WebArena("test.raw.json", auth=".auth", judge=judge)

The sites are containers of the benchmark's authors, and logging in makes the files in `auth` (their `auto_login.py`).
Where there are none, ludus.envs.web.websites has sites of the same kinds. Addresses are shown and understood under the
names that WebArena gives them, http://reddit.com and so on. A task that changes a site changes it for those after it:
reset the containers as its authors say, or keep to tasks with require_reset false.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ludus.envs.web.browser import BrowserLost, Chromium, Window
from ludus.envs.web.page import INSTRUCTION, Act, Form, Misread, Sight, observation, parse, told
from ludus.envs.world import Split, refuse_if_over, side
from ludus.rewards.webarena import (
    PAGE,
    Judge,
    content_match,
    helper_call,
    needs_judge,
    reddit_post,
    string_match,
    url_match,
)
from ludus.types import CannotFork, End, Explained, Message, Part, Step, Task

SITES = {
    "SHOPPING_ADMIN": "http://luma.com/admin",  # before SHOPPING, whose address its own may begin with
    "SHOPPING": "http://onestopmarket.com",
    "REDDIT": "http://reddit.com",
    "GITLAB": "http://gitlab.com",
    "WIKIPEDIA": "http://wikipedia.org",
    "MAP": "http://openstreetmap.org",
    "HOMEPAGE": "http://homepage.com",
}
"""Name, in `__NAME__` of the tasks and of the environment variable -> the address that the policy sees."""

AND = " |AND| "  # between addresses that a task opens in tabs of their own


def addresses(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Name -> where the site is, of those that are set."""
    return {name: variables[name].rstrip("/") for name in SITES if variables.get(name)}


def read_tasks(path: str | Path) -> list[dict[str, Any]]:
    """The items of `test.raw.json`, as they are there; a file of a single item is read as well."""
    text = Path(path).read_text(encoding="utf-8")
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise Explained(f"{path} is no JSON: {error}") from None
    items = given if isinstance(given, list) else [given]
    for number, item in enumerate(items):
        lacks = [
            name for name in ("task_id", "intent", "start_url", "sites", "eval") if name not in item
        ]
        if lacks:
            raise Explained(
                f"item {number} of {path} has no {', '.join(lacks)}; is it a file of WebArena's?"
            )
    return items


def only_on(path: str | Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The items of the tasks that need these sites alone: WebArena(only_on("test.raw.json", ("shopping",)))."""
    had = {name.lower() for name in names}
    return [
        item
        for item in read_tasks(path)
        if {*item["sites"], *(name.lower() for name in _named_in(item))} <= had
    ]


def with_addresses(
    items: Sequence[Mapping[str, Any]], sites: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The items with the addresses of the sites in place of `__SHOPPING__` and so on, where they have such names."""
    wanted = Counter(name for item in items for name in _named_in(item))
    if missing := [name for name in wanted if name not in sites]:
        told_ = ", ".join(f"{name} ({wanted[name]} tasks)" for name in missing)
        raise Explained(
            f"the tasks want sites whose addresses are not known: {told_}. Set them in the environment, for example "
            f"export {missing[0]}=http://127.0.0.1:7770 , or take only the tasks of the sites that you have, with "
            "source=only_on(file, (site, ...))"
        )
    text = json.dumps(list(items))
    for name in wanted:
        text = text.replace(f"__{name}__", json.dumps(sites[name])[1:-1])
    return json.loads(text)


def _named_in(item: Mapping[str, Any]) -> list[str]:
    text = json.dumps(item)
    return [name for name in SITES if f"__{name}__" in text]


# ---------------------------------------------------------------------------------------------- helper functions

Helper = Callable[..., Awaitable[str]]
"""async (window, *values) -> text: what `func:` in a task calls"""


async def _member_role(window: Window, account: str) -> str:
    """The role of somebody on a page of a project's members."""
    source = """account => {
        const names = [...document.querySelectorAll("td[data-label='Account'] span.gl-avatar-labeled-sublabel")];
        const at = names.findIndex(each => each.outerText === '@' + account);
        return document.querySelectorAll('td.col-max-role span')[at]?.outerText ?? '';
    }"""
    return str(await window.script(f"({source})({json.dumps(account)})"))


async def _post(window: Window, url: str) -> str:
    return reddit_post(url)


def _token() -> str:
    token = os.environ.get("SHOPPING_TOKEN")
    if not token:
        raise Explained(
            "some tasks are judged through the shop's REST interface; set SHOPPING_TOKEN to what "
            "POST SHOPPING/rest/default/V1/integration/admin/token answers to its administrator, or leave them out"
        )
    return token


async def _asked(shop: str, path: str, **fields: str) -> Any:
    """What the REST interface of the shop at this address answers."""
    import httpx

    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(
            f"{shop}/rest/V1/{path}",
            params=fields,
            headers={"Authorization": f"Bearer {_token()}"},
        )
        answer.raise_for_status()
        return answer.json()


async def _latest_order(shop: str, window: Window) -> str:
    order = "searchCriteria[sortOrders][0]"
    got = await _asked(
        shop,
        "orders",
        **{
            f"{order}[field]": "created_at",
            f"{order}[direction]": "DESC",
            "searchCriteria[pageSize]": "1",
        },
    )
    number = int(got["items"][0]["increment_id"])
    return f"{shop}/sales/order/view/order_id/{number}/"


async def _review_author(shop: str, window: Window, sku: str) -> str:
    got = await _asked(shop, f"products/{sku}/reviews")
    return str(got[-1]["nickname"]) if got else ""


async def _review_rating(shop: str, window: Window, sku: str) -> str:
    got = await _asked(shop, f"products/{sku}/reviews")
    return str(got[-1]["ratings"][0]["percent"]) if got else ""


HELPERS: Mapping[str, Helper] = {
    "gitlab_get_project_memeber_role": _member_role,  # so spelt in the tasks
    "reddit_get_post_url": _post,
}
SHOP_HELPERS: Mapping[str, Callable[..., Awaitable[str]]] = {
    "shopping_get_latest_order_url": _latest_order,
    "shopping_get_sku_latest_review_author": _review_author,
    "shopping_get_sku_latest_review_rating": _review_rating,
}
"""async (address of the shop, window, *values) -> text"""


def helpers_at(sites: Mapping[str, str]) -> dict[str, Helper]:
    """Those that WebArena's tasks call; the shop that is asked is the one of these sites."""
    shop = sites.get("SHOPPING")
    of_shop = {name: partial(each, shop) for name, each in SHOP_HELPERS.items() if shop}
    return {**HELPERS, **of_shop}


# ---------------------------------------------------------------------------------------------- judging


async def score(
    item: Mapping[str, Any],
    answer: str,
    window: Window,
    judge: Judge | None = None,
    helpers: Mapping[str, Helper] = HELPERS,
) -> float:
    """0 or 1: the product over `eval_types`. The pages that program_html names are opened in the window."""
    rules = item["eval"]
    url = (await window.look()).url
    held = True
    for kind in rules["eval_types"]:
        match kind:
            case "string_match":
                held = held and await string_match(
                    answer,
                    rules["reference_answers"],
                    question=item["intent"],
                    note=rules.get("string_note", ""),
                    judge=judge,
                )
            case "url_match":
                held = held and url_match(
                    url, rules["reference_url"], rules.get("url_note") or "GOLD in PRED"
                )
            case "program_html":
                for target in rules["program_html"]:
                    held = held and await _on_page(target, url, window, helpers)
            case _:
                raise Explained(f"task {item['task_id']} is judged by {kind!r}, which is not known")
    return float(held)


async def _on_page(
    target: Mapping[str, Any], last: str, window: Window, helpers: Mapping[str, Helper]
) -> bool:
    where = target["url"]
    if where.startswith("func"):
        where = await _called(where, last, window, helpers)
    if where != "last":
        try:
            await window.goto(where)
        except Misread as misread:  # the policy had no part in it
            raise BrowserLost(f"{where}, which the task is judged by: {misread}") from misread
    locator = target["locator"]
    if not locator.strip():
        found = await window.content()
    elif locator.startswith(("document.", "[...document.")):
        for prepared in target.get("prep_actions", ()):
            await _tried(window, prepared)
        found = await _tried(window, locator)
    elif locator.startswith("func:"):
        found = await _called(locator, last, window, helpers)
    else:
        raise Explained(
            f"locator {locator!r}; WebArena's begin with document, [...document or func:"
        )
    return content_match(found, target["required_contents"])


async def _tried(window: Window, source: str) -> str:
    """What it returns as text; "" where it fails, because the page is then not the one that was wanted."""
    caught = f"() => {{ try {{ return String(({source}) || ''); }} catch {{ return ''; }} }}"
    return str(await window.script(caught))


async def _called(text: str, last: str, window: Window, helpers: Mapping[str, Helper]) -> str:
    name, values = helper_call(text, last)
    if name not in helpers:
        raise Explained(f"{text!r}: there is no helper {name!r}; there are {', '.join(helpers)}")
    return await helpers[name](window, *(each for each in values if each != PAGE))


# ---------------------------------------------------------------------------------------------- the environment


@dataclass(eq=False)
class Visit:
    """A handle: the window, and what it shows."""

    item: Mapping[str, Any]
    window: Window
    sight: Sight
    over: bool = False


@dataclass(frozen=True)
class WebArena:
    """
    source    the file of tasks, or items of it
    sites     name -> address; by default from the environment
    auth      the folder with the files of who is logged in, those that `storage_state` names
    judge     for tasks with fuzzy_match
    helpers   for tasks of one's own: what `func:` in them calls, beside what WebArena's own call
    rows      lines of the tree that are seen at once
    pictures  show what Chromium draws, beside the text

    The training split has the tasks of half of the templates, the test split those of the others.
    """

    source: str | Path | Sequence[Mapping[str, Any]]
    sites: Mapping[str, str] = field(default_factory=addresses)
    auth: str | Path = ".auth"
    judge: Judge | None = None
    form: Form = "tree"
    rows: int = 120
    pictures: bool = False
    name: str = "webarena"
    helpers: Mapping[str, Helper] = field(default_factory=dict, repr=False)
    chromium: Chromium = field(
        default_factory=lambda: Chromium(offline=False, deadline=60.0), repr=False, compare=False
    )
    items: Mapping[int, Mapping[str, Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.source, str | Path):
            given: Sequence[Mapping[str, Any]] = read_tasks(self.source)
        else:
            given = self.source
        if not given:
            raise Explained(f"there are no tasks in {self.source}")
        by_id = {int(item["task_id"]): item for item in with_addresses(given, self.sites)}
        object.__setattr__(self, "items", by_id)
        self._check_judge()
        self._check_helpers()
        self._check_logins()

    def _check_judge(self) -> None:
        judged = [
            number
            for number, item in self.items.items()
            if needs_judge(item["eval"].get("reference_answers"))
        ]
        if judged and self.judge is None:
            raise Explained(
                f"{len(judged)} of {len(self.items)} tasks, such as {judged[0]}, are judged by fuzzy_match; give "
                "judge=, an async function (see ludus.rewards.webarena.Judge), or leave those tasks out"
            )

    def _check_helpers(self) -> None:
        known = self._helpers()
        for number, item in self.items.items():
            for target in item["eval"].get("program_html") or ():
                for text in (target["url"], target["locator"]):
                    if not text.startswith("func"):
                        continue
                    name, _ = helper_call(text, "")
                    if name not in known:
                        raise Explained(
                            f"task {number} is judged by {text!r}, and there is no helper {name!r}; there are "
                            f"{', '.join(known)}. Give others with helpers=, or set SHOPPING for those of the shop"
                        )
                    if name in SHOP_HELPERS and name not in self.helpers:
                        _token()

    def _helpers(self) -> Mapping[str, Helper]:
        return {**helpers_at(self.sites), **self.helpers}

    def _check_logins(self) -> None:
        missing = Counter(
            file
            for item in self.items.values()
            if (file := self._login(item)) and not file.exists()
        )
        if missing:
            told_ = ", ".join(f"no {file} ({count} tasks)" for file, count in missing.items())
            raise Explained(
                f"tasks want to be logged in, and there is {told_}; make it with WebArena's auto_login.py, or say with "
                "auth= where it is"
            )

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            Task(
                id=f"{self.name}-{number}",
                prompt=(Message("system", INSTRUCTION),),
                env=self.name,
                domain="+".join(item["sites"]),
                extras={"task_id": number},
            )
            for number, item in self.items.items()
            if side(("webarena", item.get("intent_template_id", number))) == split
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the sites are as they are."""
        match task.extras:
            case {"task_id": int(number)} if number in self.items and task.env == self.name:
                visit = await self._visited(self.items[number])
                return Step(visit, await self._shown(visit))
        raise ValueError(
            f"task {task.id!r} with extras {dict(task.extras)} is none of {self.name}; "
            "take tasks from env.tasks('train') or env.tasks('test')"
        )

    async def step(self, state: Visit, action: str) -> Step:
        refuse_if_over(state.over)
        info: dict[str, Any] = {"valid": True}
        wrong = None
        try:
            act = parse(action)
            if act.verb == "stop":
                state.over = True
                paid = await score(state.item, act.text, state.window, self.judge, self._helpers())
                return Step(state, "", paid, End.SOLVED if paid == 1 else End.FAILED, info)
            await state.window.do(self._named(act), told(state.sight.page, self.form), self.rows)
        except Misread as misread:
            wrong, info["valid"] = misread, False
        state.sight = await state.window.look()
        return Step(state, await self._shown(state, wrong), info=info)

    async def fork(self, state: Visit) -> Visit:
        raise CannotFork("the sites of WebArena cannot be copied; begin branches at reset")

    async def close(self, state: Visit) -> None:
        state.over = True
        await state.window.close()

    async def _visited(self, item: Mapping[str, Any]) -> Visit:
        first, *others = item["start_url"].split(AND)
        login = self._login(item)
        window = await self.chromium.open(
            first, storage=str(login) if login else None, geolocation=item.get("geolocation")
        )
        try:
            nothing = told((await window.look()).page)
            for url in others:
                await window.do(Act("new_tab"), nothing, self.rows)
                await window.goto(url)
            if others:
                await window.do(Act("tab_focus", 0), nothing, self.rows)
            return Visit(item, window, await window.look())
        except BaseException:
            await asyncio.shield(window.close())
            raise

    def _login(self, item: Mapping[str, Any]) -> Path | None:
        """The file of who is logged in for a task."""
        named = item.get("storage_state") if item.get("require_login") else None
        return Path(self.auth) / Path(named).name if named else None

    async def _shown(self, visit: Visit, wrong: Misread | None = None) -> str | tuple[Part, ...]:
        lines = [str(wrong)] if wrong else []
        lines += [f"OBJECTIVE: {visit.item['intent']}", f"URL: {self._public(visit.sight.url)}"]
        text = observation(visit.sight, self.form, self.rows, "\n".join(lines))
        return (text, await visit.window.picture()) if self.pictures else text

    def _public(self, url: str) -> str:
        for name, shown in SITES.items():
            if name in self.sites and url.startswith(self.sites[name]):
                return shown + url.removeprefix(self.sites[name])
        return url

    def _named(self, act: Act) -> Act:
        """With the address where a site is, in place of the one that it is shown under."""
        for name, shown in SITES.items():
            if act.verb == "goto" and name in self.sites and act.text.startswith(shown):
                return replace(act, text=self.sites[name] + act.text.removeprefix(shown))
        return act
