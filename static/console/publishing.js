/** The dialog that publishes. */

import { publish } from "../client.js";
import { curlPublish } from "./commands.js";
import { $ } from "./page.js";
import { accessKey, askForKey, asksForKey, get, onKey } from "./session.js";

const form = $("publish");

/** The message that is published again, if its bytes are neither JSON nor plain text: they are sent as they are. */
let kept;

function fields() {
  const given = Object.fromEntries(new FormData(form));
  const names = ["title", "priority", "tags", "click"].filter((name) => given[name].trim());
  const display = Object.fromEntries(names.map((name) => [name, given[name].trim()]));
  if (display.tags) display.tags = display.tags.split(/\s*,\s*/).filter(Boolean).join(",");
  const { topic, kind, body } = given;
  return { topic: topic.trim(), body, json: kind === "json", kept: kind === "kept" ? kept : undefined, display };
}

export async function send() {
  const { topic, body, json, kept: its, display } = fields();
  tell("Publishing…");
  try {
    const data = its ? await (await get(`v1/messages/${its.id}`)).arrayBuffer() : body;
    const contentType = its?.type ?? (json ? "application/json" : "text/plain; charset=utf-8");
    const { id } = await publish(topic, data, { contentType, key: accessKey(), ...display });
    tell(`Published as ${id}`);
  } catch (error) {
    tell(error.detail || error.message, "error");
    if (asksForKey(error)) askForKey(send, error);
  }
}

function tell(text, className = "") {
  Object.assign($("outcome"), { textContent: text, className });
}

function show() {
  $("publish-command").textContent = curlPublish(fields());
  $("body").hidden = form.elements.kind.value === "kept";
  $("kept").hidden = form.elements.kind.value !== "kept";
}

/** Opens the dialog; with a message, filled in with it. `body` is its JSON, as it was published. */
export function openPublishing(message) {
  if (message) {
    const { id, topic, data, body, encoding, content_type: type = "application/json" } = message;
    const isText = !encoding && /^text\/plain *(;|$)/i.test(type);
    const isJson = body !== undefined && type === "application/json";
    kept = isText || isJson ? undefined : { id, type };
    $("keep").hidden = !kept;
    if (kept) $("kept").textContent = `The bytes of message ${id}, as they are: ${type}`;
    const { title = "", click = "", priority = "", tags = [] } = message;
    const text = isText ? data : (body ?? "");
    const kind = isText ? "text" : isJson ? "json" : "kept";
    const filled = { kind, topic, body: text, title, click, priority, tags };
    for (const [name, value] of Object.entries(filled)) form.elements[name].value = value;
  }
  tell("");
  show();
  if (!$("publishing").open) $("publishing").show(); // beside the feed, where what is published appears
}

form.addEventListener("submit", (event) => (event.preventDefault(), send()));
form.addEventListener("input", show);
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
onKey(show);
