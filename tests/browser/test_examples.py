"""The examples in docs/examples, each as it is, in a real Chromium, on another origin than the service."""

import asyncio
import re
import sys
from pathlib import Path

import asyncpg
import pytest
from conftest import DEADLINE_S, ROOT, Server, free_port
from playwright.async_api import BrowserContext, Page, expect

from browser.conftest import elsewhere, publish, strict_page

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

EXAMPLES = ROOT / "docs" / "examples"


def site(url: str) -> str:
    return url.rsplit("/", 1)[0]


async def say(page: Page, name: str, text: str) -> None:
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Say something").fill(text)
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_label("Say something")).to_have_value("")


async def test_a_chat_room(context: BrowserContext, server: Server) -> None:
    async with (
        elsewhere(server, EXAMPLES / "chat.html") as url,
        strict_page(context, site(url), server.url) as ann,
        strict_page(context, site(url), server.url) as bob,
        strict_page(context, site(url), server.url) as other,
    ):
        for page, room in ((ann, "#tea"), (bob, "#tea"), (other, "#coffee")):
            await page.goto(url + room)
        await say(ann, "Ann", "Hello?")
        await say(bob, "Bob", "<b>Hi</b>")
        for page in (ann, bob):
            await expect(page.locator("li")).to_have_text(["Ann: Hello?", "Bob: <b>Hi</b>"])
        await say(other, "Cy", "Anybody?")
        await expect(other.locator("li")).to_have_text(["Cy: Anybody?"])
        await bob.reload()
        await expect(bob.locator("li")).to_have_text(["Ann: Hello?", "Bob: <b>Hi</b>"])


async def test_the_progress_of_a_job(context: BrowserContext, server: Server) -> None:
    async with (
        elsewhere(server, EXAMPLES / "progress.html") as url,
        strict_page(context, site(url), server.url) as page,
    ):
        await publish(server, "jobs/42", {"percent": 40, "step": "Counting"})
        await page.goto(f"{url}#42")
        await expect(page.locator("p")).to_have_text("Counting")
        await expect(page.get_by_role("progressbar")).to_have_js_property("value", 40)
        job = await asyncio.create_subprocess_exec(
            EXAMPLES / "job.sh", "42", env={**server.env, "NOTIFIER": server.url, "PACE": "0"}
        )
        assert await asyncio.wait_for(job.wait(), 60) == 0
        await expect(page.locator("p")).to_have_text("Done")
        await expect(page.get_by_role("progressbar")).to_have_js_property("value", 100)
        await publish(server, "jobs/42", {"percent": 1, "step": "Again"})
        await page.evaluate("new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)))")
        await expect(page.locator("p")).to_have_text("Done")


async def test_two_people_edit_one_list(context: BrowserContext, server: Server) -> None:
    async with (
        elsewhere(server, EXAMPLES / "list.html") as url,
        strict_page(context, site(url), server.url) as one,
        strict_page(context, site(url), server.url) as other,
    ):
        for page in (one, other):
            await page.goto(url)
        for page, thing in ((one, "Milk"), (other, "<i>Tea</i>"), (one, "Salt")):
            await page.get_by_label("Thing").fill(thing)
            await page.get_by_role("button", name="Add").click()
            await expect(one.get_by_label(thing)).to_be_visible()
            await expect(other.get_by_label(thing)).to_be_visible()
        await other.get_by_label("Milk").check()
        await expect(one.get_by_label("Milk")).to_be_checked()
        await one.locator("li", has_text="Salt").get_by_role("button", name="Remove").click()
        await expect(other.locator("li")).to_have_count(2)
        late = await context.new_page()
        await late.goto(url)
        await expect(late.locator("label")).to_have_text([" <i>Tea</i>", " Milk"])  # by their newest message
        await expect(late.get_by_label("Milk")).to_be_checked()


async def test_a_bell_with_what_is_unread_in_a_table(
    context: BrowserContext, server: Server, database: str, tmp_path: Path
) -> None:
    port = free_port()
    origin = f"http://localhost:{port}"
    secret = "a-secret-of-32-bytes-or-more-for-tests"
    server.env |= {"NOTIFIER_JWT_SECRET": secret, "NOTIFIER_ORIGINS": origin}
    await asyncio.to_thread(server.restart)
    sql = await asyncpg.connect(database)
    await sql.execute((EXAMPLES / "bell.sql").read_text())
    await sql.execute("insert into notification (user_id, text) values (7, 'Old'), (8, 'Not for you')")
    page_file = tmp_path / "bell.html"
    page_file.write_text((EXAMPLES / "bell.html").read_text().replace("http://127.0.0.1:8080", server.url))
    env = {**server.env, "DATABASE_URL": database, "PORT": str(port)}
    app = await asyncio.create_subprocess_exec(sys.executable, EXAMPLES / "bell.py", page_file, env=env)
    try:
        async with strict_page(context, origin, server.url) as page:
            await reached(port)
            await page.goto(origin)
            await expect(page.locator("li")).to_have_text([re.compile("Old")])
            await sql.execute("insert into notification (user_id, text) values (7, '<b>New</b>'), (8, 'Nor this')")
            await expect(page.locator("li")).to_have_text([re.compile("Old"), re.compile("<b>New</b>")])
            await expect(page.locator("output")).to_have_text("2")
            await page.locator("li", has_text="Old").get_by_role("button").click()
            await expect(page.locator("li")).to_have_text([re.compile("<b>New</b>")])
            await page.reload()
            await expect(page.locator("li")).to_have_text([re.compile("<b>New</b>")])
    finally:
        app.terminate()
        await app.wait()
        await sql.close()


async def reached(port: int) -> None:
    """Return once somebody listens there."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return writer.close()


async def test_github_live(context: BrowserContext, server: Server) -> None:
    push = {
        "ref": "refs/heads/main",
        "pusher": {"name": "octocat"},
        "commits": [{}, {}],
        "repository": {"full_name": "octo/hello"},
    }
    async with (
        elsewhere(server, EXAMPLES / "github.html") as url,
        strict_page(context, site(url), server.url) as page,
    ):
        await publish(server, "github/octo/hello/push", push)
        await page.goto(url)
        await publish(server, "github/octo/fork", {"repository": {"full_name": "octo/hello"}})
        await expect(page.locator("li")).to_have_text(
            ["octo/hello fork", "octo/hello octocat pushed 2 commits to main"]
        )
