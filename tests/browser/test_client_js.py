"""`/client.js` in a real Chromium against a real server: what doubles cannot show."""

import asyncio
import os
import re
import signal

import pytest
from conftest import Server, until
from playwright.async_api import Browser, BrowserContext, Page, Request
from support.tcp_proxy import TcpProxy

from browser.conftest import publish, publish_all, strict_page

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

# Follows `topics` in the page: what comes is in `seen`, what is told in `states`.
FOLLOW = """async ([topics, options]) => {
    const { subscribe } = await import("/client.js");
    Object.assign(window, { seen: [], states: [], ended: false });
    const onState = (state) => states.push(state);
    window.subscription = subscribe(topics, { onState, ...options });
    (async () => {
        for await (const message of subscription) seen.push(message);
        window.ended = true;
    })();
}"""


async def follow(page: Page, server: Server, topics: str | list[str], **options: object) -> None:
    """Follow `topics` on a page that does nothing else, and return when the poll is parked."""
    await page.goto(f"{server.url}/icon.svg")
    async with page.expect_request(lambda request: "/v1/" in request.url and "prefer" not in request.headers):
        await page.evaluate(FOLLOW, [topics, options])


async def seen(page: Page, count: int) -> list[object]:
    """The data of all messages seen, once there are `count`."""
    await page.wait_for_function("count => seen.length >= count", arg=count)
    return await page.evaluate("seen.map(({ data }) => data)")


async def test_every_message_comes_once_and_in_order_over_a_restart(page: Page, server: Server) -> None:
    await follow(page, server, "a/*")
    await publish_all(server, "a/1", list(range(150)))
    await seen(page, 1)
    await asyncio.to_thread(server.stop, signal.SIGINT)
    await asyncio.to_thread(server.start)
    await publish_all(server, "a/2", list(range(150, 300)))
    assert await seen(page, 300) == list(range(300))


async def test_a_killed_server_loses_nothing_either(page: Page, server: Server) -> None:
    await follow(page, server, "a")
    await publish(server, "a", 1)
    await asyncio.to_thread(server.kill)
    await page.wait_for_function("states.includes('retrying')")
    await asyncio.to_thread(server.start)
    await publish(server, "a", 2)
    assert await seen(page, 2) == [1, 2]
    assert (await page.evaluate("states"))[-1] == "live"


@pytest.mark.rule("C-8")
async def test_polls_differ_only_in_their_cursor(page: Page, server: Server) -> None:
    requests: list[Request] = []
    await follow(page, server, ["a", "b/**"])
    page.on("request", lambda request: requests.append(request))
    for n in range(3):
        await publish(server, "a", n)
        await seen(page, n + 1)
    ids = await page.evaluate("seen.map(({ id }) => id)")
    await page.wait_for_function("id => subscription.cursor === id", arg=ids[-1])
    headers = [request.headers for request in requests]
    assert [each.pop("last-event-id") for each in headers] == ids
    assert all(each == headers[0] for each in headers)
    [url] = {request.url for request in requests}
    assert url.startswith(f"{server.url}/v1/topics/a,b/**?limit=10&nonce=")


async def test_return_disconnects_at_once(page: Page, server: Server) -> None:
    await follow(page, server, "a")
    async with page.expect_event("requestfailed") as failed:
        await page.evaluate("subscription.return()")
    assert "/v1/topics/a" in (await failed.value).url
    await page.wait_for_function("ended")


async def test_a_browser_that_was_offline_catches_up_when_it_is_online(
    page: Page, context: BrowserContext, server: Server
) -> None:
    await follow(page, server, "a")
    await context.set_offline(offline=True)
    await page.wait_for_function("states.at(-1) === 'retrying'")
    await publish(server, "a", 1)
    await context.set_offline(offline=False)
    assert await seen(page, 1) == [1]


async def test_a_page_that_comes_back_from_the_cache_goes_on_where_it_was(page: Page, server: Server) -> None:
    await follow(page, server, "a")
    await publish(server, "a", 1)
    await seen(page, 1)
    async with page.expect_event("requestfailed"):
        await page.goto(f"{server.url}/console/console.css")
    await publish(server, "a", 2)
    await page.go_back(wait_until="commit")
    assert await seen(page, 2) == [1, 2]


async def test_what_is_published_comes_back_with_all_its_fields(page: Page, server: Server) -> None:
    await follow(page, server, "orders/*")
    sent = {"title": "Überall ✓", "click": "https://x.example/?a=1&b=2", "priority": 4, "tags": ["money", "új"]}
    published = await page.evaluate(
        """async (fields) => {
            const { publish } = await import("/client.js");
            return publish("orders/42", { "naïve": ["☃", 1.5, null] }, fields);
        }""",
        sent,
    )
    assert await seen(page, 1) == [{"naïve": ["☃", 1.5, None]}]
    [message] = await page.evaluate("seen")
    assert published == {"id": message["id"], "topic": "orders/42"}
    assert {name: message[name] for name in sent} == sent


async def test_text_and_bytes_come_back_as_what_they_are(page: Page, server: Server) -> None:
    await follow(page, server, "a")
    await page.evaluate(
        """async () => {
            const { publish } = await import("/client.js");
            await publish("a", "plain ✓", { contentType: "text/plain; charset=utf-8" });
            await publish("a", new Uint8Array([0, 255, 137]));
            await publish("a", new Blob([new Uint8Array([1, 2])], { type: "image/png" }));
        }"""
    )
    assert await seen(page, 3) == ["plain ✓", "AP+J", "AQI="]
    kinds = await page.evaluate("seen.map(({ content_type, encoding }) => [content_type, encoding ?? null])")
    assert kinds == [
        ["text/plain; charset=utf-8", None],
        ["application/octet-stream", "base64"],
        ["image/png", "base64"],
    ]


async def test_a_cursor_of_another_database_is_told_as_a_gap(page: Page, server: Server) -> None:
    await publish(server, "a", 1)
    await page.goto(f"{server.url}/icon.svg")
    gap = await page.evaluate(
        """async () => {
            const { subscribe } = await import("/client.js");
            let gap;
            const messages = subscribe("a", { after: "77", onGap: (told) => (gap = told) });
            for await (const { data } of messages) return [gap, data];
        }"""
    )
    assert gap == [{"reason": "reset", "after": "0"}, 1]


async def test_an_invalid_topic_throws_what_the_server_says(page: Page, server: Server) -> None:
    await page.goto(f"{server.url}/icon.svg")
    error = await page.evaluate(
        """async () => {
            const { subscribe, NotifierError } = await import("/client.js");
            try {
                for await (const _ of subscribe("a b")) return null;
            } catch (error) {
                return [error instanceof NotifierError, error.status, error.code, error.detail];
            }
        }"""
    )
    assert error[:3] == [True, 400, "invalid_topic"]
    assert "'a b' is not a topic" in error[3]


def parks(request: bytes) -> int:
    """For how many seconds a poll parks; 0 for one that does not, and for all else."""
    wait = re.search(rb"^prefer: wait=(\d+)", request, re.IGNORECASE | re.MULTILINE)
    return int(wait[1]) if wait else 28 * (b"/v1/topics/" in request)


@pytest.mark.rule("C-13")
async def test_behind_a_proxy_that_cuts_every_answer_after_ten_seconds_the_wait_becomes_shorter_than_that(
    context: BrowserContext, server: Server
) -> None:
    async with TcpProxy(server.url) as proxy:
        url = proxy.url.partition("?")[0].replace("@", "")
        async with strict_page(context, url) as page:
            await page.clock.install()
            await page.goto(f"{url}/icon.svg")
            waits: list[int] = []
            await page.evaluate(FOLLOW, ["a", {}])
            # Chromium asks a second time by itself, so that the client sees each other cut.
            while not waits or waits[-1] >= 10:
                assert len(waits) < 20
                await until(lambda: parks(proxy.requests.newest) > 0, "a poll that parks")
                waits.append(parks(proxy.requests.newest))
                if waits[-1] >= 10:
                    await page.clock.run_for(10_000)
                    proxy.requests.newest = b""
                    await proxy.cut()
                if len(waits) == 2:
                    await publish(server, "a", "while it was cut")
            await publish(server, "a", "then")
            assert await seen(page, 2) == ["while it was cut", "then"]


async def test_after_the_machine_has_slept_a_poll_that_is_dead_without_a_sign_is_made_anew(
    context: BrowserContext, server: Server
) -> None:
    async with TcpProxy(server.url) as proxy:
        url = proxy.url.partition("?")[0].replace("@", "")
        async with strict_page(context, url) as page:
            await page.clock.install()
            await page.goto(f"{url}/icon.svg")
            async with page.expect_request(lambda request: "/v1/" in request.url and "prefer" not in request.headers):
                await page.evaluate(FOLLOW, ["a", {}])
            proxy.replies.close()
            await publish(server, "a", 1)
            await proxy.replies.holds()  # as what is sent to a machine that sleeps
            async with (
                page.expect_event("requestfailed"),
                page.expect_request(lambda request: request.headers.get("prefer") == "wait=0"),
            ):
                await page.clock.fast_forward(3_600_000)
            proxy.heal()
            assert await seen(page, 1) == [1]
            await publish(server, "a", 2)
            assert await seen(page, 2) == [1, 2]
            assert await page.evaluate("states") == ["connecting", "live"]


@pytest.mark.parametrize("how", ["frozen", "stopped"])
async def test_a_page_that_stood_still_while_the_server_restarted_catches_up(
    browser: Browser, page: Page, context: BrowserContext, server: Server, how: str
) -> None:
    await follow(page, server, "a")
    await publish(server, "a", 1)
    await seen(page, 1)
    if how == "frozen":
        devtools = await context.new_cdp_session(page)
        await devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    else:
        processes = (await (await browser.new_browser_cdp_session()).send("SystemInfo.getProcessInfo"))["processInfo"]
        renderers = [process["id"] for process in processes if process["type"] == "renderer"]
        for renderer in renderers:
            os.kill(renderer, signal.SIGSTOP)
    try:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await publish_all(server, "a", [2, 3])
    finally:
        if how == "frozen":
            await devtools.send("Page.setWebLifecycleState", {"state": "active"})
        else:
            for renderer in renderers:
                os.kill(renderer, signal.SIGCONT)
    assert await seen(page, 3) == [1, 2, 3]
    await publish(server, "a", 4)
    assert await seen(page, 4) == [1, 2, 3, 4]
