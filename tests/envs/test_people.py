"""Simulated people: endpoints and local models that talk, checks on what they say, and the shop's customer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from tests.helpers import sampler

from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.people import (
    Endpoint,
    Local,
    Played,
    Said,
    Unreachable,
    customer,
    hints,
    judge,
    no_longer_than,
    seen_by_the_person,
    teacher,
    verdict_by,
)
from ludus.envs.small.shop import STOP, Shop, Wish, answered
from ludus.envs.world import mixed, play
from ludus.types import End, Message, Sampling

# ---------------------------------------------------------------------------------------------- a real server


class Server:
    """OpenAI's chat route on this machine. `answers` are (code, body) in turn, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, dict(self.headers), body))
                code, answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if callable(answer):
                    answer = said(answer(body["messages"]))
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


def said(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


ASKED = [Message("system", "You are Ann."), Message("user", "name?")]


def endpoint(server: Server, **settings: Any) -> Endpoint:
    return Endpoint(server.url, "small", pause=0.01, **settings)


def test_an_endpoint_speaks_the_protocol(server: Server):
    server.answers = [(200, said("Ann"))]
    talk = endpoint(server, token="secret", settings={"temperature": 0.5})
    assert asyncio.run(talk(ASKED)) == "Ann" and "secret" not in repr(talk)
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "small",
        "temperature": 0.5,
        "messages": [
            {"role": "system", "content": "You are Ann."},
            {"role": "user", "content": "name?"},
        ],
    }


def test_what_passes_is_tried_again(server: Server):
    server.answers = [(503, "busy"), (429, "slowly"), (200, said("Ann"))]
    assert asyncio.run(endpoint(server)(ASKED)) == "Ann" and len(server.asked) == 3


@pytest.mark.parametrize(
    ("code", "answer", "asked", "says"),
    [
        (500, "broken", 3, "500: broken"),
        (401, "no such token", 1, "401: no such token"),
        (404, "no such model", 1, "check the address"),
        (200, "<html>", 1, r"wanted choices\[0\]"),
        (200, {"choices": []}, 1, r"wanted choices\[0\]"),
        (200, said(None), 1, r"wanted choices\[0\]"),
        (200, [1], 1, r"wanted choices\[0\]"),
    ],
)
def test_what_does_not_pass_is_told(server: Server, code: int, answer: Any, asked: int, says: str):
    server.answers = [(code, answer)]
    with pytest.raises(Unreachable, match=says):
        asyncio.run(endpoint(server)(ASKED))
    assert len(server.asked) == asked


def test_nobody_listens():
    with pytest.raises(Unreachable, match="ConnectError"):
        asyncio.run(Endpoint("http://127.0.0.1:9/v1", "x", tries=2, pause=0.01)(ASKED))


def test_a_lost_person_loses_the_episode_and_scores_nothing():
    shop = Shop(person=customer(Endpoint("http://127.0.0.1:9/v1", "x", tries=1)), train=2, test=2)
    with pytest.raises(EnvFault, match="Unreachable") as caught:
        asyncio.run(Guarded(shop).reset(shop.tasks()[0], 0))
    assert caught.value.end is End.ENV_CRASHED and not caught.value.end.scorable


def test_a_local_model_says_the_same_again():
    talk = Local(sampler(), Sampling(max_tokens=8))
    other = Local(talk.sampler, talk.sampling, seed=1)

    async def three() -> list[str]:
        return list(await asyncio.gather(talk(ASKED), talk(ASKED), other(ASKED)))

    first, again, another = asyncio.run(three())
    assert first == again != another and first


# ---------------------------------------------------------------------------------------------- what is refused

CHANGE = Wish("change", "change", "Ann", "hat", "red", "blue")
RETURN = Wish("return", "return", "Bob", "cup", "green")


def saying(*replies: str) -> Callable[[Sequence[Message]], Any]:
    """A model that says these things in turn; `heard` has what it was asked with."""
    left = list(replies)

    async def talk(messages: Sequence[Message]) -> str:
        return left.pop(0)

    return talk


def ask(wish: Wish, agent: str, *replies: str, before: Said = ()) -> tuple[str, dict[str, int]]:
    person = customer(saying(*replies))
    dialogue = (*before, ("agent", agent)) if agent else ()
    reply = asyncio.run(person(wish, dialogue))
    return reply, dict(person.counts)


FIRST = (("customer", "change my order"),)


@pytest.mark.parametrize(
    ("wish", "agent", "reply"),
    [
        (CHANGE, "", "I want to change an order."),
        (CHANGE, "name?", "It is Ann!"),
        (CHANGE, "item?", "a hat"),
        (CHANGE, "colour?", "red"),
        (CHANGE, "new?", "blue, please"),
        (CHANGE, "What new colour would you like?", "Blue, please."),
        (CHANGE, "Which colour is it now, and which new one?", "it is red"),
        (CHANGE, "your name and item please", "Ann, a hat"),
        (RETURN, "new?", "I do not know"),
        (RETURN, "is it a green one?", "yes, the green one"),
        (CHANGE, "done", STOP),
        (CHANGE, "all done, bye", f"Thanks {STOP}"),
    ],
)
def test_an_honest_reply_is_heard(wish: Wish, agent: str, reply: str):
    assert ask(wish, agent, reply, before=FIRST) == (reply, {"replies": 1})


@pytest.mark.parametrize(
    ("wish", "agent", "reply"),
    [
        (CHANGE, "", "I am Ann and want to change an order"),
        (CHANGE, "", "change my HAT"),
        (CHANGE, "name?", "Ann, and it is about a hat"),
        (CHANGE, "colour?", "the colour red, to blue"),
        (CHANGE, "name?", "Bob"),
        (CHANGE, "item?", "a cup"),
        (CHANGE, "colour?", "blue"),
        (CHANGE, "new?", "green"),
        (CHANGE, "What new colour would you like?", "red"),
        (CHANGE, "name?", "Ann. I want to return it"),
        (RETURN, "new?", "black"),
        (CHANGE, "name?", STOP),
        (CHANGE, "done", "what about my hat"),
        (CHANGE, "name?", "  "),
    ],
)
def test_a_leak_or_a_contradiction_is_refused(wish: Wish, agent: str, reply: str):
    scripted = answered(wish, agent) if agent else "change my order"
    said, counts = ask(wish, agent, reply, reply, reply, before=FIRST)
    assert said == scripted and counts == {"replies": 1, "refused": 3, "scripted": 1}


def test_a_refused_reply_may_be_mended_and_its_reason_is_told():
    heard: list[Sequence[Message]] = []

    async def talk(messages: Sequence[Message]) -> str:
        heard.append(tuple(messages))
        return "Ann, a hat" if len(heard) == 1 else "Ann"

    person = customer(talk)
    assert asyncio.run(person(CHANGE, (*FIRST, ("agent", "name?")))) == "Ann"
    assert dict(person.counts) == {"replies": 1, "refused": 1}
    assert [message.role for message in heard[0]] == ["system", "user", "assistant", "user"]
    assert "You are Ann" in heard[0][0].text
    assert heard[1][-2].text == "Ann, a hat" and "tells the item" in heard[1][-1].text


def test_what_was_said_before_is_no_secret():
    before = (*FIRST, ("agent", "item?"), ("customer", "a hat"))
    assert ask(CHANGE, "name?", "Ann, for the hat", before=before)[1] == {"replies": 1}


def test_the_dialogue_from_the_other_side():
    roles = [m.role for m in seen_by_the_person((("agent", "hello"), ("customer", "hi")))]
    assert roles == ["user", "assistant"]
    assert [m.text for m in seen_by_the_person(())] == ["(You begin.)"]


# ---------------------------------------------------------------------------------------------- in the shop


def test_an_expert_serves_a_customer_behind_an_endpoint(server: Server):
    """A model that knows its part from the brief alone, and blurts everything out at first."""

    def model(messages: list[dict[str, str]]) -> str:
        brief, asked = messages[0]["content"], messages[-1]["content"]
        if asked.startswith("(You begin"):
            return brief  # leaks all
        words = brief.split("want")[1].split()
        name = brief.split()[2].rstrip(".")
        place = words.index("a")
        facts = {"name": name, "colour": words[place + 1], "item": words[place + 2].rstrip(".")}
        facts["new"] = words[words.index("to", place) + 1].rstrip(".") if "changed" in words else ""
        slot = asked.rstrip("?")
        return STOP if "done" in asked else facts.get(slot, brief)

    server.answers = [(200, model)]
    person = customer(endpoint(server))
    shop = Shop(person=person, train=6, test=6)
    rng = np.random.default_rng(0)
    games = [
        asyncio.run(play(shop, task, 0, mixed(shop, 1.0), rng, 10)) for task in shop.tasks()[:6]
    ]
    assert [game.end for game in games] == [End.SOLVED] * 6
    assert person.counts["scripted"] == 6 and person.counts["refused"] == 18  # the first words only
    assert person.counts["replies"] > 12


# ---------------------------------------------------------------------------------------------- teachers, judges

PROBLEM: dict[str, Any] = {
    "question": "6 * 7",
    "answer": "42",
    "hints": ["Multiply.", "It is 40 and a little."],
}


def lesson(*replies: str, said: Said = ()) -> tuple[str, Played[Any]]:
    person = teacher(
        saying(*replies),
        lambda record: f"Help with {record['question']}.",
        lambda record: record["answer"],
        hints(lambda record: record["hints"]),
        longest=60,
    )
    return asyncio.run(person(PROBLEM, said)), person


def test_a_teacher_does_not_tell_the_answer():
    assert lesson("Think of 6 times 7.")[0] == "Think of 6 times 7."
    reply, person = lesson("It is 42.", "42!", "Forty-two, 42")
    assert reply == "Multiply." and person.counts["scripted"] == 1
    begun = (("teacher", "Multiply."), ("agent", "how"))
    assert lesson("42", "x" * 61, "42", said=begun)[0] == "It is 40 and a little."
    assert lesson("Yes, 42.", said=(("agent", "is it 42?"),))[0] == "Yes, 42."
    assert lesson("more than 420?")[0] == "more than 420?"


def test_a_judge_gives_a_verdict_alone():
    def right(record: dict[str, Any], text: str) -> bool:
        return record["answer"] in text

    scripted = verdict_by(right)

    def verdict(text: str, *replies: str) -> tuple[str, int]:
        person = judge(saying(*replies), lambda record: f"Is it {record['answer']}?", scripted)
        reply = asyncio.run(person(PROBLEM, (("agent", text),)))
        return reply, person.counts["scripted"]

    assert verdict("41", "No.") == ("No.", 0)
    assert verdict("42", "maybe", "Well, yes", "yes") == ("yes", 0)
    assert verdict("42", "I", "do", "not know") == ("yes", 1)
    assert verdict("41", "I", "do", "not know") == ("no", 1)
    assert no_longer_than(3)(None, (), "abcd") and not no_longer_than(3)(None, (), "abc")
