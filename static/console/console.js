/** The console: topics live, newest first, and what there was before; one message open beside them; publishing. */

import { publish, subscribe } from "../client.js";
import { curl, fragment, sql } from "./commands.js";
import * as detail from "./detail.js";
import * as feed from "./feed.js";
import { $, moves } from "./page.js";
import { openPublishing } from "./publishing.js";
import { accessKey, askForKey, asksForKey, get, onKey, setKey } from "./session.js";

const FIRST = 100; // rows at the beginning
const OLDER = 100; // rows that scrolling brings
const MOST = 1_000; // messages in one frame, and in one answer: a burst is drawn as often as the screen is
const BEGINNINGS = {
  last: { last: FIRST },
  now: {},
  "10m": { since: "10m" },
  "1h": { since: "1h" },
  "1d": { since: "1d" },
  earliest: { after: "earliest" },
};
const STATES = {
  connecting: "Connecting",
  live: "Live",
  retrying: "Reconnecting",
  stopped: "Stopped",
  paused: "Paused",
};

let subscription;
let paused = false;
let resume = () => {};
let state = "connecting";
let began = Infinity; // when it became live
/** Why it is in that state, where that is not plain. */
let reason = "";
/** Messages until the next frame. */
let pending = [];
/** The next frame, while something waits for it. */
let frame;
/** Messages in this second. */
let counted = 0;
let rate = 0;
/** Whether there is, as far as is known, something older than the rows. */
let more = true;
let loading = false;
let unseen = 0;

/** Topics may be separated by spaces too: phones like to add them. */
const topicList = () =>
  $("topics")
    .value.split(/[\s,]+/)
    .filter(Boolean);

// --- watching

function watch(beginning = BEGINNINGS[$("from").value]) {
  pending = [];
  more = true;
  began = Infinity;
  feed.clear();
  $("topics-error").textContent = "";
  $("topics").removeAttribute("aria-invalid");
  tellOlder();
  return follow(beginning);
}

/** Goes on where it was, at once: a person who asks for that need not wait until a busy server wants to be asked. */
function reconnect() {
  const { cursor } = subscription;
  return follow(cursor === undefined ? BEGINNINGS[$("from").value] : { after: cursor });
}

async function follow(beginning) {
  subscription?.return();
  subscription = undefined;
  pause(false);
  let mine;
  const current = () => mine === subscription;
  try {
    mine = subscription = subscribe(topicList(), {
      ...beginning,
      limit: MOST,
      key: accessKey(),
      share: true, // a browser has six connections to a server over HTTP/1.1, for all tabs together
      onState: (next, retry) => current() && tell(next, retry),
      onGap: (gap) => current() && (draw(), feed.addGap(gap)),
    });
    for await (const message of mine) {
      // While this waits no poll is made: what comes is kept by the server, not by the page.
      if (paused) await new Promise((resolve) => (resume = resolve));
      if (!current()) return;
      pending.push(message);
      frame ??= nextFrame().then(draw);
      if (pending.length >= MOST) await frame;
    }
  } catch (error) {
    if (!current()) return;
    tell("stopped");
    if (asksForKey(error)) return askForKey(watch, error);
    $("topics-error").textContent = error.detail || error.message;
    $("topics").setAttribute("aria-invalid", "true");
  }
}

/** A page that is not seen has no frames. */
const nextFrame = () => new Promise((resolve) => (requestAnimationFrame(resolve), setTimeout(resolve, 1_000)));

/** Puts all that has come since the last frame on the page, at once. */
function draw() {
  frame = undefined;
  if (!pending.length) return;
  const messages = pending;
  pending = [];
  if (Date.parse(messages[0].time) >= began) counted += messages.length; // not what was there
  feed.add(messages, began);
  announce(messages);
  if (moves()) $("dot").animate([{ boxShadow: "0 0 0 0 currentColor" }, { boxShadow: "0 0 0 0.5rem transparent" }], 600);
}

function tell(next, retry) {
  state = next;
  if (state === "live") began = Math.min(began, Date.now());
  reason = retry ? `in ${Math.ceil(retry.delay / 1_000)} s: ${retry.error.detail || retry.error.message}` : "";
  showState();
}

function showState() {
  const shown = paused ? "paused" : state;
  const rates = shown === "live" && rate >= 10 ? `${rate.toLocaleString("en")} messages/s` : "";
  const held = shown === "paused" ? "what comes now waits on the server" : "";
  $("now").dataset.state = shown;
  $("state").textContent = STATES[shown];
  $("reason").textContent = reason || rates || held;
  $("retry").hidden = state !== "retrying";
}

setInterval(() => {
  rate = counted;
  counted = 0;
  showState();
}, 1_000);

function pause(on) {
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  $("pause").textContent = on ? "Resume" : "Pause";
  showState();
  if (!on) resume();
}

let news = 0;

/** Tells screen readers about new messages, at most every two seconds; and a tab in the background, in its title. */
function announce(messages) {
  if (document.hidden) document.title = `(${(unseen += messages.length)}) Notifier`;
  if (!news) {
    setTimeout(() => {
      $("news").textContent = `${news === 1 ? "A new message" : `${news} new messages`}, last on ${messages.at(-1).topic}`;
      news = 0;
    }, 2_000);
  }
  news += messages.length;
}

// --- history

async function loadOlder() {
  if (loading || !more || state === "stopped") return;
  loading = true;
  tellOlder();
  const of = subscription;
  try {
    const list = fragment(topicList().join());
    const before = feed.oldest() ?? "latest";
    const answer = await (await get(`v1/topics/${list}?before=${before}&limit=${OLDER}`)).json();
    if (of !== subscription) return;
    feed.addOlder(answer.messages);
    more = answer.before !== null;
  } catch (error) {
    if (of === subscription) $("older-error").textContent = error.message;
    return;
  } finally {
    loading = false;
    if (of === subscription) tellOlder();
  }
  // Still in view, it would not be told again.
  bottom.unobserve($("older"));
  bottom.observe($("older"));
}

function tellOlder() {
  $("older-error").textContent = "";
  $("older").disabled = loading || !more;
  $("older").textContent = loading ? "Loading…" : more ? "Older messages" : "The beginning";
}

const bottom = new IntersectionObserver(
  (seen) => seen.at(-1).isIntersecting && !feed.isEmpty() && !$("filter").value.trim() && loadOlder(),
  { root: $("feed"), rootMargin: "600px" },
);

function backToNow() {
  if (!feed.toTop()) watch(BEGINNINGS.last);
}

// --- one message

const actions = {
  watch: (topic) => {
    $("topics").value = topic;
    writeAddress();
  },
  publish: openPublishing,
  close: () => {
    const row = feed.selected();
    detail.close();
    history.replaceState(undefined, "", addressOf());
    row?.querySelector("a").focus();
  },
};

function open(id) {
  feed.select(feed.find(id));
  return detail.show(id, actions);
}

function step(by) {
  const row = feed.neighbour(by);
  if (!row) return;
  feed.select(row);
  row.querySelector("a").focus({ preventScroll: true });
  if (detail.openId()) openRow(row);
}

function openRow(row) {
  history.replaceState(undefined, "", addressOf(row.dataset.id));
  open(row.dataset.id);
}

// --- the address: #orders/*,alerts?from=earliest&open=41

function readAddress() {
  const [list, query] = location.hash.slice(1).split("?");
  const topics = list.replace(/%[0-9a-f]{2}/gi, (code) => String.fromCharCode(parseInt(code.slice(1), 16)));
  const { from, open: id } = Object.fromEntries(new URLSearchParams(query));
  $("topics").value = topics || "**";
  $("from").value = Object.hasOwn(BEGINNINGS, from) ? from : "last";
  showCommands();
  watch();
  if (/^\d{1,19}$/.test(id)) open(id);
  else detail.close();
}

function addressOf(id) {
  const from = $("from").value;
  const query = new URLSearchParams({ ...(from !== "last" && { from }), ...(id && { open: id }) });
  return `#${fragment(topicList().join())}${String(query) && `?${query}`}`;
}

/** Watches what the form says. */
function writeAddress() {
  const hash = addressOf(detail.openId());
  if (hash === location.hash) watch();
  else location.hash = hash; // and the change of it watches
}

// --- what the page says and does

/** The topic for first tries: a pattern's stars are filled in. */
const exampleTopic = () => (topicList()[0] ?? "**").replace("**", "hello").replaceAll("*", "hello");

function showCommands() {
  const topic = exampleTopic();
  $("watch-command").textContent = curl(topicList().join(), BEGINNINGS[$("from").value]);
  $("try-curl").textContent = curl(topic, {}, ["-d", `'{"from": "curl"}'`]);
  $("try-sql").textContent = sql(topic);
}

async function tryIt() {
  $("try-error").textContent = "";
  try {
    await publish(exampleTopic(), { from: "this page" }, { key: accessKey(), title: "It works" });
  } catch (error) {
    $("try-error").textContent = error.detail || error.message;
    if (asksForKey(error)) askForKey(tryIt, error);
  }
}

function escape() {
  if ($("publishing").open) $("publishing").close();
  else if (detail.openId()) actions.close();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  p: () => openPublishing(),
  " ": () => pause(!paused),
  "/": () => $("filter").focus(),
  "?": () => $("keys").showModal(),
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
};

addEventListener("keydown", (event) => {
  const { key, target, ctrlKey, metaKey, altKey } = event;
  if (ctrlKey || metaKey || altKey || document.querySelector("dialog:modal")) return;
  if (key === "Escape") return escape();
  if (target.closest("input, textarea, select, dialog") || !Object.hasOwn(KEYS, key)) return;
  if (key === " " && target.closest("button, summary")) return;
  if (key.startsWith("Arrow") && target.closest("#detail")) return;
  event.preventDefault();
  KEYS[key]();
});

$("watch").addEventListener("submit", (event) => (event.preventDefault(), detail.close(), writeAddress()));
$("from").addEventListener("change", () => $("watch").requestSubmit());
$("filter").addEventListener("input", () => feed.filter($("filter").value));
$("messages").addEventListener("click", (event) => {
  const row = event.target.closest("li[data-id]");
  if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  openRow(row);
});
for (const [id, then] of Object.entries({
  pause: () => pause(!paused),
  clear: feed.clear,
  older: loadOlder,
  forget: () => (setKey(""), watch()),
  retry: reconnect,
  try: tryIt,
  "news-above": backToNow,
  "open-publishing": () => openPublishing(),
  "open-keys": () => $("keys").showModal(),
  "close-publishing": () => $("publishing").close(),
  "close-keys": () => $("keys").close(),
}))
  $(id).addEventListener("click", then);
$("feed").addEventListener("scroll", () => $("feed").scrollTop < 1 && feed.toTop(), { passive: true });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unseen = 0;
  document.title = "Notifier";
});
$("topics").addEventListener("input", showCommands);
addEventListener("hashchange", readAddress);
onKey(showCommands);

bottom.observe($("older"));
setKey(accessKey());
readAddress();
