import assert from "node:assert/strict";
import { test } from "node:test";
import { layOut, values } from "../../static/json.js";

const TRICKY =
  '{ "a" : 12345678901234567890 ,\n"b":[1.0, {"c": "]},:"}],"\\u0061" : "\\\\\\"", "__proto__": null, "e": {} }';

test("the values of an object are their texts; of a key that comes twice, the last", () => {
  const found = values(TRICKY);
  assert.deepEqual(Object.entries(found), [
    ["a", '"\\\\\\""'],
    ["b", '[1.0, {"c": "]},:"}]'],
    ["__proto__", "null"],
    ["e", "{}"],
  ]);
});

test("the values of an array are their texts", () => {
  assert.deepEqual(Object.values(values(' [1e400 , [2,3],"a,b", {}]')), ["1e400", "[2,3]", '"a,b"', "{}"]);
});

test("what is empty has no values", () => {
  for (const text of ["{}", "[]", " { } ", "[\n]"]) assert.deepEqual(Object.keys(values(text)), []);
});

for (const [text, width, shown] of [
  ['{"status":"paid"}', 80, '{ "status": "paid" }'],
  ["[ ]", 80, "[]"],
  ["{}", 80, "{}"],
  ["-0.0", 80, "-0.0"],
  ['"\\u00fc\\u003c\\n"', 80, '"ü<\\n"'],
  ["[[],{}, [1]]", 80, "[ [], {}, [ 1 ] ]"],
  ["[[],{}, [1]]", 1, "[\n  [],\n  {},\n  [\n    1\n  ]\n]"],
  ['{"n": 12345678901234567890, "n": 1.0}', 1, '{\n  "n": 12345678901234567890,\n  "n": 1.0\n}'],
]) {
  test(`${text} is laid out within ${width} characters`, () => assert.equal(layOut(text, width), shown));
}

test("what JSON.stringify lays out looks the same", () => {
  const value = { a: [1, 2.5, { b: null }], c: 'quotes " and \\ and \u2028', d: { e: [], f: {} }, g: true };
  assert.equal(layOut(JSON.stringify(value), 10), JSON.stringify(value, null, 2));
});

test("a string of a mebibyte is taken whole", () => {
  const text = JSON.stringify({ a: 'x"'.repeat(2 ** 19), b: 1 });
  assert.equal(values(text).b, "1");
  assert.ok(layOut(text, 80).length > 2 ** 20);
});
