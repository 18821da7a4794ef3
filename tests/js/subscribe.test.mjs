import assert from "node:assert/strict";
import { test } from "node:test";
import { NotifierError, subscribe } from "../../static/client.js";
import { Clock, HeldServer, Page, States } from "./doubles.mjs";

const message = (id, topic = "a") => ({ id: String(id), topic, time: "2026-11-20T17:00:00Z", data: Number(id) });

/** A subscription with cursor 7 whose second poll is parked. */
async function parked(t, options = {}) {
  const server = await HeldServer.start(t);
  const states = new States();
  const messages = subscribe("a", { url: server.url, after: "7", onState: states.onState, ...options });
  t.after(() => messages.return());
  const next = messages.next();
  (await server.request()).empty("7");
  return { server, states, messages, next, poll: await server.request() };
}

test("a subscription asks for a cursor without parking, then parks with nothing but the cursor", async (t) => {
  const server = await HeldServer.start(t);
  const messages = subscribe(["a", "b/*"], { url: server.url });
  t.after(() => messages.return());
  const next = messages.next();
  const first = await server.request();
  assert.equal(first.asks, "/v1/topics/a,b/* wait=0");
  first.empty("7");
  const second = await server.request();
  assert.equal(second.asks, "/v1/topics/a,b/* after 7");
  assert.equal(messages.cursor, "7");
  second.answer({ messages: [message(9)], cursor: "9" });
  assert.deepEqual(await next, { value: message(9), done: false });
  messages.next();
  const third = await server.request();
  assert.equal(third.asks, "/v1/topics/a,b/* after 9");
  const constant = ({ path, headers: { connection, "last-event-id": cursor, ...rest } }) => ({ path, ...rest });
  assert.deepEqual(constant(second), constant(third));
  assert.equal(first.path, second.path);
});

for (const [options, asked] of [
  [{ after: "41" }, "/v1/topics/a after 41 wait=0"],
  [{ after: 0 }, "/v1/topics/a after 0 wait=0"],
  [{ after: "earliest" }, "/v1/topics/a after earliest wait=0"],
  [{ after: "latest" }, "/v1/topics/a after latest wait=0"],
  [{ after: "é\n" }, "/v1/topics/a after %C3%A9%0A wait=0"],
  [{ since: "2026-11-20T17:00:00+01:00" }, "/v1/topics/a?since=2026-11-20T17%3A00%3A00%2B01%3A00 wait=0"],
  [{ last: 20 }, "/v1/topics/a?last=20 wait=0"],
  [{ after: null, last: 20 }, "/v1/topics/a?last=20 wait=0"],
]) {
  test(`the first poll begins where ${JSON.stringify(options)} says, and is repeated as it was`, async (t) => {
    const clock = new Clock(t);
    const server = await HeldServer.start(t);
    const states = new States();
    const messages = subscribe("a", { url: server.url, onState: states.onState, ...options });
    t.after(() => messages.return());
    messages.next();
    const first = await server.request();
    assert.equal(first.asks, asked);
    const retrying = states.next("retrying");
    first.cut();
    clock.advance((await retrying).delay);
    const again = await server.request();
    assert.deepEqual([again.path, again.asks], [first.path, asked]);
  });
}

test("the option wait is sent with every poll that parks, as whole seconds", async (t) => {
  const { poll } = await parked(t, { wait: 9.5 });
  assert.equal(poll.asks, "/v1/topics/a after 7 wait=10");
});

test("the cursor passes a message only when the next one is asked for", async (t) => {
  const { poll, next, messages, server } = await parked(t);
  poll.answer({ messages: [message(8), message(9)], cursor: "12" });
  assert.equal((await next).value.id, "8");
  assert.equal(messages.cursor, "7");
  assert.equal((await messages.next()).value.id, "9");
  assert.equal(messages.cursor, "8");
  messages.next();
  assert.equal((await server.request()).asks, "/v1/topics/a after 12");
  assert.equal(messages.cursor, "12");
});

test("no poll is under way while a message is in hand", async (t) => {
  let polls = 0;
  const counted = (...request) => ((polls += 1), fetch(...request));
  const { poll, next, messages, server } = await parked(t, { fetch: counted });
  poll.answer({ messages: [message(8), message(9)], cursor: "9" });
  await next;
  await messages.next();
  assert.equal(polls, 2);
  messages.next();
  assert.equal(polls, 2, "the request leaves in a later turn");
  await server.request();
  assert.equal(polls, 3);
});

test("a message in hand when a consumer died comes again to one that resumes from its cursor", async (t) => {
  const { poll, messages, next, server } = await parked(t);
  poll.answer({ messages: [message(8), message(9)], cursor: "9" });
  await next;
  await messages.next();
  await messages.return();
  const resumed = subscribe("a", { url: server.url, after: messages.cursor });
  t.after(() => resumed.return());
  const again = resumed.next();
  const request = await server.request();
  assert.equal(request.asks, "/v1/topics/a after 8 wait=0");
  request.answer({ messages: [message(9)], cursor: "9" });
  assert.equal((await again).value.id, "9");
});

test("two calls of next at once get two messages in order", async (t) => {
  const { poll, next, messages } = await parked(t);
  const second = messages.next();
  poll.answer({ messages: [message(8), message(9)], cursor: "9" });
  assert.deepEqual([(await next).value.id, (await second).value.id], ["8", "9"]);
});

test("a lost connection is tried again from the same cursor, without parking", async (t) => {
  const clock = new Clock(t);
  const { poll, states, server } = await parked(t);
  const retrying = states.next("retrying");
  poll.cut();
  const { error, delay } = await retrying;
  assert.ok(error instanceof Error);
  assert.equal(delay, 500);
  assert.ok(clock.isSet(500));
  clock.advance(500);
  const retry = await server.request();
  assert.equal(retry.asks, "/v1/topics/a after 7 wait=0");
  retry.empty("7");
  assert.equal((await server.request()).asks, "/v1/topics/a after 7");
  assert.deepEqual(states.seen, ["connecting", "live", "retrying", "live"]);
});

test("attempts spread out more and more, up to half a minute, until an answer comes", async (t) => {
  const clock = new Clock(t);
  clock.random = 1;
  const { poll, states, server } = await parked(t);
  const delays = [];
  let request = poll;
  for (let failure = 0; failure < 7; failure += 1) {
    const retrying = states.next("retrying");
    request.cut();
    delays.push((await retrying).delay);
    clock.advance(delays.at(-1));
    request = await server.request();
  }
  assert.deepEqual(delays, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  request.empty("7");
  const retrying = states.next("retrying");
  (await server.request()).cut();
  assert.equal((await retrying).delay, 1_000);
});

for (const status of [408, 425, 429, 500, 502, 503, 504]) {
  test(`a ${status} is tried again`, async (t) => {
    const clock = new Clock(t);
    const { poll, states, server } = await parked(t);
    const retrying = states.next("retrying");
    poll.refuse(status);
    const { error, delay } = await retrying;
    assert.equal(error.status, status);
    clock.advance(delay);
    assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
  });
}

for (const status of [400, 401, 403, 404, 405, 406]) {
  test(`a ${status} ends the subscription with its code and sentence`, async (t) => {
    const { poll, next, messages } = await parked(t);
    poll.refuse(status);
    await assert.rejects(next, (error) => {
      assert.ok(error instanceof NotifierError);
      const { code, detail, message: text } = error;
      assert.deepEqual([error.status, code, detail], [status, `code_${status}`, `Refused with ${status}.`]);
      assert.equal(text, `${status} code_${status}: Refused with ${status}.`);
      return true;
    });
    assert.deepEqual(await messages.next(), { value: undefined, done: true });
  });
}

test("a refusal without an explanation is an error all the same", async (t) => {
  const { poll, next } = await parked(t);
  poll.answer("<h1>Not here</h1>", { status: 404, headers: { "Content-Type": "text/html" } });
  await assert.rejects(next, { name: "NotifierError", status: 404, code: "unknown", detail: "" });
});

test("Retry-After is a floor, with jitter above it, and coming online does not lower it", async (t) => {
  const clock = new Clock(t);
  const page = new Page(t);
  const { poll, states, server } = await parked(t);
  const retrying = states.next("retrying");
  poll.refuse(503, { "Retry-After": "20" });
  assert.equal((await retrying).delay, 20_500);
  clock.advance(19_999);
  page.tell("online");
  assert.ok(clock.isSet(501), "still waiting");
  clock.advance(1);
  page.tell("online");
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
});

test("after an empty answer of a full server, its Retry-After is waited for", async (t) => {
  const clock = new Clock(t);
  const { poll, server, messages } = await parked(t);
  poll.empty("8", { "Retry-After": "3" });
  await clock.set(3_500);
  assert.equal(messages.cursor, "8");
  clock.advance(3_500);
  assert.equal((await server.request()).asks, "/v1/topics/a after 8");
});

test("empty answers before their time are asked for at most four times a second", async (t) => {
  const clock = new Clock(t);
  const { poll, server, states } = await parked(t);
  clock.advance(100);
  poll.empty("8");
  await clock.set(150);
  clock.advance(150);
  const next = await server.request();
  clock.advance(250);
  next.empty("9");
  assert.equal((await server.request()).asks, "/v1/topics/a after 9", "this one took its time");
  assert.deepEqual(states.seen, ["connecting", "live"]);
});

test("a poll whose answer does not come ten seconds after the longest wait is given up", async (t) => {
  const clock = new Clock(t);
  const { poll, states, server } = await parked(t);
  clock.advance(37_999);
  assert.deepEqual(states.seen, ["connecting", "live"]);
  const retrying = states.next("retrying");
  clock.advance(5_000);
  assert.match((await retrying).error.message, /no answer in time/);
  await poll.gone;
  clock.advance(500);
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
});

test("an answer that stops half-way is given up too", async (t) => {
  const clock = new Clock(t);
  const { poll, states } = await parked(t);
  const begun = clock.set(5_000);
  poll.response.writeHead(200);
  poll.response.write('{"messages": [');
  await begun;
  const retrying = states.next("retrying");
  clock.advance(120_000);
  assert.match((await retrying).error.message, /no answer in time/);
});

test("after the machine slept the poll is made anew at once, and that is no failure", async (t) => {
  const clock = new Clock(t);
  const { poll, states, server } = await parked(t);
  clock.sleep(3_600_000);
  clock.advance(5_000);
  await poll.gone;
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
  assert.deepEqual(states.seen, ["connecting", "live"]);
});

for (const [name, tell] of [
  ["comes online", (page) => page.tell("online")],
  ["goes offline", (page) => page.tell("offline")],
  ["is shown again", (page) => page.show("visible")],
]) {
  test(`a page that ${name} makes its poll anew at once`, async (t) => {
    const page = new Page(t);
    const { poll, server } = await parked(t);
    tell(page);
    await poll.gone;
    assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
  });
}

test("a page that is shown again does not wait out its backoff", async (t) => {
  const clock = new Clock(t);
  const page = new Page(t);
  const { poll, states, server } = await parked(t);
  const retrying = states.next("retrying");
  poll.cut();
  await retrying;
  assert.ok(clock.isSet(500));
  page.show("visible");
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
});

test("a page that only goes to the background keeps its poll", async (t) => {
  const page = new Page(t);
  const { poll, next } = await parked(t);
  page.show("hidden");
  poll.answer({ messages: [message(8)], cursor: "8" });
  assert.equal((await next).value.id, "8");
});

test("a page in the back/forward cache has no request until it comes back", async (t) => {
  const clock = new Clock(t);
  const page = new Page(t);
  const { poll, server } = await parked(t);
  page.tell("pagehide");
  await poll.gone;
  page.tell("online");
  await clock.set(2 ** 31 - 1);
  assert.equal(server.unexpected, 0);
  page.tell("pageshow");
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
});

test("return ends a call of next that is waiting, and the poll with it", async (t) => {
  const page = new Page(t);
  const { poll, next, messages } = await parked(t);
  assert.ok(page.listeners > 0);
  assert.deepEqual(await messages.return(), { value: undefined, done: true });
  assert.deepEqual(await next, { value: undefined, done: true });
  await poll.gone;
  assert.equal(page.listeners, 0);
});

test("leaving the loop leaves no poll and no listener behind", async (t) => {
  const page = new Page(t);
  const server = await HeldServer.start(t);
  const seen = (async () => {
    for await (const { id } of subscribe("a", { url: server.url, after: "7" })) return id;
  })();
  (await server.request()).answer({ messages: [message(8), message(9)], cursor: "9" });
  assert.equal(await seen, "8");
  assert.equal(page.listeners, 0);
});

test("an aborted signal ends the loop without an error, and the poll with it", async (t) => {
  const control = new AbortController();
  const { poll, next } = await parked(t, { signal: control.signal });
  control.abort();
  assert.equal((await next).done, true);
  await poll.gone;
});

test("an aborted signal ends a backoff too", async (t) => {
  new Clock(t);
  const control = new AbortController();
  const { poll, next, states } = await parked(t, { signal: control.signal });
  const retrying = states.next("retrying");
  poll.cut();
  await retrying;
  control.abort();
  assert.equal((await next).done, true);
});

test("a signal that was aborted before lets no request out", async (t) => {
  const fetched = t.mock.fn();
  const messages = subscribe("a", { url: "http://127.0.0.1:1", signal: AbortSignal.abort(), fetch: fetched });
  assert.equal((await messages.next()).done, true);
  assert.equal(fetched.mock.callCount(), 0);
});

test("a listener that ends the subscription ends it at once", async (t) => {
  new Clock(t);
  const server = await HeldServer.start(t);
  const onState = (state) => state === "retrying" && messages.return();
  const messages = subscribe("a", { url: server.url, onState });
  const next = messages.next();
  (await server.request()).cut();
  assert.equal((await next).done, true);
});

test("a gap is told, and dealt with, before the message behind it", async (t) => {
  const order = [];
  let tell;
  const told = new Promise((resolve) => (tell = resolve));
  const onGap = (gap) => new Promise((dealtWith) => tell([gap, dealtWith]));
  const { poll, next } = await parked(t, { onGap });
  poll.answer({ messages: [message(50)], cursor: "50", gap: { reason: "retention", after: "7" } });
  const handedOut = next.then(({ value }) => order.push(value.id));
  const [gap, dealtWith] = await told;
  assert.deepEqual(gap, { reason: "retention", after: "7" });
  await new Promise(setImmediate);
  order.push("dealt with");
  dealtWith();
  await handedOut;
  assert.deepEqual(order, ["dealt with", "50"]);
});

test("a gap without a message is told at once", async (t) => {
  let tell;
  const told = new Promise((resolve) => (tell = resolve));
  const { poll, server } = await parked(t, { onGap: tell });
  poll.answer({ messages: [], cursor: "3", gap: { reason: "reset", after: "0" } });
  assert.deepEqual(await told, { reason: "reset", after: "0" });
  assert.equal((await server.request()).asks, "/v1/topics/a after 3");
});

test("the sign-in page of a captive portal is not taken for an answer", async (t) => {
  const clock = new Clock(t);
  const { poll, states, server } = await parked(t);
  for (const body of ["<html>Welcome!</html>", "null", '{"messages": []}', '{"cursor": "9"}']) {
    const retrying = states.next("retrying");
    (body.startsWith("<") ? poll : await server.request()).answer(body);
    clock.advance((await retrying).delay);
  }
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
});

test("the key is sent as a bearer token, and nowhere else", async (t) => {
  const { poll } = await parked(t, { key: "s3cret" });
  assert.equal(poll.headers.authorization, "Bearer s3cret");
  assert.ok(!poll.path.includes("s3cret"));
});

test("topics cannot send a request elsewhere", async (t) => {
  const server = await HeldServer.start(t);
  for (const topics of ["..", "a/../b", "a,./b", ["a", ".."], "", []]) {
    assert.throws(() => subscribe(topics, { url: server.url }), TypeError);
  }
  const messages = subscribe("a?b#c%2F é", { url: `${server.url}/prefix/` });
  t.after(() => messages.return());
  messages.next();
  assert.equal((await server.request()).asks, "/prefix/v1/topics/a%3Fb%23c%252F%20%C3%A9 wait=0");
});

test("a module loaded from a file needs the URL of the service", () => {
  assert.throws(() => subscribe("a"), /say where the service is/);
});
