"""The service on a real socket: both protocols, and everything that clients do wrong."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.serving import Clock, Counting, running

from ludus.envs.service.serve import app, loopback, server
from ludus.envs.service.sessions import Limits, Refused, Sessions
from ludus.envs.small.grid import grid
from ludus.types import Explained, Step, Task


@pytest.fixture
def served() -> Iterator[tuple[httpx.Client, Counting, Any]]:
    world = Counting()
    with (
        running(world, limits=Limits(deadline=1.0)) as (url, made),
        httpx.Client(base_url=url) as client,
    ):
        yield client, world, made.state.sessions


def call(client: httpx.Client, *calls: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers to a batch in the order of its calls."""
    came = client.post("/calls", json={"calls": calls})
    assert came.status_code == 200, came.text
    return sorted(map(json.loads, came.text.splitlines()), key=lambda told: told["at"])


def opened(client: httpx.Client, index: int = 0, seed: int = 0) -> str:
    (told,) = call(client, {"call": "reset", "index": index, "seed": seed})
    return told["session"]


def step(session: str, action: Any = "on", **more: Any) -> dict[str, Any]:
    return {"call": "step", "session": session, "action": action, **more}


def until(true: Any) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------- our protocol


def test_one_request_steps_many_sessions(served):
    client, _, sessions = served
    told = call(client, *({"call": "reset", "index": n % 3, "seed": n} for n in range(50)))
    ids = [one["session"] for one in told]
    assert len(set(ids)) == 50 == len(sessions.open)
    assert [one["observation"]["$tuple"][0] for one in told] == [
        f"train-{n % 3} {n}" for n in range(50)
    ]
    for turn in range(1, 5):
        told = call(client, *(step(id_, str(turn)) for id_ in ids))
        assert [one["observation"] for one in told] == [
            f"train-{n % 3} {n} {turn}" for n in range(50)
        ]
        assert {one["turn"] for one in told} == {turn}
        assert {one["end"] for one in told} == {"solved" if turn == 4 else None}
    assert told[7]["info"]["anchor"] == {"$tuple": ["train-1", 3]}
    assert told[7]["info"]["odd"] == {"$float": "inf"}
    call(client, *({"call": "close", "session": id_} for id_ in ids))
    assert not sessions.open


def test_what_is_fast_does_not_wait_for_what_is_slow(served):
    client, _, _ = served
    slow, fast = opened(client), opened(client)
    with client.stream(
        "POST", "/calls", json={"calls": [step(slow, "wait"), step(fast)]}
    ) as answer:
        order = [json.loads(line)["at"] for line in answer.iter_lines()]
    assert order == [1, 0]


def test_a_repeated_call_is_answered_and_not_done_again(served):
    client, world, sessions = served
    reset = {"call": "reset", "index": 1, "seed": 5, "key": "one"}
    first, again = call(client, reset)[0], call(client, reset)[0]
    assert first == again and len(sessions.open) == 1
    assert call(client, {**reset, "seed": 6})[0]["status"] == 409
    id_ = first["session"]
    once, twice = call(client, step(id_, turn=0))[0], call(client, step(id_, turn=0))[0]
    assert once == twice and world.steps == 1
    other = call(client, step(id_, "else", turn=0))[0]
    assert other["status"] == 409 and "fork" in other["error"]
    assert call(client, step(id_, turn=3))[0]["status"] == 409
    assert call(client, step(id_, turn=1))[0]["turn"] == 2 and world.steps == 2


def test_a_fork_goes_its_own_way(served):
    client, _, _ = served
    id_ = opened(client)
    call(client, step(id_))
    (branch,) = call(client, {"call": "fork", "session": id_, "turn": 1})
    assert branch["turn"] == 1
    (there,) = call(client, step(branch["session"]))
    (here,) = call(client, step(id_))
    assert there["observation"] == here["observation"] == "train-0 0 2"
    (refused,) = call(client, {"call": "fork", "session": id_})
    assert refused["status"] == 501 and refused["error"] == "not in the middle"
    assert call(client, step(id_))[0]["turn"] == 3  # still there
    assert call(client, {"call": "fork", "session": id_, "turn": 1})[0]["status"] == 409


def test_a_fork_is_a_use_of_its_session():
    clock = Clock()
    with (
        running(Counting(), limits=Limits(idle=600), clock=clock) as (url, _),
        httpx.Client(base_url=url) as client,
    ):
        id_ = opened(client)
        for _ in range(5):
            clock.now += 400
            assert call(client, {"call": "fork", "session": id_})[0]["status"] == 200


def test_a_session_is_opened_on_the_task_that_was_meant_or_not_at_all(served):
    client, _, sessions = served
    (told,) = call(client, {"call": "reset", "index": 1, "task": "train-1"})
    assert told["status"] == 200
    (told,) = call(client, {"call": "reset", "index": 1, "task": "train-2"})
    assert told["status"] == 409 and "'train-1', not 'train-2'" in told["error"]
    assert len(sessions.open) == 1


def test_an_answer_that_cannot_be_written_is_a_fault_and_no_silence():
    class Huge(Counting):
        async def step(self, state: Any, action: str) -> Step:
            return replace(await super().step(state, action), info={"n": 10**5000})

    with running(Huge()) as (url, made), httpx.Client(base_url=url) as client:
        (told,) = call(client, step(opened(client)))
        assert told["status"] == 500 and "ValueError" in told["error"]
        assert made.state.sessions.in_flight == 0


def test_a_world_without_its_data_is_not_served():
    class Absent(Counting):
        def tasks(self, split: str = "train") -> list[Task]:
            raise Explained("no data here; type: fetch-data")

    with pytest.raises(Explained, match="fetch-data"):
        server(Absent())


def test_what_is_busy_at_the_end_is_closed_too():
    class Slow(Counting):
        async def close(self, state: Any) -> None:
            await asyncio.sleep(0.1)
            await super().close(state)

    async def play() -> None:
        world = Slow()
        sessions = Sessions(world, Limits())
        told = await sessions.reset("train", 0, 0)
        step = sessions.later(sessions.step(told["session"], "wait"))
        await asyncio.sleep(0.05)
        await sessions.close_all()
        assert len(world.closed) == 1
        with pytest.raises(Refused, match="closed during this call"):
            await step

    asyncio.run(play())


def test_a_lone_surrogate_and_a_very_long_action_arrive(served):
    client, _, _ = served
    for action in ("\ud800", "", "\0", "a" * 1_000_000):
        body = json.dumps({"calls": [step(opened(client), action)]})
        came = client.post("/calls", content=body, headers={"content-type": "application/json"})
        assert json.loads(came.text)["info"]["said"] == action


# ---------------------------------------------------------------------------------------------- bad input


def test_what_clients_do_wrong(served):
    client, _, sessions = served
    id_ = opened(client)
    for _ in range(4):
        call(client, step(id_))
    wrong = {
        "over": (409, step(id_), "call reset"),
        "unknown": (404, step("f" * 32), "there is no session"),
        "index": (422, {"call": "reset", "index": 3}, "wanted 0 to 2"),
        "no fork": (404, {"call": "fork", "session": "x"}, "no session"),
    }
    for status, one, told in wrong.values():
        (answer,) = call(client, one)
        assert answer["status"] == status and told in answer["error"]
    json_ = {"content-type": "application/json"}
    bodies: list[tuple[int, dict[str, Any]]] = [
        (400, {"content": b"{calls:", "headers": json_}),
        (400, {"content": b"\xff\xfe\x00", "headers": json_}),
        (400, {"content": b"[" * 200_000, "headers": json_}),
        (422, {"json": {}}),
        (422, {"json": {"calls": []}}),
        (422, {"json": {"calls": [{"call": "dance"}]}}),
        (422, {"json": {"calls": [{**step(id_), "acton": "x"}]}}),
        (422, {"json": {"calls": [step(id_, action=5)]}}),
        (422, {"json": {"calls": [{"call": "reset", "index": -1}]}}),
        (422, {"json": {"calls": [{"call": "reset", "index": 10**30}]}}),
        (422, {"json": {"calls": [{"call": "reset", "index": True}]}}),
        (422, {"json": {"calls": [step(id_)] * 5000}}),
    ]
    for status, body in bodies:
        came = client.post("/calls", **body)
        assert came.status_code == status, (came.status_code, str(body)[:80], came.text)
        assert came.json()["error"]
    assert client.get("/nowhere").status_code == 404
    assert client.get("/calls").status_code == 405
    assert "/docs" in client.get("/calls").json()["error"]
    assert client.get("/tasks", params={"split": "dev"}).status_code == 422
    assert client.get("/health").json() == {"status": "ok"}
    assert len(sessions.open) == 1 and sessions.in_flight == 0


def test_a_body_that_is_far_too_large():
    with running(Counting(), limits=Limits(body=10_000)) as (url, _):
        told = httpx.post(f"{url}/calls", content=b" " * 20_000)
        assert told.status_code == 413 and "10000 bytes" in told.json()["error"]

        def endless() -> Iterator[bytes]:  # says no length, so it is counted as it comes
            for _ in range(50):
                yield b" " * 1000

        assert httpx.post(f"{url}/calls", content=endless()).status_code == 413
        assert httpx.get(f"{url}/health").status_code == 200


def test_two_steps_at_once_on_one_session(served):
    client, world, _ = served
    id_ = opened(client)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(call, client, step(id_, "wait"))
        world.begun.wait(10)
        (second,) = call(client, step(id_))
        assert second["status"] == 409 and "busy" in second["error"]
        assert slow.result()[0]["turn"] == 1
    both = call(client, step(id_), step(id_))
    assert sorted(one["status"] for one in both) == [200, 409]


@pytest.mark.parametrize(
    ("word", "status", "told"),
    [
        ("crash", 500, "the world fell over"),
        ("lie", 500, "a finite number"),
        ("hang", 504, "deadline of 1 s"),
    ],
)
def test_a_world_that_fails_loses_its_session_and_no_other(served, word, status, told):
    client, world, sessions = served
    bad, good = opened(client), opened(client)
    answers = call(client, step(bad, word), step(good))
    assert [one["status"] for one in answers] == [status, 200]
    assert told in answers[0]["error"]
    assert call(client, step(bad))[0]["status"] == 404
    assert call(client, step(good))[0]["turn"] == 2
    until(lambda: world.closed == [("train-0", 0, 0)])
    assert list(sessions.open) == [good]


def test_a_world_that_computes_for_ever_is_cut_in_a_process_of_its_own(tmp_path):
    """Here a loop that never awaits; the alarm that cuts it needs the main thread, which a served process has."""
    import subprocess
    import sys

    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from ludus.envs.service.serve import Limits, serve\n"
        "from tests.serving import Counting\n"
        "class Loop(Counting):\n"
        "    async def step(self, state, action):\n"
        "        while action == 'loop': pass\n"
        "        return await super().step(state, action)\n"
        "serve(Loop(), port=int(sys.argv[1]), limits=Limits(deadline=1.0))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(port)], env={"PYTHONPATH": ".:src"}
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def up() -> bool:
                try:
                    return client.get("/health").status_code == 200
                except httpx.TransportError:
                    return process.poll() is not None

            end = time.monotonic() + 60
            while not up() and time.monotonic() < end:
                time.sleep(0.1)
            bad, good = opened(client), opened(client)
            assert call(client, step(bad, "loop"))[0]["status"] == 504
            assert call(client, step(good))[0]["turn"] == 1
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15)


def test_a_client_that_disappears(served):
    client, world, sessions = served
    id_ = opened(client)
    body = json.dumps({"calls": [step(id_, "wait", turn=0)]})
    head = f"POST /calls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    where = (client.base_url.host, client.base_url.port)
    for cut in (head[:30], head + body[:20]):  # in the head, in the body
        with socket.create_connection(where) as gone:
            gone.sendall(cut.encode())
    with socket.create_connection(where) as gone:  # and while the answer is awaited
        gone.sendall((head + body).encode())
        assert world.begun.wait(10)
    until(lambda: sessions.in_flight == 0)
    assert call(client, step(id_, "wait", turn=0))[0]["turn"] == 1  # it was made, once
    assert world.steps == 1 and len(sessions.open) == 1


def test_closing_a_session_that_is_busy_frees_it_when_the_call_ends(served):
    client, world, sessions = served
    id_ = opened(client)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(call, client, step(id_, "wait"))
        world.begun.wait(10)
        assert call(client, {"call": "close", "session": id_})[0]["closed"]
        assert slow.result()[0]["status"] == 404
    until(lambda: world.closed == [("train-0", 0, 1)])
    assert not sessions.open


# ---------------------------------------------------------------------------------------------- room and time


def test_idle_sessions_expire_by_the_clock():
    clock, world = Clock(), Counting()
    with running(world, limits=Limits(idle=100), clock=clock) as (url, made):
        client = httpx.Client(base_url=url)
        with client:
            old, used = opened(client), opened(client)
            clock.now = 90
            call(client, step(used))
            clock.now = 150
            (gone,) = call(client, step(old))
            assert gone["status"] == 404 and "idle for more than 100 s" in gone["error"]
            assert call(client, step(used))[0]["turn"] == 2
            assert world.closed == [("train-0", 0, 0)]
            assert "ludus_env_expired_total 1.0" in client.get("/metrics").text
            assert list(made.state.sessions.open) == [used]
    assert world.closed[1:] == [("train-0", 0, 2)]  # the server closes what is open when it stops


def test_no_room_for_more_sessions_or_calls():
    limits = Limits(sessions=2, in_flight=3)
    with running(Counting(), limits=limits) as (url, _), httpx.Client(base_url=url) as client:
        first = opened(client)
        told = call(client, *[{"call": "reset", "index": 0}] * 2)
        full = next(one for one in told if one["status"] != 200)
        assert full["status"] == 429 and full["retry_after"] > 0
        came = client.post("/create")
        assert came.status_code == 429 and int(came.headers["retry-after"]) > 0
        came = client.post("/calls", json={"calls": [step(first)] * 4})
        assert came.status_code == 503 and int(came.headers["retry-after"]) > 0
        call(client, {"call": "close", "session": first})
        assert opened(client)


@pytest.mark.parametrize("limit", ["sessions", "in_flight", "body", "idle", "deadline"])
def test_limits_are_above_nothing(limit):
    with pytest.raises(ValueError, match="above 0"):
        replace(Limits(), **{limit: 0})


def test_health_and_metrics(served):
    client, _, _ = served
    id_ = opened(client)
    call(client, step(id_))
    text = client.get("/metrics").text
    assert "ludus_env_sessions 1.0" in text
    assert 'ludus_env_calls_total{call="step",outcome="ok"} 1.0' in text
    assert 'ludus_env_call_seconds_count{call="reset"} 1.0' in text
    about = client.get("/about").json()
    assert (about["name"], about["train"], about["test"], about["forks"]) == (
        "counting",
        3,
        2,
        True,
    )
    page = client.get("/tasks", params={"split": "test", "start": 1}).json()
    assert [task["id"] for task in page] == ["test-1"]


# ---------------------------------------------------------------------------------------------- who may call


def test_a_token_is_wanted():
    with running(Counting(), token="s3cret") as (url, _), httpx.Client(base_url=url) as client:
        assert client.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer s3cretx"}):
            came = client.get("/about", headers=headers)
            assert came.status_code == 401 and came.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer" in came.json()["error"]
            assert client.post("/calls", content=b"{", headers=headers).status_code == 401
        good = {"Authorization": "Bearer s3cret"}
        assert client.get("/about", headers=good).status_code == 200


def test_beyond_loopback_there_is_no_server_without_a_token():
    assert [*map(loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost"))] == [True] * 4
    for host in ("0.0.0.0", "::", "10.0.0.5", "example.org"):
        with pytest.raises(Explained, match="LUDUS_ENV_TOKEN"):
            server(grid(), host=host)
    assert server(grid(), host="0.0.0.0", token="t").config.host == "0.0.0.0"


# ---------------------------------------------------------------------------------------------- AgentGym's routes


def test_an_original_client_plays_here(served):
    """The calls of AgentGym's TextCraft client, in its order and with its bodies."""
    client, _, sessions = served
    made = client.post("/create", json={"minecraft_dir": "x/", "commands": None, "goal": None})
    assert made.status_code == 200 and "observation" in made.json()
    id_ = made.json()["id"]
    assert isinstance(id_, int)
    assert client.post("/step", json={"action": "on", "id": id_}).status_code == 409
    reset = client.post("/reset", json={"data_idx": 4, "id": id_}).json()
    assert (reset["observation"], reset["reward"], reset["done"]) == ("test-1 0", 0, False)
    for n in range(4):
        told = client.post("/step", json={"action": "on", "id": id_}).json()
        assert told["done"] is (n == 3) and told["reward"] == 0.25
    assert told["score"] == 1.0
    assert client.get(f"/observation?id={id_}").json() == "test-1 0 4"
    assert client.post("/step", json={"action": "on", "id": id_}).status_code == 409
    assert client.post("/reset", json={"data_idx": 0, "id": id_}).json()["done"] is False
    assert client.post("/close", json={"id": id_}).status_code == 200
    assert client.post("/step", json={"action": "on", "id": id_}).status_code == 404
    assert not sessions.open


def test_clients_of_webarena_and_searchqa_play_here(served):
    client, _, _ = served
    id_ = client.post("/create").json()["env_idx"]
    client.post("/reset", json={"env_idx": id_, "seed": 7, "idx": 2})
    assert client.get(f"/observation?env_idx={id_}").json() == "train-2 7"
    told = client.post("/step", json={"env_idx": id_, "action": "on"}).json()
    assert (
        told["terminated"] is False and told["truncated"] is False and told["info"] == {"end": None}
    )
    with running(Counting(), bare_ids=True) as (url, _):
        number = httpx.post(f"{url}/create", json={"id": 1}).json()
        told = httpx.post(f"{url}/reset", json={"env_idx": number, "id": 1}).json()
        assert told["observation"] == "train-1 0"


def test_a_number_never_comes_again_after_a_restart():
    numbers = []
    for _ in range(2):
        with running(Counting()) as (url, _):
            numbers.append(httpx.post(f"{url}/create").json()["id"])
    assert (
        numbers[0] != numbers[1] and max(numbers) < 1 << 53
    )  # JSON's numbers are exact up to there


def test_clients_of_maze_and_wordle_play_below_their_names():
    with (
        running(replace(Counting(), name="maze")) as (url, _),
        httpx.Client(base_url=url) as client,
    ):
        id_ = client.post("/maze/create").json()["id"]
        told = client.post("/maze/reset", json={"id": id_, "game": 2}).json()
        assert told["observation"] == "train-2 0"
        told = client.post("/maze/reset", json={"id": id_, "seed": 1}).json()
        assert told["observation"] == "train-1 1"
        assert client.post("/maze/step", json={"id": id_, "action": "on"}).json()["reward"] == 0.25
        assert client.get(f"/maze/detail?id={id_}").json()["observation"] == "train-1 1 1"
        assert client.get("/list_envs").json() == [id_]


def test_what_a_world_shows_of_itself_is_a_route():
    class Shown(Counting):
        @property
        def views(self) -> Any:
            return {"count": lambda state: {"n": state[2]}, "broken": lambda state: 1 / 0}

    world = Shown()
    with running(world) as (url, made), httpx.Client(base_url=url) as client:
        id_ = client.post("/create").json()["id"]
        assert client.get(f"/count?id={id_}").status_code == 409  # no episode yet
        client.post("/reset", json={"id": id_, "data_idx": 0})
        client.post("/step", json={"id": id_, "action": "on"})
        assert client.get(f"/count?id={id_}").json() == {"n": 1}
        assert client.post("/count", json={"id": id_}).json() == {"n": 1}
        broken = client.get(f"/broken?id={id_}")
        assert broken.status_code == 500 and "ZeroDivisionError" in broken.json()["error"]
        assert client.post("/step", json={"id": id_, "action": "on"}).status_code == 200
        assert made.state.sessions.in_flight == 0


def test_wrong_bodies_on_agentgyms_routes(served):
    client, _, _ = served
    id_ = client.post("/create").json()["id"]
    wrong = [
        ("/reset", {"id": id_, "data_idx": 5}, 422, "wanted 0 to 4"),
        ("/reset", {"id": id_, "data_idx": -1}, 422, "data_idx"),
        ("/reset", {"id": id_}, 422, "which task?"),
        ("/reset", {"data_idx": 0}, 422, "which session?"),
        ("/step", {"id": 99, "action": "x"}, 404, "no session 99"),
        ("/step", {"id": id_}, 422, "action"),
        ("/close", {"id": 99}, 404, "no session"),
    ]
    for route, body, status, told in wrong:
        came = client.post(route, json=body)
        assert came.status_code == status and told in came.json()["error"], came.text
    client.post("/reset", json={"id": id_, "data_idx": 0})
    assert client.post("/step", json={"id": id_, "action": "crash"}).status_code == 500


# ---------------------------------------------------------------------------------------------- many


def test_ten_thousand_sessions_leave_nothing_behind():
    async def soak() -> tuple[int, int]:
        sessions = app(grid()).state.sessions
        for _ in range(100):
            told = await asyncio.gather(
                *(sessions.reset("train", 0, n, str(n)) for n in range(100))
            )
            await asyncio.gather(*(sessions.step(one["session"], "right", 0) for one in told))
            await asyncio.gather(*(sessions.close(one["session"]) for one in told))
        return len(sessions.open) + len(sessions.keys), len(sessions.chores)

    assert asyncio.run(soak()) == (0, 0)


def test_whatever_the_schema_allows_is_answered_as_it_says():
    """Codes, content types and bodies are as documented; that one of two fields must be given, no schema says."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    made = app(Counting(), limits=Limits(deadline=1.0))
    operations = [*schemathesis.openapi.from_asgi("/openapi.json", made).get_all_operations()]
    assert len(operations) == 13
    for operation in operations:

        @given(case=operation.ok().as_strategy())
        @settings(
            max_examples=8,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        def answered(case: Any) -> None:
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        answered()
