"""A real Chromium, one for the run; a page for each test, which may do nothing that it is not allowed to."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from aiohttp import web
from conftest import ROOT, Server
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright
from support.npm import installed

from browser.console import opened

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",  # tests run as root, too
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Playwright turns the back/forward cache off; users have it.
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, ignore_default_args=["--disable-back-forward-cache"]
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(accept_downloads=True)
    yield context
    await context.close()


@pytest.fixture
def expected_errors(request: pytest.FixtureRequest) -> tuple[str, ...] | None:
    """Parts of what the console of a page may be told as an error: those of the test's `console_errors`. None where its
    file has no such mark, and pages may say what they like."""
    marks = list(request.node.iter_markers("console_errors"))
    return tuple(part for mark in marks for part in mark.args) if marks else None


Opening = Callable[..., AbstractAsyncContextManager[Page]]


@pytest.fixture
def strict(browser: Browser, server: Server, expected_errors: tuple[str, ...] | None) -> Opening:
    """Opens pages of a browser's own kind, `strict(color_scheme="dark")`, which are as strict as `page` is."""
    return partial(strict_page, browser, server.url, errors=expected_errors)


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext, server: Server, expected_errors: tuple[str, ...] | None) -> AsyncIterator[Page]:
    """A page that fails its test when a script throws, a policy is violated, or any other server is asked; one of the
    console also when the browser's console is told of an error that the test does not expect."""
    async with strict_page(context, server.url, errors=expected_errors) as page:
        yield page


@pytest_asyncio.fixture(loop_scope="session")
async def console(page: Page, server: Server) -> AsyncIterator[Page]:
    yield await opened(page, server)


@asynccontextmanager
async def strict_page(
    opener: BrowserContext | Browser, *servers: str, errors: Sequence[str] | None = None, **options: Any
) -> AsyncIterator[Page]:
    page = await opener.new_page(**options)
    ours = (*servers, *(f"blob:{server}" for server in servers))
    wrong: list[str] = []

    def told(line: ConsoleMessage) -> None:
        unexpected = errors is not None and line.type == "error" and not any(part in line.text for part in errors)
        if unexpected or "Content Security Policy" in line.text:
            wrong.append(f"{line.text} ({line.location.get('url')})")

    page.on("pageerror", lambda error: wrong.append(f"thrown: {error}"))
    page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    page.on("console", told)
    page.on("request", lambda request: None if request.url.startswith(ours) else wrong.append(request.url))
    yield page
    assert not wrong
    await page.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The program of axe, which knows what keeps people from using a page."""
    return (installed(ROOT / "tests" / "browser" / "axe") / "axe-core" / "axe.min.js").read_text()


async def complaints(axe: str, page: Page) -> list[str]:
    """What axe finds on the page as it is now."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(axe)
    results = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [f"{each['id']}: {node['html']}" for each in results["violations"] for node in each["nodes"]]


@asynccontextmanager
async def elsewhere(server: Server, page: Path) -> AsyncIterator[str]:
    """The URL of a page of the documents on another origin, which the server is told about."""
    text = page.read_text()
    assert text.count("http://127.0.0.1:8080") == 1
    text = text.replace("http://127.0.0.1:8080", server.url)

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get(f"/{page.name}", show)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        origin = f"http://localhost:{runner.addresses[0][1]}"
        server.env["NOTIFIER_ORIGINS"] = origin
        await asyncio.to_thread(server.restart)
        yield f"{origin}/{page.name}"
    finally:
        await runner.cleanup()


async def publish(server: Server, topic: str, data: object, **fields: object) -> str:
    """Publish from outside the browser; the id. Bytes and text go as they are, under the type in `content_type`."""
    content_type = str(fields.pop("content_type", "application/json"))
    key = server.env.get("NOTIFIER_ADMIN_KEY")
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return (await post(f"{server.url}/v1/topics/{topic}?{urlencode(fields)}", body, content_type, key))["id"]


async def publish_all(server: Server, topic: str, data: list[object]) -> list[str]:
    body = json.dumps([{"topic": topic, "data": value} for value in data]).encode()
    return (await post(f"{server.url}/v1/messages", body, "application/json"))["ids"]


async def post(url: str, body: bytes, content_type: str, key: str | None = None) -> Any:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": content_type})
    if key:
        request.add_header("Authorization", f"Bearer {key}")

    def post() -> Any:
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)

    return await asyncio.to_thread(post)
