"""WebArena's tasks and its judging. Its sites are not here, so tasks in its format are put to a site of ours.

Those that open a page fail where there is no Chromium: apt-get install chromium-headless-shell (or chromium).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ludus.envs.web.browser import BrowserLost, Chromium, Window
from ludus.envs.web.page import only, told
from ludus.envs.web.sites import fresh
from ludus.envs.web.sites.server import COOKIE, Server
from ludus.envs.web.sites.web import content
from ludus.envs.web.webarena import (
    SITES,
    WebArena,
    addresses,
    helpers_at,
    only_on,
    read_tasks,
    with_addresses,
)
from ludus.rewards.webarena import (
    content_match,
    exact_match,
    helper_call,
    must_include,
    reddit_post,
    string_match,
    url_match,
)
from ludus.types import CannotFork, End, Explained, Key, Step

# ---------------------------------------------------------------------------------------------- judging


@pytest.mark.parametrize(
    "reference, answer, same",
    [
        ("Quest Lumaflex™ Band", "quest lumaflex™ band", True),
        ("557m", " '557m' ", True),
        ("557m", '"557m"', True),
        ("557m", "557m.", False),
        ("", "", True),
    ],
)
def test_exact_match_leaves_case_and_quotes_aside(reference: str, answer: str, same: bool):
    assert exact_match(reference, answer) is same


@pytest.mark.parametrize(
    "reference, answer, words, held",
    [
        ("0", "there are 10", False, True),
        ("0", "there are 10", True, False),
        ("0", "the answer is 0.", True, True),
        ("5", "3.5 miles", True, False),
        ("5", "$5", True, True),
        ("5", "1,500", True, False),
        (
            "12",
            "there are 120",
            True,
            True,
        ),  # longer ones are looked for anywhere, as the benchmark does
        ("914km", "About 914 km", False, False),
        ("Duration: 10 min", "duration: 10 min by car", False, True),
    ],
)
def test_must_include_wants_a_single_character_as_a_word(
    reference: str, answer: str, words: bool, held: bool
):
    assert must_include(reference, answer, words=words) is held


async def judge(what: str, question: str, reference: str, answer: str) -> bool:
    """Says yes where a word is shared, and to each kind of question by its own rule."""
    if what == "unachievable":
        return "no such" in answer and "no such" in reference
    return bool(set(reference.lower().split()) & set(answer.lower().split()))


def matched(answer: str, references: Mapping[str, Any], **more: Any) -> bool:
    return asyncio.run(string_match(answer, references, **more))


def test_string_match_wants_all_that_is_referred_to():
    both = {"must_include": ["Sprite Yoga", "$5"]}
    assert matched("Sprite Yoga costs $5", both) and not matched("sprite yoga", both)
    assert not matched("10", {"must_include": ["1"]})
    assert matched("10", {"must_include": ["1", "0"]})  # words only where there is one reference
    two = {"exact_match": "yes", "must_include": ["yes"]}
    assert matched("Yes", two) and not matched("yes, it is", two)
    with pytest.raises(Explained, match="wanted exact_match"):
        matched("a", {"nearly": "a"})


def test_fuzzy_match_asks_a_judge():
    assert matched("the Green one", {"fuzzy_match": ["green", "one"]}, judge=judge)
    assert not matched("the green", {"fuzzy_match": ["green", "one"]}, judge=judge)
    with pytest.raises(Explained, match="give a judge"):
        matched("green", {"fuzzy_match": ["green"]})


def test_what_cannot_be_done_is_answered_by_na_or_by_the_reason():
    references = {"fuzzy_match": "N/A"}
    assert matched("n/a", references, note="there is no such user")  # no judge is asked
    assert matched("no such user exists", references, note="there is no such user", judge=judge)
    assert not matched("done", references, note="there is no such user", judge=judge)


@pytest.mark.parametrize(
    "url, reference, held",
    [
        ("http://git.test/a/b/-/issues/", "http://git.test/a/b/-/issues", True),
        ("http://git.test/a/b/-/issues?x=1", "http://git.test/a/b", True),
        ("http://git.test/a", "http://git.test/a/b", False),
        ("http://git.test/a?label=bug&x=1", "http://git.test/a?label=bug", True),
        ("http://git.test/a?label=other", "http://git.test/a?label=bug", False),
        ("http://git.test/a", "http://git.test/a?label=bug", False),
        ("http://git.test/b", "http://git.test/a |OR| http://git.test/b", True),
        ("http://git.test/a?s=2", "http://git.test/a?s=1 |OR| http://git.test/a?s=2", True),
    ],
)
def test_url_match(url: str, reference: str, held: bool):
    assert url_match(url, reference) is held


def test_an_unknown_rule_is_an_error():
    with pytest.raises(Explained, match="GOLD in PRED"):
        url_match("http://a.test", "http://a.test", "EXACT")


def test_content_match():
    assert content_match("Tom &amp; Jerry", {"exact_match": "tom & jerry"})
    assert content_match("open to all", {"must_include": ["open |OR| closed", "all"]})
    assert not content_match("open", {"must_include": ["open", "all"]})
    with pytest.raises(Explained, match="required_contents"):
        content_match("a", {"contains": "a"})


def test_helpers_are_read_and_never_evaluated():
    assert helper_call("func:role(__page__, 'primer')", "") == ("role", ["__page__", "primer"])
    url = "http://reddit.test/f/books/59421/x"
    assert helper_call("func:reddit_get_post_url('__last_url__')", url)[1] == [url]
    url_of = "func:reddit_get_post_url('__last_url__')"
    for odd in ("http://h.test/f/it's/1", "http://h.test/f/a','b", "http://h.test/\\"):
        assert helper_call(url_of, odd)[1] == [odd]
    for evil in (
        "func:__import__('os').system('true')",
        "func:role(open('/etc/passwd'))",
        "func:1",
    ):
        with pytest.raises(Explained, match="no call of a function"):
            helper_call(evil, "")
    assert reddit_post(url) == "http://reddit.test/f/books/59421/"
    assert reddit_post("http://reddit.test/user/me") == "http://reddit.test/user/me"


# ---------------------------------------------------------------------------------------------- tasks


def item(number: int, rules: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A task in the format of test.raw.json."""
    return {
        "sites": ["shopping"],
        "task_id": number,
        "require_login": True,
        "storage_state": "./.auth/shopping_state.json",
        "start_url": "__SHOPPING__",
        "geolocation": None,
        "intent_template": "{{what}}",
        "instantiation_dict": {"what": "it"},
        "intent": "do it",
        "require_reset": False,
        "eval": {
            "eval_types": [],
            "reference_answers": None,
            "reference_url": "",
            "program_html": [],
            **rules,
        },
        "intent_template_id": number,
        **more,
    }


def file_of(folder: Path, *items: Mapping[str, Any]) -> Path:
    path = folder / "test.raw.json"
    path.write_text(json.dumps(items))
    return path


def test_addresses_take_the_place_of_names(tmp_path: Path):
    rules = {"eval_types": ["url_match"], "reference_url": "__SHOPPING__/cart"}
    path = file_of(tmp_path, item(3, rules, start_url="__SHOPPING__ |AND| __MAP__"))
    sites = addresses({"SHOPPING": "http://shop.test/", "MAP": "http://map.test", "OTHER": "x"})
    (read,) = with_addresses(read_tasks(path), sites)
    assert read["start_url"] == "http://shop.test |AND| http://map.test"
    assert read["eval"]["reference_url"] == "http://shop.test/cart"


def test_what_is_missing_is_said(tmp_path: Path):
    path = file_of(tmp_path, item(1, {}), item(2, {}, start_url="__GITLAB__"))
    with pytest.raises(Explained, match=r"SHOPPING \(1 tasks\), GITLAB \(1 tasks\)\. Set them"):
        WebArena(path, sites={})
    with pytest.raises(Explained, match="export GITLAB="):
        WebArena(path, sites={"SHOPPING": "http://shop.test"})
    fuzzy = {"eval_types": ["string_match"], "reference_answers": {"fuzzy_match": ["a"]}}
    with pytest.raises(Explained, match="1 of 1 tasks, such as 7, are judged by fuzzy_match"):
        WebArena(file_of(tmp_path, item(7, fuzzy)), sites={"SHOPPING": "http://shop.test"})
    path = file_of(tmp_path, item(1, {}), item(2, {}))
    with pytest.raises(Explained, match=r"no .*shopping_state\.json \(2 tasks\); make it"):
        WebArena(path, {"SHOPPING": "http://s.test"}, auth=tmp_path)
    (tmp_path / "wrong.json").write_text('[{"task_id": 1}]')
    with pytest.raises(Explained, match="has no intent, start_url"):
        WebArena(tmp_path / "wrong.json", sites={})
    (tmp_path / "wrong.json").write_text("no json")
    with pytest.raises(Explained, match="is no JSON"):
        WebArena(tmp_path / "wrong.json", sites={})
    path = file_of(tmp_path, item(1, {}, require_login=False))
    world = WebArena(path, {"SHOPPING": "http://s.test"})
    task = (*world.tasks("train"), *world.tasks("test"))[0]
    with pytest.raises(ValueError, match="take tasks from"):
        asyncio.run(world.reset(replace(task, extras={"task_id": 9}), 0))


def test_the_tasks_of_some_sites_alone_get_their_addresses_too(tmp_path: Path):
    alone = item(1, {}, require_login=False)
    both = item(2, {}, sites=["shopping", "map"], start_url="__SHOPPING__ |AND| __MAP__")
    path = file_of(tmp_path, alone, both, item(3, {"reference_url": "__MAP__"}))
    world = WebArena(only_on(path, ("shopping",)), {"SHOPPING": "http://shop.test"})
    assert {number: each["start_url"] for number, each in world.items.items()} == {
        1: "http://shop.test"
    }
    moved = replace(world, sites={"SHOPPING": "http://other.test"})
    assert moved.items[1]["start_url"] == "http://other.test"


def called(call: str) -> dict[str, Any]:
    """A task that is judged by what a helper gives."""
    target = {"url": "last", "locator": call, "required_contents": {"exact_match": "Ann"}}
    return item(1, {"eval_types": ["program_html"], "program_html": [target]}, require_login=False)


def test_helpers_and_the_token_of_the_shop_are_missed_before_the_first_task(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("SHOPPING_TOKEN", raising=False)
    sites = {"SHOPPING": "http://shop.test"}
    author = "func:shopping_get_sku_latest_review_author('B1')"
    with pytest.raises(Explained, match="set SHOPPING_TOKEN"):
        WebArena([called(author)], sites)
    with pytest.raises(Explained, match="no helper 'who'"):
        WebArena([called("func:who()")], sites)

    async def who(window: Window, *values: str) -> str:
        return "Ann"

    WebArena([called(author)], sites, helpers={"shopping_get_sku_latest_review_author": who})
    monkeypatch.setenv("SHOPPING_TOKEN", "secret")
    WebArena([called(author)], sites)


def test_the_shop_that_is_asked_is_the_one_of_the_sites(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((str(request.url), request.headers["Authorization"]))
        order, review = {"increment_id": "0007"}, {"nickname": "Ann", "ratings": [{"percent": 80}]}
        return httpx.Response(
            200, json=[review] if "reviews" in str(request.url) else {"items": [order]}
        )

    client, transport = httpx.AsyncClient, httpx.MockTransport(answer)
    monkeypatch.setattr(httpx, "AsyncClient", lambda **more: client(transport=transport, **more))
    monkeypatch.setenv("SHOPPING", "http://elsewhere.test")
    monkeypatch.setenv("SHOPPING_TOKEN", "secret")
    helpers: Any = helpers_at({"SHOPPING": "http://shop.test"})

    async def all_three() -> list[str]:
        return [
            await helpers["shopping_get_latest_order_url"](None),
            await helpers["shopping_get_sku_latest_review_author"](None, "B1"),
            await helpers["shopping_get_sku_latest_review_rating"](None, "B1"),
        ]

    order = "http://shop.test/sales/order/view/order_id/7/"
    assert asyncio.run(all_three()) == [order, "Ann", "80"]
    assert all(url.startswith("http://shop.test/rest/V1/") for url, _ in asked)
    assert {token for _, token in asked} == {"Bearer secret"}


def test_no_template_is_in_both_splits():
    items = [item(n, {}, intent_template_id=n // 5, require_login=False) for n in range(200)]
    world = WebArena(items, sites={"SHOPPING": "http://shop.test"})
    templates = {
        split: {
            world.items[task.extras["task_id"]]["intent_template_id"] for task in world.tasks(split)
        }
        for split in ("train", "test")
    }
    assert templates["train"] and templates["test"]
    assert not templates["train"] & templates["test"]
    assert len(world.tasks("train")) + len(world.tasks("test")) == 200


# ---------------------------------------------------------------------------------------------- on a site


@pytest.fixture(scope="module")
def chromium():
    made = Chromium(deadline=60)
    yield made
    made.close()


@pytest.fixture
def shop(tmp_path: Path):
    """A site of ours, a session on it, and the file of who is logged in, as Playwright writes it."""
    server = Server()
    session = server.begin(fresh(("shop",), 6, Key(0, ("webarena",)).generator()))
    cookie = {
        "name": COOKIE,
        "value": session,
        "domain": "127.0.0.1",
        "path": "/",
        "expires": -1,
        "httpOnly": True,
        "secure": False,
        "sameSite": "Lax",
    }
    state = {"cookies": [cookie], "origins": []}
    (tmp_path / "shopping_state.json").write_text(json.dumps(state))
    yield server, session, tmp_path
    server.close()


async def stopped(world: WebArena, number: int, actions: list[str], answer: str = "") -> Step:
    task = next(
        t for s in ("train", "test") for t in world.tasks(s) if t.extras["task_id"] == number
    )
    step = await world.reset(task, 0)
    try:
        for action in actions:
            role, name, _ = action.split("|") if "|" in action else ("", "", "")
            there = told(step.state.sight.page, "tree").elements
            said = action.rpartition("|")[2].replace("#", str(only(there, role, name)))
            step = await world.step(step.state, said)
            assert step.info["valid"], step.observation
        return await world.step(step.state, f"stop [{answer}]")
    finally:
        await world.close(step.state)


def test_a_task_is_played_and_judged_by_answer_address_and_page(chromium: Chromium, shop: Any):
    server, session, folder = shop
    name, price = content(server.data(session))["products"][0][1:3]
    city = "document.querySelector('input[name=city]').value"
    rules = [
        {"eval_types": ["string_match"], "reference_answers": {"exact_match": str(price)}},
        {"eval_types": ["url_match"], "reference_url": "__SHOPPING__/orders"},
        {
            "eval_types": ["url_match", "program_html"],
            "reference_url": "__SHOPPING__",
            "program_html": [
                {
                    "url": "__SHOPPING__/account",
                    "locator": city,
                    "required_contents": {"exact_match": "Oz"},
                },
                {"url": "last", "locator": "", "required_contents": {"must_include": ["account"]}},
                {
                    "url": "func:where('__last_url__')",
                    "locator": "func:said(__page__, 'it')",
                    "required_contents": {"must_include": ["no |OR| it"]},
                },
                {
                    "url": "last",
                    "locator": "document.querySelector('#nothing').value",
                    "required_contents": {"exact_match": ""},
                },
            ],
        },
    ]

    async def where(window: Window, last: str) -> str:
        return last

    async def said(window: Window, text: str) -> str:
        return f"{text} is on {(await window.look()).url}"

    path = file_of(folder, *(item(n, each) for n, each in enumerate(rules)))
    world = WebArena(
        path,
        {"SHOPPING": f"{server.url}/shop"},
        auth=folder,
        chromium=chromium,
        helpers={"where": where, "said": said},
    )

    async def played() -> None:
        open_item = f"link|{name}|click [#]"
        for number, actions, answer, paid in [
            (0, [open_item], str(price), 1.0),
            (0, [open_item], str(price + 1), 0.0),
            (1, ["goto [http://onestopmarket.com/orders]"], "", 1.0),
            (1, [], "", 0.0),
            (2, [], "", 0.0),
            (2, ["link|account|click [#]", "textbox|city|type [#] [Oz]"], "", 1.0),
        ]:
            step = await stopped(world, number, actions, answer)
            assert (step.reward, step.end) == (paid, End.SOLVED if paid else End.FAILED), number

    asyncio.run(played())
    assert content(server.data(session))["account"] == [("Oz",)]


def test_a_page_that_cannot_be_judged_by_ends_as_lost_and_not_as_a_bad_action(
    chromium: Chromium, shop: Any
):
    server, _, folder = shop
    target = {
        "url": "http://127.0.0.1:1/orders",
        "locator": "",
        "required_contents": {"must_include": ["a"]},
    }
    path = file_of(folder, item(6, {"eval_types": ["program_html"], "program_html": [target]}))
    world = WebArena(path, {"SHOPPING": f"{server.url}/shop"}, auth=folder, chromium=chromium)
    with pytest.raises(BrowserLost, match="orders, which the task is judged by"):
        asyncio.run(stopped(world, 6, []))


def test_a_policy_reads_no_file_of_this_machine(chromium: Chromium, shop: Any):
    server, _, folder = shop
    path = file_of(folder, item(8, {}))
    world = WebArena(path, {"SHOPPING": f"{server.url}/shop"}, auth=folder, chromium=chromium)

    async def seen() -> None:
        step = await world.reset((*world.tasks("train"), *world.tasks("test"))[0], 0)
        first = str(step.observation)
        for address in (path.as_uri(), str(path), f"view-source:{path.as_uri()}"):
            step = await world.step(step.state, f"goto [{address}]")
            assert str(step.observation) == f"this address cannot be reached\n{first}"
            assert not step.info["valid"]
        await world.close(step.state)

    asyncio.run(seen())


def test_what_a_policy_sees(chromium: Chromium, shop: Any):
    server, _, folder = shop
    start = f"{SITES['SHOPPING']} shown"
    path = file_of(
        folder, item(5, {}, start_url="__SHOPPING__ |AND| __SHOPPING__/cart", intent=start)
    )
    world = WebArena(path, {"SHOPPING": f"{server.url}/shop"}, auth=folder, chromium=chromium)

    async def seen() -> None:
        task = (*world.tasks("train"), *world.tasks("test"))[0]
        step = await world.reset(task, 0)
        assert str(step.observation).startswith(
            f"OBJECTIVE: {start}\nURL: http://onestopmarket.com\nTab 0 (current): shop | Tab 1: cart\n"
            "[1] RootWebArea 'shop'\n"
        )
        wrong = await world.step(step.state, "I think I should click something")
        assert str(wrong.observation).startswith("no such action\nOBJECTIVE") and wrong.reward == 0
        with pytest.raises(CannotFork):
            await world.fork(step.state)
        await world.close(step.state)

    asyncio.run(seen())
