import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { connect } from "../../static/client.js";
import { HeldServer } from "./doubles.mjs";
import "../../static/client/tabs.js"; // or the first test's first tab would have its first answer before that is loaded

const message = (id, topic) => ({ id: String(id), topic, time: "2026-11-20T17:00:00Z", data: Number(id) });

/** Once what tabs have said to one another has arrived, and what they do at once for it is done. */
async function passed() {
  const [one, other] = [new BroadcastChannel("passed"), new BroadcastChannel("passed")];
  for (let round = 0; round < 5; round += 1) {
    const said = once(other, "message");
    one.postMessage(round);
    await said;
    await new Promise(setImmediate);
  }
  one.close();
  other.close();
}

/** The locks of a browser. */
class Locks {
  #held = new Map();
  names = new Set();

  async request(name, { signal, steal }, held) {
    this.names.add(name);
    const lost = Object.assign(new Error("lost"), { name: "AbortError" });
    if (steal) this.#held.get(name)?.lose();
    while (this.#held.has(name)) {
      const gone = this.#held.get(name).over;
      await (signal ? Promise.race([gone, once(signal, "abort")]) : gone);
      if (signal?.aborted) throw lost;
    }
    let lose;
    const stolen = new Promise((_, reject) => (lose = () => (this.#held.delete(name), reject(lost))));
    const over = Promise.race([Promise.resolve().then(held), stolen]);
    const mine = { lose, over: over.catch(() => {}) };
    this.#held.set(name, mine);
    try {
      return await over;
    } finally {
      if (this.#held.get(name) === mine) this.#held.delete(name);
    }
  }
}

/** A browser in which each call of the function that is returned opens a tab. */
async function browser(t, options = {}) {
  const server = await HeldServer.start(t);
  const locks = new Locks();
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  t.after(() => {
    delete globalThis.navigator;
    if (before) Object.defineProperty(globalThis, "navigator", before);
  });
  const open = (topics, more = {}) => {
    const notifier = connect({ url: server.url, share: true, onError: () => {}, ...options, ...more });
    t.after(() => notifier.close());
    const seen = [];
    let came = () => {};
    const handle = ({ id }) => (seen.push(id), came());
    notifier.subscribe(topics, handle, { after: "7" });
    const has = async (count) => {
      while (seen.length < count) await new Promise((resolve) => (came = resolve));
      return seen;
    };
    return { notifier, seen, has };
  };
  return { server, locks, open };
}

/** Two tabs, of which the first leads: its poll asks for the lists of both. */
async function two(t, options) {
  const { server, open, ...rest } = await browser(t, options);
  const first = open("a");
  (await server.request()).empty("7");
  const alone = await server.request();
  const second = open("b/*");
  const quick = await server.request();
  assert.equal(quick.asks, "/v1/topics/b/* after 7 wait=0");
  quick.empty("8");
  await alone.gone;
  const poll = await server.request();
  assert.equal(poll.asks, "/v1/topics/a,b/* after 7");
  return { ...rest, server, open, first, second, poll };
}

test("the tab that leads polls for all, and each takes what is past its own cursor", async (t) => {
  const { server, first, second, poll } = await two(t);
  poll.answer({ messages: [message(8, "b/1"), message(9, "a"), message(10, "b/1")], cursor: "10" });
  assert.deepEqual([await first.has(1), await second.has(1)], [["9"], ["10"]]);
  assert.equal((await server.request()).asks, "/v1/topics/a,b/* after 10");
  assert.equal(server.unexpected, 0);
});

test("when the tab that leads is closed, the other polls on from its own cursor", async (t) => {
  const { server, first, second, poll } = await two(t);
  first.notifier.close();
  await poll.gone;
  const next = await server.request();
  assert.equal(next.asks, "/v1/topics/b/* after 8");
  next.answer({ messages: [message(11, "b/1")], cursor: "11" });
  assert.deepEqual(await second.has(1), ["11"]);
});

test("an answer that does not go on from a tab's cursor makes that tab ask once for itself", async (t) => {
  const { server, locks, second } = await two(t);
  const [name] = locks.names;
  const stranger = new BroadcastChannel(name);
  t.after(() => stranger.close());
  const text = JSON.stringify({ messages: [message(20, "b/1")], cursor: "20" });
  stranger.postMessage({ items: ["b/*"], after: "15", text }); // 9 to 15 were said to somebody else
  const its = await server.request();
  assert.equal(its.asks, "/v1/topics/b/* after 8 wait=0");
  its.answer({ messages: [message(12, "b/1"), message(20, "b/1")], cursor: "20" });
  assert.deepEqual(await second.has(2), ["12", "20"]);
});

test("an old answer, or one said twice, is not handed out again", async (t) => {
  const { server, locks, second } = await two(t);
  const stranger = new BroadcastChannel([...locks.names][0]);
  t.after(() => stranger.close());
  const said = { items: ["b/*"], after: "8", text: JSON.stringify({ messages: [message(9, "b/1")], cursor: "9" }) };
  stranger.postMessage(said);
  stranger.postMessage(said);
  stranger.postMessage({ ...said, after: "9", text: JSON.stringify({ messages: [message(10, "b/1")], cursor: "10" }) });
  assert.deepEqual(await second.has(2), ["9", "10"]);
  assert.equal(server.unexpected, 0);
});

test("a tab that leads and loses the lead polls no more, and misses nothing", async (t) => {
  const { server, locks, first, poll } = await two(t);
  const [name] = locks.names;
  let release;
  locks.request(name, { steal: true }, () => new Promise((resolve) => (release = resolve)));
  await poll.gone;
  assert.equal(server.unexpected, 0);
  release();
  const again = await server.request(); // one of the two leads again
  assert.match(again.asks, /^\/v1\/topics\/(a|b\/\*)/);
  assert.deepEqual(first.seen, []);
});

test("what is refused to the tab that leads makes each ask for itself", async (t) => {
  const { server, poll } = await two(t);
  poll.refuse(403);
  const asked = [];
  for (let count = 0; count < 2; count += 1) {
    const request = await server.request();
    asked.push(request.asks);
    request.refuse(403);
  }
  assert.deepEqual(asked.sort(), ["/v1/topics/a after 7 wait=0", "/v1/topics/b/* after 8 wait=0"]);
});

test("tabs that are behind ask one after the other", async (t) => {
  const { server, poll } = await two(t);
  poll.refuse(403); // which makes each ask for itself
  const its = await server.request();
  await passed();
  assert.equal(server.unexpected, 0);
  its.refuse(403);
  assert.notEqual((await server.request()).asks, its.asks);
});

test("a tab that stops while it is at its turn does not hold up the others", async (t) => {
  const turns = [];
  t.mock.method(AbortSignal, "timeout", (ms) => {
    assert.equal(ms, 10_000);
    turns.push(new AbortController());
    return turns.at(-1).signal;
  });
  const { server, poll } = await two(t);
  poll.refuse(403);
  const its = await server.request();
  await passed();
  assert.equal(server.unexpected, 0);
  for (const turn of turns) turn.abort();
  assert.notEqual((await server.request()).asks, its.asks);
});

test("what the tab that leads has heard meanwhile, from one that leads too, it does not hand out again", async (t) => {
  const { server, locks, first, poll } = await two(t);
  const stranger = new BroadcastChannel([...locks.names][0]);
  t.after(() => stranger.close());
  const answer = { messages: [message(9, "a")], cursor: "9" };
  stranger.postMessage({ items: ["a"], after: "7", text: JSON.stringify(answer) });
  assert.deepEqual(await first.has(1), ["9"]);
  poll.answer(answer);
  const next = await server.request();
  next.answer({ messages: [message(10, "a")], cursor: "10" });
  assert.deepEqual(await first.has(2), ["9", "10"]);
});

test("tabs of different users, and of different names, have nothing in common", async (t) => {
  const { server, locks, open } = await browser(t);
  const claims = (more) => `h.${btoa(JSON.stringify({ sub: "7", ...more }))}.s`;
  for (const more of [
    { token: claims({ exp: 1 }) },
    { token: claims({ exp: 2, iat: 1 }) },
    { token: claims({ notifier: { subscribe: ["a"] } }) },
    { token: "nk_1_s3cret" },
    { share: "shop" },
  ]) {
    open("a", more);
    (await server.request()).empty("7");
    if (locks.names.size < 2 && more.token === claims({ exp: 2, iat: 1 })) continue;
    await server.request();
  }
  assert.equal(locks.names.size, 4, "only times differ between the first two");
  assert.ok([...locks.names].every((name) => !name.includes("s3cret")));
});
