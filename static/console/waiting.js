/** Who waits: how many clients on which topics and patterns, as admins are told. Nobody else is told even that. */

import { inWords } from "./looks.js";
import { accessKey, get, onKey } from "./session.js";

const EVERY = 3_000; // milliseconds
const PATTERNS = 50; // that topics are compared with

/** @typedef {{ topics: Map<string, number>, patterns: [string, number][], complete: boolean, summary: string }} Waiting
 * `patterns` are those with most clients, and `summary` a sentence about all that wait. */

const escaped = (segment) => segment.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const expression = (segment) => (segment === "**" ? ".+" : segment === "*" ? "[^/]+" : escaped(segment));

/** Which topics a pattern matches. */
export function matcher(pattern) {
  const found = new RegExp(`^${pattern.split("/").map(expression).join("/")}$`);
  return (topic) => found.test(topic);
}

/** Calls `then` with who waits, again and again, and with nothing when this caller is not told. */
export function onWaiting(then) {
  let refused = false; // with this key: the answer to the same question would be the same
  let asking = false;
  const ask = async () => {
    if (document.hidden || refused || asking) return;
    asking = true;
    const key = accessKey();
    try {
      then(read(await (await get("v1/waiting")).json()));
    } catch ({ status }) {
      refused = (status === 401 || status === 403) && key === accessKey();
      if (refused) then(undefined);
    }
    asking = false;
  };
  onKey(() => ((refused = false), ask()));
  setInterval(ask, EVERY);
}

/** @returns {Waiting} */
function read({ waiting, clients, complete, processes }) {
  const topics = waiting.filter(({ item }) => !item.includes("*"));
  const patterns = waiting.filter(({ item }) => item.includes("*"));
  const where = processes > 1 ? ` in the process that answers, one of ${processes}` : "";
  return {
    topics: new Map(topics.map((each) => [each.item, each.clients])),
    patterns: patterns.slice(0, PATTERNS).map((each) => [each.item, each.clients]),
    complete: complete && patterns.length <= PATTERNS,
    summary: `${inWords(clients, "client waits", "clients wait")}${where}`,
  };
}
