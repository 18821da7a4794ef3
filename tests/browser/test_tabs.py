"""Tabs that share a poll, in a real Chromium: opened, closed, stopped and killed, while messages are published.

One run by default; TABS_RUNS and TABS_SEED ask for more, or for another.
"""

import os
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from conftest import Server, until
from playwright.async_api import BrowserContext, CDPSession, Page, Request, Route

from browser.conftest import publish

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

RUNS = int(os.environ.get("TABS_RUNS", "1"))
STEPS = 14

# Each tab follows what all follow, and something of its own; what comes is in `seen`.
FOLLOW = """async ([own, after]) => {
    const { connect } = await import("/client.js");
    Object.assign(window, { seen: [], errors: [] });
    window.notifier = connect({ share: true, onError: (error) => errors.push(error.message) });
    for (const topics of ["all/**", own]) {
        const its = [];
        seen.push(its);
        notifier.subscribe(topics, ({ data }) => void its.push(data), { after });
    }
}"""


@dataclass
class Polls:
    """The tabs that have a poll which waits, and how many of them there were at once.

    One for each tab, because Chromium tells late of what a tab has ended.
    """

    now: dict[Page, Request] = field(default_factory=dict)
    most: int = 0

    def watch(self, page: Page) -> None:
        page.on("request", self._begun)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)

    def _begun(self, request: Request) -> None:
        if "/v1/topics/" in request.url and request.headers.get("prefer") != "wait=0":
            self.now[request.frame.page] = request
            self.most = max(self.most, len(self.now))

    def _ended(self, request: Request) -> None:
        if self.now.get(request.frame.page) is request:
            del self.now[request.frame.page]

    def forget(self, page: Page) -> None:
        self.now.pop(page, None)


@dataclass
class Tab:
    page: Page
    devtools: CDPSession
    name: str
    first: int  # of what is published to all, the first that it must see
    own: int = 0  # how much was published for it alone
    stopped: str = ""


class Chaos:
    def __init__(self, context: BrowserContext, server: Server, seed: int) -> None:
        self.context, self.server = context, server
        self.random = random.Random(seed)
        self.tabs: list[Tab] = []
        self.polls = Polls()
        self.published = 0
        self.opened = 0
        self.cursor = ""

    async def open(self) -> None:
        if len(self.tabs) >= 6:
            return
        page = await self.context.new_page()
        self.polls.watch(page)
        await page.route("**/client/tabs.js?*", impatient)
        await page.goto(f"{self.server.url}/icon.svg")
        self.opened += 1
        tab = Tab(page, await self.context.new_cdp_session(page), f"own/{self.opened}", self.published)
        await page.evaluate(FOLLOW, [tab.name, self.cursor])
        self.tabs.append(tab)

    async def close(self) -> None:
        if len(self.tabs) < 3:
            return
        tab = self.tabs.pop(self.random.randrange(len(self.tabs)))
        await self.resume(tab)
        await tab.page.close()
        self.polls.forget(tab.page)

    async def kill(self) -> None:
        """The tab that leads dies without a word."""
        leaders = [tab for tab in self.tabs if tab.page in self.polls.now]
        if len(self.tabs) < 3 or not leaders:
            return
        tab = leaders[0]
        self.tabs.remove(tab)
        await tab.devtools.detach()
        await tab.page.close(run_before_unload=False)
        self.polls.forget(tab.page)

    async def stop(self) -> None:
        """A tab stops: at a breakpoint, or because the browser freezes it."""
        running = [tab for tab in self.tabs if not tab.stopped]
        if len(running) < 2:
            return
        tab = self.random.choice(running)
        tab.stopped = self.random.choice(["breakpoint", "frozen"])
        if tab.stopped == "breakpoint":
            await tab.devtools.send("Debugger.enable")
            await tab.devtools.send("Debugger.pause")
        else:
            await tab.devtools.send("Page.setWebLifecycleState", {"state": "frozen"})

    async def resume(self, tab: Tab) -> None:
        if tab.stopped == "breakpoint":
            await tab.devtools.send("Debugger.disable")
        elif tab.stopped:
            await tab.devtools.send("Page.setWebLifecycleState", {"state": "active"})
        tab.stopped = ""

    async def go_on(self) -> None:
        for tab in self.tabs:
            if tab.stopped:
                await self.resume(tab)
                return

    async def publish(self) -> None:
        for _ in range(self.random.randrange(1, 8)):
            self.cursor = await publish(self.server, f"all/{self.random.randrange(5)}", self.published)
            self.published += 1
        tab = self.random.choice(self.tabs)
        self.cursor = await publish(self.server, tab.name, tab.own)
        tab.own += 1

    async def run(self) -> None:
        self.cursor = await publish(self.server, "before", 0)
        await self.open()
        await self.open()
        for _ in range(STEPS):
            await self.publish()
            await self.random.choice([self.open, self.open, self.close, self.kill, self.stop, self.stop, self.go_on])()
            await self.publish()
        for tab in self.tabs:
            await self.resume(tab)
        await self.publish()
        for tab in self.tabs:
            counts = [self.published - tab.first, tab.own]
            there = "counts => seen.every(({ length }, at) => length >= counts[at])"
            await tab.page.wait_for_function(there, arg=counts)
            assert await tab.page.evaluate("seen") == [list(range(tab.first, self.published)), list(range(tab.own))]
            assert await tab.page.evaluate("errors") == []
        # However often the lead was taken from tabs that could not end their polls: in the end there is one.
        await until(lambda: len(self.polls.now) == 1, "one poll")


async def impatient(route: Route) -> None:
    """The client, which takes the lead from a tab that has been silent for a second."""
    source = await (await route.fetch()).text()
    for name, value in (("MUTE", "1_000"), ("WATCH", "200")):
        source, count = re.subn(rf"^const {name} = .*?;", f"const {name} = {value};", source, flags=re.MULTILINE)
        assert count == 1
    await route.fulfill(content_type="text/javascript", body=source)


@pytest.mark.rule("C-19")
@pytest.mark.parametrize("run", range(RUNS))
async def test_whatever_happens_to_tabs_each_gets_every_message_once_and_in_order(
    context: BrowserContext, server: Server, run: int
) -> None:
    seed = int(os.environ.get("TABS_SEED", "7")) + run
    await Chaos(context, server, seed).run()


async def test_seven_tabs_load_and_the_seventh_can_publish(context: BrowserContext, server: Server) -> None:
    """A browser opens six connections to an origin: without a poll in common the seventh tab would wait for them."""
    polls = Polls()
    pages = [await context.new_page() for _ in range(7)]
    said: list[str] = []
    for page in pages:
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda line: said.append(f"{line.text} {line.location['url']}"))
    after = await publish(server, "before", 0)
    for number, page in enumerate(pages):
        polls.watch(page)
        await page.goto(f"{server.url}/icon.svg")
        await page.evaluate(FOLLOW, [f"own/{number}", after])
        await page.wait_for_function("notifier.state === 'live'")
    for number in range(7):
        await pages[-1].evaluate("number => notifier.publish(`own/${number}`, number)", number)
    await pages[-1].evaluate("notifier.publish('all/1', 'to all')")
    for number, page in enumerate(pages):
        await page.wait_for_function("seen.every(({ length }) => length)")
        assert await page.evaluate("[seen, errors]") == [[["to all"], [number]], []]
    assert polls.most <= 2
    # What the browser wants by itself, for a picture that is opened like a page, is not ours.
    assert [line for line in said if not line.endswith("/favicon.ico")] == []


async def gone(route: Route) -> None:
    """As a service answers that is of another version meanwhile."""
    await route.fulfill(status=404, json={"code": "not_found"}, content_type="application/problem+json")


async def out_of_reach(route: Route) -> None:
    await route.abort("internetdisconnected")


async def never(route: Route) -> None:
    pass


@pytest.mark.parametrize("answered", [gone, out_of_reach, never])
async def test_a_tab_that_cannot_load_what_it_shares_its_poll_by_polls_alone_and_says_so(
    context: BrowserContext, server: Server, answered: Callable[[Route], Awaitable[None]]
) -> None:
    after = await publish(server, "before", 0)
    said: list[str] = []
    for number in range(2):
        page = await context.new_page()
        page.on("console", lambda line: said.append(line.text))
        await page.route("**/client/tabs.js?*", answered)
        await page.clock.install()
        await page.goto(f"{server.url}/icon.svg")
        async with page.expect_request(lambda request: "/v1/" in request.url and "prefer" not in request.headers):
            await page.evaluate(FOLLOW, [f"own/{number}", after])
            if answered is never:
                await page.wait_for_function("notifier.state === 'live'")
                await page.clock.run_for(15_000)
        await publish(server, f"own/{number}", number)
        await page.wait_for_function("seen[1].length")
        assert await page.evaluate("[seen, errors]") == [[[], [number]], []]
    assert len([line for line in said if "polls alone, because tabs.js cannot be loaded" in line]) == 2


@pytest.mark.parametrize("token", ["a.eyJzdWIiOiI3IiwiZXhwIjoxfQ.b", "nk_1_secret"])
async def test_tabs_of_different_users_share_nothing(context: BrowserContext, server: Server, token: str) -> None:
    names: list[list[str]] = []
    for of in (token, token, "another", token.replace("wIjoxf", "wIjoyf")):
        page = await context.new_page()
        await page.route("**/v1/**", answered)
        await page.goto(f"{server.url}/icon.svg")
        await page.evaluate(
            """async (token) => {
                const { connect } = await import("/client.js");
                connect({ share: true, token }).subscribe("a", () => {});
            }""",
            of,
        )
        await page.wait_for_function("navigator.locks.query().then(({ held }) => held.length)")
        locks = await page.evaluate("navigator.locks.query()")
        names.append(sorted({lock["name"] for lock in locks["held"] + locks["pending"]}))
    # A token with another time, but the same claims, is for the same user; of a key, nothing can be read.
    assert [len(each) for each in names] == [1, 1, 2, 2]
    assert not any("secret" in name for each in names for name in each)


async def answered(route: Route) -> None:
    headers = {"Preference-Applied": "wait=0"}
    if "prefer" in route.request.headers:
        await route.fulfill(json={"messages": [], "cursor": "1"}, headers=headers)
