/** The feed: a row for each message, newest first. */

import { fragment } from "./commands.js";
import { age, clock, showTopic, sized } from "./looks.js";
import { $, copyOf, element, moves } from "./page.js";

const ROWS = 500; // on the page: a tab must last for weeks
const TEXT = 10_000; // characters of a message that are kept, for its row and the filter; the server has the rest
const LINE = 300; // characters of them that a row can show
const TAGS = 5;
const FRESH = 5_000; // milliseconds for which a row says how long its message took
const FLASHES = 20; // rows in one frame; in a burst, hundreds that change at once would take longer than to arrive

const list = $("messages");
const scroller = $("feed");
const row = $("row");

/** What rows stand for, by their element. */
const entries = new WeakMap();
/** The rows that came with the page, by id, until the first messages come: they are the same. */
const served = new Map([...list.children].map((item) => [item.dataset.id, item]));
/** Rows that came while the reader was further down: they are put in when the top is reached. */
let held = [];
let heldCount = 0;
/** Whether rows between the top and now were removed, because the reader went so far back. */
let detached = false;
let matches = () => true;

/** @typedef {{ id: string, topic: string, time: string, text: string, line: string, titled: boolean }} Entry */

/** @param {any} message  @returns {Entry} */
function entryOf(message) {
  const { id, topic, time, title, tags = [], priority } = message;
  const text = textOf(message);
  const line = title ?? text.slice(0, LINE).trimStart().split("\n", 1)[0];
  return { id, topic, time, title, tags, priority, text, line: line.slice(0, LINE), titled: title !== undefined };
}

/** A message's payload as text, cut. */
function textOf({ data, encoding, content_type: type = "application/json" }) {
  if (encoding) return sized({ data, content_type: type });
  return (typeof data === "string" && !/[/+]json\b/i.test(type) ? data : JSON.stringify(data)).slice(0, TEXT);
}

function build(message) {
  const entry = entryOf(message);
  const { id, topic, time, tags, priority, line, titled } = entry;
  const item = served.get(id) ?? copyOf(row);
  const part = (name) => item.querySelector(name);
  item.dataset.id = id;
  part("a").href = `#${fragment(topic)}?open=${id}`;
  if (priority) item.dataset.priority = priority;
  item.hidden = !matches(entry);
  Object.assign(part("time"), { dateTime: time, textContent: clock(time) });
  showTopic(part(".topic"), topic);
  Object.assign(part(".line"), { textContent: line, className: titled ? "line title" : "line" });
  const high = priority ? [element("span", { className: "priority", textContent: `priority ${priority}` })] : [];
  const named = tags.slice(0, TAGS).map((tag) => element("span", { textContent: tag }));
  part(".tags").replaceChildren(...high, ...named);
  part(".age").textContent = age(time);
  entries.set(item, entry);
  return item;
}

/** Puts in `messages`, oldest first, that have just come. Those published after `began` tell how long they took. */
export function add(messages, began) {
  const now = Date.now();
  const items = messages.slice(-ROWS).map((message) => {
    const item = build(message);
    const published = Date.parse(message.time);
    const took = now - published; // by the clocks of the database and of this machine
    if (published >= began && took >= 0 && took < FRESH) {
      item.dataset.fresh = String(now);
      item.querySelector(".age").textContent = `${took} ms`;
    }
    return item;
  });
  put(items, messages.length);
}

export function addGap({ reason, after }) {
  const item = copyOf($("gap"));
  item.querySelector("p").textContent =
    reason === "retention"
      ? `Messages after ${after} are missing here: they were older than the server keeps them.`
      : `The server's database is another one, or was restored. Messages after ${after} may be missing or come again.`;
  put([item], 0);
}

function put(items, count) {
  const isFirst = served.size > 0;
  withdraw();
  $("nothing").hidden = true;
  if (detached || scroller.scrollTop > 40) {
    // What the reader looks at must not move.
    held = [...held, ...items].slice(-ROWS);
    heldCount += count;
    const shown = heldCount.toLocaleString("en");
    $("news-above").textContent = heldCount === 1 ? "1 new message" : `${shown} new messages`;
    $("news-above").hidden = false;
    return;
  }
  if (items.length <= FLASHES && !isFirst && moves()) for (const item of items) item.classList.add("new");
  list.prepend(...items.reverse());
  while (list.childElementCount > ROWS) list.lastElementChild.remove();
}

/** Removes the rows that came with the page, unless they have been taken over. */
export function withdraw() {
  if (!served.size) return;
  served.clear();
  list.replaceChildren();
  $("nothing").hidden = false;
}

/** Puts messages, oldest first, in the place of all rows: those up to now are not among them. */
export function showPast(messages) {
  clear();
  detached = true;
  addOlder(messages);
  $("nothing").hidden = true;
}

/** Puts messages, oldest first, that are older than all others below them. */
export function addOlder(messages) {
  $("nothing").hidden ||= messages.length > 0;
  list.append(...messages.map(build).reverse());
  const before = scroller.scrollHeight;
  while (list.childElementCount > ROWS) {
    list.firstElementChild.remove();
    detached = true;
  }
  scroller.scrollTop -= before - scroller.scrollHeight; // what the reader looks at must not move
  if (detached) $("news-above").hidden = false;
  if (detached && !heldCount) $("news-above").textContent = "Back to now";
}

/** Goes to the top. Whether the rows up to now are there; where they are not, the caller must begin anew. */
export function toTop() {
  if (detached) return false;
  scroller.scrollTop = 0;
  const items = held;
  held = [];
  heldCount = 0;
  $("news-above").hidden = true;
  if (items.length === ROWS) list.replaceChildren();
  if (items.length) put(items, 0);
  return true;
}

export function clear() {
  list.replaceChildren();
  served.clear();
  held = [];
  heldCount = 0;
  detached = false;
  scroller.scrollTop = 0;
  $("news-above").hidden = true;
  $("nothing").hidden = false;
}

/** Shows only rows that have all words of `text`, in any case, and none that is written with a minus before it. */
export function filter(text) {
  const words = text.split(/\s+/).filter((word) => word && word !== "-");
  const tests = words.map((word) => {
    const without = word.startsWith("-");
    const found = new RegExp((without ? word.slice(1) : word).replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "iu");
    return ({ topic, title = "", tags, text: payload }) =>
      [topic, title, payload, ...tags].some((part) => found.test(part)) !== without;
  });
  matches = (entry) => tests.every((test) => test(entry));
  let count = 0;
  for (const item of list.children) {
    const entry = entries.get(item);
    if (entry) item.hidden = !matches(entry);
    if (!item.hidden) count += 1;
  }
  $("filtered").textContent = text.trim() ? `${count} of ${list.childElementCount} shown` : "";
}

/** The id of the lowest message. */
export const oldest = () => [...list.children].findLast((item) => item.dataset.id)?.dataset.id;
export const isEmpty = () => served.size > 0 || (!list.childElementCount && !heldCount);
export const cameWithPage = () => served.size > 0;
export const selected = () => list.querySelector("[aria-current]");
export const entryOfRow = (item) => entries.get(item);
export const find = (id) => list.querySelector(`[data-id="${CSS.escape(id)}"]`);

export function select(item) {
  selected()?.removeAttribute("aria-current");
  item?.setAttribute("aria-current", "true");
  item?.scrollIntoView({ block: "nearest" });
}

/** The row that is `step` rows below the chosen one, among those shown; the first without a chosen one. */
export function neighbour(step) {
  const rows = [...list.querySelectorAll("li[data-id]:not([hidden])")];
  const at = rows.indexOf(selected());
  return at < 0 ? rows[0] : rows[Math.min(Math.max(at + step, 0), rows.length - 1)];
}

let ticks = 0;

/** Ages: of young rows each second, of all others twice a minute. */
setInterval(() => {
  if (document.hidden) return;
  const now = Date.now();
  ticks += 1;
  for (const item of list.children) {
    const entry = entries.get(item);
    if (!entry) continue;
    const young = now - Date.parse(entry.time) < 61_000;
    if (!young && ticks % 30) continue;
    if (item.dataset.fresh && now - Number(item.dataset.fresh) < FRESH) continue;
    delete item.dataset.fresh;
    item.querySelector(".age").textContent = age(entry.time);
  }
}, 1_000);
