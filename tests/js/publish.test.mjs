import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { NotifierError, publish } from "../../static/client.js";
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

class Order {
  id = 1;
  #secret = 2;
}

for (const [name, data, json] of [
  ["an object of a class", new Order(), { id: 1 }],
  ["an object without a prototype", Object.assign(Object.create(null), { id: 1 }), { id: 1 }],
  ["a date, which says how it is written", { at: new Date(0) }, { at: "1970-01-01T00:00:00.000Z" }],
  ["a member without a value", { id: 1, gone: undefined }, { id: 1 }],
  ["boxed values", [Object(1), Object("a"), Object(true), null], [1, "a", true, null]],
]) {
  test(`${name} can be written as JSON`, async (t) => {
    assert.deepEqual(JSON.parse((await published(t, data)).body), json);
  });
}

const form = new FormData();
form.set("a", "1");

for (const [name, data, options] of [
  ["nothing", undefined],
  ["a function", () => 1],
  ["a form", form],
  ["a map", new Map([["a", 1]])],
  ["a set", new Set([1])],
  ["a search", new URLSearchParams("a=1")],
  ["headers", new Headers({ a: "1" })],
  ["an error", new Error("a")],
  ["a pattern", /a/],
  ["a promise", Promise.resolve(1)],
  ["a stream of the web", new Blob(["a"]).stream()],
  ["a stream of Node", Readable.from(["a"])],
  ["a generator", [1].values()],
  ["a number that is none", NaN],
  ["an infinite number", { a: -Infinity }],
  ["a large integer", { a: 10n }],
  ["a hole in a list", [, 1]],
  ["a symbol", [Symbol("a")]],
  ["a map in an object in a list", [{ a: { b: new Map() } }]],
  ["bytes in an object", { a: new Uint8Array(2) }],
  ["half a character", "a\ud800", { contentType: "text/plain" }],
  ["an object as a picture", { a: 1 }, { contentType: "image/png" }],
  ["a tag with a comma", 1, { tags: ["a,b"] }],
  ["a title that cannot be sent", 1, { title: "a\udfff" }],
]) {
  test(`${name} is refused before it is sent, because it would come back as something else`, async (t) => {
    const fetched = t.mock.fn();
    const kind = (error) => error instanceof TypeError || error instanceof URIError;
    await assert.rejects(publish("a", data, { url: "http://127.0.0.1:1", fetch: fetched, ...options }), kind);
    assert.equal(fetched.mock.callCount(), 0);
  });
}

test("the error names what cannot be written, and where", async () => {
  const refused = publish("a", { order: { items: new Map() } }, { url: "http://127.0.0.1:1" });
  await assert.rejects(refused, { message: /^JSON cannot hold Map as "items":/ });
});

test("text of any content type goes as it is: so do numbers that JavaScript does not have", async (t) => {
  const { body } = await published(t, '{"n": 12345678901234567890}', { contentType: "application/json" });
  assert.equal(body.toString(), '{"n": 12345678901234567890}');
});

for (const [what, status, code, temporary] of [
  ["a page of a gateway that is being deployed", 404, "foreign_answer", true],
  ["a page of a firewall", 403, "foreign_answer", true],
  ["a gateway that lost patience", 504, "outcome_unknown", true],
  ["the page of an application", 200, "outcome_unknown", false],
]) {
  test(`${what} is not taken for what the service says: ${code}`, async (t) => {
    const server = await HeldServer.start(t);
    const answered = publish("a", 1, { url: server.url });
    (await server.request()).answer("<h1>Something</h1>", { status, headers: { "Content-Type": "text/html" } });
    await assert.rejects(answered, (error) => {
      assert.ok(error instanceof NotifierError);
      assert.deepEqual([error.status, error.code, error.temporary], [status, code, temporary]);
      return true;
    });
  });
}

test("a publish that is redirected is not sent elsewhere, because it would be a poll there", async (t) => {
  const server = await HeldServer.start(t);
  const answered = publish("a", 1, { url: server.url });
  (await server.request()).answer("", { status: 301, headers: { Location: "/v1/topics/b" } });
  await assert.rejects(answered, { name: "NotifierError", status: 301, code: "foreign_answer" });
  assert.equal(server.unexpected, 0);
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
