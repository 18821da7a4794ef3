/**
 * Clients over an unkind way: a proxy drops, delays and cuts what it carries, and gives old answers again.
 *
 *     node tests/js/unkind.mjs URL SECONDS CLIENTS SEED
 *
 * Publishes meanwhile, past the proxy. Prints what the proxy did, and fails unless each client has had every message
 * once and in order.
 */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { connect } from "../../static/client.js";

const [url, seconds, clients, seed] = process.argv.slice(2);
const ROOMS = 5;
const LONGEST_DELAY = 300; // ms

/** Random numbers from a seed: mulberry32. */
let state = Number(seed);
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
}

const did = { passed: 0, dropped: 0, delayed: 0, cut: 0, stale: 0, refused: 0 };
const answers = new Map(); // the last one of each URL
let kind = false;

const proxy = createServer((incoming, outgoing) => {
  const fate = kind ? 1 : random();
  const { method, headers, url: path } = incoming;
  if (fate < 0.05) return void ((did.dropped += 1), outgoing.destroy());
  if (fate < 0.1) return void ((did.refused += 1), outgoing.writeHead(502).end("<h1>Bad gateway</h1>"));
  if (fate < 0.2 && answers.has(path)) {
    did.stale += 1;
    const [head, body] = answers.get(path);
    return void outgoing.writeHead(200, head).end(body);
  }
  const onward = request(url + path, { method, headers: { ...headers, host: new URL(url).host } }, async (response) => {
    const chunks = [];
    try {
      for await (const chunk of response) chunks.push(chunk);
    } catch {
      return outgoing.destroy();
    }
    const body = Buffer.concat(chunks);
    // Some caches keep an answer for long.
    if (response.statusCode === 200 && (random() < 0.5 || !answers.has(path))) answers.set(path, [response.headers, body]);
    if (fate < 0.3) await pause(random() * LONGEST_DELAY, (did.delayed += 1));
    outgoing.writeHead(response.statusCode, response.headers);
    if (fate >= 0.3 && fate < 0.4) {
      did.cut += 1;
      return outgoing.write(body.subarray(0, body.length / 2), () => outgoing.destroy());
    }
    did.passed += 1;
    outgoing.end(body);
  });
  onward.on("error", () => outgoing.destroy());
  outgoing.on("close", () => onward.destroy());
  onward.end();
});
proxy.listen(0, "127.0.0.1");
await once(proxy, "listening");
const way = `http://127.0.0.1:${proxy.address().port}`;

const service = connect({ url });
const { id: after } = await service.publish("unkind/before", null);
const published = Array.from({ length: ROOMS }, () => []); // ids, by room
let changed = () => {};
const followers = Array.from({ length: Number(clients) }, (_, number) => {
  // Each has one list of its own and one that all have: one poll serves both.
  const [room, whole] = [[], []];
  const notifier = connect({ url: way, onError: () => {} });
  const of = number % ROOMS;
  notifier.subscribe(`unkind/room/${of}`, ({ id }) => (room.push(id), changed()), { after });
  notifier.subscribe("unkind/room/*", ({ id }) => (whole.push(id), changed()), { after });
  return { notifier, of, room, whole };
});

const end = Date.now() + Number(seconds) * 1_000;
const order = [];
while (Date.now() < end) {
  const of = Math.floor(random() * ROOMS);
  const { id } = await service.publish(`unkind/room/${of}`, { text: "x".repeat(random() * 2_000) });
  published[of].push(id);
  order.push(id);
  await pause(random() * 30);
}
kind = true;
const complete = () =>
  followers.every(({ of, room, whole }) => whole.length >= order.length && room.length >= published[of].length);
const patience = pause(60_000, undefined, { ref: false });
while (!complete() && (await Promise.race([new Promise((resolve) => (changed = () => resolve(true))), patience])));
for (const { of, room, whole } of followers) {
  assert.deepEqual(whole, order);
  assert.deepEqual(room, published[of]);
}
for (const { notifier } of followers) notifier.close();
proxy.close();
proxy.closeAllConnections();
console.log(JSON.stringify({ clients: followers.length, published: order.length, ...did }));
