"""The sources of docs/webhooks.md, from `notifier source add` to a poll that waits for what the vendor sends."""

import json
import os
import re
import shlex
import sys

import pytest
from conftest import ROOT, Start, run

from recipes.deliveries import DELIVERIES, SECRET

PAGE = (ROOT / "docs" / "webhooks.md").read_text()
COMMANDS = re.findall(
    r"^notifier (source add (\w+) .* --secret - .*)$", PAGE[PAGE.index("## From end to end") :], re.MULTILINE
)
# What the page says: the source, its topic, and what follows it.
ROWS = re.findall(r"^\| `(\w+)` \| .*? \| `(.*?)` \| `(.*?)` \|$", PAGE, re.MULTILINE)


@pytest.mark.rule("W-5")
async def test_what_the_page_shows_brings_webhooks_to_those_who_wait(start: Start, database: str) -> None:
    assert [name for _, name in COMMANDS] == [row[0] for row in ROWS] == list(DELIVERIES)
    for command, _ in COMMANDS:
        done = run(
            *(sys.executable, "-m", "notifier", *shlex.split(command)),
            env=os.environ | {"DATABASE_URL": database, "PYTHONPATH": str(ROOT)},
            input=SECRET,
        )
        assert done.returncode == 0, done.stderr
    app = await start()
    for name, topic, pattern in ROWS:
        body, sign = DELIVERIES[name]
        headers = {"Content-Type": "application/json"} | sign(body)
        poll = app.start_poll(pattern, wait=20, headers=1)
        await app.parked()
        async with app.client.post(f"/hooks/{name}", data=body.encode(), headers=headers) as response:
            assert response.status == 200, await response.text()
            id_ = (await response.json())["id"]
        [message] = (await poll)["messages"]
        assert (message["id"], message["topic"], message["data"]) == (id_, topic, json.loads(body))
        assert "Authorization" not in dict(message["headers"])
        async with app.client.get(f"/v1/messages/{id_}") as response:
            assert await response.read() == body.encode()
        forged = headers | ({"Authorization": "Bearer another"} if "Authorization" in headers else {})
        async with app.client.post(f"/hooks/{name}", data=f"{body} ".encode(), headers=forged) as response:
            assert response.status == 401
