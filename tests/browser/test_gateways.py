"""`/client.js` in a real Chromium, behind a real nginx that does what gateways do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import Server
from playwright.async_api import BrowserContext, Page, Route
from support.nginx import nginx

from browser.conftest import publish, strict_page

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

# What the client was told is in `errors`.
FOLLOW = """async ([url, options]) => {
    const { subscribe } = await import("/client.js");
    Object.assign(window, { seen: [], states: [], errors: [] });
    const onState = (state) => states.push(state);
    const onError = ({ status, code }) => errors.push([status, code]);
    (async () => {
        for await (const { data } of subscribe("a", { url, onState, onError, ...options })) seen.push(data);
    })();
}"""


@pytest.fixture
def gateway(server: Server, tmp_path: Path) -> str:
    with nginx(
        f"""
        proxy_cache_path {tmp_path}/cache keys_zone=old:1m;
        server {{
            proxy_read_timeout 2500ms;
            location / {{ proxy_pass http://127.0.0.1:{server.port}; }}
            location /bare/ {{
                proxy_pass http://127.0.0.1:{server.port}/;
                proxy_set_header Last-Event-ID "";
                proxy_set_header Prefer "";
            }}
            location /cached/ {{
                proxy_pass http://127.0.0.1:{server.port}/;
                proxy_read_timeout 60s;
                proxy_ignore_headers Cache-Control Vary;
                proxy_cache old;
                proxy_cache_key $request_uri;
                proxy_cache_valid 200 1m;
            }}
        }}""",
        tmp_path,
    ) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext, gateway: str) -> AsyncIterator[Page]:
    async with strict_page(context, gateway) as page:
        yield page


async def opened(page: Page, gateway: str) -> None:
    """A page of the gateway that does nothing else; nginx takes a moment to listen."""
    for _ in range(100):
        try:
            await page.goto(f"{gateway}/icon.svg")
        except Exception:  # noqa: BLE001  refused, in the words of Chromium
            await page.wait_for_timeout(50)
        else:
            return


async def seen(page: Page, count: int) -> list[object]:
    await page.wait_for_function("count => seen.length >= count", arg=count)
    return await page.evaluate("seen")


@pytest.mark.rule("C-13")
async def test_the_wait_adapts_to_a_gateway_that_cuts_polls_and_nobody_notices(
    page: Page, gateway: str, server: Server
) -> None:
    await opened(page, gateway)
    async with page.expect_request(lambda request: request.headers.get("prefer") == "wait=1"):
        await page.evaluate(FOLLOW, [gateway, {}])
    await publish(server, "a", 1)
    assert await seen(page, 1) == [1]
    assert await page.evaluate("[states, errors]") == [["connecting", "live"], []]


@pytest.mark.rule("C-17")
async def test_where_headers_do_not_get_through_nothing_is_lost(page: Page, gateway: str, server: Server) -> None:
    before = await publish(server, "a", 1)
    await publish(server, "a", 2)
    await opened(page, gateway)
    await page.evaluate(FOLLOW, [f"{gateway}/bare", {"after": before}])
    assert await seen(page, 1) == [2]
    await publish(server, "a", 3)
    assert await seen(page, 2) == [2, 3]


@pytest.mark.rule("C-14")
async def test_a_cache_that_gives_an_old_answer_again_is_found_out_and_passed_by(
    page: Page, gateway: str, server: Server
) -> None:
    before = await publish(server, "a", 1)
    await opened(page, gateway)
    await page.evaluate(FOLLOW, [f"{gateway}/cached", {"after": before}])
    await page.wait_for_function("errors.length")
    for n in (2, 3):
        await publish(server, "a", n)
        await seen(page, n - 1)
    assert await page.evaluate("[seen, states, errors]") == [
        [2, 3],
        ["connecting", "live", "retrying", "live"],
        [[200, "stale_answer"]],
    ]


@pytest.mark.rule("C-10")
async def test_what_answers_in_the_place_of_the_service_is_told_and_does_not_end_it(
    page: Page, gateway: str, server: Server
) -> None:
    pages = [(404, "text/plain", "404 page not found"), (403, "text/html", "<h1>No</h1>"), (200, "text/html", "<p>Hi")]
    answers = iter(pages)

    async def instead(route: Route) -> None:
        if answer := next(answers, None):
            await route.fulfill(**dict(zip(("status", "content_type", "body"), answer, strict=True)))
        else:
            await route.continue_()

    before = await publish(server, "a", 1)
    await publish(server, "a", 2)
    await opened(page, gateway)
    await page.route("**/v1/**", instead)
    await page.evaluate(FOLLOW, [gateway, {"after": before}])
    assert await seen(page, 1) == [2]
    assert await page.evaluate("errors") == [[status, "foreign_answer"] for status, _, _ in pages]
    assert await page.evaluate("[...new Set(states)]") == ["connecting", "retrying", "live"]
