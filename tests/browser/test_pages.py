"""How the console and its files are served."""

import json
import re
from base64 import b64encode
from html import escape, unescape

import pytest
from conftest import Running, Start

from notifier.core.messages import NewMessage

FILES = {
    "/": "text/html",
    "/topics": "text/html",
    "/client.js": "text/javascript",
    "/client/tabs.js": "text/javascript",
    "/console/console.js": "text/javascript",
    "/console/early.js": "text/javascript",
    "/console/json.js": "text/javascript",
    "/console/console.css": "text/css",
    "/icon.svg": "image/svg+xml",
}


@pytest.mark.parametrize("path", FILES)
@pytest.mark.rule("E-6")
async def test_files_have_their_type_and_are_revalidated_each_time(app: Running, path: str) -> None:
    async with app.client.get(path) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == f"{FILES[path]}; charset=utf-8"
        expected = "private, no-cache" if path in ("/", "/topics") else "no-cache"
        assert response.headers["Cache-Control"] == expected
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", list(FILES)[2:])
async def test_an_unchanged_file_is_not_sent_again(app: Running, path: str) -> None:
    async with app.client.get(path) as response:
        etag = response.headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        async with app.client.get(path, headers={"If-None-Match": known}) as response:
            assert (response.status, await response.read()) == (304, b"")
            assert response.headers["ETag"] == etag
    async with app.client.get(path, headers={"If-None-Match": '"other"'}) as response:
        assert response.status == 200


async def test_the_client_is_one_file_and_what_it_loads_later_is_of_its_version(app: Running) -> None:
    async with app.client.get("/client.js") as response:
        client = await response.text()
    assert not re.search(r"^(import|export)\b.* from ", client, re.MULTILINE)
    [later] = set(re.findall(r'await Promise.race\(\[import\("\./(client/tabs\.js\?v=\w+)"\)', client))
    async with app.client.get(f"/{later}") as response:
        assert response.status == 200
        assert "class Tabs" in await response.text()
    async with app.client.get(f"/{later}0") as response:
        assert (response.status, response.headers["Cache-Control"]) == (404, "no-store")
        assert "of another version" in (await response.json())["detail"]
    for module in ("polls.js", "requests.js", "polls.d.ts"):
        async with app.client.get(f"/client/{module}") as response:
            assert response.status == 404


@pytest.mark.parametrize("path", ["/", "/topics"])
async def test_a_page_loads_only_from_its_own_server_and_runs_nothing_inline(app: Running, path: str) -> None:
    async with app.client.get(path) as response:
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
        page = await response.text()
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("img-src") == "'self' blob:"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert "style=" not in page
    assert "onclick=" not in page
    assert "://" not in page.replace('placeholder="https://"', "")


KEY = "s3cret-but-long-enough-for-anyone"


@pytest.mark.rule("A-6")
async def test_the_pages_and_their_files_need_no_key(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    for path in FILES:
        async with app.client.get(path) as response:
            assert response.status == 200


async def page(app: Running, **headers: str) -> str:
    async with app.client.get("/", headers=headers) as response:
        assert response.status == 200
        return await response.text()


@pytest.mark.rule("A-34")
async def test_the_page_has_messages_only_where_its_caller_may_read_them(start: Start, database: str) -> None:
    for settings, allowed in (
        ({}, True),
        ({"open": True}, True),
        ({"public_subscribe": ("**",)}, True),
        ({"public_subscribe": ("secret/*",)}, False),  # the page begins with everything
        ({"public_publish": ("**",)}, False),
        ({"admin_keys": (KEY,)}, False),
    ):
        app = await start(**settings)
        await app.service.publish([NewMessage("secret/topic", b'"payload"')])
        text = await page(app)
        assert (text.count("<li data-id") > 0) == allowed
        assert ("secret/topic" in text) == ("payload" in text) == allowed
    password = b64encode(f"anyone:{KEY}".encode()).decode()
    assert "payload" in await page(app, Authorization=f"Basic {password}")
    assert "payload" not in await page(app, Authorization="Bearer wrong")


@pytest.mark.rule("A-34", "A-4")
async def test_what_another_website_opens_has_no_messages(app: Running) -> None:
    await app.publish("secret/topic")
    for site in ("cross-site", "same-site"):
        assert "secret" not in await page(app, **{"Sec-Fetch-Site": site})
    for site in ("none", "same-origin"):
        assert "secret" in await page(app, **{"Sec-Fetch-Site": site})


async def test_a_wrong_key_for_the_page_counts_as_it_does_anywhere(start: Start) -> None:
    app = await start(admin_keys=("a-good-key",))
    for headers in ({}, {"Authorization": "Bearer a-wrong-key"}):
        async with app.client.get("/", headers=headers) as response:
            assert response.status == 200
    assert app.service.failures.reasons.total() == 1


async def test_the_newest_messages_are_rows_and_only_text(app: Running) -> None:
    attack = "</span><script>alert(1)</script>"
    fields = json.dumps({"title": f"{attack}title", "priority": 5, "tags": [attack] * 9})
    bodies = [
        NewMessage("html", json.dumps(attack).encode()),
        NewMessage("html/text", f"\n {attack}\nsecond".encode(), content_type="text/html"),
        NewMessage("html/titled", b"1", fields=fields),
        NewMessage("zip", b"\xff" * 1400, content_type="application/zip"),
        NewMessage("zip/large", b"\xff" * 50_000, content_type='application/x-"<b>"'),
        NewMessage("json", b'{ "n": [1, "\xc3\xbc\\u00fc"] }'),
        NewMessage("json/large", b'{"n": "' + b"x" * 50_000 + b'"}'),
        NewMessage("text/large", b"t" * 50_000, content_type="text/plain"),
    ]
    await app.service.publish(bodies)
    text = (await page(app)).partition("<template")[0]
    assert "<script>alert" not in text
    assert "<b>" not in text
    found = [unescape(line) for line in re.findall(r'<span class="line(?: title)?">(.*?)</span>\n', text)]
    assert found == [
        "t" * 300,
        '{"n": "' + "x" * 293,
        '{"n":[1,"üü"]}',
        'application/x-"<b>", 50,000 bytes',
        "application/zip, 1,400 bytes",
        f"{attack}title",
        attack,
        f'"{attack}"',
    ]
    assert text.count("priority 5") == 1
    assert text.count(f"<span>{escape(attack, quote=False)}") == 5
    assert re.findall(r'datetime="(.*?)"', text) == [each["time"] for each in (await newest(app, 8))]


async def newest(app: Running, count: int) -> list[dict]:
    """Newest first."""
    return (await app.poll("**", last=count, wait=0))["messages"][::-1]


async def test_there_are_as_many_rows_as_a_screen_shows(app: Running) -> None:
    for _ in range(2):
        await app.service.publish([NewMessage("a", b"1")] * 35)
    ids = re.findall(r'<li data-id="(\d+)"', await page(app))
    assert ids == [message["id"] for message in await newest(app, 40)]
