import assert from "node:assert/strict";
import { test } from "node:test";
import { member, read, shown } from "../../static/console/json.js";

/** A value as text again, from its parts. */
function written({ text, open, entries }) {
  if (!open) return text;
  const inside = entries.map(({ key, value }) => (key === undefined ? "" : `${JSON.stringify(key)}:`) + written(value));
  return open + inside.join(",") + { "{": "}", "[": "]" }[open];
}

for (const [text, compact] of [
  ['{ "a" : 12345678901234567890 ,\n"a":[1.0, {"c": "]},:"}]}', '{"a":12345678901234567890,"a":[1.0,{"c":"]},:"}]}'],
  [' [1e400 , [2,3],"a,b", {}, [ ]]', '[1e400,[2,3],"a,b",{},[]]'],
  ["-0.0", "-0.0"],
  ['"\\u00fc\\u003c\\n"', '"\\u00fc\\u003c\\n"'],
  ['{"\\u0061": null, "__proto__": true}', '{"a":null,"__proto__":true}'],
]) {
  test(`${JSON.stringify(text)} is read with its numbers and keys as they are`, () =>
    assert.equal(written(read(text)), compact));
}

test("a value has its text, spaces inside included", () => {
  const { value } = read('[ { "a" : [ 1 , 2 ] } ]').entries[0];
  assert.equal(value.text, '{ "a" : [ 1 , 2 ] }');
});

test("of a key that comes twice, the last is the member", () => {
  const object = read('{"a": 1, "\\u0061": 2, "b": 3}');
  assert.equal(member(object, "a").text, "2");
  assert.equal(member(object, "c"), undefined);
});

test("a string is shown with its characters, and not with escapes for them", () => {
  assert.equal(shown('"\\u00fc\\u003c\\n\\""'), '"ü<\\n\\""');
  assert.equal(shown("1.0"), "1.0");
});

test("a string of a mebibyte is taken whole", () => {
  const text = JSON.stringify({ a: 'x"'.repeat(2 ** 19), b: 1 });
  assert.equal(member(read(text), "b").text, "1");
});
