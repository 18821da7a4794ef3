"""The browser client's own tests, which Node runs."""

import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent / "js"


@pytest.mark.all
def test_the_browser_client_passes_its_tests_in_node() -> None:
    files = sorted(map(str, TESTS.glob("*.test.mjs")))
    assert files
    done = subprocess.run(["node", "--test", *files], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
