"""Chromium's own EventSource at a real server."""

import asyncio

import pytest
from conftest import Server
from playwright.async_api import Page

from browser.conftest import publish

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

FOLLOW = """topics => new Promise((resolve) => {
    Object.assign(window, { seen: [], ids: [], gaps: [], errors: 0 });
    window.source = new EventSource(`/v1/topics/${topics}`);
    source.onopen = resolve;
    source.onerror = () => { window.errors += 1; };
    source.onmessage = ({ data, lastEventId }) => { seen.push(JSON.parse(data).data); ids.push(lastEventId); };
    source.addEventListener("gap", ({ data }) => gaps.push(JSON.parse(data)));
})"""


@pytest.mark.rule("S-43", "S-46")
async def test_eventsource_misses_nothing_over_a_restart(page: Page, server: Server) -> None:
    """Also where it had no message before: the first event has the cursor to come back with."""
    await page.goto(f"{server.url}/icon.svg")
    await page.evaluate(FOLLOW, "a/*,b")
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await publish(server, "a/1", 1)
    await page.wait_for_function("seen.length == 1")
    await publish(server, "b", {"text": "two\n lines\u2028"})
    await page.wait_for_function("seen.length == 2")
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await publish(server, "other", 3)
    await publish(server, "a/1", 4)
    await page.wait_for_function("seen.length == 3")
    assert await page.evaluate("seen") == [1, {"text": "two\n lines\u2028"}, 4]
    assert await page.evaluate("[ids.length, new Set(ids).size, gaps.length, source.readyState]") == [3, 3, 0, 1]
    assert await page.evaluate("errors") >= 2


async def test_a_gap_is_an_event_of_its_own(page: Page, server: Server) -> None:
    await page.goto(f"{server.url}/icon.svg")
    await page.evaluate(FOLLOW, "a?after=7")
    await page.wait_for_function("gaps.length == 1")
    await publish(server, "a", 1)
    await page.wait_for_function("seen.length == 1")
    assert await page.evaluate("gaps") == [{"reason": "reset", "after": "0"}]
