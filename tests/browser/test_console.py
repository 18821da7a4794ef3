"""The page at `/`, in a real Chromium against a real server."""

import asyncio
import re
import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import Server
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from browser.conftest import Opening, complaints, publish, publish_all, strict_page
from browser.console import PAINTED, detail, lines, live, opened, shell, watch
from notifier.web.rows import HUES, hue

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session"), pytest.mark.console_errors()]

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301"
    "0100c9fe92ef0000000049454e44ae426082"
)
KEY = "s3cret-but-long-enough-for-anyone"


# --- rows


async def test_a_message_published_elsewhere_appears_as_a_row(console: Page, server: Server) -> None:
    fields = {"title": "Order 42 is paid", "priority": 4, "tags": "money,eu"}
    id_ = await publish(server, "orders/42", {"status": "paid"}, **fields)
    row = console.locator(f'[data-id="{id_}"]')
    await expect(row.locator(".topic")).to_have_text("orders/42")
    await expect(row.locator(".line")).to_have_text("Order 42 is paid")
    await expect(row.locator(".tags span")).to_have_text(["priority 4", "money", "eu"])
    await expect(row.locator("time")).to_have_attribute("datetime", re.compile(r"^\d{4}-.*Z$"))
    await expect(row.locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    await expect(row.locator(".age")).to_have_text(re.compile(r"^\d+ (ms|s)$"))
    await expect(console.locator("#nothing")).to_be_hidden()
    await expect(console.locator("#news")).to_contain_text("orders/42")


async def test_without_a_title_a_row_shows_the_first_line_of_the_payload(console: Page, server: Server) -> None:
    await publish(server, "a", {"n": 1, "s": "x"})
    await publish(server, "a", b"\n first\nsecond", content_type="text/plain")
    await publish(server, "a", b"\x00\xff" * 700, content_type="application/zip")
    await expect(lines(console)).to_have_text(["application/zip, 1,400 bytes", "first", '{"n":1,"s":"x"}'])


async def test_topics_with_the_same_first_segment_have_the_same_colour(console: Page, server: Server) -> None:
    for topic in ("orders/1", "orders/2/x", "weather"):
        await publish(server, topic, 1)
    topics = console.locator("#messages .topic")
    await expect(topics).to_have_count(3)
    weather, *orders = [await topic.evaluate("topic => getComputedStyle(topic).color") for topic in await topics.all()]
    assert orders[0] == orders[1] != weather


async def test_the_page_keeps_the_newest_five_hundred(console: Page, server: Server) -> None:
    await publish_all(server, "many", list(range(620)))
    await expect(lines(console).first).to_have_text("619")
    assert await lines(console).all_text_contents() == [str(n) for n in range(619, 119, -1)]


async def test_a_burst_is_drawn_at_once(page: Page, server: Server) -> None:
    for first in range(0, 5_000, 1_000):
        await publish_all(server, "many", list(range(first, first + 1_000)))
    await opened(page, server, "#many?from=earliest")
    await expect(lines(page).first).to_have_text("4999")
    assert await page.locator("#messages li").count() == 500


async def test_a_gap_is_a_row_before_the_message_after_it(page: Page, server: Server) -> None:
    async def with_gap(route: Route) -> None:
        response = await route.fetch()
        gap = {"reason": "retention", "after": "41"}
        await route.fulfill(response=response, json=await response.json() | {"gap": gap})

    await publish(server, "a", 1)
    await page.route("**/v1/topics/**", with_gap, times=1)
    await opened(page, server)
    await expect(page.locator("#messages li")).to_contain_text(["a", "after 41 are missing"])


async def test_what_the_reader_looks_at_does_not_move(console: Page, server: Server) -> None:
    await publish_all(server, "a", list(range(100)))
    await expect(lines(console).first).to_have_text("99")
    await console.locator("#feed").evaluate("feed => feed.scrollTo(0, 500)")
    await publish(server, "a", "one")
    await expect(console.locator("#news-above")).to_have_text("1 new message")
    await publish(server, "a", "two")
    await expect(console.locator("#news-above")).to_have_text("2 new messages")
    assert await console.locator("#feed").evaluate("feed => feed.scrollTop") == 500
    await expect(lines(console).first).to_have_text("99")
    await console.locator("#news-above").click()
    await expect(lines(console).first).to_have_text('"two"')
    await expect(console.locator("#news-above")).to_be_hidden()
    assert await lines(console).count() == 102


async def test_the_filter_shows_rows_with_all_words_and_without_others(console: Page, server: Server) -> None:
    await publish(server, "orders/1", {"status": "paid"}, title="An order", tags="eu")
    await publish(server, "orders/2", {"status": "new"})
    await publish(server, "weather", "It rains. (a.b*c")
    await expect(lines(console)).to_have_count(3)
    rows = console.locator("#messages li:visible")
    for words, count in (
        ("ORDERS", 2),
        ("orders -new", 1),
        ("paid eu", 1),
        ("(a.b*c", 1),
        ("none", 0),
        ("", 3),
        ("-", 3),
    ):
        await console.get_by_label("Filter").fill(words)
        await expect(rows).to_have_count(count)
    await console.get_by_label("Filter").fill("paid")
    await expect(console.locator("#filtered")).to_have_text("1 of 3 shown")
    await publish(server, "orders/3", {"status": "paid"})
    await publish(server, "orders/4", {"status": "sent"})
    await expect(lines(console)).to_have_count(5)
    await expect(rows).to_have_count(2)


# --- history


async def scroll_down(page: Page) -> None:
    await page.locator("#feed").evaluate("feed => feed.scrollTo(0, feed.scrollHeight)")


async def test_scrolling_brings_what_is_older(page: Page, server: Server) -> None:
    await publish_all(server, "a", list(range(350)))
    await publish(server, "other", "foreign")
    await opened(page, server, "#a")
    await expect(lines(page)).to_have_count(100)
    for count in (200, 300, 350):
        await scroll_down(page)
        await expect(lines(page)).to_have_count(count)
    await expect(page.locator("#older")).to_have_text("The beginning")
    assert await lines(page).all_text_contents() == [str(n) for n in range(349, -1, -1)]


async def test_far_back_the_rows_of_now_go_and_one_click_leads_back(page: Page, server: Server) -> None:
    await publish_all(server, "a", list(range(700)))
    await opened(page, server, "#a")
    await expect(lines(page)).to_have_count(100)
    for below in (500, 400, 300, 200, 100):
        await scroll_down(page)
        await expect(lines(page).last).to_have_text(str(below))
    await scroll_down(page)
    await expect(page.locator("#older")).to_have_text("The beginning")
    assert await lines(page).all_text_contents() == [str(n) for n in range(499, -1, -1)]
    await expect(page.locator("#news-above")).to_have_text("Back to now")
    await publish(server, "a", "new")
    await expect(page.locator("#news-above")).to_have_text("1 new message")
    await page.locator("#news-above").click()
    await expect(lines(page).first).to_have_text('"new"')
    await expect(lines(page).nth(1)).to_have_text("699")


async def test_from_now_on_shows_nothing_old_until_it_is_asked_for(page: Page, server: Server) -> None:
    await publish(server, "a", "old")
    await opened(page, server, "#a?from=now")
    await publish(server, "a", "new")
    await expect(lines(page)).to_have_text(['"new"'])
    await page.get_by_role("button", name="Older messages").click()
    await expect(lines(page)).to_have_text(['"new"', '"old"'])


# --- the open message


async def test_an_open_message_shows_all_its_fields(console: Page, server: Server) -> None:
    fields = {"title": "Order 42", "priority": 4, "tags": "money,eu", "click": "https://shop.example/42"}
    id_ = await publish(server, "orders/42", {"status": "paid"}, **fields)
    panel = await detail(console, id_)
    await expect(panel.locator("h2")).to_have_text("Order 42")
    for text in ("orders/42", "4", "money, eu"):
        await expect(panel.locator("dd").get_by_text(text, exact=True)).to_be_visible()
    link = panel.get_by_role("link", name="https://shop.example/42")
    await expect(link).to_have_attribute("rel", "noopener noreferrer")
    await expect(console.locator(f'[data-id="{id_}"]')).to_have_attribute("aria-current", "true")
    await panel.get_by_role("button", name="Close").click()
    await expect(panel).to_be_hidden()
    await expect(console.locator(f'[data-id="{id_}"] a')).to_be_focused()


async def test_json_is_shown_as_it_was_published_and_folds(console: Page, server: Server) -> None:
    source = rb'{"n": 12345678901234567890, "n": [1.0, -0, 1e300], "\u00fc": "\u2713 \"{\u003c\n", "e": [{}, []]}'
    panel = await detail(console, await publish(server, "a", source))
    text = re.sub(r"\s+", " ", await panel.locator(".tree").inner_text())
    assert '"n": 12345678901234567890, "n": [ 1.0, -0, 1e300 ], "ü": "✓ \\"{<\\n", "e": [ {}, [] ] }' in text
    await panel.locator("summary").nth(1).click()
    await expect(panel.get_by_text("1.0", exact=True)).to_be_hidden()
    await expect(panel.locator(".count").nth(1)).to_have_text("3 …]")
    await panel.get_by_role("button", name="Source").click()
    await expect(panel.locator("pre")).to_have_text(source.decode())
    await expect(panel.locator(".tree")).to_be_hidden()


async def test_hostile_messages_are_text(console: Page, server: Server, tmp_path: Path) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    ids = [
        await publish(server, "a", attack, title=attack, tags=attack, click="javascript:alert(3)"),
        await publish(server, "b", attack.encode(), content_type="text/html", click=" javascript:alert(4)"),
        await publish(server, "c", {attack: attack}, click="data:text/html,<script>alert(5)</script>"),
    ]
    await expect(console.locator("#messages li")).to_have_count(3)
    await expect(lines(console).last).to_have_text(attack)
    for id_ in ids:
        panel = await detail(console, id_)
        await expect(panel).to_contain_text("alert(2)")
        await expect(console.locator(":is(#messages, #detail) :is(img, script)")).to_have_count(0)
        await expect(panel.locator("a:not(.topic)")).to_have_count(0)
    await detail(console, await publish(server, "d", attack.encode(), content_type="image/svg+xml"))
    await expect(console.locator("#detail img")).to_have_count(0)
    await console.screenshot(path=tmp_path / "hostile.png", animations="disabled")


async def test_markup_injected_into_the_page_cannot_run(browser: Browser, server: Server) -> None:
    page = await opened(await browser.new_page(), server)
    async with page.expect_console_message(lambda line: "Content Security Policy" in line.text):
        await page.evaluate("document.body.innerHTML += '<img src=x onerror=\"document.body.id = 1\">'")
    assert await page.evaluate("document.body.id") == ""
    await page.close()


async def test_bytes_are_shown_by_their_size_and_can_be_saved(console: Page, server: Server) -> None:
    panel = await detail(console, await publish(server, "zip", b"\x89Z\x00\xff" * 700, content_type="application/zip"))
    await expect(panel).to_contain_text("application/zip, 2,800 bytes")
    async with console.expect_download() as download:
        await panel.get_by_role("button", name="Download").click()
    saved = await (await download.value).path()
    assert saved.read_bytes() == b"\x89Z\x00\xff" * 700


async def test_a_picture_is_shown(console: Page, server: Server) -> None:
    panel = await detail(console, await publish(server, "img", PNG, content_type="image/png"))
    await expect(panel.get_by_role("img")).to_have_js_property("naturalWidth", 1)


async def test_a_long_payload_is_cut_and_says_so(console: Page, server: Server) -> None:
    panel = await detail(console, await publish(server, "long", b"x" * 500_000, content_type="text/plain"))
    await expect(panel).to_contain_text("480,000 characters more in the download")
    assert len(await panel.locator("pre").inner_text()) == 20_001
    many = await publish(server, "long", list(range(20_000)))
    panel = await detail(console, many)
    await expect(panel).to_contain_text("The rest is in the source.")


@pytest.mark.console_errors("status of 404")
async def test_a_link_to_a_message_works_for_a_colleague(page: Page, server: Server) -> None:
    id_ = await publish(server, "orders/1", {"status": "old"})
    await publish_all(server, "orders/1", list(range(150)))
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await opened(page, server, f"#orders/1?open={id_}")
    panel = page.locator("#detail")
    await expect(panel.locator(".tree")).to_contain_text("old")
    await panel.get_by_role("button", name="Copy link").click()
    assert await page.evaluate("navigator.clipboard.readText()") == f"{server.url}/#orders/1?open={id_}"
    await panel.get_by_role("button", name="Copied").wait_for()
    await page.goto(f"{server.url}/#orders/1?open=1")
    await page.reload()
    await expect(panel.locator(".error")).to_contain_text("There is no message of that id")


# --- publishing


async def test_what_the_page_publishes_comes_back_to_it(console: Page) -> None:
    await console.get_by_role("button", name="Publish").click()
    await expect(console.get_by_label("Topic", exact=True)).to_be_focused()
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
    await console.keyboard.press("Escape")
    await expect(console.locator("#publishing")).to_be_hidden()
    await expect(console.locator(f'[data-id="{id_}"] .tags span')).to_have_text(["priority 5", "one", "two"])
    panel = await detail(console, id_)
    await expect(panel.locator("pre")).to_have_text("Grüße & <b>Küsse</b>")
    await expect(panel.get_by_role("link", name="http://example.com/")).to_be_visible()


@pytest.mark.console_errors("status of 400")
async def test_a_refused_publish_says_why(console: Page) -> None:
    await console.keyboard.press("p")
    await console.get_by_label("Body").fill("{not json")
    await console.locator("#publishing").get_by_role("button", name="Publish", exact=True).click()
    await expect(console.locator("#outcome")).to_have_class("error")
    await expect(console.locator("#outcome")).to_contain_text("JSON")


async def test_an_empty_feed_offers_three_ways_to_make_a_row(page: Page, server: Server, tmp_path: Path) -> None:
    await opened(page, server, "#orders/*")
    await page.get_by_role("button", name="Send a test message").click()
    await expect(lines(page)).to_have_text(["It works"])
    assert '"id"' in await shell(await page.locator("#try-curl").inner_text(), tmp_path)
    await expect(lines(page).first).to_have_text('{"from":"curl"}')
    assert (
        await page.locator("#try-sql").inner_text() == """select notifier.publish('orders/hello', '{"from": "SQL"}');"""
    )


# --- the bar


async def test_topics_and_beginning_are_kept_in_the_address(page: Page, server: Server) -> None:
    await publish(server, "orders/1", "old")
    await publish(server, "other", "foreign")
    await opened(page, server, "#orders/*?from=earliest")
    await expect(lines(page)).to_have_text(['"old"'])
    await watch(page, "other, orders/1")
    await expect(lines(page)).to_have_text(['"foreign"', '"old"'])
    assert urlsplit(page.url).fragment == "other,orders/1?from=earliest"
    await page.go_back()
    await expect(page.get_by_label("Topics")).to_have_value("orders/*")
    await expect(lines(page)).to_have_text(['"old"'])
    await page.get_by_label("Start from").select_option("1h")
    await live(page)
    assert urlsplit(page.url).fragment == "orders/*?from=1h"
    await expect(lines(page)).to_have_text(['"old"'])


async def test_the_topic_of_an_open_message_leads_to_it_alone(console: Page, server: Server) -> None:
    id_ = await publish(server, "a/1", 1)
    await publish(server, "a/2", 2)
    panel = await detail(console, id_)
    await panel.locator(".topic").click()
    await expect(lines(console)).to_have_text(["1"])
    assert urlsplit(console.url).fragment.startswith("a/1")


async def test_pause_holds_messages_back_and_loses_none(console: Page, server: Server) -> None:
    await console.get_by_role("button", name="Pause").click()
    await expect(console.locator("#state")).to_have_text("Paused")
    async with console.expect_response("**/v1/topics/**"):
        await publish(server, "a", 1)
    await publish(server, "a", 2)
    await console.evaluate(PAINTED)
    assert await lines(console).count() == 0
    await console.get_by_role("button", name="Resume").click()
    await expect(lines(console)).to_have_text(["2", "1"])
    await live(console)


async def test_clear_removes_only_what_is_shown(console: Page, server: Server) -> None:
    await publish(server, "a", 1)
    await expect(lines(console)).to_have_text(["1"])
    await console.get_by_role("button", name="Clear").click()
    await expect(console.locator("#nothing")).to_be_visible()
    await publish(server, "a", 2)
    await expect(lines(console).first).to_have_text("2")


@pytest.mark.console_errors("status of 400")
async def test_an_invalid_topic_says_what_is_wrong(console: Page) -> None:
    colour = "getComputedStyle(document.querySelector('#dot')).backgroundColor"
    good = await console.evaluate(colour)
    for topics in ("no?good", "a/../b"):
        await watch(console, topics)
        await expect(console.locator("#topics-error")).to_contain_text("topic")
        await expect(console.get_by_label("Topics")).to_have_attribute("aria-invalid", "true")
        await expect(console.locator("#state")).to_have_text("Stopped")
        assert await console.evaluate(colour) != good
    await watch(console, "good")
    await live(console)
    assert await console.evaluate(colour) == good
    await expect(console.locator("#topics-error")).to_be_empty()


@pytest.mark.console_errors("net::ERR_")
async def test_a_restart_of_the_server_loses_and_repeats_nothing(console: Page, server: Server) -> None:
    await publish(server, "a", 1)
    await expect(lines(console)).to_have_text(["1"])
    await asyncio.to_thread(server.stop, signal.SIGINT)
    await expect(console.locator("#now")).to_have_attribute("data-state", "retrying")
    await asyncio.to_thread(server.start)
    await publish(server, "a", 2)
    await live(console)
    await expect(lines(console)).to_have_text(["2", "1"])
    await expect(console.get_by_role("button", name="Reconnect now")).to_be_hidden()


async def test_seven_tabs_load_and_publish(context: BrowserContext, server: Server) -> None:
    async with AsyncExitStack() as stack:
        tabs = [await stack.enter_async_context(strict_page(context, server.url, errors=())) for _ in range(7)]
        for n, tab in enumerate(tabs):
            await opened(tab, server, f"#tabs/{n},all")
        for tab in tabs:
            await tab.get_by_role("button", name="Send a test message").click()
            await expect(lines(tab)).to_have_text(["It works"])
        await publish(server, "all", "for all")
        for tab in tabs:
            await expect(lines(tab)).to_have_text(['"for all"', "It works"])


@pytest.mark.console_errors("status of 503")
async def test_a_click_connects_again_at_once(page: Page, server: Server) -> None:
    polls = "**/v1/topics/**"
    await page.route(polls, lambda route: route.fulfill(status=503, headers={"Retry-After": "3000"}))
    await page.goto(server.url)
    await expect(page.locator("#reason")).to_contain_text(re.compile(r"in 3\d\d\d s"))
    await page.unroute(polls)
    await page.get_by_role("button", name="Reconnect now").click()
    await live(page)


async def test_the_keyboard_does_it_all(console: Page, server: Server) -> None:
    ids = [await publish(server, "a", n) for n in range(3)]
    await expect(lines(console)).to_have_text(["2", "1", "0"])
    for key, id_ in (("j", ids[2]), ("j", ids[1]), ("j", ids[0]), ("j", ids[0]), ("k", ids[1])):
        await console.keyboard.press(key)
        await expect(console.locator("#messages [aria-current]")).to_have_attribute("data-id", id_)
    await console.keyboard.press("Enter")
    await expect(console.locator("#detail")).to_contain_text(ids[1])
    await console.keyboard.press("k")
    await expect(console.locator("#detail")).to_contain_text(ids[2])
    await console.keyboard.press("Escape")
    await expect(console.locator("#detail")).to_be_hidden()
    await console.keyboard.press(" ")
    await expect(console.locator("#state")).to_have_text("Paused")
    await console.keyboard.press(" ")
    await live(console)
    await console.keyboard.press("?")
    await expect(console.get_by_role("dialog", name="Keyboard")).to_be_visible()
    await console.keyboard.press("Escape")
    await console.keyboard.press("/")
    await expect(console.get_by_label("Filter")).to_be_focused()
    await console.keyboard.type("jp ?")
    await expect(console.get_by_label("Filter")).to_have_value("jp ?")


# --- the key


@pytest.mark.console_errors("status of 401", "status of 404", "net::ERR_FAILED")
async def test_a_server_with_a_key_asks_for_it(page: Page, server: Server) -> None:
    server.env["NOTIFIER_ADMIN_KEY"] = KEY
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
    await key.fill(KEY)
    await key.press("Enter")
    await live(page)
    id_ = await publish(server, "a", {"hello": "world"})
    await publish(server, "img", PNG, content_type="image/png")
    panel = await detail(page, id_)
    async with page.expect_download() as download:
        await panel.get_by_role("button", name="Download").click()
    saved = await (await download.value).path()
    assert saved.read_bytes() == b'{"hello": "world"}'
    raw = re.compile(r"/v1/messages/")
    problem = '{"code": "not_found", "detail": "There is no such message."}'
    await page.route(raw, lambda route: route.fulfill(status=404, body=problem))
    await panel.get_by_role("button", name="Download").click()
    await expect(panel.get_by_role("button", name="There is no such message.")).to_be_visible()
    await page.unroute(raw)
    await page.route(raw, lambda route: route.abort())
    await page.locator("#messages a").first.click()
    await expect(panel.locator(".error")).to_have_text("The server cannot be reached now.")
    await page.reload()
    await live(page)
    assert KEY not in page.url + await page.content()
    assert await page.evaluate("Object.keys(localStorage)") == []
    assert await page.evaluate("document.cookie") == ""
    await page.get_by_role("button", name="Forget the key").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.get_by_role("button", name="Not now").click()
    await expect(page.locator("#state")).to_have_text("Stopped")


@pytest.mark.console_errors("status of 401")
async def test_where_no_site_may_store_anything_the_key_is_kept_in_memory(page: Page, server: Server) -> None:
    refused = "{ get() { throw new DOMException('', 'SecurityError') } }"
    await page.add_init_script(f"Object.defineProperty(window, 'sessionStorage', {refused})")
    server.env["NOTIFIER_ADMIN_KEY"] = KEY
    await asyncio.to_thread(server.restart)
    await page.goto(server.url)
    await page.get_by_label("Key or token").fill(KEY)
    await page.get_by_label("Key or token").press("Enter")
    await live(page)


@pytest.mark.console_errors("status of 403")
async def test_where_something_is_public_a_key_can_still_be_given(page: Page, server: Server) -> None:
    server.env |= {"NOTIFIER_ADMIN_KEY": KEY, "NOTIFIER_PUBLIC_SUBSCRIBE": "news/**"}
    await asyncio.to_thread(server.restart)
    await opened(page, server, "#news/**")
    await watch(page, "**")
    await expect(page.locator("#key-reason")).to_have_text("You may not subscribe to **.")
    await page.get_by_label("Key or token").fill(KEY)
    await page.get_by_label("Key or token").press("Enter")
    await live(page)


async def test_the_commands_shown_do_what_they_say(console: Page, server: Server, tmp_path: Path) -> None:
    body = """{"it's": "$HOME `id` \\\\ !"}"""
    await console.keyboard.press("p")
    await console.get_by_label("Topic", exact=True).fill("shell/1")
    await console.get_by_label("Body").fill(body)
    await console.get_by_label("Title").fill("it's & that")
    assert '"id"' in await shell(await console.locator("#publish-command").inner_text(), tmp_path)
    await expect(lines(console).first).to_have_text("it's & that")
    id_ = await console.locator("#messages li").first.get_attribute("data-id")
    assert id_
    panel = await detail(console, id_)
    await panel.get_by_role("button", name="Source").click()
    await expect(panel.locator("pre")).to_have_text(body)
    await console.get_by_label("text", exact=True).check()
    await console.get_by_label("Body").fill("@/etc/hostname")
    await console.get_by_label("Title").fill("")
    await shell(await console.locator("#publish-command").inner_text(), tmp_path)
    await expect(lines(console).first).to_have_text("@/etc/hostname")
    for topics, found in (("shell/*, 'x'", "invalid_topic"), ("shell/*", "$HOME")):
        await console.get_by_label("Topics").fill(topics)
        assert found in await shell(await console.locator("#watch-command").text_content() or "", tmp_path)


# --- looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 820, 1280, 1920])
async def test_nothing_overflows_at_any_width_in_light_and_dark(
    strict: Opening, server: Server, tmp_path: Path, scheme: str, width: int
) -> None:
    id_ = await publish(
        server, "a/" + "long-" * 40, "w" * 400, title="t" * 200, tags="g" * 100, click="https://x/" + "y" * 300
    )
    await publish(server, "b", {"deep": [{"er": list(range(40))}]}, priority=5)
    async with strict(viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        await opened(page, server)
        await expect(page.locator("#messages li")).to_have_count(2)
        for state in ("feed", "detail", "publishing"):
            if state == "detail":
                await detail(page, id_)
            if state == "publishing":
                await page.keyboard.press("p")
            await page.screenshot(path=tmp_path / f"{scheme}-{width}-{state}.png", animations="disabled")
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert await page.evaluate(
                "[...document.querySelectorAll('button, input, select')].every((control) =>"
                " !control.checkVisibility() || control.getBoundingClientRect().right <= innerWidth)"
            )
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) > 380) == (scheme == "light")


async def test_every_control_has_a_name_and_can_be_reached_by_keyboard(console: Page) -> None:
    unnamed = await console.evaluate(
        """[...document.querySelectorAll('input, select, textarea, button')]
            .filter((control) => !control.labels?.length && !control.textContent.trim() && !control.ariaLabel)
            .map((control) => control.outerHTML)"""
    )
    assert unnamed == ['<button id="news-above" type="button" class="primary" hidden=""></button>']
    await console.keyboard.press("p")
    await console.get_by_label("Topics").focus()
    reached = set()
    for _ in range(30):
        await console.keyboard.press("Tab")
        reached.add(await console.evaluate("document.activeElement.id"))
    assert {
        "from",
        "filter",
        "pause",
        "clear",
        "older",
        "topic",
        "body",
        "title",
        "priority",
        "tags",
        "click",
    } <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.console_errors("status of 400")
async def test_axe_finds_nothing_in_any_state(
    strict: Opening, server: Server, axe: str, scheme: str, width: int
) -> None:
    viewport = {"width": width, "height": 800}
    async with strict(viewport=viewport, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as page:
        found = partial(complaints, axe, page)
        await opened(page, server)
        assert await found() == []
        for topic in ("orders/1", "weather/home", "builds", "x", "deploys", "stripe", "github/a", "alerts"):
            id_ = await publish(
                server, topic, {"n": [1, "a", None, {"b": True}]}, title="Title", priority=5, tags="a,b"
            )
            await publish(server, topic, "untitled")
        await expect(page.locator("#messages li")).to_have_count(16)
        assert await found() == []
        await detail(page, id_)
        assert await found() == []
        await page.keyboard.press("p")
        assert await found() == []
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await page.keyboard.press("?")
        assert await found() == []
        await page.keyboard.press("Escape")
        await page.get_by_label("Minute of the last hour").fill("3")
        await expect(page.locator("#older")).to_have_text("The beginning")
        assert await found() == []
        await watch(page, "no?good")
        await expect(page.locator("#state")).to_have_text("Stopped")
        assert await found() == []


async def test_every_colour_of_topics_can_be_read_on_every_ground(strict: Opening, server: Server, axe: str) -> None:
    """Axe looks at what is on the page; topics have one of 24 colours."""
    topics: dict[int, str] = {}
    for n in range(1000):
        topics.setdefault(hue(f"{n:x}"), f"{n:x}")
    assert len(topics) == HUES
    for topic in topics.values():
        await publish(server, topic, 1)
    for scheme in ("light", "dark"):
        async with strict(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as page:
            await opened(page, server)
            await expect(lines(page)).to_have_count(HUES)
            colours = page.locator("#messages .topic")
            shown = {await each.evaluate("topic => getComputedStyle(topic).color") for each in await colours.all()}
            assert len(shown) == HUES
            assert await complaints(axe, page) == []


async def test_reduced_motion_is_respected(strict: Opening, server: Server) -> None:
    async with strict(reduced_motion="reduce") as page:
        await opened(page, server)
        await publish(server, "a", 1)
        await expect(lines(page)).to_have_count(1)
        assert await page.evaluate("document.getAnimations().length") == 0
