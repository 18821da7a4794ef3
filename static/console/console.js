/** The console: topics live, newest first, and what there was before; one message open beside them; publishing. */

import { publish } from "../client.js";
import { curl, fragment, sql } from "./commands.js";
import * as detail from "./detail.js";
import * as feed from "./feed.js";
import * as hour from "./hour.js";
import { onKeys } from "./keys.js";
import { $ } from "./page.js";
import { goTo, loadOlder } from "./past.js";
import { openPublishing } from "./publishing.js";
import { accessKey, askForKey, asksForKey, onKey, setKey } from "./session.js";
import { onWatch, pause, reconnect, watch } from "./watching.js";

const FIRST = 100; // rows at the beginning
const BEGINNINGS = {
  last: { last: FIRST },
  now: {},
  "10m": { since: "10m" },
  "1h": { since: "1h" },
  "1d": { since: "1d" },
  earliest: { after: "earliest" },
};

/** Topics may be separated by spaces too: phones like to add them. */
const topicList = () =>
  $("topics")
    .value.split(/[\s,]+/)
    .filter(Boolean);

const begin = (beginning = BEGINNINGS[$("from").value], keeps = false) => watch(topicList(), beginning, keeps);

function backToNow() {
  if (!feed.toTop()) begin(BEGINNINGS.last);
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

/** `keeps`: the rows that came with the page are the first ones. */
function readAddress(keeps = false) {
  const [list, query] = location.hash.slice(1).split("?");
  const topics = list.replace(/%[0-9a-f]{2}/gi, (code) => String.fromCharCode(parseInt(code.slice(1), 16)));
  const { from, open: id } = Object.fromEntries(new URLSearchParams(query));
  $("topics").value = topics || "**";
  $("from").value = Object.hasOwn(BEGINNINGS, from) ? from : "last";
  showCommands();
  begin(undefined, keeps);
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
  if (hash === location.hash) begin();
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

onKeys(
  {
    j: () => step(1),
    k: () => step(-1),
    p: () => openPublishing(),
    " ": () => pause(),
    "/": () => $("filter").focus(),
    "?": () => $("keys").showModal(),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
  },
  escape,
);

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
  pause: () => pause(),
  clear: () => feed.clear(),
  older: loadOlder,
  forget: () => (setKey(""), begin()),
  retry: reconnect,
  try: tryIt,
  "news-above": backToNow,
  "open-publishing": () => openPublishing(),
  "close-publishing": () => $("publishing").close(),
}))
  $(id).addEventListener("click", then);
$("feed").addEventListener("scroll", () => $("feed").scrollTop < 1 && feed.toTop(), { passive: true });
$("topics").addEventListener("input", showCommands);
addEventListener("hashchange", () => readAddress());
onKey(showCommands);
onWatch(hour.begin);
hour.onChoice((end) => (end === undefined ? backToNow() : goTo(end)));

setKey(accessKey());
readAddress(feed.cameWithPage() && !("asks" in document.documentElement.dataset));
delete document.documentElement.dataset.asks;
