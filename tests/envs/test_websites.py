"""The sites, read by the plain reader and in a real Chromium: the same pages, the same tasks, the same judgement."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from ludus.envs.web import plain_browser
from ludus.envs.web.browser import Chromium
from ludus.envs.web.page import Misread, Node, parse, told
from ludus.envs.web.sites import KINDS, SITES, fresh, visit
from ludus.envs.web.sites.server import COOKIE, LARGEST, Server
from ludus.envs.web.sites.web import Ask, content, opened, written
from ludus.envs.web.websites import Visit, Websites, solved
from ludus.envs.world import mixed, play
from ludus.types import CannotFork, End, Image, Key, Message, Step

WORLD = Websites(train=2 * len(KINDS), test=2 * len(KINDS))
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def chromium():
    made = Chromium(deadline=60)
    yield made
    made.close()


def played(world: Websites, index: int, share: float = 1.0, turns: int = 12):
    task = world.tasks("test")[index]
    player = mixed(world, share)
    return asyncio.run(play(world, task, 0, player, np.random.default_rng(index), turns))


def database(seed: int = 0, size: int = 6) -> bytes:
    return fresh(tuple(SITES), size, Key(seed, ("test",)).generator())


# ---------------------------------------------------------------------------------------------- tasks


@every_kind
def test_the_solver_takes_the_steps_that_are_claimed(kind: str):
    world = Websites(kinds=(kind,), train=4, test=12)
    games = [played(world, index) for index in range(12)]
    assert {game.end for game in games} == {End.SOLVED}
    assert {len(game.turns) for game in games} == {KINDS[kind].steps}


@every_kind
@pytest.mark.parametrize("size, rows", [(24, 24), (6, 5)])
def test_it_also_finds_its_way_on_longer_lists_and_lower_screens(kind: str, size: int, rows: int):
    world = Websites(kinds=(kind,), size=size, rows=rows, train=4, test=6)
    games = [played(world, index, turns=30) for index in range(6)]
    assert {game.end for game in games} == {End.SOLVED}


def test_it_reads_both_forms_and_an_end_is_an_end():
    world = replace(WORLD, form="tree", rows=9)
    games = [played(world, index, turns=40) for index in range(len(KINDS))]
    assert {game.end for game in games} == {End.SOLVED}
    there = [begun(world, "shop price")]
    for way in ("down",) * 9 + ("up",):
        there.append(step(world, there[-1], f"scroll [{way}]"))
    assert there[-2].observation == there[-3].observation != there[-1].observation


def test_there_are_three_kinds_of_tasks_on_every_site_at_least():
    for name in SITES:
        kinds = [kind for kind in KINDS if kind.startswith(f"{name} ")]
        goals = [WORLD.start("test", list(KINDS).index(kind)).goal for kind in kinds]
        assert any(goal.answer for goal in goals) and any(goal.writes for goal in goals)
        assert max(KINDS[kind].steps for kind in kinds) >= 5


def test_what_a_goal_writes_is_all_that_may_change():
    index = list(KINDS).index("shop cancel")
    game = played(WORLD, index)
    start = WORLD.start("test", index)
    state = game.turns[-1][1].state
    assert solved(start, state.data, "/shop", "whatever is said")
    assert not solved(start, start.data, "/shop", "")
    ask = Ask("POST", "/shop/account", {"city": "elsewhere"})
    assert not solved(start, visit(state.data, ask)[1], "/shop", "")


def test_an_answer_is_compared_as_a_whole():
    start = WORLD.start("test", list(KINDS).index("shop price"))
    right = start.goal.answer
    assert solved(start, start.data, "/shop", f' "{right}" ')
    assert not solved(start, start.data, "/shop", f"{right} {int(right) + 1}")
    assert not solved(start, start.data, "/shop", "")


def test_a_page_is_judged_by_its_path():
    start = WORLD.start("test", list(KINDS).index("forum top"))
    assert solved(start, start.data, f"{start.goal.page}?page=1", "")
    assert not solved(start, start.data, "/forum", "")


def test_no_goal_is_in_both_splits():
    world = Websites(train=6 * len(KINDS), test=3 * len(KINDS))
    goals = {
        split: {world.start(split, i).goal.identity for i in range(len(world.tasks(split)))}
        for split in ("train", "test")
    }
    assert not goals["train"] & goals["test"]


def test_settings_that_make_no_sense_are_refused():
    wrongs: tuple[dict[str, Any], ...] = (
        {"sites": ()},
        {"sites": ("shops",)},
        {"kinds": ("shop nothing",)},
        {"sites": ("shop",), "kinds": ("forum vote",)},
        {"size": 3},
        {"rows": 1},
        {"pictures": True},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"give|there are"):
            Websites(**wrong)


# ---------------------------------------------------------------------------------------------- the plain reader


def test_a_reset_takes_milliseconds():
    rng = Key(1, ("time",)).generator()
    began = time.process_time()
    for _ in range(50):
        data = fresh(tuple(SITES), 6, rng)
        with opened(data):
            pass
    assert (time.process_time() - began) / 50 < 0.02


def test_a_page_is_a_few_hundred_characters():
    tasks = WORLD.tasks("test")
    lengths = [len(asyncio.run(WORLD.reset(task, 0)).observation) for task in tasks]
    assert max(lengths) < 500


def step(world: Websites, before: Step, action: str) -> Step:
    return asyncio.run(world.step(before.state, action))


def begun(world: Websites, kind: str) -> Step:
    return asyncio.run(world.reset(world.tasks("test")[list(KINDS).index(kind)], 0))


def test_tabs_history_and_addresses():
    at = begun(WORLD, "shop city")
    first = at.observation
    assert "nothing to go back to" in str(step(WORLD, at, "go_back").observation)
    there = step(WORLD, at, "goto [/shop/orders]")
    assert "heading 'orders'" in str(there.observation)
    back = step(WORLD, there, "go_back")
    assert back.observation == first
    assert step(WORLD, back, "go_forward").observation == there.observation
    two = step(WORLD, there, "new_tab")
    assert "Tab 0: orders | Tab 1 (current): " in str(two.observation)
    assert "heading 'cart'" in str(step(WORLD, two, "goto [http://sites/shop/cart]").observation)
    assert step(WORLD, two, "close_tab").observation == there.observation
    assert "no tab 7" in str(step(WORLD, two, "tab_focus [7]").observation)
    assert "only tab" in str(step(WORLD, at, "close_tab").observation)
    for elsewhere in ("http://example.org/", "//example.org/", "file:///etc/passwd", "shop"):
        refused = step(WORLD, at, f"goto [{elsewhere}]")
        assert "cannot be reached" in str(refused.observation) and not refused.info["valid"]
    assert "not found" in str(step(WORLD, at, "goto [/shop/item/999]").observation)


def test_what_is_typed_is_text_whatever_it_is():
    at = step(WORLD, begun(WORLD, "shop city"), "goto [/shop/account]")
    for text in ("<b>'; drop table account; --", "&amp; &lt;", 'a "quoted" [b]', "Ünï 🙂"):
        saved = step(WORLD, at, f"type [5] [{text}] [1]")
        assert f"textbox 'city': {text} [6]" in str(saved.observation)


def test_a_field_without_enter_waits_for_its_button():
    at = step(WORLD, begun(WORLD, "shop city"), "goto [/shop/account]")
    typed = step(WORLD, at, "type [5] [Nowhere] [0]")
    assert content(typed.state.data) == content(at.state.data)
    assert content(step(WORLD, typed, "click [6]").state.data)["account"] == [("Nowhere",)]
    assert content(step(WORLD, typed, "press [enter]").state.data)["account"] == [("Nowhere",)]
    assert "no such key" in str(step(WORLD, typed, "press [entre]").observation)


@pytest.mark.parametrize(
    "text, told_",
    [
        ("press [é]", "no such key"),
        ("press [a]", "only Enter can be pressed here"),
        ("I would click it", "no such action"),
        ("click 3", "write click"),
        ("click [three]", "write click"),
        ("type [5]", "write type"),
        ("scroll [left]", "write scroll"),
        ("click [0]", "no element"),
        ("click [99999]", "no element"),
        ("type [1] [word]", "nothing can be typed"),
    ],
)
def test_an_action_that_cannot_be_done_says_why_and_does_nothing(text: str, told_: str):
    at = begun(WORLD, "shop buy")
    after = step(WORLD, at, text)
    assert told_ in str(after.observation) and not after.info["valid"]
    assert after.state == at.state and after.reward == 0 and after.end is None


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("click [12]", ("click", 12, "", True)),
        ("Thought: it is there.\nAction: click [12].", ("click", 12, "", True)),
        ("The next action I will perform is ```click [12]```", ("click", 12, "", True)),
        ("type [3] [red hat]", ("type", 3, "red hat", True)),
        ("type [3] [red hat] [0]", ("type", 3, "red hat", False)),
        ("type [3] [a [b] c] [press_enter_after=1]", ("type", 3, "a [b] c", True)),
        ("I ran ```print(1)``` first.\nAction: click [12]", ("click", 12, "", True)),
        ("```\nAction: click [12]\n``` is what I do", ("click", 12, "", True)),
        ("Action: ```click [12]```", ("click", 12, "", True)),
        (f"```{'y = 1 ' * 700}``` so ```click [12]```", ("click", 12, "", True)),
        ("scroll [direction=down]", ("scroll", 0, "down", True)),
        ("scroll [up]", ("scroll", 0, "up", True)),
        ("stop", ("stop", 0, "", True)),
        ("stop [3 [of] 4.]", ("stop", 0, "3 [of] 4.", True)),
        ("press [Ctrl+a]", ("press", 0, "Ctrl+a", True)),
    ],
)
def test_actions_are_read_as_webarena_writes_them(text: str, wanted: tuple[object, ...]):
    act = parse(text)
    assert (act.verb, act.number, act.text, act.enter) == wanted


def tree_of(*children: Node) -> list[str]:
    page = Node("RootWebArea", "1 Card", children=children)
    return [line.partition("] ")[2] for line in told(page, "tree").lines[1:]]


def test_a_tree_leaves_out_a_text_only_where_a_name_says_it():
    texts = [Node("StaticText", each) for each in ("6", "2", "12", "1", "2", "Text")]
    assert tree_of(*texts) == [f"StaticText '{each.name}'" for each in texts]
    two = (Node("StaticText", "red"), Node("strong", children=(Node("StaticText", "hat"),)))
    assert tree_of(Node("link", "red hat", children=two)) == ["link 'red hat'"]
    beside = (Node("checkbox", "one"), Node("StaticText", "one"), Node("StaticText", "on"))
    assert tree_of(*beside) == ["checkbox 'one'", "StaticText 'on'"]


def test_a_search_with_signs_keeps_them_on_its_other_pages():
    data = database(size=24)
    for sign in ("&", "+", "%", "#"):
        data = written(data, [("update products set name = ? || name", (f"a{sign}b ",))])
        first = visit(data, Ask("GET", "/shop", {"q": f"a{sign}b"}))[0].html
        there = plain_browser.read(first).elements.values()
        more = next(each for each in there if (each.tag, each.text) == ("a", "next"))
        path, fields = plain_browser.split(more.attributes["href"])
        assert (path, fields["q"]) == ("/shop", f"a{sign}b")
        assert "previous" in visit(data, Ask("GET", path, fields))[0].html


def test_two_actions_are_none():
    with pytest.raises(Misread, match="write click"):
        parse("click [1] click [2]")


# ---------------------------------------------------------------------------------------------- over HTTP


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def test_sessions_are_apart_and_judged_by_their_own_database(server: Server):
    names = [server.begin(database()) for _ in range(2)]
    clients = [
        httpx.Client(base_url=server.url, cookies={COOKIE: n}, follow_redirects=True) for n in names
    ]
    assert 'value="Oz"' in clients[0].post("/shop/account", data={"city": "Oz"}).text
    assert "Oz" not in clients[1].get("/shop/account").text
    assert content(server.data(names[0]))["account"] == [("Oz",)]
    assert content(server.data(names[1])) == content(database())
    server.end(names[0])
    assert clients[0].get("/shop").status_code == 403
    assert clients[1].get("/shop").status_code == 200


def test_bad_requests_get_their_codes_and_the_server_stays_up(server: Server):
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/shop").status_code == 403
        assert client.get("/shop", headers={"Cookie": "session=\x01;;=="}).status_code == 403
        client.cookies.set(COOKIE, server.begin(database()))
        assert client.get("/shop/item/99999999999999999999").status_code == 404
        assert client.get("/nowhere").status_code == 404
        assert client.post("/shop/cart", data={"item": "1", "amount": "-1"}).status_code == 400
        assert client.post("/shop/cart", data={"item": "x", "amount": "1"}).status_code == 400
        big = client.post("/shop/account", data={"city": "a" * (LARGEST + 1)})
        assert big.status_code == 413
        assert client.put("/shop").status_code == 501
        assert client.get("/shop").status_code == 200


def test_visitors_get_a_session_and_can_begin_anew():
    server = Server(visitors=database())
    with httpx.Client(base_url=server.url, follow_redirects=True) as client:
        assert "shop" in client.get("/").text
        client.post("/shop/account", data={"city": "Oz"})
        assert "Oz" in client.get("/shop/account").text
        client.get("/reset")
        assert "Oz" not in client.get("/shop/account").text
    server.close()


# ---------------------------------------------------------------------------------------------- in Chromium


def test_both_readers_show_the_same_pages_and_the_solver_solves_in_both(chromium: Chromium):
    plain = replace(WORLD, form="lines")
    real = replace(plain, browser=True, chromium=chromium)

    async def both(index: int) -> None:
        task = plain.tasks("test")[index]
        one, other = await plain.reset(task, 0), await real.reset(task, 0)
        try:
            while one.end is None:
                assert one.observation == other.observation
                action = plain.expert(one.state)
                assert real.expert(other.state) == action
                one = await plain.step(one.state, action)
                other = await real.step(other.state, action)
            assert one.end is other.end is End.SOLVED and other.reward == 1
        finally:
            await real.close(other.state)

    async def every() -> None:
        for index in range(len(KINDS)):
            await both(index)

    asyncio.run(every())


def test_both_readers_agree_on_what_else_can_be_done(chromium: Chromium):
    plain = replace(WORLD, form="tree", rows=40)
    real = replace(plain, browser=True, chromium=chromium)
    task = plain.tasks("test")[list(KINDS).index("manager rename")]
    actions = [
        "go_back",
        "goto [/manager/page/1]",
        "go_back",
        "go_forward",
        'type [7] [a <b> & "c"] [0]',
        "type [1] [a]",
        "scroll [down]",
        "new_tab",
        "goto [/forum/thread/1]",
        "tab_focus [0]",
        "close_tab",
        "goto [http://example.org]",
        "press [nothing]",
        "click [400]",
        "goto [/repository/issue/2]",
    ]

    async def compared() -> None:
        one, other = await plain.reset(task, 0), await real.reset(task, 0)
        try:
            for action in actions:
                one, other = (
                    await plain.step(one.state, action),
                    await real.step(other.state, action),
                )
                assert one.observation == other.observation, action
                assert one.info["valid"] == other.info["valid"]
        finally:
            await real.close(other.state)

    asyncio.run(compared())


WAYS = {
    "a link to the page one is on": ["click [1]", "click [1]", "go_back", "go_forward"],
    "a goto to it": ["goto [/shop/cart]", "goto [/shop/cart]", "go_back", "go_back"],
    "what is ahead stays": ["goto [/shop/cart]", "go_back", "goto [/shop]", "go_forward"],
    "a form that leads back": ["goto [/shop/account]", "type [5] [Oz] [1]", "go_back", "go_back"],
    "the same search": ["type [5] [red] [1]", "type [5] [red] [1]", "go_back", "go_back"],
    "spellings": [
        "goto [/forum/thread/%31]",
        "goto [/forum/x/../profile]",
        "goto [/forum/%2e%2e/shop/acc%6funt#there]",
        "goto [/../shop/./account]",
        "go_back",
        "goto [/shop?q=r%65d&x]",
        "goto [/x/%25%31 é]",
        "goto [/..//shop]",
    ],
    "long texts": ["goto [/shop/account]", f"type [5] [{'🙂' * 29}a🙂b] [0]"],
    "keys": [
        "goto [/shop/account]",
        "click [5]",
        "press [a]",
        "press [é]",
        "press [Control+a]",
        "press [Tab]",
        "press [Enter]",
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_both_readers_agree_off_the_way_of_the_solver(way: str, chromium: Chromium):
    real = replace(WORLD, browser=True, chromium=chromium)
    task = WORLD.tasks("test")[list(KINDS).index("shop price")]

    async def compared() -> None:
        one, other = await WORLD.reset(task, 0), await real.reset(task, 0)
        try:
            for action in WAYS[way]:
                one = await WORLD.step(one.state, action)
                other = await real.step(other.state, action)
                assert one.observation == other.observation, action
                assert one.info == other.info
                assert one.state.sight.url == other.state.sight.url
        finally:
            await real.close(other.state)

    asyncio.run(compared())


def test_a_window_is_forked_by_doing_the_same_again_and_windows_are_apart(chromium: Chromium):
    world = replace(WORLD, browser=True, chromium=chromium, pictures=True)
    task = world.tasks("test")[list(KINDS).index("shop city")]

    async def forked() -> None:
        start = await world.reset(task, 0)
        _, picture = start.observation
        assert isinstance(picture, Image) and picture.data.startswith(b"\x89PNG")
        there = await world.step(start.state, "goto [/shop/account]")
        copy = await world.fork(there.state)
        saved = await world.step(copy, "type [5] [Oz] [1]")
        assert "city': Oz" in Message("user", saved.observation).text
        again = await world.step(there.state, "goto [/shop/account]")
        assert "city': Oz" not in Message("user", again.observation).text
        assert isinstance(copy, Visit)
        copy.history[0] = (copy.history[0][0], "something else")
        with pytest.raises(CannotFork, match="shows something else"):
            await world.fork(copy)
        await world.close(copy)
        await world.close(there.state)

    asyncio.run(forked())


def test_text_of_a_page_is_numbered_as_it_is_read():
    at = begun(WORLD, "shop price")
    page = told(at.state.sight.page)
    assert page.lines[0].startswith("[1] link 'shop' [2] link 'cart'")
    assert page.element(1).role == "link" and page.element(5).role == "textbox"
