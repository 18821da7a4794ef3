"""The page at `/`, in a real Chromium against a real server."""

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from conftest import Server
from playwright.async_api import Browser, Page, Route, expect

from browser.conftest import publish, publish_all

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]


async def opened(page: Page, server: Server, hash_: str = "") -> Page:
    """The console, live."""
    await page.goto(f"{server.url}/{hash_}")
    await live(page)
    return page


async def live(page: Page) -> None:
    await expect(page.locator("#now")).to_have_attribute("data-state", "live")


@pytest_asyncio.fixture(loop_scope="session")
async def console(page: Page, server: Server) -> AsyncIterator[Page]:
    yield await opened(page, server)


async def shown(page: Page) -> list[str]:
    """The payloads on the page, oldest first."""
    return (await page.locator("#messages pre").all_text_contents())[::-1]


async def test_a_message_published_elsewhere_appears_with_all_its_fields(console: Page, server: Server) -> None:
    fields = {"title": "Order 42 is paid", "priority": 4, "tags": "money,eu", "click": "https://shop.example/42"}
    id_ = await publish(server, "orders/42", {"status": "paid"}, **fields)
    message = console.locator(f'[data-id="{id_}"]')
    await expect(message.locator(".topic")).to_have_text("orders/42")
    await expect(message.locator("h3")).to_have_text("Order 42 is paid")
    await expect(message.locator("pre")).to_have_text('{ "status": "paid" }')
    await expect(message.locator(".priority")).to_have_text("priority 4")
    await expect(message.locator(".tags span")).to_have_text(["money", "eu"])
    link = message.locator(".click")
    await expect(link).to_have_attribute("href", "https://shop.example/42")
    await expect(link).to_have_attribute("rel", "noopener noreferrer")
    await expect(message.locator("time")).to_have_attribute("datetime", re.compile(r"^\d{4}-.*Z$"))
    await expect(console.locator("#nothing")).to_be_hidden()
    await expect(console.locator("#news")).to_contain_text("orders/42")


async def test_what_the_page_publishes_comes_back_to_it(console: Page) -> None:
    await console.get_by_label("Topic", exact=True).fill("greetings/de")
    await console.get_by_label("Body").fill("Grüße & <b>Küsse</b>")
    await console.get_by_label("text", exact=True).check()
    await console.get_by_label("Title").fill("Überall ✓")
    await console.get_by_label("Tags").fill("one, two")
    await console.get_by_label("Priority").select_option("5")
    await console.get_by_label("Link").fill("http://example.com/")
    await console.get_by_label("Body").press("Control+Enter")
    await expect(console.locator("#outcome")).to_have_text(re.compile(r"^Published as \d+$"))
    id_ = (await console.locator("#outcome").inner_text()).split()[-1]
    message = console.locator(f'[data-id="{id_}"]')
    await expect(message.locator("pre")).to_have_text("Grüße & <b>Küsse</b>")
    await expect(message.locator("h3")).to_have_text("Überall ✓")
    await expect(message.locator(".tags span")).to_have_text(["one", "two"])
    await expect(message.locator(".click")).to_have_attribute("href", "http://example.com/")


async def test_a_refused_publish_says_why(console: Page) -> None:
    await console.get_by_label("Body").fill("{not json")
    await console.get_by_role("button", name="Publish", exact=True).click()
    await expect(console.locator("#outcome")).to_have_class("error")
    await expect(console.locator("#outcome")).to_contain_text("JSON")


async def test_hostile_messages_are_text(console: Page, server: Server, tmp_path: Path) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    await publish(server, "a", attack, title=attack, tags=attack, click="javascript:alert(3)")
    await publish(server, "b", attack.encode(), content_type="text/html", click=" javascript:alert(4)")
    await publish(server, "c", {attack: attack}, click="data:text/html,<script>alert(5)</script>")
    await expect(console.locator("#messages li")).to_have_count(3)
    first = console.locator("#messages li").last
    await expect(first.locator("h3")).to_have_text(attack)
    await expect(first.locator(".tags")).to_have_text(attack)
    await expect(first.locator("pre")).to_contain_text(attack)
    await expect(console.locator("#messages :is(img, script)")).to_have_count(0)
    for link in await console.locator("#messages .click").all():
        assert await link.get_attribute("href") is None
    await console.screenshot(path=tmp_path / "hostile.png", animations="disabled")


async def test_markup_injected_into_the_page_cannot_run(browser: Browser, server: Server) -> None:
    page = await opened(await browser.new_page(), server)
    async with page.expect_console_message(lambda line: "Content Security Policy" in line.text):
        await page.evaluate("document.body.innerHTML += '<img src=x onerror=\"document.body.id = 1\">'")
    assert await page.evaluate("document.body.id") == ""
    await page.close()


async def test_bytes_are_shown_by_their_size_and_can_be_opened(console: Page, server: Server) -> None:
    id_ = await publish(server, "img", b"\x89PNG\x00\xff" * 700, content_type="image/png")
    message = console.locator(f'[data-id="{id_}"]')
    await expect(message.locator("pre")).to_have_text("image/png, 4,200 bytes")
    async with console.expect_download() as download:
        await message.locator(".raw").click()
    saved = await (await download.value).path()
    assert saved.read_bytes() == b"\x89PNG\x00\xff" * 700


async def test_json_is_shown_as_it_was_published(console: Page, server: Server) -> None:
    source = rb'{"n": 12345678901234567890, "n": [1.0, -0, 1e300], "\u00fc": "\u2713 \"{\u003c\n", "e": [{}, []]}'
    id_ = await publish(server, "a", source)
    await expect(console.locator(f'[data-id="{id_}"] pre')).to_have_text(
        """{
  "n": 12345678901234567890,
  "n": [
    1.0,
    -0,
    1e300
  ],
  "ü": "✓ \\"{<\\n",
  "e": [
    {},
    []
  ]
}"""
    )


async def test_a_long_payload_is_cut_and_says_so(console: Page, server: Server) -> None:
    id_ = await publish(server, "long", b"x" * 500_000, content_type="text/plain")
    message = console.locator(f'[data-id="{id_}"]')
    await expect(message.locator(".raw")).to_have_text(f"cut below, all of {id_}")
    assert len(await message.locator("pre").inner_text()) == 20_001


async def test_topics_and_beginning_are_kept_in_the_address(page: Page, server: Server) -> None:
    await publish(server, "orders/1", "old")
    await publish(server, "other", "foreign")
    await opened(page, server, "#orders/*?from=earliest")
    await expect(page.locator("#messages pre")).to_have_text(['"old"'])
    await page.get_by_label("Topics").fill("other, orders/1")
    await page.get_by_role("button", name="Watch", exact=True).click()
    await expect(page.locator("#messages pre")).to_have_text(['"foreign"', '"old"'])
    assert urlsplit(page.url).fragment == "other,orders/1?from=earliest"
    await page.go_back()
    await expect(page.get_by_label("Topics")).to_have_value("orders/*")
    await expect(page.locator("#messages pre")).to_have_text(['"old"'])


async def test_from_now_on_shows_nothing_old(page: Page, server: Server) -> None:
    await publish(server, "a", "old")
    await opened(page, server, "#a?from=now")
    await publish(server, "a", "new")
    await expect(page.locator("#messages pre")).to_have_text(['"new"'])


async def test_a_topic_leads_to_itself_alone(console: Page, server: Server) -> None:
    await publish(server, "a/1", 1)
    await publish(server, "a/2", 2)
    await console.locator(".topic", has_text="a/1").click()
    await expect(console.locator("#messages pre")).to_have_text(["1"])
    assert urlsplit(console.url).fragment == "a/1"


async def test_pause_holds_messages_back_and_loses_none(console: Page, server: Server) -> None:
    await console.get_by_role("button", name="Pause").click()
    await expect(console.locator("#state")).to_have_text("Paused")
    async with console.expect_response("**/v1/topics/**"):
        await publish(server, "a", 1)
    await publish(server, "a", 2)
    await console.evaluate("new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)))")
    assert await shown(console) == []
    await console.get_by_role("button", name="Resume").click()
    await expect(console.locator("#messages pre")).to_have_text(["2", "1"])
    await live(console)


async def test_clear_removes_only_what_is_shown(console: Page, server: Server) -> None:
    await publish(server, "a", 1)
    await expect(console.locator("#messages pre")).to_have_text(["1"])
    await console.get_by_role("button", name="Clear").click()
    await expect(console.locator("#nothing")).to_be_visible()
    await publish(server, "a", 2)
    await expect(console.locator("#messages pre")).to_have_text(["2"])


async def test_the_page_keeps_the_newest_five_hundred(console: Page, server: Server) -> None:
    await publish_all(server, "many", list(range(620)))
    await expect(console.locator("#messages pre").first).to_have_text("619")
    assert await shown(console) == [str(n) for n in range(120, 620)]


async def test_an_invalid_topic_says_what_is_wrong(console: Page) -> None:
    for topics in ("no?good", "a/../b"):
        await console.get_by_label("Topics").fill(topics)
        await console.get_by_role("button", name="Watch", exact=True).click()
        await expect(console.locator("#topics-error")).to_contain_text("topic")
        await expect(console.get_by_label("Topics")).to_have_attribute("aria-invalid", "true")
        await expect(console.locator("#state")).to_have_text("Stopped")
    await console.get_by_label("Topics").fill("good")
    await console.get_by_role("button", name="Watch", exact=True).click()
    await live(console)
    await expect(console.locator("#topics-error")).to_be_empty()


async def test_a_restart_of_the_server_loses_and_repeats_nothing(console: Page, server: Server) -> None:
    await publish(server, "a", 1)
    await expect(console.locator("#messages pre")).to_have_text(["1"])
    await asyncio.to_thread(server.stop, signal.SIGINT)
    await expect(console.locator("#now")).to_have_attribute("data-state", "retrying")
    await asyncio.to_thread(server.start)
    await publish(server, "a", 2)
    await live(console)
    await expect(console.locator("#messages pre")).to_have_text(["2", "1"])


async def test_a_gap_breaks_the_line_before_the_message_after_it(page: Page, server: Server) -> None:
    async def with_gap(route: Route) -> None:
        response = await route.fetch()
        gap = {"reason": "retention", "after": "41"}
        await route.fulfill(response=response, json=await response.json() | {"gap": gap})

    await publish(server, "a", 1)
    await page.route("**/v1/topics/**", with_gap, times=1)
    await opened(page, server)
    await expect(page.locator("#messages li")).to_contain_text(["a", "after 41 are missing"])


async def test_a_server_with_a_key_asks_for_it(page: Page, server: Server) -> None:
    server.env["NOTIFIER_ADMIN_KEY"] = "s3cret-but-long-enough-for-anyone"
    await asyncio.to_thread(server.restart)
    await page.goto(server.url)
    key = page.get_by_label("Key or token")
    await expect(page.get_by_role("dialog")).to_have_accessible_name("This server asks for a key")
    await expect(page.locator("#key-reason")).to_be_hidden()
    await key.fill("with spaces")
    await page.get_by_role("button", name="Use it").click()
    assert await key.evaluate("key => key.validity.patternMismatch")
    await key.fill("wrong")
    await page.get_by_role("button", name="Use it").click()
    await expect(page.locator("#key-reason")).to_contain_text("is refused. There is no such key")
    await key.fill(server.env["NOTIFIER_ADMIN_KEY"])
    await key.press("Enter")
    await live(page)
    await page.get_by_role("button", name="Publish", exact=True).click()
    await expect(page.locator("#messages pre")).to_have_text(['{ "hello": "world" }'])
    async with page.expect_download() as download:
        await page.locator(".raw").click()
    saved = await (await download.value).path()
    assert saved.read_bytes() == b'{"hello": "world"}'
    raw = re.compile(r"/v1/messages/")
    problem = '{"code": "not_found", "detail": "There is no such message."}'
    await page.route(raw, lambda route: route.fulfill(status=404, body=problem))
    await page.locator(".raw").click()
    await expect(page.locator(".raw")).to_have_text("There is no such message.")
    await page.route(raw, lambda route: route.abort())
    await page.locator(".raw").click()
    await expect(page.locator(".raw")).to_have_text("It cannot be fetched now.")
    await page.reload()
    await live(page)
    assert "s3cret" not in page.url + await page.content()
    assert await page.evaluate("Object.keys(localStorage)") == []
    assert await page.evaluate("document.cookie") == ""
    await page.get_by_role("button", name="Forget the key").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.get_by_role("button", name="Not now").click()
    await expect(page.locator("#state")).to_have_text("Stopped")


async def test_where_no_site_may_store_anything_the_key_is_kept_in_memory(page: Page, server: Server) -> None:
    refused = "{ get() { throw new DOMException('', 'SecurityError') } }"
    await page.add_init_script(f"Object.defineProperty(window, 'sessionStorage', {refused})")
    server.env["NOTIFIER_ADMIN_KEY"] = "s3cret-but-long-enough-for-anyone"
    await asyncio.to_thread(server.restart)
    await page.goto(server.url)
    await page.get_by_label("Key or token").fill(server.env["NOTIFIER_ADMIN_KEY"])
    await page.get_by_label("Key or token").press("Enter")
    await live(page)


async def test_where_something_is_public_a_key_can_still_be_given(page: Page, server: Server) -> None:
    server.env |= {
        "NOTIFIER_ADMIN_KEY": "s3cret-but-long-enough-for-anyone",
        "NOTIFIER_PUBLIC_SUBSCRIBE": "news/**",
    }
    await asyncio.to_thread(server.restart)
    await opened(page, server, "#news/**")
    await page.get_by_label("Topics").fill("**")
    await page.get_by_role("button", name="Watch", exact=True).click()
    await expect(page.locator("#key-reason")).to_have_text("You may not subscribe to **.")
    await page.get_by_label("Key or token").fill(server.env["NOTIFIER_ADMIN_KEY"])
    await page.get_by_label("Key or token").press("Enter")
    await live(page)


async def test_the_commands_shown_do_what_they_say(console: Page, server: Server, tmp_path: Path) -> None:
    body = """{"it's": "$HOME `id` \\\\ !"}"""
    await console.get_by_label("Topic", exact=True).fill("shell/1")
    await console.get_by_label("Body").fill(body)
    await console.get_by_label("Title").fill("it's & that")
    assert '"id"' in await shell(await console.locator("#publish-command").inner_text(), tmp_path)
    message = console.locator("#messages li").first
    await expect(message.locator("h3")).to_have_text("it's & that")
    await expect(message.locator("pre")).to_have_text("""{ "it's": "$HOME `id` \\\\ !" }""")
    await console.get_by_label("Topics").fill("shell/*, 'x'")
    assert "invalid_topic" in await shell(await console.locator("#watch-command").inner_text(), tmp_path)
    await console.get_by_label("Topics").fill("shell/*")
    assert "$HOME" in await shell(await console.locator("#watch-command").inner_text(), tmp_path)
    await console.get_by_label("text", exact=True).check()
    await console.get_by_label("Body").fill("@/etc/hostname")
    await shell(await console.locator("#publish-command").inner_text(), tmp_path)
    await expect(message.locator("pre")).to_have_text("@/etc/hostname")


async def shell(command: str, cwd: Path) -> str:
    """What a shell prints that a command was pasted into."""
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 820, 1280])
async def test_nothing_overflows_at_any_width_in_light_and_dark(
    browser: Browser, server: Server, tmp_path: Path, scheme: str, width: int
) -> None:
    await publish(
        server, "a/" + "long-" * 40, "w" * 400, title="t" * 200, tags="g" * 100, click="https://x/" + "y" * 300
    )
    await publish(server, "b", {"deep": [{"er": list(range(40))}]}, priority=5)
    page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    await opened(page, server)
    await expect(page.locator("#messages li")).to_have_count(2)
    await page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True, animations="disabled")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 380) == (scheme == "light")
    await page.close()


async def test_every_control_has_a_name_and_can_be_reached_by_keyboard(console: Page) -> None:
    unnamed = await console.evaluate(
        """[...document.querySelectorAll('input, select, textarea, button')]
            .filter((control) => !control.labels?.length && !control.textContent.trim() && !control.ariaLabel)
            .map((control) => control.outerHTML)"""
    )
    assert unnamed == []
    await console.get_by_label("Topics").focus()
    reached = set()
    for _ in range(25):
        await console.keyboard.press("Tab")
        reached.add(await console.evaluate("document.activeElement.id"))
    assert {"from", "topic", "body", "title", "priority", "tags", "click", "pause", "clear"} <= reached


async def test_reduced_motion_is_respected(browser: Browser, server: Server) -> None:
    page = await browser.new_page(reduced_motion="reduce")
    await opened(page, server)
    assert await page.evaluate("getComputedStyle(document.querySelector('.ring')).animationName") == "none"
    await page.close()
