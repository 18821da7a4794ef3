"""GitHub's webhooks, with octokit's examples and its signatures, through a real server, back, and on to a receiver that
octokit has made."""

import json
import subprocess
import sys
import urllib.request

import pytest
from conftest import DEADLINE_S, ROOT, Server
from support.npm import installed

from notifier.core.webhooks.sources import check_source
from notifier.postgres.sources import add_source

FOLDER = ROOT / "tests" / "octokit"
SECRET = "It's a Secret to Everybody"


@pytest.mark.all
@pytest.mark.rule("W-1", "W-5", "L-8")
async def test_every_example_of_octokit_is_verified_routed_and_forwarded_as_octokit_accepts_it(
    server: Server, database: str
) -> None:
    template = "github/{repository.full_name|organization.login}/{header:X-GitHub-Event}"
    await add_source(database, check_source("github", "github", template, [SECRET]))
    installed(FOLDER)
    command = ("node", "deliver.mjs", server.url, SECRET)
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    delivered = json.loads(done.stdout)
    expected = {id_: topic for topic, id_, *_ in delivered}
    assert len(expected) > 300
    found: dict[str, str] = {}
    cursor = "0"
    while len(found) < len(expected):
        url = f"{server.url}/v1/topics/github/**?after={cursor}&wait=20&limit=1000"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as response:
            answer = json.load(response)
        assert answer["messages"]
        # A form, too, is shown as the JSON that it carries.
        assert all(isinstance(message["data"], dict) for message in answer["messages"])
        found |= {message["id"]: message["topic"] for message in answer["messages"]}
        cursor = answer["cursor"]
    assert found == expected
    # Each arrives in order and verified, and with the same bytes.
    receiver = subprocess.Popen(("node", "receive.mjs", SECRET), cwd=FOLDER, stdout=subprocess.PIPE, text=True)
    try:
        assert receiver.stdout
        url = f"http://127.0.0.1:{receiver.stdout.readline().strip()}/webhooks"
        forward = (sys.executable, "-m", "notifier", "forward", "github/**", url, "--once")
        done = subprocess.run(forward, env=server.env, capture_output=True, text=True, timeout=300, check=False)
        receiver.terminate()
        received = [line.split() for line in receiver.stdout]
    finally:
        receiver.kill()
        receiver.wait()
        receiver.stdout.close()
    assert done.returncode == 0, done.stderr
    assert received == sorted(([*rest] for _, *rest in delivered), key=lambda each: int(each[0]))
