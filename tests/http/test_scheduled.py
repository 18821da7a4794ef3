"""Publishing later over HTTP, and taking it back."""

import asyncio
from datetime import datetime, timedelta

import asyncpg
import pytest
from conftest import Running, Start, data, ids
from support.halting import eventually
from support.keys import set_keys
from support.protocol import JSON, refusal
from support.seam import KEY

from notifier.postgres import scheduled
from notifier.postgres.database import Database
from notifier.postgres.retention import prune

PAST = "2020-01-01T00:00:00Z"
PUMPED = "select notifier.pump_due(null, 0, 1000, 1000000)"
CLOCK = "select clock_timestamp()"


async def schedule(app: Running, topic: str = "t", body: str = "1", **headers: str) -> dict:
    async with app.client.post(f"/v1/topics/{topic}", data=body, headers=JSON | headers) as response:
        assert response.status == 202, await response.text()
        answer = await response.json()
    assert answer.keys() == {"scheduled", "at"}
    return answer


async def take_back(app: Running, scheduled_id: str, **headers: str) -> int:
    async with app.client.delete(f"/v1/scheduled/{scheduled_id}", headers=headers) as response:
        assert response.status in {204, 404}
        return response.status


async def topics(app: Running) -> list[str]:
    return [message["topic"] for message in (await app.poll("**", after="earliest", wait=0))["messages"]]


@pytest.mark.rule("P-30", "P-31")
async def test_a_parked_poll_gets_what_is_due(app: Running, sql: asyncpg.Connection) -> None:
    poll = app.start_poll("orders/42", wait=20)
    await app.parked()
    before = await sql.fetchval(CLOCK)
    answer = await schedule(app, "orders/42", '{"status":  "late"}', Delay="1s", Title="T", Tags="a,b")
    due = datetime.fromisoformat(answer["at"])
    assert before + timedelta(seconds=1) <= due <= await sql.fetchval(CLOCK) + timedelta(seconds=1)
    [message] = (await poll)["messages"]
    assert datetime.fromisoformat(message.pop("time")) >= due
    async with app.client.get(f"/v1/messages/{message['id']}") as response:
        assert await response.text() == '{"status":  "late"}'
    del message["id"]
    assert message == {"topic": "orders/42", "data": {"status": "late"}, "title": "T", "tags": ["a", "b"]}


@pytest.mark.rule("P-7", "P-30")
async def test_any_body_can_be_published_later(app: Running) -> None:
    bodies = [(b"\x00\xff", "image/png"), ("Grüße".encode(), "text/plain; charset=utf-8"), (b"", "text/plain")]
    bodies += [(b"{}", "application/x+json"), (b"{", "application/x-www-form-urlencoded"), (b"[1]", "application/json")]
    for body, content_type in bodies:
        for when in ({}, {"at": PAST}):
            headers = {"Content-Type": content_type, "Priority": "high"}
            async with app.client.post("/v1/topics/t", data=body, params=when, headers=headers) as response:
                assert response.status == (202 if when else 201)
    messages: list[dict] = []
    while len(messages) < 2 * len(bodies):
        answer = await app.poll("t", after=messages[-1]["id"] if messages else "earliest", wait=20)
        messages += answer["messages"]
    shown = sorted(str({k: v for k, v in message.items() if k not in {"id", "time"}}) for message in messages)
    assert shown[::2] == shown[1::2]
    assert len(set(shown)) == len(bodies)


@pytest.mark.rule("P-30")
async def test_each_name_takes_each_form(app: Running) -> None:
    at = "2099-12-31T23:59:59.500000Z"
    for name in ("At", "X-At", "Delay", "X-Delay", "In", "X-In"):
        assert (await schedule(app, **{name: "2100-01-01T01:59:59.5+02:00"}))["at"] == at
        assert (await schedule(app, **{name: "4102444799"}))["at"] == "2099-12-31T23:59:59.000000Z"
    for name in ("at", "delay", "in"):
        async with app.client.put(f"/v1/topics/t?{name}=2100-01-01T01:59:59.5+02:00", data=b"1") as response:
            assert (await response.json())["at"] == at
    assert (await schedule(app, In="365000d"))["at"] > "30"


@pytest.mark.rule("P-30", "P-34")
async def test_what_is_no_time_or_too_much_is_refused_and_nothing_is_stored(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for headers, because in (
        ({"At": "tomorrow, 10am"}, "Words such as 'tomorrow' are not understood."),
        ({"Delay": ""}, "a span such as 90s"),
        ({"In": "90"}, "a span such as 90s"),
        ({"At": "1795657890043"}, "a span such as 90s"),
        ({"At": "2100-02-30T00:00:00Z"}, "an RFC 3339 time"),
        ({"Delay": "365001d"}, "A delay is at most 365000d."),
        ({"Delay": "1h", "X-At": PAST}, "one of them is given, once"),
    ):
        response = await app.client.post("/v1/topics/t", data=b"1", headers=headers)
        assert because in await refusal(response, 400, "bad_request"), headers
    response = await app.client.post("/v1/messages?delay=1h", json=[{"topic": "t", "data": 1}])
    assert (
        await refusal(response, 400, "bad_request") == "A batch is published now. /v1/topics/TOPIC takes delay and at."
    )
    response = await app.client.post("/v1/messages", json=[{"topic": "t", "data": 1, "at": PAST}])
    assert "is not for a batch" in await refusal(response, 422, "invalid_message")
    monkeypatch.setattr(scheduled, "MAX_BODY", 100)
    response = await app.client.post("/v1/topics/t?delay=1h", data=b"x" * 101)
    assert await refusal(response, 413, "too_large") == "A message that is published later has at most 100 bytes."
    assert await sql.fetchval("select count(*) from notifier.scheduled") == 0
    assert await topics(app) == []


@pytest.mark.rule("P-30", "P-25")
async def test_the_json_of_ntfy_has_a_delay(app: Running) -> None:
    async with app.client.post("/", json={"topic": "t", "message": "hi", "delay": "30min"}) as response:
        assert (response.status, (await response.json()).keys()) == (200, {"scheduled", "at"})
    async with app.client.post("/", json={"topic": "t", "message": "hi"}, headers={"X-Delay": "1 day"}) as response:
        assert (response.status, (await response.json()).keys()) == (200, {"scheduled", "at"})
    for body, headers, because in (
        ({"delay": "tomorrow"}, {}, "Words such as 'tomorrow'"),
        ({"delay": "1h"}, {"At": "1h"}, "at is given twice, in the body and beside it"),
        ({"at": "1h"}, {}, "'at' is not a member of ntfy's messages"),
    ):
        response = await app.client.post("/", json={"topic": "t", "message": "hi"} | body, headers=headers)
        assert because in await refusal(response, 422, "invalid_message")


@pytest.mark.rule("P-31")
async def test_what_became_due_while_no_server_ran_comes_in_the_order_of_the_times(
    start: Start, sql: asyncpg.Connection
) -> None:
    app = await start()
    await app.service.pump.stop()
    for topic, second in (("third", 3), ("first", 1), ("second", 2), ("second/too", 2)):
        await schedule(app, topic, At=f"2020-01-01T00:00:0{second}Z")
    await schedule(app, "never", At="2100-01-01T00:00:00Z")
    assert await topics(app) == []
    again = await start()
    found = await eventually(lambda: topics(again), lambda found: len(found) >= 4)
    assert found == ["first", "second", "second/too", "third"]
    left = await sql.fetch("select topic from notifier.scheduled")
    assert [row["topic"] for row in left] == ["never"]


@pytest.mark.rule("P-31")
async def test_the_clock_of_the_database_decides(start: Start, sql: asyncpg.Connection) -> None:
    """It is two hours ahead of this process, and of the other server."""
    app = await start()
    source = await sql.fetchval("select pg_get_functiondef('notifier.pump_due'::regproc)")
    ahead = source.replace("clock_timestamp()", "(clock_timestamp() + interval '2 hours')")
    assert source != ahead
    await schedule(app, "later", Delay="3h")
    await schedule(app, "due", Delay="1h")
    await sql.execute(ahead)
    assert await eventually(lambda: topics(app)) == ["due"]


@pytest.mark.rule("P-32")
async def test_what_is_taken_back_is_never_published(app: Running, sql: asyncpg.Connection) -> None:
    taken = await schedule(app, "taken", Delay="1h")
    assert await take_back(app, taken["scheduled"]) == 204
    assert await take_back(app, taken["scheduled"]) == 404
    gone = await schedule(app, "gone", At=PAST)
    await eventually(lambda: topics(app))
    assert await take_back(app, gone["scheduled"]) == 404
    assert await take_back(app, "9000000000000000000") == 404
    assert await topics(app) == ["gone"]
    assert await sql.fetchval("select count(*) from notifier.scheduled") == 0
    for malformed in ("x", "-1", "%00"):
        response = await app.client.delete(f"/v1/scheduled/{malformed}")
        await refusal(response, 400, "invalid_cursor")


@pytest.mark.rule("P-32")
async def test_the_lock_of_a_row_decides_between_the_pump_and_a_delete(app: Running, sql: asyncpg.Connection) -> None:
    """The pump has the row and has not committed: then it may still go back."""
    waiting = "select from pg_locks where not granted and locktype = 'transactionid'"
    await app.service.pump.stop()
    for commit, status, published in ((False, 204, 0), (True, 404, 1)):
        answer = await schedule(app, "t", At=PAST)
        transaction = sql.transaction()
        await transaction.start()
        assert (await sql.fetchrow(PUMPED))[0][0] == 1
        taking = asyncio.create_task(take_back(app, answer["scheduled"]))
        await eventually(lambda: sql.fetch(waiting))
        await (transaction.commit() if commit else transaction.rollback())
        assert await taking == status
        assert await sql.fetchval("select count(*) from notifier.message") == published
        assert await sql.fetchval("select count(*) from notifier.scheduled") == 0


@pytest.mark.rule("Q-13")
@pytest.mark.parametrize("commit", [True, False])
async def test_a_delete_that_stays_open_holds_up_no_other(app: Running, sql: asyncpg.Connection, commit: bool) -> None:
    await app.service.pump.stop()
    held = await schedule(app, "held", At=PAST)
    await schedule(app, "free", At="2020-01-01T00:00:01Z")
    # The client of the transaction may be away for days.
    await sql.execute("begin")
    await sql.execute("delete from notifier.scheduled where id = $1", int(held["scheduled"]))
    await sql.execute("prepare transaction 'held'")
    await app.service.pump.start(20)
    assert await eventually(lambda: topics(app)) == ["free"]
    response = await app.client.delete(f"/v1/scheduled/{held['scheduled']}")
    assert "busy" in await refusal(response, 503, "unavailable")
    await sql.execute(f"{'commit' if commit else 'rollback'} prepared 'held'")
    if commit:
        await schedule(app, "fence", At=PAST)
    found = await eventually(lambda: topics(app), lambda found: len(found) == 2)
    assert found == ["free", "fence" if commit else "held"]


@pytest.mark.rule("P-32", "P-33")
async def test_a_caller_takes_back_only_what_it_may_publish(start: Start, sql: asyncpg.Connection) -> None:
    await set_keys(sql, "limited-key", publish=["jobs/*"])
    app = await start(admin_keys=(KEY,))
    admin, limited = {"Authorization": f"Bearer {KEY}"}, {"Authorization": "Bearer limited-key"}
    response = await app.client.post("/v1/topics/other", data=b"1", headers=limited | {"Delay": "1h"})
    await refusal(response, 403, "forbidden")
    other = await schedule(app, "other", Delay="1h", **admin)
    own = await schedule(app, "jobs/1", Delay="1h", **limited)
    late = await schedule(app, "jobs/2", Delay="1h", **limited)
    for headers, code in (({}, "unauthorized"), ({"Authorization": "Bearer nobody's"}, "invalid_token")):
        response = await app.client.delete(f"/v1/scheduled/{own['scheduled']}", headers=headers)
        await refusal(response, 401, code)
    assert await take_back(app, other["scheduled"], **limited) == 404
    assert await take_back(app, own["scheduled"], **limited) == 204
    # Whose key has ended has scheduled it all the same.
    await set_keys(sql)
    await sql.execute("update notifier.scheduled set at = now() where id = $1", int(late["scheduled"]))
    poll = {"after": "earliest", "wait": 20}
    async with app.client.get("/v1/topics/**", params=poll, headers=admin) as response:
        assert [message["topic"] for message in (await response.json())["messages"]] == ["jobs/2"]
    assert await take_back(app, other["scheduled"], **admin) == 204


@pytest.mark.rule("P-32", "P-35")
async def test_strangers_see_and_take_back_nothing(start: Start) -> None:
    """Where anybody may publish, anybody could count the ids of what others have scheduled."""
    app = await start(admin_keys=(KEY,), public_publish=("t",))
    by_admin = await schedule(app, Delay="1h", Authorization=f"Bearer {KEY}")
    by_anyone = await schedule(app, Delay="1h")
    assert "credential" in await refusal(await app.client.get("/v1/scheduled?match=t"), 401, "unauthorized")
    for answer in (by_admin, by_anyone):
        path = f"/v1/scheduled/{answer['scheduled']}"
        assert "credential" in await refusal(await app.client.delete(path), 401, "unauthorized")
        assert await take_back(app, answer["scheduled"], Authorization=f"Bearer {KEY}") == 204


@pytest.mark.rule("P-31")
async def test_strangers_fill_no_disk_for_longer_than_the_retention(start: Start, sql: asyncpg.Connection) -> None:
    app = await start(admin_keys=(KEY,), public_publish=("t",), retention=timedelta(hours=1))
    by_admin = {"Authorization": f"Bearer {KEY}"}
    ntfy = {"topic": "t", "message": "m"}
    for when in ("61m", "365000d", "2999-01-01T00:00:00Z"):
        response = await app.client.post("/v1/topics/t", data=b"1", headers={"At": when})
        assert "credential" in await refusal(response, 403, "forbidden")
        response = await app.client.post("/", json=ntfy | {"delay": when})
        await refusal(response, 403, "forbidden")
        await schedule(app, At=when, **by_admin)
    for when in ("1h", PAST):
        await schedule(app, At=when)
    assert await sql.fetchval("select count(*) from notifier.scheduled where at > now()") == 4


@pytest.mark.rule("P-33")
async def test_retention_deletes_nothing_that_is_not_due(start: Start, database: str, sql: asyncpg.Connection) -> None:
    app = await start(retention=timedelta(seconds=1))
    waits = await schedule(app, "t", Delay="1h")
    await sql.execute("update notifier.scheduled set at = at + interval '30 days'")
    await prune(Database(database), timedelta(0))
    assert await take_back(app, waits["scheduled"]) == 204


@pytest.mark.rule("P-19")
async def test_a_table_that_is_locked_refuses_and_stores_nothing(app: Running, sql: asyncpg.Connection) -> None:
    async with sql.transaction():
        await sql.execute("lock table notifier.scheduled")
        response = await app.client.post("/v1/topics/t?delay=1h", data=b"1")
        assert "nothing was stored" in await refusal(response, 503, "unavailable")
        await app.publish("others")
    await schedule(app, Delay="1h")
    assert await sql.fetchval("select count(*) from notifier.scheduled") == 1
    assert len(ids(await app.poll("**", after="earliest", wait=0))) == 1
    assert data(await app.poll("t", after="earliest", wait=0)) == []


@pytest.mark.rule("P-45")
async def test_what_is_scheduled_again_with_its_key_is_scheduled_once(start: Start, sql: asyncpg.Connection) -> None:
    apps = [await start(), await start()]

    async def send(app: Running, when: str = "delay=1h", body: str = "1", path: str = "/v1/topics/t") -> tuple:
        headers = JSON | {"Idempotency-Key": "a-key"}
        async with app.client.post(f"{path}?{when}", data=body, headers=headers) as response:
            return response.status, await response.json()

    async with sql.transaction():
        # All of them are under way when the first can be stored.
        await sql.execute("lock table notifier.scheduled")
        sent = [asyncio.create_task(send(app)) for app in apps * 5]
        waiting = "select from pg_locks where relation = 'notifier.scheduled'::regclass and not granted"
        await eventually(lambda: sql.fetch(waiting))
    answers = [await each for each in sent]
    [first] = [answer for status, answer in answers if status == 202]
    again = 200, first | {"duplicate": True}
    assert sorted(answers, key=lambda answer: answer[0]) == [again] * 9 + [(202, first)]
    assert await send(apps[0], "at=3600s") == again
    for when, body in (("delay=2h", "1"), (f"at={first['at']}", "1"), ("delay=1h", "2")):
        status, answer = await send(apps[1], when, body)
        assert (status, answer["code"]) == (422, "idempotency_conflict")
    assert await sql.fetchval("select count(*) from notifier.scheduled") == 1
    # Also when it has gone.
    assert await take_back(apps[1], first["scheduled"]) == 204
    assert await send(apps[0]) == again
    assert await sql.fetchval("select count(*) from notifier.scheduled") == 0
    # Published now, with the same key, is another matter.
    async with apps[0].client.post("/v1/topics/t", data="1", headers=JSON | {"Idempotency-Key": "a-key"}) as response:
        assert response.status == 201


@pytest.mark.rule("P-45")
async def test_a_schedule_that_failed_leaves_no_key(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "alter table notifier.scheduled add constraint no_seven check (convert_from(body, 'UTF8') <> '7')"
    )
    headers = JSON | {"Idempotency-Key": "a-key", "Delay": "1h"}
    response = await app.client.post("/v1/topics/t", data="7", headers=headers)
    await refusal(response, 422, "unprocessable")
    await sql.execute("alter table notifier.scheduled drop constraint no_seven")
    async with app.client.post("/v1/topics/t", data="7", headers=headers) as response:
        assert response.status == 202


@pytest.mark.rule("P-45")
async def test_keys_are_kept_for_four_days(app: Running, database: str, sql: asyncpg.Connection) -> None:
    for key in ("old", "new"):
        await schedule(app, "t", Delay="30d", **{"Idempotency-Key": key})
    await sql.execute(
        "update notifier.scheduled_key set time = time - interval '4 days 1 minute' where scheduled_id = 1"
    )
    await prune(Database(database), timedelta(days=7))
    assert [row["scheduled_id"] for row in await sql.fetch("select scheduled_id from notifier.scheduled_key")] == [2]
    assert await sql.fetchval("select count(*) from notifier.scheduled") == 2


@pytest.mark.rule("P-20")
async def test_a_connection_that_breaks_while_it_stores_leaves_the_outcome_unknown(
    app: Running, database: str, sql: asyncpg.Connection
) -> None:
    sending = (
        "select pid from pg_stat_activity where application_name = 'notifier-scheduled' "
        "and datname = current_database() and wait_event_type = 'Lock'"
    )
    async with sql.transaction():
        await sql.execute("lock table notifier.scheduled")
        posting = asyncio.create_task(app.client.post("/v1/topics/t?delay=1h", data=b"1"))
        other = await asyncpg.connect(database)
        [backend] = await eventually(lambda: other.fetch(sending))
        await other.close()
        await sql.execute("select pg_terminate_backend($1)", backend["pid"])
        await refusal(await posting, 504, "outcome_unknown")
    await schedule(app, Delay="1h")
    assert await sql.fetchval("select count(*) from notifier.scheduled") == 1


@pytest.mark.rule("P-19")
async def test_after_a_fail_over_it_leaves_the_server_that_can_only_be_read(app: Running) -> None:
    for _ in range(scheduled.CONNECTIONS):
        await schedule(app, Delay="1h")
    idle = app.service.scheduled._idle
    for _ in range(scheduled.CONNECTIONS):
        connection = idle.get_nowait()
        assert connection
        await connection.execute("set default_transaction_read_only = on")
        idle.put_nowait(connection)
    for _ in range(scheduled.CONNECTIONS):
        response = await app.client.post("/v1/topics/t?delay=1h", data=b"1")
        assert "nothing was stored" in await refusal(response, 503, "unavailable")
    await schedule(app, Delay="1h")


@pytest.mark.rule("P-45")
async def test_a_key_that_is_pruned_meanwhile_is_a_new_one(app: Running, sql: asyncpg.Connection) -> None:
    """Between the moment when it is found to be there, and the look at what it stands for."""
    first = await schedule(app, Delay="1h", **{"Idempotency-Key": "a-key"})
    await sql.execute(
        "create function pruned() returns trigger language plpgsql as $$ begin "
        f"delete from notifier.scheduled_key where scheduled_id = {first['scheduled']}; return null; end $$;"
        "create trigger pruned after insert on notifier.scheduled_key for each statement execute function pruned()"
    )
    second = await schedule(app, Delay="1h", **{"Idempotency-Key": "a-key"})
    assert second["scheduled"] != first["scheduled"]
    assert await sql.fetchval("select array_agg(id::text order by id) from notifier.scheduled") == [
        first["scheduled"],
        second["scheduled"],
    ]
