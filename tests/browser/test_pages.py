"""How the console and its files are served."""

import re

import pytest
from conftest import Running

FILES = {
    "/": "text/html",
    "/topics": "text/html",
    "/client.js": "text/javascript",
    "/client/tabs.js": "text/javascript",
    "/console/console.js": "text/javascript",
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
        assert response.headers["Cache-Control"] == "no-cache"
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


async def test_the_page_needs_no_key_because_it_holds_no_data(start) -> None:
    app = await start(admin_keys=("s3cret-but-long-enough-for-anyone",))
    for path in FILES:
        async with app.client.get(path) as response:
            assert response.status == 200
