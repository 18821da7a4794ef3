"""The last hour in the console: a bar for each minute, which leads to what was published then."""

import asyncio
import re

import pytest
from conftest import Server, admin
from playwright.async_api import Page, Route, expect

from browser.conftest import publish
from browser.console import lines, opened, watch

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session"), pytest.mark.console_errors()]


async def hour_of(server: Server, *ages: str) -> None:
    """Publish a message for each age, oldest first; the server begins anew with them."""
    database = server.env["DATABASE_URL"]
    for n, age in enumerate(ages):
        id_ = await publish(server, "a", n)
        await admin(
            database, f"update notifier.message set time = clock_timestamp() - interval '{age}' where seq = {id_}"
        )
    await asyncio.to_thread(server.restart)


async def test_each_minute_of_the_last_hour_leads_to_its_messages(page: Page, server: Server) -> None:
    await hour_of(server, "3 hours", "40 min", "20 min", "20 min", "1 s")
    await opened(page, server)
    await expect(page.locator("#hour-text")).to_have_text("4 in the last hour")
    slider = page.get_by_label("Minute of the last hour")
    await expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^now, \d\d:\d\d: "))
    await slider.fill("30")
    await expect(lines(page)).to_have_text(["1", "0"])
    await expect(page.locator("#hour-text")).to_have_text(re.compile(r"^\d\d:\d\d: 0 messages$"))
    await expect(page.locator("#news-above")).to_have_text("Back to now")
    await expect(page.locator("#older")).to_have_text("The beginning")
    await publish(server, "a", "new")
    await expect(page.locator("#news-above")).to_have_text("1 new message")
    await slider.focus()
    for _ in range(12):
        await page.keyboard.press("ArrowRight")
    await expect(lines(page)).to_have_text(["3", "2", "1", "0"])
    await slider.fill("59")
    await expect(lines(page)).to_have_text(['"new"', "4", "3", "2", "1", "0"])
    await expect(page.locator("#hour-text")).to_have_text("5 in the last hour")
    await expect(page.locator("#news-above")).to_be_hidden()


async def test_a_drag_over_the_hour_tells_each_minute_and_goes_to_the_last(page: Page, server: Server) -> None:
    await hour_of(server, "3 hours", "40 min", "1 s")
    await opened(page, server)
    await expect(page.locator("#hour-text")).to_have_text("2 in the last hour")
    box = await page.locator("#minute").bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + box["width"] - 3, y)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] / 2, y, steps=5)
    await expect(page.locator("#hour-text")).to_have_text(re.compile(r"^\d\d:\d\d: 0 messages$"))
    assert await lines(page).all_text_contents() == ["2", "1", "0"]  # not before it is let go of
    await page.mouse.up()
    await expect(lines(page)).to_have_text(["1", "0"])


async def test_what_comes_is_counted_once_in_the_hour(page: Page, server: Server) -> None:
    release = asyncio.Event()

    async def hold(route: Route) -> None:
        response = await route.fetch()
        await release.wait()
        await route.fulfill(response=response)

    await publish(server, "a", 1)
    await page.route("**/v1/counts*", hold)
    async with page.expect_request("**/v1/counts*"):
        await opened(page, server)
    await publish(server, "a", 2)
    await expect(lines(page)).to_have_count(2)
    release.set()
    await expect(page.locator("#hour-text")).to_have_text(re.compile("^2 in"))
    await publish(server, "a", 3)
    await expect(page.locator("#hour-text")).to_have_text(re.compile("^3 in"))
    await watch(page, "b")
    await expect(page.locator("#hour-text")).to_have_text(re.compile("^0 in"))


async def test_what_is_not_known_of_the_hour_is_not_called_nothing(page: Page, server: Server) -> None:
    async def with_unknown(route: Route) -> None:
        response = await route.fetch()
        answer = await response.json()
        await route.fulfill(response=response, json=answer | {"counts": [None] * 50 + [1] * 10})

    await page.route("**/v1/counts*", with_unknown)
    await opened(page, server)
    await expect(page.locator("#hour-text")).to_have_text(re.compile(r"^10 since \d\d:\d\d$"))
    await page.get_by_label("Minute of the last hour").fill("7")
    await expect(page.locator("#hour-text")).to_have_text(re.compile(r"^\d\d:\d\d: not known$"))


@pytest.mark.console_errors("status of 503")
async def test_without_an_answer_the_hour_is_not_known(page: Page, server: Server) -> None:
    await page.route("**/v1/counts*", lambda route: route.fulfill(status=503))
    await opened(page, server)
    await expect(page.locator("#hour-text")).to_have_text("The last hour is not known")
