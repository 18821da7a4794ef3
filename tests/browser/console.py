"""The console at `/`, as tests use it."""

import asyncio
import subprocess
from pathlib import Path

from conftest import Server
from playwright.async_api import Locator, Page, expect

# Two frames: what was to be drawn has been drawn.
PAINTED = "new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)))"


async def opened(page: Page, server: Server, hash_: str = "") -> Page:
    """The console, live."""
    await page.goto(f"{server.url}/{hash_}")
    await live(page)
    return page


async def live(page: Page) -> None:
    await expect(page.locator("#now")).to_have_attribute("data-state", "live")


def lines(page: Page) -> Locator:
    """The lines of the rows, newest first."""
    return page.locator("#messages .line")


async def detail(page: Page, id_: str) -> Locator:
    """The open message, after a click on its row."""
    await page.locator(f'[data-id="{id_}"] a').click()
    panel = page.locator("#detail")
    await expect(panel.locator("dd").nth(1)).to_have_text(id_)
    return panel


async def watch(page: Page, topics: str) -> None:
    await page.get_by_label("Topics").fill(topics)
    await page.get_by_label("Topics").press("Enter")


async def shell(command: str, cwd: Path) -> str:
    """What a shell prints that a command was pasted into."""
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout
