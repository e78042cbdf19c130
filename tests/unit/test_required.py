"""tests/conftest.py: what LUDUS_REQUIRE_ALL makes of tests that skip themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SKIPPING = """
import pytest

@pytest.mark.skipif(True, reason="chromium is not installed")
def test_marked(): ...

def test_inside():
    pytest.importorskip("a_package_that_is_not_there")

@pytest.mark.skipif(True, reason="needs a CUDA device")
def test_device(): ...

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError

def test_passes(): ...
"""

MODULE = """
import pytest
pytest.importorskip("a_package_that_is_not_there")
def test_unreached(): ...
"""


def run(folder: Path, require: str) -> str:
    """What pytest prints about SKIPPING and MODULE."""
    shutil.copy(CONFTEST, folder)
    (folder / "test_skipping.py").write_text(SKIPPING)
    (folder / "test_module.py").write_text(MODULE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    environment = {**os.environ, "LUDUS_REQUIRE_ALL": require, "PYTEST_ADDOPTS": ""}
    asked = [*command, "--continue-on-collection-errors"]
    return subprocess.run(asked, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_skips_stay_skips_by_default(tmp_path: Path) -> None:
    assert "\n1 passed, 4 skipped, 1 xfailed" in run(tmp_path, "")


def test_what_is_missing_fails_where_all_is_required(tmp_path: Path) -> None:
    """A device stays a skip; a skip before the test began, or of a whole module, counts as an error."""
    printed = run(tmp_path, "1")
    assert "\n1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors" in printed
    assert "chromium is not installed\n(skipped, and LUDUS_REQUIRE_ALL" in printed
