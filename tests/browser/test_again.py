"""A message once more: published again by the console, or redelivered by the command that it shows."""

import asyncio
import json
import re
import sys
import urllib.request
from pathlib import Path

import pytest
from aiohttp import web
from conftest import ROOT, Server, admin
from playwright.async_api import Page, expect

from browser.conftest import publish
from browser.console import detail, lines, shell

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session"), pytest.mark.console_errors()]


async def test_a_message_can_be_published_again(console: Page, server: Server) -> None:
    source = b'{"n": 12345678901234567890}'
    panel = await detail(console, await publish(server, "orders/1", source, title="Again", priority=2, tags="a,b"))
    await panel.get_by_role("button", name="Publish again").click()
    await console.locator("#publishing").get_by_role("button", name="Publish", exact=True).click()
    await expect(console.locator("#outcome")).to_have_text(re.compile(r"^Published as \d+$"))
    id_ = (await console.locator("#outcome").inner_text()).split()[-1]
    await console.locator("#close-publishing").click()
    panel = await detail(console, id_)
    await expect(panel.locator("h2")).to_have_text("Again")
    await expect(panel.locator("dd").get_by_text("a, b")).to_be_visible()
    await expect(panel.locator(".tree")).to_contain_text("12345678901234567890")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"\x00\xff\x01" * 700, "application/zip"), ("<b>ü</b>".encode(), "text/html"), (b"", "application/x-empty")],
)
async def test_what_is_neither_json_nor_text_is_published_again_as_it_came(
    console: Page, server: Server, tmp_path: Path, body: bytes, content_type: str
) -> None:
    panel = await detail(console, await publish(server, "a", body, content_type=content_type, title="One"))
    await panel.get_by_role("button", name="Publish again").click()
    await expect(console.locator("#kept")).to_contain_text(f"as they are: {content_type}")
    await expect(console.get_by_label("Body")).to_be_hidden()
    await shell(await console.locator("#publish-command").inner_text(), tmp_path)
    await console.get_by_label("Topic", exact=True).fill("b")
    await console.locator("#publishing").get_by_role("button", name="Publish", exact=True).click()
    await expect(console.locator("#outcome")).to_have_text(re.compile(r"^Published as \d+$"))
    await expect(lines(console)).to_have_text(["One", "One", "One"])
    await console.get_by_label("text", exact=True).check()
    await expect(console.get_by_label("Body")).to_be_visible()
    for item in (await console.locator("#messages li").all())[:2]:
        id_ = await item.get_attribute("data-id")
        response = await console.request.get(f"{server.url}/v1/messages/{id_}")
        assert (await response.body(), response.headers["content-type"]) == (body, content_type)


@pytest.mark.console_errors("net::ERR_")
async def test_a_webhook_says_how_to_redeliver_it(console: Page, server: Server, tmp_path: Path) -> None:
    database = server.env["DATABASE_URL"]
    source = "insert into notifier.source (name, scheme, topic, secrets) values ('open', 'none', 'hooks/1', '{}')"
    await admin(database, source)
    await asyncio.to_thread(server.restart)
    request = urllib.request.Request(
        f"{server.url}/hooks/open", data=b'{ "a":1 }', headers={"Content-Type": "application/json", "X-Event": "push"}
    )
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=20) as response:
        id_ = json.load(response)["id"]
    panel = await detail(console, id_)
    command = await panel.locator("section code").inner_text()
    got: asyncio.Future[tuple[bytes, str | None]] = asyncio.get_running_loop().create_future()

    async def receive(request: web.Request) -> web.Response:
        got.set_result((await request.read(), request.headers.get("X-Event")))
        return web.Response()

    app = web.Application()
    app.router.add_post("/webhooks", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks"
        assert command.startswith("notifier forward ")
        assert command.count("http://localhost:3000/webhooks") == 1
        ours = command.replace("http://localhost:3000/webhooks", receiver).replace(
            "notifier", f"{sys.executable} -m notifier", 1
        )
        assert id_ in await shell(ours, ROOT)
        assert await asyncio.wait_for(got, 20) == (b'{ "a":1 }', "push")
    finally:
        await runner.cleanup()
