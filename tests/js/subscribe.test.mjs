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
  assert.equal(delay, 250);
  assert.ok(clock.isSet(250));
  clock.advance(250);
  const retry = await server.request();
  assert.equal(retry.asks, "/v1/topics/a after 7 wait=0");
  retry.empty("7");
  assert.equal((await server.request()).asks, "/v1/topics/a after 7");
  assert.deepEqual(states.seen, ["connecting", "live", "retrying", "live"]);
});

/**
 * Fails `count` attempts in a row, each by `fail`, which may return how much more time passes than the pause after it.
 * Returns those pauses; the last poll is parked.
 */
async function pauses(t, clock, fail, count) {
  clock.random = 1;
  const { poll, states, server, ...rest } = await parked(t);
  const delays = [];
  let request = poll;
  for (let failure = 0; failure < count; failure += 1) {
    const retrying = states.next("retrying");
    const longer = fail(request, failure) ?? 0;
    delays.push((await retrying).delay);
    clock.advance(delays.at(-1) + longer);
    request = await server.request();
  }
  request.empty("7");
  return { ...rest, delays, states, server, poll: await server.request() };
}

test("while nobody answers, attempts stay close, so that the end of an outage is noticed", async (t) => {
  const clock = new Clock(t);
  const { delays, poll, states } = await pauses(t, clock, (request) => request.cut(), 25);
  assert.deepEqual(delays, [500, 1_000, 2_000, ...Array(22).fill(3_000)]);
  const retrying = states.next("retrying");
  poll.cut();
  assert.equal((await retrying).delay, 500, "an answer makes it begin anew");
});

test("after five minutes without an answer, attempts spread out up to half a minute", async (t) => {
  const clock = new Clock(t);
  const fail = (request, failure) => {
    request.cut();
    return failure === 3 ? 300_000 : 0;
  };
  const { delays } = await pauses(t, clock, fail, 8);
  assert.deepEqual(delays, [500, 1_000, 2_000, 3_000, 8_000, 16_000, 30_000, 30_000]);
});

test("while the service itself refuses, attempts spread out up to half a minute", async (t) => {
  const clock = new Clock(t);
  const { delays, poll, states } = await pauses(t, clock, (request) => request.refuse(503), 8);
  assert.deepEqual(delays, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  const retrying = states.next("retrying");
  poll.refuse(503);
  assert.equal((await retrying).delay, 500);
});

test("a page that comes online begins its attempts anew", async (t) => {
  const clock = new Clock(t);
  clock.random = 1;
  const page = new Page(t);
  const { poll, states, server } = await parked(t);
  let request = poll;
  for (let failure = 0; failure < 3; failure += 1) {
    const retrying = states.next("retrying");
    request.cut();
    await retrying;
    if (failure === 2) page.tell("online");
    else clock.advance(3_000);
    request = await server.request();
  }
  const retrying = states.next("retrying");
  request.cut();
  assert.equal((await retrying).delay, 500);
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

const PROBLEM = "application/problem+json";

for (const [what, status, headers, body] of [
  ["a gateway that is being deployed", 404, { "Content-Type": "text/plain" }, "404 page not found"],
  ["a firewall", 403, { "Content-Type": "text/html" }, "<h1>Blocked</h1>"],
  ["a proxy with a login of its own", 401, { "Content-Type": "text/html" }, "<h1>Log in</h1>"],
  ["a proxy that takes no long URLs", 414, {}, ""],
  ["a redirect", 302, { Location: "/login" }, ""],
  ["another service's JSON", 400, { "Content-Type": "application/json" }, '{"code": "invalid_topic"}'],
  ["another service's problem", 400, { "Content-Type": PROBLEM }, '{"title": "Bad Request"}'],
  ["a problem cut short", 400, { "Content-Type": PROBLEM }, '{"code": "inv'],
  ["a problem that is none", 400, { "Content-Type": PROBLEM }, "null"],
  ["a captive portal", 200, { "Content-Type": "text/html" }, "<html>Welcome!</html>"],
  ["an application of one page", 200, { "Content-Type": "text/html" }, "<!doctype html><div id=app></div>"],
  ["an answer without a body", 204, {}, ""],
  ["null", 200, {}, "null"],
  ["an answer without a cursor", 200, {}, '{"messages": []}'],
  ["an answer without messages", 200, {}, '{"cursor": "9"}'],
  ["an answer cut short", 200, {}, '{"messages": [{"id": "8", "to'],
]) {
  test(`${what} answers in the place of the service: told, and tried again`, async (t) => {
    const clock = new Clock(t);
    const errors = [];
    const onError = (...told) => errors.push(told);
    const { poll, states, server, next } = await parked(t, { onError });
    const retrying = states.next("retrying");
    poll.answer(body, { status, headers });
    const { error, delay } = await retrying;
    assert.deepEqual([error.name, error.code, error.status], ["NotifierError", "foreign_answer", status]);
    assert.ok(error.temporary);
    assert.ok(error.detail.includes(server.url));
    assert.deepEqual(errors, [[error, delay]]);
    clock.advance(delay);
    const again = await server.request();
    assert.equal(again.asks, "/v1/topics/a after 7 wait=0");
    again.answer({ messages: [message(8)], cursor: "8" });
    assert.equal((await next).value.id, "8");
    assert.deepEqual(states.seen, ["connecting", "live", "retrying", "live"]);
  });
}

test("a refusal of something in between may have a body without end: it is not waited for", async (t) => {
  new Clock(t);
  const { poll, states } = await parked(t);
  const retrying = states.next("retrying");
  poll.response.writeHead(404, { "Content-Type": "text/html" });
  poll.response.write("<html>");
  assert.equal((await retrying).error.status, 404);
  await poll.gone;
});

test("Retry-After is a floor, with jitter above it, and coming online does not lower it", async (t) => {
  const clock = new Clock(t);
  const page = new Page(t);
  const { poll, states, server } = await parked(t);
  const retrying = states.next("retrying");
  poll.refuse(503, { "Retry-After": "20" });
  assert.equal((await retrying).delay, 20_250);
  clock.advance(19_999);
  page.tell("online");
  assert.ok(clock.isSet(251), "still waiting");
  clock.advance(1);
  page.tell("online");
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
});

test("after an empty answer of a full server, its Retry-After is waited for", async (t) => {
  const clock = new Clock(t);
  const { poll, server, messages } = await parked(t);
  poll.empty("8", { "Retry-After": "3" });
  await clock.set(3_250);
  assert.equal(messages.cursor, "8");
  clock.advance(3_250);
  assert.equal((await server.request()).asks, "/v1/topics/a after 8");
});

test("an empty answer that moves the cursor is followed by the next poll at once", async (t) => {
  new Clock(t);
  const { poll, server, states } = await parked(t);
  poll.empty("8");
  for (let cursor = 8; cursor < 20; cursor += 1) {
    const next = await server.request();
    assert.equal(next.asks, `/v1/topics/a after ${cursor}`);
    next.empty(String(cursor + 1));
  }
  assert.deepEqual(states.seen, ["connecting", "live"]);
});

test("an empty answer that comes at once and has nothing new is not asked for in a tight loop", async (t) => {
  const clock = new Clock(t);
  const { poll, server, states } = await parked(t);
  const pause = clock.set(500);
  poll.empty("7"); // as when access has changed
  await pause;
  assert.equal(server.unexpected, 0);
  clock.advance(500);
  const next = await server.request();
  assert.equal(next.asks, "/v1/topics/a after 7");
  clock.advance(1_000);
  next.empty("7");
  assert.equal((await server.request()).asks, "/v1/topics/a after 7", "this one took its time");
  assert.deepEqual(states.seen, ["connecting", "live"]);
});

test("an answer that comes again and again with nothing new is told, and asked for past the cache", async (t) => {
  const clock = new Clock(t);
  const { poll, server, states } = await parked(t);
  const paused = clock.set(500);
  poll.empty("7");
  await paused;
  clock.advance(500);
  const request = await server.request();
  assert.equal(request.path, poll.path);
  const retrying = states.next("retrying");
  request.empty("7");
  const { error, delay } = await retrying;
  assert.deepEqual([error.code, error.temporary], ["stale_answer", true]);
  clock.random = 0.25;
  clock.advance(delay);
  const past = await server.request();
  assert.equal(past.asks, "/v1/topics/a?after=7&wait=0");
  clock.random = 0.75;
  past.empty("7");
  const parked7 = await server.request();
  assert.equal(parked7.asks, "/v1/topics/a?after=7");
  const of = ({ path }) => new URL(path, "http://x").searchParams.get("nonce");
  assert.equal(new Set([poll, past, parked7].map(of)).size, 3, "from now on, each has a URL of its own");
});

for (const [what, stale] of [
  ["the last answer", { messages: [message(8), message(9)], cursor: "9" }],
  ["an older answer", { messages: [message(7)], cursor: "7" }],
  ["an older empty answer", { messages: [], cursor: "8" }],
  ["an answer with something old in it", { messages: [message(9), message(10)], cursor: "10" }],
  ["an answer of a shorter cursor", { messages: [], cursor: "1" }],
  ["the telling of the last gap", { messages: [message(3)], cursor: "9", gap: { reason: "reset", after: "2" } }],
]) {
  test(`${what} that comes again is not handed out again, and told`, async (t) => {
    const clock = new Clock(t);
    const gaps = [];
    const { poll, next, messages, server, states } = await parked(t, { onGap: (gap) => gaps.push(gap) });
    poll.answer({ messages: [message(8), message(9)], cursor: "9" });
    await next;
    await messages.next();
    const third = messages.next();
    const retrying = states.next("retrying");
    (await server.request()).answer(stale);
    const { error, delay } = await retrying;
    assert.deepEqual([error.code, error.status, gaps], ["stale_answer", 200, []]);
    clock.advance(delay);
    const again = await server.request();
    assert.equal(again.asks, "/v1/topics/a?after=9&wait=0");
    again.answer({ messages: [message(10)], cursor: "10" });
    assert.equal((await third).value.id, "10");
  });
}

test("cursors are compared as numbers, also beyond those that JavaScript has", async (t) => {
  const { poll, next, messages, server, states } = await parked(t);
  poll.answer({ messages: [message("9223372036854775806")], cursor: "9223372036854775806" });
  await next;
  messages.next();
  (await server.request()).answer({ messages: [message("9223372036854775807")], cursor: "9223372036854775807" });
  messages.next();
  assert.equal((await server.request()).asks, "/v1/topics/a after 9223372036854775807");
  assert.deepEqual(states.seen, ["connecting", "live"]);
});

test("where headers do not get through, all is in the URL, and nothing is lost meanwhile", async (t) => {
  const server = await HeldServer.start(t);
  const states = new States();
  const messages = subscribe("a", { url: server.url, after: "7", wait: 20, onState: states.onState });
  t.after(() => messages.return());
  const next = messages.next();
  const bare = { headers: { "Preference-Applied": [] } };
  (await server.request()).answer({ messages: [], cursor: "9" }, bare); // as without a cursor: "latest"
  const again = await server.request();
  assert.equal(again.asks, "/v1/topics/a?after=7&wait=0");
  again.answer({ messages: [message(8)], cursor: "8" }, bare);
  assert.equal((await next).value.id, "8");
  messages.next();
  assert.equal((await server.request()).asks, "/v1/topics/a?after=8&wait=20");
  assert.deepEqual(states.seen, ["connecting", "live"]);
});

test("also where headers have got through before, as in another network", async (t) => {
  const clock = new Clock(t);
  const { poll, states, server, next } = await parked(t);
  const retrying = states.next("retrying");
  poll.cut();
  clock.advance((await retrying).delay);
  const bare = { headers: { "Preference-Applied": [] } };
  (await server.request()).answer({ messages: [], cursor: "9" }, bare);
  const again = await server.request();
  assert.equal(again.asks, "/v1/topics/a?after=7&wait=0");
  again.answer({ messages: [message(8)], cursor: "8" }, bare);
  assert.equal((await next).value.id, "8");
});

for (const [what, taking] of [
  ["is given up", (clock) => clock.advance(10_000)],
  ["is cut after a second", (clock, first) => (clock.advance(1_001), first.cut())],
]) {
  test(`a first poll that parks, because its headers were lost, and ${what}, is asked in the URL next`, async (t) => {
    const clock = new Clock(t);
    const server = await HeldServer.start(t);
    const states = new States();
    const messages = subscribe("a", { url: server.url, after: "7", onState: states.onState });
    t.after(() => messages.return());
    messages.next();
    const retrying = states.next("retrying");
    taking(clock, await server.request());
    clock.advance((await retrying).delay);
    assert.equal((await server.request()).asks, "/v1/topics/a?after=7&wait=0");
  });
}

test("where headers are known to get through, a first poll that takes long is only slow", async (t) => {
  const clock = new Clock(t);
  const { poll, states, server } = await parked(t);
  let retrying = states.next("retrying");
  poll.cut();
  clock.advance((await retrying).delay);
  const quick = await server.request();
  retrying = states.next("retrying");
  clock.advance(10_000);
  await quick.gone;
  clock.advance((await retrying).delay);
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=0");
});

test("after a reset the cursor goes back, and messages may come again", async (t) => {
  const { poll, next, messages, server } = await parked(t);
  poll.answer({ messages: [message(3)], cursor: "3", gap: { reason: "reset", after: "2" } });
  assert.equal((await next).value.id, "3");
  messages.next();
  assert.equal((await server.request()).asks, "/v1/topics/a after 3");
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
  const again = await server.request();
  assert.equal(again.asks, "/v1/topics/a after 7 wait=0");
  again.empty("7");
  assert.equal((await server.request()).asks, "/v1/topics/a after 7 wait=14", "perhaps it was quiet for too long");
});

test("an answer that stops half-way is given up too", async (t) => {
  const clock = new Clock(t);
  const { poll, states } = await parked(t);
  const begun = clock.set(5_000);
  poll.response.writeHead(200);
  poll.response.write('{"messages": [');
  await begun;
  const retrying = states.next("retrying");
  clock.advance(30_000);
  assert.match((await retrying).error.message, /no answer in time/);
});

test("an answer that comes slowly, but comes, is awaited however long it takes", async (t) => {
  const clock = new Clock(t);
  const { poll, next, states } = await parked(t);
  const bytes = Buffer.from(JSON.stringify({ messages: [{ ...message(8), data: "é".repeat(10_000) }], cursor: "8" }));
  let arrived = clock.set(5_000);
  poll.response.writeHead(200, { "Content-Type": "application/json" });
  poll.response.flushHeaders();
  await arrived;
  let at = 0;
  for (; at + 1_025 < bytes.length; at += 1_025) {
    clock.advance(29_000);
    arrived = clock.set(5_000);
    poll.response.write(bytes.subarray(at, at + 1_025));
    await arrived;
  }
  poll.response.end(bytes.subarray(at));
  assert.equal((await next).value.data, "é".repeat(10_000));
  assert.deepEqual(states.seen, ["connecting", "live"]);
});

test("an answer that only drips has stopped", async (t) => {
  const clock = new Clock(t);
  const { poll, states } = await parked(t);
  const begun = clock.set(5_000);
  poll.response.writeHead(200);
  poll.response.write(" ");
  await begun;
  const retrying = states.next("retrying");
  for (let drop = 0; drop < 6; drop += 1) {
    poll.response.write(" ");
    await new Promise(setImmediate);
    clock.advance(5_000);
  }
  assert.match((await retrying).error.message, /no answer in time/);
});

// --- what gets through: the size of answers, and the wait

const batch = (first, count) => {
  const messages = Array.from({ length: count }, (_, n) => message(first + n));
  return { messages, cursor: String(first + count - 1) };
};

/** Answers polls of `messages` from `first` on, each in full, and returns the limits asked for. `slow`: ms per body. */
async function limits(t, clock, { poll, messages, server, next }, count, slow = 0) {
  const asked = [];
  let request = poll;
  let first = 8;
  for (let round = 0; round < count; round += 1) {
    asked.push(request.limit);
    const text = JSON.stringify(batch(first, request.limit));
    const begun = clock.set(5_000);
    request.begin();
    await begun;
    clock.advance(slow);
    request.response.end(text);
    first += request.limit;
    await next;
    for (let handed = 1; handed < request.limit; handed += 1) await messages.next();
    next = messages.next();
    request = await server.request();
  }
  return asked;
}

test("answers are asked for in pieces that grow while they come fast", async (t) => {
  const clock = new Clock(t);
  assert.deepEqual(await limits(t, clock, await parked(t), 6), [10, 20, 40, 80, 100, 100]);
});

test("the option limit is never exceeded", async (t) => {
  const clock = new Clock(t);
  assert.deepEqual(await limits(t, clock, await parked(t, { limit: 30 }), 4), [10, 20, 30, 30]);
});

test("on a slow line the pieces shrink, down to one message", async (t) => {
  const clock = new Clock(t);
  assert.deepEqual(await limits(t, clock, await parked(t), 5, 5_001), [10, 5, 2, 1, 1]);
});

test("pieces that take their time stay as they are", async (t) => {
  const clock = new Clock(t);
  assert.deepEqual(await limits(t, clock, await parked(t), 2, 3_000), [10, 10]);
});

test("of an answer that broke half-way, half is asked for", async (t) => {
  const clock = new Clock(t);
  const { poll, states, server } = await parked(t);
  const begun = clock.set(5_000);
  const retrying = states.next("retrying");
  poll.response.writeHead(200);
  poll.response.write('{"messages": [');
  await begun;
  poll.cut();
  clock.advance((await retrying).delay);
  assert.equal((await server.request()).limit, 5);
});

const WRONG = [{ limit: 0 }, { limit: 1_001 }, { limit: 1.5 }, { limit: "10" }, { wait: 0 }, { wait: "soon" }];
for (const options of WRONG) {
  test(`${JSON.stringify(options)} is refused before anything is sent`, () => {
    assert.throws(() => subscribe("a", { url: "http://127.0.0.1:1", ...options }), TypeError);
  });
}

/** The poll that parks after `quick`, which only looks whether anybody is there. */
async function looked(server, quick) {
  assert.equal(quick.asks, "/v1/topics/a after 7 wait=0");
  quick.empty("7");
  return server.request();
}

/** Cuts parked polls in a row after `seconds`, as a gateway does: what each asks for, until one is told. */
async function cuts(clock, { poll, server, states }, seconds, how = (request) => request.cut()) {
  const asked = [];
  let request = poll;
  for (;;) {
    const retrying = states.next("retrying");
    asked.push(request.asks);
    clock.advance(seconds * 1_000);
    how(request);
    const next = server.request();
    const first = await Promise.race([retrying, next]);
    if (first.error) return { asked, told: first, next };
    request = await looked(server, first);
  }
}

for (const [what, how] of [
  ["hangs up", (request) => request.cut()],
  ["answers 504", (request) => request.answer("upstream request timeout", { status: 504 })],
]) {
  test(`the wait adapts to a gateway that ${what} after 15 s, and that is no failure`, async (t) => {
    const clock = new Clock(t);
    const { poll, server, states, next } = await parked(t);
    clock.advance(15_000);
    how(poll);
    const second = await looked(server, await server.request());
    assert.equal(second.asks, "/v1/topics/a after 7", "once may be an accident");
    clock.advance(15_000);
    how(second);
    const third = await looked(server, await server.request());
    assert.equal(third.asks, "/v1/topics/a after 7 wait=11");
    clock.advance(11_000);
    third.empty("7");
    const fourth = await server.request();
    assert.equal(fourth.asks, "/v1/topics/a after 7 wait=11");
    fourth.answer({ messages: [message(8)], cursor: "8" });
    assert.equal((await next).value.id, "8");
    assert.deepEqual(states.seen, ["connecting", "live"]);
  });
}

test("a gateway that is more and more impatient is followed, and told", async (t) => {
  const clock = new Clock(t);
  const subscription = await parked(t);
  const { asked, told, next } = await cuts(clock, subscription, 4);
  assert.deepEqual(asked, ["/v1/topics/a after 7", "/v1/topics/a after 7", "/v1/topics/a after 7 wait=3"]);
  assert.equal(told.delay, 250);
  clock.advance(told.delay);
  const quick = await next;
  assert.equal(quick.asks, "/v1/topics/a after 7 wait=0");
  quick.empty("7");
  assert.equal((await subscription.server.request()).asks, "/v1/topics/a after 7 wait=1");
});

test("no wait is shorter than a second", async (t) => {
  const clock = new Clock(t);
  const { asked } = await cuts(clock, await parked(t), 1);
  assert.equal(asked.at(-1), "/v1/topics/a after 7 wait=1");
});

test("a wait that was shortened is tried at its full length again after ten minutes", async (t) => {
  const clock = new Clock(t);
  const { poll, server } = await parked(t, { wait: 20 });
  clock.advance(5_000);
  poll.cut();
  const second = await looked(server, await server.request());
  clock.advance(5_000);
  second.cut();
  const third = await looked(server, await server.request());
  assert.equal(third.asks, "/v1/topics/a after 7 wait=3");
  clock.advance(3_000);
  third.empty("7");
  const fourth = await server.request();
  clock.advance(3_000);
  fourth.empty("7");
  let request = await server.request();
  for (let waited = 0; waited < 600_000; waited += 12_000) {
    clock.advance(12_000); // 13 s and the poll would be given up
    request.empty("7");
    request = await server.request();
  }
  assert.equal(request.asks, "/v1/topics/a after 7 wait=20");
});

test("after a poll that was cut, a service that is gone is noticed at once", async (t) => {
  const clock = new Clock(t);
  const { poll, server, states } = await parked(t);
  clock.advance(15_000);
  poll.cut();
  const quick = await server.request();
  const retrying = states.next("retrying");
  clock.advance(10_000);
  assert.match((await retrying).error.message, /no answer in time/);
  await quick.gone;
});

test("a poll that breaks before it has parked for a second is a failure", async (t) => {
  const clock = new Clock(t);
  const { poll, states } = await parked(t);
  clock.advance(999);
  const retrying = states.next("retrying");
  poll.cut();
  await retrying;
});

test("what the service itself refuses after a long wait is a failure", async (t) => {
  const clock = new Clock(t);
  const { poll, states } = await parked(t);
  clock.advance(25_000);
  const retrying = states.next("retrying");
  poll.refuse(503);
  assert.equal((await retrying).error.code, "code_503");
});

// --- numbers

test("answers are read by the option parse", async (t) => {
  const exact = (text) => JSON.parse(text.replace(/("data":) ?(-?\d+)/g, '$1"$2"'));
  const { poll, next } = await parked(t, { parse: exact });
  poll.answer('{"messages": [{"id": "8", "topic": "a", "data": 12345678901234567890}], "cursor": "8"}');
  assert.equal((await next).value.data, "12345678901234567890");
});

test("an error of parse is the caller's, and ends the subscription", async (t) => {
  const parse = () => {
    throw new RangeError("not today");
  };
  const { poll, next } = await parked(t, { parse });
  poll.answer({ messages: [message(8)], cursor: "8" });
  await assert.rejects(next, { name: "RangeError", message: "not today" });
});

test("what is no answer of the service never gets to parse", async (t) => {
  const clock = new Clock(t);
  const parse = t.mock.fn(JSON.parse);
  const { poll, next, states, server } = await parked(t, { parse });
  const retrying = states.next("retrying");
  poll.answer("<html>Welcome!</html>");
  clock.advance((await retrying).delay);
  assert.equal(parse.mock.callCount(), 0);
  (await server.request()).answer({ messages: [message(8)], cursor: "8" });
  assert.equal((await next).value.id, "8");
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
  assert.ok(clock.isSet(250));
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
  clock.advance(60_000);
  await new Promise(setImmediate);
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

test("a cursor or a topic that cannot be sent is refused at once", () => {
  for (const [topics, options] of [
    ["a\ud800", {}],
    ["a", { after: "\ud800" }],
    ["a", { since: "\ud800" }],
  ]) {
    assert.throws(() => subscribe(topics, { url: "http://127.0.0.1:1", ...options }), URIError);
  }
});

test("a key in the URL is refused, because it would not be sent", () => {
  assert.throws(() => subscribe("a", { url: "http://:s3cret@127.0.0.1:1" }), /give it as the option key/);
});

test("a module loaded from a file needs the URL of the service", () => {
  assert.throws(() => subscribe("a"), /say where the service is/);
});
