/** The message that is open beside the feed, whole, as the server has it. */

import { copy, curl, forward, fragment } from "./commands.js";
import { member, read, shown } from "./json.js";
import { sized } from "./looks.js";
import { $, element } from "./page.js";
import { address, get } from "./session.js";

const READ = 500_000; // characters of JSON that are laid out; what is longer is shown as text
const CUT = 20_000; // characters of text that are shown; the download has the rest
const NODES = 3_000; // values laid out: the browser must not freeze over one message
const PICTURE = /^image\/(png|jpeg|gif|webp|avif)$/i; // not SVG, which is a program

const panel = $("detail");
let open; // the id of the message that is open
let picture; // the URL of its picture, which must be given back

export const openId = () => open;

export function close() {
  open = undefined;
  panel.hidden = true;
  panel.replaceChildren();
  if (picture) URL.revokeObjectURL(picture);
  picture = undefined;
}

/** Opens the message `id`. `actions` are what its buttons lead to: `watch(topic)`, `publish(message)`, `close()`. */
export async function show(id, actions) {
  close();
  open = id;
  panel.hidden = false;
  panel.replaceChildren(element("p", { className: "hint", textContent: `Message ${id} …` }));
  const parts = await partsOf(id, actions).catch((error) => [
    element("h2", { textContent: `Message ${id}` }),
    element("p", { className: "error", textContent: error.message }),
  ]);
  if (open !== id) return;
  const closing = element("button", { className: "plain close", textContent: "Close", type: "button" });
  closing.addEventListener("click", actions.close);
  panel.replaceChildren(closing, ...parts);
  panel.scrollTop = 0;
}

async function partsOf(id, { watch, publish }) {
  const text = await (await get(`v1/messages/${id}?view=json`)).text();
  const message = JSON.parse(text);
  const { topic, time, title, priority, tags = [], click, headers = [], source, verified } = message;
  const heading = element("h2", { textContent: title ?? topic });
  const only = element("a", { textContent: topic, className: "topic", href: `#${fragment(topic)}`, title: "Watch it alone" });
  only.addEventListener("click", (event) => (event.preventDefault(), watch(topic)));
  const facts = element("dl", {}, ...fact("Topic", only), ...fact("Id", id), ...fact("Time", time));
  if (priority) facts.append(...fact("Priority", String(priority)));
  if (tags.length) facts.append(...fact("Tags", tags.join(", ")));
  if (click) facts.append(...fact("Link", link(click)));
  if (source) facts.append(...fact("Webhook", `${source}, ${verified ? "signature verified" : "not verified"}`));
  if (message.content_type) facts.append(...fact("Type", message.content_type));
  const json = text.length <= READ && isJson(message) ? member(read(text), "data") : undefined;
  return [
    heading,
    facts,
    buttons(message, () => publish({ ...message, body: json?.text })),
    json ? laidOut(json) : await payload(message),
    ...(headers.length ? [headersOf(headers)] : []),
    ...(source ? [redelivery(topic, id)] : []),
  ];
}

const fact = (name, value) => [element("dt", { textContent: name }), element("dd", {}, value)];

/** Only web addresses become links: `javascript:` and the like stay text. */
function link(text) {
  if (!/^https?:\/\//i.test(text)) return text;
  return element("a", { href: text, textContent: text, target: "_blank", rel: "noopener noreferrer" });
}

function buttons(message, publish) {
  const { id, topic } = message;
  const button = (label, then) => {
    const made = element("button", { type: "button", className: "plain", textContent: label });
    made.addEventListener("click", () => then(made));
    return made;
  };
  const raw = `v1/messages/${id}`;
  return element(
    "div",
    { className: "actions" },
    button("Copy", async (self) => copy(self, await (await get(raw)).text())),
    button("Copy curl", (self) => copy(self, curl("", {}, [], raw))),
    button("Copy link", (self) => copy(self, `${address("")}#${fragment(topic)}?open=${id}`)),
    button("Download", (self) => download(raw, id).catch((error) => (self.textContent = error.message))),
    button("Publish again", publish),
  );
}

/** A link cannot carry the key, so the bytes are fetched here and saved. */
async function download(path, id) {
  const url = URL.createObjectURL(await (await get(path)).blob());
  element("a", { href: url, download: `message-${id}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const isJson = ({ content_type: type, encoding }) => !encoding && (!type || /[/+]json\b/i.test(type));

/** What is not laid out as JSON. */
async function payload(message) {
  const { id, data, encoding, content_type: type } = message;
  if (encoding && PICTURE.test(type)) return pictureOf(id);
  if (encoding) return element("p", { className: "hint", textContent: sized(message) });
  return cut(isJson(message) ? JSON.stringify(data, undefined, 2) : data);
}

function cut(text) {
  const pre = element("pre", { tabIndex: 0, textContent: text.length > CUT ? `${text.slice(0, CUT)}…` : text });
  if (text.length <= CUT) return pre;
  const rest = (text.length - CUT).toLocaleString("en");
  return element("div", {}, pre, element("p", { className: "hint", textContent: `${rest} characters more in the download` }));
}

async function pictureOf(id) {
  const url = URL.createObjectURL(await (await get(`v1/messages/${id}`)).blob());
  if (open !== id) URL.revokeObjectURL(url);
  else picture = url;
  return element("img", { src: url, alt: "The picture that was published" });
}

/** JSON to read, with objects and arrays that fold; as text, beside it, as it was published. */
function laidOut(value) {
  const raw = cut(value.text);
  raw.hidden = true;
  const budget = { left: NODES };
  const tree = element("div", { className: "tree", tabIndex: 0 }, branch(value, undefined, "", budget));
  if (budget.left < 0) tree.append(element("p", { className: "hint", textContent: "The rest is in the source." }));
  const toggle = element("button", { type: "button", className: "plain", textContent: "Source", ariaPressed: "false" });
  toggle.addEventListener("click", () => {
    raw.hidden = !raw.hidden;
    tree.hidden = !raw.hidden;
    toggle.ariaPressed = String(!raw.hidden);
  });
  return element("div", { className: "payload" }, toggle, tree, raw);
}

/** @param {import("./json.js").Value} value */
function branch({ text, open: bracket, entries }, key, comma, budget) {
  budget.left -= 1;
  const label = key === undefined ? [] : [element("span", { className: "key", textContent: JSON.stringify(key) }), ": "];
  const closing = { "{": "}", "[": "]" }[bracket];
  if (!bracket || !entries.length) {
    const kind = bracket ? "" : text[0] === '"' ? "string" : /^[-\d]/.test(text) ? "number" : "word";
    const leaf = element("span", { className: kind, textContent: bracket ? bracket + closing : shown(text) });
    return element("div", {}, ...label, leaf, comma);
  }
  const count = element("span", { className: "count", textContent: `${entries.length} …${closing}` });
  const inside = element("div", { className: "inside" });
  for (const [at, entry] of entries.entries()) {
    if (budget.left <= 0) {
      budget.left = -1;
      break;
    }
    inside.append(branch(entry.value, entry.key, at < entries.length - 1 ? "," : "", budget));
  }
  return element(
    "div",
    {},
    element("details", { open: true }, element("summary", {}, ...label, bracket, count), inside, closing + comma),
  );
}

function headersOf(headers) {
  const rows = headers.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", { textContent: value })),
  );
  return element("section", {}, element("h3", { textContent: "Headers" }), element("table", {}, element("tbody", {}, ...rows)));
}

/** A page cannot send it to other servers, nor with its headers; the command can. */
function redelivery(topic, id) {
  const code = element("code", { textContent: forward(topic, id) });
  const button = element("button", { type: "button", className: "plain", textContent: "Copy", ariaLabel: "Copy the command" });
  button.addEventListener("click", () => copy(button, code.textContent, code));
  const hint = element("p", { className: "hint", textContent: "To a server of your own, byte for byte and with its headers:" });
  const title = element("h3", { textContent: "Redeliver" });
  return element("section", {}, title, hint, element("div", { className: "command" }, code, button));
}
