/** The source text of JSON: what JSON.parse would round (numbers) or drop (a key's repetition) is kept. */

// A string, a bracket or other punctuation, or anything else up to the next of them.
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{},:]|[^\s"[\]{},:]+/g;

/**
 * The texts of the values of the object or array `text`, which must be JSON: by key, or by place.
 *
 * @param {string} text  @returns {Record<string, string>}
 */
export function values(text) {
  /** @type {Record<string, string>} */
  const found = Object.create(null);
  let depth = 0;
  let begin = 0;
  let count = 0;
  let key;
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    const opens = token === "{" || token === "[";
    const closes = token === "}" || token === "]";
    const ends = depth === 1 && (token === "," || closes);
    if (ends && text.slice(begin, index).trim()) found[key ?? count++] = text.slice(begin, index).trim();
    if (depth === 1 && token === ":") key = JSON.parse(text.slice(begin, index));
    if ((depth === 0 && opens) || (depth === 1 && ",:".includes(token))) begin = index + 1;
    depth += Number(opens) - Number(closes);
  }
  return found;
}

/**
 * JSON laid out for reading: on one line of at most `width` characters, or each value on a line of its own. Characters
 * that strings have as escapes are shown as themselves.
 */
export function layOut(/** @type {string} */ text, /** @type {number} */ width) {
  const shown = (/** @type {string} */ token) => (token[0] === '"' ? JSON.stringify(JSON.parse(token)) : token);
  const tokens = (text.match(TOKEN) ?? []).map(shown);
  const line = join(tokens, () => " ");
  return line.length <= width ? line : join(tokens, (depth) => `\n${"  ".repeat(depth)}`);
}

/** @param {string[]} tokens  @param {(depth: number) => string} space  what is before a value at that depth */
function join(tokens, space) {
  let depth = 0;
  let joined = "";
  let before = "";
  for (const token of tokens) {
    const closes = token === "}" || token === "]";
    if (closes) depth -= 1;
    const first = before === "{" || before === "[";
    if (before === ",") joined += space(depth);
    else if (before === ":") joined += " ";
    else if (closes ? !first : first) joined += space(depth); // {} and [] stay together
    if (token === "{" || token === "[") depth += 1;
    joined += token;
    before = token;
  }
  return joined;
}
