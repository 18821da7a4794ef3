/** Topics by name, with what happens in them while the page is open. */

import { subscribe } from "../client.js";
import { fragment } from "./commands.js";
import { age, clock, hue } from "./looks.js";
import { $, element } from "./page.js";
import { accessKey, askForKey, asksForKey, get, setKey } from "./session.js";

const PAGE = 200; // topics in one answer
const MOST = 2_000; // rows: who looks for one of more than that gives a pattern
const MINUTE = 60_000;
const STATES = { connecting: "Connecting", live: "Live", retrying: "Reconnecting", stopped: "Stopped" };

/** The rows by topic: their element, the time of the last message, how many came, and when in the last minute. */
const rows = new Map();
/** The topic to go on after; null at the end. */
let next = null;
let subscription;

async function find() {
  subscription?.return();
  subscription = undefined;
  rows.clear();
  $("found").replaceChildren();
  $("match-error").textContent = "";
  const match = $("match").value.trim();
  let mine;
  try {
    mine = subscription = subscribe(match, {
      limit: 1_000,
      key: accessKey(),
      share: true,
      onState: (state, retry) => mine === subscription && tell(state, retry),
    });
    await load("");
    for await (const { topic, time } of mine) {
      if (mine !== subscription) return;
      happened(topic, time);
    }
  } catch (error) {
    if (mine !== subscription) return;
    tell("stopped");
    if (asksForKey(error)) return askForKey(find, error);
    $("match-error").textContent = error.detail || error.message;
  }
}

async function load(after) {
  const query = new URLSearchParams({ match: $("match").value.trim(), limit: PAGE, ...(after && { after }) });
  const answer = await (await get(`v1/topics?${query}`)).json();
  for (const { topic, last_time: time } of answer.topics) row(topic, time);
  next = answer.next;
  $("more").hidden = next === null || rows.size >= MOST;
  $("none").hidden = rows.size > 0;
}

/** The row of a topic, put where its name belongs. */
function row(topic, time) {
  if (rows.has(topic)) return rows.get(topic);
  const link = element("a", { className: "topic", href: `./#${fragment(topic)}`, textContent: topic });
  link.style.setProperty("--hue", hue(topic));
  const cells = [element("time"), "0", "0"].map((content) => element("td", {}, content));
  const item = element("tr", {}, element("th", { scope: "row" }, link), ...cells);
  const made = { item, time, count: 0, recent: [] };
  item.dataset.topic = topic;
  const last = $("found").lastElementChild;
  const isLast = !last || last.dataset.topic < topic; // so it is, mostly
  const after = isLast ? null : [...$("found").children].find((other) => other.dataset.topic > topic);
  $("found").insertBefore(item, after);
  rows.set(topic, made);
  show(made);
  return made;
}

function happened(topic, time) {
  const beyond = next !== null && topic > next; // it comes with its page
  if (!rows.has(topic) && (beyond || rows.size >= MOST)) return;
  const entry = row(topic, time);
  entry.time = time;
  entry.count += 1;
  entry.recent.push(Date.now());
  if (entry.recent.length > 1_000) entry.recent.shift();
  changed.add(entry);
  $("none").hidden = true;
  frame ??= requestAnimationFrame(draw);
}

const changed = new Set();
let frame;

function draw() {
  frame = undefined;
  for (const entry of changed) show(entry);
  changed.clear();
}

function show({ item, time, count, recent }) {
  const [, last, all, minute] = item.children;
  Object.assign(last.firstChild, { dateTime: time, textContent: `${age(time)} ago`, title: clock(time) });
  all.textContent = count.toLocaleString("en");
  minute.textContent = recent.length === 1_000 ? "1,000 or more" : String(recent.length);
}

setInterval(() => {
  if (document.hidden) return;
  const since = Date.now() - MINUTE;
  for (const entry of rows.values()) {
    while (entry.recent[0] < since) entry.recent.shift();
    show(entry);
  }
}, 2_000);

function tell(state, retry) {
  $("now").dataset.state = state;
  $("state").textContent = STATES[state];
  $("reason").textContent = retry ? `in ${Math.ceil(retry.delay / 1_000)} s: ${retry.error.detail || retry.error.message}` : "";
}

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
