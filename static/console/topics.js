/** Topics by name, with what happens in them while the page is open, and who waits for that. */

import { subscribe } from "../client.js";
import { fragment } from "./commands.js";
import { age, clock, showTopic } from "./looks.js";
import { $, element } from "./page.js";
import { accessKey, askForKey, asksForKey, get, setKey } from "./session.js";
import { reasonOf, showState } from "./state.js";
import { matcher, onWaiting } from "./waiting.js";

const PAGE = 200; // topics in one answer
const MOST = 2_000; // rows: who looks for one of more than that gives a pattern
const MINUTE = 60_000;

/** The rows by topic: their element, the time of the last message, how many came, and when in the last minute. */
const rows = new Map();
/** The topic to go on after; null at the end. */
let next = null;
let subscription;
/** The pattern whose topics are shown. */
let match = "**";
/** @type {import("./waiting.js").Waiting | undefined} */
let waiting;

async function find() {
  subscription?.return();
  subscription = undefined;
  rows.clear();
  $("found").replaceChildren();
  $("match-error").textContent = "";
  match = $("match").value.trim();
  let mine;
  const failed = (error) => {
    if (mine !== subscription) return;
    mine?.return();
    showState("stopped", "");
    if (asksForKey(error)) askForKey(find, error);
    else $("match-error").textContent = error.detail || error.message;
  };
  // Listed once the subscription has begun: what is published in between is told, and not missed by both.
  let listed;
  const list = () => (listed ??= load("", () => mine === subscription).catch(failed));
  try {
    mine = subscription = subscribe(match, {
      limit: 1_000,
      key: accessKey(),
      share: true,
      onState(state, retry) {
        if (mine !== subscription) return;
        showState(state, reasonOf(retry));
        if (state === "live") list();
      },
    });
    for await (const { topic, time } of mine) {
      await list();
      if (mine !== subscription) return;
      happened(topic, time);
    }
  } catch (error) {
    failed(error);
  }
}

async function load(after, wanted = () => true) {
  const query = new URLSearchParams({ match, limit: PAGE, ...(after && { after }) });
  const answer = await (await get(`v1/topics?${query}`)).json();
  if (!wanted()) return;
  for (const { topic, last_time: time } of answer.topics) {
    const entry = row(topic);
    if (!entry.time || entry.time < time) entry.time = time;
    show(entry);
  }
  next = answer.next;
  $("more").hidden = next === null || rows.size >= MOST;
  showWaiting();
}

/** The row of a topic, put where its name belongs. */
function row(topic) {
  if (rows.has(topic)) return rows.get(topic);
  const link = element("a", { className: "topic", href: `./#${fragment(topic)}` });
  showTopic(link, topic);
  const cells = [element("time"), "0", "0", ""].map((content) => element("td", {}, content));
  cells[3].className = "waits";
  const item = element("tr", {}, element("th", { scope: "row" }, link), ...cells);
  const made = { item, topic, time: undefined, count: 0, recent: [] };
  item.dataset.topic = topic;
  const last = $("found").lastElementChild;
  const isLast = !last || last.dataset.topic < topic; // so it is, mostly
  const after = isLast ? null : [...$("found").children].find((other) => other.dataset.topic > topic);
  $("found").insertBefore(item, after);
  rows.set(topic, made);
  $("none").hidden = true;
  return made;
}

/** Whether there may be a row for `topic` now. */
const hasRoom = (topic) => rows.has(topic) || ((next === null || topic <= next) && rows.size < MOST);

function happened(topic, time) {
  if (!hasRoom(topic)) return; // it comes with its page
  const entry = row(topic);
  entry.time = time;
  entry.count += 1;
  entry.recent.push(Date.now());
  if (entry.recent.length > 1_000) entry.recent.shift();
  changed.add(entry);
  frame ??= requestAnimationFrame(draw);
}

const changed = new Set();
let frame;

function draw() {
  frame = undefined;
  for (const entry of changed) show(entry);
  changed.clear();
}

function show({ item, topic, time, count, recent }) {
  const [, last, all, minute, waits] = item.children;
  const told = time ? { dateTime: time, textContent: `${age(time)} ago`, title: clock(time) } : { textContent: "no message" };
  Object.assign(last.firstChild, told);
  showNumber(all, count);
  showNumber(minute, recent.length, recent.length === 1_000);
  waits.hidden = !waiting;
  if (waiting) showNumber(waits, waitingFor(topic), !waiting.complete);
}

function showNumber(cell, number, orMore = false) {
  cell.textContent = `${number.toLocaleString("en")}${orMore ? " or more" : ""}`;
  cell.classList.toggle("zero", !number);
}

/** How many clients a message on `topic` would reach. */
const waitingFor = (topic) =>
  matchers.reduce((sum, [matches, clients]) => sum + (matches(topic) ? clients : 0), waiting.topics.get(topic) ?? 0);

/** Of the patterns that are waited for, with how many wait. */
let matchers = [];

function showWaiting() {
  const matches = matcher(match);
  const shown = (waiting?.patterns ?? []).filter(([pattern]) => pattern === match || matches(pattern));
  $("patterns").hidden = !shown.length;
  $("waited").replaceChildren(
    ...shown.map(([pattern, clients]) => {
      const link = element("a", { href: `./#${fragment(pattern)}`, textContent: pattern });
      return element("li", {}, link, ` ${clients.toLocaleString("en")}`);
    }),
  );
  $("waiting").textContent = waiting?.summary ?? "";
  for (const cell of document.querySelectorAll("thead .waits")) cell.hidden = !waiting;
  matchers = (waiting?.patterns ?? []).map(([pattern, clients]) => [matcher(pattern), clients]);
  // What is waited for and has no message is told too: perhaps its name is not what publishers write.
  for (const topic of waiting?.topics.keys() ?? []) if (matches(topic) && hasRoom(topic)) row(topic);
  for (const entry of rows.values()) {
    if (entry.time || waiting?.topics.has(entry.topic)) continue;
    entry.item.remove();
    rows.delete(entry.topic);
  }
  $("none").hidden = rows.size > 0;
  for (const entry of rows.values()) show(entry);
}

onWaiting((told) => {
  waiting = told;
  showWaiting();
});

setInterval(() => {
  if (document.hidden) return;
  const since = Date.now() - MINUTE;
  for (const entry of rows.values()) {
    while (entry.recent[0] < since) entry.recent.shift();
    show(entry);
  }
}, 2_000);

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const hash = `#${fragment($("match").value.trim())}`;
  if (hash === location.hash) find();
  else location.hash = hash; // and the change of it finds
});
$("more").addEventListener("click", async () => {
  $("more").disabled = true;
  await load(next).catch((error) => ($("match-error").textContent = error.message));
  $("more").disabled = false;
});
$("forget").addEventListener("click", () => (setKey(""), find()));

function readAddress() {
  $("match").value = decodeURIComponent(location.hash.slice(1)) || "**";
  find();
}

addEventListener("hashchange", readAddress);
setKey(accessKey());
readAddress();
