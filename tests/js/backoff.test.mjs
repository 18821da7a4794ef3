import assert from "node:assert/strict";
import { test } from "node:test";
import { backoff, retryAfter } from "../../static/client/times.js";

const NOW = Date.parse("2026-11-20T17:00:00Z");
const asked = (value) => retryAfter(new Headers(value === undefined ? {} : { "Retry-After": value }), NOW);

test("backoff doubles from half a second to half a minute, or to a cap below", () => {
  const longest = (cap) => [0, 1, 2, 3, 4, 5, 6, 5_000].map((failures) => backoff(failures, 1, cap));
  assert.deepEqual(longest(), [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  assert.deepEqual(longest(3_000), [500, 1_000, 2_000, 3_000, 3_000, 3_000, 3_000, 3_000]);
});

test("backoff is full jitter: anything from nothing to the longest", () => {
  assert.equal(backoff(3, 0), 0);
  assert.equal(backoff(3, 0.25), 1_000);
  for (let i = 0; i < 100; i += 1) assert.ok(backoff(0) < 500);
});

for (const [value, milliseconds] of [
  [undefined, 0],
  ["0", 0],
  ["7", 7_000],
  [" 7 ", 7_000],
  ["Fri, 20 Nov 2026 17:00:30 GMT", 30_000],
  ["Fri, 20 Nov 2026 16:59:00 GMT", 0],
  ["soon", 0],
  ["-5", 0],
  ["1.5", 0],
  ["999999999999999999999999", 3_600_000],
  ["Fri, 20 Nov 2099 17:00:00 GMT", 3_600_000],
]) {
  test(`Retry-After: ${value} asks for ${milliseconds} ms`, () => assert.equal(asked(value), milliseconds));
}
