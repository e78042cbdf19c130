"""The programs of docs/tools.md and docs/adapters.md, as printed: worlds keep promises, and the sandbox its limits."""

from __future__ import annotations

import asyncio
import re
import runpy
from pathlib import Path

import pytest

from ludus.envs.conformance import examine
from ludus.types import Env

DOCS = Path(__file__).parents[2] / "docs"
PROGRAMS = {
    name: text
    for page in ("tools.md", "adapters.md")
    for text, name in re.findall(
        r"^```python\n(# (\w+\.py)\n.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )
}


def run(name: str, folder: Path) -> dict[str, object]:
    (folder / name).write_text(PROGRAMS[name])
    return runpy.run_path(str(folder / name))


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"careful.py", "customer.py"}))
def test_a_printed_world_keeps_its_promises(name: str, tmp_path: Path) -> None:
    world = run(name, tmp_path)["world"]
    assert isinstance(world, Env)
    findings = asyncio.run(examine(world, tasks=1, turns=3, sessions=2, deadline=30.0))
    assert [finding for finding in findings if finding.verdict == "failed"] == []


def test_the_printed_limits_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("careful.py", tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("42\n")
    assert "[ended: limit of " in said and "No such file" in said


def test_the_printed_customer_is_a_person_of_the_shop(tmp_path: Path) -> None:
    made = run("customer.py", tmp_path)
    assert getattr(made["world"], "person", None) is made["person"]
