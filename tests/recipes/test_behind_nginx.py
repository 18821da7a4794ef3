"""The two ways to let nginx decide who reads what, as docs/access.md shows them: one leaks, the other does not."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from conftest import DEADLINE_S, ROOT, Start, admin, free_port
from support.nginx import nginx

from bench.peers.serving import started
from recipes.conftest import PYTHON, RECIPES, environment

pytestmark = pytest.mark.all

KEY = "a-key-of-nginx-alone"

# The recipe, and the check that the trap calls: it is what one would write.
APPLICATION = """
from behind_nginx import live
from flask import g, request
from flask_app import app

app.register_blueprint(live)

@app.get("/may-read")
def may_read():
    allowed = request.headers["X-Original-URI"].startswith(f"/v1/topics/user/{g.user}/")
    return "", 204 if allowed else 403
"""


def block(name: str) -> str:
    """The nginx configuration that the page shows under this name."""
    page = (ROOT / "docs" / "access.md").read_text()
    [found] = re.findall(rf"^<!-- {name} -->\n```nginx\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return found


@asynccontextmanager
async def site(name: str, start: Start, database: str, folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser of user 7 on the site; something is published for 7 and for 8."""
    await admin(database, (RECIPES / "schema.sql").read_text())
    app = await start(admin_keys=(KEY,))
    for user in (7, 8):
        headers = {"Authorization": f"Bearer {KEY}"}
        async with app.client.post(f"/v1/topics/user/{user}/orders", json=user, headers=headers) as response:
            assert response.status == 201
    (folder / "site_app.py").write_text(APPLICATION)
    port = free_port()
    program = (str(PYTHON), "-m", "gunicorn", "--chdir", str(folder), "--pythonpath", str(RECIPES), "site_app:app")
    config = (
        f"upstream notifier {{ server 127.0.0.1:{app.client.port}; keepalive 10; }}\n"
        f"upstream application {{ server 127.0.0.1:{port}; }}\n"
        f"server {{\n{block(name).replace('KEY', KEY)} location / {{ proxy_pass http://application; }} }}\n"
    )
    variables = environment(database) | {"NOTIFIER_URL": "/live"}
    cookies = aiohttp.CookieJar(unsafe=True)  # of a site on an address
    with nginx(config, folder) as url:
        async with (
            started(program, port, folder, "/", variables),
            aiohttp.ClientSession(url, cookie_jar=cookies, timeout=aiohttp.ClientTimeout(DEADLINE_S)) as http,
        ):
            async with http.post("/login", data={"user": "7"}) as response:
                assert response.status == 200
            yield http


async def read(http: aiohttp.ClientSession, path: str) -> tuple[int, list[object]]:
    """Status, and the data of what came; `path` goes as it is written."""
    url = f"{http._base_url}".rstrip("/") + path
    async with http.get(aiohttp.client.URL(url, encoded=True)) as response:
        answer = await response.json() if response.status == 200 else {"messages": []}
        return response.status, [message["data"] for message in answer["messages"]]


async def test_a_check_of_the_path_in_front_of_a_list_leaks(
    start: Start, database: str, packages: None, tmp_path: Path
) -> None:
    async with site("the trap", start, database, tmp_path) as http:
        assert await read(http, "/v1/topics/user/7/orders?after=earliest") == (200, [7])
        assert await read(http, "/v1/topics/user/8/orders?after=earliest") == (403, [])
        for comma in (",", "%2C"):
            assert await read(http, f"/v1/topics/user/7/orders{comma}**?after=earliest") == (200, [7, 8])


async def test_a_list_that_the_application_makes_does_not_leak(
    start: Start, database: str, packages: None, tmp_path: Path
) -> None:
    async with site("the safe way", start, database, tmp_path) as http:
        for asked in ("user/7/orders", "user/8/orders", "user/7/x,**", "user/7/x%2C**", "x%3Fafter=0", "..%2F..%2F**"):
            assert await read(http, f"/live/v1/topics/{asked}?since=1h") == (200, [7])
        assert await read(http, "/live/v1/topics/x?since=1h%26last=5%2C**") == (400, [])
        assert await read(http, "/_notifier/v1/topics/**?since=1h") == (404, [])
        # The page's cursor and wait are headers, which nginx passes on.
        headers = {"Last-Event-ID": "earliest", "Prefer": "wait=0"}
        async with http.get("/live/v1/topics/user/7/**", headers=headers) as response:
            assert response.headers["Preference-Applied"] == "wait=0"
            assert [message["data"] for message in (await response.json())["messages"]] == [7]
        async with http.post("/logout") as response:
            assert response.status == 200
        assert await read(http, "/live/v1/topics/user/7/**?since=1h") == (401, [])
