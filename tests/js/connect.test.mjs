import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, subscribe } from "../../static/client.js";
import { Clock, HeldServer, States } from "./doubles.mjs";

const message = (id, topic) => ({ id: String(id), topic, time: "2026-11-20T17:00:00Z", data: Number(id) });
const turn = () => new Promise(setImmediate);

async function connected(t, options = {}) {
  const server = await HeldServer.start(t);
  const notifier = connect({ url: server.url, onError: () => {}, ...options });
  t.after(() => notifier.close());
  return { server, notifier };
}

/** Follows each of `lists` from cursor 7 on, until one poll that waits asks for all: its handlers' calls are `seen`. */
async function together(t, lists, options = {}, each = () => ({})) {
  const { server, notifier } = await connected(t, options);
  const seen = lists.map(() => []);
  const stops = lists.map((list, at) =>
    notifier.subscribe(list, ({ id }) => void seen[at].push(id), { after: "7", ...each(at) }),
  );
  (await server.request()).empty("7");
  return { server, notifier, seen, stops, poll: await server.request() };
}

test("subscriptions that begin together ask with one request, and wait with one poll", async (t) => {
  const { poll, server, seen } = await together(t, ["a", ["b/*", "c"], "a,b/**"]);
  assert.equal(poll.asks, "/v1/topics/a,b/*,c,b/** after 7");
  poll.answer({ messages: [message(8, "b/1"), message(9, "a"), message(10, "b/1/2")], cursor: "12" });
  const next = await server.request();
  assert.equal(next.asks, "/v1/topics/a,b/*,c,b/** after 12");
  assert.deepEqual(seen, [["9"], ["8"], ["8", "9", "10"]]);
  assert.equal(server.unexpected, 0);
});

test("one that comes later catches up beside the poll, and then joins it", async (t) => {
  const { poll, server, notifier, seen } = await together(t, ["a"]);
  const late = [];
  notifier.subscribe("b", ({ id }) => void late.push(id), { last: 2 });
  const its = await server.request();
  assert.equal(its.asks, "/v1/topics/b?last=2 wait=0");
  its.answer({ messages: [message(3, "b"), message(6, "b")], cursor: "9" });
  await poll.gone;
  const both = await server.request();
  assert.equal(both.asks, "/v1/topics/a,b after 7");
  both.answer({ messages: [message(8, "a"), message(9, "b"), message(10, "b")], cursor: "10" });
  await server.request();
  assert.deepEqual([seen[0], late], [["8"], ["3", "6", "10"]], "what it had is not handed out again");
});

test("one whose topics are asked for already joins without a new poll", async (t) => {
  const { poll, server, notifier, seen } = await together(t, ["a", "b"]);
  const late = [];
  notifier.subscribe("b", ({ id }) => void late.push(id));
  (await server.request()).empty("8");
  await turn();
  poll.answer({ messages: [message(8, "b"), message(9, "b")], cursor: "9" });
  assert.equal((await server.request()).asks, "/v1/topics/a,b after 9");
  assert.deepEqual([seen[1], late], [["8", "9"], ["9"]]);
});

test("one that ends leaves the poll to the others, and the last one ends it", async (t) => {
  const { poll, server, stops, seen } = await together(t, ["a", "b"]);
  stops[0]();
  await turn();
  poll.answer({ messages: [message(8, "a"), message(9, "b")], cursor: "9" });
  const next = await server.request();
  assert.deepEqual([next.asks, seen], ["/v1/topics/b after 9", [[], ["9"]]]);
  stops[1]();
  await next.gone;
});

test("one that is not allowed ends alone, with its sentence", async (t) => {
  const ends = [];
  const { poll, server, seen } = await together(t, ["a", "b"], {}, (at) => ({
    onError: (error, delay) => ends.push([at, error.detail, delay]),
  }));
  poll.refuse(403);
  const first = await server.request();
  assert.equal(first.asks, "/v1/topics/a after 7 wait=0");
  first.refuse(403);
  const second = await server.request();
  assert.equal(second.asks, "/v1/topics/b after 7 wait=0");
  second.answer({ messages: [message(8, "b")], cursor: "8" });
  assert.equal((await server.request()).asks, "/v1/topics/b after 8");
  assert.deepEqual([seen[1], ends], [["8"], [[0, "Refused with 403.", undefined]]]);
});

test("a credential that is refused, and cannot be renewed, ends them all at once", async (t) => {
  const ends = [];
  let told;
  const both = new Promise((resolve) => (told = resolve));
  const onError = ({ status }) => ends.push(status) === 2 && told();
  const { poll, server } = await together(t, ["a", "b"], { token: "t1", onError });
  poll.refuse(401);
  await both;
  assert.deepEqual([ends, server.unexpected], [[401, 401], 0]);
});

test("a gap is told to those that lost something, which each asks for itself", async (t) => {
  const gaps = [];
  const { poll, server, seen } = await together(t, ["a", "b"], {}, (at) => ({ onGap: (gap) => gaps.push([at, gap]) }));
  const gap = { reason: "retention", after: "7" };
  poll.answer({ messages: [message(50, "b")], cursor: "50", gap });
  const first = await server.request();
  assert.equal(first.asks, "/v1/topics/a after 7 wait=0");
  first.empty("50");
  const two = [await server.request(), await server.request()].sort((one, other) => (one.asks < other.asks ? -1 : 1));
  assert.deepEqual(
    two.map(({ asks }) => asks),
    ["/v1/topics/a after 50", "/v1/topics/b after 7 wait=0"],
  );
  two[1].answer({ messages: [message(50, "b")], cursor: "50", gap });
  await two[0].gone;
  assert.equal((await server.request()).asks, "/v1/topics/a,b after 50");
  assert.deepEqual([seen, gaps], [[[], ["50"]], [[1, gap]]]);
});

test("when one is told of another database, the others ask too, because their cursors are worth nothing", async (t) => {
  const gaps = [];
  const { poll, server, notifier } = await together(t, ["a"], {}, () => ({ onGap: (gap) => gaps.push(gap) }));
  notifier.subscribe("b", () => {}, { after: "9", onGap: (gap) => gaps.push(gap) });
  const reset = { reason: "reset", after: "0" };
  (await server.request()).answer({ messages: [], cursor: "3", gap: reset });
  await poll.gone;
  const two = [await server.request(), await server.request()].sort((one, other) => (one.asks < other.asks ? -1 : 1));
  assert.deepEqual(
    two.map(({ asks }) => asks),
    ["/v1/topics/a after 7 wait=0", "/v1/topics/b after 3"],
  );
  two[0].answer({ messages: [], cursor: "4", gap: reset });
  await two[1].gone;
  assert.deepEqual(gaps, [reset, reset]);
});

test("a slow consumer leaves the poll instead of holding it, and loses nothing", async (t) => {
  const { server, notifier } = await connected(t);
  const slow = [];
  let proceed;
  const held = new Promise((resolve) => (proceed = resolve));
  notifier.subscribe("a", async ({ id }) => (slow.push(id), slow.length === 1 && held), { after: "0" });
  const quick = [];
  notifier.subscribe("b", ({ id }) => void quick.push(id), { after: "0" });
  (await server.request()).empty("0");
  let at = 0;
  for (let round = 0; round < 41; round += 1) {
    const poll = await server.request();
    assert.equal(poll.asks, `/v1/topics/a,b after ${at}`, "for so long it has room");
    const messages = [1, 2, 3, 4, 5].map((n) => message(at + n, "a"));
    poll.answer({ messages: [...messages, message(at + 6, "b")], cursor: String((at += 6)) });
  }
  const without = await server.request();
  assert.equal(without.asks, `/v1/topics/b after ${at}`);
  proceed();
  const its = await server.request();
  assert.equal(its.asks, `/v1/topics/a after ${at} wait=0`);
  its.empty(String(at));
  await without.gone;
  assert.equal((await server.request()).asks, `/v1/topics/b,a after ${at}`);
  assert.deepEqual([slow.length, quick.length], [205, 41]);
});

test("a backlog is read beside the poll of the others", async (t) => {
  const { server, notifier, poll, seen } = await together(t, ["a"]);
  const old = [];
  notifier.subscribe("b", ({ id }) => void old.push(Number(id)), { after: "earliest" });
  const first = await server.request();
  assert.equal(first.asks, "/v1/topics/b after earliest wait=0");
  const full = Array.from({ length: first.limit }, (_, n) => message(n + 1, "b"));
  first.answer({ messages: full, cursor: String(full.length) });
  const second = await server.request();
  assert.equal(second.asks, `/v1/topics/b after ${full.length} wait=0`);
  poll.answer({ messages: [message(90, "a")], cursor: "90" });
  const alone = await server.request();
  assert.equal(alone.asks, "/v1/topics/a after 90");
  second.answer({ messages: [message(60, "b")], cursor: "89" });
  await alone.gone;
  const both = await server.request();
  assert.equal(both.asks, "/v1/topics/a,b after 89", "though the others have read further");
  both.answer({ messages: [message(90, "a"), message(91, "b")], cursor: "91" });
  assert.equal((await server.request()).asks, "/v1/topics/a,b after 91");
  assert.deepEqual([old.slice(-2), seen], [[60, 91], [["90"]]], "what they had is not handed out again");
});

test("one URL is never asked from a cursor further back, so that an old answer of a cache is known", async (t) => {
  const { server, notifier } = await together(t, ["a"]);
  const paths = [];
  for (const after of ["5", "3", "earliest"]) {
    notifier.subscribe("b", () => {}, { after });
    const its = await server.request();
    assert.equal(its.asks, `/v1/topics/b after ${after} wait=0`);
    paths.push(its.path);
    its.empty("8");
    if (after === "5") await server.request(); // the poll of both lists, which the others join
  }
  assert.equal(new Set(paths).size, 3);
});

test("lists that do not fit into one poll make two", async (t) => {
  const { server, notifier } = await connected(t);
  const list = (name) => Array.from({ length: 60 }, (_, n) => `${name}/${n}`);
  for (const name of ["a", "b"]) notifier.subscribe(list(name), () => {}, { after: "7" });
  const asked = [];
  for (let count = 0; count < 2; count += 1) {
    const quick = await server.request();
    asked.push(quick.asks);
    quick.empty("7");
    asked.push((await server.request()).asks);
  }
  const of = (name) => `/v1/topics/${list(name).join()} after 7`;
  assert.deepEqual(new Set(asked), new Set([of("a"), `${of("a")} wait=0`, of("b"), `${of("b")} wait=0`]));
});

for (const [item, topic, matches] of [
  ["a", "a", true],
  ["a", "a/b", false],
  ["a.b", "axb", false],
  ["a+b", "a+b", true],
  ["*", "a", true],
  ["*", "a/b", false],
  ["a/*", "a", false],
  ["a/*/c", "a/b/c", true],
  ["a/*/c", "a/b/b/c", false],
  ["a/**", "a", false],
  ["a/**", "a/b/c", true],
  ["**", "a/b", true],
  ["*/**", "a", false],
]) {
  test(`${item} ${matches ? "matches" : "does not match"} ${topic}`, async (t) => {
    const { poll, server, seen } = await together(t, [item, "other"]);
    poll.answer({ messages: [message(8, topic)], cursor: "8" });
    await server.request();
    assert.deepEqual(seen[0], matches ? ["8"] : []);
  });
}

test("the cursor passes a message when its handler has returned, and the store has it", async (t) => {
  const { server, notifier } = await connected(t);
  const kept = new Map();
  const store = { getItem: async (key) => kept.get(key) ?? null, setItem: async (...entry) => void kept.set(...entry) };
  const stored = () => [...kept.values()].join();
  const during = [];
  const stop = notifier.subscribe("a", () => void during.push(stored()), { after: "7", store });
  (await server.request()).answer({ messages: [message(8, "a"), message(9, "a")], cursor: "12" });
  assert.equal((await server.request()).asks, "/v1/topics/a after 12");
  assert.deepEqual([during, stored()], [["", "8"], "12"]);
  stop();
  notifier.subscribe("a", () => {}, { after: "7", last: 3, store });
  assert.equal((await server.request()).asks, "/v1/topics/a?last=3 after 12 wait=0", "what is kept counts first");
  assert.deepEqual([...kept.keys()], [`${server.url}/v1/topics/a`]);
});

test("a handler that throws ends its subscription, which is told, and no other", async (t) => {
  const told = [];
  const { server, notifier } = await connected(t, { onError: (error, delay) => told.push([error.message, delay]) });
  notifier.subscribe("a", () => Promise.reject(new Error("not today")), { after: "7" });
  const seen = [];
  notifier.subscribe("b", ({ id }) => void seen.push(id), { after: "7" });
  (await server.request()).answer({ messages: [message(8, "a")], cursor: "8" });
  const poll = await server.request();
  assert.match(poll.asks, /b after 8$/);
  poll.answer({ messages: [message(9, "a"), message(10, "b")], cursor: "10" });
  assert.equal((await server.request()).asks, "/v1/topics/b after 10");
  assert.deepEqual(seen, ["10"]);
  assert.deepEqual(told, [["not today", undefined]]);
});

test("a listener of a subscription that throws ends it, and no other", async (t) => {
  const told = [];
  const { server, notifier } = await connected(t, { onError: (error, delay) => told.push([error.message, delay]) });
  const onState = (state) => {
    if (state === "live") throw new Error("not today");
  };
  notifier.subscribe("a", () => {}, { after: "7", onState });
  const seen = [];
  notifier.subscribe("b", ({ id }) => void seen.push(id), { after: "7" });
  (await server.request()).answer({ messages: [message(8, "b")], cursor: "8" });
  assert.equal((await server.request()).asks, "/v1/topics/b after 8");
  assert.deepEqual([seen, told], [["8"], [["not today", undefined]]]);
});

test("listeners of a connection that throw are told on the console, and end nothing", async (t) => {
  const clock = new Clock(t);
  const told = [];
  t.mock.method(console, "error", ({ message }) => told.push(message));
  const onError = () => {
    throw new Error("not now");
  };
  const { server, notifier } = await connected(t, { onError });
  notifier.onState(() => {
    throw new Error("not today");
  });
  const seen = [];
  notifier.subscribe("a", ({ id }) => void seen.push(id), { after: "7" });
  const paused = clock.set(250);
  (await server.request()).cut();
  await paused;
  clock.advance(250);
  (await server.request()).answer({ messages: [message(8, "a")], cursor: "8" });
  assert.equal((await server.request()).asks, "/v1/topics/a after 8");
  assert.deepEqual([seen, told], [["8"], ["not now", "not today"]]);
});

test("batches has all that is there at once, and the cursor passes it when the next is awaited", async (t) => {
  const { server, notifier } = await connected(t);
  const messages = notifier.subscribe("a", { after: "7" });
  const batches = messages.batches();
  const first = batches.next();
  (await server.request()).answer({ messages: [message(8, "a"), message(9, "a")], cursor: "12" });
  const { value } = await first;
  assert.deepEqual([value.map(({ id }) => id), messages.cursor], [["8", "9"], "7"]);
  const second = batches.next();
  const poll = await server.request();
  assert.deepEqual([poll.asks, messages.cursor], ["/v1/topics/a after 12", "12"]);
  await batches.return();
  assert.equal((await second).done, true);
  await poll.gone;
});

test("a batch ends before a gap, which is told before the next one", async (t) => {
  const gaps = [];
  const { server, notifier } = await connected(t);
  const batches = notifier.subscribe("a", { after: "7", onGap: (gap) => gaps.push(gap.after) }).batches();
  const first = batches.next();
  const gap = { reason: "retention", after: "7" };
  (await server.request()).answer({ messages: [message(50, "a")], cursor: "50", gap });
  assert.deepEqual([(await first).value.length, gaps], [1, ["7"]]);
});

for (const headers of [{ "X-Tenant": "acme" }, new Headers({ "X-Tenant": "acme" }), [["X-Tenant", "acme"]]]) {
  test(`the options of a connection go with each request, headers as ${headers.constructor.name}`, async (t) => {
    const { server, notifier } = await connected(t, { token: "t1", headers });
    notifier.subscribe("a", () => {});
    const published = notifier.publishAll([{ topic: "a", data: 1, title: "One" }]);
    const requests = [await server.request(), await server.request()];
    for (const request of requests) {
      assert.deepEqual([request.headers["x-tenant"], request.headers.authorization], ["acme", "Bearer t1"]);
      if (request.method === "POST") request.answer({ ids: ["8"] }, { status: 201 });
    }
    assert.deepEqual(await published, ["8"]);
    const { path, body } = requests.find(({ method }) => method === "POST");
    assert.deepEqual([path, JSON.parse(body)], ["/v1/messages", [{ topic: "a", data: 1, title: "One" }]]);
  });
}

for (const headers of [
  { "two words": "1" },
  { "X-Tenant": "a\nb" },
  { "X-Tenant": "☃" },
  { prefer: "wait=3" },
  { "Last-Event-ID": "7" },
  { Accept: "text/event-stream" },
  { "content-type": "text/plain" },
  { "Idempotency-Key": "1" },
  { Authorization: "Basic eDp5" },
]) {
  test(`the header ${JSON.stringify(headers)} cannot be sent, which is said at once`, () => {
    const name = Object.keys(headers)[0];
    const options = { url: "http://127.0.0.1:1", headers, token: () => "t1" };
    const told = (error) => error instanceof TypeError && /header|ByteString/.test(error.message);
    assert.throws(() => connect(options), told, name);
    assert.throws(() => subscribe("a", options), told, name);
  });
}

test("without a token, Authorization may be another's, as that of a proxy", async (t) => {
  const { server, notifier } = await connected(t, { headers: { Authorization: "Basic eDp5" } });
  notifier.subscribe("a", () => {});
  assert.equal((await server.request()).headers.authorization, "Basic eDp5");
});

test("a batch that JSON would change is refused before it is sent", async () => {
  const notifier = connect({ url: "http://127.0.0.1:1" });
  await assert.rejects(notifier.publishAll([{ topic: "a", data: new Map() }]), /JSON cannot hold Map/);
});

for (const [options, asked] of [
  [{}, "?before=latest"],
  [{ before: "41", last: 20 }, "?before=41&limit=20"],
]) {
  test(`history ${JSON.stringify(options)} asks once, and leads on backwards`, async (t) => {
    const { server, notifier } = await connected(t);
    const page = notifier.history(["a", "b/*"], options);
    const request = await server.request();
    assert.deepEqual([request.method, request.path], ["GET", `/v1/topics/a,b/*${asked}`]);
    request.answer({ messages: [message(8, "a")], before: "8" });
    assert.deepEqual(await page, { messages: [message(8, "a")], before: "8" });
  });
}

test("an answer that is no page of history is not taken for one", async (t) => {
  const { server, notifier } = await connected(t);
  const page = notifier.history("a");
  (await server.request()).answer({ messages: [], cursor: "8" });
  await assert.rejects(page, { code: "foreign_answer" });
});

for (const [name, call, code] of [
  ["a publish", (notifier) => notifier.publish("a", 1), "outcome_unknown"],
  ["history", (notifier) => notifier.history("a"), "foreign_answer"],
]) {
  test(`${name} whose answer does not come is given up, with a sentence`, async (t) => {
    const clock = new Clock(t);
    const { server, notifier } = await connected(t);
    const refused = assert.rejects(call(notifier), (error) => error.code === code && /in time/.test(error.message));
    const request = await server.request();
    clock.advance(69_000);
    assert.equal(request.response.destroyed, false);
    clock.advance(6_000);
    await refused;
    await request.gone;
  });
}

test("the state of a connection is that of its polls, and is told with each pause", async (t) => {
  const clock = new Clock(t);
  const { server, notifier } = await connected(t);
  const states = new States();
  const off = notifier.onState(states.onState);
  assert.equal(notifier.state, "connecting");
  notifier.subscribe("a", () => {}, { after: "7" });
  (await server.request()).empty("7");
  const retrying = states.next("retrying");
  (await server.request()).cut();
  const { delay } = await retrying;
  assert.equal(notifier.state, "retrying");
  assert.ok(clock.isSet(delay));
  notifier.retryNow();
  const again = await server.request();
  assert.equal(again.asks, "/v1/topics/a after 7 wait=0");
  again.empty("7");
  await server.request();
  off();
  notifier.close();
  assert.deepEqual([states.seen, notifier.state], [["live", "retrying", "live"], "closed"]);
});

test("close ends all, without an error, and what comes after it ends at once", async (t) => {
  const { server, notifier } = await connected(t);
  const messages = notifier.subscribe("a");
  const next = messages.next();
  const poll = await server.request();
  notifier.close();
  assert.equal((await next).done, true);
  await poll.gone;
  assert.equal((await notifier.subscribe("b").next()).done, true);
  assert.equal(server.unexpected, 0);
});

test("subscriptions of the module share a connection where service and token are the same", async (t) => {
  const server = await HeldServer.start(t);
  const token = () => "t1";
  const follow = (topics, options) => {
    const messages = subscribe(topics, { url: server.url, after: "7", ...options });
    t.after(() => messages.return());
    messages.next();
  };
  follow("a", { token });
  follow("b", { token });
  follow("c", { token: "t2" });
  const [one, other] = [await server.request(), await server.request()];
  const asked = [one, other].map(({ asks, headers }) => `${headers.authorization} ${asks}`).sort();
  assert.deepEqual(asked, ["Bearer t1 /v1/topics/a,b after 7 wait=0", "Bearer t2 /v1/topics/c after 7 wait=0"]);
});

test("one that ended can be followed again", async (t) => {
  const { server, notifier } = await connected(t);
  for (let round = 0; round < 2; round += 1) {
    const stop = notifier.subscribe("a", () => {}, { after: "7" });
    (await server.request()).empty("7");
    const poll = await server.request();
    stop();
    await poll.gone;
  }
});

for (const call of ["publish", "publishAll"]) {
  test(`${call} sends the idempotency key that it is given`, async (t) => {
    const { server, notifier } = await connected(t);
    const args = call === "publish" ? ["a", 1] : [[{ topic: "a", data: 1 }]];
    const sent = notifier[call](...args, { idempotencyKey: "order-42" });
    const request = await server.request();
    assert.equal(request.headers["idempotency-key"], "order-42");
    request.answer({ id: "8", topic: "a", ids: ["8"], duplicate: true });
    assert.deepEqual(await sent, call === "publish" ? { id: "8", topic: "a", ids: ["8"], duplicate: true } : ["8"]);
  });
}
