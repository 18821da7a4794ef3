"""The rows that come with the page at `/`, and how its script takes them over."""

import asyncio
import re
from collections.abc import Awaitable

import pytest
from conftest import Server
from playwright.async_api import Browser, Page, Route, expect

from browser.conftest import publish, strict_page
from browser.console import PAINTED, lines, live

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session"), pytest.mark.console_errors()]

POLLS = re.compile(r"/v1/topics/.*last=")


def shape(page: Page) -> Awaitable[list[str]]:
    """What the rows show, but for times, which are those of the reader once the script has them."""
    return page.locator("#messages li").evaluate_all(
        """items => items.map((item) => {
            const shown = item.cloneNode(true);
            for (const time of shown.querySelectorAll("time, .age")) time.textContent = "";
            const parts = [...shown.querySelectorAll("*")].map((part) => {
                const names = part.getAttributeNames().sort();
                const attributes = names.map((name) => `${name}=${part.getAttribute(name)}`);
                return [part.tagName, ...attributes, part.children.length || part.textContent];
            });
            return JSON.stringify([item.dataset, parts]);
        })"""
    )


async def test_the_page_comes_with_the_newest_messages(browser: Browser, server: Server) -> None:
    await publish(server, "orders/1", {"status": "paid"}, title="Order 1 <is> paid", priority=4, tags="money,eu")
    await publish(server, "weather", "It rains.")
    context = await browser.new_context(java_script_enabled=False)
    async with strict_page(context, server.url, errors=()) as page:
        await page.goto(server.url)
        await expect(lines(page)).to_have_text(['"It rains."', "Order 1 <is> paid"])
        await expect(page.locator("#nothing")).to_be_hidden()
    await context.close()


async def test_the_script_takes_the_rows_over_as_they_are(page: Page, server: Server) -> None:
    await publish(server, "orders/1", {"a": [1, "ü"]}, title="Titled", priority=5, tags="a,b,c,d,e,f")
    await publish(server, "orders/2", {"status": "new", "n": [1, None, True]})
    await publish(server, "log", b" first\nsecond", content_type="text/plain")
    await publish(server, "zip", b"\xff" * 1400, content_type="application/zip")
    held, release, asked = [], asyncio.Event(), []
    page.on("request", lambda request: asked.append(request.url))

    async def hold(route: Route) -> None:
        held.append(route)
        await release.wait()
        await route.continue_()

    await page.route(POLLS, hold)
    await page.add_init_script("window.flashed = 0; addEventListener('animationstart', () => (flashed += 1), true)")
    async with page.expect_request(POLLS):
        await page.goto(server.url)
    await page.evaluate(PAINTED)
    rows = page.locator("#messages li")
    before = await shape(page)
    assert len(before) == 4
    await rows.evaluate_all("items => items.forEach((item, at) => (item.mark = at))")
    assert not [url for url in asked if "before=" in url]  # it is not known yet what is older than what
    release.set()
    await live(page)
    await expect(page.locator("#messages time").first).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    await page.get_by_label("Filter").fill("second")  # which only the messages themselves have
    await expect(page.locator("#filtered")).to_have_text("1 of 4 shown")
    await page.get_by_label("Filter").fill("")
    assert await shape(page) == before
    assert await rows.evaluate_all("items => items.map((item) => item.mark)") == [0, 1, 2, 3]
    assert await page.evaluate("flashed") == 0
    await publish(server, "new", 1)
    await expect(rows).to_have_count(5)


async def test_rows_of_other_topics_than_those_asked_for_are_never_seen(page: Page, server: Server) -> None:
    await publish(server, "orders/1", 1)
    await publish(server, "other", 2)
    release = asyncio.Event()

    async def hold(route: Route) -> None:
        await release.wait()
        await route.continue_()

    await page.route("**/console/console.js", hold)
    await page.goto(f"{server.url}/#orders/*", wait_until="commit")
    await expect(page.locator("#messages li")).to_have_count(2)
    await expect(page.locator("#messages")).to_be_hidden()
    release.set()
    await expect(lines(page)).to_have_text(["1"])
    await expect(page.locator("#messages")).to_be_visible()


@pytest.mark.console_errors("status of 400")
async def test_what_came_with_the_page_goes_when_the_caller_may_not_see_it(page: Page, server: Server) -> None:
    await publish(server, "a", 1)

    async def refuse(route: Route) -> None:
        body = {"code": "bad_request", "detail": "No."}
        await route.fulfill(status=400, content_type="application/problem+json", json=body)

    await page.route(POLLS, refuse)
    await page.goto(server.url)
    await expect(page.locator("#state")).to_have_text("Stopped")
    await expect(lines(page)).to_have_count(0)
    await expect(page.locator("#nothing")).to_be_visible()
