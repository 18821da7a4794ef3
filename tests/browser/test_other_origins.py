"""Pages of other origins in a real Chromium: what is allowed works and costs one preflight, the rest gets nothing."""

import asyncio
import re
import time
from collections.abc import AsyncIterator

import jwt
import pytest
import pytest_asyncio
from aiohttp import web
from conftest import ROOT, Server, admin
from playwright.async_api import BrowserContext, Page
from support.overheard import Overheard, overhearing

from browser.conftest import publish, strict_page

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

KEY = "s3cret-but-long-enough-for-anyone"
SECRET = "what-the-site-signs-with-32-bytes-or-more"

# Follows `topics` from the page, with the tokens of its own application.
FOLLOW = """async ([service, topics, options]) => {
    const { subscribe } = await import(`${service}/client.js`);
    Object.assign(window, { seen: [], states: [], errors: [], refused: [] });
    const onState = (state, retry) => {
        states.push(state);
        if (retry) errors.push(retry.error.message);
    };
    const token = async (of) => {
        refused.push(of ?? null);
        return (await fetch("/notifier-token")).text();
    };
    window.subscription = subscribe(topics, { onState, token, ...options });
    (async () => {
        for await (const message of subscription) seen.push(message);
    })().catch((error) => errors.push(error.message));
}"""


class Site:
    """An application on an origin of its own, http://localhost:PORT, which signs tokens for its user."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.secret = SECRET
        self.lifetime_s = 3600
        self.signed = 0
        self.logged_out = False

    def token(self) -> str:
        self.signed += 1
        claims = {"sub": "42", "iat": int(time.time()), "exp": int(time.time()) + self.lifetime_s}
        rights = {"subscribe": ["user/42/**", "all"], "publish": ["user/42/**"]}
        return jwt.encode(claims | {"notifier": rights}, self.secret, "HS256")


@pytest_asyncio.fixture(loop_scope="session")
async def site() -> AsyncIterator[Site]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>A page</title>", content_type="text/html")

    async def token(_: web.Request) -> web.Response:
        if site.logged_out:
            return web.Response(text="<!doctype html><title>Log in</title>", content_type="text/html")
        return web.Response(text=site.token())

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/notifier-token", token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site = Site(f"http://localhost:{runner.addresses[0][1]}")
    yield site
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="session")
async def service(server: Server) -> AsyncIterator[Overheard]:
    """The way of the browser to the server."""
    async with overhearing(server.port) as overheard:
        yield overheard


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext, site: Site, service: Overheard) -> AsyncIterator[Page]:
    """A page of the site, which asks nothing but the site and the service."""
    async with strict_page(context, site.url, service.url) as page:
        await page.goto(site.url)
        yield page


async def restart(server: Server, **env: str) -> None:
    server.env |= env
    await asyncio.to_thread(server.restart)


async def admit(server: Server, site: Site) -> None:
    """Let the users of the site in, with its tokens."""
    await restart(server, NOTIFIER_ADMIN_KEY=KEY, NOTIFIER_JWT_SECRET=site.secret, NOTIFIER_ORIGINS=site.url)


async def follow(page: Page, service: Overheard, topics: str, **options: object) -> None:
    """Follow `topics`, and return when the poll is parked."""
    parks = page.expect_request(lambda request: "/v1/" in request.url and "prefer" not in request.headers)
    async with parks:
        await page.evaluate(FOLLOW, [service.url, topics, options])


async def seen(page: Page, count: int) -> list[object]:
    await page.wait_for_function("count => seen.length >= count", arg=count)
    return await page.evaluate("seen.map(({ data }) => data)")


@pytest.mark.rule("C-8", "B-4")
async def test_a_run_of_polls_costs_one_preflight(page: Page, server: Server, site: Site, service: Overheard) -> None:
    await admit(server, site)
    await follow(page, service, "user/42/**,all", last=5)
    for n in range(6):
        await publish(server, f"user/42/{n}", n)
        await seen(page, n + 1)
    assert await seen(page, 6) == list(range(6))
    await page.wait_for_function("subscription.cursor === seen.at(-1).id")
    polls = service.of("GET")
    assert len(polls) >= 7
    assert len({poll.target for poll in polls}) == 1
    assert len(service.of("OPTIONS")) == 1
    assert await page.evaluate("[states, errors, refused]") == [["connecting", "live"], [], [None]]


@pytest.mark.rule("C-8")
async def test_two_pages_with_equal_polls_do_not_wait_for_each_other(
    page: Page, context: BrowserContext, server: Server, site: Site, service: Overheard
) -> None:
    await admit(server, site)
    await follow(page, service, "all")
    async with strict_page(context, site.url, service.url) as other:
        await other.goto(site.url)
        await other.evaluate(FOLLOW, [service.url, "all", {}])
        await other.wait_for_function("states.includes('live')")
        # The first page's poll is still parked: it has asked for a cursor, and then parked.
        first = service.of("GET")[0].target
        assert [poll.target for poll in service.of("GET")].count(first) == 2
        await publish(server, "all", 1)
        for each in (page, other):
            assert await seen(each, 1) == [1]


@pytest.mark.rule("C-7")
async def test_it_follows_over_restarts_and_a_new_secret_without_loss_or_repeat(
    page: Page, server: Server, site: Site, service: Overheard
) -> None:
    await admit(server, site)
    await follow(page, service, "all")
    await publish(server, "all", 1)
    await seen(page, 1)
    await asyncio.to_thread(server.kill)
    await page.wait_for_function("states.includes('retrying')")
    await asyncio.to_thread(server.start)
    await publish(server, "all", 2)
    await seen(page, 2)
    assert site.signed == 1
    # From now on the page's token is that of another signer.
    site.secret = SECRET.upper()
    await admit(server, site)
    await publish(server, "all", 3)
    assert await seen(page, 3) == [1, 2, 3]
    await publish(server, "all", 4)
    assert await seen(page, 4) == [1, 2, 3, 4]
    assert site.signed == 2


@pytest.mark.rule("C-7")
async def test_tokens_that_end_while_a_poll_is_parked_are_renewed_and_need_no_more_preflights(
    page: Page, server: Server, site: Site, service: Overheard
) -> None:
    await admit(server, site)
    site.lifetime_s = 3
    await follow(page, service, "all")
    for n in range(3):
        await publish(server, "all", n)
        await page.wait_for_function("count => refused.length > count", arg=n + 1)
    await publish(server, "all", 3)
    assert await seen(page, 4) == [0, 1, 2, 3]
    assert await page.evaluate("[states, errors]") == [["connecting", "live"], []]
    assert len(service.of("OPTIONS")) == 1
    assert 401 in {status for status, _ in service.answers("/v1/topics/all")}


@pytest.mark.rule("C-7")
async def test_after_a_logout_nothing_comes_until_the_user_is_back(
    page: Page, server: Server, site: Site, service: Overheard, database: str
) -> None:
    await admit(server, site)
    await follow(page, service, "all")
    site.logged_out = True
    await admin(database, "select notifier.revoke('42')")
    await page.wait_for_function("errors.length")
    await publish(server, "all", 1)
    assert "is not a token" in (await page.evaluate("errors"))[0]
    assert await page.evaluate("seen") == []
    # The poll that was parked ended empty; it did not wait for the message.
    assert [body[:15] for _, body in list(service.answers("/v1/topics/all"))[-2:-1]] == ['{"messages": []']
    site.logged_out = False
    assert await seen(page, 1) == [1]
    await publish(server, "all", 2)
    assert await seen(page, 2) == [1, 2]


@pytest.mark.rule("B-1")
async def test_a_page_that_is_allowed_can_publish_and_reads_why_it_is_refused(
    page: Page, server: Server, site: Site, service: Overheard
) -> None:
    await admit(server, site)
    await follow(page, service, "user/42/**")
    published, *refused = await page.evaluate(
        """async ([service, token]) => {
            const { publish } = await import(`${service}/client.js`);
            const fields = { title: "Überall ✓", tags: ["money", "új"] };
            return [
                await publish("user/42/a", { n: 1 }, { token, ...fields }),
                await publish("user/42/a", { n: 2 }, { key: "wrong" }).catch(({ status, code }) => [status, code]),
                await publish("user/43/a", { n: 3 }, { token }).catch(({ status, code }) => [status, code]),
            ];
        }""",
        [service.url, site.token()],
    )
    assert refused == [[401, "invalid_token"], [403, "forbidden"]]
    assert await seen(page, 1) == [{"n": 1}]
    [message] = await page.evaluate("seen")
    assert (published["id"], message["title"]) == (message["id"], "Überall ✓")


@pytest.mark.rule("B-3", "C-9")
@pytest.mark.parametrize("env", [{"NOTIFIER_ADMIN_KEY": KEY, "NOTIFIER_ORIGINS": "https://other.example"}, {}])
async def test_a_page_that_is_not_allowed_is_told_what_may_be_missing(
    page: Page, server: Server, site: Site, service: Overheard, env: dict[str, str]
) -> None:
    await restart(server, **env)
    await page.evaluate(FOLLOW, [service.url, "a", {}])
    await page.wait_for_function("errors.length")
    told = (
        f"{service.url} runs, but this page gets no answer from it: perhaps its NOTIFIER_ORIGINS must have {site.url}"
    )
    assert (await page.evaluate("errors"))[0] == told
    refused = await page.evaluate(
        """async (service) => {
            const { publish } = await import(`${service}/client.js`);
            return publish("a", 1).catch(({ message }) => message);
        }""",
        service.url,
    )
    assert refused == told
    # The preflights were refused, so nothing else came.
    assert service.of("OPTIONS")
    assert service.of("GET") == service.of("POST") == []


@pytest.mark.rule("C-9")
async def test_a_server_that_is_away_is_not_mistaken_for_one_that_refuses(
    page: Page, server: Server, site: Site, service: Overheard
) -> None:
    await page.evaluate(f"import('{service.url}/client.js')")
    await asyncio.to_thread(server.kill)
    await page.evaluate(FOLLOW, [service.url, "a", {}])
    await page.wait_for_function("errors.length")
    assert "NOTIFIER_ORIGINS" not in (await page.evaluate("errors"))[0]


# Each asks for a topic in a way that needs no preflight, and ends when the browser has an answer or an error.
WAYS = {
    "fetch": "fetch(url).catch(() => {})",
    "fetch without CORS": "fetch(url, { mode: 'no-cors' }).catch(() => {})",
    "image": "new Promise((done) => Object.assign(new Image(), { src: url, onload: done, onerror: done }))",
    "script": """new Promise((done) => document.head.append(
        Object.assign(document.createElement('script'), { src: url, onload: done, onerror: done })))""",
    "frame": """new Promise((done) => document.body.append(
        Object.assign(document.createElement('iframe'), { src: url, onload: done })))""",
}


@pytest.mark.rule("A-4")
@pytest.mark.parametrize("way", WAYS)
async def test_without_keys_a_page_of_another_site_learns_nothing(
    page: Page, server: Server, service: Overheard, way: str
) -> None:
    await publish(server, "full", "hidden")
    for topic in ("full", "empty"):
        # Whatever there is, the answer is the same: no content, and no wait whose length would tell.
        await page.evaluate(f"(url) => {WAYS[way]}", f"{service.url}/v1/topics/{topic}?after=earliest&wait=5")
    [of_full], [of_empty] = (list(service.answers(f"/v1/topics/{topic}")) for topic in ("full", "empty"))
    assert of_full == of_empty
    assert of_full[0] == 403
    assert "hidden" not in of_full[1]


@pytest.mark.rule("B-1", "C-7")
async def test_the_program_of_the_readme_runs_on_a_page(
    page: Page, server: Server, site: Site, service: Overheard
) -> None:
    await admit(server, site)
    id_ = await publish(server, "user/42/orders", "for you")
    *_, program = re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    program = program.replace("https://notifier.example.com", service.url).replace("token }", "token, last: 1 }")
    shown = await page.evaluate(
        f"""async () => {{
            const {{ subscribe }} = await import("{service.url}/client.js");
            return new Promise(async (show) => {{ {program} }});
        }}"""
    )
    assert (shown["id"], shown["data"]) == (id_, "for you")
