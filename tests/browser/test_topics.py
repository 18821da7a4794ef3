"""The page at `/topics`, in a real Chromium against a real server."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from conftest import Server
from playwright.async_api import Locator, Page, Route, expect

from browser.conftest import Opening, complaints, post, publish

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session"), pytest.mark.console_errors()]


async def opened(page: Page, server: Server, hash_: str = "") -> Locator:
    """The topics on the page, live."""
    await page.goto(f"{server.url}/topics{hash_}")
    await expect(page.locator("#now")).to_have_attribute("data-state", "live")
    return page.locator("#found .topic")


async def test_topics_are_listed_by_name_with_what_happens_in_them(page: Page, server: Server) -> None:
    for topic in ("orders/2", "alerts", "orders/10"):
        await publish(server, topic, 1)
    topics = await opened(page, server)
    await expect(topics).to_have_text(["alerts", "orders/10", "orders/2"])
    await publish(server, "orders/2", 2)
    await publish(server, "builds", 1)
    await expect(topics).to_have_text(["alerts", "builds", "orders/10", "orders/2"])
    row = page.locator('tr[data-topic="orders/2"] td')
    await expect(row).to_have_text([re.compile(r"^\d+ s ago$"), "1", "1", "1"])


async def test_a_topic_that_begins_while_the_page_does_is_not_missed(page: Page, server: Server) -> None:
    """Before the first poll, and between its answer and that of the list."""
    listed, published = asyncio.Event(), asyncio.Event()

    async def poll(route: Route) -> None:
        await publish(server, "before", 1)
        await route.continue_()

    async def listing(route: Route) -> None:
        response = await route.fetch()
        listed.set()
        await published.wait()
        await route.fulfill(response=response)

    await page.route("**/v1/topics/**", poll, times=1)
    await page.route("**/v1/topics?*", listing)
    await page.goto(f"{server.url}/topics")
    await asyncio.wait_for(listed.wait(), 20)
    await publish(server, "between", 1)
    published.set()
    await expect(page.locator("#found .topic")).to_have_text(["before", "between"])
    await expect(page.locator('tr[data-topic="between"] td').nth(1)).to_have_text("1")


async def test_it_shows_how_many_wait_on_what(page: Page, server: Server) -> None:
    await publish(server, "orders/1", 1)
    topics = await opened(page, server)
    row = page.locator('tr[data-topic="orders/1"] .waits')
    await expect(row).to_have_text("1")  # this page
    async with waiting(server, "orders/1", "orders/*", "orders/*", "typo"):
        await expect(row).to_have_text("4")
        await expect(page.locator("#waiting")).to_have_text("5 clients wait")
        await expect(page.locator("#waited li")).to_have_text(["orders/* 2", "** 1"])
        await expect(topics).to_have_text(["orders/1", "typo"])
        await expect(page.locator('tr[data-topic="typo"] td').first).to_have_text("no message")
    await expect(topics).to_have_text(["orders/1"])
    await page.locator("#waited a").first.click()
    await expect(page.get_by_label("Topics")).to_have_value("**")


async def test_of_several_processes_it_says_that_it_knows_one(page: Page, server: Server) -> None:
    async def of_four(route: Route) -> None:
        response = await route.fetch()
        await route.fulfill(response=response, json=await response.json() | {"processes": 4})

    await page.route("**/v1/waiting", of_four)
    await opened(page, server)
    await expect(page.locator("#waiting")).to_have_text("1 client waits in the process that answers, one of 4")


@pytest.mark.console_errors("status of 403")
async def test_who_is_no_admin_is_shown_nothing_of_who_waits(page: Page, server: Server) -> None:
    server.env |= {"NOTIFIER_ADMIN_KEY": "s3cret-but-long-enough-for-anyone", "NOTIFIER_PUBLIC_SUBSCRIBE": "**"}
    await asyncio.to_thread(server.restart)
    await publish(server, "a", 1)
    async with page.expect_response("**/v1/waiting") as refused:
        topics = await opened(page, server)
    assert (await refused.value).status == 403
    await expect(topics).to_have_text(["a"])
    await expect(page.locator(".waits:visible")).to_have_count(0)
    await expect(page.locator("#waiting")).to_be_empty()


@asynccontextmanager
async def waiting(server: Server, *lists: str) -> AsyncIterator[None]:
    """So many clients wait on these."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        polls = [asyncio.create_task(poll(session, f"{server.url}/v1/topics/{each}")) for each in lists]
        try:
            yield
        finally:
            for each in polls:
                each.cancel()
            await asyncio.gather(*polls, return_exceptions=True)


async def poll(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        async with session.get(url) as response:
            assert response.status == 200
            await response.read()


async def test_a_topic_leads_to_its_messages(page: Page, server: Server) -> None:
    await publish(server, "orders/2", {"n": 1})
    topics = await opened(page, server)
    await topics.click()
    await expect(page.locator("#messages .line")).to_have_text(['{"n":1}'])
    await page.get_by_role("link", name="Topics").click()
    await expect(topics).to_have_text(["orders/2"])


@pytest.mark.console_errors("status of 400")
async def test_a_pattern_narrows_the_list_and_stands_in_the_address(page: Page, server: Server) -> None:
    for topic in ("orders/2", "orders/2/x", "alerts"):
        await publish(server, topic, 1)
    topics = await opened(page, server, "#orders/*")
    await expect(topics).to_have_text(["orders/2"])
    await page.get_by_label("Topic or pattern").fill("orders/**")
    await page.get_by_label("Topic or pattern").press("Enter")
    await expect(topics).to_have_text(["orders/2", "orders/2/x"])
    await page.go_back()
    await expect(topics).to_have_text(["orders/2"])
    await publish(server, "alerts", 2)
    await publish(server, "orders/3", 2)
    await expect(topics).to_have_text(["orders/2", "orders/3"])
    await page.get_by_label("Topic or pattern").fill("no?good")
    await page.get_by_label("Topic or pattern").press("Enter")
    await expect(page.locator("#match-error")).to_contain_text("topic")


async def test_many_topics_come_in_pages(page: Page, server: Server) -> None:
    names = [f"t/{n:03}" for n in range(350)]
    body = [{"topic": name, "data": 1} for name in names]
    await post(f"{server.url}/v1/messages", json.dumps(body).encode(), "application/json")
    topics = await opened(page, server)
    await expect(topics).to_have_count(200)
    await publish(server, "t/300", 1)  # of a page that is not there yet
    await publish(server, "t/100", 1)
    await expect(page.locator('tr[data-topic="t/100"] td').nth(1)).to_have_text("1")
    await expect(topics).to_have_count(200)
    await page.get_by_role("button", name="More topics").click()
    await expect(topics).to_have_text(names)
    await expect(page.get_by_role("button", name="More topics")).to_be_hidden()


async def test_without_a_message_it_says_so_until_there_is_one(page: Page, server: Server) -> None:
    topics = await opened(page, server)
    await expect(page.get_by_text("No topic has a message yet.")).to_be_visible()
    await publish(server, "first", 1)
    await expect(topics).to_have_text(["first"])
    await expect(page.get_by_text("No topic has a message yet.")).to_be_hidden()


@pytest.mark.console_errors("status of 401")
async def test_a_server_with_a_key_asks_for_it(page: Page, server: Server) -> None:
    server.env["NOTIFIER_ADMIN_KEY"] = "s3cret-but-long-enough-for-anyone"
    await asyncio.to_thread(server.restart)
    await publish(server, "a", 1)
    await page.goto(f"{server.url}/topics")
    await page.get_by_label("Key or token").fill(server.env["NOTIFIER_ADMIN_KEY"])
    await page.get_by_label("Key or token").press("Enter")
    await expect(page.locator("#found .topic")).to_have_text(["a"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_it_fits_and_axe_finds_nothing(
    strict: Opening, server: Server, axe: str, tmp_path: Path, scheme: str, width: int
) -> None:
    for topic in ("orders/42", "weather/" + "long-" * 40, "builds"):
        await publish(server, topic, 1)
    viewport = {"width": width, "height": 600}
    async with (
        strict(viewport=viewport, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as page,
        waiting(server, "builds", "orders/*", "nothing/here", "long-" * 20 + "/**"),
    ):
        await expect(await opened(page, server)).to_have_count(4)
        await expect(page.locator("#waited li")).to_have_count(3)
        await page.screenshot(path=tmp_path / f"{scheme}-{width}.png")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await complaints(axe, page) == []
