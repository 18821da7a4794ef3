"""The browser client, in Node, over a way that loses, delays, cuts and repeats what it carries."""

import json
import os
import subprocess

import pytest
from conftest import ROOT, Server

SECONDS = os.environ.get("UNKIND_SECONDS", "10")


@pytest.mark.all
@pytest.mark.rule("C-14")
def test_over_an_unkind_way_each_client_gets_every_message_once_and_in_order(server: Server) -> None:
    command = ["node", "tests/js/unkind.mjs", server.url, SECONDS, "20", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=int(SECONDS) + 120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["published"] > 5
    assert all(told[what] > 0 for what in ("passed", "dropped", "delayed", "cut", "stale", "refused"))
