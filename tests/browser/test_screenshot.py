"""The pictures of the pages in the documents. `make screenshot` puts them into docs/."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, admin
from playwright.async_api import Page, expect

from browser.conftest import Opening, post, publish
from browser.console import opened
from browser.test_topics import waiting

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session"), pytest.mark.console_errors()]

KINDS: dict[str, dict[str, Any]] = {
    "": {"viewport": {"width": 1120, "height": 640}, "color_scheme": "light"},
    "-dark": {"viewport": {"width": 1120, "height": 640}, "color_scheme": "dark"},
    "-phone": {"viewport": {"width": 390, "height": 700}, "color_scheme": "light", "has_touch": True},
}
# What the hour looked like: so many messages in each minute of it, as far as it is not over.
HOUR = [
    7, 2, 5, 4, 6, 9, 5, 8, 4, 3, 6, 9, 12, 14, 11, 9, 8, 6, 5, 7, 4, 6, 3, 4, 5, 6, 8, 9, 7, 6,
    26, 31, 18, 9, 6, 5, 4, 5, 6, 4, 7, 5, 9, 6, 8, 12, 15, 13, 9, 8, 6, 9, 5, 7, 4, 6, 8,
]  # fmt: skip


async def console(page: Page, server: Server) -> None:
    await opened(page, server)
    await expect(page.locator("#hour-text")).to_contain_text("in the last hour")
    order = await orders(server)
    await expect(page.locator("#messages .line").first).to_have_text("Build failed")
    if page.viewport_size and page.viewport_size["width"] > 600:
        await page.locator(f'[data-id="{order}"] a').click()
        await expect(page.locator("#detail .tree")).to_contain_text("A-17")


async def topics(page: Page, server: Server) -> None:
    async with waiting(server, "orders/*", "orders/*", "orders/42", "builds/api", "weather/home", "order/42"):
        await page.goto(f"{server.url}/topics")
        await expect(page.locator("#waiting")).to_have_text("7 clients wait")
        await orders(server)
        await expect(page.locator('tr[data-topic="orders/42"] td').nth(1)).to_have_text("1")
        await expect(page.locator('tr[data-topic="orders/42"] td').nth(3)).to_have_text("4")


PAGES: dict[str, Callable[[Page, Server], Awaitable[None]]] = {"console": console, "topics": topics}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PAGES)
async def test_the_pages_are_ready_for_their_pictures(
    strict: Opening, server: Server, tmp_path: Path, name: str, kind: str
) -> None:
    path = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"{name}{kind}.png"
    await an_hour(server)
    async with strict(**KINDS[kind], reduced_motion="reduce", timezone_id="UTC", locale="en") as page:
        await PAGES[name](page, server)
        await page.screenshot(path=path, animations="disabled", caret="hide")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size < 200_000


async def an_hour(server: Server) -> None:
    """What a shop publishes in it, up to a minute ago."""
    first = len(HOUR) + 1
    for at, count in enumerate(HOUR):
        batch = [{"topic": f"orders/{20 + (at + n) % 9}", "data": {"status": "new"}} for n in range(count)]
        ids = (await post(f"{server.url}/v1/messages", json.dumps(batch).encode(), "application/json"))["ids"]
        time = f"clock_timestamp() - interval '{first - at} min'"
        await admin(server.env["DATABASE_URL"], f"update notifier.message set time = {time} where seq >= {ids[0]}")
    await asyncio.to_thread(server.restart)  # its memory has the times from before


async def orders(server: Server) -> str:
    """Publish some orders and what comes with them; the id of one."""
    for n in range(31, 42):
        await publish(server, f"orders/{n}", {"status": "new", "items": n % 4 + 1}, title=f"Order {n}")
        if n % 4 == 0:
            text = f"Rain, {n % 7 + 6} °C".encode()
            await publish(server, "weather/home", text, content_type="text/plain", tags="outside")
        if n % 3 == 0:
            await publish(server, "builds/api", {"commit": f"c0ffee{n}", "ok": True, "seconds": n})
    order = {"status": "paid", "total": "58.90", "customer": 7, "items": [{"sku": "A-17", "count": 2}]}
    id_ = await publish(server, "orders/42", order, title="Order 42 is paid", priority=4, tags="money")
    await publish(server, "builds/web", {"commit": "0ddba11", "ok": False}, title="Build failed", priority=5)
    return id_
