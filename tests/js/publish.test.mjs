import assert from "node:assert/strict";
import { test } from "node:test";
import { publish } from "../../static/client.js";
import { HeldServer } from "./doubles.mjs";

async function published(t, data, options = {}) {
  const server = await HeldServer.start(t);
  const answered = publish("orders/42", data, { url: server.url, ...options });
  const request = await server.request();
  request.answer({ id: "41", topic: "orders/42" }, { status: 201 });
  assert.deepEqual(await answered, { id: "41", topic: "orders/42" });
  return request;
}

for (const data of [{ status: "paid" }, "a string", 0, null, [1]]) {
  test(`${JSON.stringify(data)} is published as JSON`, async (t) => {
    const { method, path, headers, body } = await published(t, data);
    assert.deepEqual([method, path], ["POST", "/v1/topics/orders/42"]);
    assert.equal(headers["content-type"], "application/json");
    assert.deepEqual(JSON.parse(body), data);
  });
}

for (const [name, data, options, type] of [
  ["a string with a content type", "plain text", { contentType: "text/plain" }, "text/plain"],
  ["a blob", new Blob(["plain text"], { type: "image/png" }), {}, "image/png"],
  ["a blob without a type", new Blob(["plain text"]), {}, "application/octet-stream"],
  ["a buffer", new TextEncoder().encode("plain text").buffer, {}, "application/octet-stream"],
  ["a view", new TextEncoder().encode("plain text"), { contentType: "image/gif" }, "image/gif"],
]) {
  test(`${name} is published as it is`, async (t) => {
    const { headers, body } = await published(t, data, options);
    assert.equal(headers["content-type"], type);
    assert.equal(body.toString(), "plain text");
  });
}

test("an object with a content type of its own is JSON under that name", async (t) => {
  const { headers, body } = await published(t, { id: 1 }, { contentType: "application/cloudevents+json" });
  assert.equal(headers["content-type"], "application/cloudevents+json");
  assert.deepEqual(JSON.parse(body), { id: 1 });
});

test("display fields travel in the query, in any script, and the key does not", async (t) => {
  const options = { title: "Bezahlt ✓ & fertig", click: "https://x.example/?a=1", priority: 4, tags: ["money", "új"] };
  const { path, headers } = await published(t, 1, { ...options, key: "s3cret" });
  const { searchParams } = new URL(path, "http://x");
  assert.deepEqual(Object.fromEntries(searchParams), { ...options, priority: "4", tags: "money,új" });
  assert.equal(headers.authorization, "Bearer s3cret");
});

test("a refused publish throws and is not tried again", async (t) => {
  const server = await HeldServer.start(t);
  const answered = publish("a", 1, { url: server.url });
  (await server.request()).refuse(503, { "Retry-After": "7" });
  await assert.rejects(answered, { name: "NotifierError", status: 503, code: "code_503", retryAfter: 7_000 });
  assert.equal(server.unexpected, 0);
});

test("data that cannot be written as JSON is refused before it is sent", async () => {
  await assert.rejects(publish("a", undefined, { url: "http://127.0.0.1:1" }), TypeError);
});

test("a publish can be aborted", async (t) => {
  const server = await HeldServer.start(t);
  const control = new AbortController();
  const answered = publish("a", 1, { url: server.url, signal: control.signal });
  const request = await server.request();
  control.abort();
  await assert.rejects(answered, { name: "AbortError" });
  await request.gone;
});
