"""The recipes for Flask, FastAPI, Express and Rails: what they show works, with a page on another origin."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from conftest import DEADLINE_S, Start, free_port

from notifier.settings import TokenSettings
from recipes.conftest import EXPRESS_APP, FASTAPI, FLASK, RAILS_APP, SECRET, Recipe, make_tables, running_recipe

pytestmark = pytest.mark.all

TOKENS = TokenSettings(secrets=(SECRET.encode(),))

# What client.js asks for.
PREFLIGHT = {
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization,last-event-id,prefer",
}

CSRF = re.compile('<meta name="csrf-token" content="(.*?)"')


class Browser:
    """A browser: its cookies go to the application, its page's polls to Notifier, with a token and an Origin."""

    def __init__(self, http: aiohttp.ClientSession, application: str, notifier: str) -> None:
        self.http, self.application, self.notifier = http, application, notifier
        self.token = ""

    async def post(self, path: str, status: int, **form: str) -> None:
        """Send a form, with what the page has against forgery."""
        token = CSRF.search(await self.page())
        headers = {"X-CSRF-Token": token[1]} if token else {}
        url = f"{self.application}{path}"
        async with self.http.post(url, data=form, headers=headers, allow_redirects=False) as response:
            assert response.status == status, await response.text()

    async def fetch_token(self) -> int:
        """The status; if it is 200, the page goes on with the token."""
        async with self.http.get(f"{self.application}/live/token") as response:
            if response.status == 200:
                assert response.headers["Cache-Control"] == "no-store"
                self.token = (await response.json())["token"]
            return response.status

    async def page(self) -> str:
        async with self.http.get(self.application) as response:
            assert response.status == 200
            return await response.text()

    async def poll(self, topics: str, **headers: str) -> tuple[int, dict]:
        """Status and answer of a poll, which the page may read."""
        headers |= {"Origin": self.application, "Authorization": f"Bearer {self.token}"}
        async with self.http.get(f"{self.notifier}/v1/topics/{topics}", headers=headers) as response:
            assert response.headers["Access-Control-Allow-Origin"] == self.application
            return response.status, await response.json(content_type=None)


@asynccontextmanager
async def browsers(application: str, notifier: str, count: int) -> AsyncIterator[list[Browser]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            jar = aiohttp.CookieJar(unsafe=True)  # of an application on an address
            http = await stack.enter_async_context(
                aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(DEADLINE_S))
            )
            made.append(Browser(http, application, notifier))
        yield made


@pytest.mark.parametrize("recipe", [FLASK, FASTAPI, EXPRESS_APP, RAILS_APP], ids=lambda recipe: recipe.name)
async def test_a_user_follows_their_topics_from_another_origin_until_they_log_out(
    recipe: Recipe, start: Start, database: str, packages: None, tmp_path: Path
) -> None:
    await make_tables(recipe, database)
    port = free_port()
    origin = f"http://localhost:{port}"
    app = await start(tokens=TOKENS, origins=frozenset({origin}))
    notifier = str(app.client.make_url("")).rstrip("/")
    async with (
        running_recipe(recipe, database, notifier, port, tmp_path),
        browsers(origin, notifier, 3) as [ada, bob, stranger],
    ):
        await ada.post("/login", 303, user="7")
        await bob.post("/login", 303, user="8")
        assert f'import("{notifier}/client.js")' in await ada.page()
        assert 'subscribe(["user/7/**", "all"]' in await ada.page()
        assert "subscribe" not in await stranger.page()
        assert [await browser.fetch_token() for browser in (ada, bob, stranger)] == [200, 200, 401]

        mine = "user/7/**,all"
        async with ada.http.options(
            f"{notifier}/v1/topics/{mine}", headers=PREFLIGHT | {"Origin": origin}
        ) as preflight:
            assert preflight.status in (200, 204)
            assert preflight.headers["Access-Control-Allow-Origin"] == origin
        status, answer = await ada.poll(mine, Prefer="wait=0")
        assert (status, answer) == (200, {"messages": [], "cursor": answer.get("cursor")})
        for topics in (mine, "user/**", "user/8/**,user/7/orders", "**"):
            status, refused = await bob.poll(topics)
            assert (status, refused["code"]) == (403, "forbidden")

        parked = asyncio.create_task(ada.poll(mine, **{"Last-Event-ID": answer["cursor"]}))
        await app.parked()
        await ada.post("/orders/42/pay", 204)
        status, answer = await parked
        assert status == 200
        assert [(message["topic"], message["data"]) for message in answer["messages"]] == [
            ("user/7/orders", {"order": 42, "status": "paid"})
        ]

        parked = asyncio.create_task(ada.poll(mine, **{"Last-Event-ID": answer["cursor"]}))
        await app.parked()
        await ada.post("/logout", 303)
        assert await parked == (200, {"messages": [], "cursor": answer["cursor"]})
        status, refused = await ada.poll(mine)
        assert (status, refused["code"]) == (401, "invalid_token")
        assert await ada.fetch_token() == 401
        status, _ = await bob.poll("user/8/**,all", Prefer="wait=0")
        assert status == 200


async def test_what_rails_rolls_back_is_not_published(
    start: Start, database: str, packages: None, tmp_path: Path
) -> None:
    await make_tables(RAILS_APP, database)
    port = free_port()
    origin = f"http://localhost:{port}"
    app = await start(tokens=TOKENS, origins=frozenset({origin}))
    notifier = str(app.client.make_url("")).rstrip("/")
    async with running_recipe(RAILS_APP, database, notifier, port, tmp_path), browsers(origin, notifier, 1) as [ada]:
        await ada.post("/login", 303, user="7")
        await ada.fetch_token()
        _, begun = await ada.poll("user/7/**", Prefer="wait=0")
        parked = asyncio.create_task(ada.poll("user/7/**", **{"Last-Event-ID": begun["cursor"]}))
        await app.parked()
        await ada.post("/orders/42/pay", 204)
        _, first = await parked
        parked = asyncio.create_task(ada.poll("user/7/**", **{"Last-Event-ID": first["cursor"]}))
        await app.parked()
        await ada.post("/orders/42/pay", 409)  # it publishes, and fails after that
        await ada.post("/orders/43/pay", 204)
        _, second = await parked
        messages = [*first["messages"], *second["messages"]]
        assert [message["data"]["order"] for message in messages] == [42, 43]
