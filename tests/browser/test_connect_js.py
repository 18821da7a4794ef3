"""`connect()` of `/client.js` in a real Chromium: many subscriptions on one page."""

import asyncio

import pytest
from conftest import Server
from playwright.async_api import Page, Request

from browser.conftest import publish, publish_all

pytestmark = [pytest.mark.all, pytest.mark.asyncio(loop_scope="session")]

# Six subscriptions of one page, by the function that makes no connection of its own: what comes is in `seen`.
FOLLOW_SIX = """async () => {
    const { subscribe } = await import("/client.js");
    window.seen = {};
    for (const name of ["a", "b", "c", "d", "e", "f"]) {
        seen[name] = [];
        (async () => {
            for await (const { data } of subscribe([name, `${name}/*`])) seen[name].push(data);
        })();
    }
}"""


class Underway:
    """How many requests to the API a page has under way, and the most there ever were."""

    def __init__(self, page: Page) -> None:
        self.now: set[Request] = set()
        self.most = 0
        page.on("request", self._begun)
        page.on("requestfinished", lambda request: self.now.discard(request))
        page.on("requestfailed", lambda request: self.now.discard(request))

    def _begun(self, request: Request) -> None:
        if "/v1/" in request.url:
            self.now.add(request)
            self.most = max(self.most, len(self.now))


@pytest.mark.rule("C-18")
async def test_six_subscriptions_of_a_page_wait_with_one_poll_and_each_gets_its_own(page: Page, server: Server) -> None:
    await page.goto(f"{server.url}/icon.svg")
    underway = Underway(page)
    async with page.expect_request(lambda request: "/a,a/*,b,b/*,c" in request.url and "prefer" not in request.headers):
        await page.evaluate(FOLLOW_SIX)
    for name in "abcdef":
        await publish_all(server, name, [1, 2])
        await publish(server, f"{name}/x", 3)
    await page.wait_for_function("Object.values(seen).every(({ length }) => length >= 3)")
    assert await page.evaluate("seen") == {name: [1, 2, 3] for name in "abcdef"}
    assert underway.most <= 2


async def test_history_leads_backwards_page_by_page(page: Page, server: Server) -> None:
    await publish_all(server, "h/1", list(range(5)))
    await page.goto(f"{server.url}/icon.svg")
    pages = await page.evaluate(
        """async () => {
            const { connect } = await import("/client.js");
            const notifier = connect();
            const pages = [];
            for (let before = "latest"; before !== null && pages.length < 9; ) {
                const page = await notifier.history("h/*", { before, last: 2 });
                pages.push(page.messages.map(({ data }) => data));
                before = page.before;
            }
            return pages;
        }"""
    )
    assert [page for page in pages if page] == [[3, 4], [1, 2], [0]]


async def test_a_batch_is_published_whole(page: Page, server: Server) -> None:
    await page.goto(f"{server.url}/icon.svg")
    got = await page.evaluate(
        """async () => {
            const { connect } = await import("/client.js");
            const notifier = connect();
            const messages = notifier.subscribe("batch/*", { after: "latest" });
            const batches = messages.batches();
            const first = batches.next();
            while (notifier.state !== "live") await new Promise((resolve) => notifier.onState(resolve));
            const ids = await notifier.publishAll([
                { topic: "batch/1", data: { n: 1 }, title: "One" },
                { topic: "batch/2", data: "two", tags: ["a", "b"] },
            ]);
            const { value } = await first;
            await batches.return();
            return [ids, value.map(({ id }) => id), value[0].title, value[1].tags];
        }"""
    )
    assert got[0] == got[1]
    assert got[2:] == ["One", ["a", "b"]]


async def test_a_subscription_whose_topic_is_wrong_ends_alone(page: Page, server: Server) -> None:
    await page.goto(f"{server.url}/icon.svg")
    await page.evaluate(
        """async () => {
            const { connect } = await import("/client.js");
            Object.assign(window, { seen: [], ends: [] });
            window.notifier = connect({ onError: ({ detail }) => ends.push(detail) });
            notifier.subscribe("good", ({ data }) => void seen.push(data), { after: "earliest" });
            notifier.subscribe("not good", () => {}, { after: "earliest" });
        }"""
    )
    await page.wait_for_function("ends.length")
    await publish(server, "good", 1)
    await page.wait_for_function("seen.length")
    [sentence] = await page.evaluate("ends")
    assert "'not good' is not a topic" in sentence
    assert await page.evaluate("notifier.state") == "live"


async def test_retry_now_does_not_wait_for_the_next_attempt(page: Page, server: Server) -> None:
    await page.goto(f"{server.url}/icon.svg")
    await page.evaluate(
        """async () => {
            const { connect } = await import("/client.js");
            window.notifier = connect({ onError: () => {} });
            notifier.subscribe("a", () => {});
        }"""
    )
    await page.wait_for_function("notifier.state === 'live'")
    await asyncio.to_thread(server.kill)
    await page.wait_for_function("notifier.state === 'retrying'")
    await asyncio.to_thread(server.start)
    await page.evaluate("notifier.retryNow()")
    await page.wait_for_function("notifier.state === 'live'")


async def test_a_minute_offline_costs_nothing(page: Page, server: Server) -> None:
    await page.clock.install()
    await page.goto(f"{server.url}/icon.svg")
    await page.evaluate(
        """async () => {
            const { connect } = await import("/client.js");
            Object.assign(window, { seen: { "a": [], "b/*": [] }, failures: 0 });
            window.notifier = connect({ onError: () => (failures += 1) });
            for (const topics in seen) notifier.subscribe(topics, ({ data }) => void seen[topics].push(data));
        }"""
    )
    await page.wait_for_function("notifier.state === 'live'")
    await publish(server, "a", 0)
    await page.wait_for_function("seen.a.length")
    await page.context.set_offline(offline=True)
    await page.wait_for_function("notifier.state === 'retrying'")
    await publish_all(server, "a", [1, 2])
    await publish_all(server, "b/1", [3, 4])
    for _ in range(12):
        await page.clock.run_for(5_000)
    await page.wait_for_function("failures > 5")
    await page.context.set_offline(offline=False)
    await page.wait_for_function("Object.values(seen).flat().length >= 5")
    await page.wait_for_function("notifier.state === 'live'")
    assert await page.evaluate("seen") == {"a": [0, 1, 2], "b/*": [3, 4]}


async def test_headers_go_with_each_request_and_one_that_browsers_keep_to_themselves_is_refused(
    page: Page, server: Server
) -> None:
    await page.goto(f"{server.url}/icon.svg")
    async with page.expect_request(lambda request: "/v1/topics/a" in request.url) as asked:
        await page.evaluate(
            """async () => {
                const { connect } = await import("/client.js");
                window.notifier = connect({ headers: { "X-Tenant": "acme" }, onError: () => {} });
                notifier.subscribe("a", () => {});
            }"""
        )
    assert (await (await asked.value).all_headers())["x-tenant"] == "acme"
    for name in ("Cookie", "Host", "Prefer"):
        refused = await page.evaluate(
            """async (name) => {
                const { connect } = await import("/client.js");
                try {
                    connect({ headers: { [name]: "1" } });
                } catch (error) {
                    return String(error);
                }
            }""",
            name,
        )
        assert refused == f"TypeError: the header {name.lower()} cannot be given: the browser or this client sets it"
