"""The page at `/topics`, in a real Chromium against a real server."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from conftest import Server
from playwright.async_api import Browser, Locator, Page, expect

from browser.conftest import complaints, post, publish

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]


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
    await expect(row).to_have_text([re.compile(r"^\d+ s ago$"), "1", "1"])


async def test_a_topic_leads_to_its_messages(page: Page, server: Server) -> None:
    await publish(server, "orders/2", {"n": 1})
    topics = await opened(page, server)
    await topics.click()
    await expect(page.locator("#messages .line")).to_have_text(['{"n":1}'])
    await page.get_by_role("link", name="Topics").click()
    await expect(topics).to_have_text(["orders/2"])


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
    browser: Browser, server: Server, axe: str, tmp_path: Path, scheme: str, width: int
) -> None:
    for topic in ("orders/42", "weather/" + "long-" * 40, "builds"):
        await publish(server, topic, 1)
    page = await browser.new_page(
        viewport={"width": width, "height": 600}, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True
    )
    await expect(await opened(page, server)).to_have_count(3)
    await page.screenshot(path=tmp_path / f"{scheme}-{width}.png")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert await complaints(axe, page) == []
    await page.close()
