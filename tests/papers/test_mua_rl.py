"""Card mua-rl: the group of eight, the hash of a database, what counts as said. Agents: tests/envs/test_shop.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from ludus.advantages.relative import grpo
from ludus.envs.small.shop import Database, Order, use
from ludus.rewards.state_equality import all_said, digest


def test_a_group_of_eight_with_two_successes():
    reward = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 1])
    expected = [1.620182, *[-0.540061] * 6, 1.620182]
    assert grpo(reward, torch.zeros(8).long()).tolist() == pytest.approx(expected, abs=1e-5)


DATABASE = Database((Order(31, "Ann", "hat", "red", "pending"),), (("hat", 25),))


def test_the_hash_does_not_depend_on_the_order_of_keys():
    rows = {"a": {"x": 1, "y": [1, 2, {"z": None}]}, "b": {3, "c"}}
    turned = {"b": {"c", 3}, "a": {"y": (1, 2, {"z": None}), "x": 1}}
    assert digest(rows) == digest(turned)
    assert digest(rows) != digest(
        {**rows, "a": {"x": 1, "y": [2, 1, {"z": None}]}}
    )  # a list has an order


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, True),
        (1, 1.0),
        (None, "None"),
        ({}, []),
        ([], ""),
        ({1: "a"}, {"1": "a"}),
        ("a", ["a"]),
    ],
)
def test_values_of_different_kinds_differ(one: object, other: object):
    assert digest(one) != digest(other) and digest([one]) != digest([other])


def test_reading_leaves_the_hash_and_every_write_changes_it():
    for call in ("orders Ann", "price hat", "orders nobody"):
        assert digest(use(DATABASE, call)[0]) == digest(DATABASE)
    once = use(DATABASE, "cancel 31")[0]
    twice = use(once, "cancel 31")[0]
    assert len({digest(database) for database in (DATABASE, once, twice)}) == 3
    # The second write changed nothing but the stamp and the count of writes.
    assert digest(once, exclude=("stamp", "writes")) == digest(twice, exclude=("stamp", "writes"))
    back = use(use(DATABASE, "change 31 blue")[0], "change 31 red")[0]
    assert digest(back) != digest(DATABASE)
    assert digest(back, exclude=("stamp", "writes")) == digest(
        DATABASE, exclude=("stamp", "writes")
    )


def test_a_dataclass_is_a_mapping_of_its_fields():
    @dataclass
    class Row:
        x: int
        y: str

    assert digest(Row(1, "a")) == digest({"y": "a", "x": 1})
    assert digest(DATABASE) == digest(replace(DATABASE))


def test_what_has_no_plain_form_is_refused():
    with pytest.raises(TypeError, match="give plain data"):
        digest({"a": object()})


@pytest.mark.parametrize(
    ("outputs", "messages", "said"),
    [
        (["1,250"], ["the total is 1250"], True),  # the published code misses this one
        (["1250"], ["the total is 1,250"], True),
        (["Ann"], ["hello ANN"], True),
        (["a", "b"], ["a", "and b"], True),
        (["a b"], ["a", "b"], False),  # in one message
        (["25"], [], False),
        ([], [], True),
    ],
)
def test_required_outputs(outputs: list[str], messages: list[str], said: bool):
    assert all_said(outputs, messages) == said
