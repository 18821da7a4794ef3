/** JSON as its source text has it: what JSON.parse would round (numbers) or drop (a key's repetition) is kept. */

// A string, a bracket or other punctuation, or anything else up to the next of them.
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{},:]|[^\s"[\]{},:]+/g;

/**
 * A value: `open` is its bracket, or empty where it is not an object or an array; `entries` are what it contains, in
 * their order, those of an object with their keys.
 *
 * @typedef {{ text: string, open: "" | "{" | "[", entries: { key?: string, value: Value }[] }} Value
 */

/** The value of `text`, which must be JSON.  @param {string} text  @returns {Value} */
export function read(text) {
  const tokens = [...text.matchAll(TOKEN)];
  let at = 0;
  const next = () => {
    const { 0: token, index } = tokens[at++];
    if (token !== "{" && token !== "[") return { text: token, open: "", entries: [] };
    const entries = [];
    while (!"}]".includes(tokens[at][0])) {
      if (tokens[at][0] === ",") at += 1;
      const key = token === "{" ? JSON.parse(tokens[at][0]) : undefined;
      if (token === "{") at += 2; // the colon too
      entries.push({ key, value: next() });
    }
    const end = tokens[at++];
    return { text: text.slice(index, end.index + 1), open: token, entries };
  };
  return next();
}

/** The value of the member `key` of an object, the last where there are several.  @param {Value} object */
export function member({ entries }, key) {
  return entries.findLast((entry) => entry.key === key)?.value;
}

/** The text of a value that contains nothing, with the characters that a string has as escapes shown as themselves. */
export const shown = (/** @type {string} */ text) => (text[0] === '"' ? JSON.stringify(JSON.parse(text)) : text);
