/** The caller's key, kept for this tab and this session, and requests that carry it. */

import { $ } from "./page.js";

const KEY = "notifier.key"; // never in the address, which gets shared

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

export const accessKey = () => stored.getItem(KEY) ?? undefined;
export const address = (path) => new URL(path, document.baseURI).href;

/** The response to a GET of `path`; its error has the service's sentence as its message. */
export async function get(path) {
  const key = accessKey();
  let response;
  try {
    response = await fetch(address(path), { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  } catch {
    throw new Error("The server cannot be reached now.");
  }
  if (response.ok) return response;
  const { status } = response;
  const { detail = `The server answers with ${status}.` } = (await response.json().catch(() => {})) ?? {};
  throw Object.assign(new Error(detail), { status, detail });
}

let afterKey = () => {};
const changed = [];

/** Calls `then` each time the key changes. */
export const onKey = (then) => changed.push(then);

/** A caller without a key is refused with 403 where others may do something without one. */
export const asksForKey = ({ status }) => status === 401 || (status === 403 && !accessKey());

/** Opens the dialog for a key, and calls `then` once there is one. */
export function askForKey(then, { status, detail }) {
  afterKey = then;
  const reason = accessKey() ? `The key that was given is refused. ${detail}` : status === 403 && detail;
  Object.assign($("key-reason"), { hidden: !reason, textContent: reason || "" });
  $("key").value = "";
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

export function setKey(key) {
  if (key) stored.setItem(KEY, key);
  else stored.removeItem(KEY);
  $("forget").hidden = !key;
  for (const then of changed) then();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("key-dialog").close();
  const { submitter } = event;
  if (submitter?.value === "cancel") return;
  setKey($("key").value.trim());
  afterKey();
});
