/** The console: watch topics live, publish. What arrives is hostile and is only ever written as text. */

import { publish, subscribe } from "./client.js";
import { layOut, values } from "./json.js";

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);

const SHOWN = 500; // messages kept on the page: a browser tab must last for weeks
const CUT = 20_000; // characters of one payload; the raw message has the rest
const LINE = 72; // characters of JSON that stay on one line
const BEGINNINGS = { now: {}, last: { last: 20 }, earliest: { after: "earliest" } };
const SESSION_KEY = "notifier.key"; // for this tab and this session; never in the address, which gets shared

/** The tab's storage, or memory where the user lets no site store anything: there, even to ask for it throws. */
const stored = (() => {
  try {
    return sessionStorage;
  } catch {
    const kept = new Map();
    return {
      getItem: (name) => kept.get(name),
      setItem: (name, value) => kept.set(name, value),
      removeItem: (name) => kept.delete(name),
    };
  }
})();

let subscription;
let paused = false;
let resume = () => {};

/** Topics may be separated by spaces too: phones like to add them. */
const topicList = () =>
  $("topics")
    .value.split(/[\s,]+/)
    .filter(Boolean);
const accessKey = () => stored.getItem(SESSION_KEY) ?? undefined;
const address = (path) => new URL(path, document.baseURI).href;

// --- watching

async function watch() {
  subscription?.return();
  subscription = undefined;
  $("topics-error").textContent = "";
  $("topics").removeAttribute("aria-invalid");
  clear();
  pause(false);
  const current = () => mine === subscription;
  const beginning = BEGINNINGS[$("from").value];
  let mine;
  try {
    mine = subscription = subscribe(topicList(), {
      ...beginning,
      key: accessKey(),
      parse: withSources,
      onState: (state, retry) => current() && tell(state, retry),
      onGap: (gap) => current() && showGap(gap),
    });
    for await (const message of mine) {
      // While this waits no poll is made: what comes is kept by the server, not by the page.
      if (paused) await new Promise((resolve) => (resume = resolve));
      if (!current()) return;
      show(message);
    }
  } catch (error) {
    if (!current()) return;
    tell("stopped");
    if (asksForKey(error)) return askForKey(watch, error);
    $("topics-error").textContent = error.detail || error.message;
    $("topics").setAttribute("aria-invalid", "true");
  }
}

function tell(state, retry) {
  const words = {
    connecting: "Connecting",
    live: "Live",
    retrying: "Reconnecting",
    stopped: "Stopped",
    paused: "Paused",
  };
  const reasons = { live: "the next message appears at once", paused: "what comes now waits on the server" };
  const shown = paused ? "paused" : state;
  $("now").dataset.state = shown;
  $("now").dataset.last = state;
  $("state").textContent = words[shown];
  $("reason").textContent = retry
    ? `in ${Math.ceil(retry.delay / 1_000)} s: ${retry.error.detail || retry.error.message}`
    : (reasons[shown] ?? "");
}

function pause(on) {
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  $("pause").textContent = on ? "Resume" : "Pause";
  tell($("now").dataset.last ?? "connecting");
  if (!on) resume();
}

// --- messages

/** An answer whose messages have the source text of their data beside it, with its numbers as they were published. */
function withSources(text) {
  const answer = JSON.parse(text);
  const sources = values(values(text).messages);
  answer.messages.forEach((message, at) => (message.source = values(sources[at]).data));
  return answer;
}

function show(message) {
  const item = $("message").content.cloneNode(true).firstElementChild;
  const part = (selector) => item.querySelector(selector);
  const { id, topic, time, title, priority, tags = [], click } = message;
  item.dataset.id = id;
  if (priority) item.dataset.priority = priority;
  Object.assign(part("time"), { dateTime: time, textContent: clock(time), title: time });
  Object.assign(part(".topic"), { textContent: topic, href: `#${fragment(topic)}`, title: "Watch this topic only" });
  part(".priority").textContent = priority ? `priority ${priority}` : "";
  part("h3").textContent = title ?? "";
  for (const tag of tags) part(".tags").append(Object.assign(document.createElement("span"), { textContent: tag }));
  const text = payload(message);
  part("pre").textContent = text.length > CUT ? `${text.slice(0, CUT)}…` : text;
  if (text.split("\n", 16).length === 16 || text.length > 1_000) part("pre").tabIndex = 0; // scrolled by keyboard
  part(".raw").textContent = text.length > CUT ? `cut below, all of ${id}` : id;
  part(".raw").title = "The message as it was published";
  part(".raw").href = address(`v1/messages/${id}`);
  part(".raw").addEventListener("click", openRaw);
  if (click) showLink(part(".click"), click);
  $("messages").prepend(item);
  if ($("messages").childElementCount > SHOWN) $("messages").lastElementChild.remove();
  $("nothing").hidden = true;
  announce(topic);
}

/** Only web addresses become links: `javascript:` and the like stay text. */
function showLink(link, click) {
  link.textContent = click;
  if (/^https?:\/\//i.test(click)) link.href = click;
}

function payload({ data, source, content_type: type = "application/json", encoding }) {
  if (encoding) {
    const size = Math.floor((data.length * 3) / 4) - data.match(/=*$/)[0].length;
    return `${type}, ${size.toLocaleString("en")} bytes`;
  }
  if (!/[/+]json\b/i.test(type)) return data;
  return layOut(source, LINE);
}

// Made once: that takes ten times as long as to use them, and in a burst it was half of the work.
const dayOf = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const timeOf = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hour12: false });

function clock(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return (today ? "" : `${dayOf.format(date)} `) + timeOf.format(date);
}

function showGap({ reason, after }) {
  const item = $("gap").content.cloneNode(true).firstElementChild;
  item.querySelector("p").textContent =
    reason === "retention"
      ? `Messages after ${after} are missing here: they were older than the server keeps them.`
      : `The server's database is another one, or was restored. Messages after ${after} may be missing or come again.`;
  $("messages").prepend(item);
  $("nothing").hidden = true;
}

function clear() {
  $("messages").replaceChildren();
  $("nothing").hidden = false;
}

let news = 0;
let unseen = 0;

/** Tells screen readers about new messages, at most every two seconds; and a tab in the background, in its title. */
function announce(topic) {
  if (document.hidden) document.title = `(${(unseen += 1)}) Notifier`;
  news += 1;
  if (news > 1) return;
  setTimeout(() => {
    $("news").textContent = `${news === 1 ? "A new message" : `${news} new messages`}, first on ${topic}`;
    news = 0;
  }, 2_000);
}

/** A link cannot carry the key, so with one the raw message is fetched here and saved. */
async function openRaw(event) {
  if (!accessKey()) return;
  event.preventDefault();
  const { currentTarget: link } = event;
  const { href } = link;
  const response = await fetch(href, { headers: { Authorization: `Bearer ${accessKey()}` } }).catch(() => undefined);
  if (!response?.ok) {
    const { detail = "It cannot be fetched now." } = (await response?.json().catch(() => {})) ?? {};
    link.textContent = detail;
    return;
  }
  const url = URL.createObjectURL(await response.blob());
  Object.assign(document.createElement("a"), { href: url, download: `message-${href.split("/").at(-1)}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// --- publishing

function fields() {
  const form = Object.fromEntries(new FormData($("publish")));
  const given = ["title", "priority", "tags", "click"].filter((name) => form[name].trim());
  const display = Object.fromEntries(given.map((name) => [name, form[name].trim()]));
  if (display.tags)
    display.tags = display.tags
      .split(",")
      .map((tag) => tag.trim())
      .filter(Boolean)
      .join(",");
  return { topic: form.topic.trim(), body: form.body, json: form.kind === "json", display };
}

async function send() {
  const { topic, body, json, display } = fields();
  const outcome = $("outcome");
  outcome.className = "";
  outcome.textContent = "Publishing…";
  try {
    const contentType = json ? "application/json" : "text/plain; charset=utf-8";
    const { id } = await publish(topic, body, { contentType, key: accessKey(), ...display });
    outcome.textContent = `Published as ${id}`;
  } catch (error) {
    outcome.className = "error";
    outcome.textContent = error.detail || error.message;
    if (asksForKey(error)) askForKey(send, error);
  }
}

// --- the key

let afterKey = () => {};

/** A caller without a key is refused with 403 where others may do something without one. */
const asksForKey = ({ status }) => status === 401 || (status === 403 && !accessKey());

function askForKey(then, { status, detail }) {
  afterKey = then;
  const reason = accessKey() ? `The key that was given is refused. ${detail}` : status === 403 && detail;
  Object.assign($("key-reason"), { hidden: !reason, textContent: reason || "" });
  $("key").value = "";
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

function setKey(key) {
  if (key) stored.setItem(SESSION_KEY, key);
  else stored.removeItem(SESSION_KEY);
  $("forget").hidden = !key;
  showCommands();
}

// --- commands to copy

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const fragment = (topics) => encodeURIComponent(topics).replace(/%(2F|2C|3A|40|3D|2B)/g, decodeURIComponent);

function command(topics, query, options = []) {
  const url = address(`v1/topics/${fragment(topics)}`) + (String(query) && `?${query}`);
  const key = accessKey() ? ['-H "Authorization: Bearer $NOTIFIER_KEY"'] : [];
  return ["curl", ...key, ...options, quote(url)].join(" ");
}

function showCommands() {
  $("watch-command").textContent = command(topicList().join(), new URLSearchParams(BEGINNINGS[$("from").value]));
  const { topic, body, json, display } = fields();
  // -d would read a file for a body that begins with @
  const data = body.startsWith("@") ? "--data-raw" : "-d";
  const type = json ? [] : ["-H 'Content-Type: text/plain'"];
  $("publish-command").textContent = command(topic, new URLSearchParams(display), [...type, data, quote(body)]);
}

async function copy({ currentTarget: button }) {
  const source = $(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2_000);
  } catch {
    getSelection().selectAllChildren(source); // no clipboard on plain http beyond this machine: ready for Ctrl+C
  }
}

// --- the address: #orders/*,alerts?from=earliest

function readAddress() {
  const [list, query] = location.hash.slice(1).split("?");
  const topics = list.replace(/%[0-9a-f]{2}/gi, (code) => String.fromCharCode(parseInt(code.slice(1), 16)));
  const from = new URLSearchParams(query).get("from");
  $("topics").value = topics || "**";
  $("from").value = Object.hasOwn(BEGINNINGS, from) ? from : "last";
  const exact = topicList().find((topic) => !topic.includes("*"));
  if (exact) $("topic").value = exact;
  showCommands();
  watch();
}

function writeAddress() {
  const from = $("from").value;
  const hash = `#${fragment(topicList().join())}${from === "last" ? "" : `?from=${from}`}`;
  if (hash === location.hash) watch();
  else location.hash = hash; // and the change of it watches
}

const submits = (form, then) => $(form).addEventListener("submit", (event) => (event.preventDefault(), then(event)));

submits("watch", writeAddress);
submits("publish", send);
submits("key-form", ({ submitter }) => {
  $("key-dialog").close();
  if (submitter?.value === "cancel") return;
  setKey($("key").value.trim());
  afterKey();
});
$("forget").addEventListener("click", () => (setKey(""), watch()));
$("pause").addEventListener("click", () => pause(!paused));
$("clear").addEventListener("click", clear);
$("publish").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("publish").requestSubmit();
});
document.addEventListener("input", showCommands);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unseen = 0;
  document.title = "Notifier";
});
for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", copy);
addEventListener("hashchange", readAddress);

$("publishing").open = matchMedia("(min-width: 60rem)").matches; // else messages would begin far below
setKey(accessKey());
readAddress();
