"""GitHub's webhooks, with octokit's examples and its signatures, through a real server and back."""

import json
import subprocess
import urllib.request

import pytest
from conftest import DEADLINE_S, ROOT, Server

from notifier.core.webhooks.sources import check_source
from notifier.postgres.sources import add_source

FOLDER = ROOT / "tests" / "octokit"
SECRET = "It's a Secret to Everybody"
NPM = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


@pytest.mark.all
@pytest.mark.rule("W-1", "W-5")
async def test_every_example_of_octokit_is_verified_routed_and_comes_back_as_octokit_accepts_it(
    server: Server, database: str
) -> None:
    template = "github/{repository.full_name|organization.login}/{header:X-GitHub-Event}"
    await add_source(database, check_source("github", "github", template, [SECRET]))
    lock = FOLDER / "package-lock.json"
    installed = FOLDER / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(NPM, cwd=FOLDER, check=True, timeout=120)
    command = ("node", "deliver.mjs", server.url, SECRET)
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = dict(reversed(each.split(" ")) for each in json.loads(done.stdout))
    assert len(expected) > 300
    found: dict[str, str] = {}
    cursor = "0"
    while len(found) < len(expected):
        url = f"{server.url}/v1/topics/github/**?after={cursor}&wait=0&limit=1000"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as response:
            answer = json.load(response)
        assert answer["messages"]
        # A form, too, is shown as the JSON that it carries.
        assert all(isinstance(message["data"], dict) for message in answer["messages"])
        found |= {message["id"]: message["topic"] for message in answer["messages"]}
        cursor = answer["cursor"]
    assert found == expected
