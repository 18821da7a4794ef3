/** Commands to copy, and topics in addresses. */

import { $ } from "./page.js";
import { accessKey, address } from "./session.js";

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A list of topics as a part of an address, with what is legible there left as it is. */
export const fragment = (topics) => encodeURIComponent(topics).replace(/%(2F|2C|3A|40|3D|2B)/g, decodeURIComponent);

/** The curl command for a list of topics, or for `path`. The key is not in it, but the variable for it. */
export function curl(topics, query = {}, options = [], path = `v1/topics/${fragment(topics)}`) {
  const url = address(path) + (String(new URLSearchParams(query)) && `?${new URLSearchParams(query)}`);
  const key = accessKey() ? ['-H "Authorization: Bearer $NOTIFIER_KEY"'] : [];
  return ["curl", ...key, ...options, quote(url)].join(" ");
}

/** The curl command that publishes; of the bytes of a message, as they are, those that the server has. */
export function curlPublish({ topic, body, json, kept, display }) {
  if (kept) {
    const from = curl("", {}, ["-s"], `v1/messages/${kept.id}`);
    return `${from} | ${curl(topic, display, ["--data-binary @-", "-H", quote(`Content-Type: ${kept.type}`)])}`;
  }
  // -d would read a file for a body that begins with @
  const data = body.startsWith("@") ? "--data-raw" : "-d";
  return curl(topic, display, [...(json ? [] : ["-H 'Content-Type: text/plain'"]), data, quote(body)]);
}

/** The command that sends the message `id` to a server of the reader's once more, as it came. */
export const forward = (topic, id) =>
  `notifier forward ${quote(topic)} http://localhost:3000/webhooks --id ${id} --url ${quote(address("").replace(/\/$/, ""))}`;

export const sql = (topic) => `select notifier.publish('${topic.replaceAll("'", "''")}', '{"from": "SQL"}');`;

/** Puts `text` on the clipboard, and says so on `button`; where there is none, selects `source` for Ctrl+C. */
export async function copy(button, text, source) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // No clipboard on plain http beyond this machine.
    if (source) getSelection().selectAllChildren(source);
    else button.textContent = "No clipboard";
  }
  setTimeout(() => (button.textContent = label), 2_000);
}

for (const button of document.querySelectorAll("[data-copies]")) {
  const source = $(button.dataset.copies);
  button.addEventListener("click", () => copy(button, source.textContent, source));
}
