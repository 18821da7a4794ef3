import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";
import { test } from "node:test";
import { NotifierError, publish, subscribe } from "../../static/client.js";
import { Clock, HeldServer, States } from "./doubles.mjs";

const message = (id) => ({ id: String(id), topic: "a", time: "2026-11-20T17:00:00Z", data: id });
const bearer = ({ headers }) => headers.authorization;

/** A function that returns t1, t2, … and keeps what it was called with. */
function minted(...tokens) {
  const calls = [];
  const token = async (refused) => {
    calls.push(refused);
    return tokens.length ? tokens.shift() : `t${calls.length}`;
  };
  return { token, calls };
}

/** A subscription with cursor 7 whose second poll is parked. */
async function parked(t, options) {
  const server = await HeldServer.start(t);
  const states = new States();
  const messages = subscribe("a", { url: server.url, after: "7", onState: states.onState, ...options });
  t.after(() => messages.return());
  const next = messages.next();
  (await server.request()).empty("7");
  return { server, states, messages, next, poll: await server.request() };
}

for (const options of [{ key: "s3cret" }, { token: "s3cret" }, { token: " s3cret\n" }, { token: () => "s3cret" }]) {
  test(`${Object.keys(options)} as ${typeof options.token} is sent as a bearer, and nowhere else`, async (t) => {
    const { poll } = await parked(t, options);
    assert.equal(bearer(poll), "Bearer s3cret");
    assert.ok(!poll.path.includes("s3cret"));
  });
}

for (const options of [{}, { key: "" }, { token: null }, { token: () => undefined }, { token: async () => null }]) {
  test(`without a token no Authorization is sent: ${Object.keys(options)} ${String(options.token)}`, async (t) => {
    assert.equal(bearer((await parked(t, options)).poll), undefined);
  });
}

test("one token serves all polls until it is refused", async (t) => {
  const { token, calls } = minted();
  const { poll, next, messages, server } = await parked(t, { token });
  poll.answer({ messages: [message(8)], cursor: "8" });
  await next;
  messages.next();
  assert.equal(bearer(await server.request()), "Bearer t1");
  assert.deepEqual(calls, [undefined]);
});

test("a token that ends while its poll is parked is renewed, and nothing is lost or repeated", async (t) => {
  const { token, calls } = minted();
  const { poll, next, states, server } = await parked(t, { token });
  poll.empty("8");
  const late = await server.request();
  assert.deepEqual([late.asks, bearer(late)], ["/v1/topics/a after 8", "Bearer t1"]);
  late.refuse(401);
  const renewed = await server.request();
  assert.deepEqual([renewed.asks, bearer(renewed)], ["/v1/topics/a after 8", "Bearer t2"]);
  assert.equal(renewed.path, late.path);
  renewed.answer({ messages: [message(9)], cursor: "9" });
  assert.equal((await next).value.id, "9");
  assert.deepEqual(calls, [undefined, "t1"]);
  assert.deepEqual(states.seen, ["connecting", "live"], "that is no failure");
});

test("a new token that is refused too is told, and then asked for no faster than the backoff", async (t) => {
  const clock = new Clock(t);
  clock.random = 1;
  const { token, calls } = minted();
  const { poll, states, server } = await parked(t, { token });
  poll.refuse(401);
  const delays = [];
  for (let count = 2; count < 5; count += 1) {
    const retrying = states.next("retrying");
    const again = await server.request();
    assert.equal(bearer(again), `Bearer t${count}`);
    again.refuse(401);
    const { error, delay } = await retrying;
    assert.deepEqual([error.status, error.code], [401, "code_401"]);
    assert.equal(calls.length, count, "no token is asked for before the pause is over");
    delays.push(delay);
    clock.advance(delay);
  }
  assert.deepEqual(delays, [500, 1_000, 2_000]);
  const accepted = await server.request();
  assert.equal(accepted.asks, "/v1/topics/a after 7 wait=0");
  accepted.empty("7");
  (await server.request()).refuse(401);
  assert.equal(bearer(await server.request()), "Bearer t6", "after an answer, the first 401 is renewed at once again");
});

test("a 429 may be a refusal that is not told apart: the next attempt has a new token, in its time", async (t) => {
  const clock = new Clock(t);
  const { token, calls } = minted();
  const { poll, states, server } = await parked(t, { token });
  const retrying = states.next("retrying");
  poll.refuse(429, { "Retry-After": "20" });
  const { delay } = await retrying;
  assert.equal(calls.length, 1);
  clock.advance(delay);
  assert.equal(bearer(await server.request()), "Bearer t2");
});

test("a 401 ends a subscription whose token cannot be renewed", async (t) => {
  const { poll, next } = await parked(t, { token: "t1" });
  poll.refuse(401);
  await assert.rejects(next, { name: "NotifierError", status: 401 });
});

test("a 403 ends a subscription whatever its token, which is not renewed", async (t) => {
  const { token, calls } = minted();
  const { poll, next } = await parked(t, { token });
  poll.refuse(403);
  await assert.rejects(next, { name: "NotifierError", status: 403, detail: "Refused with 403." });
  assert.equal(calls.length, 1);
});

test("a token that cannot be had now is asked for again later", async (t) => {
  const clock = new Clock(t);
  const server = await HeldServer.start(t);
  const states = new States();
  let calls = 0;
  const token = () => {
    calls += 1;
    if (calls === 1) throw new Error("the application is down");
    return calls === 2 ? "<!doctype html>\n<title>Log in</title>" : "t3";
  };
  const messages = subscribe("a", { url: server.url, token, onState: states.onState });
  t.after(() => messages.return());
  let retrying = states.next("retrying");
  messages.next();
  let { error, delay } = await retrying;
  assert.equal(error.message, "the application is down");
  retrying = states.next("retrying");
  clock.advance(delay);
  ({ error, delay } = await retrying);
  assert.match(error.message, /is not a token/);
  assert.ok(!error.message.includes("Log in"));
  clock.advance(delay);
  assert.equal(bearer(await server.request()), "Bearer t3");
});

test("leaving while a token is awaited takes effect at once", async (t) => {
  const fetched = t.mock.fn();
  const token = () => new Promise(() => {});
  const messages = subscribe("a", { url: "http://127.0.0.1:1", token, fetch: fetched });
  const next = messages.next();
  await new Promise(setImmediate);
  await messages.return();
  assert.equal((await next).done, true);
  assert.equal(fetched.mock.callCount(), 0);
});

test("a token that never comes is given up like an answer that never comes", async (t) => {
  const clock = new Clock(t);
  const states = new States();
  const server = await HeldServer.start(t);
  let calls = 0;
  const token = () => ((calls += 1), calls === 1 ? new Promise(() => {}) : "t2");
  const armed = clock.set(5_000);
  const messages = subscribe("a", { url: server.url, token, onState: states.onState });
  t.after(() => messages.return());
  messages.next();
  await armed;
  const retrying = states.next("retrying");
  clock.advance(10_000);
  const { error, delay } = await retrying;
  assert.match(error.message, /no answer in time/);
  clock.advance(delay);
  assert.equal(bearer(await server.request()), "Bearer t2");
});

for (const wrong of ["two words", "naïve", "a\nb", {}]) {
  test(`${JSON.stringify(wrong)} is refused as a token before anything is sent`, async () => {
    assert.throws(() => subscribe("a", { url: "http://127.0.0.1:1", token: wrong }), /is not a token/);
    await assert.rejects(publish("a", 1, { url: "http://127.0.0.1:1", token: () => wrong }), /is not a token/);
  });
}

test("a publish that is refused with 401 is sent once more with a new token, because nothing was stored", async (t) => {
  const server = await HeldServer.start(t);
  const { token, calls } = minted();
  const published = publish("a", { n: 1 }, { url: server.url, token });
  (await server.request()).refuse(401);
  const again = await server.request();
  assert.deepEqual([bearer(again), again.body.toString()], ["Bearer t2", '{"n":1}']);
  again.answer({ id: "41", topic: "a" }, { status: 201 });
  assert.deepEqual(await published, { id: "41", topic: "a" });
  assert.deepEqual(calls, [undefined, "t1"]);
});

for (const [refusals, status] of [
  [[401, 401], 401],
  [[401, 503], 503],
  [[429], 429],
  [[403], 403],
]) {
  test(`a publish that is refused with ${refusals} throws, and is not sent again`, async (t) => {
    const server = await HeldServer.start(t);
    const published = publish("a", 1, { url: server.url, token: minted().token });
    const rejected = assert.rejects(published, (error) => error instanceof NotifierError && error.status === status);
    for (const refusal of refusals) (await server.request()).refuse(refusal);
    await rejected;
    assert.equal(server.unexpected, 0);
  });
}

// --- a page of another origin: fetch fails there without a reason

const PAGE = "https://page.example";

/** As a page of `origin`. Requests to other paths than /healthz fail; `reachable` says whether that one does. */
function onAPage(t, { origin = PAGE, reachable }) {
  globalThis.origin = origin;
  t.after(() => delete globalThis.origin);
  const asked = [];
  const fetch = async (url, { mode, headers, signal }) => {
    asked.push([url, mode, headers && Object.keys(headers)]);
    if (mode === "no-cors" && reachable === undefined) await (signal ? once(signal, "abort") : new Promise(() => {}));
    if (mode === "no-cors" && reachable) return { type: "opaque" };
    throw new TypeError("Failed to fetch");
  };
  return { fetch, asked };
}

test("a request that fails although the server runs names NOTIFIER_ORIGINS and the origin of the page", async (t) => {
  const clock = new Clock(t);
  const { fetch, asked } = onAPage(t, { reachable: true });
  const states = new States();
  const retrying = states.next("retrying");
  const url = "https://notifier.example/below";
  const messages = subscribe("a", { url, key: "s3cret", fetch, onState: states.onState });
  t.after(() => messages.return());
  messages.next();
  const { error, delay } = await retrying;
  assert.match(error.message, /notifier\.example\/below runs.*NOTIFIER_ORIGINS must have https:\/\/page\.example/);
  assert.equal(error.cause.message, "Failed to fetch");
  assert.deepEqual(asked[1], ["https://notifier.example/below/healthz", "no-cors", undefined]);
  const again = states.next("retrying");
  clock.advance(delay);
  await again; // a proxy may have answered in the place of a server that restarts: so it is tried again
  await assert.rejects(publish("a", 1, { url, fetch }), /NOTIFIER_ORIGINS/);
});

test("of a page without an origin, as one of a file, only the star can let it in", async (t) => {
  const { fetch } = onAPage(t, { origin: "null", reachable: true });
  await assert.rejects(publish("a", 1, { url: "https://notifier.example", fetch }), /must have \*$/);
});

test("a server that does not answer at all is a network that fails", async (t) => {
  const { fetch } = onAPage(t, { reachable: false });
  await assert.rejects(publish("a", 1, { url: "https://notifier.example", fetch }), /^TypeError: Failed to fetch$/);
});

test("whether a server runs is not waited for forever", async (t) => {
  const { fetch } = onAPage(t, { reachable: undefined });
  t.mock.method(AbortSignal, "timeout", (ms) => {
    assert.equal(ms, 10_000);
    const control = new AbortController();
    setImmediate(() => control.abort());
    return control.signal;
  });
  await assert.rejects(publish("a", 1, { url: "https://notifier.example", fetch }), /^TypeError: Failed to fetch$/);
});

test("a page of the server's own origin asks nothing more", async (t) => {
  const { fetch, asked } = onAPage(t, { origin: "https://notifier.example", reachable: true });
  await assert.rejects(publish("a", 1, { url: "https://notifier.example", fetch }), /^TypeError: Failed to fetch$/);
  assert.equal(asked.length, 1);
});

test("what the caller aborted is not explained", async (t) => {
  const { fetch, asked } = onAPage(t, { reachable: true });
  const signal = AbortSignal.abort();
  await assert.rejects(publish("a", 1, { url: "https://notifier.example", fetch, signal }), { name: "AbortError" });
  assert.equal(asked.length, 0);
});

test("without onState, what fails is written to the browser's console", async (t) => {
  new Clock(t);
  const warned = new Promise((resolve) => t.mock.method(console, "warn", resolve));
  const server = createServer((_, response) => response.destroy()).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const messages = subscribe("a", { url: `http://127.0.0.1:${server.address().port}` });
  t.after(() => messages.return());
  messages.next();
  assert.match(await warned, /^Trying again/);
});
