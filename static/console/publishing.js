/** The dialog that publishes. */

import { publish } from "../client.js";
import { curlPublish } from "./commands.js";
import { $ } from "./page.js";
import { accessKey, askForKey, asksForKey, onKey } from "./session.js";

const form = $("publish");

function fields() {
  const given = Object.fromEntries(new FormData(form));
  const names = ["title", "priority", "tags", "click"].filter((name) => given[name].trim());
  const display = Object.fromEntries(names.map((name) => [name, given[name].trim()]));
  if (display.tags) display.tags = display.tags.split(/\s*,\s*/).filter(Boolean).join(",");
  return { topic: given.topic.trim(), body: given.body, json: given.kind === "json", display };
}

export async function send() {
  const { topic, body, json, display } = fields();
  tell("Publishing…");
  try {
    const contentType = json ? "application/json" : "text/plain; charset=utf-8";
    const { id } = await publish(topic, body, { contentType, key: accessKey(), ...display });
    tell(`Published as ${id}`);
  } catch (error) {
    tell(error.detail || error.message, "error");
    if (asksForKey(error)) askForKey(send, error);
  }
}

function tell(text, className = "") {
  Object.assign($("outcome"), { textContent: text, className });
}

function showCommand() {
  $("publish-command").textContent = curlPublish(fields());
}

/** Opens the dialog; with a message, filled in with it. */
export function openPublishing(message) {
  if (message) {
    const { topic, data, body, title = "", click = "", priority = "", tags = [] } = message;
    form.elements.kind.value = body ? "json" : "text";
    const filled = { topic, body: body ?? (message.encoding ? "" : String(data)), title, click, priority, tags };
    for (const [name, value] of Object.entries(filled)) form.elements[name].value = value;
  }
  tell("");
  showCommand();
  if (!$("publishing").open) $("publishing").show(); // beside the feed, where what is published appears
}

form.addEventListener("submit", (event) => (event.preventDefault(), send()));
form.addEventListener("input", showCommand);
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
onKey(showCommand);
