"""What publishers are used to from curl and ntfy: it works, or is refused with a sentence and nothing is stored."""

import asyncio
import re
from pathlib import Path

import pytest
from conftest import Running, Start, ids
from support.protocol import JSON, TEXT, exactly, line, refusal

MEANT = "Müll für Zoë"


async def messages(app: Running, topic: str = "t") -> list[dict]:
    answer = await app.poll(topic, after="earliest", wait=0)
    return [{k: v for k, v in m.items() if k not in {"id", "topic", "time"}} for m in answer["messages"]]


@pytest.mark.rule("P-8", "P-22")
@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        (
            {"X-Title": "T", "X-Priority": "high", "X-Tags": "a,b", "X-Click": "https://example.com/"},
            {"title": "T", "priority": 4, "tags": ["a", "b"], "click": "https://example.com/"},
        ),
        ({"t": "T", "p": "5", "ta": "a"}, {"title": "T", "priority": 5, "tags": ["a"]}),
        ({"Prio": "min", "Tag": "a", "X-Firebase": "no", "Cache": "yes"}, {"priority": 1, "tags": ["a"]}),
    ],
)
async def test_the_names_of_ntfy_are_understood(app: Running, headers: dict, fields: dict) -> None:
    async with app.client.put("/v1/topics/t", data=b"hi", headers=TEXT | headers) as response:
        assert response.status == 201
    assert await messages(app) == [{"data": "hi", "content_type": "text/plain"} | fields]


@pytest.mark.rule("P-8")
async def test_a_title_arrives_as_it_was_meant_however_it_is_encoded(app: Running) -> None:
    encoded = [MEANT.encode(), MEANT.encode("latin-1"), b"=?utf-8?B?TcO8bGwgZsO8ciBab8Or?="]
    async with line(app) as raw:
        for title in encoded:
            await raw.send("POST /v1/topics/t HTTP/1.1", b"X-Title: " + title, "Content-Length: 1", body=b"1")
            assert (await raw.answer()).status == 201
    assert [message["title"] for message in await messages(app)] == [MEANT] * len(encoded)


@pytest.mark.rule("P-9")
async def test_two_names_for_one_field_are_one_too_many(app: Running) -> None:
    for headers, query in (({"Title": "a", "X-Title": "b"}, ""), ({"t": "a"}, "?title=b"), ({}, "?prio=1&priority=1")):
        response = await app.client.post(f"/v1/topics/t{query}", data=b"1", headers=headers)
        assert "is given twice." in await refusal(response, 400, "bad_request")


@pytest.mark.rule("P-23")
async def test_what_is_not_built_is_refused_and_nothing_is_stored(app: Running) -> None:
    for name, value, because in (
        ("At", "tomorrow, 10am", "Words such as 'tomorrow' are not understood."),
        ("Actions", "view, Open, https://example.com", "There are no action buttons"),
        ("X-Attach", "https://example.com/a.jpg", "There are no attachments"),
        ("Filename", "a.jpg", "There are no attachments"),
        ("E-Mail", "a@example.com", "No e-mail is sent"),
        ("Call", "yes", "No phone is called"),
        ("X-Icon", "https://example.com/a.png", "There are no icons"),
        ("Markdown", "yes", "Content-Type: text/markdown"),
        ("Cache", "no", "stored until its retention ends"),
        ("Template", "github", "There are no templates"),
        ("Message", "hi", "The message is the body"),
        ("X-UnifiedPush", "1", "UnifiedPush is not supported"),
        ("Sequence-ID", "x", "A message is never changed"),
    ):
        response = await app.client.post("/v1/topics/t", data=b"1", headers={name: value})
        assert because in await refusal(response, 400, "bad_request"), name
        if not name.startswith("X-"):
            response = await app.client.post("/v1/topics/t", data=b"1", params={name.lower(): value})
            assert because in await refusal(response, 400, "bad_request"), name
    assert await messages(app) == []
    # Some keep caches away with it.
    async with app.client.post("/v1/topics/t?t=1795657890043", data=b"1") as response:
        assert response.status == 201


@pytest.mark.rule("P-24")
@pytest.mark.parametrize("path", ["/v1/topics/t", "/v1/messages", "/"])
async def test_a_form_with_files_is_refused_before_it_is_read(app: Running, path: str) -> None:
    async with line(app) as raw:
        await raw.send(f"POST {path} HTTP/1.1", "Content-Type: Multipart/Form-Data; boundary=x", "Content-Length: 1000")
        answer = await raw.answer()
    assert answer.status == 415
    assert b"curl --data-binary @FILE" in answer.body


@pytest.mark.all
@pytest.mark.rule("P-22", "P-24")
async def test_curl_uploads_a_file_and_is_told_how_where_it_cannot(app: Running, tmp_path: Path) -> None:
    async def curl(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec("curl", "-s", *arguments, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        assert process.returncode == 0
        return said.decode()

    file = tmp_path / "file"
    file.write_bytes(b"\x89PNG\r\n")
    url = str(app.client.make_url("/v1/topics/t"))
    assert '"id"' in await curl("-T", str(file), url)
    told = await curl("-F", f"file=@{file}", url)
    assert "415" in told
    [command] = re.findall(r"curl (--data-binary @FILE -H '(.*?)' URL);", told)
    assert '"id"' in await curl("--data-binary", f"@{file}", "-H", command[1], url)
    png = {"data": "iVBORw0K", "encoding": "base64"}
    assert await messages(app) == [
        png | {"content_type": "application/octet-stream"},
        png | {"content_type": "image/png"},
    ]


@pytest.mark.rule("P-25")
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_the_root_takes_the_json_of_ntfy(app: Running, method: str) -> None:
    body = b'{"topic": "t", "message": "It rains.", "title": "Weather", "priority": 4, "tags": ["wet"]}'
    async with app.client.request(method, "/", data=body) as response:
        assert response.status == 200
        answer = await response.json()
    assert answer == {"id": answer["id"], "topic": "t"}
    async with app.client.get("/" + response.headers["Location"]) as found:
        assert await found.text() == "It rains."
    text = {"data": "It rains.", "content_type": "text/plain; charset=utf-8"}
    assert await messages(app) == [text | {"title": "Weather", "priority": 4, "tags": ["wet"]}]


@pytest.mark.rule("P-25")
async def test_what_is_wrong_with_the_json_of_ntfy_is_said(app: Running) -> None:
    for body, headers, status, code, because in (
        (b"hello", {}, 400, "invalid_json", "Anything else goes to /v1/topics/TOPIC."),
        (b'{"topic": "t", "delay": "10am"}', {}, 422, "invalid_message", "Words such as 'tomorrow'"),
        (b'{"topic": "t"}', {"Icon": "https://a"}, 400, "bad_request", "There are no icons"),
        (b'{"topic": "t*"}', {}, 400, "invalid_topic", "is not a topic"),
    ):
        response = await app.client.post("/", data=body, headers=JSON | headers)
        assert because in await refusal(response, status, code)
    assert ids(await app.poll(exactly("**"), after="earliest", wait=0)) == []


@pytest.mark.rule("P-25", "A-32")
async def test_the_root_asks_what_the_caller_may_publish(start: Start) -> None:
    app = await start(admin_keys=("secret-key",), public_publish=("open",))
    for topic, headers, status in (
        ("open", {}, 200),
        ("closed", {}, 403),
        ("closed", {"Authorization": "Bearer secret-key"}, 200),
    ):
        body = {"topic": topic, "message": "hi"}
        async with app.client.post("/", json=body, headers=headers) as response:
            assert response.status == status, topic


@pytest.mark.filterwarnings("ignore")  # of Apprise's many schemes, when it is imported
@pytest.mark.rule("P-25")
async def test_apprise_publishes_with_its_scheme_for_ntfy(start: Start) -> None:
    import apprise

    app = await start(admin_keys=("secret-key",))
    at = f"{app.client.host}:{app.client.port}"

    def notify(url: str) -> bool:
        sender = apprise.Apprise()
        assert sender.add(url)
        sender[0].request_rate_per_sec = 0  # a pause between two messages
        return bool(sender.notify(title=MEANT, body="It rains.", notify_type="warning"))

    key = {"headers": {"Authorization": "Bearer secret-key"}}
    for url, sent in (
        (f"ntfy://me:secret-key@{at}/weather?priority=high&tags=wet,outside&click=https://example.com/", True),
        (f"ntfy://{at}/weather?mode=private&auth=token&token=secret-key", True),
        (f"ntfy://me:wrong-key@{at}/weather", False),
        (f"ntfy://me:secret-key@{at}/weather?delay=30m", True),
        (f"ntfy://me:secret-key@{at}/weather?email=me%40example.com", False),
    ):
        assert await asyncio.to_thread(notify, url) is sent, url
    async with app.client.get("/v1/topics/weather?after=earliest&wait=0", **key) as response:
        first, second = (await response.json())["messages"]
    assert (first["data"], first["title"], first["priority"]) == ("It rains.", MEANT, 4)
    assert (sorted(first["tags"]), first["click"]) == (["outside", "wet"], "https://example.com/")
    assert (second["data"], second["title"]) == ("It rains.", MEANT)
