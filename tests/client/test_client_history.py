"""Pages of the past in Python."""

import json

import pytest
from conftest import Running
from support.scripted import message

from notifier.client import Client, Gap, NotifierClientError


@pytest.mark.rule("S-40")
async def test_pages_lead_back_to_the_beginning(app: Running) -> None:
    published = [await app.publish(f"a/{n % 2}", str(n)) for n in range(5)]
    async with Client(f"http://{app.client.host}:{app.client.port}") as client:
        found = []
        before: str | None = "latest"
        while before is not None:
            page = await client.history(["a/0", "a/1"], before=before, last=2)
            found.append([message.data for message in page.messages])
            before = page.before
        assert found == [[3, 4], [1, 2], [0]]
        page = await client.history("a/*", before=int(published[3]))
        assert [message.id for message in page.messages] == published[:3]
        assert (page.cursor, page.gap) == (str(int(published[3]) - 1), None)
        foreign = await client.history("a/*", before=7)
        assert (foreign.messages, foreign.before, foreign.gap) == ([], None, Gap("reset", "0"))
        with pytest.raises(ValueError, match="1 to 1000"):
            await client.history("a/*", last=1001)
        with pytest.raises(NotifierClientError) as refused:
            await client.history("a/*", before="earliest")
        assert (refused.value.code, refused.value.temporary) == ("invalid_cursor", False)


def page(*ids: int, **more: object) -> str:
    return json.dumps({"messages": [message(id_) for id_ in ids], "cursor": "8", **more})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (page(7), "foreign_answer"),  # a poll's answer
        (page(7, before=6), "foreign_answer"),
        (page(7, before="six"), "foreign_answer"),
        (page(7, before=None)[:-10], "foreign_answer"),
        ("<html>", "foreign_answer"),
        (page(8, 9, before="8"), "stale_answer"),
    ],
)
@pytest.mark.rule("C-10", "C-14")
async def test_what_is_no_page_or_another_one_is_refused(scripted, client, text: str, code: str) -> None:
    scripted.answers(text)
    with pytest.raises(NotifierClientError) as error:
        await client.history("t", before="9", last=5, headers=True)
    assert (error.value.code, error.value.temporary) == (code, True)
    [request] = scripted.requests
    assert request.query == {"before": "9", "limit": "5", "headers": "1"}
