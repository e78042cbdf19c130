"""How all tests run. Under LUDUS_REQUIRE_ALL=1 one that skips itself because something is missing fails instead.

On somebody's laptop a missing program or package skips the tests that need it. Where everything is meant to be there
(`.ci/run`), such a skip would hide that those tests no longer run. What no installation can give stays a skip.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

# The same examples in every run, and no deadline: a machine that is busy is not a defect.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

NOWHERE = ("GPU", "CUDA", "MPS", "on no registry")


def excused(reason: str) -> bool:
    """Whether a skip names a device that this machine may lack, or software that no registry has."""
    return any(word in reason for word in NOWHERE)


def required(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that says why, where everything is required."""
    if not os.environ.get("LUDUS_REQUIRE_ALL") or not report.skipped or hasattr(report, "wasxfail"):
        return
    where = report.longrepr
    reason = str(where[2]) if isinstance(where, tuple) else str(where)
    if not excused(reason):
        report.outcome = "failed"
        report.longrepr = f"{reason}\n(skipped, and LUDUS_REQUIRE_ALL asks for every test: install what is missing)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    required(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    required(report)
    return report
