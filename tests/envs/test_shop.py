"""The shop: tools and customer by hand, agents that do right, nothing, or too much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.small.shop import (
    KINDS,
    POLICY,
    STOP,
    Database,
    Order,
    Refused,
    Said,
    Shop,
    State,
    Wish,
    answered,
    everything_at_once,
    fewest_questions,
    use,
)
from ludus.envs.world import LONGEST
from ludus.types import End, Step

DATABASE = Database(
    (
        Order(31, "Ann", "hat", "red", "pending"),
        Order(57, "Ann", "cup", "blue", "delivered"),
        Order(88, "Bob", "hat", "red", "pending"),
    ),
    (("hat", 25), ("cup", 40)),
)
CANCEL = Wish("cancel", "cancel", "Ann", "hat", "red")
CHANGE = Wish("change", "change", "Ann", "hat", "red", "green")
SHOP = Shop(KINDS, train=50, test=25)


def begin(wish: Wish, call: str = "", outputs: Sequence[str] = ()) -> State:
    gold = use(DATABASE, call)[0] if call else DATABASE
    first = "price of an item" if wish.asks == "price" else f"{wish.asks} my order"
    return State(wish, DATABASE, gold, tuple(outputs), (("customer", first),))


def talk(state: State, *messages: str, shop: Shop = SHOP) -> list[Step]:
    steps = []
    for message in messages:
        steps.append(asyncio.run(shop.step(state, message)))
        state = steps[-1].state
    return steps


# ---------------------------------------------------------------------------------------------- tools and customer


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("orders Ann", "31 red hat pending, 57 blue cup delivered"),
        ("orders Zoe", "no orders of Zoe"),
        ("price hat", "hat 25"),
        ("price moon", "no item moon"),
        ("cancel 31", "31 red hat cancelled"),
        ("cancel 57", "57 blue cup cancelled"),  # the policy forbids it, the tool does not
        ("return 57", "57 blue cup returned"),
        ("change 31 green", "31 green hat pending"),
    ],
)
def test_calls(call: str, told: str):
    after, answer = use(DATABASE, call)
    assert answer == told
    assert (after == DATABASE) == call.startswith(("orders", "price"))


@pytest.mark.parametrize(
    "call",
    ["cancel", "cancel 99", "cancel 31 57", "change 31 moon", "fly", "", "Cancel 31", "cancel ٣١"],
)
def test_calls_that_are_refused_change_nothing(call: str):
    with pytest.raises(Refused):
        use(DATABASE, call)
    step = talk(begin(CANCEL), f"call {call}")[0]
    assert step.state.database == DATABASE and step.end is None and step.info["did"] == "error"
    assert str(step.observation).startswith("shop: no ")


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        ("name?", "Ann"),
        ("What is your name?", "Ann"),
        ("item and colour?", "hat"),  # one thing a question, the first
        ("colour or item?", "red"),
        ("new?", "I do not know"),
        ("hello", "please ask for one thing"),
        ("it is done.", STOP),
        ("undone", "please ask for one thing"),
    ],
)
def test_the_customer_reveals_one_thing_a_question(message: str, reply: str):
    assert answered(CANCEL, message) == reply


def test_a_whole_talk_word_for_word():
    steps = talk(
        begin(CHANGE, "change 31 green"),
        "name?",
        "call orders Ann",
        "item?",
        "new?",
        "Right away.\ncall change 31 green\ncall cancel 57",  # the first call only
        "done",
    )
    assert [step.observation for step in steps] == [
        "Ann",
        "shop: 31 red hat pending, 57 blue cup delivered",
        "hat",
        "green",
        "shop: 31 green hat pending",
        STOP,
    ]
    assert [step.info["did"] for step in steps] == ["ask", "read", "ask", "ask", "write", "leave"]
    assert [step.reward for step in steps] == [0, 0, 0, 0, 0, 1]
    assert [step.end for step in steps] == [None] * 5 + [End.SOLVED]


def test_the_customer_does_not_see_the_tools():
    heard: list[Said] = []

    async def listening(wish: Wish, said: Said) -> str:
        heard.append(said)
        return "hm"

    talk(begin(CANCEL), "name?", "call orders Ann", "item?", shop=replace(SHOP, person=listening))
    assert heard[-1] == (
        ("customer", "cancel my order"),
        ("agent", "name?"),
        ("customer", "hm"),
        ("agent", "item?"),
    )


def test_an_error_of_the_customer_loses_the_episode():
    async def broken(wish: Wish, said: Said) -> str:
        raise RuntimeError("the line is dead")

    guarded = Guarded(replace(SHOP, person=broken))
    with pytest.raises(EnvFault, match="the line is dead") as fault:
        asyncio.run(guarded.reset(guarded.tasks("test")[0], 0))
    assert not fault.value.end.scorable


def test_a_transfer_ends_the_talk():
    step = talk(begin(CANCEL, "cancel 31"), "call transfer")[0]
    assert (step.end, step.reward, step.info["did"]) == (End.FAILED, 0, "transfer")
    assert (
        talk(begin(Wish("refused", "cancel", "Ann", "cup", "blue")), "call transfer")[0].reward == 1
    )


def test_a_transfer_may_be_written_as_the_policy_writes_it():
    line = next(line for line in POLICY.splitlines() if "transfer" in line)
    assert talk(begin(CANCEL), line)[0].info["did"] == "transfer"
    assert talk(begin(CANCEL), "call transfer 31")[0].info["did"] == "error"


def test_what_counts_stands_at_the_end_of_a_long_message():
    thought = "<think>" + "I should look. " * 100 + "</think>"
    assert talk(begin(CANCEL), f"{thought}\ncall price hat")[0].observation == "shop: hat 25"
    assert talk(begin(CANCEL), f"{thought}\nname?")[0].observation == "Ann"
    early = f"call price hat\n{thought} done"
    assert talk(begin(CANCEL), early)[0].info["did"] == "leave"
    # The cut makes no line: here it is right in front of the word.
    assert talk(begin(CANCEL), f"re{'call me'.ljust(LONGEST)}")[0].info["did"] == "ask"


def test_required_outputs_must_be_said_to_the_customer():
    wish = Wish("price", "price", "Ann", "hat", "red")
    state = begin(wish, outputs=["25"])
    assert talk(state, "done")[0].reward == 0
    assert talk(state, "call price hat", "done")[1].reward == 0  # the shop said it, not the agent
    assert (
        talk(state, "call price 25", "done")[1].reward == 0
    )  # said to the shop, not to the customer
    assert talk(state, "25", "done")[1].reward == 1
    assert talk(state, "it costs 2,5 done")[0].reward == 1


@pytest.mark.parametrize(
    ("wish", "questions"),
    [
        (CANCEL, 2),  # name, item
        (CHANGE, 3),  # and the new colour
        (Wish("cancel", "cancel", "Bob", "hat", "red"), 1),  # his only order
        (Wish("price", "price", "Ann", "hat", "red"), 1),
    ],
)
def test_fewest_questions(wish: Wish, questions: int):
    assert fewest_questions(wish, DATABASE) == questions
    twice = replace(DATABASE, orders=(*DATABASE.orders, Order(12, "Ann", "hat", "blue", "pending")))
    both = Wish("cancel", "cancel", "Ann", "hat", "blue")
    assert fewest_questions(both, twice) == 3  # neither item nor colour is enough


# ---------------------------------------------------------------------------------------------- agents


def finish(shop: Shop, index: int, agent: Callable[[Shop, State], str]) -> tuple[Step, list[Step]]:
    task = shop.tasks("test")[index]
    step, steps = asyncio.run(shop.reset(task, 0)), []
    while step.end is None:
        step = asyncio.run(shop.step(step.state, agent(shop, step.state)))
        steps.append(step)
        assert len(steps) < 12
    return step, steps


def oracle(shop: Shop, state: State) -> str:
    return shop.expert(state)


def idle(shop: Shop, state: State) -> str:
    return "done"


def zealous(shop: Shop, state: State) -> str:
    """Gold, and one write more: to another order, or the same one again."""
    action = shop.expert(state)
    extra = state.database.writes - state.gold.writes
    return (
        f"call cancel {state.database.orders[0].number}"
        if "done" in action and extra < 1
        else action
    )


@pytest.mark.parametrize("person", [SHOP.person, everything_at_once])
def test_oracle_idle_and_zealous_agents(person: Callable[..., object]):
    """Card mua-rl (c)."""
    shop = replace(SHOP, person=person)
    tasks = shop.tasks("test")
    assert {task.domain for task in tasks} == set(KINDS)
    for index, task in enumerate(tasks):
        assert finish(shop, index, oracle)[0].reward == 1
        assert finish(shop, index, idle)[0].reward == (not task.extras["changes"])
        assert finish(shop, index, zealous)[0].reward == 0
    # A lazy policy collects the refused fifth, and nothing where nothing is refused.
    assert np.mean([not task.extras["changes"] for task in tasks]) == pytest.approx(0.2)
    assert all(task.extras["changes"] for task in Shop().tasks("test"))


def test_writing_the_same_row_twice_is_noticed():
    state = begin(CANCEL, "cancel 31")
    assert talk(state, "call cancel 31", "done")[-1].reward == 1
    assert (
        talk(state, "call cancel 31", "call cancel 31", "done")[-1].reward == 0
    )  # by its time stamp


def test_rollouts_do_not_see_each_other():
    """Card mua-rl (d)."""
    task = SHOP.tasks("test")[0]
    first, second = (asyncio.run(SHOP.reset(task, 0)).state for _ in range(2))
    one, two = (str(order.number) for order in first.database.orders[:2])
    first = talk(first, f"call cancel {one}")[0].state
    second = talk(second, f"call cancel {two}")[0].state
    assert first.database != second.database
    third = asyncio.run(SHOP.reset(task, 0)).state
    assert third.database == SHOP.start("test", 0).database
    assert all(order.status != "cancelled" and not order.stamp for order in third.database.orders)


def test_an_oracle_asks_little_more_than_must_be_asked_and_nothing_when_all_is_told():
    asked = {True: 0, False: 0}
    for index, task in enumerate(SHOP.tasks("test")):
        for told in (False, True):
            shop = replace(SHOP, person=everything_at_once) if told else SHOP
            steps = finish(shop, index, oracle)[1]
            questions = sum(step.info["did"] == "ask" for step in steps)
            asked[told] += questions
            if not told:
                assert task.difficulty <= questions <= task.difficulty + 1
    assert asked[True] == 0 < asked[False]


def test_no_instruction_is_in_both_splits():
    train, test = (
        {str(task.extras["instruction"]) for task in Shop(KINDS).tasks(split)}
        for split in ("train", "test")
    )
    assert len(train) > 600 and not train & test


@pytest.mark.parametrize("settings", [{"kinds": ()}, {"kinds": ("steal",)}, {"customers": 0}])
def test_settings_that_make_no_world(settings: dict[str, object]):
    with pytest.raises(ValueError, match="give"):
        replace(SHOP, **settings)
