"""The policy: what is asked, what is remembered, and what a function that misbehaves does."""

import asyncio
import logging
from collections import deque

import pytest
import pytest_asyncio

from notifier.access import policy as module
from notifier.access.policy import Policy
from notifier.core.errors import Unavailable
from notifier.core.grants import Grant
from notifier.core.memory import MemoryBudget
from notifier.postgres.policy import CallFailed


class Function:
    """A double of the function: it answers with `says`, once `going` is set."""

    def __init__(self):
        self.calls = []
        self.says = deque()
        self.going = asyncio.Event()
        self.going.set()

    async def call(self, subject, action, topics):
        self.calls.append((subject, action, topics))
        await self.going.wait()
        said = self.says.popleft() if self.says else None
        if isinstance(said, Exception):
            raise said
        return said

    async def close(self):
        pass


@pytest_asyncio.fixture
async def function():
    return Function()


@pytest_asyncio.fixture
async def policy(function):
    made = Policy(function, MemoryBudget(128 * 1024 * 1024))
    yield made
    await made.close()
    assert not made._asking


def soon():
    return asyncio.get_running_loop().time() + 20


async def test_the_first_refused_topic_is_named_and_all_are_asked_for_at_once(policy, function):
    grant = Grant("u1")
    function.says.append(["c", "b"])
    assert await policy.refused(grant, "subscribe", ["a", "b", "c", "a"], soon()) == "b"
    assert function.calls == [("u1", "subscribe", ("a", "b", "c"))]


async def test_an_answer_is_remembered_for_its_grant_and_its_action(policy, function):
    grant = Grant("u1")
    function.says += [["b"], None, [], []]
    for _ in range(2):
        assert await policy.refused(grant, "subscribe", ["a", "b"], soon()) == "b"
        assert await policy.refused(grant, "subscribe", ["a"], soon()) is None
    assert len(function.calls) == 1
    assert await policy.refused(grant, "subscribe", ["c", "a"], soon()) is None  # only about what is new
    assert function.calls[-1] == ("u1", "subscribe", ("c",))
    assert await policy.refused(grant, "publish", ["b"], soon()) is None
    assert await policy.refused(Grant("u1"), "subscribe", ["b"], soon()) is None
    assert len(function.calls) == 4


async def test_nothing_is_asked_about_no_topics(policy, function):
    assert await policy.refused(Grant("u1"), "subscribe", [], soon()) is None
    assert function.calls == []


async def test_equal_questions_in_flight_are_one_and_survive_who_asked_first(policy, function):
    grant = Grant("u1")
    function.going.clear()
    function.says.append(["a"])
    asking = [asyncio.create_task(policy.refused(grant, "publish", ["a"], soon())) for _ in range(3)]
    await asyncio.sleep(0)
    asking.pop(0).cancel()
    function.going.set()
    assert await asyncio.gather(*asking) == ["a", "a"]
    assert len(function.calls) == 1


async def test_a_question_of_another_grant_of_the_subject_is_another_one(policy, function):
    """The first one could have been asked before the change that the second grant was made for."""
    function.going.clear()
    function.says += [["a"], []]
    asking = [asyncio.create_task(policy.refused(Grant("u1"), "publish", ["a"], soon())) for _ in range(2)]
    await asyncio.sleep(0)
    function.going.set()
    assert await asyncio.gather(*asking) == ["a", None]


async def test_what_is_said_about_a_grant_that_ended_meanwhile_is_not_remembered(policy, function):
    grant = Grant("u1")
    function.going.clear()
    asking = asyncio.create_task(policy.refused(grant, "publish", ["a"], soon()))
    await asyncio.sleep(0)
    grant.end()
    function.going.set()
    await asking
    assert policy.size == 0


@pytest.mark.parametrize(
    "said", ["a", ["a", None], [["a"]], [1], ["other"], ["a", "A"], True, CallFailed("it raises"), [""]]
)
async def test_garbage_and_failures_refuse_everything_and_are_not_remembered(policy, function, said, caplog):
    grant = Grant("u1")
    function.says += [said, []]
    with pytest.raises(Unavailable) as failed:
        await policy.refused(grant, "publish", ["a"], soon())
    assert failed.value.retry_after_s
    assert "raises" not in str(failed.value)
    assert await policy.refused(grant, "publish", ["a"], soon()) is None


async def test_failures_are_logged_but_not_each(policy, function, caplog):
    function.says += [CallFailed("it raises")] * 5
    with caplog.at_level(logging.WARNING):
        for name in "abcde":
            with pytest.raises(Unavailable):
                await policy.refused(Grant("u1"), "publish", [name], soon())
    assert [record.getMessage() for record in caplog.records] == ["policy: it raises; callers are refused"]


async def test_a_caller_waits_no_longer_than_its_deadline(policy, function):
    function.going.clear()
    with pytest.raises(Unavailable):
        await policy.refused(Grant("u1"), "publish", ["a"], asyncio.get_running_loop().time())


async def test_only_so_many_questions_wait(policy, function, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    function.going.clear()
    asking = [asyncio.create_task(policy.refused(Grant("u1"), "publish", [name], soon())) for name in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await policy.refused(Grant("u1"), "publish", ["c"], soon())
    function.going.set()
    assert await asyncio.gather(*asking) == [None, None]
    assert await policy.refused(Grant("u1"), "publish", ["c"], soon()) is None


async def test_what_one_grant_keeps_has_a_bound(policy, function):
    grant = Grant("u1")
    for number in range(module.MAX_ANSWERS + 10):
        await policy.refused(grant, "publish", [f"t/{number}"], soon())
    [answers] = policy._said._recent.values()
    assert len(answers.allowed) == module.MAX_ANSWERS
    assert answers.size == policy.size == policy._memory.held
    assert policy.size == module.GRANT_BYTES + sum(module.ANSWER_BYTES + len(topic) for _, topic in answers.allowed)
    calls = len(function.calls)
    await policy.refused(grant, "publish", [f"t/{module.MAX_ANSWERS}"], soon())
    assert len(function.calls) == calls
    await policy.refused(grant, "publish", ["t/0"], soon())
    assert len(function.calls) == calls + 1


async def test_what_all_grants_keep_has_a_bound_and_what_is_used_stays(policy, function, monkeypatch):
    each = module.GRANT_BYTES + module.ANSWER_BYTES + 1
    monkeypatch.setattr(policy._said, "max_bytes", 50 * each)
    regular = Grant("regular")
    await policy.refused(regular, "publish", ["a"], soon())
    for _ in range(500):
        await policy.refused(Grant("u"), "publish", ["a"], soon())
        await policy.refused(regular, "publish", ["a"], soon())
        assert policy.size == policy._memory.held <= 104 * each
    assert [call[0] for call in function.calls].count("regular") == 1


async def test_grants_that_have_ended_are_forgotten(policy, function, monkeypatch):
    for _ in range(10):
        grant = Grant("u")
        await policy.refused(grant, "publish", ["a"], soon())
        grant.end()
    monkeypatch.setattr(policy._said, "forget_s", -1.0)  # what is new pushes out what was not used since the last
    for _ in range(2):
        await policy.refused(Grant("u"), "publish", ["a"], soon())
    assert len(policy._said) == 2
    assert policy.size == policy._memory.held == 2 * (module.GRANT_BYTES + module.ANSWER_BYTES + 1)


async def test_nothing_is_remembered_while_memory_is_full(policy, function):
    policy._memory.add(policy._memory.limit)
    grant = Grant("u")
    for _ in range(2):
        assert await policy.refused(grant, "publish", ["a"], soon()) is None
    assert len(function.calls) == 2
