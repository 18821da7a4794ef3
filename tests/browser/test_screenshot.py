"""The picture of the console in the README. `make screenshot` puts it into docs/."""

import os
from pathlib import Path

import pytest
from conftest import Server
from playwright.async_api import Browser, expect

from browser.conftest import publish

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

WIDTH, HEIGHT = 1120, 640


async def test_the_console_is_ready_for_its_picture(browser: Browser, server: Server, tmp_path: Path) -> None:
    path = Path(os.environ.get("SCREENSHOT", tmp_path / "console.png"))
    page = await browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", reduced_motion="reduce", timezone_id="UTC"
    )
    try:
        await page.goto(f"{server.url}/")
        await expect(page.locator("#now")).to_have_attribute("data-state", "live")
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
        await page.locator(f'[data-id="{id_}"] a').click()
        await expect(page.locator("#detail .tree")).to_contain_text("A-17")
        await page.screenshot(path=path)
    finally:
        await page.close()
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
