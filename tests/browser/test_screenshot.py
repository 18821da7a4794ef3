"""The picture of the console in the README. `make screenshot` puts it into docs/."""

import os
from pathlib import Path

import pytest
from conftest import Server
from playwright.async_api import Browser, expect

from browser.conftest import publish

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

WIDTH, HEIGHT = 1120, 760


async def test_the_console_is_ready_for_its_picture(browser: Browser, server: Server, tmp_path: Path) -> None:
    path = Path(os.environ.get("SCREENSHOT", tmp_path / "console.png"))
    page = await browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", reduced_motion="reduce", timezone_id="UTC"
    )
    try:
        await page.goto(f"{server.url}/#orders/*,weather/**")
        await expect(page.locator("#now")).to_have_attribute("data-state", "live")
        await publish(server, "orders/42", {"status": "new", "items": 3, "total": "58.90"}, title="Order 42")
        await publish(
            server, "weather/home", "It rains.", content_type="text/plain", title="Weather", tags="outside,wet"
        )
        await publish(server, "orders/42", {"status": "paid"}, title="Order 42 is paid", priority=4, tags="money")
        await expect(page.locator("#messages pre")).to_have_count(3)
        await page.screenshot(path=path)
    finally:
        await page.close()
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
